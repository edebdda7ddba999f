"""Statistics of raw timing samples. Needs no torch."""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np

NOISY = 0.1
"""The share of the median from which on an interquartile range is too wide to trust the median."""

NEEDED_PAIRS = 6
"""The fewest pairs that have a 95 % interval of their median: all six lie on one side of it in 3 % of cases."""


class Ratio(NamedTuple):
    """A median ratio and the interval that holds the true one with 95 % confidence."""

    median: float
    low: float
    high: float


def summarise_times(samples: Sequence[float]) -> dict[str, float | bool]:
    """Returns `median`, `lower_quartile`, `upper_quartile` (in the samples' unit), `iqr_over_median` and `noisy`."""
    lower, median, upper = (float(value) for value in np.quantile(samples, (0.25, 0.5, 0.75)))
    spread = (upper - lower) / median
    return {
        "median": median,
        "lower_quartile": lower,
        "upper_quartile": upper,
        "iqr_over_median": spread,
        "noisy": spread > NOISY,
    }


def paired_ratio(reference: Sequence[float], samples: Sequence[float]) -> Ratio:
    """Returns the median of reference / sample over samples taken in pairs, with a 95 % interval; over 1 is faster.

    The interval lies between two of the sorted ratios and assumes nothing of their distribution (the sign test's), but
    that pairs are independent. Fewer than NEEDED_PAIRS have none: n give their range, which holds the true median in
    1 - 2 ** (1 - n) of all cases.
    Raises ValueError if the two are not of one length.
    """
    ratios = sorted(ours / theirs for ours, theirs in zip(reference, samples, strict=True))
    cut = _ranks_outside(len(ratios))
    return Ratio(float(np.median(ratios)), ratios[cut], ratios[-1 - cut])


def _ranks_outside(n: int) -> int:
    """How many of `n` sorted values may be left out at each end of a 95 % interval of their median."""
    ranks, below = 0, 1  # `below` of 2 ** n equally likely patterns put the median outside at one end
    while 2 * (below + comb(n, ranks + 1)) <= 0.05 * 2**n:
        ranks += 1
        below += comb(n, ranks)
    return ranks
