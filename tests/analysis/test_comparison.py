"""The comparison: every column of one model, nothing measured made up, nothing missing left unsaid."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ablations.analysis.comparison import MEMORY_STEPS, comparison_values
from ablations.analysis.grouping import describe
from ablations.cells import arm_cell
from ablations.config import ARMS
from ablations.measure import Accuracy, Cost, Memory, Speed
from ablations.measure.measurement import MODES
from ablations.records import load_records
from ablations.report.comparison import list_comparisons

Write = Callable[..., Path]


def write_costs(results: Path, write_cell: Write, variant: str = "pico", base: str = "v2", **model: object) -> None:
    for arm in ARMS:
        for side in (32, 64):
            fields = {"num_classes": 10} | model
            write_cell(results, arm_cell(variant, arm, base, Cost(resolution=side), **fields))


def write_memory(results: Path, write_cell: Write, side: int, arms: tuple[str, ...] = ARMS, method="measured") -> None:
    for arm in arms:
        for mode, attention in MEMORY_STEPS:
            conditions = Memory(resolution=side, mode=mode, method=method)
            write_cell(results, arm_cell("pico", arm, "v2", conditions, attention=attention, num_classes=10))


def write_speed(results: Path, write_cell: Write, side: int, arms: tuple[str, ...] = ARMS, device="cpu") -> None:
    for arm in arms:
        for mode in MODES:
            conditions = Speed(resolution=side, mode=mode, batch_size=8, device=device)
            write_cell(results, arm_cell("pico", arm, "v2", conditions, num_classes=10))


def write_accuracy(results: Path, write_cell: Write, seeds: int = 6, base: str = "v2", gain: float = 0.03) -> None:
    """CFFN adds `gain`, OPE a point, LSRA nothing, with up to 0.2 points of noise."""
    for place, arm in enumerate(ARMS):
        for seed in range(seeds):
            top1 = 0.5 + 0.01 * ("ope" in arm) + gain * ("cffn" in arm) + 0.0004 * ((7 * place + 3 * seed) % 11 - 5)
            result = {"top1": top1, "n_eval_images": 100, "n_train_images": 200, "history": []}
            cell = arm_cell("pico", arm, base, Accuracy())
            write_cell(results, replace(cell, conditions=Accuracy(seed=seed)), result)


def values_of(results: Path) -> pd.DataFrame:
    return comparison_values(load_records(results))


@pytest.mark.slow
def test_every_column_is_what_the_records_of_this_model_say(tmp_path, write_cell):
    write_costs(tmp_path, write_cell)
    write_memory(tmp_path, write_cell, 64)
    write_speed(tmp_path, write_cell, 32)
    write_accuracy(tmp_path, write_cell)
    # Others, of which nothing may appear.
    write_costs(tmp_path, write_cell, variant="nano")
    write_costs(tmp_path, write_cell, pool_size=3)
    write_costs(tmp_path, write_cell, num_classes=1000)
    values = values_of(tmp_path)
    trained = values[values["data"] == "digits"].set_index("arm")
    assert list(trained.index) == list(ARMS)
    assert set(trained["variant"]) == {"pico"}
    assert set(trained["pool_size"]) == {2}
    records = load_records(tmp_path)
    own = records[(records["variant"] == "pico") & (records["pool_size"] == 2) & (records["num_classes"] == 10)]
    counted = own[(own["measurement"] == "cost") & (own["resolution"] == "64")].set_index("arm")
    assert trained["macs_large"].equals(counted["macs"].astype(float).reindex(ARMS).rename("macs_large"))
    assert (counted["params"] == trained["params"]).all()
    for mode, attention in MEMORY_STEPS:
        is_step = (own["measurement"] == "memory") & (own["mode"] == mode) & (own["attention"] == attention)
        peaks = own[is_step].set_index("arm")["peak_memory_bytes"]
        assert (trained[f"memory_{mode}_{attention}_bytes"] == peaks.reindex(ARMS)).all()
    for mode in MODES:
        timed = own[(own["measurement"] == "speed") & (own["mode"] == mode)].set_index("arm")
        assert (trained[f"relative_speed_{mode}"] == timed["relative_speed"].reindex(ARMS)).all()
        assert (trained[f"relative_speed_{mode}_low"] == timed["relative_speed_low"].reindex(ARMS)).all()
    assert trained["missing"].isna().all()
    assert set(trained["counted_at"]) == {"32 px"}


def test_changes_are_against_v1(tmp_path, write_cell):
    write_costs(tmp_path, write_cell)
    values = values_of(tmp_path).set_index("arm")
    for metric in ("params", "macs", "macs_large"):
        expected = 100 * (values.loc["v1+ope", metric] / values.loc["v1", metric] - 1)
        assert values.loc["v1+ope", f"{metric}_change_percent"] == pytest.approx(expected)
        assert values.loc["v1", f"{metric}_change_percent"] == 0


def test_what_was_not_measured_has_no_column_and_is_named(tmp_path, write_cell):
    write_costs(tmp_path, write_cell)
    values = values_of(tmp_path)
    assert set(values["missing"]) == {"memory, speed, accuracy"}
    assert not [name for name in values if name.startswith(("memory_inference", "relative_speed", "top1"))]
    assert "memory_at" not in values or values["memory_at"].isna().all()


def test_memory_is_of_one_size_that_most_arms_have_and_measured_before_predicted(tmp_path, write_cell):
    write_costs(tmp_path, write_cell)
    write_memory(tmp_path, write_cell, 64)
    write_memory(tmp_path, write_cell, 128, arms=ARMS[:3])
    write_memory(tmp_path, write_cell, 256, method="predicted")
    assert set(values_of(tmp_path)["memory_at"]) == {"64 px, cpu, one image, float32, measured"}
    write_memory(tmp_path, write_cell, 128, arms=ARMS[3:])
    assert set(values_of(tmp_path)["memory_at"]) == {"128 px, cpu, one image, float32, measured"}


@pytest.mark.slow
@pytest.mark.parametrize("is_trained", [False, True])
def test_speed_is_of_the_size_that_is_counted_first_and_of_the_largest(tmp_path, write_cell, is_trained):
    write_costs(tmp_path, write_cell)
    if is_trained:
        write_accuracy(tmp_path, write_cell)
    write_speed(tmp_path, write_cell, 64)
    values = values_of(tmp_path)
    assert values["speed_at"].iloc[0].startswith("64 px, cpu, batch 8")
    assert "large_speed_at" not in values or values["large_speed_at"].isna().all(), "the same twice"
    write_speed(tmp_path, write_cell, 32)
    values = values_of(tmp_path)
    assert values["speed_at"].iloc[0].startswith("32 px, cpu, batch 8")
    assert values["large_speed_at"].iloc[0].startswith("64 px, cpu, batch 8")
    assert values["relative_speed_large_inference"].notna().all()


def test_both_speeds_are_of_one_machine(tmp_path, write_cell):
    write_costs(tmp_path, write_cell)
    write_speed(tmp_path, write_cell, 32)
    write_speed(tmp_path, write_cell, 64, device="cuda")
    values = values_of(tmp_path)
    assert values["speed_at"].iloc[0].startswith("32 px, cpu, batch 8")
    assert not [name for name in values if name.startswith("relative_speed_large")]
    write_speed(tmp_path, write_cell, 64)
    assert values_of(tmp_path)["large_speed_at"].iloc[0].startswith("64 px, cpu, batch 8")


def test_a_size_of_more_arms_comes_before_the_one_that_is_counted_first(tmp_path, write_cell):
    write_costs(tmp_path, write_cell)
    write_speed(tmp_path, write_cell, 64)
    write_speed(tmp_path, write_cell, 32, arms=ARMS[:3])
    values = values_of(tmp_path)
    assert values["speed_at"].iloc[0].startswith("64 px, cpu, batch 8")
    assert values["relative_speed_training"].notna().all()


def test_the_best_accuracies_are_those_not_resolved_to_be_worse(tmp_path, write_cell):
    write_accuracy(tmp_path, write_cell)
    values = values_of(tmp_path).set_index("arm")
    assert list(values.index[values["top1_is_best"].astype(bool)]) == ["v1+ope+cffn", "v1+ope+cffn+lsra"]


def test_too_few_seeds_make_no_best(tmp_path, write_cell):
    write_accuracy(tmp_path, write_cell, seeds=5)
    assert not values_of(tmp_path)["top1_is_best"].any()


def test_main_effects_stand_with_the_arm_of_one_toggle(tmp_path, write_cell):
    write_accuracy(tmp_path, write_cell)
    values = values_of(tmp_path).set_index("arm")
    by_arm = load_records(tmp_path).groupby("arm")["top1"].mean()
    with_cffn = by_arm[[arm for arm in ARMS if "cffn" in arm]].mean()
    without = by_arm[[arm for arm in ARMS if "cffn" not in arm]].mean()
    assert values.loc["v1+cffn", "top1_effect_mean"] == pytest.approx(with_cffn - without)
    assert values.loc[["v1", "v1+ope+cffn"], "top1_effect_mean"].isna().all()


def test_a_model_at_chance_is_known(tmp_path, write_cell):
    for arm, top1 in (("v1", 0.1), ("v1+cffn", 0.4)):
        for seed in range(3):
            result = {"top1": top1 + seed / 1e4, "n_eval_images": 100, "n_train_images": 200, "history": []}
            cell = replace(arm_cell("pico", arm, "v2", Accuracy()), conditions=Accuracy(seed=seed))
            write_cell(tmp_path, cell, result)
    values = values_of(tmp_path).set_index("arm")
    assert values["at_chance"].astype(bool).to_dict() == {"v1": False, "v1+cffn": False}
    write_cell(tmp_path, arm_cell("pico", "v1", "v2", Accuracy(seed=9)), result | {"top1": 0.0})
    assert bool(values_of(tmp_path).set_index("arm").loc["v1", "at_chance"])


@pytest.mark.parametrize(
    ("n_eval_images", "recorded", "at_chance"),
    [
        (100, {}, {"v1": False, "v1+cffn": False}),  # ten classes, taken to be equally large
        (360, {}, {"v1": True, "v1+cffn": False}),  # digits' own: 37 of 360 are of one class
        (360, {"largest_class_share": 0.5}, {"v1": True, "v1+cffn": True}),
    ],
)
def test_chance_is_the_share_of_the_largest_class(tmp_path, write_cell, n_eval_images, recorded, at_chance):
    for arm, top1 in (("v1", 0.102), ("v1+cffn", 0.4)):
        counts = {"n_eval_images": n_eval_images, "n_train_images": 200, "history": []}
        cell = arm_cell("pico", arm, "v2", Accuracy())
        write_cell(tmp_path, cell, {"top1": top1} | counts | recorded)
    values = values_of(tmp_path).set_index("arm")
    assert values["at_chance"].astype(bool).to_dict() == at_chance


def test_bases_and_recipes_make_comparisons_of_their_own(tmp_path, write_cell):
    write_accuracy(tmp_path, write_cell)
    write_accuracy(tmp_path, write_cell, base="v1")
    for arm in ARMS:
        write_cell(tmp_path, arm_cell("pico", arm, "v2", Accuracy(mixup=0.8)))
    values = values_of(tmp_path)
    groups = values.groupby(["base", "recipe"], sort=False)
    assert [len(rows) for _, rows in groups] == [len(ARMS)] * 3
    assert values["recipe"].str.contains("mixup 0.8").sum() == len(ARMS)


def test_keys_choose_the_comparisons_of_a_study(tmp_path, write_cell):
    write_accuracy(tmp_path, write_cell)
    write_costs(tmp_path, write_cell, variant="nano")
    records = load_records(tmp_path)
    keys = set(records.loc[records["variant"] == "nano", "key"])
    assert set(comparison_values(records, keys)["variant"]) == {"nano"}
    assert comparison_values(records, set()).empty


def test_the_papers_numbers_stand_beside_the_arms_that_it_has(tmp_path, write_cell):
    for base in ("v2", "published"):
        for arm in ARMS:
            write_cell(tmp_path, arm_cell("b2", arm, base, Cost()))
    values = values_of(tmp_path)
    reported = ["reported_params_m", "reported_gflops", "reported_top1_percent"]
    of_v2, published = (values[values["base"] == base].set_index("arm")[reported] for base in ("v2", "published"))
    # The paper's Table 2. PVT v1 has base v1's confounders, so that v1 in base v2 is no model of the paper's.
    assert of_v2.loc["v1+ope+cffn"].tolist() == [25.4, 4.0, 82.0]
    assert of_v2.loc[["v1", "v1+lsra"]].isna().all(axis=None)
    assert published.loc["v1"].tolist() == [24.5, 3.8, 79.8]


def test_counts_of_other_classes_are_a_comparison_of_their_own_that_says_so(tmp_path, write_cell):
    for classes in (10, 1000):
        for arm in ("v1", "v1+ope"):
            write_cell(tmp_path, arm_cell("pico", arm, "v2", Cost(resolution=32), num_classes=classes))
    values = comparison_values(load_records(tmp_path))
    assert list(values["num_classes"]) == [10, 10, 1000, 1000]
    told = "; ".join(describe(group.conditions) for group, _ in list_comparisons(values))
    assert (told.count(", 10 classes"), told.count(", 1,000 classes")) == (1, 1)
