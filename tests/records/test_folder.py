"""Records of a folder: which is a cell's, which counts, and what is no record."""

import json

import pytest

from ablations.cells import arm_cell
from ablations.measure import Accuracy
from ablations.records import load_records, write_record
from ablations.records.folder import find_record, read_records
from ablations.records.rearrange import pack_records


def test_a_cell_that_was_not_measured_has_no_record(write, pico, tmp_path):
    write(tmp_path)
    assert find_record(tmp_path, pico.of(arm="v1")) is None


IMAGES = {"n_eval_images": 10, "n_train_images": 20}


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


def test_files_that_are_no_records_are_named_and_hidden_ones_are_not(write, tmp_path):
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


def test_a_file_of_its_own_counts_more_than_a_packed_line(write, pico, tmp_path):
    write(tmp_path, failure="RuntimeError: out of memory")
    write(tmp_path, pico.of(arm="v1"))
    pack_records(tmp_path)
    write(tmp_path)
    assert find_record(tmp_path, pico)["status"] == "done"
    assert sorted(load_records(tmp_path)["arm"]) == ["v1", "v1+ope"]
    pack_records(tmp_path)
    assert sorted(load_records(tmp_path)["arm"]) == ["v1", "v1+ope"]
