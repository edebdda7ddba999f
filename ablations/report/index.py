"""The page that a results folder opens with, in Markdown, and where its numbers come from."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ablations.analysis.grouping import AXES
from ablations.errors import as_text
from ablations.report.comparison import COMPARISON
from ablations.report.contents import HEADLINE_TABLES, QUESTIONS, TABLES
from ablations.report.figures import FigureSpec
from ablations.report.summary import largest_of_each_kind, list_statements, show_comparisons
from ablations.report.tables import Table, escape_markdown, markdown_rows


def render_index(
    records: list[dict[str, Any]], damaged: dict[str, str], tables: dict[Table, pd.DataFrame], figures: list[FigureSpec]
) -> str:
    """Returns the page that a results folder opens with: the comparisons, what they say, and the headlines."""
    failed = [record for record in records if record["status"] == "failed"]
    by_name = {table.name: table for table in tables}
    sections = ["# Results"]
    if COMPARISON.name in by_name:
        shown = largest_of_each_kind(show_comparisons(tables[COMPARISON]))
        sections.append(COMPARISON.about)
        for each in shown:
            section = each.section
            title, caption = escape_markdown(section.title), escape_markdown(section.caption)
            sections += [f"## {title}", markdown_rows(section.marked_lines), caption]
            sections += ["\n".join(f"- **{one.topic}**: {escape_markdown(one.text)}" for one in each.statements)]
        sections.append("All comparisons: [Markdown](tables/comparison.md), [CSV](tables/comparison.csv).")
    statements = list_statements(tables)
    if statements:
        lines = [f"- **{each.topic}**{f' ({each.where})' if each.where else ''}: {each.text}" for each in statements]
        lines = list(map(escape_markdown, lines))
        sections += ["## What else the records say", "\n".join(lines)]
    for question in QUESTIONS:
        own = [by_name[name] for name in question.tables if name in by_name]
        drawn = [spec for spec in figures if spec.kind in question.figures]
        if own or drawn:
            sections.append(f"## {question.title}")
        for spec in drawn:
            title, caption = escape_markdown(spec.title), escape_markdown(spec.caption)
            sections += [f"![{title}](figures/{spec.name}.png)", f"{caption} [SVG](figures/{spec.name}.svg)"]
        links = "{0.title} [Markdown](tables/{0.name}.md), [CSV](tables/{0.name}.csv), [LaTeX](tables/{0.name}.tex)"
        sections += ["\n".join(f"- {links.format(table)}" for table in own)] if own else []
    others = ", ".join(f"`{table.name}`" for table in TABLES if table.name not in HEADLINE_TABLES)
    sections += ["## More", f"`run_ablation.py report --all` writes further tables, as far as records go: {others}."]
    counts = f"{len(records) - len(failed)} finished records, {len(failed)} failed cells, {len(damaged)} damaged files."
    sections += [
        "## Where the numbers come from",
        "Written by `run_ablation.py report` from the files under [records](records); nothing here is edited by hand. "
        + counts,
    ]
    if records:
        sections.append(markdown_rows(provenance_lines(records)))
    if failed:
        lines = [f"- {each['measurement']} {name_record(each)}, {each['key']}: {each['failure']}" for each in failed]
        sections += ["## Failed cells", "\n".join(map(escape_markdown, lines))]
    if damaged:
        lines = [escape_markdown(f"- {as_text(name)}: {why}") for name, why in damaged.items()]
        sections += ["## Damaged files, left out", "\n".join(lines)]
    return "\n\n".join(sections) + "\n"


def name_record(record: dict[str, Any]) -> str:
    """Returns the model of a record, or its variant, arm and base."""
    return record.get("model") or "{variant} {arm}, base {base}".format(**record)


def provenance_lines(records: list[dict[str, Any]]) -> list[list[str]]:
    """Returns where and when each measurement's records were made, as lines of cells, the heading's first."""
    lines = [["Measurement", "Records", "Studies", "Machines", "torch", "Commits", "Days", "Hours"]]
    for measurement in AXES:
        own = [record for record in records if record["measurement"] == measurement]
        if not own:
            continue
        environments = [record["environment"] for record in own]
        lines.append(
            [
                measurement,
                str(len(own)),
                _different(record["study"] for record in own),
                _different(environment.get("device_name") for environment in environments),
                _different(environment.get("torch") for environment in environments),
                _different((environment.get("commit") or "unknown")[:12] for environment in environments),
                _different(record["started"][:10] for record in own),
                f"{sum(record['duration_s'] for record in own) / 3600:.2f}",
            ]
        )
    return lines


def _different(words: Iterable[Any]) -> str:
    return ", ".join(sorted({str(word) for word in words}))
