"""What a table of the report is, and how it is rendered: to Markdown for people and to CSV for programs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablations.config import ARMS
from ablations.records import METRICS
from ablations.report.conditions import Group, describe, group_by, varying

NOTHING = "-"
"""What a cell without a value shows."""


@dataclass(frozen=True)
class Column:
    """One column for people: its heading, and what it shows of a row of the values."""

    title: str
    show: Callable[[pd.Series], str]


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
    """The column of the values that has another value in each row of a group."""


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


def show_plain(column: str, form: str = "", divisor: float = 1.0) -> Callable[[pd.Series], str]:
    """Shows a column that not all groups have."""

    def show(row: pd.Series) -> str:
        value = row.get(column)
        return NOTHING if pd.isna(value) else format(value / divisor, form)

    return show


def render_csv(values: pd.DataFrame) -> str:
    """Returns the values as CSV, unrounded, with units in the column names."""
    return values.to_csv(index=False, float_format="%.12g", lineterminator="\n")


def render_markdown(table: Table, values: pd.DataFrame) -> str:
    """Returns the table for people: a heading, rows and a caption for each group of equal conditions."""
    groups = group_by(values, table.conditions)
    sections = [f"# {table.title}", table.about]
    for group in groups:
        namesakes = [other.conditions for other in groups if _title(table, other) == _title(table, group)]
        sections += [
            f"## {describe(group.conditions, [*table.titled_by, *varying(namesakes)])}",
            _render_rows(table, group.rows),
            f"{table.note(group.rows)} Conditions: {describe(group.conditions)}.".strip(),
        ]
    return "\n\n".join(sections) + "\n"


def _title(table: Table, group: Group) -> str:
    return describe(group.conditions, table.titled_by)


def _render_rows(table: Table, values: pd.DataFrame) -> str:
    """Returns one Markdown row for each value of `rows_by`; a column in which no row has a value is left out."""
    resolutions = list(dict.fromkeys(values["resolution"])) if table.spread else []
    lines = [[column.title for column in table.columns]]
    lines[0] += [column.title.format(resolution) for resolution in resolutions for column in table.spread]
    for _, own in values.groupby(table.rows_by, sort=False):
        cells = [column.show(own.iloc[0]) for column in table.columns]
        for resolution in resolutions:
            at = own[own["resolution"] == resolution]
            cells += [NOTHING if at.empty else column.show(at.iloc[0]) for column in table.spread]
        lines.append(cells)
    columns = [column for column in zip(*lines, strict=True) if set(column[1:]) != {NOTHING}]
    return markdown_rows([list(line) for line in zip(*columns, strict=True)])


def markdown_rows(lines: list[list[str]]) -> str:
    """Returns lines of cells, the heading's first, as Markdown rows that a terminal shows well: padded to one width."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [
        " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in (lines[0], rules, *lines[1:])
    ]
    return "\n".join(f"| {row} |" for row in rows)
