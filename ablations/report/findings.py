"""What the records say of the three changes, in words and as one table: which matters, for what, and how surely.

Everything is made from the values of the report's tables. Costs are of the largest variant that has all eight
arms, speed of the largest that was timed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from ablations.analysis.effects import CHANGES, arm_with
from ablations.analysis.grouping import describe, group_by, list_changed
from ablations.config import VARIANTS
from ablations.records import METRICS
from ablations.report.differences import effect_name
from ablations.report.effect_values import PUBLISHED_STEP
from ablations.report.tables import NOTHING, Table, interval_text, list_sections, metric_text, points_text

Tables = Mapping[Table, pd.DataFrame]

_PARTS_OF_STEP = ("base, at v1", "ope, in base v2")
"""Of BASE_PARTS, those that the published step is made of."""

Tone = Literal["gain", "loss", "none", "unresolved", "unknown"]

_TONES: dict[Tone, str] = {
    "gain": "better",
    "loss": "worse",
    "none": "no change",
    "unresolved": "unresolved",
    "unknown": "not measured",
}


@dataclass(frozen=True)
class Finding:
    """One sentence or more on one topic."""

    topic: str
    where: str
    """Under which conditions it holds."""
    text: str


@dataclass(frozen=True)
class Verdict:
    """What one change does to one thing: in words, and whether that is for the better."""

    text: str
    tone: Tone
    value: float = 0.0
    """What it does, 0 where that is nothing or unresolved."""
    short: str = NOTHING
    """The value as it is printed, without its interval."""


@dataclass(frozen=True)
class Comparison:
    """What each of CHANGES does to one thing."""

    what: str
    where: str
    basis: str
    """What makes it sure: the number of seeds or steps, or that it is exact."""
    verdicts: list[Verdict]


def list_headlines(comparisons: list[Comparison]) -> list[Finding]:
    """Returns, for each thing that was compared, what each change does to it and in how many of the comparisons.

    Changes stand in the order of the most that they do, so that the first is the one that matters most.
    """
    headlines = []
    for what in dict.fromkeys(comparison.what for comparison in comparisons):
        own = [comparison for comparison in comparisons if comparison.what == what]
        by_change = dict(zip(CHANGES, zip(*(comparison.verdicts for comparison in own), strict=True), strict=True))
        ranked = sorted(by_change, key=lambda change: -max(abs(verdict.value) for verdict in by_change[change]))
        parts = [f"{change} {_tally(by_change[change])}" for change in ranked]
        bases = dict.fromkeys(comparison.basis for comparison in own)
        headlines.append(Finding(what, ", ".join(bases), f"{'; '.join(parts)}."))
    return headlines


def _tally(verdicts: Sequence[Verdict]) -> str:
    """Returns how often a change is for the better or not, each with the range of what it does."""
    parts = []
    for tone, words in _TONES.items():
        own = sorted((verdict for verdict in verdicts if verdict.tone == tone), key=lambda verdict: verdict.value)
        if own:
            ends = " to ".join(dict.fromkeys([own[0].short, own[-1].short]))
            parts.append(f"{words} in {len(own)} of {len(verdicts)}" + (f" ({ends})" if own[0].value else ""))
    return ", ".join(parts)


def list_findings(tables: Tables) -> list[Finding]:
    """Returns what else can be said from the values of the report's tables, most asked-for first."""
    return [
        *_of_accuracy(tables),
        *_of_cumulative(tables),
        *_of_crossover(tables),
        *_of_base(tables),
        *_of_limits(tables),
    ]


def list_comparisons(tables: Tables) -> list[Comparison]:
    """Returns what each change does to accuracy, parameters, MACs, memory and speed."""
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
        yield from ((title, group.rows) for title, group in zip(titles, groups, strict=True))


def _largest_variant(values: pd.DataFrame) -> str:
    sizes = {name: size for size, name in enumerate(VARIANTS)}
    return max(values["variant"].unique(), key=lambda name: sizes.get(name, -1))


def _both_ends(rows: pd.DataFrame) -> list[str]:
    """Returns the smallest and the largest resolution, or the only one."""
    sizes = rows.sort_values("pixels")["resolution"].tolist()
    return list(dict.fromkeys([sizes[0], sizes[-1]]))


def _accuracies(tables: Tables) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yields the effects on accuracy under equal conditions: their title, the number of seeds, the rows."""
    for title, rows in _groups(tables, "effects_accuracy"):
        n = int(rows["n_seeds"].iloc[0])
        if n:
            yield title, f"n = {n} seed{'s' if n > 1 else ''}", rows


def _effect(row: pd.Series) -> str:
    return f"{effect_name(row['effect'])} {points_text(row['top1_effect_mean'])} ({_interval(row)})"


def _interval(row: pd.Series) -> str:
    return interval_text(row, "top1_effect").removesuffix(", unresolved")


def _of_accuracy(tables: Tables) -> Iterator[Finding]:
    for title, basis, rows in _accuracies(tables):
        where = f"{title}, {basis}"
        if rows["top1_effect_low"].isna().all():
            effects = ", ".join(
                f"{row['effect']} {points_text(row['top1_effect_mean'])}" for _, row in _ranked(rows, 1).iterrows()
            )
            yield Finding("Accuracy", where, f"One seed has no interval, so nothing is resolved: {effects} points.")
            continue
        resolved, open_ = (
            [_effect(row) for _, row in _ranked(rows, 1).iterrows() if bool(row["top1_effect_resolved_holm"]) == wanted]
            for wanted in (True, False)
        )
        parts = []
        if resolved:
            first, *others = resolved
            parts.append(f"Most is done by {first}, in points of top-1 with the 95 % interval.")
            parts += (
                [f"Resolved too, after Holm's correction for seven effects: {', '.join(others)}."] if others else []
            )
        if open_:
            parts.append(
                f"{'Unresolved' if resolved else 'No change is resolved, in points of top-1'}: {', '.join(open_)}."
            )
        parts.append(_interactions(rows))
        yield Finding("Accuracy", where, " ".join(parts))


def _ranked(rows: pd.DataFrame, order: int) -> pd.DataFrame:
    """Returns the effects of so many changes, largest first."""
    own = rows[rows["order"] == order]
    return own.loc[own["top1_effect_mean"].abs().sort_values(ascending=False, kind="stable").index]


def _interactions(rows: pd.DataFrame) -> str:
    found = rows[(rows["order"] > 1) & rows["top1_effect_resolved_holm"].astype(bool)]
    words = []
    for _, row in found.iterrows():
        less_or_more = "less" if row["top1_effect_mean"] < 0 else "more"
        meaning = f", each does {less_or_more} where the other is" if row["order"] == 2 else ""
        words.append(f"{_effect(row)}{meaning}")
    return f"Interactions: {'; '.join(words)}." if words else "No interaction is resolved."


def _of_crossover(tables: Tables) -> Iterator[Finding]:
    for title, rows in _groups(tables, "crossover"):
        sides = rows.get("crossover_px_p7", pd.Series(dtype=float)).dropna()
        if not sides.empty:
            ends = " to ".join(dict.fromkeys(f"{side:.0f}" for side in (sides.min(), sides.max())))
            text = f"With P = 7, lsra takes fewer MACs than SRA from {ends} px on, by variant."
            yield Finding("Where linear SRA pays", title, text)


def _of_cumulative(tables: Tables) -> Iterator[Finding]:
    for title, rows in _groups(tables, "cumulative_steps"):
        parts = []
        for _, row in rows.iterrows():
            if pd.isna(row["top1_step_mean"]):
                parts.append(f"{row['arm']} {metric_text('top1', row['top1_mean'])} % top-1")
                continue
            step = f"{points_text(row['top1_step_mean'])} ({interval_text(row, 'top1_step')}; n = {row['n_pairs']}"
            parts.append(f"{row['arm']} {step}; the paper's {row['paper_top1_step_points']:+.1f})")
        yield Finding("The paper's cumulative in our own training", title, f"{', then '.join(parts)}.")


def _of_base(tables: Tables) -> Iterator[Finding]:
    for title, rows in _groups(tables, "confounders_cost", largest=True):
        params = rows.drop_duplicates("part").set_index("part")["params_part"].dropna() / METRICS["params"].divisor
        if not {PUBLISHED_STEP, *_PARTS_OF_STEP} <= set(params.index):
            continue
        base, ope = (f"{params[part]:+.2f} M" for part in _PARTS_OF_STEP)
        text = (
            f"Of the paper's first step, {params[PUBLISHED_STEP]:+.2f} M parameters, ope is {ope} and the change of "
            f"base {base}."
        )
        yield Finding("What came with the base", title, text)


def _of_limits(tables: Tables) -> Iterator[Finding]:
    """Says what the accuracies are of, because that is how far they reach."""
    trained = []
    for _, rows in _groups(tables, "effects_accuracy"):
        conditions = {str(name): value for name, value in rows.iloc[0].items()}
        names = ("variant", "data", "resolution", "epochs", "n_train_images", *list_changed(conditions))
        trained.append(describe(conditions, names))
    if trained:
        text = (
            f"Accuracy was trained from scratch: {'; '.join(trained)}. The records do not say whether it holds for "
            "other sizes, data or recipes. Counts are exact and say nothing of time; each time is of one machine."
        )
        yield Finding("How far this reaches", "", text)


def _compare_accuracy(tables: Tables) -> Iterator[Comparison]:
    for title, basis, rows in _accuracies(tables):
        by_effect = {row["effect"]: row for _, row in rows.iterrows()}
        yield Comparison("Top-1, points", title, basis, [_accuracy_verdict(by_effect[change]) for change in CHANGES])


def _accuracy_verdict(effect: pd.Series) -> Verdict:
    mean = effect["top1_effect_mean"]
    text = f"{points_text(mean)} ({_interval(effect)})"
    if effect["top1_effect_resolved_holm"]:
        return Verdict(text, "gain" if mean > 0 else "loss", mean, points_text(mean))
    return Verdict(f"{text}, unresolved{' after Holm' if effect['top1_effect_resolved'] else ''}", "unresolved")


def _compare_costs(tables: Tables, name: str, metric: str) -> Iterator[Comparison]:
    column = f"{metric}_effect_percent"
    for title, rows in _groups(tables, name, largest=True):
        own = rows[rows["order"] == 1].dropna(subset=column)
        for resolution in _both_ends(own)[: 1 if metric == "params" else 2] if not own.empty else ():
            percents = own[own["resolution"] == resolution].set_index("effect")[column]
            at = "" if metric == "params" else f", {resolution} px"
            verdicts = [_cost_verdict(percents[change]) for change in CHANGES]
            # What a change does to memory is another thing with each kernel.
            kernel = f" with {own['attention'].iloc[0]} attention" if metric == "peak_memory_bytes" else ""
            yield Comparison(f"{METRICS[metric].label}{kernel}, % of v1's", f"{title}{at}", "exact", verdicts)


def _cost_verdict(percent: float) -> Verdict:
    text = f"{percent:+z.1f} %"
    tone: Tone = "none" if float(text[:-2]) == 0 else "loss" if percent > 0 else "gain"
    return Verdict(text, tone, percent, text)


def _compare_speed(tables: Tables) -> Iterator[Comparison]:
    for title, rows in _groups(tables, "speed", largest=True):
        n = int(rows["repeats"].iloc[0])
        verdicts = [_speed_verdict(rows[rows["arm"] == arm_with({change})]) for change in CHANGES]
        yield Comparison(METRICS["relative_speed"].label, title, f"n = {n} steps", verdicts)


def _speed_verdict(rows: pd.DataFrame) -> Verdict:
    """Returns how fast v1 with one change is, from its row if it was timed."""
    if rows.empty:
        return Verdict(NOTHING, "unknown")
    speed, low, high = (rows[f"relative_speed{end}"].iloc[0] for end in ("", "_low", "_high"))
    text = f"{speed:.3f} ({low:.3f} to {high:.3f}){', noisy' if rows['noisy'].iloc[0] else ''}"
    if low <= 1 <= high:
        return Verdict(f"{text}, unresolved", "unresolved")
    return Verdict(text, "gain" if speed > 1 else "loss", speed - 1, f"{speed:.3f}")
