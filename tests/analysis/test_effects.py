"""Factorials and their effects, on numbers whose answers are worked out here."""

import math
from functools import partial
from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from ablations import config
from ablations.analysis.confounders import confounder_values
from ablations.analysis.effects import (
    Factorial,
    contributions_at_work,
    effect_values,
    effects_at_work,
    estimate_effects,
    find_factorials,
    lead_values,
    order_values,
    overlap_values,
    shapley_values,
    step_values,
)
from ablations.analysis.statistics import estimate_mean
from ablations.cells import arm_cell
from ablations.config import ARMS, PAPER_TOGGLES, TOGGLES, build_config
from ablations.errors import InputError
from ablations.measure import Cost, Memory
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


T_5 = 2.570581835636314
"""The 97.5 % quantile of Student's t with five degrees of freedom."""

OF_ACCURACY = {
    "effects": partial(effect_values, measurement="accuracy"),
    "steps": step_values,
    "orders": order_values,
    "shapley": partial(shapley_values, measurement="accuracy"),
}


def test_effects_of_accuracies_by_hand(tmp_path, write_factorial):
    write_factorial()
    values = effect_values(load_records(tmp_path), "accuracy")
    assert list(values["effect"]) == list(EFFECTS_BY_HAND)
    assert list(100 * values["top1_effect_mean"]) == pytest.approx(list(EFFECTS_BY_HAND.values()))
    assert set(values["n_seeds"]) == {6}
    names = values[["data", "variant", "base", "epochs", "toggles"]].drop_duplicates()
    assert names.to_numpy().tolist() == [["digits", "pico", "v2", 20, "ope, cffn, lsra"]]
    # In a seed seven arms are a point up and v1 a point down, against the mean of eight: a quarter of two points for
    # or against each effect, by v1's sign. So each has ±0.5, 0 and ±0.5, twice: a variance of 4 / 5 of a quarter.
    error = math.sqrt(4 / 5 / 4 / 6)
    for end, sign in (("low", -1), ("high", 1)):
        ends = [mean + sign * T_5 * error for mean in EFFECTS_BY_HAND.values()]
        assert list(100 * values[f"top1_effect_{end}"]) == pytest.approx(ends)
    p = {effect: p_of(mean / error) for effect, mean in EFFECTS_BY_HAND.items()}
    assert list(values["top1_effect_p"]) == pytest.approx(list(p.values()))
    # By Holm the smallest counts seven times; the two of one point 5 times, and the three of half a point 3 times.
    times = {"cffn": 7, "ope": 6, "lsra": 5, "cffn:lsra": 5}
    holm = [times.get(effect, 3) * each for effect, each in p.items()]
    assert list(values["top1_effect_p_holm"]) == pytest.approx(holm)
    assert set(values["effect"][values["top1_effect_resolved"]]) == set(times)
    # Half a point is beyond its own interval, and nothing after the correction.
    alone = values["top1_effect_p"] < 0.05
    assert set(values["effect"][alone & ~values["top1_effect_resolved"]]) == set(p) - set(times)


NOISE = (-4, -2, 0, 0, 2, 4)
"""Points in six seeds: their mean is 0, their squares add up to 40."""


def write_noisy(write_top1, points_of, noisy_arm):
    for arm in ARMS:
        for seed, noise in enumerate(NOISE):
            write_top1(arm, seed, 0.5 + (points_of(arm) + noise * (arm == noisy_arm)) / 100)


def test_how_far_main_effects_are_behind_larger_ones_by_hand(tmp_path, write_top1):
    # The noise of v1+ope adds a quarter of itself to ope's effect and takes as much from the two others'.
    write_noisy(write_top1, lambda arm: 3 * ("ope" in arm) - 8 * ("cffn" in arm) + 1 * ("lsra" in arm), "v1+ope")
    values = lead_values(load_records(tmp_path))
    assert list(zip(values["larger"], values["effect"], strict=True)) == [
        ("cffn", "ope"),
        ("cffn", "lsra"),
        ("ope", "lsra"),
    ]
    # In size cffn is 8 + noise / 4, ope 3 + noise / 4 and lsra 1 - noise / 4.
    assert list(100 * values["top1_behind_mean"]) == pytest.approx([5, 7, 2])
    first, *others = (row for _, row in values.iterrows())
    assert (100 * first["top1_behind_low"], 100 * first["top1_behind_high"]) == pytest.approx((5, 5))
    error = math.sqrt(40 / 5 / 4 / 6)  # of noise / 2, over six seeds
    for row, mean, times in zip(others, (7, 2), (3, 2), strict=True):
        ends = (100 * row["top1_behind_low"], 100 * row["top1_behind_high"])
        assert ends == pytest.approx((mean - T_5 * error, mean + T_5 * error))
        assert row["top1_behind_p"] == pytest.approx(p_of(mean / error))
        # The pair that is the same in all seeds has no p, and counts among the three.
        assert row["top1_behind_p_holm"] == pytest.approx(times * p_of(mean / error))


def test_an_effect_of_exactly_nothing_keeps_its_noise(tmp_path, write_top1):
    for arm in ARMS:  # in 128ths, which add up exactly
        for seed, noise in enumerate(NOISE):
            write_top1(arm, seed, 0.5 + (8 * ("cffn" in arm) + noise * (arm == "v1+lsra")) / 128)
    row = lead_values(load_records(tmp_path)).set_index(["larger", "effect"]).loc[("cffn", "lsra")]
    # cffn's size is 8 - noise / 4 and lsra's effect noise / 4: apart they are 8 - noise / 2.
    error = math.sqrt(40 / 5 / 4 / 6)
    assert 128 * row["top1_behind_high"] == pytest.approx(8 + T_5 * error)


def test_what_an_interaction_means_by_hand(tmp_path, write_top1):
    # ope adds 4 points without cffn and 1 with it; half of v1+ope's noise is in what it adds without.
    def points(arm):
        return 4 * ("ope" in arm) + 10 * ("cffn" in arm) - 3 * ("ope+cffn" in arm)

    write_noisy(write_top1, points, "v1+ope")
    (row,) = (row for _, row in overlap_values(load_records(tmp_path)).iterrows())
    assert (row["toggle"], row["other"]) == ("ope", "cffn")
    assert 100 * row["top1_without_mean"] == pytest.approx(4)
    assert 100 * row["top1_with_mean"] == pytest.approx(1)
    error = math.sqrt(40 / 5 / 4 / 6)
    assert (100 * row["top1_without_low"], 100 * row["top1_without_high"]) == pytest.approx(
        (4 - T_5 * error, 4 + T_5 * error)
    )
    assert (100 * row["top1_with_low"], 100 * row["top1_with_high"]) == pytest.approx((1, 1))


def test_without_a_resolved_interaction_nothing_overlaps(tmp_path, write_top1):
    write_noisy(write_top1, lambda arm: 3 * ("ope" in arm), "v1+ope")
    assert overlap_values(load_records(tmp_path)).empty


def test_steps_by_hand(tmp_path, write_factorial, means):
    write_factorial()
    values = step_values(load_records(tmp_path)).set_index("step")
    assert len(values) == 12
    for _, row in values.iterrows():
        assert row["top1_step_mean"] == pytest.approx(means[row["arm"]] - means[row["start"]])
    # From v1 the seeds gain 2 points less, as many and 2 more than the mean, twice: a variance of 16 / 5.
    error = math.sqrt(16 / 5 / 6)
    at_v1 = values.loc["+ope at v1"]
    assert (at_v1["toggle"], at_v1["start"], at_v1["arm"]) == ("ope", "v1", "v1+ope")
    ends = (at_v1["top1_step_low"], at_v1["top1_step_high"])
    assert ends == pytest.approx((0.05 - 0.01 * T_5 * error, 0.05 + 0.01 * T_5 * error))
    # Seven points are the first of twelve comparisons, five the second.
    for step, gain, times in (("+cffn at v1", 7, 12), ("+ope at v1", 5, 11)):
        assert values.loc[step, "top1_step_p_holm"] == pytest.approx(times * p_of(gain / error))
    # All other steps are the same in every seed, which says nothing of how far apart others would lie.
    assert set(values.index[values["top1_step_resolved"]]) == {"+ope at v1", "+cffn at v1"}
    assert values["top1_step_p"].isna().sum() == 12 - 3


def test_orders_add_up_to_the_whole_way(tmp_path, write_factorial):
    write_factorial()
    values = order_values(load_records(tmp_path)).set_index("order")
    assert list(values.index) == [", ".join(order) for order in permutations(PAPER_TOGGLES)]
    steps = 100 * values[["top1_ope", "top1_cffn", "top1_lsra"]]
    assert list(steps.sum(axis="columns")) == pytest.approx([13] * 6)
    # 71 - 68, 68 - 61 and 74 - 71; 74 - 69, 69 - 61 and 61 - 61.
    assert list(steps.loc["cffn, ope, lsra"]) == pytest.approx([3, 7, 3])
    assert list(steps.loc["lsra, cffn, ope"]) == pytest.approx([5, 8, 0], abs=1e-12)


def test_shapley_values_of_accuracies_by_hand(tmp_path, write_factorial):
    write_factorial()
    values = shapley_values(load_records(tmp_path), "accuracy").set_index("toggle")
    by_hand = pd.Series({"ope": 28 / 6, "cffn": 43 / 6, "lsra": 7 / 6})
    assert list(100 * values["top1_shapley_mean"]) == pytest.approx(list(by_hand))
    # Only the first step of an order touches v1, in two orders of six: a third of -2, 0 and 2 points, twice.
    error = math.sqrt(16 / 5 / 6) / 3
    half = 100 * (values["top1_shapley_high"] - values["top1_shapley_mean"])
    assert list(half) == pytest.approx([T_5 * error] * 3)
    p = by_hand.map(lambda mean: p_of(mean / error))
    holm = [2 * p["ope"], 3 * p["cffn"], p["lsra"]]
    assert list(values["top1_shapley_p_holm"]) == pytest.approx(holm)
    assert list(100 * values["top1_smallest"]) == pytest.approx([3, 5, 0], abs=1e-12)
    assert list(100 * values["top1_largest"]) == pytest.approx([5, 8, 3])


@pytest.mark.parametrize("what", OF_ACCURACY)
def test_a_seed_without_all_arms_is_left_out_and_counted(tmp_path, write_factorial, write_top1, what):
    write_factorial()
    before = OF_ACCURACY[what](load_records(tmp_path))
    for arm, top1 in (("v1", 0.1), ("v1+ope", 0.9)):
        write_top1(arm, 6, top1)
    after = OF_ACCURACY[what](load_records(tmp_path))
    assert set(after["n_seeds_left_out"]) == {1}
    pd.testing.assert_frame_equal(after.drop(columns="n_seeds_left_out"), before.drop(columns="n_seeds_left_out"))


def test_without_a_common_seed_there_are_rows_and_no_numbers(tmp_path, write_top1):
    for seed, arm in enumerate(ARMS):
        write_top1(arm, seed, 0.5)
    records = load_records(tmp_path)
    for what, column in (("effects", "effect_mean"), ("steps", "step_mean"), ("shapley", "shapley_mean")):
        values = OF_ACCURACY[what](records)
        assert set(values["n_seeds"]) == {0}
        assert set(values["n_seeds_left_out"]) == {8}
        assert values[f"top1_{column}"].isna().all()
    assert order_values(records)[["top1_ope", "top1_cffn", "top1_lsra"]].isna().all(axis=None)


def test_one_seed_has_estimates_and_claims_nothing(tmp_path, write_top1, means):
    for arm, top1 in means.items():
        write_top1(arm, 0, top1)
    records = load_records(tmp_path)
    effects, shapley = effect_values(records, "accuracy"), shapley_values(records, "accuracy")
    assert list(100 * effects["top1_effect_mean"]) == pytest.approx(list(EFFECTS_BY_HAND.values()))
    assert list(100 * shapley["top1_shapley_mean"]) == pytest.approx([28 / 6, 43 / 6, 7 / 6])
    for values, name in ((effects, "top1_effect"), (shapley, "top1_shapley")):
        assert values[[f"{name}_{each}" for each in ("low", "high", "p", "p_holm")]].isna().all(axis=None)
        assert [raw for (raw,) in values[f"{name}_raw"]] == list(values[f"{name}_mean"])
        assert not values[f"{name}_resolved"].any()


@pytest.mark.parametrize("what", OF_ACCURACY)
@pytest.mark.parametrize(
    ("arms", "base"), [(ARMS[:-1], "v2"), (ARMS, "published"), ((), "v2")], ids=["seven", "published", "none"]
)
def test_what_is_no_factorial_has_no_rows(tmp_path, write_factorial, what, arms, base):
    write_factorial(arms, base=base)
    assert OF_ACCURACY[what](load_records(tmp_path)).empty


def test_costs_are_exact_and_in_percent_of_v1(tmp_path, write_cell):
    for arm in ARMS:
        ope, cffn, lsra = (toggle in arm.split("+") for toggle in PAPER_TOGGLES)
        params = 1000 + 50 * ope + 20 * cffn - 100 * lsra
        result = {"params": params, "macs": params + 8 * (cffn and lsra), "breakdown": {}}
        write_cell(tmp_path, arm_cell("pico", arm, "v2", Cost(resolution=64)), result)
    records = load_records(tmp_path)
    effects = effect_values(records, "cost").set_index("effect")
    assert set(effects["resolution"]) == {"64"}
    assert list(effects["params_effect"]) == [50, 20, -100, 0, 0, 0, 0]
    assert list(effects["params_effect_percent"]) == [5, 2, -10, 0, 0, 0, 0]
    # Eight more where both are: half of that in each main effect, and half as their interaction.
    assert list(effects["macs_effect"]) == [50, 24, -96, 0, 0, 4, 0]
    shapley = shapley_values(records, "cost").set_index("toggle")
    assert list(shapley["macs_shapley_percent"]) == [5, 2.4, -9.6]
    assert list(shapley.loc["lsra", ["macs_smallest", "macs_largest"]]) == [-100, -92]
    assert [name for name in effects if name.endswith(("resolved", "low", "_p"))] == []
    # Tables leave out what is 0 everywhere, and the Shapley values that are effects.
    assert list(effects_at_work(records, "cost")["effect"]) == ["ope", "cffn", "lsra", "cffn:lsra"]
    assert len(contributions_at_work(records, "cost")) == 3


def test_toggles_change_different_modules(tmp_path, write_cell):
    for arm in ARMS:
        write_cell(tmp_path, arm_cell("b2", arm, "v2", Cost()))
    records = load_records(tmp_path)
    effects = effect_values(records, "cost").set_index("effect")
    main = list(PAPER_TOGGLES)
    assert list(effects.loc[main, "params_effect"]) == [1_071_296, 194_560, -2_809_344]
    assert (effects.drop(main)[["params_effect", "macs_effect"]] == 0).all(axis=None)
    assert list(effects_at_work(records, "cost")["effect"]) == main
    assert contributions_at_work(records, "cost").empty


def test_a_metric_that_was_not_counted_is_missing(tmp_path, write_cell):
    for arm in ARMS:
        for head, macs in (("retinanet", 10), ("mask_rcnn", None)):
            conditions = Cost(resolution=(800, 1280), head=head)
            write_cell(tmp_path, arm_cell("pico", arm, "v2", conditions), {"params": 5, "macs": macs})
    records = load_records(tmp_path)
    for values_of in (effect_values, shapley_values):
        values = values_of(records, "cost")
        macs = values.set_index("head")[[name for name in values if name.startswith("macs")]]
        assert macs.loc["mask_rcnn"].isna().all(axis=None)
        assert (macs.loc["retinanet"] == 0).all(axis=None)
    assert (effect_values(records, "cost")["params_effect"] == 0).all()


def test_memory_has_effects_in_every_mode_and_size(tmp_path, write_cell):
    peaks = {("inference", "64"): 100, ("inference", "128"): 400, ("training", "64"): 1000}
    for arm in ARMS:
        for (mode, side), peak in peaks.items():
            conditions = Memory(mode=mode, resolution=int(side))
            result = {"peak_memory_bytes": peak + 10 * ("ope" in arm), "memory_method": "tracked_storages"}
            write_cell(tmp_path, arm_cell("pico", arm, "v2", conditions), result)
    records = load_records(tmp_path)
    effects = effect_values(records, "memory")
    assert len(effects) == 7 * len(peaks)
    places = ["mode", "resolution"]
    ope = effects[effects["effect"] == "ope"].set_index(places)
    assert ope["peak_memory_bytes_effect"].to_dict() == dict.fromkeys(peaks, 10)
    percent = {place: 1000 / peak for place, peak in peaks.items()}
    assert ope["peak_memory_bytes_effect_percent"].to_dict() == percent
    shapley = shapley_values(records, "memory").query("toggle == 'ope'").set_index(places)
    assert shapley["peak_memory_bytes_shapley_percent"].to_dict() == pytest.approx(percent)


def test_memory_of_several_machines_makes_no_factorial(tmp_path, write_cell):
    for place, arm in enumerate(ARMS):
        write_cell(tmp_path, arm_cell("pico", arm, "v2", Memory(resolution=64)), threads=1 + place % 2)
    assert effect_values(load_records(tmp_path), "memory").empty


@pytest.mark.parametrize("measurement", ["speed", "accuracies"])
@pytest.mark.parametrize("values_of", [effect_values, shapley_values, confounder_values])
def test_a_measurement_without_effects_is_refused(tmp_path, values_of, measurement):
    allowed = f"measurement='{measurement}' is not possible; allowed: cost, memory, accuracy"
    with pytest.raises(InputError, match=allowed):
        values_of(load_records(tmp_path), measurement)


@pytest.mark.parametrize("measurement", ["cost", "memory", "accuracy"])
@pytest.mark.parametrize("values_of", [effect_values, shapley_values, confounder_values])
def test_no_records_make_no_effects(tmp_path, values_of, measurement):
    assert values_of(load_records(tmp_path), measurement).empty
