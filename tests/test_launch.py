"""Workers on this machine, and what is refused before any is started; those of Slurm are in tests/slurm."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablations import launch
from ablations.cells import arm_cell
from ablations.cli import main, parse
from ablations.cost import count_macs
from ablations.errors import InputError
from ablations.measure import Accuracy, Cost, Segmentation
from ablations.records.folder import find_record, read_records
from ablations.runner.plan import RecordedPace, _nearest, estimate, predict_training_memory

STUDY = """
question = "Do workers give what one process gives?"
[[grid]]
measurement = "cost"
variants = ["pico"]
resolution = 32
[[grid]]
measurement = "speed"
variants = ["pico"]
arms = ["v1+ope"]
resolution = 32
batch_size = 1
repeats = 6
mode = "inference"
[[grid]]
measurement = "accuracy"
variants = ["pico"]
arms = ["v1", "v1+ope"]
recipe = "smoke"
epochs = 1
train_images = 100
batch_size = 50
warmup_epochs = 0.0
"""


def refused(capsys, *words):
    assert main(["run", *map(str, words)]) == 2
    out, complaint = capsys.readouterr()
    assert out == ""
    (line,) = complaint.splitlines()
    return line.removeprefix("error: ")


def test_words_of_a_worker_are_those_of_the_run_without_the_launch_s():
    words = ["run", "digits", "--launcher", "slurm", "--workers=3", "--arms", "v1", "--time", "4h", "--jobs", "1"]
    assert launch.worker_words(words) == ["run", "digits", "--arms", "v1", "--jobs", "1"]
    assert parse(launch.worker_words(words)).launcher is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", "2"), "workers=2 is not possible; allowed: none without --launcher local or slurm"),
        (("--launcher", "local", "--workers", "0"), "workers=0 is not possible; allowed: 1 or more"),
        (("--launcher", "local", "--time", "4h"), "time='4h' is not possible; allowed: none with --launcher local"),
        (("--launcher", "pbs"), "launcher='pbs' is not possible; allowed: local, slurm"),
        (("--launcher", "slurm", "--per-gpu", "2"), "per_gpu=2 is not possible; allowed: 1 with --launcher slurm"),
        (("--launcher", "slurm", "--jobs", "2"), "jobs=2 is not possible; allowed: 1 with --launcher slurm"),
        (("--launcher", "slurm"), "launcher='slurm' is not possible; allowed: local; this machine has no sbatch"),
    ],
)
def test_a_launch_that_cannot_be_is_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    assert refused(capsys, "quick", "--results", tmp_path / "runs", *words).startswith(message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('partion = "gpu"', "site.toml: key='partion' is not possible; allowed: partition,"),
        ("partition = 3", "site.toml: partition=3 is not possible; allowed: a text"),
        ('setup = "module load cuda"', "site.toml: setup='module load cuda' is not possible; allowed: a list of texts"),
        ("memory_gib = true", "site.toml: memory_gib=True is not possible; allowed: a whole number from 0"),
        ("partition", "site.toml: not TOML: "),
    ],
)
def test_a_profile_s_mistake_is_named_with_its_file(tmp_path, text, message):
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        launch.read_profile(path)
    assert str(caught.value).startswith(message)
    path.unlink()
    with pytest.raises(InputError, match="allowed: a TOML file that can be read"):
        launch.read_profile(path)


def test_a_profile_is_read(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text('partition = "gpu"\ngpus_per_worker = 1\nsetup = ["module load cuda"]\n')
    assert launch.read_profile(path) == {"partition": "gpu", "gpus_per_worker": 1, "setup": ["module load cuda"]}


@pytest.mark.slow
def test_local_workers_give_what_one_process_gives(tmp_path):
    study = tmp_path / "small.toml"
    study.write_text(STUDY)
    found = {}
    for name, more in (("alone", ()), ("workers", ("--launcher", "local", "--workers", "2"))):
        command = [sys.executable, "run_ablation.py", "run", study, "--devices", "cpu", "--results", tmp_path / name]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[name] = {record["key"]: record for record in read_records(tmp_path / name).records}
    alone, workers = found.values()
    assert alone.keys() == workers.keys()
    assert len(alone) == 11
    for key, record in alone.items():
        assert workers[key]["conditions"] == record["conditions"]
        if record["measurement"] != "speed":
            value = "correct" if record["measurement"] == "accuracy" else "macs_by_operator"
            assert workers[key]["result"][value] == record["result"][value]
        if record["measurement"] == "accuracy":
            assert workers[key]["environment"]["threads"] == record["environment"]["threads"] == 1
    logs = [path.read_text() for path in sorted((tmp_path / "workers" / "workers").glob("local_*.log"))]
    assert len(logs) == 2
    assert not any("speed" in log for log in logs), "what is timed is timed alone"


def test_status_says_what_runs_where_and_what_failed(tmp_path, write_failure):
    cells = [
        arm_cell("pico", arm, "v2", each) for each in (Accuracy(), Cost(resolution=32)) for arm in ("v1", "v1+ope")
    ]
    write_failure(tmp_path, cells[3])
    folder = tmp_path / "claims"
    folder.mkdir()
    note = {"host": "node7", "process": 1, "job": "42", "since": "2026-01-01T00:00:00+00:00"}
    (folder / f"{cells[0].key}.json").write_text(json.dumps(note))
    (folder / f"{cells[0].key}.lease").write_text("")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / f"{cells[0].file_name}.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    lines = launch.describe_status(cells, tmp_path)
    assert lines[0] == "4 cells: 0 done, 1 running, 2 queued, 1 failed"
    assert lines[1] == f"running  {cells[0].label}: on node7, job 42, since 2026-01-01T00:00:00+00:00"
    assert lines[2].strip() == '{"epoch": 2}'
    assert lines[3] == f"failed   {cells[3].label}: {find_record(tmp_path, cells[3])['failure']}"
    os.utime(folder / f"{cells[0].key}.lease", (0, 0))
    assert lines[1] + "; not heard of since 1970-01-01T00:00:00+00:00" in launch.describe_status(cells, tmp_path)


def test_without_workers_cancel_stops_nothing(tmp_path, capsys):
    assert main(["cancel", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no worker runs\n"
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "local.json").write_text(json.dumps({"host": "elsewhere", "process": 1}))
    assert main(["cancel", "--results", str(tmp_path)]) == 2
    assert "its local workers run on elsewhere" in capsys.readouterr().err


def test_hours_follow_from_the_records_of_the_device(tmp_path, write_cell):
    conditions = Accuracy(epochs=2, train_images=100, batch_size=50, warmup_epochs=0.0)
    measured, left = (arm_cell("pico", "v1", "v2", each) for each in (conditions, Accuracy(epochs=7, train_images=100)))
    write_cell(tmp_path, measured)
    record = find_record(tmp_path, measured)
    found = estimate([measured, left], tmp_path, record["environment"]["device_name"].upper())
    assert (found.cells, found.done, found.trainings) == (2, 1, 1)
    assert found.hours == pytest.approx(left.conditions.total_epochs * 100 / record["result"]["train_img_per_s"] / 3600)
    assert "1 records of pico at 32 px on" in found.source
    with pytest.raises(InputError, match=r"^trainings=0 is not possible; allowed: 1 or more, of arms"):
        estimate([measured], tmp_path, record["environment"]["device_name"])
    with pytest.raises(InputError, match=r"device='h100' is not possible; allowed: one that .* has records of"):
        estimate([left], tmp_path, "h100")


def test_paces_are_those_of_the_nearest_model_and_of_the_task(tmp_path, write_cell):
    few = {"epochs": 1, "train_images": 100, "batch_size": 50, "warmup_epochs": 0.0}
    small, large = (arm_cell("pico", "v1", "v2", Accuracy(resolution=side, **few)) for side in (32, 96))
    for cell in (small, large):
        write_cell(tmp_path, cell)
    device = find_record(tmp_path, small)["environment"]["device_name"]
    left = arm_cell("pico", "v1", "v2", Accuracy(resolution=64, seed=1, **few))
    found = estimate([left], tmp_path, device)
    assert "1 records of pico at 96 px on" in found.source  # 2.25 times the MACs; the other has a quarter
    rate = find_record(tmp_path, large)["result"]["train_img_per_s"]
    macs = [count_macs(cell.arm_config, cell.conditions.resolution) for cell in (large, left)]
    assert found.hours == pytest.approx(100 / (rate * macs[0] / macs[1]) / 3600)
    dense = arm_cell("pico", "v1", "v2", Segmentation(iterations=3, batch_size=2, resolution=64))
    with pytest.raises(InputError, match=r"has records of such trainings of: none"):
        estimate([dense], tmp_path, device)
    scores = {"miou": 0.3, "pixel_accuracy": 0.5, "constant_miou": 0.03, "n_images": 87, "n_train_images": 205}
    write_cell(tmp_path, dense, scores | {"left_out": {}, "history": [], "init_file": {}, "train_img_per_s": 7.0})
    another = dense.of(arm="v1+ope")
    found = estimate([another], tmp_path, device)
    assert found.hours == pytest.approx(6 / 7 / 3600)
    assert found.memory_bytes is None


def test_paces_are_of_the_same_precision_and_batch_and_of_trainings_where_there_are_any():
    def pace(images_per_s: float, **others: Any) -> RecordedPace:
        usual = {"macs": 100, "device": "a", "model": "pico", "sides": "32", "precision": "float32", "threads": 1}
        return RecordedPace(images_per_s=images_per_s, **({"batch_size": 32, "is_training": True} | usual | others))

    paces = [
        pace(1.0),
        pace(2.0),
        pace(3.0, is_training=False),
        pace(4.0, batch_size=64),
        pace(5.0, precision="bfloat16"),
        pace(6.0, precision="bfloat16", model="nano", macs=300),
        pace(7.0, threads=2),
        pace(8.0, device="b"),
    ]

    def chosen(*like: Any) -> list[float]:
        return [each.images_per_s for each in _nearest(paces, Path("runs"), "A", *like)]

    assert chosen("pico", 110, "float32", 32) == [1.0, 2.0]
    assert chosen("pico", 110, "float32", 100) == [4.0]
    assert chosen("pico", 110, "bfloat16", 32) == [5.0]
    assert chosen("b2", 1000, "bfloat16", 32) == [6.0]
    assert chosen("b2", 1000, "float16", 32) == [6.0]
    paces[:] = [pace(3.0, is_training=False), pace(8.0, device="b")]
    assert chosen("pico", 110, "float32", 32) == [3.0]


def test_workers_that_share_a_gpu_have_to_fit():
    cells = [arm_cell("pico", "v1", "v2", Accuracy(seed=seed, batch_size=64)) for seed in range(2)]
    needed = predict_training_memory(cells[0])
    launch._check_fit(3, cells, 3 * needed)
    with pytest.raises(InputError, match=r"per_gpu=3 is not possible; allowed: 1 to 2: .* is predicted for accuracy"):
        launch._check_fit(3, cells, 3 * needed - 1)
    launch._check_fit(9, [arm_cell("pico", "v1", "v2", Cost())], 1)
