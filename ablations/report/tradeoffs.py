"""What accuracy costs: which arms are worth having at any price, and the price of a point.

A row is an arm with its accuracy and one cost. Parameters and MACs are counted for the very model that was
trained. Peak memory and latency are those of records of the same variant, base, attention, P and resolution, which may
have another number of classes than the training had: that adds as much to every arm.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ablations.analysis.grouping import Group, describe, split_by_conditions
from ablations.analysis.statistics import Estimate, estimate_mean, estimate_paired_difference
from ablations.config import VARIANTS, build_config
from ablations.cost import count_macs, count_params
from ablations.report.effect_values import REFERENCE, difference_columns

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


def cost_per_point(added_cost: float, gain: Estimate) -> tuple[float, float, float]:
    """Returns what a point of accuracy costs, with the ends of its 95 % interval: nan unless the gain is resolved.

    `gain` is a difference of accuracies as fractions; a point is 0.01. A resolved loss has no price either. Below 0 the
    gain comes with a saving. The cost has no noise, so the interval is the gain's, turned over.
    """
    if not gain.resolved or gain.mean <= 0:
        return math.nan, math.nan, math.nan
    ends = sorted(added_cost / (100 * end) for end in (gain.low, gain.high))
    return added_cost / (100 * gain.mean), ends[0], ends[1]


def tradeoff_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns each arm's accuracy beside each of its costs, what dominates it, and the cost of a point against v1.

    A row has the conditions of the accuracy; `cost` (a metric) and `measured_as`, the conditions of the cost; `arm`,
    `n_seeds`, `top1_mean`; `cost_value`, `cost_change` and `cost_change_percent` against v1, in stored units;
    `n_pairs` and `top1_difference` with its interval, as fractions; `on_front`, `dominated_by`, and
    `dominance_resolved`, whether an arm that costs no more has a paired difference above it that is resolved; and
    `cost_per_point` with its interval, in stored units a percentage point. The front is that of mean accuracies.
    Arms without that cost are left out.
    """
    measured = {measurement: split_by_conditions(records, measurement) for measurement in ("memory", "speed")}
    rows: list[dict[str, Any]] = []
    for group in split_by_conditions(records, "accuracy"):
        top1 = {str(arm): own.set_index("seed")["top1"].dropna() for arm, own in group.rows.groupby("arm", sort=False)}
        sources = [
            *_counted(group.conditions, list(top1)),
            *_peaks(group.conditions, measured["memory"]),
            *_latencies(group.conditions, measured["speed"]),
        ]
        for cost, measured_as, costs in sources:
            names = {"cost": cost, "measured_as": measured_as}
            rows += [group.conditions | names | row for row in _compared(top1, costs)]
    return pd.DataFrame(rows)


def _compared(top1: dict[str, pd.Series], costs: pd.Series) -> Iterator[dict[str, Any]]:
    """Yields a row for each arm that has both."""
    means = pd.Series({arm: estimate_mean(values.tolist()).mean for arm, values in top1.items()})
    nothing = pd.Series(dtype=float)
    reference_cost = float(costs.get(REFERENCE, math.nan))
    for arm, dominators in find_dominators(costs, means).items():
        gain = estimate_paired_difference(top1[arm], nothing if arm == REFERENCE else top1.get(REFERENCE, nothing))
        added = costs[arm] - reference_cost
        surpassed = [estimate_paired_difference(top1[other], top1[arm]) for other in dominators]
        price, low, high = cost_per_point(added, gain)
        yield {
            "arm": arm,
            "n_seeds": len(top1[arm]),
            "top1_mean": means[arm],
            "cost_value": costs[arm],
            "cost_change": added,
            "cost_change_percent": 100 * added / reference_cost,
            "n_pairs": gain.n,
            **difference_columns("top1_difference", gain),
            "on_front": not dominators,
            "dominated_by": ", ".join(dominators),
            "dominance_resolved": any(difference.resolved and difference.mean > 0 for difference in surpassed),
            "cost_per_point": price,
            "cost_per_point_low": low,
            "cost_per_point_high": high,
        }


Source = tuple[str, str, pd.Series]
"""A metric, the conditions that it was measured under in words, and its values by arm."""


def _counted(conditions: dict[str, Any], arms: Sequence[str]) -> Iterator[Source]:
    """Yields the costs that have a closed form, of variants that are known."""
    variant, resolution = conditions["variant"], int(conditions["resolution"])
    if variant not in VARIANTS:
        return
    given = {name: conditions[name] for name in ("attention", "pool_size", "num_classes")}
    configs = {arm: build_config(variant, arm, conditions["base"], img_size=resolution, **given) for arm in arms}
    yield "params", "counted", pd.Series({arm: count_params(config) for arm, config in configs.items()})
    yield "macs", "counted", pd.Series({arm: count_macs(config, resolution) for arm, config in configs.items()})


def _peaks(conditions: dict[str, Any], groups: Sequence[Group]) -> Iterator[Source]:
    for group in groups:
        rows = group.rows[group.rows["resolution"] == conditions["resolution"]]
        if _same_model(group, conditions) and not rows.empty:
            yield "peak_memory_bytes", _words(group), rows.set_index("arm")["peak_memory_bytes"].astype(float)


def _latencies(conditions: dict[str, Any], groups: Sequence[Group]) -> Iterator[Source]:
    """Yields v1's latency over each arm's relative speed: their own latencies were taken at different moments."""
    for group in groups:
        rows = group.rows.set_index("arm")
        same = _same_model(group, conditions) and group.conditions["resolution"] == conditions["resolution"]
        if same and group.conditions["reference"] == "v1" and REFERENCE in rows.index:
            yield "latency_s", _words(group), float(rows["latency_s"][REFERENCE]) / rows["relative_speed"]


def _same_model(group: Group, conditions: dict[str, Any]) -> bool:
    return all(group.conditions.get(name) == conditions.get(name) for name in SAME_MODEL)


def _words(group: Group) -> str:
    return describe(group.conditions, [name for name in group.conditions if name not in (*SAME_MODEL, "resolution")])
