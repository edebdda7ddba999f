"""Figures as files: drawn in one style, saved without a date, and known by a digest of what they show."""

import hashlib
import io
import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator
from PIL import Image

from ablations.report.figures import STYLE

SUFFIXES = (".png", ".svg")


def drawing() -> AbstractContextManager[None]:
    """Sets the drawing library to this report's style, whatever the user's own is."""
    return style.context(["default", STYLE], after_reset=True)


def save_figure(figure: Figure) -> tuple[bytes, bytes]:
    """Returns a figure as PNG and as SVG; both carry its digest, and no date and no version."""
    named = {"Identifier": figure_digest(figure)}
    png, svg = io.BytesIO(), io.BytesIO()
    # Not savefig, which draws every figure twice.
    FigureCanvasAgg(figure).print_png(png, metadata={**named, "Software": None})
    figure.set_layout_engine("none")  # what was laid out stays, in each form
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
            [[*_look(line), line.get_xydata()] for line in ax.lines],
            [[bar.get_facecolor(), *bar.get_bbox().extents] for bar in ax.patches if isinstance(bar, Rectangle)],
            [lines.get_segments() for lines in ax.collections if isinstance(lines, LineCollection)]
            + [band.get_paths()[0].vertices for band in ax.collections if isinstance(band, PolyCollection)]
            + [[dots.get_offsets(), dots.get_sizes()] for dots in ax.collections if isinstance(dots, PathCollection)],
        ]
    return hashlib.sha256(json.dumps(_plain(shown)).encode()).hexdigest()


def _look(line: Line2D) -> list[Any]:
    """Returns a line's colour, dashes and marker, and whether that is filled and with what."""
    filling = [to_hex(line.get_markerfacecolor(), keep_alpha=True), line.get_fillstyle()]
    return [line.get_color(), line.get_linestyle(), line.get_marker(), *filling]


def _plain(value: Any) -> Any:
    """Returns lists and words, with numbers to six figures: other machines may differ in the last ones."""
    if isinstance(value, str | bool | None):
        return value
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Iterable):
        return [_plain(entry) for entry in value]
    return f"{value:.6g}"


def image_digest(path: Path) -> str:
    """Returns the digest that a file of a figure carries; nothing where it is damaged or none of ours."""
    try:
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
                return str(image.info.get("Identifier", ""))
        if path.suffix == ".svg":
            return ElementTree.parse(path).findtext(".//{http://purl.org/dc/elements/1.1/}identifier", "")
    except (OSError, ElementTree.ParseError):
        pass
    return ""
