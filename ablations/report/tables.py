"""What a table of the report is, how its cells are written, and how it is rendered: Markdown, CSV and LaTeX."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from ablations.analysis.grouping import REFERENCE, Group, describe, group_by, tell_apart, varying
from ablations.errors import FEW
from ablations.measure.metrics import METRICS

NOTHING = "-"
"""What a cell without a value shows."""


@dataclass(frozen=True)
class Column:
    """One column for people: its heading, and what it shows of a row of the values."""

    title: str | Callable[[pd.Series], str]
    """A function takes the first row of a group, and so names what the group has in common."""
    show: Callable[[pd.Series], str]
    best: Literal["min", "max"] | None = None
    """Which end is the better one, where rows compete; nothing where none is better or they are no rivals."""
    is_best: Callable[[pd.Series], bool] | None = None
    """Says it of a row where noise decides, instead of `best`."""


ARM = Column("Arm", lambda row: row["model"] if pd.isna(row["arm"]) else row["arm"])
"""Its name, or that of a model that is no arm."""

MODE_WORDS = {
    "inference": "One forward pass without gradients.",
    "training": "One training step: forward, backward and AdamW with its state.",
}
"""What one step of each mode is."""


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
    titled_by: tuple[str, ...]
    """Those that head each group, beside any that differ between groups."""
    columns: tuple[Column, ...]
    spread: tuple[Column, ...] = ()
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


def show_metric(metric: str, column: str | None = None) -> Callable[[pd.Series], str]:
    """Shows a metric, of a column of another name if one is given."""
    return lambda row: metric_text(metric, row[column or metric])


def show_with_change(metric: str) -> Callable[[pd.Series], str]:
    """Shows a metric and, in brackets, its change against arm v1."""

    def show(row: pd.Series) -> str:
        text, change = metric_text(metric, row[metric]), row[f"{metric}_change_percent"]
        return text if row["arm"] == REFERENCE or pd.isna(change) else f"{text} ({change:+z.1f} %)"

    return show


def unless_reference(show: Callable[[pd.Series], str]) -> Callable[[pd.Series], str]:
    """Shows nothing of arm v1, which all others are compared with."""
    return lambda row: NOTHING if row["arm"] == REFERENCE else show(row)


def range_text(row: pd.Series, metric: str, form: str, divisor: float = 1.0) -> str:
    """Returns the two ends of a metric's interval as words, nothing where it has none."""
    low, high = row[f"{metric}_low"] / divisor, row[f"{metric}_high"] / divisor
    return NOTHING if pd.isna(low) else f"{low:{form}} to {high:{form}}"


def show_plain(column: str, form: str = "", divisor: float = 1.0) -> Callable[[pd.Series], str]:
    """Shows a column that not all groups have."""

    def show(row: pd.Series) -> str:
        value = row.get(column)
        return NOTHING if pd.isna(value) else format(value if divisor == 1 else value / divisor, form)

    return show


def show_text(column: str) -> Callable[[pd.Series], str]:
    """Shows the words of a column that not all rows have."""
    return lambda row: str(row[column]) if pd.notna(row.get(column)) and row[column] != "" else NOTHING


def render_csv(values: pd.DataFrame) -> str:
    """Returns the values as CSV, unrounded, with units in the column names.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    return values.map(_no_formula).to_csv(index=False, float_format="%.12g", lineterminator="\n")


def _no_formula(value: Any) -> Any:
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


BOLD = "Bold: the best of a column as it is shown."

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
    """The note and the conditions."""

    @property
    def emphasis(self) -> str:
        """What bold cells say, where there are any."""
        return BOLD if any(any(column.is_best) for column in self.columns) else ""

    @property
    def lines(self) -> list[list[str]]:
        """The headings and then the rows."""
        columns = [[column.heading, *column.cells] for column in self.columns]
        return [list(line) for line in zip(*columns, strict=True)]

    def only(self, headings: tuple[str, ...]) -> "Section":
        """Returns the section with those of its columns whose headings begin so."""
        return replace(self, columns=[column for column in self.columns if column.heading.startswith(headings)])

    @property
    def marked_lines(self) -> list[list[str]]:
        """The same with the best cells in bold, as Markdown has it."""
        columns = [
            [
                column.heading,
                *(f"**{cell}**" if best else cell for cell, best in zip(column.cells, column.is_best, strict=True)),
            ]
            for column in self.columns
        ]
        return [list(line) for line in zip(*columns, strict=True)]


def list_sections(table: Table, values: pd.DataFrame) -> list[Section]:
    """Returns a section for each group of equal conditions; their titles tell them apart."""
    groups = group_by(values, table.conditions)
    sections = []
    for group in groups:
        title = _title(table, group)
        namesakes = [other.conditions for other in groups if _title(table, other) == title]
        apart = tell_apart(group.conditions, varying(namesakes))
        sections.append(
            Section(
                title=", ".join(filter(None, (title, apart))),
                columns=_show_columns(table, group.rows),
                caption=f"{table.note(group.rows)} Conditions: {describe(group.conditions)}.".strip(),
            )
        )
    return sections


def render_markdown(table: Table, values: pd.DataFrame) -> str:
    """Returns the table for people: a heading, rows and a caption for each group of equal conditions."""
    sections = [f"# {table.title}", table.about]
    for section in list_sections(table, values):
        title, caption = escape_markdown(section.title), escape_markdown(section.caption)
        sections += [f"## {title}", markdown_rows(section.lines), caption]
    return "\n\n".join(sections) + "\n"


def _title(table: Table, group: Group) -> str:
    return describe(group.conditions, table.titled_by)


def _show_columns(table: Table, values: pd.DataFrame) -> list[ShownColumn]:
    """Returns the columns, with a cell for each value of `rows_by`; one in which no row has a value is left out."""
    rows: dict[Any, pd.Series] = {}
    rows_at: dict[tuple[Any, Any], pd.Series] = {}
    names = values[table.rows_by].fillna(values["model"]) if "model" in values else values[table.rows_by]
    for place, name in enumerate(names):
        row = values.iloc[place]
        rows.setdefault(name, row)
        rows_at.setdefault((name, row.get("resolution")), row)
    shown = [_show_column(column, list(rows.values())) for column in table.columns]
    for resolution in dict.fromkeys(values["resolution"]) if table.spread else ():
        at = [rows_at.get((name, resolution)) for name in rows]
        shown += [_show_column(column, at, str(resolution)) for column in table.spread]
    return [column for column in shown if set(column.cells) != {NOTHING}]


def _show_column(column: Column, rows: Sequence[pd.Series | None], resolution: str = "") -> ShownColumn:
    cells = [NOTHING if row is None else column.show(row) for row in rows]
    first = next(row for row in rows if row is not None)
    heading = column.title if isinstance(column.title, str) else column.title(first)
    if column.is_best is None:
        return ShownColumn(heading.format(resolution), cells, _best_as_shown(cells, column.best))
    return ShownColumn(heading, cells, [row is not None and column.is_best(row) for row in rows])


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
    """Returns a section as plain rows for a terminal; columns that do not fit stand below, behind the first again."""
    columns = [[column.heading, *column.cells] for column in section.columns]
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
        ]
        parts.append("")
    return "\n".join(parts).rstrip("\n")


Show = Callable[[pd.Series], str]


POINTS = METRICS["top1"].divisor


def points_text(value: float) -> str:
    """Returns a difference of fractions in points."""
    return NOTHING if pd.isna(value) else f"{value / POINTS:+z.2f}"


def show_signed(metric: str, column: str) -> Show:
    """Shows a difference in a metric's unit with its sign and, in brackets, in percent of arm v1's value."""

    def show(row: pd.Series) -> str:
        difference, percent = row[column], row[f"{column}_percent"]
        if pd.isna(difference):
            return NOTHING
        sign = "+" if difference > 0 else ""
        return f"{sign}{metric_text(metric, difference)} ({percent:+z.1f} %)"

    return show


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

    Where a column has a better end, its best cells are bold as they are shown: those that show the same share it.
    """
    sections = list_sections(table, values)
    return "\n\n".join([LATEX_PREAMBLE, *(_latex_section(table, section) for section in sections)]) + "\n"


def latex_label(table: Table, section: Section) -> str:
    """Returns the name that an article refers to a section by."""
    return "tab:" + re.sub(r"[^a-z0-9]+", "-", f"{table.name} {section.title}".lower()).strip("-")


def _latex_section(table: Table, section: Section) -> str:
    columns = [_bold_best(column) for column in section.columns]
    title = f"{table.title}{'' if table.title.endswith('?') else ':'} {section.title}."
    notes = " ".join(filter(None, (table.about, section.caption, section.emphasis)))
    headings, *rows = (" & ".join(line) + r" \\" for line in zip(*columns, strict=True))
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


def _bold_best(column: ShownColumn) -> list[str]:
    """Returns the heading and the cells, the best in bold."""
    cells = zip(map(escape_latex, column.cells), column.is_best, strict=True)
    return [escape_latex(column.heading), *(f"\\textbf{{{cell}}}" if is_best else cell for cell, is_best in cells)]
