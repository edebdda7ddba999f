"""The report as one HTML file: the answer first, then tables and figures by question, the design, and the sources.

It loads nothing from anywhere, reads on a narrow screen, in the dark and on paper, and works without scripts. The same
records give the same bytes with the same version of the drawing library.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd

from ablations.analysis.grouping import AXES
from ablations.conditions import field_docstrings
from ablations.config import (
    BASES,
    CONFOUNDERS,
    CUMULATIVE,
    PAPER_TOGGLES,
    TOGGLES,
    PVTConfig,
    arm_toggles,
    arms_of,
    as_pair,
    base_confounders,
    size_text,
)
from ablations.records.rows import conditions_of
from ablations.report.comparison import COMPARISON, shorten
from ablations.report.contents import QUESTIONS
from ablations.report.examples import render_examples
from ablations.report.figures import DPI, FigureSpec
from ablations.report.index import by_measurement, count_records, list_different, list_failed, provenance_lines
from ablations.report.overview import QUESTION, list_answers, list_overviews
from ablations.report.summary import (
    ShownComparison,
    Statement,
    Tables,
    largest_of_each_kind,
    list_statements,
    show_comparisons,
)
from ablations.report.tables import LONGEST_CELL, NOTHING, Section, Table, left_out, list_sections

TITLE = "PVT v1 to v2, change by change"

PAPERS = {"PVT v1": "https://arxiv.org/abs/2102.12122", "PVT v2": "https://arxiv.org/abs/2106.13797"}

CSS_DPI = 96
PNG_SIDES = (16, 20)
"""Where a PNG file has its width and its height, of four bytes each."""

OF_PROVENANCE = {"device_name", "torch", "commit"}
"""What of an environment stands in the table of provenance."""


@dataclass(frozen=True)
class Part:
    """A part of the page: its anchor, its heading, what stands below it as HTML, and its own parts."""

    name: str
    title: str
    body: str
    parts: list["Part"] = field(default_factory=list)


def toggles_at_hand(records: list[dict[str, Any]]) -> tuple[str, ...]:
    """Returns the toggles that some record's arm has on, in their order; without any, the paper's."""
    on = {name for record in records for name in record.get("arm", "").split("+")}
    return tuple(name for name in TOGGLES if name in on) or PAPER_TOGGLES


def render_page(
    records: list[dict[str, Any]],
    damaged: dict[str, str],
    tables: Tables,
    figures: Iterable[FigureSpec],
    images: dict[str, tuple[bytes, bytes] | None],
    examples: dict[str, bytes],
) -> str:
    """Returns the page.

    `records` are all, failed ones too; `damaged` says what is wrong with each file that is none, by its path; `tables`
    have their values; `images` are the figures, by name, as PNG and SVG; `examples` what networks found, by title.
    """
    toggles = toggles_at_hand(records)
    first = Part("summary", "What each change does", _summary(tables, damaged))
    rest = [
        *_questions(tables, figures, images, damaged),
        *([Part("examples", "What the networks found", render_examples(examples))] if examples else []),
        Part("design", "The study's design", _design(records, toggles)),
        Part("provenance", "Where the numbers come from", _provenance(records)),
        Part("left-out", "What was left out", _left_out(records, damaged)),
    ]
    counts = count_records(records, damaged)
    changes = ", ".join(f"{name} ({TOGGLES[name].title.lower()})" for name in toggles)
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
<p>What each toggle between the Pyramid Vision Transformers {papers} does by itself: {changes}. Every number is \
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


def _summary(tables: Tables, damaged: dict[str, str]) -> str:
    """Returns the comparison of the largest study of each kind, a sentence a toggle, and what else is known."""
    values = tables.get(COMPARISON)
    statements = _list(list_statements(tables))
    if values is None:
        return (
            _paragraph("No two arms of one model have been counted yet, so there is nothing to compare.") + statements
        )
    every = show_comparisons(values)
    answers = list_answers(every)
    comparisons = f"<h3>{QUESTION}</h3>\n{_list(answers)}" if answers else ""
    for section in list_overviews(every):
        comparisons += f"<h3>{escape(section.title)}</h3>\n{_section_table(section, section.title)}"
        comparisons += _paragraph(section.caption, "quiet")
    comparisons += comparison_html(largest_of_each_kind(every))
    notes = _paragraph(left_out(COMPARISON, damaged)) + _paragraph(COMPARISON.about, "about")
    return comparisons + notes + statements


def comparison_html(comparisons: Iterable[ShownComparison]) -> str:
    """Returns comparisons as HTML tables with their sentences and captions, to stand in any page.

    The columns that a screen has room for come first, and all of them below, folded.
    """
    body = []
    for shown in comparisons:
        label = f"Comparison: {shown.section.title}"
        brief, _ = shorten(shown.section, [])
        whole = _section_table(shown.section, f"{label}, all columns")
        body += [
            f"<h3>{escape(shown.section.title)}</h3>\n",
            _list(shown.statements),
            _section_table(brief, label),
            f"<details><summary>All columns</summary>\n{whole}</details>\n",
            _paragraph(shown.section.caption, "quiet"),
        ]
    return "".join(body)


def _list(statements: list[Statement]) -> str:
    items = []
    for each in statements:
        where = f' <span class="where">{escape(each.where)}</span>' if each.where else ""
        items.append(f"<li><strong>{escape(each.topic)}</strong>{where}: {_words(each.text)}</li>\n")
    return f'<ul class="summary">\n{"".join(items)}</ul>\n' if items else ""


def _scroll(content: str, label: str) -> str:
    """Returns a box that scrolls sideways by itself where its content is wider than the page."""
    return f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">\n{content}\n</div>\n'


def _table(lines: list[list[str]], label: str) -> str:
    """Returns lines of cells, the heading's first, as a table; columns with a long cell are set as paragraphs."""
    return _marked_table([[_words(cell) for cell in line] for line in lines], _long_columns(lines), label, "list")


def _section_table(section: Section, label: str) -> str:
    """Returns a section of a table of the report, sortable, with the best of its columns in bold."""
    lines = section.lines(_cell, "<strong>{}</strong>")
    return _marked_table(lines, _long_columns(section.lines()), label, "sortable")


def _cell(text: str) -> str:
    """Returns a cell as HTML: where a table is too wide, it breaks before brackets and after semicolons.

    On paper it breaks between words too. A number stays with its unit or its sign.
    """
    return (
        _words(text)
        .replace(" (", " <wbr>(")
        .replace("; ", "; <wbr>")
        .replace(" %", "\N{NO-BREAK SPACE}%")
        .replace("&lt; ", "&lt;\N{NO-BREAK SPACE}")
    )


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
    body = f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>"
    return _scroll(f'<table class="{kind}">\n{body}\n</table>', label)


def _questions(
    tables: Tables,
    figures: Iterable[FigureSpec],
    images: dict[str, tuple[bytes, bytes] | None],
    damaged: dict[str, str],
) -> list[Part]:
    """Returns a part for each question that has something to show: its figures and its tables."""
    by_name = {table.name: table for table in tables}
    drawn = [(spec, image) for spec in figures if (image := images.get(spec.name))]
    parts = []
    for question in QUESTIONS:
        shown = [
            Part(f"figure-{spec.name}", spec.title, _figure(spec, *image))
            for spec, image in drawn
            if spec.kind in question.figures
        ]
        own = [by_name[name] for name in question.tables if name in by_name]
        shown += [Part(f"table-{table.name}", table.title, _sections(table, tables[table], damaged)) for table in own]
        if shown:
            parts.append(Part(question.name, question.title, "", shown))
    return parts


def _figure(spec: FigureSpec, png: bytes, svg: bytes) -> str:
    """Returns a figure as an image in the page, PNG or SVG, whichever is the smaller."""
    width, height = (round(CSS_DPI * int.from_bytes(png[at : at + 4]) / DPI) for at in PNG_SIDES)
    kind, content = ("svg+xml", svg) if len(svg) < len(png) else ("png", png)
    source = f"data:image/{kind};base64,{b64encode(content).decode()}"
    image = f'<img alt="{escape(spec.title)}" width="{width}" height="{height}" src="{source}">'
    return f"<figure>\n{_scroll(image, spec.title)}<figcaption>{_words(spec.caption)}</figcaption>\n</figure>\n"


def _sections(table: Table, values: pd.DataFrame, damaged: dict[str, str]) -> str:
    body = [_paragraph(table.about, "about"), _paragraph(left_out(table, damaged))]
    for section in list_sections(table, values):
        label = f"{table.title}: {section.title}"
        body += [
            f"<h4>{escape(section.title)}</h4>\n",
            _section_table(section, label),
            _paragraph(section.caption, "quiet"),
        ]
    return "".join(body)


def _design(records: list[dict[str, Any]], toggles: tuple[str, ...]) -> str:
    meanings = field_docstrings(PVTConfig)
    names = [["Toggle", "Meaning"], *([name, TOGGLES[name].title] for name in toggles)]
    of_toggles = arms_of(toggles)
    arms = [["Arm", *toggles, "In the paper's cumulative ablation"]]
    for arm in of_toggles:
        marks = ["on" if name in arm_toggles(arm) else "off" for name in toggles]
        arms.append([arm, *marks, str(CUMULATIVE.index(arm) + 1) if arm in CUMULATIVE else NOTHING])
    confounders = [["Confounder", "Meaning", *(f"Base {base}" for base in BASES)]]
    for confounder in CONFOUNDERS:
        confounders.append(
            [
                f"`{confounder}`",
                meanings.get(confounder, ""),
                *(_confounder_text(base, confounder, of_toggles) for base in BASES),
            ]
        )
    return "".join(
        [
            _paragraph(
                f"The toggles are what v2 changed and said so. Each is switched by itself: {len(toggles)} make "
                f"{len(of_toggles)} arms. An arm is named for the toggles that are on."
            ),
            _table(names, "The toggles"),
            _table(arms, "The arms"),
            _paragraph(
                "Confounders are what v2 changed without saying so. A base sets them: v1 and v2 give all arms the "
                "same, so that arms differ in the toggles alone; published gives each arm what the paper's row had."
            ),
            _table(confounders, "The confounders in each base"),
            _paragraph(
                "Every cell is one model under one set of conditions and makes one record. Accuracies of arms are "
                "compared by seed; times are taken interleaved in one process; counts and predictions have no noise."
            ),
            _table(_measured_lines(records), "What was measured") if records else "",
        ]
    )


def _confounder_text(base: str, confounder: str, arms: tuple[str, ...]) -> str:
    """Returns a confounder's value in a base: the most common, and which arms have another."""
    values = {arm: str(base_confounders(base, arm)[confounder]) for arm in arms}
    usual = Counter(values.values()).most_common(1)[0][0]
    others: dict[str, list[str]] = {}
    for arm, value in values.items():
        if value != usual:
            others.setdefault(value, []).append(arm)
    return "; ".join([usual, *(f"{value} in {', '.join(own)}" for value, own in others.items())])


def _measured_lines(records: list[dict[str, Any]]) -> list[list[str]]:
    """Returns which models and conditions each measurement's records are of, as lines of cells."""

    def cells(own: list[dict[str, Any]]) -> list[str]:
        conditions = [conditions_of(record) for record in own]
        pairs = (as_pair(each["resolution"]) for each in conditions)
        return [
            list_different(record.get("variant") for record in own),
            list_different(record.get("base") for record in own),
            *(str(len({record[kind] for record in own if kind in record})) for kind in ("arm", "model")),
            ", ".join(map(size_text, sorted({(height, width) for height, width in pairs}))),
            list_different(each.get("seed") for each in conditions),
        ]

    headings = ("Variants", "Bases", "Arms", "Other models", "Resolutions, px", "Seeds")
    return by_measurement(records, headings, cells)


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
        environments.append([name.replace("_", " "), *(list_different(own - {"None"}) for own in values)])
    about = "The studies, machines, versions and commits of all records, and the environments that they name."
    return _paragraph(about) + _table(provenance_lines(records), "Provenance") + _table(environments, "Environments")


def _left_out(records: list[dict[str, Any]], damaged: dict[str, str]) -> str:
    failed, broken = list_failed(records), [list(each) for each in damaged.items()]
    body = _paragraph(f"{len(failed)} failed cells and {len(broken)} damaged files.")
    if failed:
        body += _table([["Measurement", "Failed cell", "Key", "Why"], *failed], "Failed cells")
    if broken:
        body += _table([["Damaged file", "What is wrong"], *broken], "Damaged files")
    return body
