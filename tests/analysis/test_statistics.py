"""Means and paired differences with their intervals."""

import math

import pandas as pd
import pytest

from ablations.analysis.statistics import estimate_mean, estimate_paired_difference

# The 97.5 % quantiles of Student's t, which have a closed form for one and two degrees of freedom.
T_1 = math.tan(math.pi * 0.475)
T_2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))


def test_a_mean_of_three_by_hand():
    estimate = estimate_mean([1.0, 2.0, 3.0])
    assert (estimate.n, estimate.mean) == (3, 2.0)
    # The sample deviation of 1, 2, 3 is 1.
    assert estimate.low == pytest.approx(2 - T_2 / math.sqrt(3), rel=1e-12)
    assert estimate.high == pytest.approx(2 + T_2 / math.sqrt(3), rel=1e-12)


def test_one_value_has_a_mean_and_no_interval():
    estimate = estimate_mean([0.9])
    assert (estimate.n, estimate.mean, estimate.has_interval, estimate.resolved) == (1, 0.9, False, False)


def test_no_value_has_no_mean():
    estimate = estimate_mean([])
    assert estimate.n == 0
    assert math.isnan(estimate.mean)
    assert not estimate.has_interval


def test_equal_values_have_an_interval_of_no_width():
    estimate = estimate_mean([0.5, 0.5, 0.5])
    assert (estimate.low, estimate.high) == (0.5, 0.5)
    assert not estimate.resolved


def test_differences_are_taken_seed_by_seed():
    values = pd.Series({2: 0.93, 0: 0.91, 1: 0.92})
    reference = pd.Series({0: 0.90, 1: 0.90, 2: 0.90})
    estimate = estimate_paired_difference(values, reference)
    assert estimate.n == 3
    assert estimate.mean == pytest.approx(0.02)
    assert estimate.low == pytest.approx(0.02 - T_2 * 0.01 / math.sqrt(3))
    assert not estimate.resolved  # 0.02 is less than the half width, 0.0248
    # Pairing removes what the seeds share, however much that is.
    shared = pd.Series({0: 5.0, 1: -3.0, 2: 40.0})
    paired = estimate_paired_difference(values + shared, reference + shared)
    assert paired.low == pytest.approx(estimate.low, abs=1e-9)


def test_seeds_that_only_one_has_are_left_out():
    estimate = estimate_paired_difference(pd.Series({0: 1.0, 1: 2.0, 2: 9.0}), pd.Series({0: 0.0, 1: 0.0, 7: 5.0}))
    assert (estimate.n, estimate.mean) == (2, 1.5)
    assert estimate.high == pytest.approx(1.5 + T_1 * 0.5)


@pytest.mark.parametrize(
    ("differences", "resolved"), [([1.0, 1.1, 0.9], True), ([-1.0, -1.1, -0.9], True), ([1.0, -1.0, 0.1], False)]
)
def test_an_interval_that_holds_0_is_unresolved(differences, resolved):
    assert estimate_mean(differences).resolved is resolved


def test_a_seed_that_occurs_twice_is_refused():
    mixed = pd.Series([0.9, 0.8], index=[4, 4])
    with pytest.raises(ValueError, match="seed 4 occurs twice"):
        estimate_paired_difference(mixed, pd.Series({4: 0.7}))
