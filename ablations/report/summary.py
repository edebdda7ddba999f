"""What a results folder says, in sentences: of toggles, of confounders, of resolution, and how far it reaches."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import pandas as pd

from ablations.analysis.confounders import DIFFERENCE_OF_GAINS, GAIN
from ablations.analysis.grouping import Group, describe, group_by, list_changed
from ablations.config import VARIANTS
from ablations.report.accuracy import difference_text
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


def markdown_list(statements: Iterable[Statement]) -> str:
    """Returns statements as a Markdown list, a line each."""
    lines = [f"- **{each.topic}**{f' ({each.where})' if each.where else ''}: {each.text}" for each in statements]
    return "\n".join(map(escape_markdown, lines))


def comparison_markdown(comparisons: Iterable[ShownComparison]) -> str:
    """Returns comparisons as Markdown: each one's table, caption and sentences."""
    sections = []
    for each in comparisons:
        sections.append(markdown_section(each.section))
        sections += [markdown_list(each.statements)] if each.statements else []
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
            f"{tool} {abs(error):{'.0f' if abs(error) >= 1 else '.1g'}} % too {'few' if error < 0 else 'many'}"
            for tool, error in wrong.items()
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
