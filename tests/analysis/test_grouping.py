"""What may stand in one table, and how it is said."""

from dataclasses import fields, replace

import pandas as pd
import pytest

from ablations import schema
from ablations.analysis.grouping import (
    AXES,
    CHANGEABLE,
    CONDITIONS,
    describe,
    group_by,
    list_changed,
    refuse_mixed,
    split_by_conditions,
    split_with_models,
    tell_apart,
    varying,
)
from ablations.cells import Arm, arm_cell, build_cell
from ablations.config import ARMS, VARIANTS
from ablations.errors import InputError
from ablations.measure import MEASUREMENTS, Accuracy, Cost, Memory, Speed
from ablations.records import load_records
from ablations.records.folder import read_records

CELL = arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_every_field_of_conditions_is_an_axis_or_keeps_records_apart(measurement):
    names = {field.name for field in fields(MEASUREMENTS[measurement])}
    assert names <= {*CONDITIONS[measurement], *AXES[measurement]}
    assert not set(CONDITIONS[measurement]) & set(AXES[measurement])


def test_the_machine_keeps_memory_and_speed_apart_alone():
    machine = {"device_name", "torch", "threads", "processes"}
    for measurement, names in CONDITIONS.items():
        apart = {"device_name", "torch", "threads"} if measurement in ("memory", "speed") else set()
        assert machine & set(names) == apart


def test_accuracy_pools_machines_and_names_them(tmp_path, write_cell):
    write_cell(tmp_path, CELL, torch="2.9.0")
    write_cell(tmp_path, replace(CELL, conditions=Accuracy(seed=1)), device_name="Another CPU", threads=1)
    write_cell(tmp_path, MODEL, {"top1": 0.5, "n_eval_images": 360, "n_train_images": 1437}, torch="3.0.0", threads=4)
    records = load_records(tmp_path)
    (group,) = split_by_conditions(records, "accuracy")
    machines = "Another CPU or Imaginary CPU, torch 2.8.0 or 2.9.0, 1 or 2 threads, 1 process"
    assert (len(group.rows), group.conditions["machines"]) == (2, machines)
    assert describe(group.conditions).endswith(machines)
    assert tell_apart(group.conditions, ["machines", "variant"]) == "pico"
    (group,) = split_with_models(records, "accuracy")
    assert (len(group.rows), "1 or 2 or 4 threads" in group.conditions["machines"]) == (3, True)


@pytest.mark.parametrize(
    "others",
    [
        {"conditions": Accuracy(epochs=3)},
        {"conditions": Accuracy(batch_size=16)},
        {"conditions": Accuracy(precision="bf16")},
        {"conditions": Accuracy(data="fashion-mnist")},
        {"base": "v1"},
        {"variant": "nano"},
        {"overrides": (("attention", "explicit"),)},
        {"overrides": (("pool_size", 3),)},
        {"conditions": Accuracy(eval_resolutions=(48,))},
        {"conditions": Accuracy(compiled=True)},
    ],
    ids=str,
)
def test_records_that_differ_in_a_condition_are_apart(tmp_path, write_cell, others):
    for seed in (0, 1):
        write_cell(tmp_path, replace(CELL, conditions=Accuracy(seed=seed)))
    conditions = others.get("conditions", CELL.conditions)
    names = {name: value for name, value in others.items() if name != "conditions"}
    write_cell(tmp_path, replace(CELL.of(**names), conditions=replace(conditions, seed=2)))
    groups = split_by_conditions(load_records(tmp_path), "accuracy")
    assert sorted(len(group.rows) for group in groups) == [1, 2]
    assert len(varying(group.conditions for group in groups)) >= 1


OTHERS = {
    **{"attention": "explicit", "pool_size": 3, "stem_stride": 4},
    **{"position_embedding": "learned", "pooling": "class_token", "stage_norm": "last"},
    **{"conv_init": "default", "ffn_relu": True, "num_classes": 5, "img_size": 96},
}
"""Of each field that an arm may override, a value that pico with v1+cffn in base v2 has not by itself."""


@pytest.mark.parametrize("field", Arm.ALLOWED)
@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_every_field_that_an_arm_may_override_is_a_condition(field, measurement):
    assert field in {*CONDITIONS[measurement], *CHANGEABLE}
    assert "changed" in CONDITIONS[measurement]


@pytest.mark.parametrize("field", Arm.ALLOWED)
def test_what_an_arm_overrides_keeps_it_apart_and_is_said(tmp_path, write_cell, field):
    names = {"variant": "pico", "arm": "v1+cffn", "base": "v2", "conditions": Cost(resolution=64)}
    for overrides in ({}, {field: OTHERS[field]}):
        write_cell(tmp_path, arm_cell(**names, **overrides))
    groups = split_by_conditions(load_records(tmp_path), "cost")
    assert [len(group.rows) for group in groups] == [1, 1]
    names = varying(group.conditions for group in groups)
    if field in CHANGEABLE:
        assert names == ["changed"]
        assert {tell_apart(group.conditions, names) for group in groups} == {"", f"{field}={OTHERS[field]}"}
    else:
        assert names == [field]
        assert len({tell_apart(group.conditions, names) for group in groups}) == 2


def test_threads_keep_times_apart_and_counts_know_no_machine(tmp_path, write_cell):
    speed, cost = replace(CELL, conditions=Speed()), replace(CELL, conditions=Cost())
    for cell in (speed, cost):
        write_cell(tmp_path, cell, threads=1)
        write_cell(tmp_path, cell.of(arm="v1+ope"), threads=2, device_name="Another CPU")
    records = load_records(tmp_path)
    assert len(split_by_conditions(records, "speed")) == 2
    assert len(split_by_conditions(records, "cost")) == 1


def test_a_model_that_its_name_does_not_say_any_more_is_named_and_left_out(tmp_path, write_cell, monkeypatch):
    memory = replace(CELL, conditions=Memory())
    write_cell(tmp_path, memory)
    monkeypatch.setitem(VARIANTS["pico"], "depths", (1, 1, 1, 2))  # as after an edit of the variants
    monkeypatch.setattr(schema, "_possible", set())  # as in another process
    write_cell(tmp_path, replace(memory))
    (why,) = read_records(tmp_path).damaged.values()
    assert "its model cannot be: depths=(1, 1, 1, 1) is not possible; allowed: (1, 1, 1, 2), of pico v1" in why
    (group,) = split_by_conditions(load_records(tmp_path), "memory")
    assert len(group.rows) == 1


def test_two_models_under_one_name_are_refused(tmp_path, write_cell):
    write_cell(tmp_path, replace(CELL, conditions=Memory()))
    records = load_records(tmp_path)
    with pytest.raises(InputError, match="are of different models under one name; remove what is out of date"):
        split_by_conditions(pd.concat([records, records.assign(key="another")], ignore_index=True), "memory")


def test_sizes_of_position_embeddings_are_kept_apart_and_said(tmp_path, write_cell):
    for img_size in (32, 64, (64, 96)):  # 32 is pico's own
        write_cell(tmp_path, arm_cell("pico", "v1", "v1", Memory(resolution=64), img_size=img_size))
    records = load_records(tmp_path)
    assert set(records["img_size"]) == {32, 64, "64x96"}
    groups = split_by_conditions(records, "memory")
    assert {tell_apart(group.conditions, ["changed"]) for group in groups} == {"", "img_size=64", "img_size=64x96"}


def test_a_size_that_the_measurement_sets_is_no_change_of_the_model(tmp_path, write_cell):
    for resolution in (32, 64):
        write_cell(tmp_path, arm_cell("pico", "v1", "v1", Accuracy(resolution=resolution)))
    groups = split_by_conditions(load_records(tmp_path), "accuracy")
    assert [group.conditions.get("changed") for group in groups] == [None, None]


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
        "pico, base v2, fused attention, P = 2, 10 classes, inference, batch 1, float32, cpu, "
        "measured, tracked_storages, "
        "Imaginary CPU, torch 2.8.0, 2 threads"
    )


def test_what_nobody_recorded_is_not_said():
    assert describe({"variant": "b0", "torch": None, "base_lr": 0.001, "unheard_of": 5}) == (
        "b0, learning rate 0.001, unheard of 5"
    )


def test_no_records_make_no_groups(tmp_path):
    empty = load_records(tmp_path)
    assert split_by_conditions(empty, "speed") == []
    assert group_by(empty, ["resolution"]) == []


def test_a_new_field_is_said_where_it_is_not_its_default():
    plain = {"variant": "b0", "mixup": 0.0, "rand_augment": "", "skip_unreadable": False, "aug_repeats": 1}
    changed = plain | {"mixup": 0.8, "rand_augment": "rand-m9", "aug_repeats": 3}
    assert describe(plain) == "b0"
    assert describe(changed) == "b0, mixup 0.8, rand augment rand-m9, aug repeats 3"
    assert list_changed(plain) == []
    assert list_changed(changed) == ["mixup", "rand_augment", "aug_repeats"]
    # Where it is what tells two groups apart, the default is said too.
    names = varying([plain, changed])
    assert tell_apart(plain, names) == "mixup 0, no rand augment, aug repeats 1"
    assert tell_apart(changed, names) == "mixup 0.8, rand augment rand-m9, aug repeats 3"


def test_one_is_no_plural():
    assert describe({"epochs": 1, "threads": 1, "warmup_epochs": 1.0}) == "1 epoch, 1 thread, 1 warm-up epoch"
    assert describe({"epochs": 11, "threads": 2}) == "11 epochs, 2 threads"


def test_mixed_rows_are_refused_by_the_name_of_the_condition():
    rows = pd.DataFrame({"mode": ["training", "inference", "training"], "arm": list("abc"), "torch": [None] * 3})
    assert refuse_mixed(rows, ["torch", "unheard_of"]) is None
    assert refuse_mixed(rows.iloc[[0, 2]], ["mode", "torch"]) is None
    with pytest.raises(InputError, match=r"^mode is mixed, inference, training; allowed: rows of one"):
        refuse_mixed(rows, ["torch", "mode"])
    with pytest.raises(InputError, match=r"^torch is mixed, "):
        refuse_mixed(rows.assign(torch=["2.8.0", None, None]), ["torch"])


MODEL = build_cell(model="timm:resnet18", conditions=Accuracy())


def test_models_stand_with_the_arms_of_their_conditions(tmp_path, write_cell):
    result = {"top1": 0.5, "n_eval_images": 360, "n_train_images": 1437}
    for cell in (CELL, CELL.of(arm="v1+ope"), CELL.of(base="v1"), MODEL):
        write_cell(tmp_path, cell, result)
    write_cell(tmp_path, replace(MODEL, conditions=Accuracy(epochs=50)), result)
    records = load_records(tmp_path)
    of_v1, of_v2, alone = split_with_models(records, "accuracy")
    assert [group.conditions.get("base") for group in (of_v1, of_v2, alone)] == ["v1", "v2", None]
    assert list(of_v2.rows["model"]) == ["pvt:pico/v1/v2", "pvt:pico/v1+ope/v2", "timm:resnet18"]
    assert list(of_v1.rows["model"]) == ["pvt:pico/v1/v1", "timm:resnet18"]
    assert (list(alone.rows["model"]), alone.conditions["epochs"]) == (["timm:resnet18"], 50)
    assert [len(group.rows) for group in split_by_conditions(records, "accuracy")] == [1, 2]
