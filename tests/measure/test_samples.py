"""Statistics of samples with known answers."""

from itertools import product

import numpy as np
import pytest

from ablations.measure import Speed
from ablations.measure.samples import NEEDED_PAIRS, paired_ratio, summarise_times


def test_summary_of_five() -> None:
    assert summarise_times([5.0, 1.0, 2.0, 4.0, 3.0]) == {
        "median": 3.0,
        "lower_quartile": 2.0,
        "upper_quartile": 4.0,
        "iqr_over_median": pytest.approx(2 / 3),
        "noisy": True,
    }


@pytest.mark.parametrize(("spread", "noisy"), [(0.09, False), (0.11, True)])
def test_noisy_is_a_range_of_over_a_tenth_of_the_median(spread: float, noisy: bool) -> None:
    samples = [1 - spread, 1 - spread / 2, 1.0, 1 + spread / 2, 1 + spread]
    assert summarise_times(samples)["iqr_over_median"] == pytest.approx(spread)
    assert summarise_times(samples)["noisy"] is noisy


def test_one_sample_is_its_own_summary() -> None:
    summary = summarise_times([2.0])
    assert (summary["median"], summary["iqr_over_median"], summary["noisy"]) == (2.0, 0.0, False)


def test_ratio_is_over_one_where_the_samples_are_faster() -> None:
    assert paired_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == (2.0, 2.0, 2.0)


def test_ratio_is_of_pairs_not_of_medians() -> None:
    # The machine slows down tenfold halfway; each pair still says the same.
    reference, samples = [2.0, 2.0, 2.0, 20.0, 20.0, 20.0], [1.0, 1.0, 1.0, 10.0, 10.0, 10.0]
    assert paired_ratio(reference, samples) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("n", "low", "high"),
    # Ranks of the sign test's 95 % interval, as printed in tables of non-parametric statistics.
    [(5, 1, 5), (6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (15, 4, 12), (20, 6, 15), (30, 10, 21)],
)
def test_interval_lies_between_the_tabled_ranks(n: int, low: int, high: int) -> None:
    ratios = np.random.default_rng(0).permutation(np.arange(1, n + 1)).astype(float).tolist()
    assert paired_ratio(ratios, [1.0] * n) == ((n + 1) / 2, low, high)


def test_interval_holds_the_true_median_in_95_of_100_cases() -> None:
    random = np.random.default_rng(0)
    ratios = [paired_ratio(np.exp(random.standard_normal(15)), np.ones(15)) for _ in range(2000)]
    held = np.mean([low <= 1 <= high for _, low, high in ratios])
    assert 0.95 <= held <= 0.98  # 0.965 by the binomial distribution


@pytest.mark.parametrize("n", [NEEDED_PAIRS - 1, NEEDED_PAIRS])
def test_the_range_is_an_interval_of_95_percent_from_so_many_pairs_on(n: int) -> None:
    patterns = [sum(above) for above in product((False, True), repeat=n)]
    held = sum(0 < above < n for above in patterns) / len(patterns)
    assert (held >= 0.95) == (n == NEEDED_PAIRS)


def test_speed_is_not_timed_with_fewer() -> None:
    assert Speed.__dataclass_fields__["repeats"].metadata["least"] == NEEDED_PAIRS


def test_unpaired_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])
