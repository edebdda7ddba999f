"""What accuracy costs: which arms are worth having at any price, and the price of a point.

A row is an arm with its accuracy and one cost. Parameters and MACs are counted for the very model that was
trained. Peak memory and latency are those of records of the same variant, base, attention, P and resolution, which may
have another number of classes than the training had: that adds as much to every arm.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pandas as pd

from ablations.analysis.accuracy import Study, difference_rows, level_columns, split_studies, trained_costs
from ablations.analysis.grouping import REFERENCE, Group, describe, split_by_conditions, tabulated, without

SAME_MODEL = ("variant", "base", "attention", "pool_size")
"""What a cost's record must have in common with the accuracy's, beside the resolution."""


def find_dominators(costs: pd.Series, accuracies: pd.Series) -> dict[Any, list[Any]]:
    """Returns, for each label of the two series, the labels that dominate it; those of the Pareto front have none.

    One dominates another if it costs no more and is no less accurate, and one of the two is strict: equal points do not
    dominate each other. A label without a cost or an accuracy is left out; the others keep the accuracies' order.
    """
    points = accuracies.to_frame("accuracy").assign(cost=costs).dropna()
    dominators = {}
    for label, point in points.iterrows():
        no_worse = (points["cost"] <= point["cost"]) & (points["accuracy"] >= point["accuracy"])
        better = (points["cost"] < point["cost"]) | (points["accuracy"] > point["accuracy"])
        dominators[label] = list(points.index[no_worse & better])
    return dominators


def cost_per_point(added_cost: float, gain: dict[str, Any]) -> tuple[float, float, float]:
    """Returns what a point of accuracy costs, with the ends of its 95 % interval: nan unless the gain is resolved.

    `gain` has the `mean`, `low`, `high` and `resolved` of a difference of accuracies as fractions; a point is 0.01. A
    resolved loss has no price either. Below 0 the gain comes with a saving. The cost has no noise, so the interval is
    the gain's, turned over; a gain is resolved by its corrected p, and where its own interval holds 0 the price has no
    interval.
    """
    if not gain["resolved"] or gain["mean"] <= 0:
        return math.nan, math.nan, math.nan
    ends = sorted(added_cost / (100 * gain[end]) for end in ("low", "high")) if gain["low"] > 0 else [math.nan] * 2
    return added_cost / (100 * gain["mean"]), ends[0], ends[1]


@tabulated
def tradeoff_values(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Returns each arm's accuracy beside each of its costs, what dominates it, and the cost of a point against v1.

    A row has the conditions of the accuracy; `cost` (a metric) and `measured_as`, the conditions of the cost; `arm`,
    the mean accuracy and its interval; `cost_value` with the interval that a latency has, from `cost_low` to
    `cost_high`; `cost_change` and `cost_change_percent` against v1; all in stored units; `top1_difference` to v1;
    `on_front`, `dominated_by`, and `dominance_resolved`, whether an arm that costs no more is ahead by a resolved
    difference (all such pairs of a group are one family of Holm's); and `cost_per_point` with its interval, in stored
    units a percentage point. The front is that of mean accuracies. Arms without that cost are left out, and so is a
    cost that one arm alone has.
    """
    measured = {measurement: split_by_conditions(records, measurement) for measurement in ("memory", "speed")}
    for study in split_studies(records):
        sources = [
            *_counted(records, study),
            *_peaks(study.conditions, measured["memory"]),
            *_latencies(study.conditions, measured["speed"]),
        ]
        difference = cache(study.difference)
        gains = difference_rows("", [({}, difference(arm, REFERENCE)) for arm in study.top1], study.declared)
        by_arm = {arm: (level_columns(top1), gain) for (arm, top1), gain in zip(study.top1.items(), gains, strict=True)}
        means = pd.Series({arm: top1.mean() for arm, top1 in study.top1.items()})
        for cost, measured_as, measured_costs in sources:
            costs = measured_costs["value"]
            dominators = find_dominators(costs, means)
            if len(dominators) < 2:
                continue
            pairs = [(arm, other) for arm, own in dominators.items() for other in own]
            leads = difference_rows("", [({}, difference(other, arm)) for arm, other in pairs], study.declared)
            surpassed = {
                arm for (arm, _), ahead in zip(pairs, leads, strict=True) if ahead["resolved"] and ahead["mean"] > 0
            }
            reference_cost = float(costs.get(REFERENCE, math.nan))
            for arm, own in dominators.items():
                level, gain = by_arm[arm]
                added = costs[arm] - reference_cost
                price, low, high = cost_per_point(added, gain)
                yield {
                    **study.conditions,
                    "cost": cost,
                    "measured_as": measured_as,
                    "arm": arm,
                    **level,
                    "cost_value": costs[arm],
                    **{f"cost_{end}": measured_costs.get(end, {}).get(arm, math.nan) for end in ("low", "high")},
                    "cost_change": added,
                    "cost_change_percent": 100 * added / reference_cost,
                    **{f"top1_difference_{name}": value for name, value in gain.items()},
                    "on_front": not own,
                    "dominated_by": ", ".join(own),
                    "dominance_resolved": arm in surpassed,
                    "cost_per_point": price,
                    "cost_per_point_low": low,
                    "cost_per_point_high": high,
                }


Source = tuple[str, str, pd.DataFrame]
"""A metric, the conditions that it was measured under in words, and by arm its `value`, and `low` and `high` if any."""


def _counted(records: pd.DataFrame, study: Study) -> Iterator[Source]:
    """Yields the parameters and MACs of the arms that have them."""
    costs = {arm: trained_costs(records, study.conditions, arm) for arm in study.top1}
    for metric in ("params", "macs"):
        own = {arm: counts[metric] for arm, counts in costs.items() if counts[metric] is not None}
        yield metric, "counted", pd.Series(own, dtype="int64").to_frame("value")


def _peaks(conditions: dict[str, Any], groups: Sequence[Group]) -> Iterator[Source]:
    for group in groups:
        rows = group.rows[group.rows["resolution"] == conditions["resolution"]]
        if _same_model(group, conditions) and not rows.empty:
            peaks = rows.set_index("arm")["peak_memory_bytes"].astype(float)
            yield "peak_memory_bytes", _words(group), peaks.to_frame("value")


def _latencies(conditions: dict[str, Any], groups: Sequence[Group]) -> Iterator[Source]:
    """Yields v1's latency over each arm's relative speed: their own latencies were taken at different moments.

    The interval is that of the relative speed.
    """
    for group in groups:
        rows = group.rows.set_index("arm")
        same = _same_model(group, conditions) and group.conditions["resolution"] == conditions["resolution"]
        if same and group.conditions["reference"] == "v1" and REFERENCE in rows.index:
            names = ["relative_speed", "relative_speed_high", "relative_speed_low"]
            ratios = rows.reindex(columns=names).set_axis(["value", "low", "high"], axis="columns")
            yield "latency_s", _words(group), float(rows["latency_s"][REFERENCE]) / ratios


def _same_model(group: Group, conditions: dict[str, Any]) -> bool:
    return not conditions["changed"] and all(group.conditions.get(name) == conditions[name] for name in SAME_MODEL)


def _words(group: Group) -> str:
    return describe(group.conditions, without(group.conditions, *SAME_MODEL, "resolution"))
