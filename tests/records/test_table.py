"""The table of records: its rows, its columns and their types, and filters."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.cells import Cell, build_cell
from ablations.errors import InputError
from ablations.measure import Accuracy, Cost, Memory, Speed
from ablations.records import load_records

IMAGES = {"n_eval_images": 10, "n_train_images": 20}
TIMES = {"throughput_img_per_s": 2.0, "reference_samples": [0.5]}
METHOD = {"memory_method": "tracked_storages"}


def test_no_records_make_an_empty_table_with_names(tmp_path):
    table = load_records(tmp_path)
    assert table.empty
    assert {"measurement", "variant", "arm", "base"} <= set(table)


def test_whole_numbers_stay_whole_beside_records_that_lack_them(write, pico, tmp_path):
    write(tmp_path)
    accuracy = {"top1": 0.5, "n_eval_images": 7, "n_train_images": 7}
    write(tmp_path, replace(pico, conditions=Accuracy(seed=3)), result=accuracy)
    table = load_records(tmp_path).set_index("measurement")
    assert str(table.loc["accuracy", "seed"]) == "3"
    assert str(table.loc["cost", "macs"]) == "20"
    assert table.loc["accuracy", "top1"] == 0.5


def test_one_measurement_comes_with_its_own_columns_only(write, pico, tmp_path):
    write(tmp_path)
    write(tmp_path, replace(pico, conditions=Memory()), result={"peak_memory_bytes": 1} | METHOD)
    table = load_records(tmp_path, "memory")
    assert list(table["peak_memory_bytes"]) == [1]
    assert "macs" not in table
    assert table["batch_size"].dtype == int
    assert list(table["device_name"]) == ["Imaginary CPU"]


@pytest.fixture
def write_few(write: Callable[..., Path], pico: Cell) -> Callable[[Path], None]:
    """`write_few(results)`: costs of three models at two sizes, accuracies of two arms and two seeds, one speed."""

    def write_all(results: Path) -> None:
        for resolution in (64, (64, 96)):
            for arm in ("v1", "v1+ope"):
                write(results, replace(pico.of(arm=arm), conditions=Cost(resolution=resolution)))
            write(results, build_cell(model="timm:resnet18", conditions=Cost(resolution=resolution)))
        for arm in ("v1", "v1+ope"):
            for seed in (0, 1):
                write(
                    results,
                    replace(pico.of(arm=arm), conditions=Accuracy(seed=seed, base_lr=1)),
                    {"top1": seed} | IMAGES,
                )
        write(results, replace(pico, conditions=Speed()), {"latency_s": 0.5, "noisy": False} | TIMES)

    return write_all


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({}, 11),
        ({"measurement": "accuracy"}, 4),
        ({"measurement": ["accuracy", "speed"]}, 5),
        ({"arm": "v1"}, 4),
        ({"arm": ["v1", "v1+ope"], "measurement": "cost"}, 4),
        ({"arm": None}, 2),
        ({"resolution": 64}, 3),
        ({"resolution": ["64", "64x96"]}, 6),
        ({"seed": range(2), "arm": ("v1",)}, 2),
        ({"noisy": False}, 1),
        ({"seed": 1, "measurement": "accuracy", "base_lr": 1.0}, 2),
        ({"seed": 1, "resolution": 64}, 0),  # both exist, and never together
        ({"arm": []}, 0),
    ],
    ids=str,
)
def test_filters_choose_rows(write_few, tmp_path, filters, count):
    write_few(tmp_path)
    table = load_records(str(tmp_path), **filters)
    assert len(table) == count
    for name, value in filters.items():
        if isinstance(value, str):
            assert set(table[name]) == {value}


def test_a_filter_leaves_the_columns_of_what_it_chose(write_few, tmp_path):
    write_few(tmp_path)
    assert {"seed", "macs", "noisy"} <= set(load_records(tmp_path))
    assert not {"macs", "noisy", "head"} & set(load_records(tmp_path, seed=0))


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"arms": "v1"}, r"column='arms' is not possible; allowed: one of \d+ names; nearest: arm"),
        ({"breakdown": 1}, "column='breakdown' is not possible"),
        ({"arm": "v2"}, "arm='v2' is not possible; allowed: a value that some of these records have: .*v1, v1[+]ope"),
        ({"arm": ["v1", "v3"]}, "arm='v3' is not possible"),
        ({"measurement": "accuracy", "seed": 7}, "seed=7 is not possible; .*: 0, 1$"),
        ({"measurement": "cost", "seed": 0}, "seed=0 is not possible"),
        ({"measurement": "energy"}, "measurement='energy' is not possible; allowed: cost, memory"),
        ({"resolution": [(64, 96)]}, "resolution='.64, 96.' is not possible; .*: 224, 32, 64, 64x96"),
    ],
    ids=str,
)
def test_a_filter_by_what_there_is_not_is_refused(write_few, tmp_path, filters, words):
    write_few(tmp_path)
    with pytest.raises(InputError, match=words) as error:
        load_records(tmp_path, **filters)
    assert "\n" not in str(error.value)


def test_without_records_every_filter_makes_an_empty_base(write, tmp_path):
    write(tmp_path)
    assert load_records(tmp_path, "speed", arm="v2").empty
    with pytest.raises(InputError, match="column='arms'"):
        load_records(tmp_path, "speed", arms="v2")


def test_columns_have_the_types_of_their_kinds(write_few, tmp_path):
    write_few(tmp_path)
    table, accuracy = load_records(tmp_path), load_records(tmp_path, "accuracy")
    assert [str(table[name].dtype) for name in ("seed", "noisy", "base_lr", "pixels")] == [
        *("Int64", "boolean", "float64", "int64")
    ]
    # The stored 0, 1 and 1 are whole; a fraction and a rate are not counts.
    assert [str(accuracy[name].dtype) for name in ("seed", "ffn_relu", "base_lr", "top1")] == [
        *("int64", "bool", "float64", "float64")
    ]


def test_a_column_that_nobody_described_has_the_type_of_its_values(write, pico, tmp_path):
    write(tmp_path, result={"params": 1, "macs": 2, "sparks": 3, "is_lit": True})
    write(tmp_path, pico.of(arm="v1"))
    table = load_records(tmp_path)
    assert [str(table[name].dtype) for name in ("sparks", "is_lit")] == ["Int64", "boolean"]
