"""The answer in a few lines: which toggle matters most, what each does to accuracy wherever it was trained, and what
each costs."""

from collections.abc import Iterable

import pandas as pd

from ablations.analysis.comparison import MEMORY_STEPS
from ablations.analysis.grouping import REFERENCE, describe
from ablations.config import TOGGLES, arm_name
from ablations.report.accuracy import difference_text, ends_text
from ablations.report.comparison import size_of
from ablations.report.summary import ShownComparison
from ablations.report.tables import NOTHING, Section, ShownColumn, change_of, points_text

_MODEL = ("variant", "base", "stem_stride", "pool_size")
_TRAINED_ALIKE = ("variant", "data", "epochs", "n_train_images")


def say_what_matters(comparisons: list[ShownComparison]) -> str:
    """Returns in one sentence which toggle matters most for accuracy, which for cost at high resolution, and how sure
    that is; nothing without records that say either.

    Accuracy is that of the comparison that says most and of the other bases of its variant and training, or else of
    another base wherever it was trained. Cost is the MACs of the first comparison without accuracy. Toggles whose
    intervals overlap that of the largest effect are named.
    """
    clauses = []
    trained = _trained(comparisons)
    if trained:
        first = trained[0].group.conditions
        alike = [each for each in trained if all(each.group.conditions[name] == first[name] for name in _TRAINED_ALIKE)]
        bases = {each.group.conditions["base"] for each in alike}
        elsewhere = [each for each in trained if each.group.conditions["base"] not in bases]
        most = [
            _most_for_accuracy(each, "" if place else "95 % interval ")
            for place, each in enumerate([*alike, *elsewhere[:1]])
        ]
        clauses.append(f"for accuracy, what matters most is {'; '.join(most)}")
    counted = [each for each in comparisons if _has_costs(each)]
    if counted:
        variant, at = counted[0].group.conditions["variant"], counted[0].group.rows["large_at"].iloc[0]
        costs = {name: row["macs_large_change_percent"] for name, row in _of_toggles(counted[0], _MACS).items()}
        toggle = max(costs, key=lambda name: abs(costs[name]))
        change = f"{abs(costs[toggle]):.0f} % {'more' if costs[toggle] > 0 else 'fewer'}"
        clauses.append(f"for cost at high resolution, it is {toggle} ({change} MACs in {variant} at {at}, exact)")
    text = ". ".join(f"{clause[0].upper()}{clause[1:]}" for clause in clauses)
    return f"{text}." if text else ""


def list_overviews(comparisons: list[ShownComparison]) -> list[Section]:
    """Returns up to two small tables: what each toggle does to top-1, a row a training, and what each toggle costs."""
    return [*_gains(_trained(comparisons)), *_costs(comparisons)]


def _gains(trained: list[ShownComparison]) -> list[Section]:
    """Returns each toggle's main effect on top-1 in every model, base and data set that it was trained in."""
    if not trained:
        return []
    effects = [_of_toggles(each, "top1_effect_mean") for each in trained]
    conditions = [each.group.conditions for each in trained]
    several_pools = [
        len({each["pool_size"] for each in conditions if each["variant"] == names["variant"]}) > 1
        for names in conditions
    ]
    models = [
        "{variant} on {data}{p}".format(**names, p=f", P = {names['pool_size']}" if several else "")
        for names, several in zip(conditions, several_pools, strict=True)
    ]
    columns = [_column("Model and data", models), _column("Base", [str(names["base"]) for names in conditions])]
    for toggle in TOGGLES:
        cells = [difference_text(own[toggle], "top1_effect") if toggle in own else NOTHING for own in effects]
        columns.append(ShownColumn(toggle, cells, [_leading(own) == [toggle] for own in effects]))
    seeds = [str(max(int(row["top1_effect_n"]) for row in own.values())) for own in effects]
    caption = (
        "Points of top-1 that each toggle adds, averaged over the others' settings, and the 95 % interval over n "
        "seeds. Bold: the largest that is resolved, unless the interval of another reaches its."
    )
    columns.append(_column("n", seeds))
    shown = [column for column in columns if set(column.cells) != {NOTHING}]
    return [Section("What each toggle does to top-1, in points", shown, caption)]


def _costs(comparisons: Iterable[ShownComparison]) -> list[Section]:
    """Returns what each toggle alone changes in the costs of the first model without a training."""
    shown = next((each for each in comparisons if _has_costs(each)), None)
    if shown is None:
        return []
    rows = _of_toggles(shown, _MACS)
    first = shown.group.rows.iloc[0]
    headings = {
        "params": "Parameters",
        "macs": f"MACs, {first['counted_at']}",
        "macs_large": f"MACs, {first['large_at']}",
    }
    for mode, attention in MEMORY_STEPS:
        if mode == "training":
            size = size_of(first, "memory_at")
            headings[f"memory_{mode}_{attention}"] = f"Memory, {mode}, {attention}, {size}"
    columns = [_column("Toggle", list(rows))]
    for metric, heading in headings.items():
        cells = [change_of(metric)(row) or NOTHING for row in rows.values()]
        columns.append(_column(heading, cells))
    columns = [column for column in columns if set(column.cells) != {NOTHING}]
    title = f"What each toggle costs: {describe(shown.group.conditions, _MODEL)}"
    return [Section(title, columns, f"What {REFERENCE} with one toggle takes more or less than {REFERENCE}.")]


def _column(heading: str, cells: list[str]) -> ShownColumn:
    return ShownColumn(heading, cells, [False] * len(cells))


_MACS = "macs_large_change_percent"


def _place(shown: ShownComparison) -> tuple[object, ...]:
    """Returns the variant, base and data set of a comparison."""
    return tuple(shown.group.conditions.get(name) for name in ("variant", "base", "data"))


def _trained(comparisons: list[ShownComparison]) -> list[ShownComparison]:
    """Returns the first comparison with effects on accuracy of every variant, base, P and data set."""
    first: dict[object, ShownComparison] = {}
    for each in comparisons:
        if _has_data(each) and _of_toggles(each, "top1_effect_mean"):
            first.setdefault((*_place(each), each.group.conditions["pool_size"]), each)
    return list(first.values())


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
    """Returns the toggle with the largest resolved effect, and behind it those whose intervals reach its."""
    resolved = [name for name, row in effects.items() if row["top1_effect_resolved"]]
    if not resolved:
        return []
    most = max(resolved, key=lambda name: abs(effects[name]["top1_effect_mean"]))
    ends = {name: [abs(row[f"top1_effect_{end}"]) for end in ("low", "high")] for name, row in effects.items()}
    return [most, *(name for name in effects if name != most and max(ends[name]) >= min(ends[most]))]


def _most_for_accuracy(shown: ShownComparison, interval: str) -> str:
    effects = _of_toggles(shown, "top1_effect_mean")
    where = "{variant} on {data}".format(**shown.group.conditions)
    base = shown.group.conditions["base"]
    leading = _leading(effects)
    if not leading:
        return f"unresolved in base {base} ({where})"
    most, *near = leading
    sizes = {name: points_text(row["top1_effect_mean"]) for name, row in effects.items()}
    ends = {name: ends_text(row, "top1_effect") for name, row in effects.items()}
    others = " and ".join(f"{name}'s {sizes[name]}, {ends[name]}" for name in near)
    close = f"; near in size: {others}" if near else ""
    size = f"{sizes[most]} points, {interval}{ends[most]}, n = {effects[most]['top1_effect_n']:.0f}"
    return f"{most} in base {base} ({where}: {size}{close})"
