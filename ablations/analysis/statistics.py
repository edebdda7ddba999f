"""Means, differences and their intervals over seeds, and the rules by which a difference is claimed.

The unit is one training: n is a number of seeds. An interval is Student's t over seeds; its p is what Holm's rule
corrects. Two rules hold everywhere. A difference is *resolved* where its corrected p is below LEVEL and n is at least
FEWEST_TO_CLAIM, else *unresolved*; with fewer seeds it is *exploratory*, whatever its p. And FEWEST_FOR_INTERVAL values
make an interval; fewer are shown as they are.

How far the 95 % intervals can be trusted (2,000 simulated studies each, `tests/analysis/test_simulation.py`): they hold
the truth in 93 to 97 % of studies at n = 6 and 10, and a family makes a false claim in 5 % at most, where noise is
normal, where arms' deviations differ threefold or as on digits or Fashion-MNIST, where arms are correlated, and where a
seed interacts with a toggle by one or two deviations. Skewed noise (a gamma distribution of skewness 2, that of the
exponential) leaves effects, which average over arms, within that range. It does not leave the mean of a single arm
there: its interval holds the truth in 87 to 90 % of studies at n = 6 and in 88 to 92 % at n = 10. Nor a step between
two arms of unlike deviations: 88 % at n = 6 and 91 % at n = 10 in the worst case. No interval that rests on six values
does better without knowing the distribution.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.proportion import proportion_confint

CONFIDENCE = 0.95
LEVEL = 0.05
"""A corrected p below this resolves a difference."""

FEWEST_FOR_INTERVAL = 3
FEWEST_TO_CLAIM = 6
"""With five seeds or fewer no sign-flip test can reach LEVEL: its smallest p is 2 / 2**n."""

MOST_TO_FLIP = 40
"""Seeds whose signs can be flipped in all ways: 2**20 sums a half."""

MOST_SEEDS = 10_000
"""No study is sized beyond this number."""

ROUNDING = 1e-12
"""Values that differ by this share of themselves, or less, differ by what arithmetic leaves."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds or a difference of means, its 95 % interval, and its p against 0.

    nan stands where there is none: below FEWEST_FOR_INTERVAL values, and no p where all values are equal.
    """

    n: int
    """Seeds; of an unpaired difference, those of the side that has fewer."""
    mean: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    """Two-sided, of the t test against 0, not corrected."""
    sign_flip_p: float = math.nan
    """Exact, not corrected: it takes the values to be symmetric, not normal."""
    raw: tuple[float, ...] = ()
    """The values themselves, where there are too few for an interval."""
    paired: bool = True


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean, low, high and two-sided p of Student's t along the last axis (..., n), n - 1 degrees of freedom.

    Equal values have an interval of no width and a p of nan. Fewer than two have nan but for the mean.
    """
    n = values.shape[-1]
    mean = values.mean(axis=-1)
    if n < 2:
        nothing = np.full_like(mean, math.nan)
        return mean, nothing, nothing, nothing
    error = values.std(axis=-1, ddof=1) / math.sqrt(n)
    error = np.where(error <= ROUNDING * np.abs(values).max(axis=-1), 0.0, error)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(error > 0, 2 * stats.t.sf(np.abs(mean) / error, n - 1), math.nan)
    return mean, mean - half, mean + half, p


def sign_flip_p(values: Sequence[float]) -> float:
    """Returns the exact two-sided p of the mean of values whose signs are chance: the share of all 2**n ways to set
    them that give a sum at least as far from 0.

    The sums of two halves are counted against each other, so that 40 values take a million sums and not 2**40. More
    than MOST_TO_FLIP values, and none, have nan.
    """
    n = len(values)
    if not 0 < n <= MOST_TO_FLIP:
        return math.nan
    sizes = np.abs(np.asarray(values, dtype=float))
    first, second = (_signed_sums(half) for half in (sizes[: n // 2], sizes[n // 2 :]))
    second = np.sort(second)
    reached = abs(math.fsum(values)) - ROUNDING * sizes.sum()
    if reached <= 0:
        return 1.0
    above = len(second) - np.searchsorted(second, reached - first, side="left")
    return float(2 * above.sum() / 2**n)  # as many lie below -reached


def _signed_sums(sizes: np.ndarray) -> np.ndarray:
    """Returns the sums of the numbers under all choices of their signs."""
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums


def estimate_mean(values: Sequence[float] | pd.Series) -> Estimate:
    """Returns the mean of one value a seed with its 95 % t interval and its p against 0."""
    own = [float(value) for value in values]
    n = len(own)
    if n < FEWEST_FOR_INTERVAL:
        return Estimate(n, math.fsum(own) / n if n else math.nan, raw=tuple(own))
    mean, low, high, p = (float(each) for each in t_interval(np.array(own)))
    return Estimate(n, mean, low, high, p, sign_flip_p(own))


def estimate_share(values: Sequence[float] | pd.Series) -> Estimate:
    """Returns the same of shares such as accuracies; their interval ends at 0 and 1, beyond which no mean can lie."""
    estimate = estimate_mean(values)
    low, high = np.clip([estimate.low, estimate.high], 0, 1).tolist()
    return replace(estimate, low=low, high=high)


def estimate_contrast(parts: Sequence[tuple[float, pd.Series]], *, paired: bool) -> Estimate:
    """Returns the sum of weighted means, such as a difference (1, -1) or one of differences (1, -1, -1, 1).

    Each part is a weight and values by seed. `paired` takes the sum in each seed that all parts have, and its t
    interval. Else the parts share nothing: the variances of their means add up, with the degrees of freedom of Welch
    and Satterthwaite, which for two parts is Welch's t test. A part without values gives an estimate of n = 0. Raises
    ValueError if a seed occurs twice in a part, for then two things were mixed.
    """
    samples = [(weight, values.dropna().astype(float)) for weight, values in parts]
    for _, values in samples:
        check_seeds(values)
    if paired:
        by_seed = pd.concat([weight * values for weight, values in samples], axis="columns")
        return estimate_mean(by_seed.dropna().sum(axis="columns"))
    n = min(len(values) for _, values in samples)
    mean = sum(weight * values.mean() for weight, values in samples) if n else math.nan
    if n < FEWEST_FOR_INTERVAL:
        return Estimate(n, float(mean), raw=(float(mean),) if n else (), paired=False)
    variances = np.array([weight**2 * values.var() / len(values) for weight, values in samples])
    largest = max(abs(values).max() for _, values in samples)
    if variances.sum() <= (ROUNDING * largest) ** 2:
        return Estimate(n, float(mean), float(mean), float(mean), paired=False)
    freedom = variances.sum() ** 2 / (variances**2 / [len(values) - 1 for _, values in samples]).sum()
    error = math.sqrt(variances.sum())
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return Estimate(n, float(mean), float(mean) - half, float(mean) + half, p, paired=False)


def estimate_difference(values: pd.Series, reference: pd.Series, *, paired: bool) -> Estimate:
    """Returns the mean of values minus that of the reference, both by seed; `paired` as in `estimate_contrast`."""
    return estimate_contrast([(1, values), (-1, reference)], paired=paired)


def check_seeds(by_seed: pd.Series | pd.DataFrame) -> None:
    """Raises ValueError if a seed of the index occurs twice."""
    if not by_seed.index.is_unique:
        raise ValueError(f"seed {by_seed.index[by_seed.index.duplicated()][0]} occurs twice")


def correct_by_holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns p-values corrected by Holm's step-down rule (1979): any of them below 0.05 by chance in 5 % at most.

    A comparison without a p counts as one of the family, with p = 1, and gets none.
    """
    own = np.asarray(p, dtype=float)
    missing = np.isnan(own)
    if missing.all():
        return own
    # Not statsmodels' multipletests, which has Python look for garbage twice at every call: a third of a report's time.
    counted = np.where(missing, 1.0, own)
    order = np.argsort(counted, kind="stable")
    steps = counted[order] * np.arange(counted.size, 0, -1)
    corrected = np.empty_like(counted)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return np.where(missing, math.nan, corrected)


def is_resolved(n: int, corrected_p: float, declared: int | None = None) -> bool:
    """Whether a difference is claimed: by the corrected p, and by as many seeds as are needed and were declared."""
    return bool(n >= max(FEWEST_TO_CLAIM, declared or 0) and corrected_p < LEVEL)  # nan is not below


def image_interval(right: np.ndarray) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of an accuracy for other validation images of the same kind, from truths (seeds,
    images): whether each trained model was right about each image.

    It takes the trained models as given and says nothing of seeds. Several models are right about the same images, so
    the number of images that counts is not seeds x images but what the variance of an image's share of right answers
    says: p (1 - p) over that variance. With one seed it is the number of images (Wilson 1927).
    """
    by_image = np.asarray(right, dtype=float).mean(axis=0)
    share, variance = by_image.mean(), by_image.var() / by_image.size
    images = share * (1 - share) / variance if variance > 0 else by_image.size
    low, high = proportion_confint(share * images, images, alpha=1 - CONFIDENCE, method="wilson")
    return float(low), float(high)


def seeds_needed(difference: float, sd: float, *, paired: bool, comparisons: int = 1, power: float = 0.8) -> int | None:
    """Returns how many seeds an arm needs so that a difference is resolved with the given probability.

    `sd` is the standard deviation over seeds: of the paired differences (or of an effect's contrasts) where `paired`,
    else of each side's own values, in the unit of `difference`. The power is that of the two-sided t test (noncentral
    t) at LEVEL / comparisons, the first and hardest step of Holm's rule. Never fewer than FEWEST_TO_CLAIM; None where
    more than MOST_SEEDS are needed.

    An sd from n pilot seeds is itself uncertain: at n = 6 its 95 % interval goes from 0.62 to 2.45 times it, and the
    number of seeds with the square of that. Raises ValueError for a difference or sd that is not above 0.
    """
    if not (difference > 0 and sd > 0 and comparisons >= 1 and 0 < power < 1):
        raise ValueError("a difference and an sd above 0, one comparison or more, a power between 0 and 1")
    test = TTestPower() if paired else TTestIndPower()
    # An effect of more than five deviations needs no more than one of five, whose power can be computed.
    size, alpha = min(difference / sd, 5.0), LEVEL / comparisons

    def suffices(n: int) -> bool:
        # One side at half the level: the other adds nothing here, and its noncentral t is nan for large effects.
        return float(test.power(size, n, alpha / 2, alternative="larger")) >= power

    too_few, enough = FEWEST_TO_CLAIM - 1, FEWEST_TO_CLAIM
    while not suffices(enough):
        if enough == MOST_SEEDS:
            return None
        too_few, enough = enough, min(2 * enough, MOST_SEEDS)
    return enough if enough == FEWEST_TO_CLAIM else bisect_left(range(too_few, enough), True, key=suffices) + too_few
