"""The published path through the arms in our own records: accuracy, the paired gain of each step, and what it costs."""

import pandas as pd

from ablations.analysis.grouping import split_by_conditions
from ablations.analysis.paper import paper_cumulative
from ablations.report.effect_values import cumulative_step_values
from ablations.report.tradeoffs import tradeoff_values

COUNTED = ("params", "macs")


def cumulative_accuracy_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of `cumulative_step_values`, with the `params` and `macs` of each and the paper's step.

    `paper_top1_step_points` is in points, of b2 on ImageNet at 224 px; a variant that is not known has no costs.
    """
    paper = paper_cumulative()["paper_top1_step_points"]
    tables = []
    for group in split_by_conditions(records, "accuracy"):
        cumulative = cumulative_step_values(group.rows)
        if cumulative.empty:
            continue
        tradeoffs = tradeoff_values(group.rows)
        for metric in COUNTED:
            costs = tradeoffs[tradeoffs["cost"] == metric].set_index("arm")["cost_value"]
            cumulative[metric] = cumulative["arm"].map(costs).astype("Int64")
        tables.append(cumulative.assign(paper_top1_step_points=cumulative["arm"].map(paper)))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
