"""What may stand in one table, and how it is said."""

from dataclasses import fields, replace

import pytest

from ablations.config import ARMS, VARIANTS
from ablations.design import Accuracy, Cell, Cost, Memory, Speed
from ablations.errors import InputError
from ablations.records import load_records
from ablations.report.conditions import CONDITIONS, describe, group_by, split_by_conditions, varying

CELL = Cell(variant="pico", arm="v1", frame="v2", conditions=Accuracy())


def test_every_condition_of_a_recipe_but_the_seed_keeps_records_apart():
    assert {field.name for field in fields(Accuracy)} - {"seed"} <= set(CONDITIONS["accuracy"])
    assert "seed" not in CONDITIONS["accuracy"]


@pytest.mark.parametrize(
    "others",
    [
        {"conditions": Accuracy(epochs=3)},
        {"conditions": Accuracy(batch_size=16)},
        {"conditions": Accuracy(precision="bf16")},
        {"conditions": Accuracy(data="fashion-mnist")},
        {"frame": "v1"},
        {"variant": "nano"},
        {"attention": "explicit"},
        {"pool_size": 3},
        {"device_name": "Another CPU"},
        {"torch": "2.9.0"},
    ],
    ids=str,
)
def test_records_that_differ_in_a_condition_are_apart(tmp_path, write_cell, others):
    environment = {name: others.pop(name) for name in ("device_name", "torch") if name in others}
    for seed in (0, 1):
        write_cell(tmp_path, replace(CELL, conditions=Accuracy(seed=seed)))
    other = replace(CELL, **others)
    # Another machine's record of the same cell would replace it, so it is one of another seed.
    write_cell(tmp_path, replace(other, conditions=replace(other.conditions, seed=2)), **environment)
    groups = split_by_conditions(load_records(tmp_path), "accuracy")
    assert sorted(len(group.rows) for group in groups) == [1, 2]
    assert len(varying(group.conditions for group in groups)) >= 1


def test_threads_keep_times_apart_and_counts_know_no_machine(tmp_path, write_cell):
    speed, cost = replace(CELL, conditions=Speed()), replace(CELL, conditions=Cost())
    for cell in (speed, cost):
        write_cell(tmp_path, cell, threads=1)
        write_cell(tmp_path, replace(cell, arm="v1+ope"), threads=2, device_name="Another CPU")
    records = load_records(tmp_path)
    assert len(split_by_conditions(records, "speed")) == 2
    assert len(split_by_conditions(records, "cost")) == 1


def test_two_models_under_one_name_are_refused(tmp_path, write_cell, monkeypatch):
    memory = replace(CELL, conditions=Memory())
    write_cell(tmp_path, memory)
    monkeypatch.setitem(VARIANTS["pico"], "depths", (1, 1, 1, 2))  # as after an edit of the variants
    write_cell(tmp_path, replace(memory))
    with pytest.raises(InputError, match="are of different models under one name; remove what is out of date"):
        split_by_conditions(load_records(tmp_path), "memory")


def test_groups_keep_their_order_and_say_their_conditions(quick_records):
    groups = split_by_conditions(quick_records, "memory")
    assert [(group.conditions["attention"], group.conditions["mode"]) for group in groups] == [
        ("fused", "inference"),
        ("fused", "training"),
        ("explicit", "inference"),
        ("explicit", "training"),
    ]
    assert varying(group.conditions for group in groups) == ["attention", "mode"]
    assert list(groups[0].rows["arm"])[:8] == list(ARMS)
    assert describe(groups[0].conditions) == (
        "nano, frame v2, fused attention, P = 2, 1,000 classes, inference, batch 1, float32, cpu, "
        "measured, tracked_storages, "
        "Imaginary CPU, torch 2.8.0"
    )


def test_what_nobody_recorded_is_not_said():
    assert describe({"variant": "b0", "torch": None, "base_lr": 0.001, "unheard_of": 5}) == (
        "b0, learning rate 0.001, unheard of 5"
    )


def test_no_records_make_no_groups(tmp_path):
    empty = load_records(tmp_path)
    assert split_by_conditions(empty, "speed") == []
    assert group_by(empty, ["resolution"]) == []
