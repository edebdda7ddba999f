"""What a results folder says, in sentences: of toggles, of confounders, of resolution, and how far it reaches."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import pandas as pd

from ablations.analysis.confounders import DIFFERENCE_OF_GAINS, GAIN
from ablations.analysis.grouping import Group, describe, group_by, list_changed
from ablations.config import TOGGLES, VARIANTS, arm_name
from ablations.report.accuracy import difference_text, ends_text
from ablations.report.comparison import COMPARISON, list_comparisons, list_toggle_sentences
from ablations.report.tables import (
    LATEX_PREAMBLE,
    Section,
    Table,
    escape_latex,
    escape_markdown,
    latex_section,
    list_sections,
    markdown_section,
    metric_text,
    points_text,
    render_csv,
)

Tables = Mapping[Table, pd.DataFrame]


@dataclass(frozen=True)
class Statement:
    """One sentence or more on one topic."""

    topic: str
    where: str
    """Under which conditions it holds."""
    text: str


@dataclass(frozen=True)
class ShownComparison:
    """One comparison: its table, as words, and a sentence for each toggle."""

    group: Group
    section: Section
    statements: list[Statement]


def show_comparisons(values: pd.DataFrame) -> list[ShownComparison]:
    """Returns all comparisons of `comparison_values`, the one that says most first."""
    shown = []
    for group, section in list_comparisons(values):
        sentences = [Statement(name, "", text) for name, text in list_toggle_sentences(group.rows)]
        shown.append(ShownComparison(group, section, sentences))
    return shown


def largest_of_each_kind(comparisons: list[ShownComparison]) -> list[ShownComparison]:
    """Returns the first comparison of each data set, and the first without accuracy of another variant."""
    first: dict[object, ShownComparison] = {}
    for each in comparisons:
        data = each.group.conditions.get("data")
        first.setdefault(None if pd.isna(data) else data, each)
    return list(first.values())


def comparison_markdown(comparisons: Iterable[ShownComparison]) -> str:
    """Returns comparisons as Markdown: each one's table, caption and sentences."""
    sections = []
    for each in comparisons:
        sections.append(markdown_section(each.section))
        lines = [f"- **{one.topic}**: {escape_markdown(one.text)}" for one in each.statements]
        sections += ["\n".join(lines)] if lines else []
    return "\n\n".join(sections) + "\n"


def comparison_latex(comparisons: Iterable[ShownComparison]) -> str:
    """Returns comparisons as LaTeX: each one's float, and its sentences as a list behind it."""
    parts = [LATEX_PREAMBLE]
    for each in comparisons:
        parts.append(latex_section(COMPARISON, each.section))
        items = [f"\\item \\textbf{{{escape_latex(one.topic)}}}: {escape_latex(one.text)}" for one in each.statements]
        parts += ["\n".join([r"\begin{itemize}", *items, r"\end{itemize}"])] if items else []
    return "\n\n".join(parts) + "\n"


def comparison_csv(comparisons: Iterable[ShownComparison]) -> str:
    """Returns the values of comparisons as CSV, with the columns that any of them has."""
    rows = pd.concat([each.group.rows for each in comparisons])
    return render_csv(rows.dropna(axis="columns", how="all"))


def say_what_matters(comparisons: list[ShownComparison]) -> str:
    """Returns in one sentence which toggle matters most for accuracy, which for cost at high resolution, and how sure
    that is; nothing without records that say either.

    Accuracy is that of the comparison that says most, and of the other bases of its variant and training, or else of
    another base wherever it was trained; cost is the
    MACs of the first comparison without accuracy. Toggles whose intervals overlap that of the largest effect are named.
    """
    clauses = []
    trained = [each for each in comparisons if _effects(each)]
    if trained:
        first = trained[0].group.conditions
        of_bases: dict[str, ShownComparison] = {}
        for each in trained:
            if all(each.group.conditions[name] == first[name] for name in _TRAINED_ALIKE):
                of_bases.setdefault(each.group.conditions["base"], each)
        most = ", ".join(
            _most_for_accuracy(each, interval="" if place else "95 % interval ")
            for place, each in enumerate(of_bases.values())
        )
        elsewhere = [each for each in trained if each.group.conditions["base"] not in of_bases]
        for each in elsewhere[:1]:
            where = f"{each.group.conditions['variant']} on {each.group.conditions['data']}"
            most += f", and ({where}) {_most_for_accuracy(each, interval='')}"
        clauses.append(f"for accuracy ({first['variant']} on {first['data']}) what matters most is {most}")
    counted = [each for each in comparisons if not _has_data(each) and _costs(each)]
    if counted:
        variant, at = counted[0].group.conditions["variant"], counted[0].group.rows["large_at"].iloc[0]
        costs = _costs(counted[0])
        toggle = max(costs, key=lambda name: abs(costs[name]))
        change = f"{abs(costs[toggle]):.0f} % {'more' if costs[toggle] > 0 else 'fewer'}"
        clauses.append(f"for cost at high resolution, {toggle} ({change} MACs in {variant} at {at}, exact)")
    text = "; ".join(clauses)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


_TRAINED_ALIKE = ("variant", "data", "epochs", "n_train_images")


def _has_data(shown: ShownComparison) -> bool:
    return not pd.isna(shown.group.conditions.get("data"))


def _of_toggles(shown: ShownComparison, column: str) -> dict[str, pd.Series]:
    """Returns the rows of the arms with one toggle that have a value in a column, by the toggle."""
    rows = {str(row["arm"]): row for _, row in shown.group.rows.iterrows()}
    own = {name: rows[arm_name([name])] for name in TOGGLES if arm_name([name]) in rows}
    return {name: row for name, row in own.items() if pd.notna(row.get(column))}


def _effects(shown: ShownComparison) -> dict[str, pd.Series]:
    return _of_toggles(shown, "top1_effect_mean") if _has_data(shown) else {}


def _costs(shown: ShownComparison) -> dict[str, float]:
    rows = _of_toggles(shown, "macs_large_change_percent")
    return {name: float(row["macs_large_change_percent"]) for name, row in rows.items()}


def _most_for_accuracy(shown: ShownComparison, interval: str) -> str:
    base, effects = shown.group.conditions["base"], _effects(shown)
    resolved = [name for name, row in effects.items() if row["top1_effect_resolved"]]
    if not resolved:
        return f"unresolved in base {base}"
    most = max(resolved, key=lambda name: abs(effects[name]["top1_effect_mean"]))
    row = effects[most]
    ends = {name: [abs(other[f"top1_effect_{end}"]) for end in ("low", "high")] for name, other in effects.items()}
    near = [name for name in effects if name != most and max(ends[name]) >= min(ends[most])]
    sizes = {name: points_text(other["top1_effect_mean"]) for name, other in effects.items()}
    others = [f"{name}'s {sizes[name]}, {ends_text(effects[name], 'top1_effect')}" for name in near]
    close = f"; close to {' and '.join(others)}" if near else ""
    size = f"{sizes[most]} points, {interval}{ends_text(row, 'top1_effect')}"
    return f"{most} in base {base} ({size}, n = {row['top1_effect_n']:.0f}{close})"


def list_statements(tables: Tables) -> list[Statement]:
    """Returns what else the report's tables say: of bases, single confounders, resolution, and the limits of it all."""
    return [
        *_of_base_gains(tables),
        *_of_single_confounders(tables),
        *_of_resolution(tables),
        *_of_crossover(tables),
        *_of_counters(tables),
        *_of_limits(tables),
    ]


def _groups(tables: Tables, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields the rows of a table under equal conditions, with the title that the table gives them."""
    for table, values in tables.items():
        if table.name == name:
            pairs = zip(list_sections(table, values), group_by(values, table.conditions), strict=True)
            yield from ((section.title, group.rows) for section, group in pairs)


def _of_base_gains(tables: Tables) -> Iterator[Statement]:
    for title, rows in _groups(tables, "base_gains"):
        parts = {row["part"]: difference_text(row, "top1_part") for _, row in rows.iterrows()}
        text = (
            f"{rows['arm'].iloc[0]} gains over v1, in points of top-1: {parts['gain in base v1']} in base v1 and "
            f"{parts['gain in base v2']} in base v2; the difference is {parts[DIFFERENCE_OF_GAINS]}."
        )
        yield Statement("Do the toggles gain more in base v2?", f"{title}, n = {rows['top1_part_n'].min()}", text)


def _of_single_confounders(tables: Tables) -> Iterator[Statement]:
    for title, rows in _groups(tables, "single_confounders"):
        gains = rows[rows["part"] == GAIN]
        words = [f"{row['changed']} {difference_text(row, 'top1_part')}" for _, row in gains.iterrows()]
        if words:
            text = f"Setting one confounder changes the gain over v1, in points of top-1: {', '.join(words)}."
            yield Statement("Which confounder is it?", title, text)


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


def _of_crossover(tables: Tables) -> Iterator[Statement]:
    for title, rows in _groups(tables, "crossover"):
        sides = rows.get("crossover_px_p7", pd.Series(dtype=float)).dropna()
        if not sides.empty:
            ends = " to ".join(dict.fromkeys(f"{side:.0f}" for side in (sides.min(), sides.max())))
            text = f"With P = 7, lsra takes fewer MACs than SRA from {ends} px on, by variant."
            yield Statement("Where linear SRA pays", title, text)


def _of_counters(tables: Tables) -> Iterator[Statement]:
    """Says how far other tools are off, of the first arm at its largest size."""
    for title, rows in islice(_groups(tables, "counters"), 1):
        at = rows[rows["pixels"] == rows["pixels"].max()].dropna(subset="macs_fused")
        off = at.dropna(subset="macs_fused_off_percent").set_index("tool")["macs_fused_off_percent"]
        if off.empty:
            continue
        exact, wrong = [str(tool) for tool in off.index[off == 0]], off[off != 0]
        counted = f"{', '.join(exact) or 'no tool'} counts all {metric_text('macs', at['macs_fused'].iloc[0])} GMACs"
        others = ", ".join(
            f"{tool} is {error:{'+.0f' if abs(error) >= 1 else '+.1g'}} % off" for tool, error in wrong.items()
        )
        text = f"At {at['resolution'].iloc[0]} px with fused attention {counted}{f'; {others}' if others else ''}."
        yield Statement("How FLOPs are counted", title, text)


def _of_limits(tables: Tables) -> Iterator[Statement]:
    """Says what the accuracies are of, because that is how far they reach."""
    trained: list[str] = []
    inits: list[object] = []
    for _, rows in _groups(tables, "effects_accuracy"):
        conditions = {str(name): value for name, value in rows.iloc[0].items()}
        names = ("variant", "base", "data", "resolution", "epochs", "n_train_images", "init", *list_changed(conditions))
        if conditions["variant"] in VARIANTS:
            trained.append(describe(conditions, names))
            inits.append(conditions.get("init"))
    if trained:
        start = "" if any(inits) else " from scratch"
        text = (
            f"Accuracy was trained{start}: {'; '.join(dict.fromkeys(trained))}. The records do not say whether "
            "it holds for other sizes, data or recipes. Counts are exact and say nothing of time; each time is of one "
            "machine."
        )
        yield Statement("How far this reaches", "", text)
