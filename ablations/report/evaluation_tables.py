"""The table and the curve of finished weights: accuracy by test resolution."""

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis.grouping import CONDITIONS, refuse_mixed, split_by_conditions
from ablations.records import METRICS
from ablations.report.figures import GREY, arm_line, legend_below, resolution_axis, side
from ablations.report.tables import Column, Table, show_metric

WEIGHTS = 8
"""Digits of a checkpoint's SHA-256 that tell it from others."""

LINE_STYLES = ("-", "--", ":", "-.")
"""Of the checkpoints of one arm, which have its colour and marker."""


def evaluation_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the scores of each checkpoint at each test resolution, with the released weights' top-1 beside them.

    `weights` names arm and checkpoint. `expected_top1` is that of the released checkpoint of such a model on all of
    ImageNet, whether or not these weights are the released ones.
    """
    tables = []
    for group in split_by_conditions(records, "evaluation"):
        weights = group.rows["arm"] + ", " + group.rows["checkpoint"].str[:WEIGHTS]
        columns = ["arm", "checkpoint", "resolution", "pixels", "top1", "top5", "loss", "ece", "expected_top1"]
        rows = group.rows.reindex(columns=columns).assign(weights=weights, skipped=group.rows["skipped"].map(len))
        tables.append(rows.assign(**group.conditions))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def plot_resolution_transfer(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the top-1 of finished weights against the test resolution, and where the size is that they are made for.

    `values` are rows of `evaluation_values` under the same conditions; others raise InputError.
    """
    refuse_mixed(values, CONDITIONS["evaluation"])
    own_size = values["img_size"].iloc[0]
    ax.axvline(own_size, color=GREY, linewidth=1, label=f"made for {own_size} px")
    styles = {arm: cycle(LINE_STYLES) for arm in values["arm"]}
    for (arm, weights), rows in values.groupby(["arm", "weights"], sort=False):
        curve = rows.sort_values("pixels")
        top1 = curve["top1"] / METRICS["top1"].divisor
        ax.plot(side(curve), top1, **arm_line(str(arm), label=str(weights), linestyle=next(styles[arm])))
    resolution_axis(ax, values)
    ax.set_ylabel(METRICS["top1"].title)
    legend_below(ax)
    return ax


EVALUATION_TABLES = (
    Table(
        name="evaluation",
        measurement="evaluation",
        title="Finished weights by test resolution",
        values=evaluation_values,
        conditions=CONDITIONS["evaluation"],
        titled_by=("data", "variant", "base", "protocol"),
        rows_by="weights",
        columns=(Column("Weights", lambda row: f"`{row['weights']}`"),),
        spread=(
            Column("{} px: " + METRICS["top1"].title, show_metric("top1"), best="max"),
            Column(METRICS["top5"].title, show_metric("top5"), best="max"),
            Column(METRICS["ece"].title, show_metric("ece"), best="min"),
            Column("Released weights' top-1, %", show_metric("top1", "expected_top1")),
        ),
        about=(
            "Accuracy of weights as they are, each image once. The eight digits begin the SHA-256 of the file of "
            "weights. The calibration error is the expected one over 15 bins of equal width. What the released weights "
            "of such a model reach, by timm's own evaluation or in the paper, stands beside where the images are all "
            "of ImageNet's. One file of weights is one training: differences between two have no interval."
        ),
    ),
)
"""Every table of finished weights."""
