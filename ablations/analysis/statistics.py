"""Means and paired differences over seeds, with the intervals that their number allows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean of `n` values and its confidence interval; nan where there are too few values for one."""

    n: int
    mean: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        return not math.isnan(self.low)

    @property
    def resolved(self) -> bool:
        """Whether there is an interval and it leaves out 0. One of no width resolves nothing.

        Equal values are what rounding makes of few images; they say nothing of how far apart others would lie.
        """
        return (self.low > 0 or self.high < 0) and not math.isclose(self.low, self.high)


def estimate_mean(values: Sequence[float]) -> Estimate:
    """Returns the mean with its 95 % Student t interval; one value has no interval, none no mean."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return Estimate(n, mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * stats.sem(values))
    return Estimate(n, mean, mean - half, mean + half)


def estimate_paired_difference(values: pd.Series, reference: pd.Series) -> Estimate:
    """Returns the mean of value minus reference over the seeds that both have, with its 95 % paired t interval.

    Both are indexed by seed; raises ValueError if a seed occurs twice, for then two things were mixed.
    """
    for series in (values, reference):
        if not series.index.is_unique:
            raise ValueError(f"seed {series.index[series.index.duplicated()][0]} occurs twice")
    differences = (values - reference).dropna()  # pandas aligns by seed
    return estimate_mean([float(difference) for difference in differences])
