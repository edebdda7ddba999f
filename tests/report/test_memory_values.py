"""How predicted memory grows, and what predictions are worth, on records that are made up."""

import math
import re
from dataclasses import replace

import pandas as pd
import pytest

from ablations.config import ARMS
from ablations.design import Cell, Memory, build_cell
from ablations.records import load_records
from ablations.report import memory_values
from ablations.report.build import list_figures
from ablations.report.memory_tables import MEMORY_TABLES
from ablations.report.memory_values import (
    growth_values,
    model_memory_values,
    peak_parts,
    validation_summary,
    validation_values,
)
from ablations.report.tables import render_markdown

PREDICTED = Cell(variant="nano", arm="v1", base="v2", conditions=Memory(method="predicted", resolution=64))
FIXED = {"parameters": 600, "gradients": 200, "optimizer": 150, "input": 50}


def write_prediction(results, write_cell, cell, growing_bytes):
    """Writes a prediction of 1,000 fixed bytes and so many that grow."""
    peak = sum(FIXED.values()) + growing_bytes
    kinds = FIXED | {"temporaries": growing_bytes}
    result = {"peak_memory_bytes": peak, "memory_method": "predicted_storages", "bytes_at_peak": kinds}
    write_cell(results, cell, result | {"parameter_bytes": 600, "input_bytes": 50, "peak_operator": "aten.gelu"})


def at(side, attention):
    return replace(PREDICTED, attention=attention, conditions=replace(PREDICTED.conditions, resolution=side))


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
    assert memory_values._overtaking_side(fused * ratios, fused) == pytest.approx(side, nan_ok=True)


def measure(results, write_cell, cell, environment=None, **result):
    conditions = replace(cell.conditions, method="measured")
    tracked = {"memory_method": "tracked_storages", "parameter_bytes": 600, "input_bytes": 50}
    write_cell(results, replace(cell, conditions=conditions), tracked | result, **(environment or {}))


def test_a_prediction_stands_beside_what_was_measured_under_the_same_conditions(tmp_path, write_cell):
    write_prediction(tmp_path, write_cell, PREDICTED, 1000)
    measure(tmp_path, write_cell, PREDICTED, peak_memory_bytes=1600, resident_peak_bytes=2008)
    measure(tmp_path, write_cell, replace(PREDICTED, arm="v1+ope"), peak_memory_bytes=1)
    rows = PREDICTED.conditions
    measure(
        tmp_path, write_cell, replace(PREDICTED, conditions=replace(rows, channels_last=False)), peak_memory_bytes=1
    )
    tracked, resident = validation_values(load_records(tmp_path)).to_dict("records")
    assert (tracked["way"], tracked["name"], tracked["predicted_bytes"]) == ("tracked", "v1", 2000)
    assert (tracked["measured_bytes"], tracked["difference_bytes"], tracked["difference_percent"]) == (1600, 400, 25)
    assert (resident["way"], resident["difference_bytes"]) == ("in-memory", -8)
    assert (tracked["beyond_goal"], resident["beyond_goal"]) == (True, False)  # 0.4 % of 0.5 are allowed


def test_the_summary_counts_what_is_equal_and_what_lies_beyond(tmp_path, write_cell):
    for arm, measured in (("v1", 2000), ("v1+ope", 2000), ("v1+cffn", 1600)):
        write_prediction(tmp_path, write_cell, replace(PREDICTED, arm=arm), 1000)
        measure(tmp_path, write_cell, replace(PREDICTED, arm=arm), peak_memory_bytes=measured)
    (row,) = validation_summary(load_records(tmp_path)).to_dict("records")
    assert row["case"] == "tracked, inference, float32"
    assert (row["n"], row["n_equal"], row["n_beyond_goal"]) == (3, 2, 1)
    assert (row["median_percent"], row["largest_percent"]) == (0, 25)
    assert row["worst"] == "`pvt:nano/v1+cffn/v2`, fused attention, 64 px"
    records = load_records(tmp_path)
    summary, cells = (
        render_markdown(table, table.values(records)) for table in MEMORY_TABLES if "validation" in table.name
    )
    assert "| tracked, inference, float32 | 3 |" in re.sub(" +", " ", summary)
    assert re.sub(" +", " ", cells).count("| beyond |") == 1


def test_models_stand_beside_the_arms_of_the_same_conditions(tmp_path, write_cell):
    arm = Cell(variant="b2", arm="v1", base="v2", conditions=PREDICTED.conditions)
    model = build_cell("timm:resnet50", PREDICTED.conditions)
    for cell in (arm, replace(arm, attention="explicit"), replace(arm, arm="v1+ope"), model):
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
            cell = replace(PREDICTED, arm=arm)
            write_prediction(tmp_path, write_cell, cell, 1000)
            measure(tmp_path, write_cell, cell, machine, peak_memory_bytes=1600 + 100 * number)
    summary = validation_summary(load_records(tmp_path))
    assert summary["n"].tolist() == [2] * len(MACHINES)
    by_machine = summary.set_index(["device_name", "torch", "threads"])["worst_bytes"].to_dict()
    assert by_machine == {tuple(machine.values()): 400 - 100 * number for number, machine in enumerate(MACHINES)}
    (table,) = (table for table in MEMORY_TABLES if table.name == "memory_validation")
    headings = [line for line in render_markdown(table, summary).splitlines() if line.startswith("## ")]
    assert len(set(headings)) == len(MACHINES)


def test_models_that_were_measured_on_two_machines_are_no_curve(tmp_path, write_cell):
    model, arm = "timm:resnet50", "pvt:b2/v1/v2"
    for side, machine, name in ((64, MACHINES[0], model), (128, MACHINES[1], model), (64, MACHINES[1], arm)):
        cell = build_cell(name, replace(PREDICTED.conditions, resolution=side))
        measure(tmp_path, write_cell, cell, machine, peak_memory_bytes=side)
    records = load_records(tmp_path)
    values = model_memory_values(records)
    # The arm stands beside no model: the one of its machine has another size.
    assert values["name"].tolist() == ["ResNet50", "ResNet50"]
    assert dict(zip(values["resolution"], values["threads"], strict=True)) == {"64": 2, "128": 1}
    assert list_figures(records) == []
    (table,) = (table for table in MEMORY_TABLES if table.name == "memory_models")
    headings = [line for line in render_markdown(table, values).splitlines() if line.startswith("## ")]
    assert [heading.rpartition(", ")[2] for heading in headings] == ["2 threads", "1 thread"]


def test_models_are_drawn_without_arms_too(tmp_path, write_cell):
    for side in (64, 128):
        sized = build_cell("timm:resnet50", replace(PREDICTED.conditions, resolution=side))
        write_prediction(tmp_path, write_cell, sized, 3 * side**2)
    (sheet,) = list_figures(load_records(tmp_path))
    assert sheet.name == "memory_models_cpu_predicted"
    (ax,) = sheet.draw().axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ResNet50: 1.00"]


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
    (table,) = (table for table in MEMORY_TABLES if table.name == "memory_parts")
    assert "gelu, forward" in render_markdown(table, table.values(load_records(tmp_path)))


def test_what_did_not_fit_says_so_and_has_no_change(tmp_path, write_cell):
    measure(tmp_path, write_cell, PREDICTED, peak_memory_bytes=2**20)
    told = {"peak_memory_bytes": None, "out_of_memory": "asked for 2 MiB, free 1 MiB"}
    measure(tmp_path, write_cell, replace(PREDICTED, arm="v1+ope"), **told)
    (table,) = (table for table in MEMORY_TABLES if table.name == "memory")
    rows = render_markdown(table, table.values(load_records(tmp_path))).splitlines()
    assert [row.split("|")[2].strip() for row in rows if row.startswith("| v1")] == ["1.000", "out of memory"]


def test_no_predictions_make_no_values(tmp_path, write_cell):
    empty = load_records(tmp_path)
    every = (growth_values, validation_values, validation_summary, model_memory_values, peak_parts)
    assert all(values(empty).empty for values in every)
    measure(tmp_path, write_cell, PREDICTED, peak_memory_bytes=1)
    records = load_records(tmp_path)
    assert all(values(records).empty for values in every)
