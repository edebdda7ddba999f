"""The plots: each function draws values of `ablations.report.values` on an `ax` and returns it.

An arm has one colour and one marker everywhere. The colours are Okabe and Ito's eight for colour-blind readers (2008),
with a dark red for their yellow, which is hard to see on white.
"""

from collections.abc import Iterable, Mapping
from textwrap import wrap
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullFormatter

from ablations.config import ARMS
from ablations.records import METRICS
from ablations.report.conditions import CONDITIONS, refuse_mixed
from ablations.report.tables import metric_text

COLOURS = dict(
    zip(
        ARMS,
        ("#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#882255", "#CC79A7"),
        strict=True,
    )
)
MARKERS = dict(zip(ARMS, "osD^vPX*", strict=True))

GREY = "0.55"

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
    "figure.dpi": 200,
    "svg.hashsalt": "ablations",  # else the names of a drawing's parts are random
}
"""Matplotlib settings that all figures are drawn with, on top of its defaults."""

MOST_LEVEL_TICKS = 5
"""Sizes of inputs that fit below an axis side by side."""

ALIKE = 0.08
"""Curves that are nowhere further apart than this share are drawn as one."""


def plot_cost_bars(ax: Axes, values: pd.DataFrame, metric: str) -> Axes:
    """Draws a bar for each arm's `params` or `macs`, with the value and its change against v1.

    `values` are rows of `cost_values` at one resolution. As every plot of one group does, it raises InputError for rows
    of mixed conditions.
    """
    refuse_mixed(values, (*CONDITIONS["cost"], "resolution"))
    lengths = values[metric] / METRICS[metric].divisor
    ax.barh(values["arm"], lengths, height=0.7, color=[COLOURS[arm] for arm in values["arm"]])
    for place, (_, row) in enumerate(values.iterrows()):
        change = row[f"{metric}_change_percent"]
        text = metric_text(metric, row[metric])
        text += "" if row["arm"] == ARMS[0] or pd.isna(change) else f"  {change:+z.1f} %"
        ax.annotate(text, (lengths.iloc[place], place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    ax.set_xlim(0, 1.55 * lengths.max())  # room for the words
    at = f" at {values['resolution'].iloc[0]} px" if metric == "macs" else ""
    ax.set_xlabel(f"{METRICS[metric].label}{at}, {METRICS[metric].unit}")
    return _list_arms(ax, values["arm"])


def plot_cumulative(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the paper's path step by step: its top-1, and before each step our parameters and MACs.

    `values` are rows of `cumulative_values` at one resolution.
    """
    refuse_mixed(values, (*CONDITIONS["cost"], "resolution"))
    top1 = values["paper_top1_percent"]
    ax.plot(top1, range(len(values)), color=GREY, linewidth=1)
    labels = []
    for place, (_, row) in enumerate(values.iterrows()):
        ax.plot(row["paper_top1_percent"], place, **arm_line(row["arm"], markersize=7))
        step = row["paper_top1_step_points"]
        text = f"{row['paper_top1_percent']:.1f}" + ("" if pd.isna(step) else f" ({step:+.1f})")
        ax.annotate(text, (row["paper_top1_percent"], place), (8, 0), textcoords="offset points", va="center")
        counts = f"{metric_text('params', row['params'])} M params, {metric_text('macs', row['macs'])} G MACs"
        labels.append(f"{row['arm']}\n{row['paper_setting']}\n{counts}")
    ax.set_xlim(top1.min() - 0.3, top1.max() + 1.8)  # room for the words
    ax.set_ylim(-0.5, len(values) - 0.5)
    ax.xaxis.set_major_locator(MultipleLocator(1))
    ax.set_xlabel("The paper's top-1, %")
    return list_rows(ax, labels)


def plot_macs_by_resolution(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws each arm's MACs a pixel against the side of the input, both on logarithmic axes.

    A flat line is a cost that is linear in pixels. `values` are rows of `cost_values`; squares are drawn.
    """
    refuse_mixed(values, CONDITIONS["cost"])
    values = values[values["resolution"].str.isdecimal()]
    for arm, rows in values.groupby("arm", sort=False):
        ax.plot(side(rows), rows["macs"] / rows["pixels"] / 1e3, **arm_line(str(arm), label=arm))
    log_ticks(ax)
    ax.set_ylabel("Thousand MACs a pixel")
    resolution_axis(ax, values)
    legend_below(ax, ncols=2)
    return ax


def plot_memory_by_resolution(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws peak memory against the side of the input on logarithmic axes; dashed and hollow is explicit attention.

    Arms that are ALIKE in all they have share the line of the first; the legend has the markers of all. `values` are
    rows of `memory_values` of one mode, of one attention kernel or both; squares are drawn, where memory sufficed.
    """
    refuse_mixed(values, [name for name in CONDITIONS["memory"] if name != "attention"])
    values = values[values["resolution"].str.isdecimal() & values["peak_memory_bytes"].notna()]
    handles, labels = [], []
    divisor = METRICS["peak_memory_bytes"].divisor
    every = {
        (str(kernel), str(arm)): (rows["peak_memory_bytes"] / divisor).set_axis(side(rows))
        for (kernel, arm), rows in values.groupby(["attention", "arm"], sort=False)
    }
    for curves in group_alike(every):
        (kernel, arm), curve = next(iter(curves.items()))
        ax.plot(curve.index, curve, **arm_line(arm, **KERNEL_LINES[kernel]))
        arms = dict.fromkeys(arm for _, arm in curves)
        handles.append(tuple(Line2D([], [], **arm_line(arm, **KERNEL_LINES[kernel])) for arm in arms))
        labels.append(_name_curves(curves, number_of_arms=values["arm"].nunique()))
    log_ticks(ax)
    ax.set_ylabel(METRICS["peak_memory_bytes"].title)
    resolution_axis(ax, values)
    legend_of_shared_lines(ax, handles, labels)
    return ax


KERNEL_LINES = {"fused": {"linestyle": "-"}, "explicit": {"linestyle": "--", "markerfacecolor": "white"}}

Curves = dict[tuple[str, str], pd.Series]
"""Peak memory in MiB by side of the input, for pairs of attention kernel and arm."""

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


def _name_curves(curves: Curves, number_of_arms: int) -> str:
    """Returns the kernels and arms of a line as a few short lines of text."""
    lines = []
    for kernel in dict.fromkeys(kernel for kernel, _ in curves):
        arms = [arm for own, arm in curves if own == kernel]
        names = "all arms" if len(arms) == number_of_arms else ", ".join(arms)
        lines += wrap(f"{kernel}: {names}", width=36, subsequent_indent="   ")
    return "\n".join(lines)


def plot_speed(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws each arm's speed relative to v1 with its interval; a hollow marker is a noisy row.

    `values` are rows of `speed_values` under the same conditions.
    """
    refuse_mixed(values, CONDITIONS["speed"])
    ax.axvline(1, color=GREY, linewidth=1)
    for place, (_, row) in enumerate(values.iterrows()):
        face = {"markerfacecolor": "white"} if row["noisy"] else {}
        _plot_interval(ax, place, row, "relative_speed", "relative_speed", **face)
    ax.set_xlabel("Speed relative to v1 (over 1 is faster)")
    return _list_arms(ax, values["arm"])


def plot_accuracy(ax: Axes, values: pd.DataFrame, records: pd.DataFrame) -> Axes:
    """Draws each arm's and other model's mean top-1 with its 95 % interval, and its seeds as small dots.

    `values` are rows of `accuracy_values` under the same conditions, `records` the rows that they come from.
    """
    refuse_mixed(values, CONDITIONS["accuracy"])
    refuse_mixed(records[records["arm"].notna()], CONDITIONS["accuracy"])
    refuse_mixed(records[records["arm"].isna()], CONDITIONS["accuracy"])
    names = records["arm"].fillna(records["model"])
    labels = [str(row["model"] if pd.isna(row["arm"]) else row["arm"]) for _, row in values.iterrows()]
    for place, (_, row) in enumerate(values.iterrows()):
        seeds = records.loc[names == labels[place], "top1"] / METRICS["top1"].divisor
        ax.plot(seeds, [place + 0.25] * len(seeds), ".", color=GREY, markersize=4)
        _plot_interval(ax, place, row, "top1", "top1_mean")
    ax.set_xlabel(f"{METRICS['top1'].title}: mean, 95 % interval, seeds")
    return _list_arms(ax, labels)


def _plot_interval(ax: Axes, place: int, row: pd.Series, metric: str, middle: str, **style: Any) -> None:
    """Draws a row's value and, where it has one, its interval."""
    divisor = METRICS[metric].divisor
    low, centre, high = (row[name] / divisor for name in (f"{metric}_low", middle, f"{metric}_high"))
    whiskers = None if pd.isna(low) else [[centre - low], [high - centre]]
    ax.errorbar([centre], [place], xerr=whiskers, **arm_line(str(row["arm"]), linestyle="none", capsize=2, **style))


def arm_line(arm: str, **style: Any) -> dict[str, Any]:
    """Returns how an arm's line and markers are drawn; a model that is no arm has a grey `d`."""
    look = {"color": COLOURS.get(arm, GREY), "marker": MARKERS.get(arm, "d")}
    return {**look, "linewidth": 1.2, "markeredgewidth": 0.8, **style}


def side(rows: pd.DataFrame) -> pd.Series:
    """Returns the sides of the inputs in pixels; of one that is not square, the side of the square of its area."""
    return np.sqrt(rows["pixels"])


def log_ticks(ax: Axes) -> None:
    """Makes the vertical axis logarithmic, with few plain numbers on it."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > 10 else (1, 1.5, 2, 3, 4, 5, 6, 8)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def resolution_axis(ax: Axes, values: pd.DataFrame) -> None:
    """Makes the horizontal axis the side of the inputs, logarithmic, with a tick for each."""
    sizes = values.drop_duplicates("resolution")
    ax.set_xscale("log", base=2)
    ax.set_xticks(side(sizes), sizes["resolution"])
    ax.set_xticks([], minor=True)
    ax.tick_params(axis="x", labelrotation=90 if len(sizes) > MOST_LEVEL_TICKS else 0)
    ax.set_xlabel("Side of the input, px")


def legend_below(ax: Axes, **options: Any) -> None:
    """Puts the legend below the axes and their labels, where it covers nothing."""
    pad = 7 if any(label.get_rotation() for label in ax.get_xticklabels()) else 5  # in font sizes
    handles, labels = ax.get_legend_handles_labels()
    if "handles" in options:
        handles = options.pop("handles")
        labels = options.pop("labels", None) or [handle.get_label() for handle in handles]
    legend = ax.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=pad, **options)
    _MADE_OF[legend] = {"handles": handles, "labels": labels, **options}


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


def legend_of_shared_lines(ax: Axes, handles: list[tuple[Line2D, ...]], labels: list[str]) -> None:
    """Puts a legend below the axes in which a line has the markers of all that share it."""
    markers = {tuple: HandlerTuple(ndivide=None, pad=0.2)}
    legend_below(ax, handles=handles, labels=labels, handler_map=markers, handlelength=1.3 * max(map(len, handles)) + 1)


def _list_arms(ax: Axes, arms: Iterable[str]) -> Axes:
    labels = list(arms)
    ax.set_ylim(-0.6, len(labels) - 0.4)
    return list_rows(ax, labels)


def list_rows(ax: Axes, labels: list[str]) -> Axes:
    """Names the rows 0, 1, … from the top."""
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    return ax
