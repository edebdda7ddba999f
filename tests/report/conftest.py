"""Fixtures of the report's tests: tables of the committed records, and whether figures can be read."""

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
