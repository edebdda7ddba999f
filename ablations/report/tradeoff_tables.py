"""The tables of what accuracy costs: one for each cost, with the Pareto front and the price of a point."""

from functools import partial

import pandas as pd

from ablations.analysis.grouping import CONDITIONS
from ablations.records import METRICS
from ablations.report.tables import (
    ARM,
    NOTHING,
    PAIRED,
    Column,
    Table,
    show_interval,
    show_metric,
    show_paired_points,
    show_plain,
    unless_reference,
)
from ablations.report.tradeoffs import tradeoff_values


def tradeoffs_against(records: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Returns the rows of `tradeoff_values` against one cost, where two arms or more have it."""
    sources = {"peak_memory_bytes": "memory", "latency_s": "speed"}  # the others are counted
    values = tradeoff_values(records[records["measurement"].isin(("accuracy", sources.get(cost)))])
    if values.empty:
        return values
    own = values[values["cost"] == cost]
    names = [name for name in (*CONDITIONS["accuracy"], "measured_as") if name in own]
    return own[own.groupby(names, dropna=False)["arm"].transform("size") > 1].reset_index(drop=True)


def _price(row: pd.Series) -> str:
    """Shows the price of a point in percent of arm v1's cost, and the ends of its interval."""
    reference = row["cost_value"] - row["cost_change"]
    price, low, high = (100 * row[f"cost_per_point{end}"] / reference for end in ("", "_low", "_high"))
    return NOTHING if pd.isna(price) else f"{price:+z.2f} ({low:+z.2f} to {high:+z.2f})"


def _place(row: pd.Series) -> str:
    if row["on_front"]:
        return "on it"
    return f"below {row['dominated_by']}" + ("" if row["dominance_resolved"] else ", unresolved")


def _tradeoff_table(cost: str, source: str) -> Table:
    return Table(
        name=f"tradeoff_{cost}",
        measurement="accuracy",
        title=f"Accuracy against {METRICS[cost].label.lower()}",
        values=partial(tradeoffs_against, cost=cost),
        conditions=(*CONDITIONS["accuracy"], "measured_as"),
        titled_by=("data", "variant", "base"),
        columns=(
            ARM,
            Column("n", show_plain("n_seeds", "d")),
            Column(METRICS["top1"].title, show_metric("top1", "top1_mean"), best="max"),
            Column(METRICS[cost].title, show_metric(cost, "cost_value"), best="min"),
            Column("Change, %", unless_reference(show_plain("cost_change_percent", "+z.1f"))),
            Column("Against v1, points", show_paired_points("top1_difference")),
            Column("95 % interval", show_interval("top1_difference")),
            Column("A point costs, % of v1's", _price),
            Column("Pareto front", _place),
        ),
        about=(
            "An arm is on the front if no other costs no more and has a mean at least as high, one of the two "
            "strictly; else the arms that beat it are named, unresolved unless the paired difference of one of them "
            "is resolved. The price of a point is the change in cost over the gain against v1, where that gain is "
            "resolved, with the ends of its interval in brackets; below 0 the gain comes with a saving. "
            f"{source} {PAIRED}"
        ),
    )


TRADEOFF_TABLES: tuple[Table, ...] = (
    _tradeoff_table("params", "Parameters are counted for the model that was trained."),
    _tradeoff_table("macs", "MACs are counted for the model that was trained, at the size it was trained at."),
    _tradeoff_table("peak_memory_bytes", "Memory is of the same model and size; its classes may be others."),
    _tradeoff_table("latency_s", "Latency is v1's over the arm's relative speed; its classes may be others."),
)
"""One for each cost."""
