"""Records: written whole, read with suspicion, shown as a tidy table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.cells import Cell, address, arm_cell, build_cell
from ablations.config import ARMS
from ablations.errors import InputError
from ablations.measure import Accuracy, Cost, Evaluation, Memory, Speed
from ablations.records import load_records, write_record
from ablations.records.bits import pack_bits, unpack_bits
from ablations.records.folder import find_record, read_records
from ablations.records.rearrange import drop_records, merge_records, pack_records, unpack_records
from ablations.records.record_file import read_record, record_path
from ablations.schema import SCHEMA, record_digest

CELL = arm_cell(variant="pico", arm="v1+ope", base="v2", conditions=Cost(resolution=64))


def write(results: Path, cell: Cell = CELL, result: dict | None = None, failure: str | None = None) -> Path:
    return write_record(
        results,
        cell,
        study="quick",
        result=None if failure else result or {"params": 10, "macs": 20, "macs_traced": 20, "breakdown": {}},
        failure=failure,
        environment={"device_name": "Imaginary CPU", "torch": "2.8.0", "threads": 2, "commit": None},
        started="2026-01-02T03:04:05+00:00",
        duration_s=0.5,
    )


def test_a_record_says_everything_about_its_cell(tmp_path):
    path = write(tmp_path)
    assert path == record_path(tmp_path, CELL)
    assert path.name == f"pico_v2_v1-ope_{CELL.key}.json"
    assert path.parent.name == "cost"
    record = find_record(tmp_path, CELL)
    assert record == read_record(path)
    assert record["key"] == CELL.key
    assert record["status"] == "done"
    assert record["config"]["embed_dims"] == [8, 16, 32, 64]
    assert record["conditions"] == {"resolution": 64, "head": "classifier"}
    assert record["result"]["macs"] == 20
    assert not read_records(tmp_path).damaged


def test_a_failed_cell_keeps_its_reason_and_stays_out_of_the_table(tmp_path):
    write(tmp_path, failure="RuntimeError: out of memory")
    record = find_record(tmp_path, CELL)
    assert (record["status"], record["failure"], record["result"]) == ("failed", "RuntimeError: out of memory", None)
    assert load_records(tmp_path).empty


def test_a_cell_that_was_not_measured_has_no_record(tmp_path):
    write(tmp_path)
    assert find_record(tmp_path, CELL.of(arm="v1")) is None


def edit(path: Path, **changes: object) -> None:
    """Changes a record and its digest, as another version of this code would."""
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(record | {"digest": record_digest(record)}))


def edit_in(path: Path, part: str, **changes: object) -> None:
    """Changes an object within a record, and the address as another version of this code would."""
    record = json.loads(path.read_text())
    record[part] |= changes
    described = {name: record[name] for name in ("measurement", "variant", "arm", "base", "config", "conditions")}
    record["key"] = address(described)
    record["digest"] = record_digest(record)
    path.unlink()
    path.with_name(f"pico_{record['key']}.json").write_text(json.dumps(record))


def edit_result(path: Path, **changes: object) -> None:
    record = json.loads(path.read_text())
    record["result"] |= changes
    path.write_text(json.dumps(record))


def truncate(path: Path) -> None:
    path.write_text(path.read_text()[:100])


def drop_result(path: Path) -> None:
    record = json.loads(path.read_text())
    del record["result"]
    path.write_text(json.dumps(record))


DAMAGES = {
    "not JSON": truncate,
    "it was changed after it was measured": lambda path: edit_result(path, params=11),
    f"not a record of schema {SCHEMA}": lambda path: edit(path, schema=0),
    "lacks result": drop_result,
    "its result and its status contradict each other": lambda path: edit(path, result=None),
    "its result has no params": lambda path: edit(path, result={"macs": 20}),
    "its description was changed after it was measured": lambda path: edit(path, arm="v1"),
    "this version does not know ema of its conditions": lambda path: edit_in(path, "conditions", ema=0.9),
    "this version does not know registers of its config": lambda path: edit_in(path, "config", registers=4),
    "it has no params of the kind that it should be (integer)": lambda path: edit_in(path, "result", params="ten"),
    "it has no macs of the kind that it should be (integer)": lambda path: edit_in(path, "result", macs=True),
    "it has no threads of the kind that it should be": lambda path: edit_in(path, "environment", threads=[2]),
    "its conditions cannot be: resolution=(1, 2, 3) is not possible; allowed: a whole number or several: a whole "
    "number, a whole number": lambda path: edit_in(path, "conditions", resolution=[1, 2, 3]),
    "it has no started of the kind that it should be": lambda path: edit(path, started=20260102),
    "it has no duration_s of the kind that it should be": lambda path: edit(path, duration_s="long"),
    "cannot be read: Is a directory": lambda path: (path.unlink(), path.mkdir()),
    "it lies under another record's name": lambda path: path.rename(path.with_name("copy.json")),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_damaged_file_is_named_and_left_out(tmp_path, reason):
    whole = write(tmp_path, CELL.of(arm="v1"))
    DAMAGES[reason](write(tmp_path))
    (name,) = {path.name for path in whole.parent.iterdir()} - {whole.name}
    assert read_records(tmp_path).damaged == {f"records/cost/{name}": reason}
    assert find_record(tmp_path, CELL) is None
    assert [record["arm"] for record in read_records(tmp_path).records] == ["v1"]
    assert list(load_records(tmp_path)["arm"]) == ["v1"]


MAIN = {Cost: "params", Memory: "peak_memory_bytes", Speed: "latency_s", Accuracy: "top1", Evaluation: "top1"}
IMAGES = {"n_eval_images": 10, "n_train_images": 20}
TIMES = {"throughput_img_per_s": 2.0, "reference_samples": [0.5]}
METHOD = {"memory_method": "tracked_storages"}


@pytest.mark.parametrize(("kind", "metric"), MAIN.items(), ids=lambda value: getattr(value, "__name__", value))
def test_a_finished_record_has_its_main_metric(tmp_path, kind, metric):
    cell = replace(CELL, conditions=kind())
    path = write(tmp_path, cell, result={"seconds": 1.0})
    assert read_records(tmp_path).damaged == {f"records/{kind.name}/{path.name}": f"its result has no {metric}"}
    write(tmp_path, cell, failure="RuntimeError: out of luck")
    assert find_record(tmp_path, cell)["status"] == "failed"
    result = {metric: 1} | {Accuracy: IMAGES, Speed: TIMES, Memory: METHOD}.get(kind, {})
    write(tmp_path, cell, result=result)
    assert find_record(tmp_path, cell)["result"] == result
    assert read_records(tmp_path).damaged == {}


def test_memory_that_was_not_there_has_no_number(tmp_path):
    write(tmp_path, replace(CELL, conditions=Memory()), result={"peak_memory_bytes": None, "out_of_memory": "much"})
    assert read_records(tmp_path).damaged == {}
    write(tmp_path, replace(CELL, conditions=Accuracy()), result={"top1": None})
    assert list(read_records(tmp_path).damaged.values()) == ["its result has no top1"]


def test_no_records_make_an_empty_table_with_names(tmp_path):
    table = load_records(tmp_path)
    assert table.empty
    assert {"measurement", "variant", "arm", "base"} <= set(table)


def test_rows_stand_in_the_order_of_bases_arms_and_sizes(tmp_path):
    for resolution in (128, (64, 96), 64):
        for arm in reversed(ARMS):
            write(tmp_path, replace(CELL.of(arm=arm), conditions=Cost(resolution=resolution)))
    write(tmp_path, CELL.of(base="published"))
    table = load_records(tmp_path)
    assert list(table["base"].unique()) == ["published", "v2"]
    assert list(table["resolution"].unique()) == ["64", "64x96", "128"]
    assert list(table["arm"])[1:9] == list(ARMS)
    assert list(table.query("resolution == '64x96'")["pixels"].unique()) == [64 * 96]


def test_whole_numbers_stay_whole_beside_records_that_lack_them(tmp_path):
    write(tmp_path)
    accuracy = {"top1": 0.5, "n_eval_images": 7, "n_train_images": 7}
    write(tmp_path, replace(CELL, conditions=Accuracy(seed=3)), result=accuracy)
    table = load_records(tmp_path).set_index("measurement")
    assert str(table.loc["accuracy", "seed"]) == "3"
    assert str(table.loc["cost", "macs"]) == "20"
    assert table.loc["accuracy", "top1"] == 0.5


def test_one_measurement_comes_with_its_own_columns_only(tmp_path):
    write(tmp_path)
    write(tmp_path, replace(CELL, conditions=Memory()), result={"peak_memory_bytes": 1} | METHOD)
    table = load_records(tmp_path, "memory")
    assert list(table["peak_memory_bytes"]) == [1]
    assert "macs" not in table
    assert table["batch_size"].dtype == int
    assert list(table["device_name"]) == ["Imaginary CPU"]


def test_a_record_from_before_a_field_stands_beside_newer_ones(tmp_path):
    cells = [arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy(seed=seed)) for seed in (0, 1)]
    for cell in cells:
        outcome = {"study": "test", "result": {"top1": 0.5} | IMAGES, "failure": None, "started": "2026-01-01"}
        write_record(tmp_path, cell, **outcome, environment={}, duration_s=1.0)
    path = record_path(tmp_path, cells[0])
    older = json.loads(path.read_text())
    del older["conditions"]["label_smoothing"], older["config"]["qkv_bias"]
    path.write_text(json.dumps(older | {"digest": record_digest(older)}))
    assert load_records(tmp_path)["label_smoothing"].tolist() == [0.1, 0.1]


@pytest.mark.parametrize(
    "change",
    [{"measurement": "energy"}, {"measurement": []}, {"config": []}, {"conditions": None}, {"environment": "laptop"}],
    ids=str,
)
def test_a_foreign_record_is_damaged_and_stops_nothing(tmp_path, change):
    cell = arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())
    outcome = {"study": "test", "result": {"top1": 0.5} | IMAGES, "failure": None, "started": "2026-01-01"}
    path = write_record(tmp_path, cell, **outcome, environment={}, duration_s=1.0)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert find_record(tmp_path, cell) is None
    assert len(read_records(tmp_path).damaged) == 1
    assert load_records(tmp_path).empty


def test_a_model_that_is_no_arm_has_a_record_and_a_row_too(tmp_path):
    cell = build_cell("timm:vit_small_patch16_224?dynamic_img_size=True", Cost(resolution=(64, 96), head="fcos"))
    write(tmp_path)
    path = write(tmp_path, cell, result={"params": 7, "macs": None, "refused": "too small"})
    assert path.name == f"timm-vit-small-patch16-224-dynamic-img-size-True_{cell.key}.json"
    record = find_record(tmp_path, cell)
    assert record["model"] == cell.name
    assert not {"variant", "arm", "base", "config"} & set(record)
    assert not read_records(tmp_path).damaged
    table = load_records(tmp_path).set_index("model")
    assert list(table.index) == ["pvt:pico/v1+ope/v2", cell.name]
    row = table.loc[cell.name]
    assert (row["resolution"], row["pixels"], row["head"], row["params"]) == ("64x96", 64 * 96, "fcos", 7)
    assert row[["variant", "arm", "base", "pool_size", "position_embedding", "macs"]].isna().all()
    assert (table["macs"].iloc[0], str(table["macs"].dtype)) == (20, "Int64")
    edit(path, model="timm:resnet18")
    assert list(read_records(tmp_path).damaged.values()) == ["its description was changed after it was measured"]


def test_the_file_that_a_model_came_from_is_part_of_its_record(tmp_path):
    (tmp_path / "mine.py").write_text("")
    cell = build_cell(f"{tmp_path / 'mine.py'}:build", Cost())
    path = write(tmp_path, cell)
    assert find_record(tmp_path, cell)["file_sha256"] == cell.model.file_digest
    edit(path, file_sha256="0" * 64)
    assert find_record(tmp_path, cell) is None
    assert list(read_records(tmp_path).damaged.values()) == ["its description was changed after it was measured"]


def test_a_cost_from_before_there_were_heads_is_the_classifier_s(tmp_path):
    path = write(tmp_path)
    edit(path, conditions={"resolution": 64})
    assert find_record(tmp_path, CELL)["conditions"] == {"resolution": 64}
    assert load_records(tmp_path)["head"].tolist() == ["classifier"]


def test_heads_stand_in_their_own_order(tmp_path):
    heads = ("classifier", "retinanet", "mask_rcnn", "fcos", "semantic_fpn")
    for head in reversed(heads):
        write(tmp_path, replace(CELL, conditions=Cost(head=head)))
        write(tmp_path, build_cell("timm:resnet18", Cost(head=head)))
    assert load_records(tmp_path)["head"].unique().tolist() == list(heads)


def test_of_a_users_file_only_the_newest_model_is_loaded(tmp_path):
    file = tmp_path / "mine.py"
    for number, started in enumerate(("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")):
        file.write_text(f"# version {number}")
        cell = build_cell(f"{file}:build", Cost())
        outcome = {"study": "test", "failure": None, "environment": {}, "duration_s": 1.0}
        write_record(tmp_path, cell, result={"params": number, "macs": 1}, started=started, **outcome)
    assert len(list((tmp_path / "records" / "cost").iterdir())) == 2
    assert load_records(tmp_path)["params"].tolist() == [1]


def test_files_that_are_no_records_are_named_and_hidden_ones_are_not(tmp_path):
    path = write(tmp_path)
    folder = tmp_path / "records"
    for name in ("notes.md", "cost/notes.txt", f"cost/old/{path.name}", ".DS_Store", f"cost/.{path.name}.7"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "cost" / "deep.json").write_text("[" * 100_000)
    misplaced = "neither MEASUREMENT/NAME.json nor MEASUREMENT.jsonl, which records are"
    assert read_records(tmp_path).damaged == {
        "records/cost/deep.json": "not JSON",
        "records/cost/notes.txt": misplaced,
        f"records/cost/old/{path.name}": misplaced,
        "records/notes.md": misplaced,
    }
    assert len(load_records(tmp_path)) == 1


def write_few(results: Path) -> None:
    """Costs of three models at two sizes, accuracies of two arms and two seeds, one speed."""
    for resolution in (64, (64, 96)):
        for arm in ("v1", "v1+ope"):
            write(results, replace(CELL.of(arm=arm), conditions=Cost(resolution=resolution)))
        write(results, build_cell(model="timm:resnet18", conditions=Cost(resolution=resolution)))
    for arm in ("v1", "v1+ope"):
        for seed in (0, 1):
            write(
                results, replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed, base_lr=1)), {"top1": seed} | IMAGES
            )
    write(results, replace(CELL, conditions=Speed()), {"latency_s": 0.5, "noisy": False} | TIMES)


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
def test_filters_choose_rows(tmp_path, filters, count):
    write_few(tmp_path)
    table = load_records(str(tmp_path), **filters)
    assert len(table) == count
    for name, value in filters.items():
        if isinstance(value, str):
            assert set(table[name]) == {value}


def test_a_filter_leaves_the_columns_of_what_it_chose(tmp_path):
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
def test_a_filter_by_what_there_is_not_is_refused(tmp_path, filters, words):
    write_few(tmp_path)
    with pytest.raises(InputError, match=words) as error:
        load_records(tmp_path, **filters)
    assert "\n" not in str(error.value)


def test_without_records_every_filter_makes_an_empty_base(tmp_path):
    write(tmp_path)
    assert load_records(tmp_path, "speed", arm="v2").empty
    with pytest.raises(InputError, match="column='arms'"):
        load_records(tmp_path, "speed", arms="v2")


def test_columns_have_the_types_of_their_kinds(tmp_path):
    write_few(tmp_path)
    table, accuracy = load_records(tmp_path), load_records(tmp_path, "accuracy")
    assert [str(table[name].dtype) for name in ("seed", "noisy", "base_lr", "pixels")] == [
        *("Int64", "boolean", "float64", "int64")
    ]
    # The stored 0, 1 and 1 are whole; a fraction and a rate are not counts.
    assert [str(accuracy[name].dtype) for name in ("seed", "ffn_relu", "base_lr", "top1")] == [
        *("int64", "bool", "float64", "float64")
    ]


def test_a_column_that_nobody_described_has_the_type_of_its_values(tmp_path):
    write(tmp_path, result={"params": 1, "macs": 2, "sparks": 3, "is_lit": True})
    write(tmp_path, CELL.of(arm="v1"))
    table = load_records(tmp_path)
    assert [str(table[name].dtype) for name in ("sparks", "is_lit")] == ["Int64", "boolean"]


def test_a_default_recipe_stands_before_another(tmp_path):
    for mixup, seed in ((0.8, 0), (0.2, 0), (0.0, 1), (0.8, 1), (0.0, 0)):
        write(tmp_path, replace(CELL, conditions=Accuracy(mixup=mixup, seed=seed)), {"top1": 0.5} | IMAGES)
    table = load_records(tmp_path, "accuracy")
    assert table[["mixup", "seed"]].to_numpy().tolist() == [[0, 0], [0, 1], [0.2, 0], [0.8, 0], [0.8, 1]]


def write_some(folder: Path) -> list[Path]:
    """Writes cost of each arm and memory of one, from two machines, and one failed cell."""
    paths = [write(folder, CELL.of(arm=arm)) for arm in ARMS]
    paths.append(write(folder, replace(CELL, conditions=Memory()), result={"peak_memory_bytes": 7} | METHOD))
    paths.append(write(folder, replace(CELL, conditions=Memory(mode="training")), failure="RuntimeError: no"))
    edit(paths[0], environment={"device_name": "Another", "torch": "2.9.0", "threads": 1, "commit": "abc"})
    return paths


def test_packing_and_unpacking_lose_nothing(tmp_path):
    paths = write_some(tmp_path)
    before = {path: path.read_text() for path in sorted(paths)}
    table = load_records(tmp_path)
    assert pack_records(tmp_path) == {"cost": len(ARMS), "memory": 2}
    assert sorted(path.name for path in (tmp_path / "records").glob("*.jsonl")) == ["cost.jsonl", "memory.jsonl"]
    assert load_records(tmp_path).equals(table)
    assert find_record(tmp_path, CELL)["key"] == CELL.key
    assert read_records(tmp_path).damaged == {}
    lines = (tmp_path / "records" / "cost.jsonl").read_text().splitlines()
    assert len(json.loads(lines[0])["environments"]) == 2
    keys = [json.loads(line)["key"] for line in lines[1:]]
    assert keys == sorted(keys)
    packed = {path: path.read_text() for path in (tmp_path / "records").glob("*.jsonl")}
    assert pack_records(tmp_path) == {"cost": len(ARMS), "memory": 2}
    assert {path: path.read_text() for path in (tmp_path / "records").glob("*.jsonl")} == packed
    unpack_records(tmp_path)
    assert {path: json.loads(path.read_text()) for path in sorted(paths)} == {
        path: json.loads(text) for path, text in before.items()
    }
    assert load_records(tmp_path).equals(table)


def test_a_file_of_its_own_counts_more_than_a_packed_line(tmp_path):
    write(tmp_path, failure="RuntimeError: out of memory")
    write(tmp_path, CELL.of(arm="v1"))
    pack_records(tmp_path)
    write(tmp_path)
    assert find_record(tmp_path, CELL)["status"] == "done"
    assert sorted(load_records(tmp_path)["arm"]) == ["v1", "v1+ope"]
    pack_records(tmp_path)
    assert sorted(load_records(tmp_path)["arm"]) == ["v1", "v1+ope"]


def test_a_damaged_line_is_named_and_the_others_stand(tmp_path):
    write_some(tmp_path)
    pack_records(tmp_path)
    path = tmp_path / "records" / "cost.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace('"params": 10', '"params": 11')
    lines[4] = lines[4][:50]
    path.write_text("\n".join(lines) + "\n")
    damaged = {
        "records/cost.jsonl, line 3": "it was changed after it was measured",
        "records/cost.jsonl, line 5": "not JSON",
    }
    assert read_records(tmp_path).damaged == damaged
    assert len(load_records(tmp_path, "cost")) == len(ARMS) - 2
    with pytest.raises(InputError, match=r"records/cost.jsonl, line 3: it was changed"):
        pack_records(tmp_path)
    assert read_records(tmp_path).damaged == damaged
    path.write_text("{}\n")
    assert read_records(tmp_path).damaged == {
        "records/cost.jsonl": f"its first line has no environments of schema {SCHEMA}"
    }


def test_merging_unites_folders_and_refuses_two_results_under_one_key(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    write(here)
    write(here, CELL.of(arm="v1"), failure="RuntimeError: no")
    write(there, CELL.of(arm="v1"))
    write(there, CELL.of(arm="v1+cffn"))
    pack_records(there)
    assert merge_records(here, [there]) == 2
    assert sorted(load_records(here)["arm"]) == ["v1", "v1+cffn", "v1+ope"]
    assert merge_records(here, [there]) == 0
    other = tmp_path / "other"
    write(other, CELL, result={"params": 11, "macs": 20})
    write(other, CELL.of(arm="v1+lsra"))
    with pytest.raises(InputError, match=rf"^pico_v2_v1-ope_{CELL.key} differs between .*here and .*other"):
        merge_records(here, [other])
    assert len(load_records(here)) == 3
    with pytest.raises(InputError, match="nowhere' is not possible; allowed: a results folder"):
        merge_records(here, [tmp_path / "nowhere"])


@pytest.mark.parametrize("packed", [False, True])
def test_dropping_moves_records_aside_and_merging_brings_them_back(tmp_path, packed):
    write_some(tmp_path)
    table = load_records(tmp_path)
    if packed:
        pack_records(tmp_path)
    aside = drop_records(tmp_path, lambda record: record.get("arm") == "v1+ope" and record["measurement"] == "cost")
    assert aside.parent == tmp_path / "dropped"
    assert list(load_records(aside)["arm"]) == ["v1+ope"]
    assert len(load_records(tmp_path)) == len(table) - 1
    assert merge_records(tmp_path, [aside]) == 1
    assert load_records(tmp_path).equals(table)
    assert drop_records(tmp_path, lambda record: False) is None


def test_a_finished_packed_record_counts_more_than_a_failed_one_and_is_never_lost(tmp_path):
    write(tmp_path)
    pack_records(tmp_path)
    write(tmp_path, failure="RuntimeError: no")
    assert find_record(tmp_path, CELL)["status"] == "done"
    assert len(load_records(tmp_path)) == 1
    for rearrange in (pack_records, unpack_records, pack_records):
        rearrange(tmp_path)
        assert find_record(tmp_path, CELL)["status"] == "done"
    write(tmp_path, failure="RuntimeError: no")
    aside = drop_records(tmp_path, lambda record: True)
    assert find_record(aside, CELL)["status"] == "done"
    assert find_record(tmp_path, CELL) is None


@pytest.mark.parametrize(
    "rearrange", [pack_records, unpack_records, lambda folder: drop_records(folder, lambda _: True)]
)
def test_two_results_of_one_key_are_refused_before_anything_moves(tmp_path, rearrange):
    write(tmp_path)
    pack_records(tmp_path)
    write(tmp_path, result={"params": 11, "macs": 20})
    files = {path: path.read_bytes() for path in (tmp_path / "records").rglob("*.json*")}
    with pytest.raises(InputError, match="have different results: keep one of them"):
        rearrange(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "records").rglob("*.json*")} == files
    assert not (tmp_path / "dropped").exists()


def test_a_packed_line_of_another_form_is_named(tmp_path):
    path = write(tmp_path)
    own = path.read_text()
    pack_records(tmp_path)
    packed = tmp_path / "records" / "cost.jsonl"
    packed.write_text(packed.read_text() + json.dumps(json.loads(own)) + "\n")
    assert read_records(tmp_path).damaged == {"records/cost.jsonl, line 3": "its environment is not in the first line"}


def test_a_study_declares_its_seeds_in_the_record(tmp_path):
    cell = arm_cell("pico", "v1", "v2", Accuracy())
    outcome = {"study": "digits", "result": {"top1": 0.5} | IMAGES, "failure": None, "started": "2026-01-01"}
    for number, declared in enumerate((None, 7)):
        write_record(tmp_path / str(number), cell, **outcome, environment={}, duration_s=1.0, declared_seeds=declared)
    assert load_records(tmp_path / "0")["declared_seeds"].tolist() == [20]  # the package's study of that name
    assert load_records(tmp_path / "1")["declared_seeds"].tolist() == [7]


def test_bits_are_packed_and_unpacked():
    values = [True, False, False, True, True, False, True, False, True]
    assert pack_bits(values) == "moA="  # 10011010 1 and seven zeros: 9a 80
    assert unpack_bits("moA=", 9).tolist() == values
