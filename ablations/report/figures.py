"""What all figures share: their style, an arm's colour and marker, axes, legends, panels, and the class of a figure."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from textwrap import wrap
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from ablations.analysis import grouping
from ablations.analysis.grouping import Group, describe, refuse_mixed
from ablations.config import PAPER_TOGGLES, TOGGLES, arms_of
from ablations.measure.metrics import METRICS, Metric, in_unit_of
from ablations.report.tables import four_figures, note_replaced

PALETTE = ("#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#882255", "#CC79A7")
"""Okabe and Ito's colours for colour-blind readers (2008), with a dark red for their yellow, hard to see on white."""

SHAPES = "osD^vPX*<>ph"
"""Markers of arms."""

GREY = "0.55"

DPI = 200

STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "figure.dpi": DPI,
    "svg.hashsalt": "ablations",  # else the names of a drawing's parts are random
}
"""Matplotlib settings that all figures are drawn with, on top of its defaults."""

MOST_LEVEL_TICKS = 5
"""Sizes of inputs that fit below an axis side by side."""

ALIKE = 0.08
"""Curves that are nowhere further apart than this share are drawn as one."""

LONGEST_NAME = 100
"""Letters of a figure's file, without its suffix."""

PANEL_WIDTH = 3.5
"""Inches: a column of a two-column page."""

TITLE_WIDTH = 50
"""Letters of a figure's title above one panel."""

PANEL_TITLE_WIDTH = 38
"""Letters of a panel's own title."""

FEWEST_ARMS = 4
"""Bars that are worth a figure; fewer are as well read in the table."""


def _number_of(arm: str) -> int | None:
    """Returns an arm's place among all: the paper's first, so that later toggles change no colour."""
    arms = list(dict.fromkeys([*arms_of(PAPER_TOGGLES), *arms_of(TOGGLES)]))
    return arms.index(arm) if arm in arms else None


def arm_colour(arm: str) -> str:
    """Returns an arm's colour, the same in every figure: of the palette, and then hues a golden angle apart.

    A model that is no arm is grey.
    """
    number = _number_of(arm)
    if number is None:
        return GREY
    if number < len(PALETTE):
        return PALETTE[number]
    return to_hex(hsv_to_rgb(0.618 * number % 1, (1, 0.55)[number % 2], (0.6, 0.95)[number // 2 % 2]))


def arm_marker(arm: str) -> str:
    """Returns an arm's marker, the same in every figure; a model that is no arm has `d`."""
    number = _number_of(arm)
    return "d" if number is None else SHAPES[number % len(SHAPES)]


def arm_line(arm: str, **style: Any) -> dict[str, Any]:
    """Returns how an arm's line and markers are drawn; a model that is no arm has a grey `d`."""
    look = {"color": arm_colour(arm), "marker": arm_marker(arm)}
    return {**look, "linewidth": 1.2, "markeredgewidth": 0.8, **style}


Name = TypeVar("Name")


def group_alike(curves: Mapping[Name, pd.Series]) -> list[dict[Name, pd.Series]]:
    """Returns the curves, each a value by side of the input, in groups that are ALIKE their first."""
    groups: list[dict[Name, pd.Series]] = []
    for name, curve in curves.items():
        for group in groups:
            first = next(iter(group.values()))
            if first.index.equals(curve.index) and ((curve / first - 1).abs() <= ALIKE).all():
                break
        else:
            group = {}
            groups.append(group)
        group[name] = curve
    return groups


def readable_unit(metric: str, values: pd.Series) -> Metric:
    """Returns a metric in a unit in which its axis needs no leading zeros: 900 thousand, not 0.0009 G."""
    of_memory = metric == "peak_memory_bytes"
    unit = in_unit_of(metric, float(values.min() if of_memory else values.max() / 2))
    return replace(unit, unit="thousands") if unit.unit == "k" else unit


def count_labels(values: pd.DataFrame, row: pd.Series) -> list[str]:
    """Returns the parameters and MACs of one of the `values` in words, in units that suit all of them."""
    labels = []
    for metric, word in (("params", "params"), ("macs", "MACs")):
        if pd.notna(row[metric]):
            unit = in_unit_of(metric, values[metric].max() / 2)
            labels.append(f"{four_figures(float(row[metric]) / unit.divisor)} {unit.unit} {word}")
    return labels


def side(rows: pd.DataFrame) -> pd.Series:
    """Returns the sides of the inputs in pixels; of one that is not square, the side of the square of its area."""
    return np.sqrt(rows["pixels"])


def log_ticks(ax: Axes, of_counts: bool = False) -> None:
    """Makes the vertical axis logarithmic, with few plain numbers on it, or those of counts: 500 M, 1 G."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > 10 else (1, 1.5, 2, 3, 4, 5, 6, 8)))
    ax.yaxis.set_major_formatter(EngFormatter() if of_counts else FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def label_sizes(ax: Axes, values: pd.DataFrame, ylabel: str, **legend: Any) -> Axes:
    """Labels lines over the side of the inputs, a logarithmic axis with a tick for each, and has a legend below."""
    label_axes(ax, values, ylabel)
    legend_below(ax, **legend)
    return ax


def label_axes(ax: Axes, values: pd.DataFrame, ylabel: str) -> Axes:
    """Labels the axes of lines over the side of the inputs, a logarithmic axis with a tick for each."""
    sizes = values.drop_duplicates("resolution")
    ax.set_xscale("log", base=2)
    ax.set_xticks(side(sizes), sizes["resolution"])
    ax.set_xticks([], minor=True)
    ax.tick_params(axis="x", labelrotation=90 if len(sizes) > MOST_LEVEL_TICKS else 0)
    ax.set_xlabel("Side of the input, px")
    ax.set_ylabel(ylabel)
    return ax


def legend_below(ax: Axes, handles: Sequence[Any] = (), **options: Any) -> None:
    """Puts the legend of the handles, or else of all that has a label, below the axes and their labels."""
    pad = 7 if any(label.get_rotation() for label in ax.get_xticklabels()) else 5  # in font sizes
    handles = handles or ax.get_legend_handles_labels()[0]
    made_of = {"handles": handles, "labels": [handle.get_label() for handle in handles], **options}
    legend = ax.legend(**made_of, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=pad)
    _MADE_OF[legend] = made_of


_MADE_OF: WeakKeyDictionary[Legend, dict[str, Any]] = WeakKeyDictionary()
"""What each legend shows, which the drawing library keeps to itself."""


LEGEND_LINE = 0.145
"""Inches that a line of a legend takes."""


def share_legend(figure: Figure) -> None:
    """Makes the legends of a figure's panels one below them all where they are the same, and the figure less high."""
    legends = [legend for ax in figure.axes if (legend := ax.get_legend())]
    texts = {tuple(text.get_text() for text in legend.get_texts()) for legend in legends}
    if len(legends) < 2 or len(texts) > 1:
        return
    made_of = _MADE_OF[legends[0]]
    columns = made_of.get("ncols", 1)
    lines = -(-sum(label.count("\n") + 1 for label in made_of["labels"]) // columns)
    grid = figure.axes[0].get_subplotspec()
    if grid is not None and grid.get_gridspec().ncols > 1:
        columns *= 2  # as wide as both panels
    for legend in legends:
        legend.remove()
    figure.legend(**made_of | {"ncols": columns, "loc": "outside lower center"})
    rows = len({round(ax.get_position().y0, 6) for ax in figure.axes})
    figure.set_figheight(figure.get_figheight() - LEGEND_LINE * lines * (rows - 0.5))


LABEL_LINE = 0.06
"""The share of a panel's height that a line of a label beside it takes."""


def label_lines(ax: Axes, lines: Sequence[tuple[pd.Series, dict[str, Any], str]]) -> None:
    """Draws curves by side of the input, each with its words at its right end; on a logarithmic axis with limits."""
    low, high = np.log(ax.get_ylim())
    ends, heights = [], []
    for curve, look, words in lines:
        ax.plot(curve.index, curve, **look)
        ends.append((np.log(curve.iloc[-1]) - low) / (high - low))
        heights.append(LABEL_LINE * (words.count("\n") + 1) + 0.015)
    places = _spread(ends, heights)
    for (curve, look, words), end, place in zip(lines, ends, places, strict=True):
        ax.text(1.08, place, words, transform=ax.transAxes, va="center", fontsize=6.5, color=look["color"])
        if abs(place - end) > LABEL_LINE / 2:
            leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            last = (curve.index[-1], curve.iloc[-1])
            ax.annotate("", last, (1.07, place), textcoords="axes fraction", arrowprops=leader)


def _spread(middles: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Returns the places nearest below or above where things of these heights do not overlap, in the order of theirs.

    They begin at the lowest and stand on one another where there is no room, then all go down to end at 1 at most.
    """
    order = sorted(range(len(middles)), key=lambda each: middles[each])
    places = list(middles)
    for before, each in pairwise(order):
        places[each] = max(places[each], places[before] + (heights[before] + heights[each]) / 2)
    top = 1.0
    for each in reversed(order):
        places[each] = min(places[each], top - heights[each] / 2)
        top = places[each] - heights[each] / 2
    return places


def list_rows(ax: Axes, labels: Iterable[str], room: float = 0.6) -> Axes:
    """Names the rows 0, 1, … from the top, with room above the first and below the last."""
    labels = list(labels)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 1 + room, -room)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    return ax


@dataclass(frozen=True)
class Panel:
    """One plot: its conditions, what draws it on its axes, the rows that it shows, and its least height in inches."""

    conditions: dict[str, Any]
    draw: Callable[[Axes], Axes]
    rows: pd.DataFrame
    height: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """One figure: the name of its files, its title, what it shows and does not, and its panels."""

    kind: str
    """What it shows; figures of one kind differ in their conditions."""
    name: str
    title: str
    caption: str
    panels: list[Panel]
    panel_height: float
    one_scale: bool = False
    """Whether the panels have one scale along x."""

    def draw(self) -> Figure:
        """Returns the figure, two panels a row; call it under STYLE."""
        columns = min(2, len(self.panels))
        rows = -(-len(self.panels) // columns)
        figure = Figure(figsize=(PANEL_WIDTH * columns, self.panel_height * rows + 0.3), layout="constrained")
        figure.suptitle("\n".join(wrap(self.title, TITLE_WIDTH * columns, break_on_hyphens=False)), fontsize=9)
        names = telling(self.panels)
        for place, panel in enumerate(self.panels, start=1):
            ax = panel.draw(figure.add_subplot(rows, columns, place))
            ax.set_title(
                "\n".join(wrap(grouping.tell_apart(panel.conditions, names), width=PANEL_TITLE_WIDTH)), loc="left"
            )
        if self.one_scale:
            ends = [end for ax in figure.axes for end in ax.get_xlim()]
            for ax in figure.axes:
                ax.set_xlim(min(ends), max(ends))
        share_legend(figure)
        return figure


def telling(panels: Sequence[Panel]) -> list[str]:
    """Returns the conditions that tell the panels of a figure apart, without those that follow from the others."""
    names = grouping.varying(panel.conditions for panel in panels)
    for name in reversed(names):
        others = [other for other in names if other != name]
        if len({tuple(str(panel.conditions.get(other)) for other in others) for panel in panels}) == len(panels):
            names = others
    return names


@dataclass(frozen=True, kw_only=True)
class FigureKind:
    """One kind of figure: how its panels come from records, and what is said of them."""

    name: str
    title: str
    caption: str
    named_by: tuple[str, ...]
    """The conditions whose values each have a figure of their own; the panels of one figure differ in others."""
    panels: Callable[[pd.DataFrame], Iterable[Panel]]
    titled_by: tuple[str, ...] = ()
    """The conditions in the title, of those that all panels have in common; `named_by` if there are none."""
    height: float = 0.0
    """Inches that a panel has at least."""
    one_scale: bool = False
    """Whether the panels have one scale along x."""

    def list_figures(self, records: pd.DataFrame) -> list[FigureSpec]:
        """Returns the figures of this kind that the records give."""
        together: dict[str, list[Panel]] = {}
        for panel in self.panels(records):
            named = [panel.conditions.get(name) for name in self.named_by]
            words = [self.name, *(str(value) for value in named if pd.notna(value))]
            together.setdefault(re.sub(r"[^\w.-]+", "-", "_".join(words))[:LONGEST_NAME], []).append(panel)
        return [self._figure(name, panels) for name, panels in together.items()]

    def _figure(self, name: str, panels: list[Panel]) -> FigureSpec:
        differing = grouping.varying(panel.conditions for panel in panels)
        same = {word: value for word, value in panels[0].conditions.items() if word not in differing}
        replaced = note_replaced(panel.rows for panel in panels)
        named = describe(same, self.titled_by or self.named_by)
        return FigureSpec(
            kind=self.name,
            name=name,
            title=f"{self.title}{'' if self.title.endswith('?') else ':'} {named}",
            caption=" ".join(
                filter(None, (self.caption, replaced, f"Conditions: {describe(same)}.", _unsaid(panels, differing)))
            ),
            panels=panels,
            panel_height=max(self.height, *(panel.height for panel in panels)),
            one_scale=self.one_scale,
        )


def _unsaid(panels: Sequence[Panel], differing: Sequence[str]) -> str:
    """Returns in words what panels differ in beside their titles."""
    told = telling(panels)
    untold = [name for name in differing if name not in told]
    words = [
        f"{grouping.tell_apart(panel.conditions, told)}: {grouping.tell_apart(panel.conditions, untold)}"
        for panel in panels
        if untold
    ]
    return f"Panels: {'; '.join(words)}." if words else ""


def panels_of(
    list_values: Callable[[pd.DataFrame], pd.DataFrame],
    conditions: Sequence[str],
    plot: Callable[..., Axes],
    is_shown: Callable[[Group], Any] = lambda group: True,
) -> Callable[[pd.DataFrame], list[Panel]]:
    """Returns what makes a panel of each group of equal conditions of the values of records."""
    return lambda records: [
        Panel(group.conditions, partial(plot, values=group.rows), group.rows)
        for group in grouping.group_by(list_values(records), conditions)
        if is_shown(group)
    ]


def has_sizes(group: Group) -> bool:
    """Whether there are two squares or more, so that there is a curve along the side of the input."""
    return len(grouping.squares(group.rows).drop_duplicates("pixels")) > 1


def halves_by_lsra(
    conditions: dict[str, Any], values: pd.DataFrame, plot: Callable[..., Axes], heights: pd.Series
) -> list[Panel]:
    """Returns a panel of the arms without linear SRA and one of those with it, on the vertical scale of all heights."""
    limits = (float(heights.min()), float(heights.max()))
    is_linear = values["arm"].map(lambda arm: "lsra" in arm.split("+"))
    return [
        Panel(conditions | {"shown": words}, partial(plot, values=rows, limits=limits), rows)
        for words, rows in (("without lsra", values[~is_linear]), ("with lsra", values[is_linear]))
        if not rows.empty
    ]


def plot_interval(
    ax: Axes, place: float, row: pd.Series, name: str, arm: str, *, along: str = "x", claimed: bool = True
) -> None:
    """Draws a mean of fractions, in percent, or a ratio, and its interval if it has one, along the axis `x` or `y`.

    A marker is hollow where no difference is `claimed`, and nowhere else in the report.
    """
    is_mean = f"{name}_mean" in row
    divisor = METRICS["top1"].divisor if is_mean else 1
    low, middle, high = (row[f"{name}{end}"] / divisor for end in ("_low", "_mean" if is_mean else "", "_high"))
    whiskers = None if pd.isna(low) else [[middle - low], [high - middle]]
    style = arm_line(arm, linestyle="none", capsize=2, **({} if claimed else {"markerfacecolor": "white"}))
    if along == "x":
        ax.errorbar([middle], [place], xerr=whiskers, **style)
    else:
        ax.errorbar([place], [middle], yerr=whiskers, **style)


def explain_hollow(ax: Axes) -> None:
    """Puts a legend below that says what hollow markers are."""
    look: dict[str, Any] = {"color": "black", "marker": "o", "linestyle": "none", "markerfacecolor": "white"}
    legend_below(ax, handles=[Line2D([], [], label="hollow: no difference is claimed", **look)])


BASELINE_LINES = ("--", ":", "-.", *((0, (5, 1) + (1, 1) * dots) for dots in range(2, 8)))
"""Line styles of models that are no arms; they are all grey."""

_OF_STEP = grouping.without(grouping.CONDITIONS["memory"], *grouping.MODEL_CONDITIONS)
"""What lines of several models have in common."""


def plot_scaling(ax: Axes, values: pd.DataFrame, metric: str = "macs", exponent: str = "last_exponent") -> Axes:
    """Draws a metric against the side of the input on logarithmic axes, with the models' exponents in the legend.

    Arms have their colours and share a line where they are ALIKE; other models are grey. `values` are rows of
    `scaling_values`, or of `model_memory_values` for `peak_memory_bytes`.
    """
    refuse_mixed(values, ("head", *_OF_STEP))
    divisor = 1 if metric == "macs" else METRICS[metric].divisor
    curves = {
        tuple(rows.iloc[0][["name", "arm", exponent]]): (rows[metric] / divisor).set_axis(side(rows))
        for _, rows in values.groupby("name", sort=False)
    }
    arms = group_alike({name: curve for name, curve in curves.items() if pd.notna(name[1])})
    others = [{name: curve} for name, curve in curves.items() if pd.isna(name[1])]
    for group, linestyle in zip([*arms, *others], ["-"] * len(arms) + [*BASELINE_LINES] * len(others), strict=False):
        (_, arm, _), curve = next(iter(group.items()))
        grey = {"color": GREY, "linestyle": linestyle, "linewidth": 1.4}
        look = grey if pd.isna(arm) else arm_line(arm, markersize=4)
        exponents = sorted({f"{number:.2f}" for *_, number in group})
        ends = " to ".join(dict.fromkeys((exponents[0], exponents[-1])))
        words = f"{', '.join(name for name, *_ in group)} (exponent {ends})"
        ax.plot(curve.index, curve, label="\n".join(wrap(words, width=40)), **look)
    log_ticks(ax, of_counts=metric == "macs")
    label = METRICS[metric].label if metric == "macs" else METRICS[metric].title
    return label_sizes(ax, values, label, handlelength=3.0)
