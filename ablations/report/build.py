"""Writes the report of a results folder: tables, figures and the page that lists them, all made from its records.

The same records give the same bytes. The folders `tables` and `figures` hold what is written here and nothing else.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator
from PIL import Image

from ablations.analysis.grouping import AXES
from ablations.errors import first_line
from ablations.files import write_bytes
from ablations.records import find_damaged, iterate_records, load_records
from ablations.report import accuracy, cost, effects, memory, paper, speed
from ablations.report.figures import STYLE, FigureSpec
from ablations.report.tables import Table, markdown_rows, render_csv, render_latex, render_markdown

SUBJECTS = (paper, cost, memory, speed, accuracy, effects)
"""What the report is about, in its order; each has TABLES and list_figures."""

TABLES = tuple(table for subject in SUBJECTS for table in subject.TABLES)

IMAGES = (".png", ".svg")


@dataclass(frozen=True)
class Report:
    """What was written, and what could not be rebuilt and was left as it was: its name, and why."""

    files: list[Path]
    not_rebuilt: dict[str, str]


def build_report(results: Path) -> Report:
    """Writes the report of the records under `results`, and removes what an older one left over.

    A figure that is there and shows what it would show is left as it is. What cannot be rebuilt hinders nothing else
    and is never removed: a table or figure that raises, and, while files of records are damaged, one that the other
    records do not give.
    """
    contents = _make(results)
    files = {results / name: text.encode() for name, text in contents.texts.items()}
    drawn: dict[Path, None] = {}
    not_rebuilt = dict(contents.failures)
    with drawing():
        for spec in contents.figures:
            try:
                figure = spec.draw()
            except Exception as error:
                not_rebuilt[f"figure {spec.name}"] = first_line(error)
                continue
            paths = [results / "figures" / f"{spec.name}{suffix}" for suffix in IMAGES]
            drawn |= dict.fromkeys(paths)
            if any(not path.exists() or _file_digest(path) != figure_digest(figure) for path in paths):
                files |= dict(zip(paths, save_figure(figure), strict=True))
    for path, content in files.items():
        write_bytes(path, content)
    figures_failed = any(not name.startswith("table ") for name in not_rebuilt)
    for path in sorted(set(_generated(results)) - {*files, *drawn}):
        name = f"{path.parent.name.removesuffix('s')} {path.stem}"
        is_known = path.parent.name == "figures" or path.stem in {table.name for table in TABLES}
        if contents.damaged and is_known:
            not_rebuilt.setdefault(name, "files of records are damaged, and the others do not give it")
        if name not in not_rebuilt and not (figures_failed and path.parent.name == "figures"):
            path.unlink(missing_ok=True)
    return Report(list(dict.fromkeys([*files, *drawn])), not_rebuilt)


def check_report(results: Path) -> list[str]:
    """Returns the files under `results` that are missing, left over, or not what `build_report` would write.

    Texts must be equal byte for byte. A figure is compared by what it shows, of which each file carries a digest,
    because another version of the drawing library gives other bytes for the same figure.
    """
    contents = _make(results)
    current = {results / name: _text_digest(text.encode()) for name, text in contents.texts.items()}
    with drawing():
        for spec in contents.figures:
            digest = figure_digest(spec.draw())
            current |= {results / "figures" / f"{spec.name}{suffix}": digest for suffix in IMAGES}
    found = {path: _file_digest(path) for path in _generated(results)}
    stale = {path for path in {*current, *found} if current.get(path) != found.get(path)}
    return sorted([path.relative_to(results).as_posix() for path in stale] + list(contents.failures))


@dataclass(frozen=True)
class _Contents:
    """The text files of a report by name, its figures before they are drawn, what failed, and damaged records."""

    texts: dict[str, str]
    figures: list[FigureSpec]
    failures: dict[str, str]
    damaged: dict[str, str]


def _make(results: Path) -> _Contents:
    records = load_records(results)
    failures: dict[str, str] = {}
    tables = list_values(records, failures)
    texts: dict[str, str] = {}
    for table, values in tables.items():
        try:
            rendered = {
                "md": render_markdown(table, values),
                "csv": render_csv(values),
                "tex": render_latex(table, values),
            }
        except Exception as error:
            failures[f"table {table.name}"] = first_line(error)
            continue
        texts |= {f"tables/{table.name}.{suffix}": text for suffix, text in rendered.items()}
    figures = list_figures(records, failures)
    damaged = find_damaged(results)
    left = [results / "tables" / f"{table.name}.md" for table in TABLES if failures or damaged]
    listed = {name for name in texts if name.endswith(".md")} | {
        f"tables/{path.name}" for path in left if path.exists()
    }
    shown = [table for table in TABLES if f"tables/{table.name}.md" in listed]
    texts["README.md"] = render_index(list(iterate_records(results)), damaged, shown, figures)
    return _Contents(texts, figures, failures, damaged)


def list_values(records: pd.DataFrame, failures: dict[str, str]) -> dict[Table, pd.DataFrame]:
    """Returns the values of every table that the records give; one that raises is named in `failures`, with why."""
    tables = {}
    for table in TABLES:
        try:
            values = table.values(records)
        except Exception as error:
            failures[f"table {table.name}"] = first_line(error)
            continue
        if not values.empty:
            tables[table] = values
    return tables


def list_figures(records: pd.DataFrame, failures: dict[str, str] | None = None) -> list[FigureSpec]:
    """Returns every figure that the records give; with `failures`, a subject that raises is named there, with why."""
    figures: list[FigureSpec] = []
    for subject in SUBJECTS:
        try:
            figures += subject.list_figures(records)
        except Exception as error:
            if failures is None:
                raise
            failures[f"figures of {subject.__name__.rpartition('.')[2]}"] = first_line(error)
    return figures


def _generated(results: Path) -> Iterator[Path]:
    """Yields the files of a report that are there."""
    for folder, suffixes in (("tables", (".md", ".csv", ".tex")), ("figures", IMAGES)):
        yield from (path for path in sorted((results / folder).glob("*")) if path.suffix in suffixes)
    if (results / "README.md").exists():
        yield results / "README.md"


@contextmanager
def drawing() -> Iterator[None]:
    """Sets the drawing library to this report's style, whatever the user's own is."""
    with style.context(["default", STYLE], after_reset=True):
        yield


def save_figure(figure: Figure) -> tuple[bytes, bytes]:
    """Returns a figure as PNG and as SVG; both carry its digest, and no date and no version."""
    named = {"Identifier": figure_digest(figure)}
    png, svg = io.BytesIO(), io.BytesIO()
    # Not savefig, which draws every figure twice.
    FigureCanvasAgg(figure).print_png(png, metadata={**named, "Software": None})
    FigureCanvasSVG(figure).print_svg(svg, metadata={**named, "Date": None, "Creator": None})
    return png.getvalue(), svg.getvalue()


def figure_digest(figure: Figure) -> str:
    """Returns the SHA-256 of what a figure shows: its words, numbers, colours, marks and limits, not its pixels."""
    shown = [STYLE, *figure.get_size_inches(), figure.get_suptitle()]
    shown += [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    for ax in figure.axes:
        legend = ax.get_legend()
        named = [axis for axis in (ax.xaxis, ax.yaxis) if isinstance(axis.get_major_locator(), FixedLocator)]
        shown += [
            [ax.get_title("left"), ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale(), ax.get_yscale()],
            [*ax.get_xlim(), *ax.get_ylim()],
            [axis.get_major_formatter().format_ticks(list(axis.get_majorticklocs())) for axis in named],
            [text.get_text() for text in (*ax.texts, *(legend.get_texts() if legend else ()))],
            [[line.get_color(), line.get_marker(), line.get_linestyle(), line.get_xydata()] for line in ax.lines],
            [[bar.get_facecolor(), *bar.get_bbox().extents] for bar in ax.patches if isinstance(bar, Rectangle)],
            [lines.get_segments() for lines in ax.collections if isinstance(lines, LineCollection)]
            + [band.get_paths()[0].vertices for band in ax.collections if isinstance(band, PolyCollection)]
            + [[dots.get_offsets(), dots.get_sizes()] for dots in ax.collections if isinstance(dots, PathCollection)],
        ]
    return hashlib.sha256(json.dumps(_plain(shown)).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Returns lists and words, with numbers to six figures: other machines may differ in the last ones."""
    if isinstance(value, str | bool | None):
        return value
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Iterable):
        return [_plain(entry) for entry in value]
    return f"{value:.6g}"


def _file_digest(path: Path) -> str:
    """Returns what `check_report` compares a file by; nothing for an image that is damaged or none of ours."""
    try:
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
                return str(image.info.get("Identifier", ""))
        if path.suffix == ".svg":
            return ElementTree.parse(path).findtext(".//{http://purl.org/dc/elements/1.1/}identifier", "")
    except (OSError, ElementTree.ParseError):
        return ""
    return _text_digest(path.read_bytes())


def _text_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def render_index(
    records: list[dict[str, Any]], damaged: dict[str, str], tables: list[Table], figures: list[FigureSpec]
) -> str:
    """Returns the page that lists a report's tables and figures and says which records they come from."""
    failed = [record for record in records if record["status"] == "failed"]
    sections = [
        "# Results",
        "Written by `run_ablation.py report` from the files under [records](records); nothing here is edited by hand.",
        f"{len(records) - len(failed)} finished records, {len(failed)} failed cells, {len(damaged)} damaged files.",
    ]
    if tables:
        links = "- {0.title}: [Markdown](tables/{0.name}.md), [CSV](tables/{0.name}.csv), [LaTeX](tables/{0.name}.tex)"
        sections += ["## Tables", "\n".join(links.format(table) for table in tables)]
    if figures:
        sections += ["## Figures"]
    for spec in figures:
        image = f"figures/{spec.name}"
        sections += [f"### {spec.title}", f"![{spec.title}]({image}.png)", f"{spec.caption} [SVG]({image}.svg)"]
    if records:
        sections += ["## Where the numbers come from", markdown_rows(provenance_lines(records))]
    if failed:
        lines = [f"- {each['measurement']} {name_record(each)}, {each['key']}: {each['failure']}" for each in failed]
        sections += ["## Failed cells", "\n".join(lines)]
    if damaged:
        sections += ["## Damaged files, left out", "\n".join(f"- {name}: {why}" for name, why in damaged.items())]
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
