"""Tables and figures for an article: with its own names of the arms, as PDF too, and without titles if so wished.

They go to a folder of their own, so that those in the results folder stay what the records give.
"""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter

from ablations.config import TOGGLES, arms_of
from ablations.errors import InputError, first_line, pick, refuse
from ablations.files import write_bytes
from ablations.records import load_records
from ablations.report.contents import HEADLINE_TABLES, headline_figures, list_figures, list_values
from ablations.report.images import SUFFIXES, drawing, save_figure
from ablations.report.summary import ShownComparison
from ablations.report.tables import escape_latex, markdown_rows, render_csv, render_latex, render_markdown

Rename = Callable[[str], str]


def parse_names(texts: tuple[str, ...]) -> dict[str, str]:
    """Returns names of arms by the arm, from texts such as `v1+ope=PVTv1 + OPE`.

    Raises InputError for an unknown arm, an empty name, and one name for two arms.
    """
    names: dict[str, str] = {}
    for text in texts:
        arm, equals, name = text.partition("=")
        pick("rename", arm, arms_of(TOGGLES))
        if not equals or not name.strip() or name.strip() in names.values() or arm in names:
            raise refuse("rename", text, "ARM=NAME, each arm and each name once")
        names[arm] = name.strip()
    return names


def renaming(names: Mapping[str, str]) -> Rename:
    """Returns what puts these names in the place of whole arms in a text.

    `v1` within `v1+ope`, within `pvt:b2/v1/v2` and in `base v1` is no arm.
    """
    if not names:
        return lambda text: text
    arms = "|".join(re.escape(arm) for arm in names)
    pattern = re.compile(rf"(?<![\w+/:-])(?<!base )(?<!bases )(?<!PVT )({arms})(?![\w+/-])")
    return lambda text: pattern.sub(lambda found: names[found[1]], text)


def write_article(
    results: Path, folder: Path, names: Mapping[str, str], *, titles: bool = True, everything: bool = False
) -> list[Path]:
    """Writes the headline tables and figures of the records, or all, to a folder; returns the files.

    Tables are Markdown, CSV and LaTeX, figures PNG, SVG and PDF. Raises InputError for one that cannot be made.
    """
    records = load_records(results)
    failures: dict[str, str] = {}
    tables = list_values(records, failures, None if everything else HEADLINE_TABLES)
    figures = list_figures(records, failures)
    for name, why in failures.items():
        raise InputError(f"{name}: {why}")
    files: dict[Path, bytes] = {}
    for table, values in tables.items():
        path = folder / "tables" / table.name
        in_markdown = {arm: name.replace("|", r"\|") for arm, name in names.items()}
        files[path.with_suffix(".md")] = _rename_markdown(render_markdown(table, values), in_markdown).encode()
        files[path.with_suffix(".csv")] = render_csv(_rename_values(values, names)).encode()
        in_latex = {arm: escape_latex(name) for arm, name in names.items()}
        files[path.with_suffix(".tex")] = renaming(in_latex)(render_latex(table, values)).encode()
    with drawing(), rc_context({"pdf.fonttype": 42}):  # not the default's Type 3, which journals refuse
        for spec in figures if everything else headline_figures(figures):
            try:
                figure = spec.draw()
                rename_figure(figure, renaming(names))
                if not titles:
                    figure.suptitle("")
                drawn = dict(zip((*SUFFIXES, ".pdf"), (*save_figure(figure), save_pdf(figure)), strict=True))
            except Exception as error:
                raise InputError(f"figure {spec.name}: {first_line(error)}") from error
            files |= {folder / "figures" / f"{spec.name}{suffix}": content for suffix, content in drawn.items()}
    for path, content in files.items():
        try:
            write_bytes(path, content)
        except OSError as error:
            raise refuse("article", str(folder), f"a folder that can be written to ({error.strerror})") from error
    return list(files)


def _rename_markdown(text: str, names: Mapping[str, str]) -> str:
    """Returns Markdown with new names and its tables' columns as wide as they need."""
    parts = re.split(r"((?:^\|.*\n)+)", renaming(names)(text), flags=re.MULTILINE)
    for place, part in enumerate(parts):
        if part.startswith("|"):
            cells = [re.split(r" +\| +", line.removeprefix("| ").removesuffix(" |")) for line in part.splitlines()]
            parts[place] = (
                markdown_rows([[cell.strip() for cell in line] for line in cells if set(line[0]) != {"-"}]) + "\n"
            )
    return "".join(parts)


def _rename_values(values: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    renamed = values.copy()
    for column in renamed.columns.difference(["base"]):  # whose values read like names of arms and are none
        if not pd.api.types.is_numeric_dtype(renamed[column]):
            renamed[column] = [names.get(value, value) if isinstance(value, str) else value for value in values[column]]
    return renamed


def rename_comparison(shown: ShownComparison, names: Mapping[str, str]) -> ShownComparison:
    """Returns a comparison with new names of arms in its rows, words and sentences."""
    rename, section = renaming(names), shown.section
    columns = [
        replace(column, heading=rename(column.heading), cells=[rename(cell) for cell in column.cells])
        for column in section.columns
    ]
    return ShownComparison(
        replace(shown.group, rows=_rename_values(shown.group.rows, names)),
        replace(section, title=rename(section.title), columns=columns, caption=rename(section.caption)),
        [replace(each, topic=rename(each.topic), text=rename(each.text)) for each in shown.statements],
    )


def rename_figure(figure: Figure, rename: Rename) -> None:
    """Puts new names of arms into all words of a figure."""
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, FixedFormatter):
                axis.set_major_formatter(FixedFormatter([rename(word) for word in formatter.seq]))
    for text in figure.findobj(Text):
        text.set_text(rename(text.get_text()))


def save_pdf(figure: Figure) -> bytes:
    """Returns a figure as PDF without a date."""
    content = io.BytesIO()
    FigureCanvasPdf(figure).print_pdf(content, metadata=dict.fromkeys(("CreationDate", "Creator", "Producer")))
    return content.getvalue()
