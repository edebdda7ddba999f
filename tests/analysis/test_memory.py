"""Peak memory: changes, growth and parts on made-up records, what predictions are worth, and libraries beside ours."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ablations.analysis.memory import (
    attention_savings,
    growth_values,
    library_memory_values,
    memory_values,
    model_memory_values,
    overtaking_side,
    peak_parts,
    validation_summary,
    validation_values,
)
from ablations.cells import arm_cell, build_cell
from ablations.config import ARMS
from ablations.measure import Memory
from ablations.records import load_records

MIB = 2**20
PREDICTED = arm_cell(variant="nano", arm="v1", base="v2", conditions=Memory(method="predicted", resolution=64))
FIXED = {"parameters": 600, "gradients": 200, "optimizer": 150, "input": 50}


def test_without_v1_there_is_no_change(tmp_path, write_cell):
    write_cell(tmp_path, build_cell("pvt:pico/v1+ope/v2", Memory(resolution=64)))
    values = memory_values(load_records(tmp_path))
    assert len(values) == 1
    assert values["peak_memory_bytes_change_percent"].isna().all()


def test_no_records_make_no_values(tmp_path):
    assert memory_values(load_records(tmp_path)).empty


def test_another_mode_or_machine_is_another_group(tmp_path, write_cell):
    for number, (conditions, machine) in enumerate(
        [({}, {}), ({"mode": "training"}, {}), ({}, {"device_name": "Another CPU"})]
    ):
        write_cell(tmp_path, build_cell(f"pvt:pico/{ARMS[number]}/v2", Memory(**conditions)), **machine)
    values = memory_values(load_records(tmp_path))
    # Nothing is compared across: only v1 has a change, against itself.
    assert dict(zip(values["arm"], values["peak_memory_bytes_change_percent"].notna(), strict=True)) == {
        arm: arm == "v1" for arm in ARMS[:3]
    }


def test_what_v1_needs_more_than_v1_with_linear_attention(tmp_path, write_cell):
    for arm, side, peak in (("v1", 64, 120), ("v1+lsra", 64, 100), ("v1", 128, 90), ("v1+lsra", 128, 120)):
        cell = build_cell(f"pvt:pico/{arm}/v2", Memory(resolution=side))
        write_cell(tmp_path, cell, {"peak_memory_bytes": peak, "memory_method": "tracked_storages"})
    values = memory_values(load_records(tmp_path))
    savings = attention_savings(values)
    assert list(savings) == ["v1+lsra"]
    assert savings["v1+lsra"].to_dict() == pytest.approx({"64": 20, "128": -25})
    assert attention_savings(values[values["arm"] == "v1"]).empty


def write_prediction(results, write_cell, cell, growing_bytes):
    """Writes a prediction of 1,000 fixed bytes and so many that grow."""
    peak = sum(FIXED.values()) + growing_bytes
    kinds = FIXED | {"temporaries": growing_bytes}
    result = {"peak_memory_bytes": peak, "memory_method": "predicted_storages", "bytes_at_peak": kinds}
    write_cell(results, cell, result | {"parameter_bytes": 600, "input_bytes": 50, "peak_operator": "aten.gelu"})


def at(side, attention):
    return replace(
        PREDICTED.of(overrides=(("attention", attention),)), conditions=replace(PREDICTED.conditions, resolution=side)
    )


def test_exponents_and_the_side_at_which_scores_overtake(tmp_path, write_cell):
    for side in (64, 128, 256):
        pixels = side**2
        write_prediction(tmp_path, write_cell, at(side, "fused"), 2 * pixels)
        # The scores, pixels squared over 8,192, are as large as all of 2 a pixel at 16,384 pixels.
        write_prediction(tmp_path, write_cell, at(side, "explicit"), 2 * pixels + pixels**2 // 8192)
    fused, explicit = growth_values(load_records(tmp_path)).to_dict("records")
    assert (fused["attention"], explicit["attention"]) == ("fused", "explicit")
    assert fused["growing_exponent"] == pytest.approx(1)
    assert 0.9 < fused["exponent"] < 1
    # From 2 + 2 a pixel at 16,384 to 2 + 8 at four times as many.
    assert explicit["growing_exponent"] == pytest.approx(math.log(10) / math.log(4))
    assert (explicit["scores_overtake_px"], explicit["sizes"]) == (pytest.approx(128), "128 to 256")
    assert math.isnan(fused["scores_overtake_px"])


def test_growth_has_the_kernels_side_by_side_and_the_arms_in_order(tmp_path, write_cell):
    for mode in ("inference", "training"):
        for kernel in ("explicit", "fused"):
            for arm in ("v1+ope+cffn", "v1+cffn", "v1"):
                for side in (64, 128):
                    cell = arm_cell(
                        "pico", arm, "v2", Memory(resolution=side, mode=mode, method="predicted"), attention=kernel
                    )
                    write_prediction(tmp_path, write_cell, cell, side**2)
    rows = growth_values(load_records(tmp_path))
    assert list(rows["attention"]) == (["fused"] * 3 + ["explicit"] * 3) * 2
    assert list(rows["arm"]) == ["v1", "v1+cffn", "v1+ope+cffn"] * 4
    assert rows["mode"].iloc[:6].nunique() == rows["mode"].iloc[6:].nunique() == 1


@pytest.mark.parametrize(
    ("ratios", "side"),
    [
        # Twice as much at 100 px; nowhere; from the first on; where the logarithm of the ratio has gone half its way.
        ([1.0, 2.0, 4.0], 100),
        ([1.0, 1.5, 1.9], math.nan),
        ([3.0, 4.0, 5.0], 10),
        ([1.0, 1.0, 4.0], math.sqrt(100 * 1000)),
    ],
)
def test_the_side_at_which_one_curve_is_twice_the_other(ratios, side):
    pixels = [10**2, 100**2, 1000**2]
    fused = pd.Series([5.0, 7.0, 9.0], index=pixels)
    assert overtaking_side(fused * ratios, fused) == pytest.approx(side, nan_ok=True)


def measure(results, write_cell, cell, environment=None, **result):
    conditions = replace(cell.conditions, method="measured")
    tracked = {"memory_method": "tracked_storages", "parameter_bytes": 600, "input_bytes": 50}
    write_cell(results, replace(cell, conditions=conditions), tracked | result, **(environment or {}))


def test_a_prediction_stands_beside_what_was_measured_under_the_same_conditions(tmp_path, write_cell):
    write_prediction(tmp_path, write_cell, PREDICTED, 1000)
    measure(tmp_path, write_cell, PREDICTED, peak_memory_bytes=1600, resident_peak_bytes=2008)
    measure(tmp_path, write_cell, PREDICTED.of(arm="v1+ope"), peak_memory_bytes=1)
    rows = PREDICTED.conditions
    measure(
        tmp_path, write_cell, replace(PREDICTED, conditions=replace(rows, channels_last=False)), peak_memory_bytes=1
    )
    tracked, resident = validation_values(load_records(tmp_path)).to_dict("records")
    assert (tracked["way"], tracked["name"], tracked["predicted_bytes"]) == ("tracked", "v1", 2000)
    assert (tracked["measured_bytes"], tracked["difference_bytes"], tracked["difference_percent"]) == (1600, 400, 25)
    assert (resident["way"], resident["difference_bytes"]) == ("resident", -8)
    assert (tracked["beyond_goal"], resident["beyond_goal"]) == (True, False)  # 0.4 % of 0.5 are allowed


def test_the_summary_counts_what_is_equal_and_what_lies_beyond(tmp_path, write_cell):
    for arm, measured in (("v1", 2000), ("v1+ope", 2000), ("v1+cffn", 1600)):
        write_prediction(tmp_path, write_cell, PREDICTED.of(arm=arm), 1000)
        measure(tmp_path, write_cell, PREDICTED.of(arm=arm), peak_memory_bytes=measured)
    (row,) = validation_summary(load_records(tmp_path)).to_dict("records")
    assert row["case"] == "tracked, inference, float32"
    assert (row["n"], row["n_equal"], row["n_beyond_goal"]) == (3, 2, 1)
    assert (row["median_percent"], row["largest_percent"]) == (0, 25)
    assert row["worst"] == "`pvt:nano/v1+cffn/v2`, fused attention, 64 px"
    assert (row["way"], row["mode"], row["precision"], row["batch_sizes"]) == ("tracked", "inference", "float32", "1")


def test_models_stand_beside_the_arms_of_the_same_conditions(tmp_path, write_cell):
    arm = arm_cell(variant="b2", arm="v1", base="v2", conditions=PREDICTED.conditions)
    model = build_cell("timm:resnet50", PREDICTED.conditions)
    for cell in (arm, arm.of(overrides=(("attention", "explicit"),)), arm.of(arm="v1+ope"), model):
        for side in (64, 128):
            sized = replace(cell, conditions=replace(cell.conditions, resolution=side))
            write_prediction(tmp_path, write_cell, sized, 3 * side**4)
    training = replace(arm.conditions, mode="training")
    write_prediction(tmp_path, write_cell, replace(arm, conditions=training), 1)
    values = model_memory_values(load_records(tmp_path))
    assert [*values["name"].unique()] == ["b2 v1", "ResNet50"]
    assert set(values["mode"]) == {"inference"}
    assert values["growing_exponent"].tolist() == pytest.approx([2.0] * 4)


MACHINES = [
    {"device_name": "Imaginary CPU", "torch": "2.8.0", "threads": 2},
    {"device_name": "Imaginary CPU", "torch": "2.8.0", "threads": 1},
    {"device_name": "Imaginary CPU", "torch": "2.9.0", "threads": 2},
    {"device_name": "Another CPU", "torch": "2.8.0", "threads": 2},
]


def test_what_was_measured_on_two_machines_is_never_summed_up_together(tmp_path, write_cell):
    for number, machine in enumerate(MACHINES):
        for arm in ARMS[2 * number : 2 * number + 2]:
            cell = PREDICTED.of(arm=arm)
            write_prediction(tmp_path, write_cell, cell, 1000)
            measure(tmp_path, write_cell, cell, machine, peak_memory_bytes=1600 + 100 * number)
    summary = validation_summary(load_records(tmp_path))
    assert summary["n"].tolist() == [2] * len(MACHINES)
    by_machine = summary.set_index(["device_name", "torch", "threads"])["worst_bytes"].to_dict()
    assert by_machine == {tuple(machine.values()): 400 - 100 * number for number, machine in enumerate(MACHINES)}


def test_models_that_were_measured_on_two_machines_are_no_curve(tmp_path, write_cell):
    model, arm = "timm:resnet50", "pvt:b2/v1/v2"
    for side, machine, name in ((64, MACHINES[0], model), (128, MACHINES[1], model), (64, MACHINES[1], arm)):
        cell = build_cell(name, replace(PREDICTED.conditions, resolution=side))
        measure(tmp_path, write_cell, cell, machine, peak_memory_bytes=side)
    values = model_memory_values(load_records(tmp_path))
    # The arm stands beside no model: the one of its machine has another size.
    assert values["name"].tolist() == ["ResNet50", "ResNet50"]
    assert dict(zip(values["resolution"], values["threads"], strict=True)) == {"64": 2, "128": 1}


def test_the_parts_of_a_peak_sum_to_it(tmp_path, write_cell):
    for side in (64, 128, 256):
        kinds = FIXED | {"activations": 7, "temporaries": side}
        result = {
            "peak_memory_bytes": sum(kinds.values()),
            "memory_method": "predicted_storages",
            "bytes_at_peak": kinds,
        }
        result |= {"activations_by_stage": {"stages.0": 5, "stages.2": 2}, "peak_operator": "aten.gelu"}
        write_cell(
            tmp_path, at(side, "fused"), result | {"peak_phase": "forward", "parameter_bytes": 600, "input_bytes": 50}
        )
    rows = peak_parts(load_records(tmp_path)).to_dict("records")
    assert [row["resolution"] for row in rows] == ["64", "256"]
    for row, side in zip(rows, (64, 256), strict=True):
        kinds = [row[f"{kind}_bytes"] for kind in (*FIXED, "activations", "temporaries")]
        assert sum(kinds) == row["peak_memory_bytes"] == 1007 + side
        assert [row[f"stage_{stage}_bytes"] for stage in range(1, 5)] == [5, 0, 2, 0]


def test_no_predictions_make_no_values(tmp_path, write_cell):
    empty = load_records(tmp_path)
    every = (
        growth_values,
        library_memory_values,
        validation_values,
        validation_summary,
        model_memory_values,
        peak_parts,
    )
    assert all(values(empty).empty for values in every)
    measure(tmp_path, write_cell, PREDICTED, peak_memory_bytes=1)
    records = load_records(tmp_path)
    assert all(values(records).empty for values in every)


V2 = "pvt:b0/v1+ope+cffn/published"


V2_LI = "pvt:b0/v1+ope+cffn+lsra/published"


@pytest.fixture
def read(tmp_path: Path, write_cell: Callable[..., Path]) -> Callable[..., pd.DataFrame]:
    """`read((model, MiB, conditions), ...)` returns the records of such peaks; None MiB is of a size refused."""

    def write_and_read(*peaks: tuple[str, float | None, dict[str, Any]]) -> pd.DataFrame:
        for model, mib, conditions in peaks:
            result: dict[str, Any] = {
                "peak_memory_bytes": None if mib is None else int(mib * MIB),
                "memory_method": "tracked_storages",
                "parameter_bytes": MIB,
                "input_bytes": MIB,
            }
            if "resident" in conditions:
                conditions = dict(conditions)
                result["resident_peak_bytes"] = conditions.pop("resident") * MIB
            write_cell(tmp_path, build_cell(model, Memory(**conditions)), result)
        return load_records(tmp_path)

    return write_and_read


def test_ours_stands_beside_each_layout_of_each_library(read: Callable[..., pd.DataFrame]) -> None:
    records = read(
        (V2, 90, {"resident": 99}),
        ("timm:pvt_v2_b0", 100, {"channels_last": False, "resident": 110}),
        ("timm:pvt_v2_b0", 90, {}),
        ("transformers:pvt_v2_b0", 120, {"channels_last": False}),
        (V2_LI, 80, {}),
        ("timm:pvt_v2_b0?linear=True", 60, {"channels_last": False}),
        ("timm:pvt_v2_b0?linear=True", 75, {}),
    )
    values = library_memory_values(records).set_index("arm")
    assert list(values.index) == ["v1+ope+cffn", "v1+ope+cffn+lsra"]
    v2, v2_li = (values.loc[arm] for arm in values.index)
    assert (v2["timm_bytes"], v2["timm_channels_last_bytes"]) == (100 * MIB, 90 * MIB)
    assert v2["timm_change_percent"] == pytest.approx(-10)
    assert v2["timm_channels_last_change_percent"] == 0
    assert v2["transformers_change_percent"] == pytest.approx(-25)
    assert pd.isna(v2["transformers_channels_last_bytes"])
    assert v2["timm_resident_change_percent"] == pytest.approx(-10)
    assert v2_li["timm_change_percent"] == pytest.approx(100 / 3)
    assert list(values["above"]) == [False, True]


def test_v1_is_compared_with_transformers(read: Callable[..., pd.DataFrame]) -> None:
    v1 = "pvt:b2/v1/published"
    values = library_memory_values(read((v1, 41, {}), ("transformers:pvt_b2", 40, {"channels_last": False})))
    assert list(values["above"]) == [True]
    assert list(values["case"]) == ["b2 v1, 224 px"]
    assert values["timm_bytes"].isna().all()


@pytest.mark.parametrize(
    ("model", "conditions"),
    [
        ("pvt:b0/v1+ope+cffn/v1", {}),
        ("pvt:b1/v1+ope+cffn/published", {}),
        (V2_LI, {}),
        (V2, {"resolution": 256}),
        (V2, {"mode": "training"}),
        (V2, {"batch_size": 2}),
        (V2, {"channels_last": False}),
        (V2, {"method": "predicted"}),
    ],
)
def test_what_differs_in_more_than_the_library_is_not_compared(
    model: str, conditions: dict[str, Any], read: Callable[..., pd.DataFrame]
) -> None:
    theirs = ("timm:pvt_v2_b0", 100, {"channels_last": False})
    assert library_memory_values(read((model, 90, conditions), theirs)).empty


@pytest.mark.parametrize("machine", [{"threads": 1}, {"torch": "2.9.0"}, {"device_name": "Another CPU"}], ids=str)
def test_what_was_measured_on_two_machines_is_not_compared(
    machine: dict[str, Any], tmp_path: Path, write_cell: Callable[..., Path]
) -> None:
    result = {"peak_memory_bytes": MIB, "memory_method": "tracked_storages"}
    write_cell(tmp_path, build_cell(V2, Memory()), result)
    write_cell(tmp_path, build_cell("timm:pvt_v2_b0", Memory(channels_last=False)), result, **machine)
    assert library_memory_values(load_records(tmp_path)).empty
    write_cell(tmp_path, build_cell("timm:pvt_v2_b0", Memory()), result)
    (row,) = library_memory_values(load_records(tmp_path)).to_dict("records")
    assert (row["timm_channels_last_change_percent"], row["threads"]) == (0, 2)
    assert pd.isna(row["timm_bytes"])


def test_predictions_are_compared_whichever_machine_made_them(tmp_path: Path, write_cell: Callable[..., Path]) -> None:
    result = {"peak_memory_bytes": MIB, "memory_method": "predicted_storages"}
    write_cell(tmp_path, build_cell(V2, Memory(method="predicted")), result)
    write_cell(tmp_path, build_cell("timm:pvt_v2_b0", Memory(method="predicted")), result, threads=1)
    assert len(library_memory_values(load_records(tmp_path))) == 1


def test_a_size_that_a_library_refuses_makes_no_row(read: Callable[..., pd.DataFrame]) -> None:
    assert library_memory_values(read((V2, 90, {}), ("timm:pvt_v2_b0", None, {"channels_last": False}))).empty


@pytest.mark.parametrize("peaks", [[], [("timm:pvt_v2_b0", 9, {})], [("timm:resnet18", 9, {})], [(V2, 9, {})]])
def test_without_pairs_there_is_no_row(peaks: list[Any], read: Callable[..., pd.DataFrame]) -> None:
    assert library_memory_values(read(*peaks)).empty


def test_equal_models_do_not_stand_among_models_by_name(read: Callable[..., pd.DataFrame]) -> None:
    values = model_memory_values(
        read(("timm:pvt_v2_b0", 9, {}), ("transformers:pvt_b2", 9, {}), ("timm:resnet18", 9, {}))
    )
    assert list(values["model"]) == ["timm:resnet18"]
