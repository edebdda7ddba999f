"""Records as rows: of every model, of older records, of files that changed since, with the study's seeds."""

import json

from ablations.cells import arm_cell, build_cell
from ablations.measure import Accuracy, Cost
from ablations.records import load_records, write_record
from ablations.records.folder import find_record, read_records
from ablations.records.record_file import record_path
from ablations.schema import record_digest

IMAGES = {"n_eval_images": 10, "n_train_images": 20}


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


def test_a_model_that_is_no_arm_has_a_record_and_a_row_too(write, edit, tmp_path):
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


def test_a_cost_from_before_there_were_heads_is_the_classifier_s(write, edit, pico, tmp_path):
    path = write(tmp_path)
    edit(path, conditions={"resolution": 64})
    assert find_record(tmp_path, pico)["conditions"] == {"resolution": 64}
    assert load_records(tmp_path)["head"].tolist() == ["classifier"]


def test_of_a_users_file_only_the_newest_model_is_loaded(tmp_path):
    file = tmp_path / "mine.py"
    for number, started in enumerate(("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")):
        file.write_text(f"# version {number}")
        cell = build_cell(f"{file}:build", Cost())
        outcome = {"study": "test", "failure": None, "environment": {}, "duration_s": 1.0}
        write_record(tmp_path, cell, result={"params": number, "macs": 1}, started=started, **outcome)
    assert len(list((tmp_path / "records" / "cost").iterdir())) == 2
    assert load_records(tmp_path)["params"].tolist() == [1]


def test_a_study_declares_its_seeds_in_the_record(tmp_path):
    cell = arm_cell("pico", "v1", "v2", Accuracy())
    outcome = {"study": "digits", "result": {"top1": 0.5} | IMAGES, "failure": None, "started": "2026-01-01"}
    for number, declared in enumerate((None, 7)):
        write_record(tmp_path / str(number), cell, **outcome, environment={}, duration_s=1.0, declared_seeds=declared)
    assert load_records(tmp_path / "0")["declared_seeds"].tolist() == [20]  # the package's study of that name
    assert load_records(tmp_path / "1")["declared_seeds"].tolist() == [7]
