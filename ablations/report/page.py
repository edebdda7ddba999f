"""The report as one HTML file: every table and figure, what they say, the design, and where the numbers come from.

It loads nothing from anywhere, reads on a narrow screen, in the dark and on paper, and works without scripts. The same
records give the same bytes with the same version of the drawing library.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.analysis.effects import CHANGES
from ablations.analysis.grouping import AXES
from ablations.columns import field_docstrings
from ablations.config import ARMS, BASES, CONFOUNDERS, TOGGLES, PVTConfig, arm_toggles, as_pair, base_confounders
from ablations.files import write_text
from ablations.records import find_damaged, iterate_records, load_records
from ablations.report.build import TABLES, drawing, list_figures, name_record, provenance_lines, save_figure
from ablations.report.figures import FigureSpec
from ablations.report.findings import Finding, Tables, list_comparisons, list_findings, list_headlines
from ablations.report.tables import NOTHING, Section, Table, list_sections
from ablations.studies import CUMULATIVE

TITLE = "PVT v1 to v2, change by change"

PAPERS = {"PVT v1": "https://arxiv.org/abs/2102.12122", "PVT v2": "https://arxiv.org/abs/2106.13797"}

CHAPTERS = {
    "accuracy": "Accuracy",
    "evaluation": "Accuracy of finished weights",
    "cost": "Parameters and MACs",
    "memory": "Peak memory",
    "speed": "Speed",
}
"""Each measurement's heading, in the page's order."""

CONDITION_OF = {"accuracy": "epochs", "evaluation": "protocol", "memory": "method", "speed": "repeats"}
"""A condition by which the panels of a measurement are known; those of cost have none of these."""

LONGEST_CELL = 40
"""Letters; a column with a longer cell of several words is set as paragraphs."""

OF_PROVENANCE = {"device_name", "torch", "commit"}
"""What of an environment stands in the table of provenance."""


@dataclass(frozen=True)
class Part:
    """A part of the page: its anchor, its heading, what stands below it as HTML, and its own parts."""

    name: str
    title: str
    body: str
    parts: list["Part"] = field(default_factory=list)


def write_page(results: Path, path: Path) -> None:
    """Writes the page of the records under `results`.

    Raises InputError if records contradict each other.
    """
    records = load_records(results)
    tables = {table: values for table in TABLES if not (values := table.values(records)).empty}
    page = render_page(list(iterate_records(results)), find_damaged(results), tables, list_figures(records))
    write_text(path, page)


def render_page(
    records: list[dict[str, Any]], damaged: dict[str, str], tables: Tables, sheets: Iterable[FigureSpec]
) -> str:
    """Returns the page.

    `records` are all, failed ones too; `damaged` says what is wrong with each file that is none, by its path; `tables`
    have their values.
    """
    first = Part("findings", "What the records say", _findings(tables))
    rest = [
        Part("design", "The study's design", _design(records)),
        *_chapters(tables, sheets),
        Part("provenance", "Where the numbers come from", _provenance(records)),
        Part("left-out", "What was left out", _left_out(records, damaged)),
    ]
    failed = _failed(records)
    counts = f"{len(records) - len(failed)} finished records, {len(failed)} failed cells, {len(damaged)} damaged files."
    changes = ", ".join(f"{short} ({name.replace('_', ' ')})" for short, name in TOGGLES.items())
    papers = " and ".join(f'<a href="{address}">{name}</a>' for name, address in PAPERS.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<title>{TITLE}</title>
<link rel="icon" href="data:,">
<style>
{_asset("page.css")}</style>
</head>
<body>
<div class="layout">
<div class="first">
<header>
<h1>{TITLE}</h1>
<p>What each change between the Pyramid Vision Transformers {papers} does by itself: {changes}. Every number is \
generated from records: {counts}</p>
</header>
{_render(first)}</div>
<nav id="contents" aria-label="Contents">
<h2>Contents</h2>
{_contents([first, *rest])}</nav>
<main class="rest">
{"".join(map(_render, rest))}</main>
</div>
<a class="to-contents" href="#contents">Contents</a>
<script>
{_asset("page.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return (files("ablations.report") / name).read_text(encoding="utf-8")


def _render(part: Part, level: int = 2) -> str:
    inner = "".join(_render(each, level + 1) for each in part.parts)
    return f'<section id="{part.name}">\n<h{level}>{escape(part.title)}</h{level}>\n{part.body}{inner}</section>\n'


def _contents(parts: list[Part]) -> str:
    items = []
    for part in parts:
        link = f'<a href="#{part.name}">{escape(part.title)}</a>'
        if part.parts:
            link = f"<details><summary>{link}</summary>\n{_contents(part.parts)}</details>"
        items.append(f"<li>{link}</li>\n")
    return f"<ul>\n{''.join(items)}</ul>\n"


def _paragraph(text: str, kind: str = "") -> str:
    return f"<p{_class(kind)}>{_words(text)}</p>\n" if text else ""


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _words(text: str) -> str:
    """Returns plain text as HTML; what stands between backticks is code."""
    words = escape(text).split("`")
    return "".join(f"<code>{word}</code>" if place % 2 else word for place, word in enumerate(words))


def _findings(tables: Tables) -> str:
    comparisons, findings = list_comparisons(tables), list_findings(tables)
    if not comparisons:
        return _paragraph("No records have all eight arms, so no effect can be told yet.") + _list(findings)
    heads = "".join(f'<th scope="col">{change}{_where(TOGGLES[change].replace("_", " "))}</th>' for change in CHANGES)
    rows = "".join(
        f'<tr><th scope="row">{escape(row.what)}{_where(f"{row.where}, {row.basis}")}</th>'
        + "".join(f"<td{_class(verdict.tone)}>{escape(verdict.text)}</td>" for verdict in row.verdicts)
        + "</tr>\n"
        for row in comparisons
    )
    about = (
        "What each change does. Green is for the better, orange for the worse, italics are unresolved. Accuracy and "
        "costs: the mean with the change minus the mean without it, over the four settings of the other two; speed: v1 "
        "with the change beside v1. In brackets the 95 % interval; accuracy is resolved after Holm's correction for "
        "seven effects. Costs and speed are of the largest variant that has them; noisy times have an interquartile "
        "range over 10 % of their median."
    )
    table = _element("glance", f'<th scope="col">For</th>{heads}', rows)
    return "".join(
        [
            _list(list_headlines(comparisons)),
            _scroll(table, "What each change does"),
            _paragraph(about, "about"),
            _list(findings),
        ]
    )


def _list(findings: list[Finding]) -> str:
    items = "".join(
        f"<li><strong>{escape(finding.topic)}</strong>{_where(finding.where)}: {_words(finding.text)}</li>\n"
        for finding in findings
    )
    return f'<ul class="findings">\n{items}</ul>\n' if items else ""


def _where(text: str) -> str:
    """Returns conditions or an explanation, set more quietly than what they belong to."""
    return f' <span class="where">{escape(text)}</span>' if text else ""


def _element(kind: str, heads: str, rows: str) -> str:
    return f'<table class="{kind}">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>'


def _scroll(content: str, label: str) -> str:
    """Returns a box that scrolls sideways by itself where its content is wider than the page."""
    return f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">\n{content}\n</div>\n'


def _table(lines: list[list[str]], label: str, kind: str = "list") -> str:
    """Returns lines of cells, the heading's first, as a table; columns with a long cell are set as paragraphs."""
    return _marked_table([[_words(cell) for cell in line] for line in lines], _long_columns(lines), label, kind)


def _section_table(section: Section, label: str) -> str:
    """Returns a section of a table of the report, sortable, with the best of its columns in bold."""
    lines = [[_words(cell) for cell in line] for line in section.lines]
    for place, column in enumerate(section.columns):
        for line, is_best in zip(lines[1:], column.is_best, strict=True):
            line[place] = f"<strong>{line[place]}</strong>" if is_best else line[place]
    return _marked_table(lines, _long_columns(section.lines), label, "sortable")


def _long_columns(lines: list[list[str]]) -> list[bool]:
    return [any(len(cell) > LONGEST_CELL and " " in cell for cell in column) for column in zip(*lines[1:], strict=True)]


def _marked_table(lines: list[list[str]], is_long: list[bool], label: str, kind: str) -> str:
    """Returns lines of cells that are HTML as a table."""
    kinds = [_class("words" if long else "") for long in is_long]
    heads = "".join(f'<th scope="col"{style}>{cell}</th>' for cell, style in zip(lines[0], kinds, strict=True))
    rows = []
    for line in lines[1:]:
        cells = "".join(f"<td{style}>{cell}</td>" for cell, style in zip(line[1:], kinds[1:], strict=True))
        rows.append(f'<tr><th scope="row"{kinds[0]}>{line[0]}</th>{cells}</tr>\n')
    return _scroll(_element(kind, heads, "".join(rows)), label)


def _chapters(tables: Tables, sheets: Iterable[FigureSpec]) -> list[Part]:
    """Returns a part for each measurement that has something to show: its figures and its tables."""
    shown: dict[str, list[Part]] = {measurement: [] for measurement in CHAPTERS}
    with drawing():
        for sheet in sheets:
            shown[_measurement_of(sheet)].append(Part(f"figure-{sheet.name}", sheet.title, _figure(sheet)))
    for table, values in tables.items():
        shown[table.measurement].append(Part(f"table-{table.name}", table.title, _sections(table, values)))
    return [Part(name, CHAPTERS[name], "", parts) for name, parts in shown.items() if parts]


def _measurement_of(sheet: FigureSpec) -> str:
    conditions = sheet.panels[0].conditions
    return next((name for name, condition in CONDITION_OF.items() if condition in conditions), "cost")


def _figure(sheet: FigureSpec) -> str:
    """Returns a figure as an image in the page, PNG or SVG, whichever is the smaller."""
    figure = sheet.draw()
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    png, svg = save_figure(figure)
    kind, content = ("svg+xml", svg) if len(svg) < len(png) else ("png", png)
    source = f"data:image/{kind};base64,{b64encode(content).decode()}"
    image = f'<img alt="{escape(sheet.title)}" width="{width}" height="{height}" src="{source}">'
    return f"<figure>\n{_scroll(image, sheet.title)}<figcaption>{_words(sheet.caption)}</figcaption>\n</figure>\n"


def _sections(table: Table, values: pd.DataFrame) -> str:
    body = [_paragraph(table.about, "about")]
    for section in list_sections(table, values):
        label = f"{table.title}: {section.title}"
        body += [
            f"<h4>{escape(section.title)}</h4>\n",
            _section_table(section, label),
            _paragraph(" ".join(filter(None, (section.caption, section.emphasis))), "quiet"),
        ]
    return "".join(body)


def _design(records: list[dict[str, Any]]) -> str:
    meanings = field_docstrings(PVTConfig)
    changes = [["Change", "Field", "Meaning"]]
    changes += [[short, f"`{name}`", meanings[name]] for short, name in TOGGLES.items()]
    arms = [["Arm", *TOGGLES, "On the paper's cumulative"]]
    for arm in ARMS:
        marks = ["on" if is_on else "off" for is_on in arm_toggles(arm).values()]
        arms.append([arm, *marks, str(CUMULATIVE.index(arm) + 1) if arm in CUMULATIVE else NOTHING])
    confounders = [["Confounder", "Meaning", *(f"Base {base}" for base in BASES)]]
    for confounder in CONFOUNDERS:
        confounders.append(
            [f"`{confounder}`", meanings.get(confounder, ""), *(_confounder_text(base, confounder) for base in BASES)]
        )
    return "".join(
        [
            _paragraph(
                "Three changes are advertised. Each is switched by itself, which makes eight arms; an arm is named for "
                "what it has beside v1."
            ),
            _table(changes, "The changes"),
            _table(arms, "The arms"),
            _paragraph(
                "Confounders are what changed from v1 to v2 without being advertised. A base sets them: v1 and v2 give all "
                "arms the same, so that arms differ in nothing but the three changes; published gives each arm what "
                "the paper's row had."
            ),
            _table(confounders, "The confounders in each base"),
            _paragraph(
                "Every cell is one model under one set of conditions and makes one record. Accuracies of arms are "
                "compared by seed; times are taken interleaved in one process; counts and predictions have no noise."
            ),
            _table(_measured_lines(records), "What was measured") if records else "",
        ]
    )


def _confounder_text(base: str, confounder: str) -> str:
    """Returns a confounder's value in a base: the most common, and which arms have another."""
    values = {arm: str(base_confounders(base, arm)[confounder]) for arm in ARMS}
    usual = Counter(values.values()).most_common(1)[0][0]
    others: dict[str, list[str]] = {}
    for arm, value in values.items():
        if value != usual:
            others.setdefault(value, []).append(arm)
    return "; ".join([usual, *(f"{value} in {', '.join(arms)}" for value, arms in others.items())])


def _measured_lines(records: list[dict[str, Any]]) -> list[list[str]]:
    """Returns which models and conditions each measurement's records are of, as lines of cells."""
    lines = [["Measurement", "Records", "Variants", "Bases", "Arms", "Other models", "Resolutions, px", "Seeds"]]
    for measurement in AXES:
        own = [record for record in records if record["measurement"] == measurement]
        if not own:
            continue
        conditions = [record["conditions"] for record in own]
        sizes = sorted({tuple(as_pair(each["resolution"])) for each in conditions})
        lines.append(
            [
                measurement,
                str(len(own)),
                _listed(record.get("variant") for record in own),
                _listed(record.get("base") for record in own),
                str(len({record["arm"] for record in own if "arm" in record})),
                str(len({record["model"] for record in own if "model" in record})),
                ", ".join(str(height) if height == width else f"{height}x{width}" for height, width in sizes),
                _listed(each.get("seed") for each in conditions),
            ]
        )
    return lines


def _listed(values: Iterable[Any]) -> str:
    """Returns the different values in their order, as one text."""
    return ", ".join(map(str, sorted({value for value in values if value is not None}))) or NOTHING


def _provenance(records: list[dict[str, Any]]) -> str:
    if not records:
        return _paragraph("There are no records.")
    present = [name for name in AXES if any(record["measurement"] == name for record in records)]
    names = dict.fromkeys(name for record in records for name in record["environment"] if name not in OF_PROVENANCE)
    environments = [["Environment", *present]]
    for name in names:
        values = [
            {str(record["environment"].get(name)) for record in records if record["measurement"] == measurement}
            for measurement in present
        ]
        environments.append([name.replace("_", " "), *(_listed(own - {"None"}) for own in values)])
    about = "The studies, machines, versions and commits of all records, and the environments that they name."
    return _paragraph(about) + _table(provenance_lines(records), "Provenance") + _table(environments, "Environments")


def _failed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["status"] == "failed"]


def _left_out(records: list[dict[str, Any]], damaged: dict[str, str]) -> str:
    failed = _failed(records)
    body = _paragraph(f"{len(failed)} failed cells and {len(damaged)} damaged files.")
    if failed:
        lines = [[each["measurement"], name_record(each), each["key"], each["failure"]] for each in failed]
        body += _table([["Measurement", "Failed cell", "Key", "Why"], *lines], "Failed cells")
    if damaged:
        lines = [[name, why] for name, why in damaged.items()]
        body += _table([["Damaged file", "What is wrong"], *lines], "Damaged files")
    return body
