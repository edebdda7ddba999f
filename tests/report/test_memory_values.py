"""How predicted memory grows, and what predictions are worth, on records that are made up."""

from dataclasses import replace

import pytest

from ablations.design import Cell, Memory
from ablations.records import load_records
from ablations.report.memory_values import growth_values, validation_values
from ablations.report.values import model_memory_values

PREDICTED = Cell(variant="nano", arm="v1", frame="v2", conditions=Memory(method="predicted", resolution=64))
FIXED = {"parameters": 600, "gradients": 200, "optimizer": 150, "input": 50}


def write_prediction(results, write_cell, cell, growing_bytes):
    """Writes a prediction of 1,000 fixed bytes and so many that grow."""
    peak = sum(FIXED.values()) + growing_bytes
    kinds = FIXED | {"temporaries": growing_bytes}
    result = {"peak_memory_bytes": peak, "memory_method": "predicted_storages", "bytes_at_peak": kinds}
    write_cell(results, cell, result | {"parameter_bytes": 600, "input_bytes": 50, "peak_operator": "aten.gelu"})


def at(side, attention):
    return replace(PREDICTED, attention=attention, conditions=replace(PREDICTED.conditions, resolution=side))


def test_exponents_and_the_size_at_which_scores_overtake(tmp_path, write_cell):
    for side in (64, 128, 256):
        pixels = side**2
        write_prediction(tmp_path, write_cell, at(side, "fused"), 2 * pixels)
        # The scores, pixels squared over 8,192, are as large as all of 2 a pixel at 16,384 pixels.
        write_prediction(
            tmp_path, write_cell, at(side, "explicit"), 2 * pixels + 1000 * (side == 128) + pixels**2 // 8192
        )
    fused, explicit = growth_values(load_records(tmp_path)).to_dict("records")
    assert (fused["attention"], explicit["attention"]) == ("fused", "explicit")
    assert fused["growing_exponent"] == pytest.approx(1)
    assert 0.9 < fused["exponent"] < 1
    assert 1.3 < explicit["growing_exponent"] < 2
    assert (explicit["scores_overtake_px"], explicit["sizes"]) == (128, "128 to 256")
    assert fused["scores_overtake_px"] is None or str(fused["scores_overtake_px"]) == "<NA>"


def test_a_prediction_stands_beside_what_was_tracked_under_the_same_conditions(tmp_path, write_cell):
    write_prediction(tmp_path, write_cell, PREDICTED, 1000)
    tracked = {"memory_method": "tracked_storages", "parameter_bytes": 600, "input_bytes": 50}
    measured = replace(PREDICTED, conditions=replace(PREDICTED.conditions, method="measured"))
    write_cell(tmp_path, measured, tracked | {"peak_memory_bytes": 1600})
    write_cell(tmp_path, replace(measured, arm="v1+ope"), tracked | {"peak_memory_bytes": 1})
    (row,) = validation_values(load_records(tmp_path)).to_dict("records")
    assert (row["arm"], row["peak_memory_bytes_predicted"], row["peak_memory_bytes_tracked"]) == ("v1", 2000, 1600)
    assert (row["difference_bytes"], row["difference_percent"]) == (400, 25)


def test_no_predictions_make_no_values(tmp_path, write_cell):
    empty = load_records(tmp_path)
    assert all(values(empty).empty for values in (growth_values, validation_values, model_memory_values))
    measured = replace(PREDICTED, conditions=replace(PREDICTED.conditions, method="measured"))
    result = {"peak_memory_bytes": 1, "memory_method": "tracked_storages", "parameter_bytes": 1, "input_bytes": 1}
    write_cell(tmp_path, measured, result)
    records = load_records(tmp_path)
    assert growth_values(records).empty
    assert validation_values(records).empty
