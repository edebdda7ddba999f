"""What a table of the report is, how its cells are written, and how it is rendered: Markdown, CSV and LaTeX."""

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any, Literal

import pandas as pd

from ablations.analysis.grouping import REFERENCE, describe, group_by, tell_apart, varying, with_times
from ablations.config import CONFOUNDER_SLOTS, TOGGLES
from ablations.errors import FEW
from ablations.measure.metrics import METRICS, in_unit_of

LARGEST_EXACT = 2**53
"""Up to here a float holds every whole number."""

NOTHING = "-"
"""What a cell without a value shows."""


Show = Callable[[pd.Series], str]
"""What a cell shows of a row of the values."""


@dataclass(frozen=True)
class TableColumn:
    """One column for people: its heading, and what it shows of a row of the values."""

    title: str | Show
    """A function takes the first row of a group, and so names what the group has in common."""
    value: str | Show
    """The column of the values that it shows, which not all groups have, or what makes the cell's words."""
    form: str = ""
    """How a value of that column is written: a format, or words around `{}`."""
    divisor: float = 1
    best: Literal["min", "max"] | None = None
    """Which end is the better one, where rows compete; nothing where none is better or they are no rivals."""
    is_best: str = ""
    """The column that says of values with noise which are not resolved to be worse than the best, instead of `best`:
    the only such row of several is the best one."""
    beside_v1: bool = False
    """Shows nothing of arm v1, which all others are compared with."""
    for_rows: Callable[[Sequence[pd.Series]], "TableColumn"] | None = None
    """Makes the column from the rows of a group, where its unit depends on them."""

    def show(self, row: pd.Series) -> str:
        """Returns the cell of a row."""
        if self.beside_v1 and row["arm"] == REFERENCE:
            return NOTHING
        if callable(self.value):
            return self.value(row)
        value = row.get(self.value)
        if pd.isna(value) or value == "":
            return NOTHING
        value = value if self.divisor == 1 else value / self.divisor
        return self.form.format(value) if "{" in self.form else format(value, self.form)


def metric_column(
    metric: str, value: str = "", title: str = "", best: Literal["min", "max"] | None = None
) -> TableColumn:
    """Returns the column of a metric in its unit; the values may have another name, and the column another heading."""
    column = value or metric
    return TableColumn(title or METRICS[metric].title, lambda row: metric_text(metric, row.get(column)), best=best)


def count_column(
    metric: str,
    column: str = "",
    heading: str | Show = "",
    *,
    bracket: Show = lambda row: "",
    best: Literal["min"] | None = None,
) -> TableColumn:
    """Returns the column of a metric in the largest unit in which no value of a group has leading zeros.

    The values may have another name, and what `bracket` gives for a row stands in brackets behind it.
    """
    column = column or metric

    def for_rows(rows: Sequence[pd.Series]) -> TableColumn:
        counts = [row[column] for row in rows if pd.notna(row.get(column)) and row[column] > 0]
        unit = in_unit_of(metric, min(counts, default=0))
        words = heading(rows[0]) if callable(heading) else heading or unit.label

        def show(row: pd.Series) -> str:
            if pd.isna(row.get(column)):
                return NOTHING
            text, more = four_figures(row[column] / unit.divisor), bracket(row)
            return f"{text} ({more})" if more else text

        return TableColumn(unit.titled(words), show, best=best)

    return TableColumn(heading, column, for_rows=for_rows)


def change_of(metric: str) -> Show:
    """Shows a metric's change against arm v1 in percent; nothing of v1 itself."""

    def show(row: pd.Series) -> str:
        change = row.get(f"{metric}_change_percent")
        return "" if row["arm"] == REFERENCE or pd.isna(change) else f"{change:+z.1f} %"

    return show


MACS_AT = "{} px: " + METRICS["macs"].label
"""The heading of MACs at each resolution."""

ARM = TableColumn("Arm", lambda row: row["model"] if pd.isna(row["arm"]) else row["arm"])
"""Its name, or that of a model that is no arm."""

MODE_WORDS = {
    "inference": "One forward pass without gradients.",
    "training": "One training step: forward, backward and AdamW with its state.",
}
"""What one step of each mode is."""


def mode_note(values: pd.DataFrame) -> str:
    """Says what one step of the values' mode is."""
    return MODE_WORDS[values["mode"].iloc[0]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: how its values come from records and how they are shown."""

    name: str
    measurement: str
    """Of the records that it is made from."""
    title: str
    values: Callable[[pd.DataFrame], pd.DataFrame]
    conditions: tuple[str, ...]
    """The columns of the values that are equal within a group of rows."""
    titled_by: tuple[str, ...] = ()
    """Those that head each group, beside any that differ between groups; all of them if none is named."""
    columns: tuple[TableColumn, ...]
    spread: tuple[TableColumn, ...] = ()
    """Columns that stand once for each resolution, which takes the place of `{}` in their heading."""
    about: str
    """What is measured, and what it does not say."""
    note: Callable[[pd.DataFrame], str] = lambda values: ""
    """Says what holds for one group, from its values."""
    rows_by: str = "arm"
    """The column of the values that has another value in each row of a group; a row without one has its `model`."""


def four_figures(value: float) -> str:
    """Returns a number with four significant figures or more, without an exponent: 0.5662, 25.36, 13,680."""
    if not value:
        return "0"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def metric_text(metric: str, value: Any) -> str:
    """Returns a stored value of a metric in the unit that people read it in."""
    return NOTHING if pd.isna(value) else four_figures(value / METRICS[metric].divisor)


def render_csv(values: pd.DataFrame) -> str:
    """Returns the values as CSV, counts exact and all else with nine figures, with units in the column names.

    Processors differ in a statistic's last figures, and the file is to be the same on all. A text that a spreadsheet
    would take for a formula begins with an apostrophe.
    """
    return values.map(_plain).to_csv(index=False, float_format=_nine_figures, lineterminator="\n")


def _plain_number(value: Any) -> Any:
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _nine_figures(value: object) -> str:
    number = float(str(value))
    return f"{number:.0f}" if number.is_integer() and abs(number) < LARGEST_EXACT else f"{number:.9g}"


def _plain(value: Any) -> Any:
    """Returns a cell as a file of CSV has it; the numbers of one that holds several have nine figures too."""
    if isinstance(value, dict):
        return {name: _plain_number(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map(_plain_number, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def escape_markdown(text: str) -> str:
    """Returns plain text in which nothing is taken for a tag, a link or the end of a cell; backticks remain code."""
    for pattern, replacement in _MARKDOWN.items():
        text = pattern.sub(replacement, text)
    return text


_MARKDOWN = {
    re.compile(r"<(?=[A-Za-z/!?])"): "&lt;",
    re.compile(r"\](?=[(\[:])"): r"\]",
    re.compile(r"(?<=[A-Za-z])://"): "&#58;//",
    re.compile(r"(?i)\bwww\."): "www&#46;",
    re.compile(r"\|"): r"\|",
}


def left_out(table: "Table", damaged: dict[str, str]) -> str:
    """Returns a sentence on the damaged files and lines of records that a table lacks; nothing where it lacks none.

    Those are its measurement's; tables of accuracy show what others measured beside it.
    """
    own = (f"records/{table.measurement}/", f"records/{table.measurement}.jsonl")
    places = [place for place in damaged if table.measurement == "accuracy" or place.startswith(own)]
    if not places:
        return ""
    more = f"; and {len(places) - FEW} more" if len(places) > FEW else ""
    named = "; ".join(f"{place}: {damaged[place]}" for place in places[:FEW])
    return f"Damaged, and left out of this table: {named}{more}."


BOLD = "Bold: the best of a column; where it has noise, only if all others are resolved to be worse."

_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class ShownColumn:
    """A column as words: its heading and a cell for each row."""

    heading: str
    cells: list[str]
    is_best: list[bool]
    """Whether each cell is the best of the column."""


def _best_as_shown(cells: list[str], best: Literal["min", "max"] | None) -> list[bool]:
    """Returns whether each cell is the best of a column as it is shown; none is where there is no rival."""
    matches = [_NUMBER.match(text) for text in cells]
    numbers = [float(match[0].replace(",", "")) if match else None for match in matches]
    rivals = [number for number in numbers if number is not None]
    if best is None or len(set(rivals)) < 2:
        return [False] * len(numbers)
    winner = max(rivals) if best == "max" else min(rivals)
    return [number == winner for number in numbers]


@dataclass(frozen=True)
class Section:
    """The part of a table that was measured under one set of conditions, as words."""

    title: str
    columns: list[ShownColumn]
    """Those in which some row has a value."""
    caption: str
    """The note, the conditions, and what bold cells say, where there are any."""

    def lines(self, write: Callable[[str], str] = str, bold: str = "{}") -> list[list[str]]:
        """Returns the headings and then the rows, each cell as `write` gives it, the best ones within `bold`."""
        columns = [
            [
                write(column.heading),
                *(
                    (bold if best else "{}").format(write(cell))
                    for cell, best in zip(column.cells, column.is_best, strict=True)
                ),
            ]
            for column in self.columns
        ]
        return [list(line) for line in zip(*columns, strict=True)]

    def only(self, headings: tuple[str, ...]) -> "Section":
        """Returns the section with those of its columns whose headings begin so."""
        return replace(self, columns=[column for column in self.columns if column.heading.startswith(headings)])


def note_replaced(shown: Iterable[pd.DataFrame]) -> str:
    """Says which toggles of the shown rows stand where the base has a choice of its own."""
    texts = [
        text for rows in shown for column in ("arm", "toggles") if column in rows for text in rows[column].dropna()
    ]
    names = {name for text in texts for name in re.split(r"\+|, ", str(text))}
    sentences = [
        f"Toggle {name} replaces the base's {CONFOUNDER_SLOTS[toggle.slot].replace('_', ' ')}."
        for name, toggle in TOGGLES.items()
        if name in names and toggle.slot in CONFOUNDER_SLOTS
    ]
    return " ".join(sentences)


def list_sections(table: Table, values: pd.DataFrame) -> list[Section]:
    """Returns a section for each group of equal conditions; their titles tell them apart."""
    groups = group_by(values, table.conditions)
    titles = [describe(group.conditions, table.titled_by or table.conditions) for group in groups]
    sections = []
    for group, title in zip(groups, titles, strict=True):
        namesakes = [other.conditions for other, its_title in zip(groups, titles, strict=True) if its_title == title]
        apart = tell_apart(group.conditions, varying(namesakes))
        columns = _show_columns(table, group.rows)
        bold = BOLD if any(any(column.is_best) for column in columns) else ""
        conditions = f"Conditions: {describe(group.conditions)}."
        notes = (table.note(group.rows), note_replaced([group.rows]), conditions, bold)
        caption = " ".join(filter(None, notes))
        sections.append(Section(", ".join(filter(None, (title, apart))), columns, caption))
    return sections


def render_markdown(table: Table, values: pd.DataFrame) -> str:
    """Returns the table for people: a heading, rows and a caption for each group of equal conditions."""
    sections = map(markdown_section, list_sections(table, values))
    return "\n\n".join([f"# {table.title}", table.about, *sections]) + "\n"


def markdown_section(section: Section) -> str:
    """Returns a section's title, rows and caption."""
    rows = markdown_rows(section.lines(bold="**{}**"))
    return f"## {escape_markdown(section.title)}\n\n{rows}\n\n{escape_markdown(section.caption)}"


def terminal_table(table: Table, values: pd.DataFrame, width: int) -> str:
    """Returns the table for a terminal: its title, what it says of itself, and each group's rows and caption."""
    parts = [table.title, textwrap.fill(table.about, width)]
    for section in list_sections(table, values):
        caption = section.caption.removesuffix(BOLD).rstrip()  # a terminal shows nothing in bold
        parts += [section.title, render_terminal(section, width), textwrap.fill(caption, width)]
    return "\n\n".join(parts)


def _show_columns(table: Table, values: pd.DataFrame) -> list[ShownColumn]:
    """Returns the columns, with a cell for each value of `rows_by`; one in which no row has a value is left out."""
    rows: dict[Any, pd.Series] = {}
    rows_at: dict[tuple[Any, Any], pd.Series] = {}
    names = values[table.rows_by].fillna(values["model"]) if "model" in values else values[table.rows_by]
    for name, (_, row) in zip(names, values.iterrows(), strict=True):
        rows.setdefault(name, row)
        rows_at.setdefault((name, row.get("resolution")), row)
    shown = [_show_column(column, list(rows.values())) for column in table.columns]
    for resolution in dict.fromkeys(values["resolution"]) if table.spread else ():
        at = [rows_at.get((name, resolution)) for name in rows]
        shown += [_show_column(column, at, str(resolution)) for column in table.spread]
    return [column for column in shown if set(column.cells) != {NOTHING}]


def _show_column(column: TableColumn, rows: Sequence[pd.Series | None], resolution: str = "") -> ShownColumn:
    if column.for_rows:
        column = column.for_rows([row for row in rows if row is not None])
    cells = [NOTHING if row is None else column.show(row) for row in rows]
    first = next(row for row in rows if row is not None)
    title = column.title if isinstance(column.title, str) else column.title(first)
    heading = with_times(title if column.is_best else title.format(resolution))
    if not column.is_best:
        return ShownColumn(heading, cells, _best_as_shown(cells, column.best))
    leaders = [row is not None and bool(row.get(column.is_best, False)) for row in rows]
    return ShownColumn(heading, cells, [leads and sum(leaders) == 1 < len(rows) for leads in leaders])


def markdown_rows(lines: list[list[str]]) -> str:
    """Returns lines of cells, the heading's first, as Markdown rows that a terminal shows well: padded to one width."""
    lines = [list(map(escape_markdown, line)) for line in lines]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [
        " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in (lines[0], rules, *lines[1:])
    ]
    return "\n".join(f"| {row} |" for row in rows)


def render_terminal(section: Section, width: int) -> str:
    """Returns a section as plain rows for a terminal, as `terminal_rows`."""
    return terminal_rows(section.lines(), width)


def terminal_rows(lines: list[list[str]], width: int) -> str:
    """Returns lines of cells, the heading's first, as plain rows: columns that do not fit stand below them, behind the
    first again.

    Where not all fit, a heading that is longer than its cells takes several lines.
    """
    columns = [list(column) for column in zip(*lines, strict=True)]
    if sum(max(map(len, column)) + 2 for column in columns) > width + 2:
        columns = [[*_fold(heading, max(map(len, cells))), *cells] for heading, *cells in columns]
    first, widths = columns[0], [max(map(len, column)) for column in columns]
    blocks: list[list[list[str]]] = []
    room = 0
    for column, letters in zip(columns[1:], widths[1:], strict=True):
        if not blocks or letters + 2 > room:
            blocks.append([first])
            room = width - widths[0]
        blocks[-1].append(column)
        room -= letters + 2
    parts = []
    for block in blocks:
        sizes = [max(map(len, column)) for column in block]
        parts += [
            "  ".join([line[0].ljust(sizes[0]), *map(str.rjust, line[1:], sizes[1:])]).rstrip()
            for line in zip(*block, strict=True)
            if any(line)
        ]
        parts.append("")
    return "\n".join(parts).rstrip("\n")


HEADING_LINES = 3


def _fold(text: str, width: int) -> list[str]:
    """Returns text as HEADING_LINES lines, the first ones empty where fewer do: the fewest that fit a width, else all,
    as short as can be. A unit stays with the word before it."""
    words = re.split(r" (?!\S{1,3}$)", text)
    for count in range(1, min(HEADING_LINES, len(words)) + 1):
        cuts = [(0, *inner, len(words)) for inner in combinations(range(1, len(words)), count - 1)]
        folds = [[" ".join(words[a:b]) for a, b in pairwise(cut)] for cut in cuts]
        lines = min(folds, key=lambda each: max(map(len, each)))
        if max(map(len, lines)) <= width:
            break
    return [""] * (HEADING_LINES - len(lines)) + lines


POINTS = METRICS["top1"].divisor


def points_text(value: float) -> str:
    """Returns a difference of fractions in points."""
    return NOTHING if pd.isna(value) else f"{value / POINTS:+z.2f}"


def signed_column(metric: str, column: str, heading: str = "") -> TableColumn:
    """Returns the column of a difference with its sign, in the unit of the largest of a group, and in brackets in
    percent of v1's."""

    def for_rows(rows: Sequence[pd.Series]) -> TableColumn:
        unit = in_unit_of(metric, max((abs(row[column]) for row in rows if pd.notna(row[column])), default=0))

        def show(row: pd.Series) -> str:
            difference, percent = row[column], row[f"{column}_percent"]
            if pd.isna(difference):
                return NOTHING
            return f"{'+' if difference > 0 else ''}{four_figures(difference / unit.divisor)} ({percent:+z.1f} %)"

        return TableColumn(unit.titled(heading or unit.label), show)

    return TableColumn(heading, column, for_rows=for_rows)


LATEX_PREAMBLE = r"% Written by run_ablation.py report. The document needs \usepackage{booktabs,graphicx}."


LONGEST_CELL = 40
"""Letters; a column with a longer cell of several words is set as paragraphs of PARAGRAPH_WIDTH."""


PARAGRAPH_WIDTH = "6.5cm"


LATEX_SYMBOLS = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "²": r"\textsuperscript{2}",
    "³": r"\textsuperscript{3}",
}
"""Letters that mean something else to LaTeX, or that not all of its fonts have."""


_SYMBOL = re.compile("|".join(map(re.escape, LATEX_SYMBOLS)))


_MINUS = re.compile(r"(?<![\w.)-])-(?=\d)")


def escape_latex(text: str) -> str:
    """Returns plain text as LaTeX; what stands between backticks becomes typewriter, a minus a real one."""
    words = text.split("`")
    for place, word in enumerate(words):
        code = place % 2
        symbols = _SYMBOL.sub(lambda found: LATEX_SYMBOLS[found[0]], word)
        breakable = symbols.replace(r"\_", r"\_\allowbreak{}")
        words[place] = f"\\texttt{{{breakable}}}" if code else _MINUS.sub("$-$", symbols)
    return "".join(words)


def render_latex(table: Table, values: pd.DataFrame) -> str:
    """Returns a `table` float for each group of equal conditions: the title above, notes and conditions beneath.

    Where a column has a better end, its best cells are bold: those that show the same share it.
    """
    sections = (latex_section(table, section) for section in list_sections(table, values))
    return "\n\n".join([LATEX_PREAMBLE, *sections]) + "\n"


def latex_label(table: Table, section: Section) -> str:
    """Returns the name that an article refers to a section by."""
    return "tab:" + re.sub(r"[^a-z0-9]+", "-", f"{table.name} {section.title}".lower()).strip("-")


def latex_section(table: Table, section: Section) -> str:
    """Returns a section as a `table` float."""
    title = f"{table.title}{'' if table.title.endswith('?') else ':'} {section.title}."
    notes = " ".join(filter(None, (table.about, section.caption)))
    headings, *rows = (" & ".join(line) + r" \\" for line in section.lines(escape_latex, r"\textbf{{{}}}"))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{escape_latex(title)}}}",
            f"\\label{{{latex_label(table, section)}}}",
            r"\smallskip",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{{''.join(_alignments(section.columns))}}}",
            r"\toprule",
            headings,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            escape_latex(notes),
            r"\end{minipage}",
            r"\end{table}",
        ]
    )


def _alignments(columns: Sequence[ShownColumn]) -> list[str]:
    """Returns how columns are set: the first to the left, paragraphs where a cell is long, others to the right."""
    texts = [[cell for cell in column.cells if " " in cell] for column in columns]
    return [
        f"p{{{PARAGRAPH_WIDTH}}}" if max(map(len, cells), default=0) > LONGEST_CELL else "r" if place else "l"
        for place, cells in enumerate(texts)
    ]
