"""The answer in a few lines: which toggle matters most, what each does to accuracy wherever it was trained, and what
each costs."""

from collections.abc import Iterable
from itertools import combinations

import pandas as pd

from ablations.analysis.comparison import MEMORY_STEPS
from ablations.analysis.grouping import REFERENCE, describe
from ablations.config import TOGGLES, arm_name
from ablations.report.accuracy import difference_text, ends_text
from ablations.report.comparison import has_all_seeds
from ablations.report.summary import ShownComparison
from ablations.report.tables import NOTHING, Section, ShownColumn, change_of, points_text

_MODEL = ("variant", "base", "stem_stride", "pool_size")
_PLACE = ("variant", "base", "pool_size", "data")
_TRAINED_ALIKE = ("variant", "data", "epochs", "n_train_images")


def say_what_matters(comparisons: list[ShownComparison]) -> str:
    """Returns in one sentence which toggle matters most for accuracy, which for cost at high resolution, and how sure
    that is; nothing without records that say either.

    Accuracy is that of the comparison that says most and of the other bases of its variant and training, or else of
    another base wherever it was trained; losses are named wherever they are resolved. Cost is the MACs and the memory
    of the first comparison without accuracy. Toggles that are not resolved to be behind the largest one are named too.
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
        clauses.append(f"for accuracy, what matters most is {'; '.join([*most, *_losses(trained)])}")
    counted = [each for each in comparisons if _has_costs(each)]
    if counted:
        variant, at = counted[0].group.conditions["variant"], counted[0].group.rows["large_at"].iloc[0]
        toggle, change = _most(counted[0], _MACS, "fewer")
        costs = f"{toggle} in MACs ({change} in {variant} at {at}, exact)"
        if _of_toggles(counted[0], _MEMORY):
            toggle, change = _most(counted[0], _MEMORY, "less")
            costs += f" and {toggle} in training memory with fused attention ({change})"
        clauses.append(f"for cost at high resolution, it is {costs}")
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
    images = [f"{each.group.rows['n_eval_images'].iloc[0]:,.0f}" for each in trained]
    columns += [_column("n", seeds), _column("Validation images", images)]
    shown = [column for column in columns if set(column.cells) != {NOTHING}]
    caption = (
        "95 % intervals over n seeds. Bold: the largest in size, all others resolved to be smaller. "
        f"{_overlap(trained[0])}"
    )
    title = "Points of top-1 that each toggle adds, averaged over the others' settings"
    return [Section(title, shown, caption.strip())]


def _overlap(shown: ShownComparison) -> str:
    """Says what the strongest resolved interaction of two toggles means for the one with the smaller effect."""
    main = _of_toggles(shown, "top1_effect_mean")
    rows = {str(row["arm"]): row for _, row in shown.group.rows.iterrows()}
    pairs = {pair: rows[arm_name(pair)] for pair in combinations(main, 2) if arm_name(pair) in rows}
    resolved = {pair: row for pair, row in pairs.items() if row.get("top1_effect_resolved") is True}
    if not resolved:
        return ""
    pair = max(resolved, key=lambda each: abs(resolved[each]["top1_effect_mean"]))
    beyond = resolved[pair]["top1_effect_mean"]
    less, more = sorted(pair, key=lambda name: abs(main[name]["top1_effect_mean"]))
    mean = main[less]["top1_effect_mean"]
    return (
        f"In base {shown.group.conditions['base']}, {_where(shown)}, {less} adds {points_text(mean - beyond)} without "
        f"{more} and {points_text(mean + beyond)} with it (interaction {points_text(beyond)}, "
        f"{ends_text(resolved[pair], 'top1_effect')})."
    )


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
            headings[f"memory_{mode}_{attention}"] = f"Memory, {attention}"
    columns = [_column("Toggle", list(rows))]
    for metric, heading in headings.items():
        cells = [change_of(metric)(row) or NOTHING for row in rows.values()]
        columns.append(_column(heading, cells))
    columns = [column for column in columns if set(column.cells) != {NOTHING}]
    title = f"What each toggle alone costs, beside {REFERENCE}: {describe(shown.group.conditions, _MODEL)}"
    memory = shown.group.conditions["memory_at"]
    caption = "" if pd.isna(memory) else f"Memory of training: {memory}. "
    return [Section(title, columns, f"{caption}Counts are exact.")]


def _column(heading: str, cells: list[str]) -> ShownColumn:
    return ShownColumn(heading, cells, [False] * len(cells))


_MACS = "macs_large_change_percent"
_MEMORY = "memory_training_fused_change_percent"


def _trained(comparisons: list[ShownComparison]) -> list[ShownComparison]:
    """Returns the first comparison with effects on accuracy of every variant, base, P and data set.

    Those whose study has not all its declared seeds are left out where others have.
    """
    first: dict[object, ShownComparison] = {}
    trained = [each for each in comparisons if _has_data(each) and _of_toggles(each, "top1_effect_mean")]
    whole = [each for each in trained if has_all_seeds(each.group.rows)]
    for each in whole or trained:
        first.setdefault(tuple(each.group.conditions[name] for name in _PLACE), each)
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


def _where(shown: ShownComparison) -> str:
    return "{variant} on {data}".format(**shown.group.conditions)


def _most(shown: ShownComparison, column: str, less: str) -> tuple[str, str]:
    """Returns the toggle that changes a cost most, and by how much in words."""
    changes = {name: float(row[column]) for name, row in _of_toggles(shown, column).items()}
    toggle = max(changes, key=lambda name: abs(changes[name]))
    return toggle, f"{abs(changes[toggle]):.0f} % {'more' if changes[toggle] > 0 else less}"


def _leading(effects: dict[str, pd.Series]) -> list[str]:
    """Returns the toggle with the largest resolved effect, and behind it those not resolved to be smaller."""
    resolved = [name for name, row in effects.items() if row["top1_effect_resolved"]]
    if not resolved:
        return []
    most = max(resolved, key=lambda name: abs(effects[name]["top1_effect_mean"]))
    behind = [name for name, row in effects.items() if name != most and row.get("top1_behind_resolved") is not True]
    return [most, *behind]


def _most_for_accuracy(shown: ShownComparison, interval: str) -> str:
    effects, base = _of_toggles(shown, "top1_effect_mean"), shown.group.conditions["base"]
    leading = _leading(effects)
    if not leading:
        return f"unresolved in base {base} ({_where(shown)})"
    most, *near = leading
    others = " and ".join(f"{name}'s {points_text(effects[name]['top1_effect_mean'])}" for name in near)
    near_words = f"; {others} {'is' if len(near) == 1 else 'are'} not resolved to be smaller" if near else ""
    return f"{most} in base {base} ({_where(shown)}: {_size(effects[most], interval)}{near_words})"


def _size(row: pd.Series, interval: str) -> str:
    size = f"{points_text(row['top1_effect_mean'])} points, {interval}{ends_text(row, 'top1_effect')}"
    return f"{size}, n = {row['top1_effect_n']:.0f}"


def _losses(trained: Iterable[ShownComparison]) -> list[str]:
    """Returns each resolved loss of a toggle and where it is, but for those that are the largest effect there."""
    return [
        f"{name} loses in base {each.group.conditions['base']} ({_where(each)}: {_size(row, '')})"
        for each in trained
        for name, row in _of_toggles(each, "top1_effect_mean").items()
        if row["top1_effect_resolved"]
        and row["top1_effect_mean"] < 0
        and name not in _leading(_of_toggles(each, "top1_effect_mean"))[:1]
    ]
