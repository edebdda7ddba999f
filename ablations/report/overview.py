"""The answer in a few lines: which toggle matters most, what each does to accuracy wherever it was trained, and what
each costs."""

import math
from collections.abc import Iterable, Iterator
from typing import get_args

import pandas as pd

from ablations.analysis.comparison import MEMORY_STEPS
from ablations.analysis.grouping import REFERENCE, describe, varying
from ablations.analysis.speed import holds_one
from ablations.analysis.statistics import FEWEST_TO_CLAIM
from ablations.config import TOGGLES, AttentionKernel, arm_name
from ablations.report.accuracy import claim_text, difference_text, ends_text
from ablations.report.comparison import has_all_seeds, percent_text, size_of, speed_range
from ablations.report.summary import ShownComparison
from ablations.report.tables import NOTHING, Section, ShownColumn, change_of, points_text

LARGEST = " Bold: the largest in size, all others resolved to be smaller."
"""What bold cells of the first overview say."""

_MODEL = ("variant", "base", "stem_stride", "pool_size")
_TRAINED = ("variant", "base", "data", "pool_size", "epochs", "n_train_images")
_MACS = "macs_large_change_percent"
_SPEED = "relative_speed_training"


def say_what_matters(comparisons: list[ShownComparison]) -> str:
    """Returns in two sentences which toggle matters most for accuracy and which for cost, and how sure that is.

    Of accuracy it says, for each base, which toggle has the largest effect in how many of the trainings, those that are
    not resolved to be smaller, and which lose; of cost the MACs and the memory of the first comparison without a
    training, and the speed of the first that was trained. What the records do not have is left out.
    """
    trained = _trained(comparisons)
    labels = _label(trained, ("variant", "data"))
    sentences = []
    if trained:
        clauses = []
        for base in dict.fromkeys(each.group.conditions["base"] for each in trained):
            own = {
                label: _of_toggles(each, "top1_effect_mean")
                for label, each in zip(labels, trained, strict=True)
                if each.group.conditions["base"] == base
            }
            clauses += [_say_largest(base, own), *_say_losses(base, own)]
        most = "; ".join(clauses)
        sentences.append(f"For accuracy, averaged over the other toggles, what matters most is {most}.")
    costs = [*_say_greatest_costs(comparisons), *_say_greatest_change_of_speed(trained)]
    if costs:
        sentences.append(f"For cost it is {', '.join(costs)}.")
    return " ".join(sentences)


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
    chosen = sum(bool(each.group.rows["has_chosen_rate"].all()) for each in trained)
    rates = f" Trials chose the learning rate in {chosen} of {len(trained)} trainings." if chosen < len(trained) else ""
    overlap = _say_overlap(trained[0], _label(trained)[0])
    caption = f"95 % intervals over n seeds, on the same validation images.{rates}{bold} {overlap}"
    yield Section("Points of top-1 that each toggle adds, averaged over the others' settings", shown, caption.strip())


def _seeds_text(rows: Iterable[pd.Series]) -> str:
    seeds = {int(row["top1_effect_n"]) for row in rows}
    return " to ".join(map(str, sorted({min(seeds), max(seeds)})))


def _say_overlap(shown: ShownComparison, label: str) -> str:
    """Says what the strongest resolved interaction of two toggles means; nothing where none is resolved."""
    rows = shown.group.rows
    found = rows[rows["overlap_of"].notna()] if "overlap_of" in rows else rows[:0]
    if found.empty:
        return ""
    row = found.iloc[0]
    without, beside = (difference_text(row, f"top1_{where}") for where in ("without", "with"))
    return f"In {label}, {row['overlap_of']} adds {without} without {row['overlap_with']}, {beside} with it."


def _costs(comparisons: Iterable[ShownComparison]) -> Iterator[Section]:
    """Yields what each toggle alone changes in the costs of the first model without a training."""
    shown = next((each for each in comparisons if _has_costs(each)), None)
    if shown is None:
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
    columns = [column for column in columns if set(column.cells) != {NOTHING}]
    title = f"What each toggle alone costs, beside {REFERENCE}: {describe(shown.group.conditions, _MODEL)}"
    memory = shown.group.conditions["memory_at"]
    caption = "" if pd.isna(memory) else f"Memory of training: {memory}. "
    yield Section(title, columns, f"{caption}Counts are exact.")


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


def _has_costs(shown: ShownComparison) -> bool:
    return not _has_data(shown) and bool(_of_toggles(shown, _MACS))


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


def _say_largest(base: str, effects: dict[str, dict[str, pd.Series]]) -> str:
    """Returns the toggle that leads in most of the trainings in a base, which are named by their labels."""
    leading = {label: _leading(own) for label, own in effects.items()}
    firsts = [own[0] for own in leading.values() if own]
    if not firsts:
        label, own = next(iter(effects.items()))
        claims = {claim_text(row, "top1_effect") for row in own.values()}
        return f"{'exploratory' if 'exploratory' in claims else 'unresolved'} in base {base} ({label})"
    most = max(firsts, key=firsts.count)
    led = {label: effects[label][most] for label, own in leading.items() if own[:1] == [most]}
    near = dict.fromkeys(name for label in led for name in leading[label][1:])
    words = f"; not resolved to be smaller: {', '.join(near)}" if near else ""
    return f"{most} in base {base} ({_say_sizes(led, len(effects))}{words})"


def _say_losses(base: str, effects: dict[str, dict[str, pd.Series]]) -> Iterator[str]:
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
            yield f"{toggle} loses in base {base} ({_say_sizes(losing, len(effects))})"


def _say_sizes(rows: dict[str, pd.Series], of: int) -> str:
    """Returns an effect in one training with its interval, or the range of those in several of `of` trainings."""
    share = f"{len(rows)} of {of} trainings, " if of > 1 else ""
    if len(rows) == 1:
        ((label, row),) = rows.items()
        size = f"{points_text(row['top1_effect_mean'])} points, 95 % interval {ends_text(row, 'top1_effect')}"
        return f"{share}{label}: {size}"
    means = sorted((row["top1_effect_mean"] for row in rows.values()), key=abs)
    return f"{share}{points_text(means[0])} to {points_text(means[-1])} points"


def _say_greatest_costs(comparisons: list[ShownComparison]) -> Iterator[str]:
    """Yields which toggle changes the MACs most, and which the memory of training, with either attention."""
    shown = next((each for each in comparisons if _has_costs(each)), None)
    if shown is None:
        return
    first, names = shown.group.rows.iloc[0], shown.group.conditions
    toggle, change = _greatest_change(shown, _MACS)
    if toggle:
        yield f"{toggle} in MACs ({percent_text(change)} in {names['variant']} at {first['large_at']}, exact)"
    memory: list[str] = []
    for kernel in get_args(AttentionKernel):
        toggle, change = _greatest_change(shown, f"memory_training_{kernel}_change_percent")
        if toggle:
            where = "" if memory else "in training memory "
            memory.append(f"{toggle} {where}with {kernel} attention ({percent_text(change, 'less')})")
    yield from memory


def _greatest_change(shown: ShownComparison, column: str) -> tuple[str, float]:
    """Returns the toggle that changes a cost most and by how many percent; no toggle where none does."""
    changes = {name: float(row[column]) for name, row in _of_toggles(shown, column).items()}
    toggle = max(changes, key=lambda name: abs(changes[name]), default="")
    return (toggle, changes[toggle]) if toggle and abs(changes[toggle]) >= 0.05 else ("", 0.0)


def _say_greatest_change_of_speed(trained: list[ShownComparison]) -> Iterator[str]:
    """Yields which toggle changes the speed of training most, of the first training that was timed."""
    for shown in trained:
        speeds = _of_toggles(shown, _SPEED)
        ends = {name: (row[f"{_SPEED}_low"], row[f"{_SPEED}_high"]) for name, row in speeds.items()}
        resolved = [name for name in speeds if not holds_one(*ends[name])]
        if resolved:
            toggle = max(resolved, key=lambda name: abs(math.log(speeds[name][_SPEED])))
            row = speeds[toggle]
            size = f"{row[_SPEED]:.2f} of v1's, {speed_range(row, 'training')}"
            at = f"{shown.group.conditions['variant']} at {size_of(row, 'speed_at')}"
            yield f"{toggle} in speed of training ({size}, {at})"
            return
