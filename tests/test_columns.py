"""The columns of the table of records: each described, in words, with its unit and kind."""

from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

from ablations.measure import MEASUREMENTS
from ablations.measure.metrics import METRICS
from ablations.records import describe_columns, load_records

RESULTS = Path(__file__).parents[1] / "results"

KINDS = {
    "integer": pd.api.types.is_integer_dtype,
    "number": pd.api.types.is_float_dtype,
    "boolean": pd.api.types.is_bool_dtype,
    "text": pd.api.types.is_string_dtype,
    "object": pd.api.types.is_object_dtype,
}


@pytest.mark.parametrize("measurement", [None, "cost", "memory", "speed", "accuracy"])
def test_every_committed_column_is_described_and_of_its_kind(measurement):
    table, described = load_records(RESULTS, measurement), describe_columns()
    assert set(table) <= set(described.index)
    for name in table:
        column = table[name] if table[name].notna().any() else table[name].astype("str")
        kind = described.loc[name, "kind"] if table[name].notna().any() else "text"
        assert KINDS[kind](column.dtype), (name, column.dtype)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_measurement_declares_what_records_and_tables_need(name):
    kind = MEASUREMENTS[name]
    assert kind.name == name
    assert kind.main_metric in kind.columns
    assert {*kind.axes, *kind.split_by} <= set(describe_columns().index)
    assert "resolution" in {field.name for field in fields(kind)}


def test_every_condition_and_metric_is_described_in_words():
    described = describe_columns()
    assert described.index.is_unique
    assert [name for name, meaning in described["meaning"].items() if not meaning.endswith(".")] == []
    conditions = {field.name for kind in MEASUREMENTS.values() for field in fields(kind)}
    results = {name for kind in MEASUREMENTS.values() for name in kind.columns}
    assert conditions | results | set(METRICS) <= set(described.index)
    assert list(described.loc["peak_memory_bytes"]) == ["Peak memory of the step.", "B", "integer"]
    assert list(described.loc["label_smoothing", ["unit", "kind"]]) == ["", "number"]
    assert list(described.loc["warmup_epochs", ["unit", "kind"]]) == ["epochs", "number"]
    assert described.loc["compiled", "kind"] == "boolean"
    assert described.loc["pool_size", "meaning"].startswith("P, the side in tokens")
