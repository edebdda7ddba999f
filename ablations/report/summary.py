"""What the records say of the toggles, in words and as one table: which matters, for what, and how surely.

Everything is made from the values of the report's tables. Costs are of the largest variant that has a factorial, speed
of the largest that was timed. A sentence about accuracy claims what its table claims, and no more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from ablations.analysis.confounders import BASE_OF_STEP, DIFFERENCE_OF_GAINS, GAIN, OPE_OF_STEP, PUBLISHED_STEP
from ablations.analysis.grouping import describe, group_by, list_changed
from ablations.config import VARIANTS
from ablations.measure.metrics import METRICS
from ablations.report.accuracy import claim_text, difference_text, ends_text, seeds_text
from ablations.report.effects import effect_name
from ablations.report.tables import NOTHING, Table, list_sections, metric_text, points_text

Tables = Mapping[Table, pd.DataFrame]

Tone = Literal["gain", "loss", "none", "unresolved", "unknown"]

_TONES: dict[Tone, str] = {
    "gain": "better",
    "loss": "worse",
    "none": "no change",
    "unresolved": "not claimed",
    "unknown": "not measured",
}


@dataclass(frozen=True)
class Statement:
    """One sentence or more on one topic."""

    topic: str
    where: str
    """Under which conditions it holds."""
    text: str


@dataclass(frozen=True)
class Answer:
    """What one toggle does to one thing: in words, and whether that is for the better."""

    text: str = NOTHING
    tone: Tone = "unknown"
    value: float = 0.0
    """What it does, 0 where that is nothing or not claimed."""
    short: str = NOTHING
    """The value as it is shown, without its interval."""


@dataclass(frozen=True)
class Comparison:
    """What each toggle does to one thing."""

    what: str
    where: str
    basis: str
    """What makes it sure: the number of seeds or steps, or that it is exact."""
    answers: dict[str, Answer]
    """By toggle."""


def list_tallies(comparisons: Sequence[Comparison]) -> list[Statement]:
    """Returns, for each thing that was compared, what each toggle does to it and in how many of the comparisons.

    Toggles stand in the order of the most that they do, so that the first is the one that matters most.
    """
    tallies = []
    for what in dict.fromkeys(comparison.what for comparison in comparisons):
        own = [comparison for comparison in comparisons if comparison.what == what]
        toggles = dict.fromkeys(toggle for comparison in own for toggle in comparison.answers)
        by_toggle = {name: [each.answers[name] for each in own if name in each.answers] for name in toggles}
        ranked = sorted(by_toggle, key=lambda name: -max(abs(answer.value) for answer in by_toggle[name]))
        bases = dict.fromkeys(comparison.basis for comparison in own)
        text = "; ".join(f"{name} {_tally(by_toggle[name])}" for name in ranked)
        tallies.append(Statement(what, ", ".join(bases), f"{text}."))
    return tallies


def _tally(answers: Sequence[Answer]) -> str:
    """Returns how often a toggle is for the better or not, each with the range of what it does."""
    parts = []
    for tone, words in _TONES.items():
        own = sorted((answer for answer in answers if answer.tone == tone), key=lambda answer: answer.value)
        if own:
            ends = " to ".join(dict.fromkeys([own[0].short, own[-1].short]))
            parts.append(f"{words} in {len(own)} of {len(answers)}" + (f" ({ends})" if own[0].value else ""))
    return ", ".join(parts)


def list_statements(tables: Tables) -> list[Statement]:
    """Returns what else can be said from the values of the report's tables, most asked-for first."""
    return [
        *_of_base_gains(tables),
        *_of_single_confounders(tables),
        *_of_accuracy(tables),
        *_of_cumulative(tables),
        *_of_resolution(tables),
        *_of_crossover(tables),
        *_of_base(tables),
        *_of_limits(tables),
    ]


def list_comparisons(tables: Tables) -> list[Comparison]:
    """Returns what each toggle does to accuracy, parameters, MACs, memory and speed."""
    return [
        *_compare_accuracy(tables),
        *_compare_costs(tables, "effects_cost", "params"),
        *_compare_costs(tables, "effects_cost", "macs"),
        *_compare_costs(tables, "effects_memory", "peak_memory_bytes"),
        *_compare_speed(tables),
    ]


def _groups(tables: Tables, name: str, *, largest: bool = False) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields the rows of a table under equal conditions, with the title that the table gives them.

    With `largest`, only those of the largest variant.
    """
    for table, values in tables.items():
        if table.name != name:
            continue
        own = values[values["variant"] == _largest_variant(values)] if largest else values
        titles = [section.title for section in list_sections(table, own)]
        groups = group_by(own, table.conditions)
        yield from (
            (title, group.rows)
            for title, group in zip(titles, groups, strict=True)
            if pd.isna(group.conditions.get("changed"))  # single confounders have a statement of their own
        )


def _largest_variant(values: pd.DataFrame) -> str:
    """Returns the largest variant among those in which the most toggles are varied."""
    sizes = {name: size for size, name in enumerate(VARIANTS)}
    factors = values["toggles"].str.count(",") if "toggles" in values else pd.Series(0, index=values.index)
    fullest = values[factors == factors.max()]
    return max(fullest["variant"].unique(), key=lambda name: sizes.get(name, -1))


def _both_ends(rows: pd.DataFrame) -> list[str]:
    """Returns the smallest and the largest resolution, or the only one."""
    sizes = rows.sort_values("pixels")["resolution"].tolist()
    return list(dict.fromkeys([sizes[0], sizes[-1]]))


def _accuracies(tables: Tables) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yields the effects on accuracy under equal conditions: their title, the number of seeds, the rows."""
    for title, rows in _groups(tables, "effects_accuracy"):
        n = seeds_text(rows.iloc[0])
        if rows["n_seeds"].iloc[0]:
            yield title, f"n = {n} seed{'' if n == '1' else 's'}", rows


def _effect(row: pd.Series) -> str:
    mean, ends = points_text(row["top1_effect_mean"]), ends_text(row, "top1_effect")
    return f"{effect_name(row['effect'])} {mean} ({ends})"


def _of_accuracy(tables: Tables) -> Iterator[Statement]:
    for title, basis, rows in _accuracies(tables):
        ranked = _ranked(rows, 1)
        claims = [claim_text(row, "top1_effect") for _, row in ranked.iterrows()]
        main = dict(zip([_effect(row) for _, row in ranked.iterrows()], claims, strict=True))
        if "exploratory" in claims:
            text = f"Exploratory, too few seeds to claim anything: {', '.join(main)}, in points of top-1."
            yield Statement("Accuracy", f"{title}, {basis}", text)
            continue
        resolved = [effect for effect, claim in main.items() if claim == "resolved"]
        others = [effect for effect, claim in main.items() if claim != "resolved"]
        parts = []
        if resolved:
            text = "Resolved by Holm's correction for all effects, largest first, in points of top-1 (95 % interval)"
            parts.append(f"{text}: {', '.join(resolved)}.")
        if others:
            parts.append(f"{'Unresolved' if resolved else 'No toggle is resolved'}: {', '.join(others)}.")
        parts.append(_interactions(rows))
        yield Statement("Accuracy", f"{title}, {basis}", " ".join(filter(None, parts)))


def _ranked(rows: pd.DataFrame, order: int) -> pd.DataFrame:
    """Returns the effects of so many toggles, largest first."""
    own = rows[rows["order"] == order]
    return own.loc[own["top1_effect_mean"].abs().sort_values(ascending=False, kind="stable").index]


def _interactions(rows: pd.DataFrame) -> str:
    interactions = rows[rows["order"] > 1]
    words = []
    for _, row in interactions[interactions["top1_effect_resolved"].astype(bool)].iterrows():
        less_or_more = "less" if row["top1_effect_mean"] < 0 else "more"
        meaning = f", each does {less_or_more} where the other is" if row["order"] == 2 else ""
        words.append(f"{_effect(row)}{meaning}")
    if words:
        return f"Interactions: {'; '.join(words)}."
    return "No interaction is resolved." if len(interactions) else ""


def _of_base_gains(tables: Tables) -> Iterator[Statement]:
    for title, rows in _groups(tables, "base_gains"):
        parts = {row["part"]: difference_text(row, "top1_part") for _, row in rows.iterrows()}
        text = (
            f"{rows['arm'].iloc[0]} gains over v1, in points of top-1: {parts['gain in base v1']} in base v1 and "
            f"{parts['gain in base v2']} in base v2; the difference is {parts[DIFFERENCE_OF_GAINS]}."
        )
        yield Statement(
            "Do toggles and confounders need each other?", f"{title}, n = {rows['top1_part_n'].min()}", text
        )


def _of_single_confounders(tables: Tables) -> Iterator[Statement]:
    for title, rows in _groups(tables, "single_confounders"):
        gains = rows[rows["part"] == GAIN]
        words = [f"{row['changed']} {difference_text(row, 'top1_part')}" for _, row in gains.iterrows()]
        if words:
            text = f"Setting one confounder changes the gain over v1, in points of top-1: {', '.join(words)}."
            yield Statement("Which confounder is it?", title, text)


def _of_crossover(tables: Tables) -> Iterator[Statement]:
    for title, rows in _groups(tables, "crossover"):
        sides = rows.get("crossover_px_p7", pd.Series(dtype=float)).dropna()
        if not sides.empty:
            ends = " to ".join(dict.fromkeys(f"{side:.0f}" for side in (sides.min(), sides.max())))
            text = f"With P = 7, lsra takes fewer MACs than SRA from {ends} px on, by variant."
            yield Statement("Where linear SRA pays", title, text)


def _of_cumulative(tables: Tables) -> Iterator[Statement]:
    for title, rows in _groups(tables, "cumulative_accuracy"):
        parts = []
        for _, row in rows.iterrows():
            if pd.isna(row["top1_step_mean"]):
                parts.append(f"{row['arm']} {metric_text('top1', row['top1_mean'])} % top-1")
                continue
            reported = row["reported_top1_step_points"]
            beside = "" if pd.isna(reported) else f", reported {reported:+.1f}"
            parts.append(f"{row['arm']} {difference_text(row, 'top1_step')}{beside}")
        yield Statement("The paper's cumulative ablation in our own training", title, f"{', then '.join(parts)}.")


def _of_resolution(tables: Tables) -> Iterator[Statement]:
    for title, rows in _groups(tables, "resolution_transfer"):
        falls = rows.dropna(subset="top1_fall_mean").sort_values("pixels")
        for arm, own in falls.groupby("arm", sort=False):
            last = own.iloc[-1]
            text = (
                f"From {last['trained_at']} to {last['resolution']} px, the lead of {arm} over v1 changes by "
                f"{difference_text(last, 'top1_fall')} points."
            )
            yield Statement("Other test resolutions", title, text)


def _of_base(tables: Tables) -> Iterator[Statement]:
    for title, rows in _groups(tables, "confounders_cost", largest=True):
        params = rows.drop_duplicates("part").set_index("part")["params_part"].dropna() / METRICS["params"].divisor
        if not {PUBLISHED_STEP, BASE_OF_STEP, OPE_OF_STEP} <= set(params.index):
            continue
        text = (
            f"Of the paper's first step, {params[PUBLISHED_STEP]:+.2f} M parameters, ope is "
            f"{params[OPE_OF_STEP]:+.2f} M and the change of base {params[BASE_OF_STEP]:+.2f} M."
        )
        yield Statement("What came with the base", title, text)


def _of_limits(tables: Tables) -> Iterator[Statement]:
    """Says what the accuracies are of, because that is how far they reach."""
    trained = []
    for _, rows in _groups(tables, "effects_accuracy"):
        conditions = {str(name): value for name, value in rows.iloc[0].items()}
        names = ("variant", "base", "data", "resolution", "epochs", "n_train_images", *list_changed(conditions))
        trained.append(describe(conditions, names))
    if trained:
        text = (
            f"Accuracy was trained from scratch: {'; '.join(dict.fromkeys(trained))}. The records do not say whether "
            "it holds for other sizes, data or recipes. Counts are exact and say nothing of time; each time is of one "
            "machine."
        )
        yield Statement("How far this reaches", "", text)


def _compare_accuracy(tables: Tables) -> Iterator[Comparison]:
    for title, basis, rows in _accuracies(tables):
        answers = {row["effect"]: _accuracy_answer(row) for _, row in rows[rows["order"] == 1].iterrows()}
        yield Comparison("Top-1, points", title, basis, answers)


def _accuracy_answer(effect: pd.Series) -> Answer:
    mean, text = effect["top1_effect_mean"], difference_text(effect, "top1_effect")
    if effect["top1_effect_resolved"]:
        return Answer(text, "gain" if mean > 0 else "loss", mean, points_text(mean))
    return Answer(text, "unresolved")


def _compare_costs(tables: Tables, name: str, metric: str) -> Iterator[Comparison]:
    column = f"{metric}_effect_percent"
    for title, rows in _groups(tables, name, largest=True):
        own = rows[rows["order"] == 1].dropna(subset=column)
        for resolution in _both_ends(own)[: 1 if metric == "params" else 2] if not own.empty else ():
            percents = own[own["resolution"] == resolution].set_index("effect")[column]
            at = "" if metric == "params" else f", {resolution} px"
            answers = {str(toggle): _cost_answer(percent) for toggle, percent in percents.items()}
            # What a toggle does to memory is another thing with each kernel.
            kernel = f" with {own['attention'].iloc[0]} attention" if metric == "peak_memory_bytes" else ""
            yield Comparison(f"{METRICS[metric].label}{kernel}, % of v1's", f"{title}{at}", "exact", answers)


def _cost_answer(percent: float) -> Answer:
    text = f"{percent:+z.1f} %"
    tone: Tone = "none" if float(text[:-2]) == 0 else "loss" if percent > 0 else "gain"
    return Answer(text, tone, percent, text)


def _compare_speed(tables: Tables) -> Iterator[Comparison]:
    for title, rows in _groups(tables, "speed", largest=True):
        alone = {
            str(arm).split("+")[1]: row for arm, row in rows.set_index("arm").iterrows() if str(arm).count("+") == 1
        }
        answers = {toggle: _speed_answer(row) for toggle, row in alone.items()}
        if answers:
            yield Comparison(METRICS["relative_speed"].label, title, f"n = {rows['repeats'].iloc[0]} steps", answers)


def _speed_answer(row: pd.Series) -> Answer:
    """Returns how fast v1 with one toggle is, from its row."""
    speed, low, high = (row[f"relative_speed{end}"] for end in ("", "_low", "_high"))
    text = f"{speed:.3f} ({low:.3f} to {high:.3f}){', noisy' if row['noisy'] else ''}"
    if low <= 1 <= high:
        return Answer(f"{text}, unresolved", "unresolved")
    return Answer(text, "gain" if speed > 1 else "loss", speed - 1, f"{speed:.3f}")
