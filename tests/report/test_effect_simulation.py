"""Proof of the statistics: a thousand made-up studies whose effects are known.

A study has what its effects make of the eight arms, what each seed adds to all of them, and noise of its own in every
cell. All rates are those of one fixed stream of chance; the margins are three standard errors of a thousand draws.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablations.analysis.effects import CHANGES, EFFECTS, SIGNS, estimate_effects, shapley_contributions
from ablations.analysis.statistics import estimate_mean
from ablations.config import ARMS

N_STUDIES = 1000
NOISE = 0.003
"""Standard deviation of a cell beside what its seed adds: 0.3 points of accuracy."""
SEED_SPREAD = 0.02
ERROR_OF_5_PERCENT = math.sqrt(0.05 * 0.95 / N_STUDIES)

PLANTED = pd.Series([0.02, 0.004, -0.003, -0.005, 0.0, 0.001, 0.0], index=list(EFFECTS))
"""From far above the noise to nothing; the standard error of an effect is 0.0012."""


def simulate(n_seeds: int, effects: pd.Series) -> Callable[[], pd.DataFrame]:
    """Returns a function that makes up one study after the other."""
    chance = np.random.default_rng(2022)
    arms = 0.8 + SIGNS.to_numpy() @ effects.to_numpy() / 2

    def study() -> pd.DataFrame:
        blocks = chance.normal(0, SEED_SPREAD, size=(n_seeds, 1))
        cells = arms + blocks + chance.normal(0, NOISE, size=(n_seeds, len(ARMS)))
        return pd.DataFrame(cells, columns=list(ARMS))

    return study


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    """The estimates of a thousand studies of three seeds, seven rows each."""
    study = simulate(3, PLANTED)
    return pd.concat([estimate_effects(study()) for _ in range(N_STUDIES)], keys=range(N_STUDIES), names=["study"])


@pytest.fixture(scope="module")
def nothing() -> pd.DataFrame:
    """The same of studies in which no change does anything."""
    study = simulate(3, 0 * PLANTED)
    return pd.concat([estimate_effects(study()) for _ in range(N_STUDIES)], keys=range(N_STUDIES), names=["study"])


def covers(estimates: pd.DataFrame, truth: pd.Series) -> pd.Series:
    """The share of intervals that hold the truth, by effect."""
    true = estimates["effect"].map(truth)
    return ((estimates["low"] <= true) & (true <= estimates["high"])).groupby(estimates["effect"]).mean()


def test_intervals_cover_the_planted_effects(planted):
    rates = covers(planted, PLANTED)
    assert len(rates) == 7
    assert rates.between(0.93, 0.97).all()


def test_intervals_cover_0_where_there_is_no_effect(nothing):
    assert covers(nothing, 0 * PLANTED).between(0.93, 0.97).all()


def test_estimates_are_right_in_the_mean(planted):
    # An effect of 3 seeds has the standard error NOISE sqrt(2 / 12).
    error = NOISE * math.sqrt(2 / 12)
    off = planted.groupby("effect")["mean"].mean() - PLANTED
    assert off.abs().max() < 3.5 * error / math.sqrt(N_STUDIES)
    spread = planted.groupby("effect")["mean"].std()
    assert list(spread) == pytest.approx([error] * 7, rel=0.1)


def test_no_effect_is_claimed_at_more_than_its_rate(nothing):
    rates = nothing.groupby("effect")["resolved"].mean()
    assert rates.max() <= 0.05 + 3 * ERROR_OF_5_PERCENT
    assert rates.mean() == pytest.approx(0.05, abs=0.01)


def test_holm_keeps_the_rate_of_any_claim_and_single_intervals_do_not(nothing):
    any_claim = nothing.groupby("study")[["resolved", "resolved_holm"]].any().mean()
    assert any_claim["resolved_holm"] <= 0.05 + 3 * ERROR_OF_5_PERCENT
    # Seven independent chances of 5 % make 30 %.
    assert any_claim["resolved"] == pytest.approx(1 - 0.95**7, abs=0.05)


def closed_form_p(cells: np.ndarray) -> np.ndarray:
    """The p of the seven effects (studies, 7) of cells (studies, seeds, arms), as the balanced design allows."""
    signs, n_seeds = SIGNS.to_numpy(), cells.shape[1]
    within = cells - cells.mean(axis=2, keepdims=True)
    effects = within.mean(axis=1) @ signs / 4
    residuals = within - (effects @ signs.T / 2)[:, None]
    freedom = 7 * (n_seeds - 1)
    variance = (residuals**2).sum(axis=(1, 2)) / freedom
    return 2 * stats.t.sf(np.abs(effects) / np.sqrt(variance / (2 * n_seeds))[:, None], freedom)


def test_the_rates_are_those_of_a_hundred_thousand_studies():
    chance = np.random.default_rng(1)
    cells = chance.normal(0.8, NOISE, size=(100_000, 3, len(ARMS)))
    cells += chance.normal(0, SEED_SPREAD, size=(100_000, 3, 1))
    p = closed_form_p(cells)
    for own, closed in zip(cells[:20], p[:20], strict=True):
        assert list(estimate_effects(pd.DataFrame(own, columns=list(ARMS)))["p"]) == pytest.approx(list(closed))
    assert list((p < 0.05).mean(axis=0)) == pytest.approx([0.05] * 7, abs=0.003)
    # Holm makes a claim if the smallest p times 7 is below 0.05.
    assert 0.04 < (7 * p.min(axis=1) < 0.05).mean() < 0.05


def test_holm_keeps_that_rate_beside_true_effects(planted):
    is_nothing = planted["effect"].map(PLANTED) == 0
    false_claims = planted[is_nothing].groupby("study")["resolved_holm"].any()
    assert len(false_claims) == N_STUDIES
    assert false_claims.mean() <= 0.05 + 3 * ERROR_OF_5_PERCENT


def test_what_is_far_above_the_noise_is_found(planted):
    found = planted.groupby("effect")["resolved_holm"].mean()
    assert found["ope"] == 1
    # 0.005 is four standard errors; 0.001 is less than one.
    assert found["ope:cffn"] > 0.75
    assert found["cffn:lsra"] < 0.2


def test_what_seeds_share_widens_nothing(planted):
    # Blocks vary seven times as much as the noise; half a width is t with 14 degrees of freedom, 2.14, times an error.
    half = (planted["high"] - planted["low"]) / 2
    assert np.sqrt((half**2).mean()) == pytest.approx(2.1448 * NOISE * math.sqrt(2 / 12), rel=0.03)


def test_intervals_of_shapley_values_cover_them():
    study = simulate(3, PLANTED)
    studies = pd.concat([study() for _ in range(N_STUDIES)])
    for change in CHANGES:
        own = shapley_contributions(studies, change).to_numpy().reshape(N_STUDIES, 3)
        estimates = [estimate_mean(values) for values in own.tolist()]
        truth = PLANTED[change] + PLANTED["ope:cffn:lsra"] / 3
        covered = sum(estimate.low <= truth <= estimate.high for estimate in estimates)
        assert 0.93 <= covered / N_STUDIES <= 0.97
