"""The answer in a few lines: which toggle matters most, what each does to accuracy wherever it was trained, and what
each costs."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

import pandas as pd

from ablations.analysis.comparison import MEMORY_STEPS
from ablations.analysis.effects import CLEAN_BASES
from ablations.analysis.grouping import REFERENCE, describe, varying
from ablations.analysis.speed import holds_one
from ablations.analysis.statistics import FEWEST_TO_CLAIM
from ablations.config import TOGGLES, AttentionKernel, arm_name
from ablations.report.accuracy import claim_text, difference_text, ends_text
from ablations.report.comparison import (
    SPEEDS,
    has_all_seeds,
    percent_text,
    place_of,
    size_of,
    speed_text,
    training_speed,
)
from ablations.report.summary import ShownComparison, Statement
from ablations.report.tables import NOTHING, Section, ShownColumn, change_of, points_text

LARGEST = " Bold: largest effect, resolved."
"""What bold cells of the first overview say."""

_MODEL = ("variant", "base", "stem_stride", "pool_size")
_TRAINED = ("variant", "base", "data", "pool_size", "epochs", "n_train_images")
_MACS = "macs_large_change_percent"

QUESTION = "Which toggle matters most?"
"""What `list_answers` answers."""


def list_answers(comparisons: list[ShownComparison]) -> list[Statement]:
    """Returns which toggle matters most for accuracy in each base, for MACs, and for memory and training speed.

    Of accuracy it says which toggle has the largest effect, on average over the settings of the others, in how many of
    the trainings in that base, those that are not resolved to be smaller, which lose, and what the strongest
    interaction of the first training means. Costs are those of v1 with one toggle, in the first comparison that has
    them, of one without a training before others; of base published there are none, where arms differ in more.
    """
    trained = _trained(comparisons)
    labels = _label(trained, ("variant", "data"))
    answers = []
    for base in dict.fromkeys(each.group.conditions["base"] for each in trained):
        own = {
            label: each for label, each in zip(labels, trained, strict=True) if each.group.conditions["base"] == base
        }
        effects = {label: _of_toggles(each, "top1_effect_mean") for label, each in own.items()}
        text = "; ".join([_say_largest(effects), *_say_losses(effects)])
        answers.append(Statement(f"Accuracy in base {base}", "", f"{text}.{_say_overlap(*next(iter(own.items())))}"))
    costs = {"MACs": _say_macs, "Training memory": _say_memory, "Training speed": _say_speed}
    said = {topic: say(comparisons) for topic, say in costs.items()}
    return [*answers, *(Statement(topic, "", f"{text}.") for topic, text in said.items() if text)]


def list_overviews(comparisons: list[ShownComparison]) -> list[Section]:
    """Returns up to two small tables: what each toggle does to top-1, a row a training, and what each toggle costs."""
    return [*_gains(_trained(comparisons)), *_costs(comparisons)]


def _gains(trained: list[ShownComparison]) -> Iterator[Section]:
    """Yields each toggle's main effect on top-1 in every training."""
    if not trained:
        return
    effects = [_of_toggles(each, "top1_effect_mean") for each in trained]
    columns = [_column("Trained", _label(trained))]
    for toggle in TOGGLES:
        cells = [difference_text(own[toggle], "top1_effect") if toggle in own else NOTHING for own in effects]
        columns.append(ShownColumn(toggle, cells, [_leading(own) == [toggle] and len(own) > 1 for own in effects]))
    columns.append(_column("n", [_seeds_text(own.values()) for own in effects]))
    columns.append(_column("Validated on", [f"{each.group.rows['n_eval_images'].iloc[0]:,.0f}" for each in trained]))
    shown = [column for column in columns if set(column.cells) != {NOTHING}]
    bold = LARGEST if any(any(column.is_best) for column in shown) else ""
    caption = f"95 % intervals over n seeds, not images.{_say_rates(trained)}{bold}"
    yield Section("Points of top-1 that each toggle adds, averaged over the others' settings", shown, caption)


def _say_rates(trained: list[ShownComparison]) -> str:
    """Says of which trainings trials chose the learning rate, unless it is all of them."""
    chosen = [str(row) for row, each in enumerate(trained, start=1) if each.group.rows["has_chosen_rate"].all()]
    if len(chosen) == len(trained):
        return ""
    rows = " and ".join(filter(None, (", ".join(chosen[:-1]), *chosen[-1:])))
    where = f"in row{'s' * (len(chosen) > 1)} {rows} only" if chosen else "nowhere"
    return f" Learning rates were tuned {where}."


def _seeds_text(rows: Iterable[pd.Series]) -> str:
    seeds = {int(row["top1_effect_n"]) for row in rows}
    return " to ".join(map(str, sorted({min(seeds), max(seeds)})))


def _say_overlap(label: str, shown: ShownComparison) -> str:
    """Says what the strongest resolved interaction of two toggles means; nothing where none is resolved."""
    rows = shown.group.rows
    found = rows[rows["overlap_of"].notna()] if "overlap_of" in rows else rows[:0]
    if found.empty:
        return ""
    row = found.iloc[0]
    without, beside = (difference_text(row, f"top1_{where}") for where in ("without", "with"))
    return f" In {label}, {row['overlap_of']} adds {without} without {row['overlap_with']}, {beside} with it."


def _costs(comparisons: Iterable[ShownComparison]) -> Iterator[Section]:
    """Yields what each toggle alone changes in the costs of the first model without a training."""
    shown = _first_with(comparisons, _changes_macs)
    if shown is None or _has_data(shown):
        return
    rows, first = _of_toggles(shown, _MACS), shown.group.rows.iloc[0]
    headings = {
        "params": "Parameters",
        "macs": f"MACs, {first['counted_at']}",
        "macs_large": f"MACs, {first['large_at']}",
        **{f"memory_{mode}_{kernel}": f"Memory, {kernel}" for mode, kernel in MEMORY_STEPS if mode == "training"},
    }
    columns = [_column("Toggle", list(rows))]
    for metric, heading in headings.items():
        columns.append(_column(heading, [change_of(metric)(row) or NOTHING for row in rows.values()]))
    speed, speed_at = training_speed(shown.group.rows)
    if speed:
        cells = [speed_text(row, speed) if pd.notna(row[speed]) else NOTHING for row in rows.values()]
        columns.append(_column(f"Speed, {size_of(first, speed_at)}, v1 = 1", cells))
    columns = [column for column in columns if set(column.cells) != {NOTHING}]
    title = f"What each toggle alone costs, beside {REFERENCE}: {describe(shown.group.conditions, _MODEL)}"
    words = {what: shown.group.conditions.get(at) for what, at in (("memory", "memory_at"), ("speed", speed_at))}
    captions = [f" Training {what}: {said}." for what, said in words.items() if pd.notna(said)]
    yield Section(title, columns, f"Counts are exact.{''.join(captions)}")


def _column(heading: str, cells: list[str]) -> ShownColumn:
    return ShownColumn(heading, cells, [False] * len(cells))


def _trained(comparisons: list[ShownComparison]) -> list[ShownComparison]:
    """Returns the comparisons with effects on accuracy, of several learning rates the first.

    Those with too few seeds to claim anything are left out where others have enough.
    """
    with_effects = [each for each in comparisons if _has_data(each) and _of_toggles(each, "top1_effect_mean")]
    enough = [
        each
        for each in with_effects
        if has_all_seeds(each.group.rows) and each.group.rows["n_seeds"].min() >= FEWEST_TO_CLAIM
    ]
    first: dict[object, ShownComparison] = {}
    for each in enough or with_effects:
        first.setdefault(tuple(each.group.conditions[name] for name in _TRAINED), each)
    return list(first.values())


def _label(trained: list[ShownComparison], always: tuple[str, ...] = ("variant", "base", "data")) -> list[str]:
    """Returns what each was trained as and on, with what else tells those of one variant and data set apart."""
    conditions = [each.group.conditions for each in trained]
    labels = []
    for names in conditions:
        alike = [each for each in conditions if (each["variant"], each["data"]) == (names["variant"], names["data"])]
        apart = [name for name in varying(alike) if name in _TRAINED and name != "base"]
        labels.append(describe(names, dict.fromkeys((*always, *apart))))
    return labels


def _has_data(shown: ShownComparison) -> bool:
    return not pd.isna(shown.group.conditions.get("data"))


def _first_with(
    comparisons: Iterable[ShownComparison], has_costs: Callable[[ShownComparison], Any]
) -> ShownComparison | None:
    """Returns the first comparison of arms that differ in toggles alone that has costs, one without a training before
    others."""
    clean = [each for each in comparisons if each.group.conditions["base"] in CLEAN_BASES]
    return min((each for each in clean if has_costs(each)), key=_has_data, default=None)


def _changes_macs(shown: ShownComparison) -> bool:
    return bool(_of_toggles(shown, _MACS))


def _of_toggles(shown: ShownComparison, column: str) -> dict[str, pd.Series]:
    """Returns the rows of the arms with one toggle that have a value in a column, by the toggle."""
    rows = {str(row["arm"]): row for _, row in shown.group.rows.iterrows()}
    own = {name: rows[arm_name([name])] for name in TOGGLES if arm_name([name]) in rows}
    return {name: row for name, row in own.items() if pd.notna(row.get(column))}


def _leading(effects: dict[str, pd.Series]) -> list[str]:
    """Returns the toggle with the largest resolved effect, and behind it those that are not resolved to be smaller."""
    leaders = [name for name, row in effects.items() if row["top1_leads"]]
    near = [name for name in effects if name not in leaders and effects[name].get("top1_behind_resolved") is not True]
    return [*leaders, *near] if leaders else []


def _say_largest(effects: dict[str, dict[str, pd.Series]]) -> str:
    """Returns the toggle that leads in most of the trainings in a base, which are named by their labels."""
    leading = {label: _leading(own) for label, own in effects.items()}
    firsts = [own[0] for own in leading.values() if own]
    if not firsts:
        label, own = next(iter(effects.items()))
        claims = {claim_text(row, "top1_effect") for row in own.values()}
        return f"{'exploratory' if 'exploratory' in claims else 'unresolved'} ({label})"
    most = max(firsts, key=firsts.count)
    led = {label: effects[label][most] for label, own in leading.items() if own[:1] == [most]}
    near = dict.fromkeys(name for label in led for name in leading[label][1:])
    words = f"; not resolved to be smaller: {', '.join(near)}" if near else ""
    return f"{most} matters most, {_say_sizes(led, len(effects))}{words}"


def _say_losses(effects: dict[str, dict[str, pd.Series]]) -> Iterator[str]:
    """Yields each toggle with a resolved loss in a base that is not the largest effect there."""
    for toggle in TOGGLES:
        losing = {
            label: own[toggle]
            for label, own in effects.items()
            if toggle in own
            and own[toggle]["top1_effect_mean"] < 0
            and claim_text(own[toggle], "top1_effect") == "resolved"
            and not own[toggle]["top1_leads"]
        }
        if losing:
            yield f"{toggle} loses, {_say_sizes(losing, len(effects))}"


def _say_sizes(rows: dict[str, pd.Series], of: int) -> str:
    """Returns an effect in one training with its interval, or the means of several of `of` trainings."""
    share = f" in {len(rows)} of {of} trainings" if of > 1 else ""
    if len(rows) == 1:
        ((label, row),) = rows.items()
        interval = f"95 % interval {ends_text(row, 'top1_effect')}"
        return f"{points_text(row['top1_effect_mean'])} points{share} ({interval}; {label})"
    means = sorted((row["top1_effect_mean"] for row in rows.values()), key=abs)
    return f"mean effects from {points_text(means[0])} to {points_text(means[-1])} points{share}"


def _say_macs(comparisons: list[ShownComparison]) -> str:
    shown = _first_with(comparisons, _changes_macs)
    toggle, change = _greatest_change(shown, _MACS) if shown else ("", 0.0)
    if not shown or not toggle:
        return ""
    names, row = shown.group.conditions, _of_toggles(shown, _MACS)[toggle]
    smaller = f"; at {names['counted_at']} {percent_text(row['macs_change_percent'])}"
    return f"{toggle} matters most at {names['large_at']}, {percent_text(change)}{smaller} ({names['variant']}, exact)"


def _say_memory(comparisons: list[ShownComparison]) -> str:
    columns = {kernel: f"memory_training_{kernel}_change_percent" for kernel in get_args(AttentionKernel)}
    shown = _first_with(comparisons, lambda each: any(_of_toggles(each, column) for column in columns.values()))
    if not shown:
        return ""
    clauses: list[str] = []
    for kernel, column in columns.items():
        toggle, change = _greatest_change(shown, column)
        if toggle:
            most = "" if clauses else " matters most"
            clauses.append(f"{toggle}{most} with {kernel} attention, {percent_text(change, 'less')}")
    row = shown.group.rows.iloc[0]
    predicted = ", predicted" * str(row["memory_at"]).endswith("predicted")
    where = f" ({shown.group.conditions['variant']} at {place_of(row, 'memory_at')}{predicted})"
    return "; ".join(clauses) + where if clauses else ""


def _greatest_change(shown: ShownComparison, column: str) -> tuple[str, float]:
    """Returns the toggle that changes a cost most and by how many percent; no toggle where none does."""
    changes = {name: float(row[column]) for name, row in _of_toggles(shown, column).items()}
    toggle = max(changes, key=lambda name: abs(changes[name]), default="")
    return (toggle, changes[toggle]) if toggle and abs(changes[toggle]) >= 0.05 else ("", 0.0)


def _say_speed(comparisons: list[ShownComparison]) -> str:
    """Returns the speed of each toggle alone, the largest change first, and whether it is resolved to be the largest.

    It is where the least change in its interval is larger than the largest in all other intervals. Of a second size
    the speed with that toggle is said too.
    """
    shown = _first_with(comparisons, lambda each: training_speed(each.group.rows)[0])
    if not shown:
        return ""
    column, at = training_speed(shown.group.rows)
    rows = _of_toggles(shown, column)

    def changes(name: str) -> list[float]:
        """The least and the largest change of the time in its interval, as magnitudes of logarithms."""
        ends = [abs(math.log(rows[name][f"{column}{end}"])) for end in ("_low", "_high")]
        return [0.0 if holds_one(rows[name][f"{column}_low"], rows[name][f"{column}_high"]) else min(ends), max(ends)]

    first, *others = sorted(rows, key=lambda name: (-changes(name)[0], -abs(math.log(rows[name][column]))))
    is_most = others and changes(first)[0] > max(changes(name)[1] for name in others)
    most = " matters most" if is_most else ""
    texts = [f"{first}{most} at {size_of(rows[first], at)}, {speed_text(rows[first], column)} times v1's"]
    texts += [", ".join(f"{name} {speed_text(rows[name], column)}" for name in others)] if others else []
    for speed, other_at in SPEEDS.items():
        if other_at != at and pd.notna(rows[first].get(f"{speed}_training")):
            text = speed_text(rows[first], f"{speed}_training")
            texts.append(f"at {size_of(rows[first], other_at)} {first} {text}")
    unclear = "not resolved which matters most: " if others and not is_most else ""
    device = place_of(rows[first], at).rpartition(", ")[2]
    return f"{unclear}{'; '.join(texts)} ({shown.group.conditions['variant']}, {device})"
