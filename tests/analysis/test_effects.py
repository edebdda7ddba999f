"""The statistics of a 2³ design, on numbers whose answers are worked out here."""

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from ablations.analysis.effects import (
    CHANGES,
    EFFECTS,
    ORDERS,
    SIGNS,
    STEPS,
    adjust_by_holm,
    arm_with,
    complete_seeds,
    effect_contrasts,
    estimate_effects,
    shapley_contributions,
    step_differences,
    steps_of,
)
from ablations.config import ARMS

SEEDS_BY_HAND = pd.DataFrame(
    [
        # v1, ope, cffn, lsra, ope+cffn, ope+lsra, cffn+lsra, all three
        [60, 64, 67, 61, 70, 66, 69, 71],
        [62, 68, 69, 61, 72, 66, 69, 77],
    ],
    columns=list(ARMS),
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
# The second seed has 2, 4, 2, 0, 2, 0, 0, 6 more than the first, 2 in the mean. What is left of that after the blocks
# is 0, 2, 0, -2, 0, -2, -2, 4, half of it above in one seed and half below in the other: the squares of the residuals
# add up to 2 (1 + 1 + 1 + 1 + 4) = 16, on 16 - 2 - 7 = 7 degrees of freedom. An effect is the mean of 8 values minus
# that of 8 others, so its standard error is sqrt(16 / 7 * (1 / 8 + 1 / 8)) = 2 / sqrt(7).
STANDARD_ERROR = 2 / math.sqrt(7)
T_7 = 2.364624251592785  # the 97.5 % quantile of Student's t with 7 degrees of freedom


def p_of(t: float) -> float:
    """The two-sided p of Student's t with 7 degrees of freedom, in closed form (Abramowitz and Stegun, 26.7.3)."""
    theta = math.atan(abs(t) / math.sqrt(7))
    cosine = math.cos(theta)
    within = theta + math.sin(theta) * (cosine + 2 / 3 * cosine**3 + 8 / 15 * cosine**5)
    return 1 - 2 / math.pi * within


def test_a_design_by_hand():
    assert p_of(T_7) == pytest.approx(0.05, abs=1e-14)
    effects = estimate_effects(SEEDS_BY_HAND).set_index("effect")
    assert list(effects.index) == list(EFFECTS_BY_HAND)
    assert list(effects["order"]) == [1, 1, 1, 2, 2, 2, 3]
    assert set(effects["n_seeds"]) == {2}
    assert set(effects["n_seeds_left_out"]) == {0}
    for effect, by_hand in EFFECTS_BY_HAND.items():
        row = effects.loc[effect]
        assert row["mean"] == pytest.approx(by_hand, rel=1e-13)
        assert row["low"] == pytest.approx(by_hand - T_7 * STANDARD_ERROR, rel=1e-12)
        assert row["high"] == pytest.approx(by_hand + T_7 * STANDARD_ERROR, rel=1e-12)
        assert row["p"] == pytest.approx(p_of(by_hand / STANDARD_ERROR), abs=1e-13)
    # The half width is 1.787. Holm: the smallest p times 7, the next times 6; the third, 0.227, times 5 is over 1.
    assert list(effects.index[effects["resolved"]]) == ["ope", "cffn"]
    assert list(effects.index[effects["resolved_holm"]]) == ["ope", "cffn"]
    assert effects.loc["cffn", "p_holm"] == pytest.approx(7 * p_of(7 / STANDARD_ERROR), abs=1e-12)
    assert effects.loc["ope", "p_holm"] == pytest.approx(6 * p_of(4.5 / STANDARD_ERROR), abs=1e-12)
    assert list(effects["p_holm"][2:]) == [1.0] * 5


def test_every_seed_may_lie_elsewhere():
    moved = SEEDS_BY_HAND.add([1000, -30], axis="index")
    columns = ["mean", "low", "high", "p"]
    pd.testing.assert_base_equal(estimate_effects(moved)[columns], estimate_effects(SEEDS_BY_HAND)[columns], rtol=1e-9)


def test_an_effect_can_be_resolved_by_itself_and_not_among_seven():
    # OPE is taken from 4.5 to 1.9, where t is 1.9 sqrt(7) / 2 = 2.51 and p 0.04.
    values = SEEDS_BY_HAND.astype(float)
    values.loc[:, ["ope" in arm for arm in ARMS]] -= 2.6
    effects = estimate_effects(values).set_index("effect")
    assert effects.loc["ope", "mean"] == pytest.approx(1.9)
    assert (effects.loc["ope", "resolved"], effects.loc["ope", "resolved_holm"]) == (True, False)
    # That is the second smallest p of seven.
    assert effects.loc["ope", "p_holm"] == pytest.approx(6 * p_of(1.9 / STANDARD_ERROR))


def test_one_seed_has_exact_contrasts_and_no_interval():
    effects = estimate_effects(SEEDS_BY_HAND.iloc[:1]).set_index("effect")
    assert set(effects["n_seeds"]) == {1}
    # With OPE there are 64, 70, 66 and 71, without 60, 67, 61 and 69: 271 / 4 minus 257 / 4.
    assert effects.loc["ope", "mean"] == 3.5
    assert effects[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert not effects[["resolved", "resolved_holm"]].any(axis=None)


@pytest.mark.parametrize("shift", [0.0, 0.123456789])
def test_without_noise_nothing_is_resolved(shift):
    first = SEEDS_BY_HAND.iloc[0] / 100
    effects = estimate_effects(pd.DataFrame([first, first + shift, first - shift], index=[0, 1, 2]))
    assert list(effects["mean"]) == pytest.approx(list(effect_contrasts(first.to_frame().T).iloc[0]))
    assert effects["low"].equals(effects["mean"])
    assert effects["high"].equals(effects["mean"])
    assert effects[["p", "p_holm"]].isna().all(axis=None)
    assert not effects[["resolved", "resolved_holm"]].any(axis=None)


def test_equal_values_resolve_nothing():
    effects = estimate_effects(pd.DataFrame(0.1, index=[0, 1, 2], columns=list(ARMS)))
    assert list(effects["mean"]) == pytest.approx([0] * 7, abs=1e-15)
    assert not effects[["resolved", "resolved_holm"]].any(axis=None)


def test_seeds_that_lack_an_arm_are_left_out():
    values = pd.concat([SEEDS_BY_HAND, SEEDS_BY_HAND + 50], ignore_index=True).astype(float)
    values.loc[2, "v1+lsra"] = math.nan
    values.loc[3, ["v1", "v1+ope"]] = math.nan
    effects = estimate_effects(values)
    assert (set(effects["n_seeds"]), set(effects["n_seeds_left_out"])) == ({2}, {2})
    columns = ["mean", "low", "high", "p_holm", "resolved"]
    pd.testing.assert_base_equal(effects[columns], estimate_effects(SEEDS_BY_HAND)[columns])


def test_without_a_complete_seed_there_are_no_effects():
    effects = estimate_effects(SEEDS_BY_HAND.drop(columns="v1+lsra"))
    assert (set(effects["n_seeds"]), set(effects["n_seeds_left_out"])) == ({0}, {2})
    assert effects[["mean", "low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert not effects[["resolved", "resolved_holm"]].any(axis=None)


def test_a_seed_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match="seed 4 occurs twice"):
        complete_seeds(SEEDS_BY_HAND.set_axis([4, 4]))


def test_the_order_of_arms_and_seeds_makes_no_difference():
    shuffled = SEEDS_BY_HAND.iloc[::-1, ::-1]
    pd.testing.assert_base_equal(estimate_effects(shuffled), estimate_effects(SEEDS_BY_HAND), rtol=1e-9)


def test_the_design_is_orthogonal_and_balanced():
    assert SIGNS.shape == (8, 7)
    assert (SIGNS.sum() == 0).all()
    assert (SIGNS.T @ SIGNS).equals(pd.DataFrame(8 * np.eye(7, dtype=int), index=SIGNS.columns, columns=SIGNS.columns))


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_that_is_put_in_comes_out_alone(effect):
    values = 70 + 3 / 2 * SIGNS[[effect]].T
    contrasts = effect_contrasts(values).iloc[0]
    assert contrasts[effect] == 3
    assert (contrasts.drop(effect) == 0).all()


def test_effects_of_whole_numbers_are_exact():
    huge = pd.DataFrame([[10**13 + 7 * count for count in range(8)]], columns=list(ARMS))
    # ARMS 1, 4, 5 and 7 have OPE, 0, 2, 3 and 6 have not: 7 (17 - 11) / 4.
    assert effect_contrasts(huge)["ope"].item() == 10.5


def test_a_change_does_its_effect_and_its_interactions():
    contrasts = effect_contrasts(SEEDS_BY_HAND)
    for step in STEPS:
        if step.change == "ope":
            cffn, lsra = (1 if change in step.start else -1 for change in ("cffn", "lsra"))
            expected = contrasts["ope"] + cffn * contrasts["ope:cffn"] + lsra * contrasts["ope:lsra"]
            expected += cffn * lsra * contrasts["ope:cffn:lsra"]
            assert list(step_differences(SEEDS_BY_HAND, step)) == list(expected)


def test_steps_are_the_edges_of_the_cube():
    assert len(STEPS) == len({(step.start, step.end) for step in STEPS}) == 12
    assert {arm for step in STEPS for arm in (step.start, step.end)} == set(ARMS)
    for step in STEPS:
        assert set(step.end.split("+")) - set(step.start.split("+")) == {step.change}
    assert [step.name for step in STEPS][:2] == ["+ope at v1", "+ope at v1+cffn"]


def test_orders_lead_from_v1_to_all_changes():
    assert len(set(ORDERS)) == 6
    assert [(step.start, step.end) for step in steps_of(("lsra", "ope", "cffn"))] == [
        ("v1", "v1+lsra"),
        ("v1+lsra", "v1+ope+lsra"),
        ("v1+ope+lsra", "v1+ope+cffn+lsra"),
    ]
    for order in ORDERS:
        assert set(steps_of(order)) <= set(STEPS)
        assert sum(step_differences(SEEDS_BY_HAND, step) for step in steps_of(order)).tolist() == [11, 15]


def test_an_arm_is_named_in_the_papers_order():
    assert arm_with(()) == "v1"
    assert arm_with(("lsra", "ope")) == "v1+ope+lsra"


def test_shapley_values_by_hand():
    # OPE in the means: first in two orders, 66 - 61 = 5; after CFFN, 71 - 68 = 3; after LSRA, 66 - 61 = 5; last in two
    # orders, 74 - 69 = 5. So (2 * 5 + 3 + 5 + 2 * 5) / 6 = 28 / 6, which is 4.5 + 0.5 / 3.
    means = SEEDS_BY_HAND.mean().to_frame().T
    assert shapley_contributions(means, "ope").item() == pytest.approx(28 / 6)
    # So are CFFN's (2 * 7 + 5 + 8 + 2 * 8) / 6 and LSRA's (2 * 0 + 0 + 1 + 2 * 3) / 6.
    assert shapley_contributions(means, "cffn").item() == pytest.approx(43 / 6)
    assert shapley_contributions(means, "lsra").item() == pytest.approx(7 / 6)


def test_shapley_values_add_up_in_every_seed():
    values = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 8)), columns=list(ARMS))
    whole = values["v1+ope+cffn+lsra"] - values["v1"]
    total = sum(shapley_contributions(values, change) for change in CHANGES)
    assert list(total) == pytest.approx(list(whole))
    contrasts = effect_contrasts(values)
    for change in CHANGES:
        expected = contrasts[change] + contrasts["ope:cffn:lsra"] / 3
        assert list(shapley_contributions(values, change)) == pytest.approx(list(expected))


def test_holm_by_hand():
    adjusted = adjust_by_holm(np.array([0.03, 0.001, 0.04, 0.02]))
    # In order 0.001, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.004, 0.06, 0.06, and 0.04, which may not fall below 0.06.
    assert list(adjusted) == pytest.approx([0.06, 0.004, 0.06, 0.06])


def test_holm_is_statsmodels():
    chance = np.random.default_rng(1)
    for power in (1, 3, 3):
        p = np.append(chance.random(5) ** power, [0.01, 0.01])
        assert list(adjust_by_holm(p)) == pytest.approx(list(multipletests(p, method="holm")[1]), rel=1e-14)
