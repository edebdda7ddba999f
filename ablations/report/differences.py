"""How differences are written in tables: in points with their interval, or exact with their percentage."""

from collections.abc import Callable

import pandas as pd

from ablations.records import METRICS
from ablations.report.effects import EFFECTS
from ablations.report.tables import NOTHING, metric_text

Show = Callable[[pd.Series], str]

POINTS = METRICS["top1"].divisor

ONE_SEED = "none: one seed"

PAIRED = (
    "Differences are paired by seed, with t intervals over the seeds (n - 1 degrees of freedom) that are not corrected "
    "for the number of comparisons; a difference is unresolved where its interval holds 0 or has no width."
)
"""What tables of paired differences say of them."""


def effect_name(effect: str) -> str:
    """Returns an effect as it is written for people: `ope x cffn`."""
    return " x ".join(EFFECTS[effect])


def points_text(value: float) -> str:
    """Returns a difference of fractions in points."""
    return NOTHING if pd.isna(value) else f"{value / POINTS:+z.2f}"


def interval_text(row: pd.Series, name: str) -> str:
    """Returns the interval of a difference in points, and whether it is unresolved."""
    if pd.isna(row[f"{name}_mean"]):
        return NOTHING
    if pd.isna(row[f"{name}_low"]):
        return ONE_SEED
    text = f"{points_text(row[f'{name}_low'])} to {points_text(row[f'{name}_high'])}"
    return text if row[f"{name}_resolved"] else f"{text}, unresolved"


def show_points(name: str) -> Show:
    """Shows the mean of a difference in points."""
    return lambda row: points_text(row[f"{name}_mean"])


def show_paired_points(name: str) -> Show:
    """Shows the same, and over how many pairs where some seeds have none."""

    def show(row: pd.Series) -> str:
        pairs = "" if row["n_pairs"] in (0, row["n_seeds"]) else f" (n = {row['n_pairs']})"
        return points_text(row[f"{name}_mean"]) + pairs

    return show


def show_interval(name: str) -> Show:
    """Shows the interval of a difference in points."""
    return lambda row: interval_text(row, name)


def show_with_interval(name: str) -> Show:
    """Shows a mean with its interval in brackets."""

    def show(row: pd.Series) -> str:
        interval = interval_text(row, name)
        return interval if interval == NOTHING else f"{points_text(row[f'{name}_mean'])} ({interval})"

    return show


def show_signed(metric: str, column: str) -> Show:
    """Shows a difference in a metric's unit with its sign and, in brackets, in percent of arm v1's value."""

    def show(row: pd.Series) -> str:
        difference, percent = row[column], row[f"{column}_percent"]
        if pd.isna(difference):
            return NOTHING
        sign = "+" if difference > 0 else ""
        return f"{sign}{metric_text(metric, difference)} ({percent:+z.1f} %)"

    return show
