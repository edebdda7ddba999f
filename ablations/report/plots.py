"""Plots that wait for their subject's file."""

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis.grouping import CONDITIONS, refuse_mixed
from ablations.records import METRICS
from ablations.report.figures import (
    GREY,
    list_arms,
    plot_interval,
)


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
