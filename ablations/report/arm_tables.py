"""The tables that compare arms: one definition for each measurement."""

import pandas as pd

from ablations.analysis.grouping import CONDITIONS
from ablations.records import METRICS
from ablations.report.tables import (
    ARM,
    NOTHING,
    Column,
    Table,
    range_text,
    show_metric,
    unless_reference,
)
from ablations.report.values import accuracy_values

POINTS = METRICS["top1"].divisor


def _mean_interval(row: pd.Series) -> str:
    return range_text(row, "top1", ".2f", POINTS) if row["n_seeds"] > 1 else "none: one seed"


def _difference(row: pd.Series) -> str:
    if not row["n_pairs"]:
        return "no common seed"
    pairs = "" if row["n_pairs"] == row["n_seeds"] else f" (n = {row['n_pairs']})"
    return f"{row['top1_difference_mean'] / POINTS:+z.2f}{pairs}"


def _difference_interval(row: pd.Series) -> str:
    if row["n_pairs"] < 2:
        return "none: one seed" if row["n_pairs"] else NOTHING
    text = range_text(row, "top1_difference", "+z.2f", POINTS)
    return text if row["difference_is_resolved"] else f"{text}, unresolved"


ARM_TABLES = (
    Table(
        name="accuracy",
        measurement="accuracy",
        title="Accuracy",
        values=accuracy_values,
        conditions=CONDITIONS["accuracy"],
        titled_by=("data", "variant", "base"),
        columns=(
            Column("Arm or model", ARM.show),
            Column("n", lambda row: str(row["n_seeds"])),
            Column(METRICS["top1"].title, show_metric("top1", "top1_mean"), best="max"),
            Column("95 % interval", _mean_interval),
            Column("Against v1, points", unless_reference(_difference)),
            Column("95 % interval", unless_reference(_difference_interval)),
        ),
        about=(
            "Top-1 on validation images after training from scratch: the mean over n seeds with its 95 % t "
            "interval. Differences are paired by seed (same order of images, same augmentation) and unresolved "
            "where their interval holds 0; one pair has no interval. Intervals are not corrected for the number "
            "of comparisons. They are about seeds: they hold neither the choice of validation images nor another "
            "recipe, size or data set. Behind the arms stand, by their names, other models that were trained under "
            "the same conditions, where there are any; size, base, attention and P are the arms' alone."
        ),
    ),
)
"""Every table of arms, in the report's order."""
