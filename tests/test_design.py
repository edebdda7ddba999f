"""Cells, their addresses, and studies."""

import json
from dataclasses import replace

import pytest

from ablations.config import ARMS
from ablations.design import (
    STUDIES,
    Accuracy,
    Cell,
    Cost,
    Grid,
    Memory,
    Speed,
    address,
    find_study,
    on_devices,
    select,
    vary,
)
from ablations.errors import InputError

CELL = Cell(variant="pico", arm="v1", frame="v2", conditions=Accuracy())


def test_the_address_depends_on_everything_that_is_measured():
    others = [
        replace(CELL, variant="nano"),
        replace(CELL, arm="v1+ope"),
        replace(CELL, frame="v1"),
        replace(CELL, frame="published", arm="v1+ope"),
        replace(CELL, attention="explicit"),
        replace(CELL, pool_size=3),
        *(replace(CELL, conditions=replace(Accuracy(), **{name: value})) for name, value in CHANGED.items()),
        replace(CELL, conditions=Memory()),
        replace(CELL, conditions=Speed()),
        replace(CELL, conditions=Cost()),
    ]
    assert set(CHANGED) == set(vars(Accuracy())), "a condition without a test"
    assert len({CELL.key, *(cell.key for cell in others)}) == 1 + len(others)
    assert CELL.key == replace(CELL).key


CHANGED = {
    "data": "fashion-mnist",
    "num_classes": 11,
    "resolution": 64,
    "train_images": 100,
    "epochs": 30,
    "batch_size": 7,
    "base_lr": 0.5,
    "weight_decay": 0.5,
    "warmup_epochs": 1.0,
    "label_smoothing": 0.5,
    "drop_path_rate": 0.5,
    "precision": "bf16",
    "device": "cuda",
    "seed": 5,
}


def test_the_published_name_of_a_variant_is_the_same_cell():
    assert replace(CELL, variant="small").key == replace(CELL, variant="b2").key


def test_accuracy_builds_the_model_for_its_data():
    cell = replace(CELL, conditions=Accuracy(resolution=64, num_classes=37, drop_path_rate=0.2))
    assert (cell.config.img_size, cell.config.num_classes, cell.config.drop_path_rate) == (64, 37, 0.2)


def test_vary_takes_every_combination():
    sizes = [(c.mode, c.resolution) for c in vary(Memory(), mode=("inference", "training"), resolution=(32, 64))]
    assert sizes == [("inference", 32), ("inference", 64), ("training", 32), ("training", 64)]


def test_arms_vary_fastest_so_that_an_interrupted_study_holds_comparisons():
    cells = list(Grid(variants=("pico",), conditions=vary(Accuracy(), seed=(0, 1))).cells())
    assert [cell.arm for cell in cells[:8]] == list(ARMS)
    assert {cell.conditions.seed for cell in cells[:8]} == {0}


@pytest.mark.parametrize("name", STUDIES)
def test_studies_hold_all_eight_arms_of_every_measurement(name):
    cells = find_study(name).cells()
    assert len({cell.key for cell in cells}) == len(cells)
    for measurement in {cell.measurement for cell in cells}:
        assert {cell.arm for cell in cells if cell.measurement == measurement} == set(ARMS)


def test_quick_has_every_measurement_and_seeds_enough_for_an_interval():
    cells = find_study("quick").cells()
    assert {cell.measurement for cell in cells} == {"cost", "memory", "speed", "accuracy"}
    assert len({cell.conditions.seed for cell in cells if isinstance(cell.conditions, Accuracy)}) >= 3


def test_select_keeps_cells_that_lack_the_field():
    cells = find_study("quick").cells()
    chosen = select(cells, seed=(1,), arm=("v1", "v1+ope"))
    assert {cell.arm for cell in chosen} == {"v1", "v1+ope"}
    assert {getattr(cell.conditions, "seed", None) for cell in chosen} == {None, 1}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"arm": ("v2",)}, "arm='v2' is not possible; allowed: v1, v1"),
        ({"seed": (99,)}, "seed=99 is not possible; allowed: 0, 1, 2"),
        ({"measurement": ("sped",)}, "measurement='sped'"),
    ],
)
def test_select_refuses_what_no_cell_has(wanted, message):
    with pytest.raises(InputError, match=message):
        select(find_study("quick").cells(), **wanted)


def test_cells_are_placed_on_devices_where_they_depend_on_one():
    cells = [replace(CELL, conditions=conditions) for conditions in (Cost(), Memory(), Speed())]
    placed = on_devices(cells, ("cpu", "cuda"))
    assert [(c.measurement, getattr(c.conditions, "device", None)) for c in placed] == [
        ("cost", None),
        ("memory", "cpu"),
        ("speed", "cpu"),
        ("memory", "cuda"),
        ("speed", "cuda"),
    ]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (Cost(resolution=16), "resolution=16 is not possible; allowed: 32 to 65536 pixels"),
        (Speed(repeats=0), "repeats=0"),
        (Memory(batch_size=0), "batch_size=0"),
        (Memory(mode="train"), "mode='train' is not possible; allowed: inference, training"),
        (Accuracy(epochs=0), "epochs=0"),
        (Accuracy(base_lr=0.0), "base_lr=0.0"),
        (Accuracy(weight_decay=-1.0), "weight_decay=-1.0"),
        (Accuracy(warmup_epochs=30.0), "warmup_epochs=30.0 is not possible; allowed: .* less than epochs"),
        (Accuracy(label_smoothing=1.0), "label_smoothing=1.0"),
        (Accuracy(train_images=-1), "train_images=-1"),
        (Accuracy(seed=-1), "seed=-1"),
        (Accuracy(num_classes=1), "num_classes=1"),
        (Accuracy(precision="fp8"), "precision='fp8'"),
        (Memory(device="tpu"), "device='tpu'"),
    ],
    ids=repr,
)
def test_impossible_conditions_are_refused(conditions, message):
    with pytest.raises(InputError, match=message):
        Cell(variant="pico", arm="v1", frame="v2", conditions=conditions)


def test_a_field_at_its_default_does_not_count_so_a_new_one_moves_no_record():
    description = CELL.describe()
    older = description | {"config": {k: v for k, v in description["config"].items() if k != "attention"}}
    older["conditions"] = {k: v for k, v in description["conditions"].items() if k != "drop_path_rate"}
    assert address(older) == CELL.key
    assert address(json.loads(json.dumps(description))) == CELL.key
