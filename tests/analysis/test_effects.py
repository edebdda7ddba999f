"""Factorials and their effects, on numbers whose answers are worked out here."""

import math

import numpy as np
import pandas as pd
import pytest

from ablations import config
from ablations.analysis.effects import Factorial, effect_values, estimate_effects, find_factorials
from ablations.analysis.statistics import estimate_mean
from ablations.cells import arm_cell
from ablations.config import ARMS, PAPER_TOGGLES, TOGGLES, Toggle, build_config
from ablations.measure import Cost
from ablations.records import load_records

PAPER = Factorial(PAPER_TOGGLES)

SEEDS_BY_HAND = pd.DataFrame(
    [
        # v1, ope, cffn, lsra, ope+cffn, ope+lsra, cffn+lsra, all three
        [60, 64, 67, 61, 70, 66, 69, 71],
        [62, 68, 69, 61, 72, 66, 69, 77],
    ],
    columns=list(PAPER.arms),
)
# The means of the arms are              61, 66, 68, 61, 71, 66, 69, 74.
EFFECTS_BY_HAND = {
    "ope": 4.5,  # (66 + 71 + 66 + 74) / 4 - (61 + 68 + 61 + 69) / 4 = 69.25 - 64.75
    "cffn": 7.0,  # (68 + 71 + 69 + 74) / 4 - (61 + 66 + 61 + 66) / 4 = 70.5 - 63.5
    "lsra": 1.0,  # (61 + 66 + 69 + 74) / 4 - (61 + 66 + 68 + 71) / 4 = 67.5 - 66.5
    "ope:cffn": -0.5,  # OPE adds (71 - 68 + 74 - 69) / 2 = 4 with CFFN, (66 - 61 + 66 - 61) / 2 = 5 without: -1 / 2
    "ope:lsra": 0.5,  # OPE adds (66 - 61 + 74 - 69) / 2 = 5 with LSRA, (66 - 61 + 71 - 68) / 2 = 4 without: 1 / 2
    "cffn:lsra": 1.0,  # CFFN adds (69 - 61 + 74 - 66) / 2 = 8 with LSRA, (68 - 61 + 71 - 66) / 2 = 6 without: 2 / 2
    # OPE and CFFN's interaction is (5 - 5) / 2 = 0 with LSRA and (3 - 5) / 2 = -1 without it: half of 1.
    "ope:cffn:lsra": 0.5,
}


def p_of(t: float) -> float:
    """The two-sided p of Student's t with five degrees of freedom, in closed form (Abramowitz and Stegun, 26.7.3)."""
    theta = math.atan(abs(t) / math.sqrt(5))
    cosine = math.cos(theta)
    return 1 - 2 / math.pi * (theta + math.sin(theta) * (cosine + 2 / 3 * cosine**3))


@pytest.fixture
def fourth_toggle(monkeypatch: pytest.MonkeyPatch) -> str:
    """A toggle `new` at the end of the registry."""
    monkeypatch.setitem(TOGGLES, "new", Toggle(title="New", slot="norm", builder="nowhere:build"))
    assert "v1+new" in config.arms_of(TOGGLES)
    return "new"


def made_up(factorial: Factorial, effects: dict[str, float], n_seeds: int = 6, noise: float = 0.0) -> pd.DataFrame:
    """A study in which each arm is what the effects make of it."""
    chance = np.random.default_rng(0)
    truth = pd.Series(effects).reindex(list(factorial.effects)).fillna(0)
    arms = 70 + factorial.signs @ truth / 2
    cells = arms.to_numpy() + chance.normal(0, 5, size=(n_seeds, 1)) + noise * chance.normal(size=(n_seeds, len(arms)))
    return pd.DataFrame(cells, columns=list(factorial.arms))


def test_contrasts_by_hand():
    means = PAPER.contrasts(SEEDS_BY_HAND).mean()
    assert means.to_dict() == EFFECTS_BY_HAND


def test_effects_are_estimated_seed_by_seed():
    # OPE by seed: 1, 2, 3, 4, 5, 6 points; nothing else does anything. Mean 3.5, deviation sqrt(3.5), n = 6.
    by_seed = pd.concat([made_up(PAPER, {"ope": gain}, n_seeds=1) for gain in range(1, 7)], ignore_index=True)
    effects = estimate_effects(PAPER, by_seed).set_index("effect")
    ope = effects.loc["ope"]
    error = math.sqrt(3.5 / 6)
    assert ope["mean"] == pytest.approx(3.5)
    assert (ope["low"], ope["high"]) == pytest.approx((3.5 - 2.5705818366 * error, 3.5 + 2.5705818366 * error))
    assert ope["p"] == pytest.approx(p_of(3.5 / error))
    assert ope["p_holm"] == pytest.approx(7 * ope["p"])
    assert ope["sign_flip_p"] == 2 / 64
    assert bool(ope["resolved"]) == (7 * ope["p"] < 0.05)
    assert list(effects["order"]) == [1, 1, 1, 2, 2, 2, 3]
    others = effects.drop("ope")
    assert others["mean"].abs().max() < 1e-12
    assert not others["resolved"].any()


def test_the_pooled_model_stands_beside_it():
    # The two seeds by hand: 7 degrees of freedom, a standard error of 2 / sqrt(7) (see the residuals there).
    # Seed 2 has 2, 4, 2, 0, 2, 0, 0, 6 more than seed 1; squares of what is left after the blocks add up to 16.
    effects = estimate_effects(PAPER, SEEDS_BY_HAND).set_index("effect")
    half = 2.364624251592785 * 2 / math.sqrt(7)
    for effect, by_hand in EFFECTS_BY_HAND.items():
        assert effects.loc[effect, "pooled_low"] == pytest.approx(by_hand - half)
        assert effects.loc[effect, "pooled_high"] == pytest.approx(by_hand + half)
    # Two seeds have no interval of their own: the values stand there.
    assert effects["low"].isna().all()
    assert effects.loc["ope", "raw"] == tuple(PAPER.contrasts(SEEDS_BY_HAND)["ope"])
    assert not effects["resolved"].any()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_studies_of_any_number_of_toggles(k, fourth_toggle):
    factorial = Factorial((*PAPER_TOGGLES, fourth_toggle)[4 - k :])
    assert len(factorial.arms) == 2**k
    assert len(factorial.effects) == 2**k - 1
    assert len(factorial.steps) == k * 2 ** (k - 1)
    assert len(factorial.orders) == math.factorial(k)
    assert (factorial.signs.T @ factorial.signs).to_numpy().tolist() == (2**k * np.eye(2**k - 1, dtype=int)).tolist()
    planted = {effect: 1.0 + place for place, effect in enumerate(factorial.effects)}
    effects = estimate_effects(factorial, made_up(factorial, planted, noise=0.001)).set_index("effect")
    assert effects["mean"].to_dict() == pytest.approx(planted, abs=0.005)
    assert effects["resolved"].all()
    smallest = effects["p"].min()
    assert effects["p_holm"].min() == pytest.approx((2**k - 1) * smallest)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_steps_orders_and_shapley_values_add_up(k, fourth_toggle):
    factorial = Factorial((*PAPER_TOGGLES, fourth_toggle)[4 - k :])
    values = pd.DataFrame(np.random.default_rng(k).normal(size=(5, 2**k)), columns=list(factorial.arms))
    whole = list(values[factorial.arms[-1]] - values["v1"])
    for order in factorial.orders:
        steps = factorial.steps_of(order)
        assert set(steps) <= set(factorial.steps)
        assert list(sum(values[step.end] - values[step.start] for step in steps)) == pytest.approx(whole)
    total = sum(factorial.shapley(values, toggle) for toggle in factorial.toggles)
    assert list(total) == pytest.approx(whole)
    # The mean over all orders, counted out.
    for toggle in factorial.toggles:
        added = [
            values[step.end] - values[step.start]
            for order in factorial.orders
            for step in factorial.steps_of(order)
            if step.toggle == toggle
        ]
        assert list(factorial.shapley(values, toggle)) == pytest.approx(list(sum(added) / len(added)))


def test_shapley_values_by_hand():
    # OPE in the means: first in two orders, 66 - 61 = 5; after CFFN, 71 - 68 = 3; after LSRA, 66 - 61 = 5; last in two
    # orders, 74 - 69 = 5. So (2 * 5 + 3 + 5 + 2 * 5) / 6 = 28 / 6, which is 4.5 + 0.5 / 3.
    means = SEEDS_BY_HAND.mean().to_frame().T
    assert PAPER.shapley(means, "ope").item() == pytest.approx(28 / 6)
    # So are CFFN's (2 * 7 + 5 + 8 + 2 * 8) / 6 and LSRA's (2 * 0 + 0 + 1 + 2 * 3) / 6.
    assert PAPER.shapley(means, "cffn").item() == pytest.approx(43 / 6)
    assert PAPER.shapley(means, "lsra").item() == pytest.approx(7 / 6)


def test_factorials_follow_from_the_arms(fourth_toggle):
    assert find_factorials(ARMS) == [PAPER]
    assert PAPER.arms == ARMS
    assert find_factorials([]) == []
    assert find_factorials(["v1"]) == []
    assert find_factorials(["v1", "v1+lsra"]) == [Factorial(("lsra",))]
    # What all arms have in common is no factor.
    assert find_factorials(["v1+ope", "v1+ope+cffn"]) == [Factorial(("cffn",), ("ope",))]
    assert find_factorials(["v1+ope", "v1+ope+cffn"])[0].arms == ("v1+ope", "v1+ope+cffn")
    # An unfinished study has none.
    assert find_factorials(["v1", "v1+ope", "v1+ope+cffn"]) == []
    assert find_factorials(ARMS[:-1]) == []


def test_a_fourth_toggles_arms_leave_the_papers_as_they_are(fourth_toggle):
    assert find_factorials([*ARMS, "v1+new"]) == [PAPER, Factorial(("new",))]
    assert find_factorials([*ARMS, "v1+ope+new"]) == [PAPER]
    assert find_factorials(config.arms_of(TOGGLES)) == [PAPER, Factorial((*PAPER_TOGGLES, "new"))]
    assert Factorial(PAPER_TOGGLES).arms == ARMS


def test_a_toggle_that_is_not_known_any_more_is_left_out():
    assert find_factorials([*ARMS, "v1+gone"]) == [PAPER]


def test_seeds_that_lack_an_arm_are_left_out():
    values = pd.concat([SEEDS_BY_HAND, SEEDS_BY_HAND + 50], ignore_index=True).astype(float)
    values.loc[2, "v1+lsra"] = math.nan
    values.loc[3, ["v1", "v1+ope"]] = math.nan
    effects = estimate_effects(PAPER, values)
    assert (set(effects["n_seeds"]), set(effects["n_seeds_left_out"])) == ({2}, {2})
    pd.testing.assert_series_equal(effects["mean"], estimate_effects(PAPER, SEEDS_BY_HAND)["mean"])


def test_without_noise_nothing_is_resolved():
    effects = estimate_effects(PAPER, made_up(PAPER, EFFECTS_BY_HAND))
    assert list(effects["mean"]) == pytest.approx(list(EFFECTS_BY_HAND.values()))
    assert effects[["p", "p_holm", "pooled_p"]].isna().all(axis=None)
    assert not effects["resolved"].any()


def test_without_a_complete_seed_there_are_no_effects():
    effects = estimate_effects(PAPER, SEEDS_BY_HAND.drop(columns="v1+lsra"))
    assert (set(effects["n_seeds"]), set(effects["n_seeds_left_out"])) == ({0}, {2})
    assert effects[["mean", "low", "high", "p", "p_holm"]].isna().all(axis=None)


def test_a_seed_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match="seed 4 occurs twice"):
        PAPER.complete(SEEDS_BY_HAND.set_axis([4, 4]))


def test_the_order_of_arms_and_seeds_makes_no_difference():
    values = made_up(PAPER, EFFECTS_BY_HAND, noise=1.0)
    shuffled = estimate_effects(PAPER, values.iloc[::-1, ::-1])
    pd.testing.assert_frame_equal(shuffled, estimate_effects(PAPER, values), rtol=1e-9)


def test_a_toggle_does_its_effect_and_its_interactions():
    contrasts = PAPER.contrasts(SEEDS_BY_HAND)
    for step in PAPER.steps:
        if step.toggle == "ope":
            cffn, lsra = (1 if toggle in step.start else -1 for toggle in ("cffn", "lsra"))
            expected = contrasts["ope"] + cffn * contrasts["ope:cffn"] + lsra * contrasts["ope:lsra"]
            expected += cffn * lsra * contrasts["ope:cffn:lsra"]
            assert list(SEEDS_BY_HAND[step.end] - SEEDS_BY_HAND[step.start]) == list(expected)


def test_an_effect_of_a_mean_is_the_mean_of_effects():
    values = made_up(PAPER, EFFECTS_BY_HAND, noise=1.0)
    effects = estimate_effects(PAPER, values).set_index("effect")
    for effect in PAPER.effects:
        assert effects.loc[effect, "mean"] == pytest.approx(estimate_mean(PAPER.contrasts(values)[effect]).mean)


def test_changed_confounders_are_a_factorial_of_their_own(tmp_path, write_cell):
    for changes in ({}, {"stage_norm": "last"}, {"stem_stride": 4}):
        for arm in ("v1", "v1+ope"):
            write_cell(tmp_path, arm_cell("pico", arm, "v2", Cost(resolution=64), **changes))
    values = effect_values(load_records(tmp_path), "cost").set_index("changed")
    assert sorted(values.index.fillna("")) == ["", "stage_norm=last", "stem_stride=4"]
    for change, stride in (("stage_norm=last", 2), ("stem_stride=4", 4)):
        # OPE's kernel is 2S - 1 a side instead of S: of three channels in the stem, and where S = 2 of all before.
        dims = (3, *build_config("pico").embed_dims)
        kernels = [(2 * each - 1) ** 2 - each**2 for each in (stride, 2, 2, 2)]
        added = sum(kernel * before * after for kernel, before, after in zip(kernels, dims, dims[1:], strict=False))
        assert values.loc[change, "params_effect"] == added
