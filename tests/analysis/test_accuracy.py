"""Accuracy, test resolutions, trials and confounders, from records whose numbers are known."""

import numpy as np
import pandas as pd
import pytest

from ablations.analysis.accuracy import (
    accuracy_curve,
    accuracy_values,
    cumulative_accuracy_values,
    difference_by_epoch_values,
    resolution_transfer_values,
    split_studies,
    trial_values,
)
from ablations.analysis.confounders import GAIN, base_gain_values, single_confounder_values
from ablations.analysis.effects import effect_values, power_values
from ablations.config import ARMS, CUMULATIVE, PVT_V1, PVT_V2, PVT_V2_LI
from ablations.records import load_records
from ablations.records.bits import pack_bits
from ablations.report.effects import render_power


def noise(seed):
    return (-0.02, 0.0, 0.01, 0.01, -0.01, 0.01)[seed]


def test_arms_are_paired_and_other_models_are_not(tmp_path, write_top1):
    for seed in range(6):
        write_top1("v1", seed, 0.6 + noise(seed))
        write_top1("v1+ope", seed, 0.7 + noise(seed) + 0.001 * seed)
        write_top1("timm:resnet18", seed, 0.5 + noise(5 - seed))
    values = accuracy_values(load_records(tmp_path)).set_index(pd.Index(["v1", "v1+ope", "resnet"]))
    ope, model = values.loc["v1+ope"], values.loc["resnet"]
    assert (ope["top1_difference_paired"], model["top1_difference_paired"]) == (True, False)
    assert ope["top1_difference_mean"] == pytest.approx(0.1025)
    # By seed 0.100 to 0.105: a deviation of 0.00187, over sqrt(6), times t of 5 degrees of freedom, 2.571.
    assert ope["top1_difference_low"] == pytest.approx(0.1025 - 2.5706 * 0.0018708 / 6**0.5, abs=1e-6)
    assert ope["top1_difference_resolved"]
    assert ope["top1_difference_sign_flip_p"] == 2 / 64
    assert model["top1_difference_mean"] == pytest.approx(-0.1)


def test_few_seeds_claim_nothing_and_trials_are_no_accuracies(tmp_path, write_top1):
    for seed in range(5):
        write_top1("v1", seed, 0.6 + noise(seed))
        write_top1("v1+ope", seed, 0.9 + noise(seed) + 0.001 * seed)
    write_top1("v1", 100, 0.1, tuning_images=10)
    values = accuracy_values(load_records(tmp_path))
    assert list(values["n_seeds"]) == [5, 5]
    assert values["top1_difference_p_holm"].iloc[1] < 1e-6
    assert not values["top1_difference_resolved"].any()


def test_a_study_claims_nothing_before_its_declared_seeds_are_there(tmp_path, write_top1):
    for seed in range(6):
        write_top1("v1", seed, 0.6 + noise(seed))
        write_top1("v1+ope", seed, 0.9 + noise(seed) + 0.001 * seed)
    records = load_records(tmp_path)
    assert accuracy_values(records)["top1_difference_resolved"].iloc[1]
    declared = accuracy_values(records.assign(declared_seeds=10))
    assert not declared["top1_difference_resolved"].any()
    assert set(declared["declared_seeds"]) == {10}


def test_the_interval_over_images_is_of_the_bits(tmp_path, write_top1):
    right = np.arange(100) < 80
    write_top1("v1", 0, 0.8, result={"correct": pack_bits(right)})
    row = accuracy_values(load_records(tmp_path)).iloc[0]
    # Wilson's interval of 80 of 100.
    assert (row["top1_images_low"], row["top1_images_high"]) == pytest.approx((0.7112, 0.8666), abs=1e-4)
    assert row["top1_raw"] == (0.8,)


def test_a_step_stands_beside_the_papers_between_the_same_arms(tmp_path, write_top1):
    for arm in (PVT_V1, PVT_V2):
        write_top1(arm, 0, 0.6)
    values = cumulative_accuracy_values(load_records(tmp_path))
    assert list(values["arm"]) == [PVT_V1, PVT_V2]
    assert values["reported_top1_step_points"].iloc[1] == pytest.approx(2.2)


def test_leads_by_resolution(tmp_path, write_top1):
    for seed in range(6):
        write_top1(PVT_V1, seed, 0.6 + noise(seed), result={"top1_by_resolution": {"48": 0.5 + noise(seed)}})
        others = {"top1_by_resolution": {"48": 0.65 + noise(seed) + 0.001 * seed}}
        write_top1(PVT_V2, seed, 0.7 + noise(seed), result=others)
    values = resolution_transfer_values(load_records(tmp_path))
    assert list(values["resolution"]) == ["32", "48"] * 2
    row = values.iloc[3]
    # 0.15 ahead at 48 px and 0.1 at 32, and by seed 0 to 0.005 more.
    assert (row["top1_difference_mean"], row["top1_fall_mean"]) == pytest.approx((0.1525, 0.0525))
    assert row["top1_fall_resolved"]


def test_trials_say_what_the_shared_rate_costs(tmp_path, write_top1):
    for arm, tops in (("v1", (0.5, 0.6, 0.4)), ("v1+ope", (0.5, 0.7, 0.8))):
        for rate, top1 in zip((0.001, 0.002, 0.004), tops, strict=True):
            write_top1(arm, 100, top1, tuning_images=10, base_lr=rate)
    values = trial_values(load_records(tmp_path)).set_index("arm")
    assert list(values["best_rate"]) == [0.002, 0.004]
    assert set(values["shared_rate"]) == {0.002}  # 0.65 in the mean, against 0.5 and 0.6
    assert list(values["top1_lost"]) == pytest.approx([0, 0.1])
    assert accuracy_values(load_records(tmp_path)).empty
    assert values[["study_rate", "top1_lost_in_study"]].isna().all(axis=None), "nothing else was trained"
    write_top1("v1", 0, 0.6, base_lr=0.004)
    values = trial_values(load_records(tmp_path)).set_index("arm")
    assert set(values["study_rate"]) == {0.004}
    assert list(values["top1_lost_in_study"]) == pytest.approx([0.2, 0])
    write_top1("v1", 0, 0.6, base_lr=0.002)
    values = trial_values(load_records(tmp_path)).set_index("arm")
    assert set(values["study_rate"]) == {0.002}, "of several the shared one"
    write_top1("v1", 0, 0.6, base="v1", base_lr=0.001)
    assert set(trial_values(load_records(tmp_path))["study_rate"]) == {0.002}, "another base is another study"


def test_the_gain_in_each_base_and_their_difference(tmp_path, write_top1):
    for seed in range(6):
        for arm in (PVT_V1, PVT_V2_LI):
            for base, gain in (("v1", 0.05), ("v2", 0.2 + 0.001 * seed)):
                write_top1(arm, seed, 0.5 + noise(seed) + gain * (arm != PVT_V1), base=base)
    values = base_gain_values(load_records(tmp_path)).set_index("part")
    assert values["top1_part_mean"].to_dict() == pytest.approx(
        {
            "gain in base v1": 0.05,
            "gain in base v2": 0.2025,
            "gain in base v2 minus gain in base v1": 0.1525,
            "base, at v1": 0.0,
            "base and toggles together": 0.2025,
        }
    )
    assert values.loc["gain in base v2 minus gain in base v1", "top1_part_resolved"]


def test_single_confounders_stand_apart_from_the_plain_base(tmp_path, write_top1):
    changed = (("stage_norm", "last"),)
    for seed in range(6):
        for arm, gain in ((PVT_V1, 0.0), (PVT_V2_LI, 0.2)):
            write_top1(arm, seed, 0.5 + noise(seed) + gain)
            write_top1(arm, seed, 0.5 + noise(seed) + gain / 2 - 0.001 * seed, changed=changed)
            write_top1(arm, seed, 0.4 + noise(seed), changed=(("stem_stride", 4),))  # which is no confounder
    records = load_records(tmp_path)
    changes = [group.conditions["changed"] for group in split_studies(records)]
    assert changes[0] is None
    assert set(changes[1:]) == {"stage_norm=last", "stem_stride=4"}
    values = single_confounder_values(records)
    assert list(values["part"]) == ["accuracy", "accuracy", GAIN]
    assert list(values["top1_part_mean"]) == pytest.approx([-0.0025, -0.1025, -0.1])


def test_differences_by_epoch(tmp_path, write_top1):
    for seed in range(6):
        for arm, gain in (("v1", 0.0), ("v1+ope", 0.1)):
            history = [{"epoch": 1, "loss": 1.0, "top1": 0.3 + gain / 2 + noise(seed)}, {"epoch": 2, "loss": 0.5}]
            write_top1(arm, seed, 0.5 + gain + noise(seed), result={"history": history}, epochs=2)
    (study,) = split_studies(load_records(tmp_path))
    values = difference_by_epoch_values(study.rows)
    assert list(values["mean"]) == pytest.approx([0.05, 0.1])


def test_effects_and_power_from_records(tmp_path, write_top1):
    chance = np.random.default_rng(0)
    for arm in ARMS:
        for seed in range(6):
            write_top1(arm, seed, 0.5 + 0.04 * ("cffn" in arm) + noise(seed) + chance.normal(0, 0.002))
    records = load_records(tmp_path)
    effects = effect_values(records, "accuracy").set_index("effect")
    assert effects.loc["cffn", "top1_effect_mean"] == pytest.approx(0.04, abs=0.002)
    assert list(effects.index[effects["top1_effect_resolved"]]) == ["cffn"]
    power = power_values(records, 0.01)
    assert len(power) == 7 + 12
    assert power["seeds_needed"].min() >= 6


def test_more_seeds_than_a_study_can_have_are_no_number(tmp_path, write_top1):
    for arm, step in (("v1", 0.0), ("v1+ope", 0.1)):
        for seed in range(6):
            write_top1(arm, seed, 0.5 + (step * seed if seed % 2 else 0.0))
    power = power_values(load_records(tmp_path), 1e-4)
    assert (power["sd"] > 0.1).all()
    assert power["seeds_needed"].isna().all()
    text = render_power(power, 0.01, 0.8, width=120)
    assert text.count("> 10,000") == len(power) == 2


def test_the_cumulative_ablation_is_paired_step_by_step(tmp_path, write_factorial, write_top1):
    write_factorial(CUMULATIVE)
    write_top1("v1+ope", 7, 0.9)
    values = cumulative_accuracy_values(load_records(tmp_path)).set_index("arm")
    assert list(values.index) == list(CUMULATIVE)
    assert list(values["n_seeds"]) == [6, 7, 6, 6]
    assert list(values["top1_step_n"]) == [0, 6, 6, 6]
    assert list(values["top1_mean"]) == pytest.approx([0.61, (6 * 0.66 + 0.9) / 7, 0.71, 0.74])
    assert list(values["top1_step_mean"][1:]) == pytest.approx([0.05, 0.05, 0.03])
    assert list(values["reported_top1_step_points"][1:]) == pytest.approx([1.3, 0.9, 0.1])
    # From v1 the seeds gain 2 points less, as many and 2 more than the mean, twice: a variance of 16 / 5.
    half = 2.570581835636314 * 0.01 * (16 / 5 / 6) ** 0.5
    assert values.loc["v1+ope", "top1_step_high"] == pytest.approx(0.05 + half)
    # The other steps are the same in every seed, which says nothing of how far apart others would lie.
    assert list(values["top1_step_resolved"]) == [False, True, False, False]


def test_a_step_over_a_missing_arm_says_where_it_starts(tmp_path, write_factorial):
    write_factorial((PVT_V1, PVT_V2, PVT_V2_LI, "v1+cffn"))
    values = cumulative_accuracy_values(load_records(tmp_path)).set_index("arm")
    assert values["step_from"].dropna().to_dict() == {PVT_V2: PVT_V1, PVT_V2_LI: PVT_V2}
    assert list(values["top1_step_mean"][1:]) == pytest.approx([0.10, 0.03])


def test_one_arm_is_no_path(tmp_path, write_top1):
    write_top1("v1", 0, 0.5)
    assert cumulative_accuracy_values(load_records(tmp_path)).empty


def test_a_curve_has_the_epochs_that_were_evaluated_and_ends_with_the_record_s_own():
    history = [{"epoch": epoch, "loss": 1.0} for epoch in range(1, 6)]
    history[1]["top1"], history[3]["top1"] = 0.2, 0.4
    record = pd.Series({"history": history, "top1": 0.5})
    assert accuracy_curve(record).to_dict() == {2: 0.2, 4: 0.4, 5: 0.5}
