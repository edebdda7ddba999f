"""Plots that wait for their subject's file."""

from textwrap import wrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ablations.analysis.grouping import CONDITIONS, refuse_mixed
from ablations.records import METRICS
from ablations.report.figures import (
    GREY,
    arm_line,
    group_alike,
    legend_of_shared_lines,
    list_arms,
    log_ticks,
    plot_interval,
    resolution_axis,
    side,
)


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
        plot_interval(ax, place, row, "relative_speed", "relative_speed", **face)
    ax.set_xlabel("Speed relative to v1 (over 1 is faster)")
    return list_arms(ax, values["arm"])


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
        plot_interval(ax, place, row, "top1", "top1_mean")
    ax.set_xlabel(f"{METRICS['top1'].title}: mean, 95 % interval, seeds")
    return list_arms(ax, labels)
