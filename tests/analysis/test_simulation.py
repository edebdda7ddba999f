"""Proof of the statistics: thousands of made-up studies whose effects are known.

A study has what its effects make of the arms, and noise of some kind. Rates are those of one fixed stream of chance;
the margins are three standard errors of so many studies.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablations.analysis.effects import Factorial, estimate_effects
from ablations.analysis.statistics import LEVEL, estimate_mean, seeds_needed, t_interval
from ablations.config import ARMS, PAPER_TOGGLES
from ablations.records import load_records

RESULTS = Path(__file__).parents[2] / "results"

N_STUDIES = 2000
MARGIN = 3 * math.sqrt(0.05 * 0.95 / N_STUDIES)
FACTORIAL = Factorial(PAPER_TOGGLES)
SIGNS = FACTORIAL.signs.to_numpy()
N_ARMS, N_EFFECTS = SIGNS.shape
PLANTED = np.array([2.0, 0.4, -0.3, -0.5, 0.0, 0.1, 0.0])
FASHION_MNIST = dict(zip(ARMS, (0.339, 0.119, 0.278, 0.132, 0.236, 0.065, 0.484, 0.580), strict=True))
"""SDs in points: pico in base v2 on Fashion-MNIST, 3 epochs, three seeds an arm, of the records at c24f654."""

DEVIATIONS = ("equal", "threefold", "digits in base v1", "digits in base v2", "Fashion-MNIST")
"""Whose SDs the arms have; "threefold" goes evenly from 1 to 3."""

NOISES = (
    *DEVIATIONS,
    *(f"{deviations}, skewed" for deviations in DEVIATIONS),
    *("equal, correlated", "equal, interaction of 1 SD", "equal, interaction of 2 SD"),
)


@cache
def deviations_of(kind: str) -> np.ndarray:
    """Returns the SD of each arm over seeds, those of digits as pico's records have them."""
    if kind in ("equal", "threefold"):
        return np.linspace(1, 3 if kind == "threefold" else 1, N_ARMS)
    sds = pd.Series(FASHION_MNIST)
    if kind.startswith("digits"):
        records = load_records(RESULTS, "accuracy")
        trained = records[(records["data"] == "digits") & (records["tuning_images"] == 0)]
        own = trained[(trained["variant"] == "pico") & (trained["base"] == kind.removeprefix("digits in base "))]
        sds = own.groupby("arm")["top1"].std()
    return sds[list(FACTORIAL.arms)].to_numpy(dtype=float)


def make_noise(kind: str, n_seeds: int) -> np.ndarray:
    """Returns noise of mean 0 (studies, seeds, arms)."""
    chance = np.random.default_rng([NOISES.index(kind), n_seeds])
    shape = (N_STUDIES, n_seeds, N_ARMS)
    deviations, _, what = kind.partition(", ")
    own = chance.exponential(size=shape) - 1 if what == "skewed" else chance.normal(size=shape)  # one has skewness 2
    own *= deviations_of(deviations)
    shared = chance.normal(size=(N_STUDIES, n_seeds, 1))
    if what == "correlated":
        own += math.sqrt(2 / 3) * shared  # a correlation of 0.4
    if what.startswith("interaction"):
        own += float(what.split()[2]) * shared * SIGNS[:, 0] / 2
    return own


def effects_of(cells: np.ndarray) -> np.ndarray:
    """Returns the effects of each seed (studies, effects, seeds)."""
    return np.moveaxis(cells @ SIGNS / (N_ARMS / 2), 1, 2)


@pytest.mark.parametrize("n_seeds", [6, 10])
@pytest.mark.parametrize("kind", NOISES)
def test_intervals_cover_and_families_are_kept(kind, n_seeds):
    noise = make_noise(kind, n_seeds)
    planted = PLANTED * deviations_of(kind.partition(",")[0]).mean()
    mean, low, high, _ = t_interval(effects_of(noise + SIGNS @ planted / 2))
    covered = ((low <= planted) & (high >= planted)).mean(axis=0)
    assert (covered >= 0.93 - MARGIN).all()
    assert (covered <= 0.97 + MARGIN).all()
    assert 0.93 <= covered.mean() <= 0.97
    assert np.abs(mean.mean(axis=0) - planted).max() < 4 * mean.std(axis=0).max() / math.sqrt(N_STUDIES)
    # Holm makes a claim where the smallest p times the number of comparisons is below the level.
    p = t_interval(effects_of(noise))[3]
    assert (p.min(axis=1) * N_EFFECTS < LEVEL).mean() <= LEVEL + MARGIN
    # Beside true effects too: what is truly 0 is claimed no more often.
    is_null = PLANTED == 0
    beside = t_interval(effects_of(noise + SIGNS @ planted / 2))[3]
    assert (holm(beside)[:, is_null] < LEVEL).any(axis=1).mean() <= LEVEL + MARGIN


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's rule written out, for many families (families, comparisons): independent of the package's."""
    order = np.argsort(p, axis=1)
    steps = np.take_along_axis(p, order, axis=1) * np.arange(p.shape[1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(steps, axis=1), 1), axis=1)
    return adjusted


def test_effects_are_found_as_often_as_the_noncentral_t_says():
    n_seeds = 6
    p = t_interval(effects_of(make_noise("equal", n_seeds) + SIGNS @ PLANTED / 2))[3]
    # An effect is the mean of half of the arms minus that of the others, each with a deviation of 1.
    error = math.sqrt(2 / (N_ARMS / 2) / n_seeds)
    level = LEVEL / N_EFFECTS  # Holm's first step, and none is harder
    critical = stats.t.ppf(1 - level / 2, n_seeds - 1)
    power = stats.nct.sf(critical, n_seeds - 1, np.abs(PLANTED) / error)
    power += stats.nct.cdf(-critical, n_seeds - 1, np.abs(PLANTED) / error)
    assert np.abs((p < level).mean(axis=0) - power).max() < 3 * math.sqrt(0.25 / N_STUDIES)
    assert power[0] > 0.9
    assert (holm(p) < LEVEL).mean(axis=0)[0] >= (p < level).mean(axis=0)[0]


def test_what_all_arms_of_a_seed_share_widens_nothing():
    noise = make_noise("equal", 6)
    shared = 7 * np.random.default_rng(8).normal(size=(N_STUDIES, 6, 1))
    for own, beside in zip(t_interval(effects_of(noise)), t_interval(effects_of(noise + shared)), strict=True):
        assert np.abs(own - beside).max() < 1e-9


def test_the_package_gives_what_the_simulation_counts():
    cells = make_noise("threefold", 6)[:5] + SIGNS @ PLANTED / 2
    effects = effects_of(cells)
    mean, low, high, p = t_interval(effects)
    for study in range(5):
        own = estimate_effects(FACTORIAL, pd.DataFrame(cells[study], columns=list(FACTORIAL.arms)))
        for name, values in (("mean", mean), ("low", low), ("high", high), ("p", p), ("p_holm", holm(p))):
            assert list(own[name]) == pytest.approx(list(values[study]), rel=1e-9)


def test_the_pooled_model_is_too_sure_where_a_seed_interacts_with_a_toggle():
    # Why effects are taken seed by seed: a block for each seed and one variance, in closed form.
    cells = make_noise("equal, interaction of 2 SD", 6)
    within = cells - cells.mean(axis=2, keepdims=True)
    effects = within.mean(axis=1) @ SIGNS / (N_ARMS / 2)
    residuals = within - (effects @ SIGNS.T / 2)[:, None]
    freedom = N_EFFECTS * 5
    error = np.sqrt((residuals**2).sum(axis=(1, 2)) / freedom * 4 / (N_ARMS * 6))
    covered = np.abs(effects) <= stats.t.ppf(0.975, freedom) * error[:, None]
    assert covered[:, 0].mean() < 0.75


@pytest.mark.parametrize("deviations", DEVIATIONS)
@pytest.mark.parametrize(("n_seeds", "least"), [(6, 0.87), (10, 0.89)])
def test_single_skewed_arms_and_steps_are_covered_less_as_the_manual_says(deviations, n_seeds, least):
    noise = np.moveaxis(make_noise(f"{deviations}, skewed", n_seeds), 2, 0)
    places = [(FACTORIAL.arms.index(step.start), FACTORIAL.arms.index(step.end)) for step in FACTORIAL.steps]
    steps = np.array([noise[end] - noise[start] for start, end in places])
    covered = {}
    for name, values in (("arms", noise), ("steps", steps)):
        _, low, high, _ = t_interval(values)
        covered[name] = ((low <= 0) & (high >= 0)).mean(axis=1)
    margin = 3 * math.sqrt(0.1 * 0.9 / N_STUDIES)
    assert (covered["arms"] >= least - margin).all()
    assert (covered["arms"] <= 0.91 + margin).all()  # so that the manual does not say too little of them
    assert (covered["steps"] >= least - margin).all()
    assert (covered["steps"] <= 0.97 + margin).all()


@pytest.mark.parametrize("deviations", DEVIATIONS)
@pytest.mark.parametrize("n_seeds", [6, 10])
def test_single_arms_and_steps_are_covered_where_noise_is_normal(deviations, n_seeds):
    noise = np.moveaxis(make_noise(deviations, n_seeds), 2, 0)
    places = [(FACTORIAL.arms.index(step.start), FACTORIAL.arms.index(step.end)) for step in FACTORIAL.steps]
    _, low, high, _ = t_interval(np.array([*noise, *(noise[end] - noise[start] for start, end in places)]))
    covered = ((low <= 0) & (high >= 0)).mean(axis=1)
    assert (covered >= 0.93).all()
    assert (covered <= 0.97).all()


@pytest.mark.parametrize("toggles", [PAPER_TOGGLES[:1], PAPER_TOGGLES[:2], PAPER_TOGGLES])
def test_shapley_values_are_covered(toggles):
    factorial = Factorial(toggles)
    truth = dict(zip(toggles, (2.0, -1.0, 0.5), strict=False))
    chance = np.random.default_rng(3)
    arms = np.array([sum(truth[name] for name in arm.split("+")[1:]) for arm in factorial.arms])
    cells = arms + chance.normal(size=(N_STUDIES * 6, len(arms)))
    values = pd.DataFrame(cells, columns=list(factorial.arms))
    for toggle in toggles:
        own = factorial.shapley(values, toggle).to_numpy().reshape(N_STUDIES, 6)
        _, low, high, _ = t_interval(own)
        assert 0.93 <= ((low <= truth[toggle]) & (high >= truth[toggle])).mean() <= 0.97


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("comparisons", [1, 7])
def test_as_many_seeds_as_are_needed_find_the_difference(paired, comparisons):
    difference, sd, power = 1.0, 1.1, 0.8
    n = seeds_needed(difference, sd, paired=paired, comparisons=comparisons, power=power)
    assert n is not None

    def found(n_seeds: int) -> float:
        chance = np.random.default_rng(4)
        one = difference + sd * chance.normal(size=(20_000, n_seeds))
        if paired:
            p = t_interval(one)[3]
        else:
            p = stats.ttest_ind(one, sd * chance.normal(size=(20_000, n_seeds)), axis=1).pvalue
        return float((p < LEVEL / comparisons).mean())

    assert found(n) >= power - 0.01
    assert found(n - 1) < power + 0.01
    assert n > 6


def test_a_mean_has_the_interval_that_was_simulated():
    values = [3.0, 5.0, 4.0, 8.0, 1.0, 2.0]
    mean, low, high, p = t_interval(np.array(values))
    estimate = estimate_mean(values)
    assert (estimate.mean, estimate.low, estimate.high, estimate.p) == (mean, low, high, p)
