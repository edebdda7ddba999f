"""What is measured, kept, tried again and left; and one real cell of each measurement."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from ablations import runner
from ablations.config import ARMS
from ablations.design import Accuracy, Cell, Cost, Grid, Memory, Speed, vary
from ablations.errors import InputError
from ablations.records import find_record, record_path, write_record

CELLS = list(Grid(variants=("pico",), conditions=(Cost(resolution=32),)).cells())
ACCURACY = Accuracy(epochs=1, train_images=100, batch_size=50, warmup_epochs=0.0)


def run(cells, results, **options):
    return runner.run_cells(cells, study="test", results=results, **options)


def write(results, cell, duration_s=1.0, **environment):
    """Writes the record of a cell as another run would have."""
    outcome = {"study": "test", "result": {"macs": 1}, "failure": None, "started": "2026-01-01"}
    write_record(results, cell, **outcome, environment=environment, duration_s=duration_s)


def fake(monkeypatch, measure):
    """Puts `measure(cell)` in the place of the real measurements; returns the list of arms that it was called for."""
    called = []

    def measure_cell(cell, data_dir, tell):
        called.append(cell.arm)
        return measure(cell)

    monkeypatch.setattr(runner, "measure_cell", measure_cell)
    return called


def test_the_same_command_again_measures_nothing(tmp_path, monkeypatch):
    called = fake(monkeypatch, lambda cell: {"params": 1, "macs": 2})
    first = run(CELLS, tmp_path)
    again = run(CELLS, tmp_path)
    assert called == list(ARMS)
    assert (first.measured, first.kept, first.failed, first.left) == (8, 0, [], 0)
    assert (again.measured, again.kept) == (0, 8)


def test_a_failed_cell_is_recorded_the_others_go_on_and_it_is_tried_again(tmp_path, monkeypatch):
    def fail_once(cell):
        if cell.arm == "v1+cffn" and called.count("v1+cffn") == 1:
            raise RuntimeError("out of luck\nand a second line")
        return {"macs": 2}

    called = fake(monkeypatch, fail_once)
    summary = run(CELLS, tmp_path)
    (label, reason) = summary.failed[0]
    assert (summary.measured, len(summary.failed)) == (7, 1)
    assert "v1+cffn" in label
    assert reason == "RuntimeError: out of luck"
    record = find_record(tmp_path, CELLS[2])
    assert (record["status"], record["failure"], record["result"]) == ("failed", reason, None)
    again = run(CELLS, tmp_path)
    assert (again.measured, again.kept, again.failed) == (1, 7, [])
    assert find_record(tmp_path, CELLS[2])["status"] == "done"


def test_what_only_the_cell_finds_out_about_its_input_fails_that_cell_alone(tmp_path, monkeypatch):
    def refuse_one(cell):
        if cell.arm == "v1+ope":
            raise InputError("a picture that cannot be read")
        return {"macs": 2}

    fake(monkeypatch, refuse_one)
    summary = run(CELLS, tmp_path)
    assert summary.measured == 7
    assert summary.failed[0][1] == "InputError: a picture that cannot be read"


def test_a_cell_that_another_process_finished_meanwhile_is_kept(tmp_path, monkeypatch):
    def measure(cell):
        if cell.arm == "v1":
            write(tmp_path, CELLS[1])
        return {"macs": 2}

    called = fake(monkeypatch, measure)
    summary = run(CELLS, tmp_path)
    assert "v1+ope" not in called
    assert (summary.measured, summary.kept) == (7, 1)


def test_records_of_another_machine_are_kept_and_named(tmp_path, monkeypatch, capsys):
    fake(monkeypatch, lambda cell: {"macs": 2})
    cells = [replace(cell, conditions=Memory(resolution=32)) for cell in CELLS]
    write(tmp_path, cells[0], device_name="Another CPU", torch="2.8.0")
    summary = run(cells, tmp_path)
    assert (summary.measured, summary.kept) == (7, 1)
    assert "warning: the folder holds records of Another CPU, torch 2.8.0" in capsys.readouterr().err
    run(cells[1:], tmp_path)
    assert "warning" not in capsys.readouterr().err


def test_the_environment_is_that_of_the_start(tmp_path, monkeypatch):
    fake(monkeypatch, lambda cell: {"macs": 2})
    commits = iter(["first", "second"])
    monkeypatch.setattr("ablations.measure.environment.find_commit", lambda folder: next(commits))
    run(CELLS, tmp_path)
    assert {find_record(tmp_path, cell)["environment"]["commit"] for cell in CELLS} == {"first"}


def test_a_damaged_record_is_measured_again(tmp_path, monkeypatch):
    called = fake(monkeypatch, lambda cell: {"macs": 2})
    run(CELLS, tmp_path)
    path = record_path(tmp_path, CELLS[0])
    path.write_text(path.read_text()[:50])
    assert run(CELLS, tmp_path).measured == 1
    assert called[-1] == "v1"
    assert json.loads(path.read_text())["status"] == "done"


def test_the_time_budget_starts_no_cell_whose_like_took_longer(tmp_path, monkeypatch):
    called = fake(monkeypatch, lambda cell: {"macs": 2})
    long, short = Cost(resolution=64), Cost(resolution=32)
    for conditions, seconds in ((long, 3600.0), (short, 0.1)):
        cell = Cell(variant="pico", arm="v1", frame="v1", conditions=conditions)
        write(tmp_path, cell, duration_s=seconds)
    cells = list(Grid(variants=("pico",), arms=("v1", "v1+ope"), conditions=(long, short)).cells())
    summary = run(cells, tmp_path, time_budget_s=60)
    assert (summary.measured, summary.left) == (2, 2)
    assert called == ["v1", "v1+ope"]
    assert all(find_record(tmp_path, cell) is None for cell in cells[:2])
    assert run(cells, tmp_path).measured == 2


def test_an_unknown_workload_is_started_and_its_own_record_counts_from_then_on(tmp_path, monkeypatch):
    def slow(cell):
        time.sleep(0.3)
        return {"macs": 2}

    fake(monkeypatch, slow)
    summary = run(CELLS, tmp_path, time_budget_s=0.5)
    assert 1 <= summary.measured <= 2
    assert summary.measured + summary.left == 8


def test_a_missing_device_or_data_set_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    called = fake(monkeypatch, lambda cell: {})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    not_a_folder = tmp_path / "file"
    not_a_folder.write_text("")
    with pytest.raises(InputError, match=r"results=.* is not possible; allowed: a folder that can be made"):
        run(CELLS, not_a_folder)
    not_a_folder.unlink()
    on_cuda = Cell(variant="pico", arm="v1", frame="v2", conditions=Memory(device="cuda"))
    with pytest.raises(InputError, match="device='cuda'"):
        run([*CELLS, on_cuda], tmp_path)
    no_data = Cell(variant="pico", arm="v1", frame="v2", conditions=replace(ACCURACY, data="nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        run([*CELLS, no_data], tmp_path, data_dir=tmp_path)
    other_classes = Cell(variant="pico", arm="v1", frame="v2", conditions=replace(ACCURACY, num_classes=5))
    with pytest.raises(InputError, match="num_classes=5 is not possible; allowed: 10"):
        run([*CELLS, other_classes], tmp_path)
    assert called == []
    assert list(tmp_path.iterdir()) == []


def test_one_real_cell_of_each_measurement(tmp_path):
    conditions = (
        Cost(resolution=32),
        Memory(resolution=32, mode="training"),
        Speed(resolution=32, batch_size=1, repeats=3),
        ACCURACY,
    )
    cells = [Cell(variant="pico", arm="v1+cffn", frame="v2", conditions=each) for each in conditions]
    summary = run(cells, tmp_path)
    assert (summary.measured, summary.failed) == (4, [])
    cost, memory, speed, accuracy = (find_record(tmp_path, cell) for cell in cells)
    assert cost["result"]["macs"] == cost["result"]["macs_traced"] > 0
    assert sum(part["macs"] for part in cost["result"]["breakdown"].values()) == cost["result"]["macs"]
    # Parameters, gradients and AdamW's two moments are alive at the peak of a training step.
    assert memory["result"]["peak_memory_bytes"] > 4 * memory["result"]["parameter_bytes"]
    assert len(speed["result"]["samples"]) == len(speed["result"]["reference_samples"]) == 3
    assert speed["result"]["relative_speed_low"] <= speed["result"]["relative_speed"]
    assert 0 <= accuracy["result"]["top1"] <= 1
    for record in (cost, memory, speed, accuracy):
        assert record["environment"]["device_name"]
        assert record["config"]["conv_feed_forward"] is True
        assert record["duration_s"] >= 0


def test_the_trace_must_agree_with_the_closed_form(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.cost, "count_macs", lambda config, resolution: 1)
    summary = run(CELLS[:1], tmp_path)
    assert "closed form counts 1" in summary.failed[0][1]


def test_a_kill_loses_only_the_cell_in_progress_and_the_numbers_are_the_same(tmp_path):
    cells = list(Grid(variants=("pico",), arms=("v1", "v1+ope"), conditions=vary(ACCURACY, seed=(0, 1, 2))).cells())
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(cells, whole)
    command = [sys.executable, "run_ablation.py", "accuracy", "--variants", "pico", "--arms", "v1", "v1+ope"]
    command += ["--results", str(killed), "--seeds", "0", "1", "2", "--epochs", "1", "--train-images", "100"]
    command += ["--batch-size", "50", "--warmup-epochs", "0"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((killed / "records").glob("accuracy/*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = [cell for cell in cells if find_record(killed, cell)]
    assert finished, "nothing was finished before the kill"
    run(cells, killed)
    for cell in cells:
        assert strip_times(find_record(whole, cell)["result"]) == strip_times(find_record(killed, cell)["result"])


def test_an_interrupted_command_says_how_to_go_on(tmp_path):
    command = [sys.executable, "run_ablation.py", "accuracy", "--variants", "pico", "--results", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not (line := process.stderr.read(1)) or line == " ":
        time.sleep(0.01)  # until the progress bar shows that cells are being measured
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 130
    assert complaint.splitlines()[-1] == "stopped; the same command goes on from here"
    assert "Traceback" not in complaint


def strip_times(result):
    history = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in result["history"]]
    return {name: value for name, value in result.items() if "train_s" not in name and "per_s" not in name} | {
        "history": history
    }
