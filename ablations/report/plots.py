"""Plots that wait for their subject's file."""

from textwrap import wrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from ablations.analysis.grouping import CONDITIONS, REFERENCE, refuse_mixed
from ablations.records import METRICS
from ablations.report.figures import (
    GREY,
    arm_colour,
    arm_line,
    group_alike,
    legend_below,
    legend_of_shared_lines,
    list_arms,
    list_rows,
    log_ticks,
    plot_interval,
    resolution_axis,
    side,
)
from ablations.report.tables import metric_text


def plot_cost_bars(ax: Axes, values: pd.DataFrame, metric: str) -> Axes:
    """Draws a bar for each arm's `params` or `macs`, with the value and its change against v1.

    `values` are rows of `cost_values` at one resolution. As every plot of one group does, it raises InputError for rows
    of mixed conditions.
    """
    refuse_mixed(values, (*CONDITIONS["cost"], "resolution"))
    lengths = values[metric] / METRICS[metric].divisor
    ax.barh(values["arm"], lengths, height=0.7, color=[arm_colour(arm) for arm in values["arm"]])
    for place, (_, row) in enumerate(values.iterrows()):
        change = row[f"{metric}_change_percent"]
        text = metric_text(metric, row[metric])
        text += "" if row["arm"] == REFERENCE or pd.isna(change) else f"  {change:+z.1f} %"
        ax.annotate(text, (lengths.iloc[place], place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    ax.set_xlim(0, 1.55 * lengths.max())  # room for the words
    at = f" at {values['resolution'].iloc[0]} px" if metric == "macs" else ""
    ax.set_xlabel(f"{METRICS[metric].label}{at}, {METRICS[metric].unit}")
    return list_arms(ax, values["arm"])


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
