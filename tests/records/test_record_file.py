"""Files of single records: they say everything about their cells, and what is damaged is named and left out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.cells import address, build_cell
from ablations.measure import Accuracy, Cost, Evaluation, Memory, Speed
from ablations.records import load_records
from ablations.records.folder import find_record, read_records
from ablations.records.record_file import read_record, record_path
from ablations.schema import SCHEMA, record_digest


def test_a_record_says_everything_about_its_cell(write, pico, tmp_path):
    path = write(tmp_path)
    assert path == record_path(tmp_path, pico)
    assert path.name == f"pico_v2_v1-ope_{pico.key}.json"
    assert path.parent.name == "cost"
    record = find_record(tmp_path, pico)
    assert record == read_record(path)
    assert record["key"] == pico.key
    assert record["status"] == "done"
    assert record["config"]["embed_dims"] == [8, 16, 32, 64]
    assert record["conditions"] == {"resolution": 64, "head": "classifier"}
    assert record["result"]["macs"] == 20
    assert not read_records(tmp_path).damaged


def test_a_failed_cell_keeps_its_reason_and_stays_out_of_the_table(write, pico, tmp_path):
    write(tmp_path, failure="RuntimeError: out of memory")
    record = find_record(tmp_path, pico)
    assert (record["status"], record["failure"], record["result"]) == ("failed", "RuntimeError: out of memory", None)
    assert load_records(tmp_path).empty


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
    "not JSON": lambda path, edit: truncate(path),
    "it was changed after it was measured": lambda path, edit: edit_result(path, params=11),
    f"not a record of schema {SCHEMA}": lambda path, edit: edit(path, schema=0),
    "lacks result": lambda path, edit: drop_result(path),
    "its result and its status contradict each other": lambda path, edit: edit(path, result=None),
    "its result has no params": lambda path, edit: edit(path, result={"macs": 20}),
    "its description was changed after it was measured": lambda path, edit: edit(path, arm="v1"),
    "this version does not know ema of its conditions": lambda path, edit: edit_in(path, "conditions", ema=0.9),
    "this version does not know registers of its config": lambda path, edit: edit_in(path, "config", registers=4),
    "it has no params of the kind that it should be (integer)": lambda path, edit: edit_in(
        path, "result", params="ten"
    ),
    "it has no macs of the kind that it should be (integer)": lambda path, edit: edit_in(path, "result", macs=True),
    "it has no threads of the kind that it should be": lambda path, edit: edit_in(path, "environment", threads=[2]),
    "its conditions cannot be: resolution=(1, 2, 3) is not possible; allowed: a whole number or several: a whole "
    "number, a whole number": lambda path, edit: edit_in(path, "conditions", resolution=[1, 2, 3]),
    "it has no started of the kind that it should be": lambda path, edit: edit(path, started=20260102),
    "it has no duration_s of the kind that it should be": lambda path, edit: edit(path, duration_s="long"),
    "cannot be read: Is a directory": lambda path, edit: (path.unlink(), path.mkdir()),
    "it lies under another record's name": lambda path, edit: path.rename(path.with_name("copy.json")),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_damaged_file_is_named_and_left_out(write, edit, pico, tmp_path, reason):
    whole = write(tmp_path, pico.of(arm="v1"))
    DAMAGES[reason](write(tmp_path), edit)
    (name,) = {path.name for path in whole.parent.iterdir()} - {whole.name}
    assert read_records(tmp_path).damaged == {f"records/cost/{name}": reason}
    assert find_record(tmp_path, pico) is None
    assert [record["arm"] for record in read_records(tmp_path).records] == ["v1"]
    assert list(load_records(tmp_path)["arm"]) == ["v1"]


MAIN = {Cost: "params", Memory: "peak_memory_bytes", Speed: "latency_s", Accuracy: "top1", Evaluation: "top1"}
IMAGES = {"n_eval_images": 10, "n_train_images": 20}
TIMES = {"throughput_img_per_s": 2.0, "reference_samples": [0.5]}
METHOD = {"memory_method": "tracked_storages"}


@pytest.mark.parametrize(("kind", "metric"), MAIN.items(), ids=lambda value: getattr(value, "__name__", value))
def test_a_finished_record_has_its_main_metric(write, pico, tmp_path, kind, metric):
    cell = replace(pico, conditions=kind())
    path = write(tmp_path, cell, result={"seconds": 1.0})
    assert read_records(tmp_path).damaged == {f"records/{kind.name}/{path.name}": f"its result has no {metric}"}
    write(tmp_path, cell, failure="RuntimeError: out of luck")
    assert find_record(tmp_path, cell)["status"] == "failed"
    result = {metric: 1} | {Accuracy: IMAGES, Speed: TIMES, Memory: METHOD}.get(kind, {})
    write(tmp_path, cell, result=result)
    assert find_record(tmp_path, cell)["result"] == result
    assert read_records(tmp_path).damaged == {}


def test_memory_that_was_not_there_has_no_number(write, pico, tmp_path):
    write(tmp_path, replace(pico, conditions=Memory()), result={"peak_memory_bytes": None, "out_of_memory": "much"})
    assert read_records(tmp_path).damaged == {}
    write(tmp_path, replace(pico, conditions=Accuracy()), result={"top1": None})
    assert list(read_records(tmp_path).damaged.values()) == ["its result has no top1"]


def test_the_file_that_a_model_came_from_is_part_of_its_record(write, edit, tmp_path):
    (tmp_path / "mine.py").write_text("")
    cell = build_cell(f"{tmp_path / 'mine.py'}:build", Cost())
    path = write(tmp_path, cell)
    assert find_record(tmp_path, cell)["file_sha256"] == cell.model.file_digest
    edit(path, file_sha256="0" * 64)
    assert find_record(tmp_path, cell) is None
    assert list(read_records(tmp_path).damaged.values()) == ["its description was changed after it was measured"]
