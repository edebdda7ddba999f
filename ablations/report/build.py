"""Writes the report of a results folder: tables, figures, and the pages that open with the answer.

The same records give the same bytes. The folders `tables` and `figures` hold what is written here and nothing else.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.analysis.grouping import caching
from ablations.errors import first_line, refuse
from ablations.files import write_bytes
from ablations.records.folder import read_records
from ablations.records.table import tabulate
from ablations.report.contents import (
    FIGURES,
    HEADLINE_FIGURES,
    HEADLINE_TABLES,
    TABLES,
    headline_figures,
    list_figures,
    list_values,
)
from ablations.report.examples import find_examples
from ablations.report.figures import FigureSpec
from ablations.report.images import SUFFIXES, drawing, figure_digest, image_digest, save_figure
from ablations.report.index import render_index
from ablations.report.page import render_page
from ablations.report.tables import Table, escape_markdown, left_out, render_csv, render_latex, render_markdown

PAGE = "report.html"
INDEX = "README.md"

USED_BY_SENTENCES = ("crossover",)
"""Tables whose values stand in sentences, beside the headlines."""


@dataclass(frozen=True)
class Built:
    """What was written, and what could not be rebuilt and was left as it was: its name, and why."""

    files: list[Path]
    not_rebuilt: dict[str, str]
    damaged: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """The records' damaged files and lines by place, and what is wrong with each."""
    table: pd.DataFrame = field(default_factory=lambda: tabulate([]), compare=False, repr=False)
    """The finished records that it was made of, as `load_records` has them: nobody need read them again."""


def build_report(
    results: Path, *, everything: bool = False, with_figures: bool = True, with_page: bool = False
) -> Built:
    """Writes the report of the records under `results`, and removes what an older one left over.

    That is the headlines; what is there beside them is kept up to date, and `everything` writes all tables and figures.
    A figure that is there and shows what it would show is left as it is. What cannot be rebuilt hinders nothing else
    and is never removed: a table or figure that raises, and, while files of records are damaged, one that the other
    records do not give. `with_page` writes PAGE too.
    """
    contents = _make(results, everything=everything)
    files = {results / name: text.encode(errors="backslashreplace") for name, text in contents.texts.items()}
    drawn: dict[Path, None] = {}
    not_rebuilt = dict(contents.failures)
    with drawing():
        for spec in contents.figures:
            paths = _image_paths(results, spec)
            drawn |= dict.fromkeys(paths)
            if not with_figures:
                continue
            try:
                figure = spec.draw()
            except Exception as error:
                not_rebuilt[f"figure {spec.name}"] = first_line(error)
                continue
            if any(not path.exists() or image_digest(path) != figure_digest(figure) for path in paths):
                files |= dict(zip(paths, save_figure(figure), strict=True))
    shown, linked = (
        [spec for spec in specs if _images(results, spec, files)] for specs in (contents.headlines, contents.others)
    )
    files[results / INDEX] = contents.render_index(shown, linked).encode(errors="backslashreplace")
    if with_page:
        images = {spec.name: _images(results, spec, files) for spec in contents.headlines}
        examples = find_examples(results, contents.records)
        files[results / PAGE] = render_page(
            contents.records, contents.damaged, contents.tables, contents.headlines, images, examples
        ).encode(errors="backslashreplace")
    for path, content in files.items():
        try:
            write_bytes(path, content)
        except OSError as error:
            raise refuse("results", str(path), f"a file that can be written ({error.strerror})") from error
    figures_failed = any(not name.startswith("table ") for name in not_rebuilt)
    for path in sorted(set(_generated(results)) - {*files, *drawn}):
        name = f"{path.parent.name.removesuffix('s')} {path.stem}"
        is_known = path.parent.name == "figures" or path.stem in {table.name for table in TABLES}
        if contents.damaged and is_known:
            not_rebuilt.setdefault(name, "files of records are damaged, and the others do not give it")
        if name not in not_rebuilt and not (figures_failed and path.parent.name == "figures"):
            path.unlink(missing_ok=True)
    written = [path for path in dict.fromkeys([*files, *drawn]) if with_figures or path not in drawn]
    return Built(written, not_rebuilt, contents.damaged, contents.table)


def check_report(results: Path) -> list[str]:
    """Returns the files under `results` that are missing, left over, or not what `build_report` would write.

    Texts must be equal byte for byte. A figure is compared by what it shows, of which each file carries a digest,
    because another version of the drawing library gives other bytes for the same figure; PAGE, which holds them, is
    compared in its text alone.
    """
    contents = _make(results)
    current = {results / name: _text_digest(text.encode()) for name, text in contents.texts.items()}
    current[results / INDEX] = _text_digest(contents.render_index(contents.headlines, contents.others).encode())
    with drawing():
        for spec in contents.figures:
            current |= dict.fromkeys(_image_paths(results, spec), figure_digest(spec.draw()))
    there = {
        path: image_digest(path) if path.suffix in SUFFIXES else _text_digest(path.read_bytes())
        for path in _generated(results)
    }
    stale = {path for path in {*current, *there} if current.get(path) != there.get(path)}
    return sorted([path.relative_to(results).as_posix() for path in stale] + list(contents.failures))


@dataclass(frozen=True)
class _Contents:
    """The text files of a report by name, its figures before they are drawn, and what they are made of."""

    texts: dict[str, str]
    figures: list[FigureSpec]
    headlines: list[FigureSpec]
    tables: dict[Table, pd.DataFrame]
    table: pd.DataFrame
    records: list[dict[str, Any]]
    damaged: dict[str, str]
    failures: dict[str, str]

    @property
    def others(self) -> list[FigureSpec]:
        """The figures that are no headlines."""
        return [spec for spec in self.figures if spec not in self.headlines]

    def render_index(self, figures: list[FigureSpec], others: list[FigureSpec]) -> str:
        """Returns the page that the folder opens with: it shows `figures` and links `others`, if there are files."""
        return render_index(self.records, self.damaged, self.tables, figures, others)


def _make(results: Path, *, everything: bool = False) -> _Contents:
    found = read_records(results)
    table = tabulate(found.records)
    failures: dict[str, str] = {}
    there = {path.stem for path in _generated(results)}
    if there - {"README"} and not found.records and not found.damaged:
        allowed = (
            "a folder with records: without any, its tables and figures cannot be rebuilt, and are left as they are"
        )
        raise refuse("results", str(results), allowed)
    wanted = None if everything else {*HEADLINE_TABLES, *there}
    kinds = [kind for kind in FIGURES if kind in HEADLINE_FIGURES or any(name.startswith(kind) for name in there)]
    with caching(table):
        tables = list_values(table, failures, None if wanted is None else {*wanted, *USED_BY_SENTENCES})
        every_figure = list_figures(table, failures, None if everything else kinds)
    texts: dict[str, str] = {}
    for one, values in tables.items():
        if wanted is not None and one.name not in wanted:
            continue
        try:
            rendered = {"md": render_markdown(one, values), "csv": render_csv(values), "tex": render_latex(one, values)}
            if note := left_out(one, found.damaged):
                rendered |= {
                    "md": f"{rendered['md']}\n{escape_markdown(note)}\n",
                    "tex": f"% {note}\n{rendered['tex']}",
                }
        except Exception as error:
            failures[f"table {one.name}"] = first_line(error)
            continue
        texts |= {f"tables/{one.name}.{suffix}": text for suffix, text in rendered.items()}
    headlines = headline_figures(every_figure)
    figures = [spec for spec in every_figure if everything or spec in headlines or spec.name in there]
    return _Contents(texts, figures, headlines, tables, table, found.records, found.damaged, failures)


def _image_paths(results: Path, spec: FigureSpec) -> list[Path]:
    return [results / "figures" / f"{spec.name}{suffix}" for suffix in SUFFIXES]


def _images(results: Path, spec: FigureSpec, files: dict[Path, bytes]) -> tuple[bytes, bytes] | None:
    """Returns a figure's PNG and SVG, as they were just made or as they are there; None where it could not be drawn."""
    contents = [
        files.get(path) or (path.read_bytes() if path.exists() else None) for path in _image_paths(results, spec)
    ]
    png, svg = contents
    return (png, svg) if png and svg else None


def _generated(results: Path) -> Iterator[Path]:
    """Yields the files of a report that are there."""
    for folder, suffixes in (("tables", (".md", ".csv", ".tex")), ("figures", SUFFIXES)):
        yield from (path for path in sorted((results / folder).glob("*")) if path.suffix in suffixes)
    if (results / INDEX).exists():
        yield results / INDEX


def _text_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
