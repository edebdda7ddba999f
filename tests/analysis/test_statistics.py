"""Means, differences and claims, on numbers whose answers are worked out here."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablations.analysis.statistics import (
    correct_by_holm,
    estimate_contrast,
    estimate_difference,
    estimate_mean,
    estimate_share,
    image_interval,
    is_resolved,
    seeds_needed,
    sign_flip_p,
)

T_2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))
"""The 97.5 % quantile of Student's t with two degrees of freedom, in closed form."""


def test_a_mean_of_three_by_hand():
    estimate = estimate_mean([1.0, 2.0, 3.0])
    assert (estimate.n, estimate.mean) == (3, 2.0)
    # The sample deviation of 1, 2, 3 is 1.
    assert estimate.low == pytest.approx(2 - T_2 / math.sqrt(3), rel=1e-12)
    assert estimate.high == pytest.approx(2 + T_2 / math.sqrt(3), rel=1e-12)
    # t = 2 sqrt(3), and with two degrees of freedom p = 1 - t / sqrt(2 + t^2).
    assert estimate.p == pytest.approx(1 - math.sqrt(12 / 14), rel=1e-12)


@pytest.mark.parametrize("values", [[], [0.9], [0.9, 0.8]])
def test_too_few_values_have_no_interval_and_are_kept(values):
    estimate = estimate_mean(values)
    assert (estimate.n, estimate.raw) == (len(values), tuple(values))
    assert all(map(math.isnan, (estimate.low, estimate.high, estimate.p)))
    assert math.isnan(estimate.mean) == (not values)


def test_equal_values_have_an_interval_of_no_width_and_no_p():
    estimate = estimate_mean([0.1 + 0.2, 0.3, 0.3])
    assert estimate.low == estimate.high == estimate.mean
    assert math.isnan(estimate.p)


def test_the_interval_of_an_accuracy_ends_where_accuracies_do():
    estimate = estimate_share([0.99, 1.0, 1.0])
    assert estimate.high == 1
    assert estimate.low == pytest.approx(0.99667 - T_2 * 0.0033333, abs=1e-5)
    assert estimate_share([0.0, 0.01, 0.0]).low == 0


def test_sign_flips_by_hand():
    # Of the 8 sums of ±1 ±2 ±3, only 6 and -6 are as far from 0 as 6; of ±1 -2 +3, those with |sum| >= 2 are six.
    assert sign_flip_p([1, 2, 3]) == 2 / 8
    assert sign_flip_p([1, -2, 3]) == 6 / 8
    assert sign_flip_p([0.3] * 6) == 2 / 64
    assert sign_flip_p([0.0, 0.0]) == 1
    assert math.isnan(sign_flip_p([]))


def test_sign_flips_are_those_of_all_ways_to_set_them():
    values = np.random.default_rng(1).normal(0.4, 1, size=11)
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
        for signs in product((1, -1), repeat=11)
    ]
    assert sign_flip_p(values.tolist()) == np.mean(np.array(sums) >= abs(values.sum()) - 1e-12)
    assert sign_flip_p([1.0] * 40) == 2 / 2**40


def test_differences_are_taken_seed_by_seed():
    values = pd.Series({2: 0.93, 0: 0.91, 1: 0.92, 7: 0.5})
    reference = pd.Series({0: 0.90, 1: 0.90, 2: 0.90, 8: 0.1})
    estimate = estimate_difference(values, reference, paired=True)
    assert (estimate.n, estimate.paired) == (3, True)
    assert estimate.mean == pytest.approx(0.02)
    assert estimate.low == pytest.approx(0.02 - T_2 * 0.01 / math.sqrt(3))
    # Pairing removes what the seeds share, however much that is.
    shared = pd.Series({0: 5.0, 1: -3.0, 2: 40.0})
    assert estimate_difference(values + shared, reference + shared, paired=True).low == pytest.approx(estimate.low)


def test_what_shares_nothing_is_compared_by_welch():
    one, other = pd.Series([3.0, 5.0, 4.0, 8.0]), pd.Series([1.0, 2.0, 9.0], index=[5, 6, 7])
    estimate = estimate_difference(one, other, paired=False)
    welch = stats.ttest_ind(one, other, equal_var=False)
    assert (estimate.n, estimate.paired, estimate.mean) == (3, False, 1.0)
    assert estimate.p == pytest.approx(welch.pvalue)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(welch.confidence_interval(0.95)))


def test_a_difference_of_differences_by_hand():
    start, end = pd.Series([1.0, 2.0, 3.0]), pd.Series([4.0, 4.0, 7.0])
    gain = [(1, end), (-1, start)]  # by seed 3, 2, 4
    other = [(-1, end * 2), (1, start * 2)]  # by seed -6, -4, -8
    paired = estimate_contrast([*gain, *other], paired=True)  # -3, -2, -4
    assert paired.mean == -3
    assert paired.low == pytest.approx(-3 - T_2 / math.sqrt(3))
    unpaired = estimate_contrast([*gain, *other], paired=False)
    # Variances of the means: 3 / 3, 1 / 3, 12 / 3, 4 / 3, together 20 / 3; each has 2 degrees of freedom.
    freedom = (20 / 3) ** 2 / ((1 + 1 / 9 + 16 + 16 / 9) / 2)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(20 / 3)
    assert (unpaired.mean, unpaired.low) == (-3, pytest.approx(-3 - half))


def test_a_seed_that_occurs_twice_is_refused():
    mixed = pd.Series([0.9, 0.8], index=[4, 4])
    for paired in (True, False):
        with pytest.raises(ValueError, match="seed 4 occurs twice"):
            estimate_difference(mixed, pd.Series({4: 0.7}), paired=paired)


def test_holm_by_hand():
    # In order 0.001, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.004, 0.06, 0.06, and 0.04, which may not fall below 0.06.
    assert list(correct_by_holm([0.03, 0.001, 0.04, 0.02])) == pytest.approx([0.06, 0.004, 0.06, 0.06])
    # One without a p counts as a comparison: 0.02 times 2.
    corrected = correct_by_holm([0.02, math.nan])
    assert corrected[0] == pytest.approx(0.04)
    assert math.isnan(corrected[1])
    assert np.isnan(correct_by_holm([math.nan])).all()


def test_a_claim_takes_seeds_and_a_corrected_p():
    assert is_resolved(6, 0.049)
    assert not is_resolved(5, 0.001)
    assert not is_resolved(6, 0.05)
    assert not is_resolved(6, math.nan)
    assert not is_resolved(6, 0.001, declared=10)
    assert is_resolved(10, 0.001, declared=10)


def test_wilsons_interval_by_hand():
    # 8 of 10 right: z = 1.96; centre (0.8 + z^2 / 20) / (1 + z^2 / 10), half of the width z sqrt(0.016 + z^2 /
    # 400) / ...
    z = stats.norm.ppf(0.975)
    centre, half = (0.8 + z**2 / 20) / (1 + z**2 / 10), z * math.sqrt(0.016 + z**2 / 400) / (1 + z**2 / 10)
    right = np.array([[True] * 8 + [False] * 2])
    assert image_interval(right) == pytest.approx((centre - half, centre + half))
    # Models that are right about the same images say no more of other images than one does.
    assert image_interval(np.repeat(right, 5, axis=0)) == pytest.approx(image_interval(right))
    assert image_interval(np.ones((3, 10), dtype=bool))[1] == pytest.approx(1)


def test_the_interval_over_images_is_that_of_a_bootstrap():
    chance = np.random.default_rng(0)
    right = chance.random((4, 2000)) < chance.beta(4, 1, size=2000)  # some images are harder for all
    shares = right.mean(axis=0)
    again = [shares[chance.integers(0, 2000, size=2000)].mean() for _ in range(2000)]
    assert image_interval(right) == pytest.approx(np.quantile(again, [0.025, 0.975]), abs=0.002)


def test_seeds_needed_are_those_of_the_books():
    # One deviation at a power of 0.8: ten pairs, or seventeen a side (Cohen 1988, tables 2.4.1 give 17).
    assert seeds_needed(1, 1, paired=True) == 10
    assert seeds_needed(1, 1, paired=False) == 17
    assert seeds_needed(100, 1, paired=True) == 6
    assert seeds_needed(1, 1, paired=True, comparisons=7) > 10


@pytest.mark.parametrize("values", [(0, 1), (1, 0), (-1, 1)])
def test_a_difference_of_nothing_needs_no_number_of_seeds(values):
    with pytest.raises(ValueError, match="above 0"):
        seeds_needed(*values, paired=True)


def test_no_study_is_sized_beyond_the_most_seeds():
    # Near 0.05 and 0.8, n = ((1.960 + 0.842) sd / difference)^2: 9,811 for 35.35 deviations, and 11,304 for 37.94.
    assert seeds_needed(1, 35.35, paired=True) == pytest.approx(9811, abs=5)
    assert seeds_needed(1, 37.94, paired=True) is None
