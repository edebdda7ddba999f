"""Fixtures of the report's tests: tables of the committed records, and whether figures can be read."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import combinations

import pandas as pd
import pytest
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablations.report import cost, paper
from ablations.report.figures import STYLE, FigureSpec


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


@pytest.fixture(scope="session")
def paper_tables(paper_records: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The values of every table of cost and of the paper, by name, from the committed records."""
    return {table.name: table.values(paper_records) for table in (*paper.TABLES, *cost.TABLES)}


def words_of(figure: Figure) -> Iterator[Text]:
    """Yields all texts of a figure; tick labels beyond an axis's ends exist and are not drawn."""
    yield from (text for legend in figure.legends for text in legend.get_texts())
    for ax in figure.axes:
        yield from (ax.xaxis.label, ax.yaxis.label, *ax.texts)
        yield from (text for text in ax.get_children() if isinstance(text, Text))  # titles
        yield from ax.get_legend().get_texts() if ax.get_legend() else ()
        for axis, ends in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            ticks = axis.get_major_ticks()
            yield from (tick.label1 for tick in ticks if min(ends) <= tick.get_loc() <= max(ends))


def illegible_words(spec: FigureSpec) -> list[tuple[str, ...]]:
    with style.context(["default", STYLE], after_reset=True):
        figure = spec.draw()
        figure.draw_without_rendering()
    texts = {text for text in words_of(figure) if text.get_text()}
    boxes = [(text.get_text(), text.get_window_extent().padded(-2)) for text in texts]
    assert len(boxes) > 10
    outside = [
        (words,) for words, box in boxes if not all(figure.bbox.fully_contains(*end) for end in (box.min, box.max))
    ]
    pairs = combinations(boxes, 2)
    return outside + [(a, b) for (a, box), (b, other) in pairs if box.overlaps(other)]


@pytest.fixture(scope="session")
def find_illegible() -> Callable[[FigureSpec], list[tuple[str, ...]]]:
    """`find_illegible(spec)` draws a figure; it returns words that leave it, and pairs that overlap."""
    return illegible_words


DEBIAN_PACKAGES = {"chromium": "chromium", "pdflatex": "texlive-latex-recommended"}
"""Programs that slow tests need, and the package of Debian that has each; `make test-slow` installs them if it can."""


def path_of_program(name: str) -> str:
    if path := shutil.which(name):
        return path
    package = DEBIAN_PACKAGES[name]
    if os.geteuid() == 0 and shutil.which("apt-cache"):
        known = subprocess.run(["apt-cache", "show", package], capture_output=True, check=False)
        if known.returncode == 0:
            pytest.fail(f"{name} is missing and could be there: make test-slow installs {package}")
    pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="session")
def find_program() -> Callable[[str], str]:
    """`find_program(name)` returns the path of a program, and skips the test where there is none.

    The test fails instead where the program could be installed: by root, with apt that knows its package.
    """
    return path_of_program
