"""Classifiers that dense trainings begin from."""

from threading import Timer

import pytest

from ablations.errors import InputError
from ablations.measure import Accuracy
from ablations.records.folder import read_records
from ablations.runner.claims import open_lease
from ablations.runner.run import run_cells


@pytest.mark.slow
def test_a_classifier_of_a_study_is_trained_where_its_weights_are_gone(dense_cell, dense_data, tmp_path, monkeypatch):
    from ablations import studies
    from ablations.runner import classifiers

    text = """
[[grid]]
measurement = "accuracy"
recipe = "smoke"
variants = ["pico"]
arms = ["v1+ope"]
bases = ["v2"]
train_images = 100
seed = [0, 1]
"""
    study = studies.parse_study(text, "digits", "digits.toml")
    monkeypatch.setattr(classifiers, "find_study", lambda name: study)
    cell = dense_cell("segmentation", init="digits", seed=1)
    run_cells([cell], study="mine", results=tmp_path / "runs", data_dir=dense_data)
    assert not list((tmp_path / "runs").glob("claims/*.lease"))
    (weights,) = (tmp_path / "runs" / "weights").iterdir()
    (record,) = read_records(tmp_path / "runs").records
    from ablations.files import file_digest

    assert record["result"]["init_file"]["sha256"] == file_digest(weights)
    written = weights.stat().st_mtime_ns
    other = dense_cell("segmentation", init="digits", seed=1, epochs=1)
    run_cells([other], study="mine", results=tmp_path / "runs", data_dir=dense_data)
    assert weights.stat().st_mtime_ns == written, "it is there, and not trained again"
    waiting = tmp_path / "others"
    (waiting / "weights").mkdir(parents=True)
    lease = open_lease(waiting / "claims" / f"{classifiers.classifier_of(cell).key}.lease").acquire()

    def finish() -> None:
        (waiting / "weights" / weights.name).write_bytes(weights.read_bytes())
        lease.lock.release()

    timer = Timer(1.5, finish)
    timer.start()
    monkeypatch.setattr(Accuracy, "run", lambda *_: pytest.fail("another process trains it"))
    run_cells([cell], study="mine", results=waiting, data_dir=dense_data)
    timer.join()
    (again,) = read_records(waiting).records
    assert again["result"]["init_file"] == record["result"]["init_file"]
    with pytest.raises(
        InputError, match=r"^init='digits' is not possible; allowed: a study with a classifier of pico v1"
    ):
        run_cells(
            [dense_cell("segmentation", arm="v1", init="digits")],
            study="mine",
            results=tmp_path / "runs",
            data_dir=dense_data,
        )
