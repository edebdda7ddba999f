"""The columns of the table of records: each described, in words, with its unit and kind; rows are sorted by them."""

from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest

from ablations.cells import build_cell
from ablations.config import ARMS
from ablations.measure import MEASUREMENTS, Accuracy, Cost
from ablations.measure.metrics import METRICS
from ablations.records import describe_columns, load_records

RESULTS = Path(__file__).parents[2] / "results"

IMAGES = {"n_eval_images": 10, "n_train_images": 20}

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


def test_rows_stand_in_the_order_of_bases_arms_and_sizes(write, pico, tmp_path):
    for resolution in (128, (64, 96), 64):
        for arm in reversed(ARMS):
            write(tmp_path, replace(pico.of(arm=arm), conditions=Cost(resolution=resolution)))
    write(tmp_path, pico.of(base="published"))
    table = load_records(tmp_path)
    assert list(table["base"].unique()) == ["published", "v2"]
    assert list(table["resolution"].unique()) == ["64", "64x96", "128"]
    assert list(table["arm"])[1:9] == list(ARMS)
    assert list(table.query("resolution == '64x96'")["pixels"].unique()) == [64 * 96]


def test_heads_stand_in_their_own_order(write, pico, tmp_path):
    heads = ("classifier", "retinanet", "mask_rcnn", "fcos", "semantic_fpn")
    for head in reversed(heads):
        write(tmp_path, replace(pico, conditions=Cost(head=head)))
        write(tmp_path, build_cell("timm:resnet18", Cost(head=head)))
    assert load_records(tmp_path)["head"].unique().tolist() == list(heads)


def test_a_default_recipe_stands_before_another(write, pico, tmp_path):
    for mixup, seed in ((0.8, 0), (0.2, 0), (0.0, 1), (0.8, 1), (0.0, 0)):
        write(tmp_path, replace(pico, conditions=Accuracy(mixup=mixup, seed=seed)), {"top1": 0.5} | IMAGES)
    table = load_records(tmp_path, "accuracy")
    assert table[["mixup", "seed"]].to_numpy().tolist() == [[0, 0], [0, 1], [0.2, 0], [0.8, 0], [0.8, 1]]
