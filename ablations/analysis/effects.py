"""What each of the three changes does, from the values of the eight arms: the statistics of a 2³ design.

Tables of values have one row a seed and one column an arm; a value without noise is a table of one row. Scales: with
all signs taken from -1 (off) and +1 (on), an effect is the mean where the product of its changes' signs is +1 minus
the mean where it is -1. So a main effect is the mean with the change minus the mean without it, over the four settings
of the others; the interaction of two is half of how much more the first does with the second than without it; that of
three is half of how much larger the interaction of two is with the third (Box, Hunter & Hunter, "Statistics for
Experimenters", chapter 5). A change does its main effect plus its interaction with another where that is on, and minus
it where that is off. Effects are in the unit of the values.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS

from ablations.analysis.statistics import CONFIDENCE, Estimate
from ablations.config import ARMS, TOGGLES

CHANGES = tuple(TOGGLES)
"""The three changes by their short names: the factors of the design."""

EFFECTS = {":".join(changes): changes for order in (1, 2, 3) for changes in combinations(CHANGES, order)}
"""The seven effects by name, such as `ope` and `ope:cffn`, and the changes that each is of."""

ORDERS = tuple(permutations(CHANGES))
"""The six orders in which the changes can be added to v1."""

ROUNDING = 1e-12
"""Residuals of this share of the values, or less, are what arithmetic leaves, not noise."""


@dataclass(frozen=True)
class Step:
    """One change added to an arm that lacks it: an edge of the cube of arms."""

    change: str
    start: str
    end: str

    @property
    def name(self) -> str:
        return f"+{self.change} at {self.start}"


def arm_with(changes: Collection[str]) -> str:
    """Returns the arm that has just these changes."""
    return "+".join(["v1", *(change for change in CHANGES if change in changes)])


def steps_of(order: tuple[str, ...]) -> tuple[Step, ...]:
    """Returns the three steps from v1 to the arm with all changes, in one of ORDERS."""
    return tuple(
        Step(change, arm_with(order[:before]), arm_with(order[: before + 1])) for before, change in enumerate(order)
    )


STEPS = tuple(
    Step(change, start, arm_with([*start.split("+"), change]))
    for change in CHANGES
    for start in ARMS
    if change not in start.split("+")
)
"""All twelve steps: each change at the four settings of the others."""

SIGNS = pd.DataFrame(
    {
        effect: [math.prod(1 if change in arm.split("+") else -1 for change in changes) for arm in ARMS]
        for effect, changes in EFFECTS.items()
    },
    index=pd.Index(ARMS, name="arm"),
)
"""The design, effect-coded: +1 or -1 for each arm (rows) and effect (columns). All columns are orthogonal."""


def complete_seeds(values: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of the seeds that have all eight arms; raises ValueError if a seed occurs twice."""
    if not values.index.is_unique:
        raise ValueError(f"seed {values.index[values.index.duplicated()][0]} occurs twice")
    return values.reindex(columns=list(ARMS)).dropna().astype(float)


def effect_contrasts(values: pd.DataFrame) -> pd.DataFrame:
    """Returns the seven effects (columns) in each row of complete values; whole numbers give exact ones."""
    return values[list(ARMS)] @ SIGNS / (len(ARMS) / 2)


def step_differences(values: pd.DataFrame, step: Step) -> pd.Series:
    """Returns what a step adds, in each row of the values."""
    return values[step.end] - values[step.start]


def shapley_contributions(values: pd.DataFrame, change: str) -> pd.Series:
    """Returns the Shapley value of a change in each row: the mean of what it adds over the six orders.

    The three changes' values add up to the difference between the arm with all changes and v1. Each is the change's
    main effect plus a third of the interaction of all three.
    """
    added = [step_differences(values, step) for order in ORDERS for step in steps_of(order) if step.change == change]
    return pd.concat(added, axis="columns").sum(axis="columns") / len(ORDERS)


def estimate_effects(values: pd.DataFrame) -> pd.DataFrame:
    """Returns the seven effects, from the seeds that have all eight arms, with 95 % intervals.

    The model is linear, with a block for each seed and independent errors of one variance, so that n seeds leave
    7 (n - 1) degrees of freedom for the errors. It takes a change to do the same in every seed; where it does not, the
    interval of its effect is too narrow.

    Columns: `effect`; `order`, the number of changes it is of; `n_seeds` and `n_seeds_left_out`; `mean, low, high`;
    `p` of the t test, `p_holm` adjusted over the seven (Holm 1979); `resolved`, whether the interval leaves out 0;
    `resolved_holm`, whether `p_holm` is below 0.05. One seed has exact contrasts and neither interval nor p. Where
    nothing varies beside the blocks, the intervals have no width, there is no p and nothing is resolved. Raises
    ValueError if a seed occurs twice.
    """
    complete = complete_seeds(values)
    n_seeds = len(complete)
    mean, low, high, p = np.full((4, len(EFFECTS)), math.nan)
    if n_seeds == 1:
        mean = effect_contrasts(complete).to_numpy()[0]
    elif n_seeds > 1:
        mean, low, high, p = _fit(complete)
    p_holm = adjust_by_holm(p)
    estimates = [Estimate(n_seeds, *ends) for ends in zip(mean, low, high, strict=True)]
    return pd.DataFrame(
        {
            "effect": list(EFFECTS),
            "order": [len(changes) for changes in EFFECTS.values()],
            "n_seeds": n_seeds,
            "n_seeds_left_out": len(values) - n_seeds,
            "mean": mean,
            "low": low,
            "high": high,
            "p": p,
            "p_holm": p_holm,
            "resolved": [estimate.resolved for estimate in estimates],
            "resolved_holm": p_holm < 1 - CONFIDENCE,
        }
    )


def _fit(complete: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the effects' means, both ends of their intervals, and p, from two seeds or more."""
    n_seeds = len(complete)
    blocks = np.repeat(np.eye(n_seeds), len(ARMS), axis=0)
    response = complete.to_numpy().ravel()
    fit = OLS(response, np.hstack([blocks, np.tile(SIGNS.to_numpy(), (n_seeds, 1))])).fit()
    # A coefficient is the change from the mean to one side; an effect is from one side to the other.
    mean = 2 * fit.params[n_seeds:]
    if fit.ssr <= ROUNDING**2 * (response @ response):
        return mean, mean, mean, np.full_like(mean, math.nan)
    low, high = 2 * fit.conf_int(1 - CONFIDENCE)[n_seeds:].T
    return mean, low, high, fit.pvalues[n_seeds:]


def adjust_by_holm(p: np.ndarray) -> np.ndarray:
    """Returns p-values adjusted by Holm's step-down rule: any of them below 0.05 by chance alone in 5 % at most.

    The same as statsmodels' `multipletests`, which collects garbage at every call: 0.05 s, for seven numbers.
    """
    rank = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[rank] = np.minimum(np.maximum.accumulate(p[rank] * np.arange(len(p), 0, -1)), 1)
    return adjusted
