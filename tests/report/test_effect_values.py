"""Effects, steps, orders, Shapley values, the cumulative and the bases, from records whose numbers are known."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from ablations.analysis.effects import EFFECTS, ORDERS
from ablations.config import ARMS, TOGGLES, arm_toggles, build_config
from ablations.cost import count_macs, count_params
from ablations.design import Accuracy, Cell, Cost, Memory, ModelCell
from ablations.errors import InputError
from ablations.records import load_records
from ablations.report.cumulative_accuracy import cumulative_values
from ablations.report.effect_values import (
    PUBLISHED_STEP,
    confounder_values,
    cumulative_step_values,
    effect_values,
    order_values,
    shapley_values,
    step_values,
)
from ablations.report.tradeoffs import tradeoff_values
from ablations.studies import CUMULATIVE

CELL = Cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())

MEANS = dict(zip(ARMS, (0.61, 0.66, 0.68, 0.61, 0.71, 0.66, 0.69, 0.74), strict=True))
"""The effects of these are worked out in test_effects: 4.5, 7, 1, -0.5, 0.5, 1 and 0.5 points."""
EFFECTS_OF_MEANS = [0.045, 0.07, 0.01, -0.005, 0.005, 0.01, 0.005]

T_2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # the 97.5 % quantile of Student's t with 2 degrees of freedom


@pytest.fixture
def write_top1(tmp_path, write_cell):
    """Writes an accuracy; the rest is the same for all."""

    def write(arm, seed, top1, base="v2", **conditions):
        cell = replace(CELL, arm=arm, base=base, conditions=Accuracy(seed=seed, **conditions))
        write_cell(tmp_path, cell, {"top1": top1, "n_eval_images": 100, "n_train_images": 1000})

    return write


def noise(arm, seed):
    """Seeds 0, 1 and 2 have -1, 0 and 1 times a hundredth, v1 the other way round: no arm's mean changes."""
    return (seed - 1) * (-0.01 if arm == "v1" else 0.01)


@pytest.fixture
def write_design(write_top1):
    """Writes eight arms and three seeds."""

    def write(**conditions):
        for arm, mean in MEANS.items():
            for seed in range(3):
                write_top1(arm, seed, mean + noise(arm, seed), **conditions)

    return write


def test_effects_of_accuracy(tmp_path, write_design):
    write_design()
    values = effect_values(load_records(tmp_path), "accuracy")
    assert list(values["effect"]) == list(EFFECTS)
    assert list(values["top1_effect_mean"]) == pytest.approx(EFFECTS_OF_MEANS)
    assert set(values["n_seeds"]) == {3}
    assert list(values[["variant", "base", "data", "epochs"]].drop_duplicates().iloc[0]) == [
        "pico",
        "v2",
        "digits",
        20,
    ]
    # In the last seed seven arms have a hundredth more and v1 one less, 3/4 in the mean, which the block takes: what is
    # left is 1/4 seven times and 7/4 once, with squares of 56/16, and as much in the first seed. So there are 7 on
    # 24 - 3 - 7 = 14 degrees of freedom, a variance of 1/2; that of 12 values' mean minus 12 others' is a sixth of it.
    t_14 = 2.144786687916928
    half = t_14 * 0.01 * math.sqrt(1 / 2 / 6)  # 0.62 points
    assert list(values["top1_effect_high"] - values["top1_effect_mean"]) == pytest.approx([half] * 7)
    assert list(values["top1_effect_resolved"]) == [abs(effect) > half for effect in EFFECTS_OF_MEANS]
    assert values.loc[values["top1_effect_resolved"], "effect"].tolist() == ["ope", "cffn", "lsra", "cffn:lsra"]
    # The hundredths have t = 3.46 and p = 0.0038, which is the third of seven: 0.019.
    assert list(values["top1_effect_resolved_holm"]) == list(values["top1_effect_resolved"])
    assert values.loc[2, "p_holm"] == pytest.approx(5 * values.loc[2, "p"]) == pytest.approx(0.019, abs=5e-4)


def test_recipes_have_effects_of_their_own(tmp_path, write_design):
    write_design()
    write_design(epochs=50)
    values = effect_values(load_records(tmp_path), "accuracy")
    assert list(values["epochs"]) == [20] * 7 + [50] * 7


def test_a_seed_without_all_arms_is_left_out_and_counted(tmp_path, write_design, write_top1):
    write_design()
    write_top1("v1", 3, 0.1)
    write_top1("v1+ope", 3, 0.9)
    records = load_records(tmp_path)
    for values in (effect_values, step_values, order_values, shapley_values):
        table = values(records, "accuracy")
        assert set(table["n_seeds"]) == {3}
        assert set(table["n_seeds_left_out"]) == {1}
    assert list(effect_values(records, "accuracy")["top1_effect_mean"]) == pytest.approx(EFFECTS_OF_MEANS)


def test_without_a_common_seed_there_is_a_row_and_no_number(tmp_path, write_top1):
    for seed, arm in enumerate(ARMS):
        write_top1(arm, seed, 0.5)
    records = load_records(tmp_path)
    effects = effect_values(records, "accuracy")
    assert list(effects["n_seeds"]) == [0] * 7
    assert list(effects["n_seeds_left_out"]) == [8] * 7
    assert effects["top1_effect_mean"].isna().all()
    assert step_values(records, "accuracy")["top1_step_mean"].isna().all()
    assert shapley_values(records, "accuracy")["top1_shapley_mean"].isna().all()


def test_fewer_arms_are_no_design(tmp_path, write_top1):
    for arm in ARMS[:-1]:
        write_top1(arm, 0, 0.5)
    records = load_records(tmp_path)
    for values in (effect_values, step_values, order_values, shapley_values):
        assert values(records, "accuracy").empty


def test_one_seed_has_estimates_and_nothing_is_resolved(tmp_path, write_top1):
    for arm, top1 in MEANS.items():
        write_top1(arm, 0, top1)
    records = load_records(tmp_path)
    effects = effect_values(records, "accuracy")
    assert list(effects["top1_effect_mean"]) == pytest.approx(EFFECTS_OF_MEANS)
    assert effects[["top1_effect_low", "top1_effect_high", "p", "p_holm"]].isna().all(axis=None)
    shapley = shapley_values(records, "accuracy")
    assert list(shapley["top1_shapley_mean"]) == pytest.approx([0.28 / 6, 0.43 / 6, 0.07 / 6])
    assert shapley["top1_shapley_low"].isna().all()
    assert not effects["top1_effect_resolved"].any()
    assert not shapley["top1_shapley_resolved"].any()


def test_steps_at_every_setting_of_the_others(tmp_path, write_design):
    write_design()
    values = step_values(load_records(tmp_path), "accuracy").set_index("step")
    assert len(values) == 12
    for _, row in values.iterrows():
        assert row["top1_step_mean"] == pytest.approx(MEANS[row["arm"]] - MEANS[row["start"]])
    # From v1 the seeds differ by 5 - 2, 5 and 5 + 2 points: their deviation is 2.
    half = T_2 * 0.02 / math.sqrt(3)
    at_v1 = values.loc["+ope at v1"]
    assert at_v1["top1_step_low"] == pytest.approx(0.05 - half)
    assert at_v1["top1_step_high"] == pytest.approx(0.05 + half)
    assert (at_v1["change"], at_v1["start"], at_v1["arm"]) == ("ope", "v1", "v1+ope")
    assert (bool(at_v1["top1_step_resolved"]), bool(values.loc["+cffn at v1", "top1_step_resolved"])) == (True, True)
    assert not values.loc["+lsra at v1", "top1_step_resolved"]


def test_orders_add_up_to_the_whole_way(tmp_path, write_design):
    write_design()
    values = order_values(load_records(tmp_path), "accuracy").set_index("order")
    assert list(values.index) == [", ".join(order) for order in ORDERS]
    total = values["top1_ope_mean"] + values["top1_cffn_mean"] + values["top1_lsra_mean"]
    assert list(total) == pytest.approx([0.13] * 6)
    backwards = values.loc["lsra, cffn, ope"]
    steps = [backwards[f"top1_{change}_mean"] for change in ("lsra", "cffn", "ope")]
    assert steps == pytest.approx([0.0, 0.08, 0.05], abs=1e-12)
    assert not backwards["top1_lsra_resolved"]


def test_shapley_values_and_their_range(tmp_path, write_design):
    write_design()
    values = shapley_values(load_records(tmp_path), "accuracy").set_index("change")
    assert list(values["top1_shapley_mean"]) == pytest.approx([0.28 / 6, 0.43 / 6, 0.07 / 6])
    # Only the first step of an order touches v1, in two orders of six: a third of -2, 0 and 2 points.
    half = T_2 * 0.02 / 3 / math.sqrt(3)
    assert list(values["top1_shapley_high"] - values["top1_shapley_mean"]) == pytest.approx([half] * 3)
    assert list(values["top1_shapley_resolved"]) == [True, True, False]
    assert list(values["top1_smallest_mean"]) == pytest.approx([0.03, 0.05, 0.0], abs=1e-12)
    assert list(values["top1_largest_mean"]) == pytest.approx([0.05, 0.08, 0.03])


def test_costs_are_exact_and_in_percent_of_v1(tmp_path, write_cell):
    for arm in ARMS:
        toggles = arm_toggles(arm)
        ope, cffn, lsra = (toggles[field] for field in TOGGLES.values())
        params = 1000 + 50 * ope + 20 * cffn - 100 * lsra
        result = {"params": params, "macs": params, "macs_traced": params, "breakdown": {}}
        result["macs"] += 8 * (cffn and lsra)
        write_cell(tmp_path, replace(CELL, arm=arm, conditions=Cost(resolution=64)), result)
    records = load_records(tmp_path)
    effects = effect_values(records, "cost").set_index("effect")
    assert set(effects["resolution"]) == {"64"}
    assert list(effects["params_effect"]) == [50, 20, -100, 0, 0, 0, 0]
    assert list(effects["params_effect_percent"]) == [5, 2, -10, 0, 0, 0, 0]
    # Eight more where both are: half of that in each main effect, and half as their interaction.
    assert list(effects["macs_effect"]) == [50, 24, -96, 0, 0, 4, 0]
    steps = step_values(records, "cost").set_index("step")
    assert list(steps.loc[["+cffn at v1", "+cffn at v1+ope+lsra"], "macs_step"]) == [20, 28]
    assert list(steps.loc[["+cffn at v1", "+cffn at v1+ope+lsra"], "macs_step_percent"]) == [2, 2.8]
    orders = order_values(records, "cost").set_index("order")
    assert list(orders.loc["ope, cffn, lsra", ["macs_ope", "macs_cffn", "macs_lsra"]]) == [50, 20, -92]
    assert list(orders.loc["lsra, cffn, ope", ["macs_ope", "macs_cffn", "macs_lsra"]]) == [50, 28, -100]
    shapley = shapley_values(records, "cost").set_index("change")
    assert list(shapley["macs_shapley_percent"]) == [5, 2.4, -9.6]
    assert list(shapley.loc["lsra", ["macs_smallest", "macs_largest"]]) == [-100, -92]
    assert not [name for name in effects if name.endswith(("resolved", "low", "p"))]


def test_changes_touch_different_modules(tmp_path, write_cell):
    for arm in ARMS:
        write_cell(tmp_path, Cell(variant="b2", arm=arm, base="v2", conditions=Cost()))
    effects = effect_values(load_records(tmp_path), "cost").set_index("effect")
    main = ["ope", "cffn", "lsra"]
    assert list(effects.loc[main, "params_effect"]) == [1_071_296, 194_560, -2_809_344]
    assert (effects.drop(main)[["params_effect", "macs_effect"]] == 0).all(axis=None)


def test_a_metric_that_was_not_counted_is_empty(tmp_path, write_cell):
    for arm in ARMS:
        for head in ("retinanet", "mask_rcnn"):
            macs = None if head == "mask_rcnn" else 10
            conditions = Cost(resolution=(800, 1280), head=head)
            write_cell(tmp_path, replace(CELL, arm=arm, conditions=conditions), {"params": 5, "macs": macs})
    for values in (effect_values, step_values, shapley_values):
        table = values(load_records(tmp_path), "cost")
        missing = table.loc[table["head"] == "mask_rcnn", [name for name in table if name.startswith("macs")]]
        assert len(missing) == len(table) / 2
        assert missing.isna().all(axis=None)
    assert (effect_values(load_records(tmp_path), "cost")["params_effect"] == 0).all()


def test_memory_has_effects_at_every_size_and_method(tmp_path, write_cell):
    for arm in ARMS:
        for conditions in (Memory(resolution=64), Memory(resolution=128), Memory(resolution=64, mode="training")):
            write_cell(tmp_path, replace(CELL, arm=arm, conditions=conditions))
    values = effect_values(load_records(tmp_path), "memory")
    assert len(values) == 21
    places = values[["mode", "resolution"]].drop_duplicates()
    assert sorted(map(tuple, places.to_numpy())) == [("inference", "128"), ("inference", "64"), ("training", "64")]


def test_the_cumulative_is_paired_step_by_step(tmp_path, write_top1):
    for arm in CUMULATIVE:
        for seed in range(3):
            write_top1(arm, seed, MEANS[arm] + noise(arm, seed))
    write_top1("v1+ope", 7, 0.9)
    values = cumulative_step_values(load_records(tmp_path)).set_index("arm")
    assert list(values.index) == list(CUMULATIVE)
    assert list(values["n_seeds"]) == [3, 4, 3, 3]
    assert list(values["n_pairs"]) == [0, 3, 3, 3]
    assert list(values["top1_mean"]) == pytest.approx([0.61, (3 * 0.66 + 0.9) / 4, 0.71, 0.74])
    assert list(values["top1_step_mean"][1:]) == pytest.approx([0.05, 0.05, 0.03])
    half = T_2 * 0.02 / math.sqrt(3)
    assert values.loc["v1+ope", "top1_step_high"] == pytest.approx(0.05 + half)
    # The other steps are the same in every seed, which says nothing of how far apart others would lie.
    assert list(values["top1_step_resolved"]) == [False, True, False, False]


def test_a_cumulative_with_a_missing_arm_has_no_step_over_it(tmp_path, write_top1):
    for arm in ("v1", "v1+ope+cffn", "v1+ope+cffn+lsra", "v1+cffn"):
        write_top1(arm, 0, MEANS[arm])
    values = cumulative_step_values(load_records(tmp_path)).set_index("arm")
    assert list(values.index) == ["v1", "v1+ope+cffn", "v1+ope+cffn+lsra"]
    assert list(values["n_pairs"]) == [0, 0, 1]
    assert values.loc["v1+ope+cffn+lsra", "top1_step_mean"] == pytest.approx(0.03)
    assert not values["top1_step_resolved"].any()


def test_one_arm_is_no_cumulative(tmp_path, write_top1):
    write_top1("v1", 0, 0.5)
    assert cumulative_step_values(load_records(tmp_path)).empty


def write_costs(tmp_path, write_cell, places):
    for arm, base in places:
        write_cell(tmp_path, Cell(variant="b2", arm=arm, base=base, conditions=Cost()))


def test_the_published_step_is_the_base_and_ope(tmp_path, write_cell):
    write_costs(tmp_path, write_cell, [(arm, base) for arm in ARMS for base in ("published", "v1", "v2")])
    values = confounder_values(load_records(tmp_path), "cost").set_index("part")
    assert "base" not in values
    step, base_first, ope_then, ope_first, base_then, relu = values["params_part"]
    # 0.68 M more, where OPE by itself has 1.07 M: position embeddings and the class token go.
    assert step == 682_432
    assert step == base_first + ope_then == ope_first + base_then
    assert ope_then == ope_first == 1_071_296
    assert relu == 0
    v1, changed = (build_config("b2", "v1", base) for base in ("v1", "v2"))
    assert base_first == count_params(changed) - count_params(v1)
    assert values.loc["base, at v1", "macs_part"] == count_macs(changed, 224) - count_macs(v1, 224)
    assert values.loc["base, at v1", "params_part_percent"] == pytest.approx(100 * base_first / count_params(v1))
    assert values.loc["base, at v1", "params_share_percent"] == pytest.approx(100 * base_first / step)
    assert values.loc[PUBLISHED_STEP, "params_share_percent"] == 100


def test_models_that_bases_share_stand_for_one_another(tmp_path, write_cell):
    # The published v1+ope is base v2's, and base v1's v1 the published one.
    write_costs(tmp_path, write_cell, [("v1", "published"), ("v1", "v2"), ("v1+ope", "v2")])
    values = confounder_values(load_records(tmp_path), "cost").set_index("part")
    assert list(values.index) == [PUBLISHED_STEP, "base, at v1", "ope, in base v2"]
    assert list(values["params_part"]) == [682_432, -388_864, 1_071_296]


def test_without_another_base_nothing_is_the_bases(tmp_path, write_cell):
    write_costs(tmp_path, write_cell, [(arm, "published") for arm in ARMS])
    assert confounder_values(load_records(tmp_path), "cost").empty


def test_the_bases_part_of_accuracy_is_paired(tmp_path, write_top1):
    for seed in range(3):
        write_top1("v1", seed, 0.50 + 0.1 * seed, base="published")
        write_top1("v1", seed, 0.53 + 0.1 * seed + 0.01 * (seed - 1))
        write_top1("v1+ope", seed, 0.54 + 0.1 * seed + 0.02 * (seed - 1))
    write_top1("v1+ope", 3, 0.9)
    values = confounder_values(load_records(tmp_path), "accuracy").set_index("part")
    assert list(values.index) == [PUBLISHED_STEP, "base, at v1", "ope, in base v2"]
    assert list(values["n_pairs"]) == [3, 3, 3]
    assert list(values["top1_part_mean"]) == pytest.approx([0.04, 0.03, 0.01])
    half = T_2 * 0.01 / math.sqrt(3)  # 2.5 points
    assert list(values["top1_part_high"] - values["top1_part_mean"]) == pytest.approx([2 * half, half, half])
    assert list(values["top1_part_resolved"]) == [False, True, False]


@pytest.mark.parametrize("measurement", ["cost", "memory", "accuracy"])
@pytest.mark.parametrize("values", [effect_values, step_values, order_values, shapley_values, confounder_values])
def test_no_records_make_no_values(tmp_path, values, measurement):
    assert values(load_records(tmp_path), measurement).empty


def test_no_records_make_no_cumulative(tmp_path):
    assert cumulative_step_values(load_records(tmp_path)).empty


AGGREGATES = {
    "effects": lambda records: effect_values(records, "accuracy"),
    "steps": lambda records: step_values(records, "accuracy"),
    "orders": lambda records: order_values(records, "accuracy"),
    "shapley": lambda records: shapley_values(records, "accuracy"),
    "cumulative": cumulative_step_values,
    "confounders": lambda records: confounder_values(records, "accuracy"),
    "cumulative": cumulative_values,
    "trade-offs": tradeoff_values,
}


@pytest.fixture
def write_bases(write_top1):
    """Writes eight arms in two bases, each with two seeds."""

    def write(first_seed, added, **conditions):
        for arm, mean in MEANS.items():
            for seed in (first_seed, first_seed + 1):
                for base in ("v1", "v2"):
                    write_top1(arm, seed, mean + added * len(arm) + noise(arm, seed % 2), base, **conditions)

    return write


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_a_planted_mix_of_recipes_is_split(tmp_path, write_bases, aggregate):
    write_bases(0, 0.0)
    alone = AGGREGATES[aggregate](load_records(tmp_path))
    # Another recipe with other seeds, so that all could be taken together unnoticed.
    write_bases(2, 0.001, cutmix=1.0)
    values = AGGREGATES[aggregate](load_records(tmp_path))
    assert len(values) == 2 * len(alone) > 0
    assert set(values["cutmix"]) == {0, 1}
    counts = [name for name in ("n_seeds", "n_pairs") if name in values]
    assert values[counts].max().max() == 2
    pd.testing.assert_base_equal(values[values["cutmix"] == 0].reset_index(drop=True), alone)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_models_that_are_no_arms_change_no_effect(tmp_path, write_cell, write_bases, aggregate):
    write_bases(0, 0.0)
    alone = AGGREGATES[aggregate](load_records(tmp_path))
    for seed in (0, 1):
        model = ModelCell(model="timm:resnet18", conditions=Accuracy(seed=seed))
        write_cell(tmp_path, model, {"top1": 0.99, "n_eval_images": 100, "n_train_images": 1000})
    pd.testing.assert_base_equal(AGGREGATES[aggregate](load_records(tmp_path)), alone)


def test_a_planted_mix_of_memory_is_split(tmp_path, write_cell):
    for arm in ARMS:
        for mode, peak in (("inference", 100), ("training", 1000)):
            cell = replace(CELL, arm=arm, conditions=Memory(resolution=64, mode=mode))
            result = {"peak_memory_bytes": peak + 10 * ("ope" in arm), "memory_method": "tracked_storages"}
            write_cell(tmp_path, cell, result)
    values = effect_values(load_records(tmp_path), "memory").query("effect == 'ope'").set_index("mode")
    assert values["peak_memory_bytes_effect"].to_dict() == {"inference": 10, "training": 10}
    assert values["peak_memory_bytes_effect_percent"].to_dict() == {"inference": 10, "training": 1}
    shares = shapley_values(load_records(tmp_path), "memory").query("change == 'ope'")
    assert shares["peak_memory_bytes_shapley_percent"].tolist() == pytest.approx([10, 1])


def test_arms_of_several_machines_make_no_design(tmp_path, write_cell):
    for place, arm in enumerate(ARMS):
        result = {"top1": 0.5, "n_eval_images": 100, "n_train_images": 1000}
        write_cell(tmp_path, replace(CELL, arm=arm), result, threads=1 + place % 2)
    assert effect_values(load_records(tmp_path), "accuracy").empty


@pytest.mark.parametrize("values", [effect_values, step_values, order_values, shapley_values, confounder_values])
def test_a_measurement_without_effects_is_refused(tmp_path, values):
    for measurement in ("speed", "accuracies"):
        with pytest.raises(
            InputError, match=f"measurement='{measurement}' is not possible; allowed: cost, memory, acc"
        ):
            values(load_records(tmp_path), measurement)


def test_mixed_conditions_make_designs_of_their_own(tmp_path, write_design):
    for batch_size in (64, 32):
        write_design(batch_size=batch_size)
    records = load_records(tmp_path)
    apart = [effect_values(records[records["batch_size"] == size], "accuracy") for size in (32, 64)]
    both = effect_values(records, "accuracy")
    assert both["batch_size"].tolist() == [32] * len(EFFECTS) + [64] * len(EFFECTS)
    pd.testing.assert_base_equal(both, pd.concat(apart, ignore_index=True))
    for size in (32, 64):
        means = both.loc[both["batch_size"] == size, "top1_effect_mean"].tolist()
        assert means == pytest.approx(EFFECTS_OF_MEANS)
