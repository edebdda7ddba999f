"""The page that a results folder opens with, in Markdown, and where its numbers come from."""

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pandas as pd

from ablations.analysis.grouping import AXES
from ablations.errors import as_text
from ablations.report.comparison import COMPARISON
from ablations.report.contents import HEADLINE_TABLES, QUESTIONS, TABLES
from ablations.report.figures import FigureSpec
from ablations.report.overview import QUESTION, list_answers, list_overviews
from ablations.report.summary import (
    comparison_markdown,
    largest_of_each_kind,
    list_statements,
    markdown_list,
    show_comparisons,
)
from ablations.report.tables import NOTHING, Table, escape_markdown, markdown_rows, markdown_section
from ablations.studies import list_studies


def render_index(
    records: list[dict[str, Any]],
    damaged: dict[str, str],
    tables: dict[Table, pd.DataFrame],
    figures: list[FigureSpec],
    others: list[FigureSpec],
) -> str:
    """Returns the page that a results folder opens with: the comparisons, what they say, and the headlines.

    It shows `figures` and links `others`, which are there too.
    """
    by_name = {table.name: table for table in tables}
    sections = ["# Results"]
    if COMPARISON.name in by_name:
        every = show_comparisons(tables[COMPARISON])
        answers = list_answers(every)
        sections += [
            *([f"## {QUESTION}", markdown_list(answers)] if answers else []),
            *map(markdown_section, list_overviews(every)),
            COMPARISON.about,
            comparison_markdown(largest_of_each_kind(every)).rstrip(),
            "All comparisons: [Markdown](tables/comparison.md), [CSV](tables/comparison.csv).",
        ]
    if statements := list_statements(tables):
        sections += ["## What else the records say", markdown_list(statements)]
    answered: list[str] = []
    for question in QUESTIONS:
        own = [by_name[name] for name in question.tables if name in by_name]
        drawn = [spec for spec in figures if spec.kind in question.figures]
        if own or drawn:
            sections.append(f"## {question.title}")
            answered.append(question.title)
        for spec in drawn:
            title, caption = escape_markdown(spec.title), escape_markdown(spec.caption)
            sections += [f"![{title}](figures/{spec.name}.png)", f"{caption} [SVG](figures/{spec.name}.svg)"]
        linked = [
            f"[{escape_markdown(spec.title)}](figures/{spec.name}.png)"
            for spec in others
            if spec.kind in question.figures
        ]
        sections += [f"More figures: {', '.join(linked)}."] if linked else []
        links = "{0.title} [Markdown](tables/{0.name}.md), [CSV](tables/{0.name}.csv), [LaTeX](tables/{0.name}.tex)"
        sections += ["\n".join(f"- {links.format(table)}" for table in own)] if own else []
    on_request = [
        f"- {escape_markdown(table.title)}: `{table.name}`" for table in TABLES if table.name not in HEADLINE_TABLES
    ]
    told = "`run_ablation.py report --all` writes these tables too, as far as records go:"
    sections += ["## More", told, "\n".join(on_request)]
    sections += [
        "## Where the numbers come from",
        "Written by `run_ablation.py report` from the files under [records](records); nothing here is edited by hand. "
        + count_records(records, damaged),
    ]
    if records:
        sections.append(markdown_rows(provenance_lines(records)))
    failed, broken = list_failed(records), list(damaged.items())
    if failed:
        lines = ["- {} {}, {}: {}".format(*line) for line in failed]
        sections += ["## Failed cells", "\n".join(map(escape_markdown, lines))]
    if broken:
        lines = [f"- {as_text(name)}: {why}" for name, why in broken]
        sections += ["## Damaged files, left out", "\n".join(map(escape_markdown, lines))]
    if answered:
        sections.insert(1, "Below: " + " · ".join(f"[{title}](#{_anchor(title)})" for title in answered))
    return "\n\n".join(sections) + "\n"


def _anchor(title: str) -> str:
    """Returns what GitHub calls the place of a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def list_failed(records: list[dict[str, Any]]) -> list[list[str]]:
    """Returns the measurement, the model or its variant, arm and base, the key and the failure of each failed cell."""
    lines = []
    for record in records:
        if record["status"] == "failed":
            model = record.get("model") or "{variant} {arm}, base {base}".format(**record)
            lines.append([record["measurement"], model, record["key"], record["failure"]])
    return lines


def count_records(records: list[dict[str, Any]], damaged: dict[str, str]) -> str:
    """Returns how many records there are of each kind, as a sentence."""
    failed = len(list_failed(records))
    return f"{len(records) - failed} finished records, {failed} failed cells, {len(damaged)} damaged files."


def by_measurement(
    records: list[dict[str, Any]], headings: Iterable[str], cells: Callable[[list[dict[str, Any]]], list[str]]
) -> list[list[str]]:
    """Returns a line for each measurement: how many records it has and their cells; the headings' line comes first."""
    lines = [["Measurement", "Records", *headings]]
    for measurement in AXES:
        own = [record for record in records if record["measurement"] == measurement]
        lines += [[measurement, str(len(own)), *cells(own)]] if own else []
    return lines


def provenance_lines(records: list[dict[str, Any]]) -> list[list[str]]:
    """Returns where and when each measurement's records were made, as lines of cells, the heading's first."""

    packaged = list_studies()

    def cells(own: list[dict[str, Any]]) -> list[str]:
        environments = [record["environment"] for record in own]
        return [
            list_different(_study_text(record, packaged) for record in own),
            *(list_different(each.get(name) for each in environments) for name in ("device_name", "torch")),
            list_different((each.get("commit") or "unknown")[:12] for each in environments),
            list_different(record["started"][:10] for record in own),
            f"{sum(record['duration_s'] for record in own) / 3600:.2f}",
        ]

    return by_measurement(records, ("Studies", "Machines", "torch", "Commits", "Days", "Hours"), cells)


def _study_text(record: dict[str, Any], packaged: Collection[str]) -> str:
    """Returns the study that a record was measured for; a command that names none leaves its measurement there."""
    study = record["study"]
    return "single commands" if study == record["measurement"] and study not in packaged else str(study)


def list_different(values: Iterable[Any]) -> str:
    """Returns the different values in their order, as one text."""
    return ", ".join(map(str, sorted({value for value in values if value is not None}))) or NOTHING
