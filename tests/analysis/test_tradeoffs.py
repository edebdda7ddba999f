"""Pareto fronts and the cost of a point, from numbers that are worked out here."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from ablations.analysis.accuracy import cumulative_accuracy_values
from ablations.analysis.tradeoffs import cost_per_point, find_dominators, tradeoff_values
from ablations.cells import arm_cell
from ablations.config import ARMS, TOGGLES, build_config
from ablations.cost import count_macs, count_params
from ablations.measure import Accuracy, Cost, Memory, Speed
from ablations.records import load_records

CELL = arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())


def test_what_costs_more_and_is_no_better_is_dominated():
    costs = pd.Series({"a": 1, "b": 2, "c": 3, "d": 3})
    accuracies = pd.Series({"a": 0.5, "b": 0.7, "c": 0.6, "d": 0.8})
    assert find_dominators(costs, accuracies) == {"a": [], "b": [], "c": ["b", "d"], "d": []}


def test_equal_points_do_not_dominate_each_other():
    costs = pd.Series({"a": 1, "twin": 1, "dearer": 2, "worse": 1})
    accuracies = pd.Series({"a": 0.5, "twin": 0.5, "dearer": 0.5, "worse": 0.4})
    dominators = find_dominators(costs, accuracies)
    assert dominators == {"a": [], "twin": [], "dearer": ["a", "twin"], "worse": ["a", "twin"]}


def test_what_lacks_a_number_is_left_out():
    costs, accuracies = pd.Series({"a": 1, "b": None, "d": 0}), pd.Series({"d": 0.2, "b": 0.9, "c": 0.9, "a": 0.1})
    assert list(find_dominators(costs, accuracies).items()) == [("d", []), ("a", ["d"])]


def test_the_cost_of_a_point_and_its_interval():
    # 600 more for 3 points is 200 a point; for 2 to 4 points it is 300 to 150.
    gain = {"mean": 0.03, "low": 0.02, "high": 0.04, "resolved": True}
    assert cost_per_point(600, gain) == pytest.approx((200, 150, 300))
    assert cost_per_point(-600, gain) == pytest.approx((-200, -300, -150))


@pytest.mark.parametrize(
    "gain",
    [
        {"mean": 0.03, "low": 0.02, "high": 0.04, "resolved": False},
        {"mean": -0.03, "low": -0.04, "high": -0.02, "resolved": True},
        {"mean": math.nan, "low": math.nan, "high": math.nan, "resolved": False},
    ],
    ids=["unresolved", "a loss", "no seed"],
)
def test_what_is_no_resolved_gain_has_no_price(gain):
    assert all(math.isnan(value) for value in cost_per_point(600, gain))


def write_study(folder, write_cell) -> None:
    """Accuracies of four arms with six seeds, their peak memory, and latency of two."""
    top1 = {
        "v1": (0.50, 0.60, 0.70),
        "v1+ope": (0.53, 0.64, 0.75),  # 3, 4 and 5 points more, twice: a variance of 0.8
        "v1+lsra": (0.50, 0.60, 0.70),
        "v1+ope+lsra": (0.58, 0.59, 0.72),  # 3 points more: 8, -1, 2
    }
    for arm, values in top1.items():
        for seed, value in enumerate(2 * values):
            cell = replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed))
            write_cell(folder, cell, {"top1": value, "n_eval_images": 100, "n_train_images": 1000})
    for arm, peak in (("v1", 1000), ("v1+ope", 1600), ("v1+lsra", 1000), ("v1+ope+lsra", 1700)):
        for base, resolution, factor in (("v2", 32, 1), ("v2", 64, 4), ("v1", 32, 2)):
            cell = replace(CELL.of(arm=arm, base=base), conditions=Memory(resolution=resolution))
            write_cell(folder, cell, {"peak_memory_bytes": factor * peak, "memory_method": "tracked_storages"})
    for arm, latency, speed, low, high in (("v1", 0.2, 1.0, 1.0, 1.0), ("v1+ope", 0.9, 0.8, 0.5, 1.25)):
        result = {"latency_s": latency, "relative_speed": speed, "noisy": False, "reference_samples": [latency * speed]}
        result |= {"relative_speed_low": low, "relative_speed_high": high}
        for conditions in (Speed(resolution=32, batch_size=16), Speed(resolution=96)):
            throughput = {"throughput_img_per_s": conditions.batch_size / latency}
            write_cell(folder, replace(CELL.of(arm=arm), conditions=conditions), result | throughput)


@pytest.fixture(scope="module")
def values(tmp_path_factory, write_cell) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, write_cell)
    return tradeoff_values(load_records(folder))


def test_every_cost_stands_beside_the_same_accuracies(values):
    assert list(values["cost"].drop_duplicates()) == ["params", "macs", "peak_memory_bytes", "latency_s"]
    assert [len(rows) for _, rows in values.groupby("cost", sort=False)] == [4, 4, 4, 2]
    # Records of another resolution or base are no costs of these models.
    words = values.groupby("cost")["measured_as"].unique()
    assert list(words["macs"]) == ["counted"]
    assert len(words["peak_memory_bytes"]) == len(words["latency_s"]) == 1
    assert "inference" in words["peak_memory_bytes"][0]
    assert "tracked_storages" in words["peak_memory_bytes"][0]
    assert "batch 16" in words["latency_s"][0]


def test_counts_are_of_the_trained_model(values):
    values = values.set_index(["cost", "arm"])
    for arm in ("v1", "v1+ope+lsra"):
        config = build_config("pico", arm, "v2", num_classes=10)
        assert values.loc[("params", arm), "cost_value"] == count_params(config)
        assert values.loc[("macs", arm), "cost_value"] == count_macs(config, 32)


def test_an_arm_without_a_closed_form_has_the_counts_of_its_trace_or_none(tmp_path, write_cell, monkeypatch):
    arms = ("v1", "v1+ope", "v1+ope+cffn")
    counts = {arm: build_config("pico", arm, "v2", num_classes=10) for arm in arms}
    counts = {arm: (count_params(config), count_macs(config, 32)) for arm, config in counts.items()}
    traced = build_config("pico", "v1+ope+cffn", "v2")
    assert (traced.num_classes, traced.img_size) == (1000, 32)
    traced = {"params": count_params(traced), "macs": count_macs(traced, 32)}
    monkeypatch.setitem(TOGGLES, "cffn", replace(TOGGLES["cffn"], cost=None))
    for arm in arms:
        write_cell(tmp_path, CELL.of(arm=arm), {"top1": 0.5, "n_eval_images": 100, "n_train_images": 1000})
    # Records of another input and of another base are of other models.
    for changes in ({"conditions": Cost(resolution=64)}, {"conditions": Cost(resolution=32), "base": "v1"}):
        names = {"variant": "pico", "arm": "v1+ope+cffn", "base": "v2"} | changes
        write_cell(tmp_path, arm_cell(**names), {"params": 1, "macs": 1})
    for has_trace in (False, True):
        if has_trace:
            write_cell(tmp_path, replace(CELL.of(arm="v1+ope+cffn"), conditions=Cost(resolution=32)), traced)
        expected = {arm: each for arm, each in counts.items() if has_trace or arm != "v1+ope+cffn"}
        values = tradeoff_values(load_records(tmp_path))
        for place, metric in enumerate(("params", "macs")):
            rows = values[values["cost"] == metric]
            costs = dict(zip(rows["arm"], rows["cost_value"], strict=True))
            assert costs == {arm: each[place] for arm, each in expected.items()}
            path = cumulative_accuracy_values(load_records(tmp_path)).set_index("arm")[metric]
            assert list(path.index) == list(arms)
            assert path.dropna().to_dict() == costs


def test_the_front_and_the_price_of_memory(values):
    memory = values[values["cost"] == "peak_memory_bytes"].set_index("arm")
    assert list(memory.index) == ["v1", "v1+ope", "v1+lsra", "v1+ope+lsra"]
    assert list(memory["cost_value"]) == [1000, 1600, 1000, 1700]
    assert list(memory["cost_change_percent"]) == [0, 60, 0, 70]
    # v1 and v1+lsra are one point. The last is a point below v1+ope in the mean, 5, -5 and -3 seed by seed.
    assert list(memory["dominated_by"]) == ["", "", "", "v1+ope"]
    assert list(memory["on_front"]) == [True, True, True, False]
    assert not memory["dominance_resolved"].any()
    ope = memory.loc["v1+ope"]
    half = 2.5705818366 * math.sqrt(0.8 / 6) * 0.01
    assert ope["top1_difference_mean"] == pytest.approx(0.04)
    assert ope["cost_per_point"] == pytest.approx(600 / 4)
    assert ope["cost_per_point_low"] == pytest.approx(600 / (4 + 100 * half))
    assert ope["cost_per_point_high"] == pytest.approx(600 / (4 - 100 * half))
    assert memory["cost_per_point"].isna().tolist() == [True, False, True, True]
    assert memory["top1_difference_resolved"].tolist() == [False, True, False, False]


def test_memory_is_that_of_the_trained_resolution(tmp_path, write_cell):
    for resolution in (32, 64):
        peak = {"peak_memory_bytes": 10 * resolution, "memory_method": "tracked_storages"}
        for arm in ("v1", "v1+ope"):
            write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Memory(resolution=resolution)), peak)
    for resolution in (64, 96):
        for arm in ("v1", "v1+ope"):
            write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Accuracy(resolution=resolution)))
    values = tradeoff_values(load_records(tmp_path))
    memory = values[values["cost"] == "peak_memory_bytes"]
    assert list(zip(memory["resolution"], memory["cost_value"], strict=True)) == [("64", 640)] * 2


def test_dominance_is_resolved_where_the_difference_is(values):
    params = values[values["cost"] == "params"].set_index("arm")
    # Linear SRA has fewer parameters than v1's and OPE more.
    assert params.loc["v1", "dominated_by"] == "v1+lsra"
    # They are as accurate as each other, in every seed: no difference is resolved.
    assert not params.loc["v1", "dominance_resolved"]
    assert params.loc["v1+ope", "on_front"]
    assert math.isnan(params.loc["v1+ope+lsra", "cost_per_point"])
    assert not params.loc["v1+ope+lsra", "top1_difference_resolved"]


def test_a_dearer_arm_that_is_surely_worse_is_said_to_be(tmp_path, write_cell):
    for arm, values in {"v1": (0.60, 0.70) * 3, "v1+cffn": (0.50, 0.605) * 3}.items():
        for seed, value in enumerate(values):
            cell = replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed))
            write_cell(tmp_path, cell, {"top1": value, "n_eval_images": 100, "n_train_images": 1000})
    values = tradeoff_values(load_records(tmp_path)).set_index(["cost", "arm"])
    for cost in ("params", "macs"):
        row = values.loc[(cost, "v1+cffn")]
        assert (row["on_front"], row["dominated_by"], row["dominance_resolved"]) == (False, "v1", True)
        assert math.isnan(row["cost_per_point"])


def test_a_cost_under_two_conditions_is_two_trade_offs(tmp_path, write_cell):
    write_study(tmp_path, write_cell)
    for arm, peak in (("v1", 1), ("v1+ope", 2)):
        cell = replace(CELL.of(arm=arm), conditions=Memory(resolution=32))
        result = {"peak_memory_bytes": peak, "memory_method": "tracked_storages"}
        write_cell(tmp_path, cell.of(overrides=(("attention", "explicit"),)), result)
        write_cell(tmp_path, replace(cell, conditions=replace(cell.conditions, batch_size=2)), result)
    values = tradeoff_values(load_records(tmp_path)).query("cost == 'peak_memory_bytes'")
    # Explicit attention is another model's memory; the other batch stands beside, and is not mixed in.
    peaks = {words: list(rows["cost_value"]) for words, rows in values.groupby("measured_as", sort=False)}
    assert [("batch 1" in words, "batch 2" in words) for words in peaks] == [(True, False), (False, True)]
    assert list(peaks.values()) == [[1000, 1600, 1000, 1700], [1, 2]]


def test_latency_is_that_of_arms_timed_in_turn(values):
    latency = values[values["cost"] == "latency_s"].set_index("arm")
    # v1+ope ran 0.8 times as fast as v1, which took 0.2 s; the 0.9 s of its own were timed at another moment.
    assert list(latency["cost_value"]) == pytest.approx([0.2, 0.25])
    assert list(latency["cost_low"]) == pytest.approx([0.2, 0.16])
    assert list(latency["cost_high"]) == pytest.approx([0.2, 0.4])
    assert values.loc[values["cost"] != "latency_s", ["cost_low", "cost_high"]].isna().all(axis=None)
    assert list(latency["cost_change_percent"]) == pytest.approx([0, 25])


def test_without_v1_there_is_a_front_and_no_price(tmp_path, write_cell):
    for arm in ("v1+ope", "v1+cffn"):
        for seed in (0, 1):
            write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed)))
    values = tradeoff_values(load_records(tmp_path))
    assert set(values["cost"]) == {"params", "macs"}
    assert values["on_front"].any()
    assert values[["cost_change", "cost_per_point", "top1_difference_mean"]].isna().all(axis=None)


def test_the_whole_study_has_every_arm(quick_records):
    values = tradeoff_values(quick_records)
    costs = 2 + 2 + 2  # counts, peaks by mode, latencies by mode
    places = values.groupby(["cost", "measured_as"])
    assert [list(rows["arm"]) for _, rows in places] == [list(ARMS)] * costs


def test_no_records_make_no_values(tmp_path):
    assert tradeoff_values(load_records(tmp_path)).empty
