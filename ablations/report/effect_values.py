"""What each change does, from records: effects, steps, orders, Shapley values, the cumulative and the bases.

Functions take the base of `load_records` and return one row for each row of a table, behind the conditions that it
was measured under: records of other conditions are never taken together. A measurement that is none of RESPONSES
raises InputError, as do two records that stand in one place.

Accuracies are fractions and have noise: `NAME_mean`, `NAME_low` and `NAME_high` are a mean over paired seeds and its
95 % interval, and `NAME_resolved` says whether that leaves out 0. Costs have none: `NAME` is exact, in the records'
unit, and `NAME_percent` is in percent of arm v1's value. That scale is additive because costs are: parameters and
MACs are sums over modules, so changes that touch different modules have an interaction of 0, and the
percentages of any way through the arms add up. In percent of the arm before, neither would hold.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from ablations.analysis.effects import (
    CHANGES,
    EFFECTS,
    ORDERS,
    STEPS,
    complete_seeds,
    effect_contrasts,
    estimate_effects,
    shapley_contributions,
    step_differences,
    steps_of,
)
from ablations.analysis.grouping import AXES, CONDITIONS, group_by, split_by_conditions
from ablations.analysis.statistics import Estimate, estimate_mean, estimate_paired_difference
from ablations.config import ARMS, BASES, base_confounders
from ablations.errors import pick
from ablations.studies import CUMULATIVE

RESPONSES = {"cost": ("params", "macs"), "memory": ("peak_memory_bytes",), "accuracy": ("top1",)}
"""The metrics of each measurement that the changes have effects on."""

REFERENCE = ARMS[0]
"""The arm whose value is 100 %."""


@dataclass(frozen=True)
class Design:
    """The values of arms under one set of conditions: by metric, a table with a column an arm and a row a seed."""

    conditions: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    """Without noise there is one row."""
    has_noise: bool

    @cached_property
    def complete(self) -> dict[str, pd.DataFrame]:
        """The same, of the seeds that have all eight arms."""
        return {metric: complete_seeds(values) for metric, values in self.tables.items()}

    @property
    def seed_columns(self) -> dict[str, int]:
        """How many seeds have all eight arms, and how many are left out because they have not."""
        if not self.has_noise:
            return {}
        (values,), (complete,) = self.tables.values(), self.complete.values()
        return {"n_seeds": len(complete), "n_seeds_left_out": len(values) - len(complete)}

    def columns(self, metric: str, label: str, added: pd.Series) -> dict[str, Any]:
        """Returns what was added to a metric, in each row of its complete values, as columns `METRIC_LABEL...`."""
        name = f"{metric}_{label}"
        if self.has_noise:
            return difference_columns(name, estimate_mean(added.tolist()))
        return exact_columns(name, added.mean(), self.complete[metric][REFERENCE].mean())


def mean_columns(name: str, estimate: Estimate) -> dict[str, Any]:
    """Returns an estimate as columns `NAME_mean`, `NAME_low` and `NAME_high`."""
    return {f"{name}_mean": estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def difference_columns(name: str, estimate: Estimate) -> dict[str, Any]:
    """Returns the same, and `NAME_resolved`."""
    return mean_columns(name, estimate) | {f"{name}_resolved": estimate.resolved}


def exact_columns(name: str, difference: float, reference: float) -> dict[str, float]:
    """Returns a difference and what percent of the reference it is, as columns `NAME` and `NAME_percent`."""
    return {name: difference, f"{name}_percent": 100 * difference / reference}


def _designs(records: pd.DataFrame, measurement: str) -> Iterator[Design]:
    """Yields the designs in which every arm has a record; what has fewer arms is no 2³ design."""
    pick("measurement", measurement, RESPONSES)
    for conditions, rows in _places(records, measurement, CONDITIONS[measurement]):
        if set(ARMS) <= set(rows["arm"]):
            tables = {metric: _table(rows, metric) for metric in RESPONSES[measurement]}
            yield Design(conditions, tables, has_noise="seed" in AXES[measurement])


def _places(
    records: pd.DataFrame, measurement: str, names: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yields the rows that have the conditions of `names` in common, and their resolution where that is none of them.

    Raises InputError where `split_by_conditions` does.
    """
    labels = [label for group in split_by_conditions(records, measurement) for label in group.rows.index]
    axes = ("resolution", "pixels") if "resolution" in AXES[measurement] else ()
    for group in group_by(records.loc[labels].dropna(axis="columns", how="all"), (*names, *axes)):
        yield group.conditions, group.rows


def _table(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Returns a metric with a row a seed, or one row, and a column an arm; no row has it where it was never counted."""
    if metric not in rows:
        return pd.DataFrame(columns=list(ARMS), dtype=float)
    by_arm = rows.assign(seed=rows.get("seed", 0)).groupby("arm", sort=False)
    return pd.DataFrame({arm: own.set_index("seed")[metric].astype(float) for arm, own in by_arm})


def effect_values(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns the seven effects of the 2³ design, `METRIC_effect`, on the scale of `ablations.report.effects`.

    Accuracy's are those of `estimate_effects`, with its `p`, `p_holm` and `top1_effect_resolved_holm`.
    """
    rows: list[dict[Any, Any]] = []
    for design in _designs(records, measurement):
        if design.has_noise:
            effects = estimate_effects(design.tables["top1"]).rename(
                columns={name: f"top1_effect_{name}" for name in ("mean", "low", "high", "resolved", "resolved_holm")}
            )
            rows += [design.conditions | effect for effect in effects.to_dict("records")]
            continue
        contrasts = {metric: effect_contrasts(values) for metric, values in design.complete.items()}
        for effect, changes in EFFECTS.items():
            row = design.conditions | {"effect": effect, "order": len(changes)}
            for metric, contrast in contrasts.items():
                row |= design.columns(metric, "effect", contrast[effect])
            rows.append(row)
    return pd.DataFrame(rows)


def step_values(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns what each change adds at the four settings of the others, `METRIC_step`: twelve rows, one a `step`."""
    rows = []
    for design in _designs(records, measurement):
        for step in STEPS:
            names = {"step": step.name, "change": step.change, "start": step.start, "arm": step.end}
            row = design.conditions | names | design.seed_columns
            for metric, values in design.complete.items():
                row |= design.columns(metric, "step", step_differences(values, step))
            rows.append(row)
    return pd.DataFrame(rows)


def order_values(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns what each change adds in each of the six orders of adding them to v1: one row an `order`.

    Columns are `METRIC_ope` and so on; those of a row add up to the whole way from v1 to all three changes.
    """
    rows = []
    for design in _designs(records, measurement):
        for order in ORDERS:
            row = design.conditions | {"order": ", ".join(order)} | design.seed_columns
            for step in sorted(steps_of(order), key=lambda step: CHANGES.index(step.change)):
                for metric, values in design.complete.items():
                    row |= design.columns(metric, step.change, step_differences(values, step))
            rows.append(row)
    return pd.DataFrame(rows)


def shapley_values(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns the Shapley value of each `change`: its share of the whole way from v1, whatever the order.

    It is `METRIC_shapley`; `METRIC_smallest` and `METRIC_largest` are the least and the most that the change adds at
    any setting of the others. As in every table but that of the effects, accuracy's intervals are of the seeds' own
    values, with a degree of freedom less than there are seeds. They assume less than the linear model, and are wider.
    """
    rows = []
    for design in _designs(records, measurement):
        for change in CHANGES:
            row = design.conditions | {"change": change} | design.seed_columns
            for metric, values in design.complete.items():
                row |= design.columns(metric, "shapley", shapley_contributions(values, change))
                steps = [step_differences(values, step) for step in STEPS if step.change == change]
                steps.sort(key=lambda added: added.mean())
                row |= design.columns(metric, "smallest", steps[0]) | design.columns(metric, "largest", steps[-1])
            rows.append(row)
    return pd.DataFrame(rows)


def cumulative_step_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the accuracy of the cumulative's arms and, for each but the first, its paired difference to the arm before.

    `top1` and `top1_step`, over `n_seeds` and `n_pairs`. There is no step to or from an arm without records. In base
    `published` the first step holds the change of base too (`confounder_values`).
    """
    rows = []
    for group in split_by_conditions(records, "accuracy"):
        table = _table(group.rows, "top1").reindex(columns=list(CUMULATIVE))
        if table.dropna(axis="columns", how="all").shape[1] < 2:
            continue
        for before, arm in zip((None, *CUMULATIVE), CUMULATIVE, strict=False):
            top1 = table[arm].dropna()
            if top1.empty:
                continue
            mean = estimate_mean(top1.tolist())
            step = estimate_paired_difference(top1, table[before] if before else top1.iloc[:0])
            columns = {"arm": arm, "n_seeds": mean.n, **mean_columns("top1", mean)}
            columns |= {"n_pairs": step.n, **difference_columns("top1_step", step)}
            rows.append(group.conditions | columns)
    return pd.DataFrame(rows)


_OPE, _ALL = CUMULATIVE[1], CUMULATIVE[-1]
PUBLISHED_STEP = "published step to v1+ope"

BASE_PARTS = {
    PUBLISHED_STEP: ((REFERENCE, "published"), (_OPE, "published")),
    "base, at v1": ((REFERENCE, "v1"), (REFERENCE, "v2")),
    "ope, in base v2": ((REFERENCE, "v2"), (_OPE, "v2")),
    "ope, in base v1": ((REFERENCE, "v1"), (_OPE, "v1")),
    "base, at v1+ope": ((_OPE, "v1"), (_OPE, "v2")),
    "ReLU, at v1+ope+cffn+lsra": ((_ALL, "v2"), (_ALL, "published")),
}
"""What the bases do, each from one arm and base to another.

The published step is the change of base and then OPE in the new one (the second and third), or OPE in the old base
and then the change (the fourth and fifth). The ReLU of the released linear models is the only other difference between
the cumulative in `published` and in `v2`.
"""


def confounder_values(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns how much of the published cumulative is the base's: a row for each of BASE_PARTS that has records.

    `METRIC_part` is paired by seed for accuracy (`n_pairs`). For costs `METRIC_share_percent` is its share of the
    published step. A model that two bases have in common, as `published` and `v1` have arm v1, stands for both.
    Conditions under which no change of base was measured have no rows.
    """
    pick("measurement", measurement, RESPONSES)
    names = tuple(name for name in CONDITIONS[measurement] if name != "base")
    rows = []
    for conditions, own in _places(records, measurement, names):
        parts = {name: _differences(own, RESPONSES[measurement], *ends) for name, ends in BASE_PARTS.items()}
        parts = {
            name: differences for name, differences in parts.items() if any(part.n for part in differences.values())
        }
        if not any(name.startswith("base") for name in parts):
            continue
        for name, differences in parts.items():
            row = conditions | {"part": name}
            for metric, difference in differences.items():
                if "seed" in AXES[measurement]:
                    row |= {"n_pairs": difference.n, **difference_columns(f"{metric}_part", difference)}
                    continue
                row |= exact_columns(f"{metric}_part", difference.mean, _values_of(own, metric, REFERENCE, "v1").mean())
                whole = parts[PUBLISHED_STEP][metric].mean if PUBLISHED_STEP in parts else math.nan
                row[f"{metric}_share_percent"] = 100 * difference.mean / whole if whole else math.nan
            rows.append(row)
    return pd.DataFrame(rows)


def _differences(
    rows: pd.DataFrame, metrics: tuple[str, ...], start: tuple[str, str], end: tuple[str, str]
) -> dict[str, Estimate]:
    """Returns, by metric, the difference between two models that are named by arm and base."""
    return {
        metric: estimate_paired_difference(_values_of(rows, metric, *end), _values_of(rows, metric, *start))
        for metric in metrics
    }


def _values_of(rows: pd.DataFrame, metric: str, arm: str, base: str) -> pd.Series:
    """Returns a model's values by seed, from the first base that has it, or none."""
    of_arm = rows[rows["arm"] == arm]
    for name in (base, *BASES):
        own = of_arm[of_arm["base"] == name]
        if base_confounders(name, arm) == base_confounders(base, arm) and not own.empty:
            return _table(own, metric).get(arm, pd.Series(dtype=float))
    return pd.Series(dtype=float)
