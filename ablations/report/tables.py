"""What a table of the report is, and how it is rendered: to Markdown for people and to CSV for programs.

`ablations.report.latex` renders the same definitions for articles.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ablations.config import ARMS
from ablations.records import METRICS
from ablations.report.conditions import Group, describe, group_by, tell_apart, varying

NOTHING = "-"
"""What a cell without a value shows."""


@dataclass(frozen=True)
class Column:
    """One column for people: its heading, and what it shows of a row of the values."""

    title: str
    show: Callable[[pd.Series], str]
    best: Literal["min", "max"] | None = None
    """Which end is the better one, where rows compete; nothing where none is better or they are no rivals."""


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
        return text if row["arm"] == ARMS[0] or pd.isna(change) else f"{text} ({change:+z.1f} %)"

    return show


def unless_reference(show: Callable[[pd.Series], str]) -> Callable[[pd.Series], str]:
    """Shows nothing of arm v1, which all others are compared with."""
    return lambda row: NOTHING if row["arm"] == ARMS[0] else show(row)


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


def render_csv(values: pd.DataFrame) -> str:
    """Returns the values as CSV, unrounded, with units in the column names."""
    return values.to_csv(index=False, float_format="%.12g", lineterminator="\n")


BOLD = "Bold: the best of a column as it is printed."

_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class ShownColumn:
    """A column as words: its heading and a cell for each row."""

    heading: str
    cells: list[str]
    best: Literal["min", "max"] | None

    @property
    def is_best(self) -> list[bool]:
        """Whether each cell is the best of the column as it is printed; none is where there is no rival."""
        found = [_NUMBER.match(text) for text in self.cells]
        numbers = [float(number[0].replace(",", "")) if number else None for number in found]
        rivals = [number for number in numbers if number is not None]
        if self.best is None or len(set(rivals)) < 2:
            return [False] * len(numbers)
        best = max(rivals) if self.best == "max" else min(rivals)
        return [number == best for number in numbers]


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
        sections += [f"## {section.title}", markdown_rows(section.lines), section.caption]
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
    shown = [
        ShownColumn(column.title, [column.show(row) for row in rows.values()], column.best) for column in table.columns
    ]
    for resolution in dict.fromkeys(values["resolution"]) if table.spread else ():
        for column in table.spread:
            at = [rows_at.get((name, resolution)) for name in rows]
            cells = [NOTHING if row is None else column.show(row) for row in at]
            shown.append(ShownColumn(column.title.format(resolution), cells, column.best))
    return [column for column in shown if set(column.cells) != {NOTHING}]


def markdown_rows(lines: list[list[str]]) -> str:
    """Returns lines of cells, the heading's first, as Markdown rows that a terminal shows well: padded to one width."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [
        " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in (lines[0], rules, *lines[1:])
    ]
    return "\n".join(f"| {row} |" for row in rows)
