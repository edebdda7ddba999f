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
