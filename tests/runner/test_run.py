"""What is measured, kept, tried again and left; and one real cell of each measurement."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ablations.cells import arm_cell, build_cell
from ablations.config import ARMS
from ablations.errors import InputError
from ablations.measure import MEASUREMENTS, Accuracy, Cost, Memory, Speed, cost, macs, network, process
from ablations.measure.measurement import Setting
from ablations.records import load_records, write_record
from ablations.records.folder import find_record, read_records
from ablations.records.record_file import record_path
from ablations.report.memory import TABLES
from ablations.report.tables import render_markdown
from ablations.runner import needs
from ablations.runner import run as runner
from ablations.studies import vary
from ablations.training import loop, resume

CELLS = [arm_cell("pico", arm, "v2", Cost(resolution=32)) for arm in ARMS]
ACCURACY = Accuracy(epochs=1, train_images=100, batch_size=50, warmup_epochs=0.0)


def measure_cell(cell):
    return cell.conditions.run(cell, Setting())


def run(cells, results, **options):
    return runner.run_cells(cells, study="test", results=results, **options)


def write(results, cell, duration_s=1.0, **environment):
    """Writes the record of a cell as another run would have."""
    result = {cell.conditions.main_metric: 1} | ({"memory_method": "told"} if cell.measurement == "memory" else {})
    outcome = {"study": "test", "result": result, "failure": None, "started": "2026-01-01"}
    write_record(results, cell, **outcome, environment=environment, duration_s=duration_s)


def fake(monkeypatch, measure):
    """Puts `measure(cell)` in the place of the real measurements; returns the list of arms that it was called for."""
    called = []

    def measured(conditions, cell, setting):
        called.append(cell.arm)
        return measure(cell)

    for kind in MEASUREMENTS.values():
        monkeypatch.setattr(kind, "run", measured)
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
        return {"params": 1, "macs": 2}

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
            raise InputError("an image that cannot be read")
        return {"params": 1, "macs": 2}

    fake(monkeypatch, refuse_one)
    summary = run(CELLS, tmp_path)
    assert summary.measured == 7
    assert summary.failed[0][1] == "InputError: an image that cannot be read"


def test_a_cell_that_another_process_finished_meanwhile_is_kept(tmp_path, monkeypatch):
    def measure(cell):
        if cell.arm == "v1":
            write(tmp_path, CELLS[1])
        return {"params": 1, "macs": 2}

    called = fake(monkeypatch, measure)
    summary = run(CELLS, tmp_path)
    assert "v1+ope" not in called
    assert (summary.measured, summary.kept) == (7, 1)


def test_records_of_another_machine_are_kept_and_named(tmp_path, monkeypatch, capsys):
    fake(monkeypatch, lambda cell: {"peak_memory_bytes": 1, "memory_method": "tracked_storages"})
    cells = [replace(cell, conditions=Memory(resolution=32)) for cell in CELLS]
    write(tmp_path, cells[0], device_name="Another CPU", torch="2.8.0")
    summary = run(cells, tmp_path)
    assert (summary.measured, summary.kept) == (7, 1)
    assert "warning: the folder holds records of Another CPU, torch 2.8.0" in capsys.readouterr().err
    run(cells[1:], tmp_path)
    assert "warning" not in capsys.readouterr().err
    predicted = [replace(cell, conditions=Memory(resolution=32, method="predicted")) for cell in CELLS[:2]]
    write(tmp_path, predicted[0], device_name="Another CPU", torch="2.8.0")
    assert run([cells[1], *predicted], tmp_path).kept == 2
    assert "warning" not in capsys.readouterr().err


def test_the_environment_is_that_of_the_start(tmp_path, monkeypatch):
    fake(monkeypatch, lambda cell: {"params": 1, "macs": 2})
    commits = iter(["first", "second"])
    monkeypatch.setattr("ablations.measure.environment.find_commit", lambda folder: next(commits))
    run(CELLS, tmp_path)
    assert {find_record(tmp_path, cell)["environment"]["commit"] for cell in CELLS} == {"first"}


def test_a_damaged_record_is_measured_again(tmp_path, monkeypatch):
    called = fake(monkeypatch, lambda cell: {"params": 1, "macs": 2})
    run(CELLS, tmp_path)
    path = record_path(tmp_path, CELLS[0])
    path.write_text(path.read_text()[:50])
    assert run(CELLS, tmp_path).measured == 1
    assert called[-1] == "v1"
    assert json.loads(path.read_text())["status"] == "done"


def test_the_time_budget_starts_no_cell_whose_like_took_longer(tmp_path, monkeypatch):
    called = fake(monkeypatch, lambda cell: {"params": 1, "macs": 2})
    long, short = Cost(resolution=64), Cost(resolution=32)
    for conditions, seconds in ((long, 3600.0), (short, 0.1)):
        cell = arm_cell(variant="pico", arm="v1", base="v1", conditions=conditions)
        write(tmp_path, cell, duration_s=seconds)
    cells = [arm_cell("pico", arm, "v2", each) for each in (long, short) for arm in ("v1", "v1+ope")]
    summary = run(cells, tmp_path, time_budget_s=60)
    assert (summary.measured, summary.left) == (2, 2)
    assert called == ["v1", "v1+ope"]
    assert all(find_record(tmp_path, cell) is None for cell in cells[:2])
    assert run(cells, tmp_path).measured == 2


def test_an_unknown_workload_is_started_and_its_own_record_counts_from_then_on(tmp_path, monkeypatch):
    def slow(cell):
        time.sleep(0.3)
        return {"params": 1, "macs": 2}

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
    on_cuda = arm_cell(variant="pico", arm="v1", base="v2", conditions=Memory(device="cuda"))
    with pytest.raises(InputError, match="device='cuda'"):
        run([*CELLS, on_cuda], tmp_path)
    no_data = arm_cell(variant="pico", arm="v1", base="v2", conditions=replace(ACCURACY, data="nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        run([*CELLS, no_data], tmp_path, data_dir=tmp_path)
    other_classes = arm_cell(variant="pico", arm="v1", base="v2", conditions=replace(ACCURACY, num_classes=5))
    with pytest.raises(InputError, match="num_classes=5 is not possible; allowed: 10"):
        run([*CELLS, other_classes], tmp_path)
    assert called == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_real_cell_of_each_measurement(tmp_path):
    conditions = (
        Cost(resolution=32),
        Memory(resolution=32, mode="training"),
        Speed(resolution=32, batch_size=1, repeats=6),
        ACCURACY,
    )
    cells = [arm_cell(variant="pico", arm="v1+cffn", base="v2", conditions=each) for each in conditions]
    summary = run(cells, tmp_path)
    assert (summary.measured, summary.failed) == (4, [])
    cost, memory, speed, accuracy = (find_record(tmp_path, cell) for cell in cells)
    assert cost["result"]["macs"] == cost["result"]["macs_traced"] > 0
    assert sum(part["macs"] for part in cost["result"]["breakdown"].values()) == cost["result"]["macs"]
    # Parameters, gradients and AdamW's two moments are alive at the peak of a training step.
    assert memory["result"]["peak_memory_bytes"] > 4 * memory["result"]["parameter_bytes"]
    assert len(speed["result"]["samples"]) == len(speed["result"]["reference_samples"]) == 6
    assert speed["result"]["relative_speed_low"] <= speed["result"]["relative_speed"]
    assert 0 <= accuracy["result"]["top1"] <= 1
    for record in (cost, memory, speed, accuracy):
        assert record["environment"]["device_name"]
        assert record["config"]["toggles"] == ["cffn"]
        assert record["duration_s"] >= 0


def test_the_trace_must_agree_with_the_closed_form(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "count_macs", lambda config, resolution: 1)
    summary = run(CELLS[:1], tmp_path)
    (_, reason) = summary.failed[0]
    assert reason.startswith("RuntimeError: closed form (1, 155744), trace (")
    assert reason.endswith("155744): (macs, params) differ")


@pytest.mark.slow
def test_a_kill_loses_only_the_cell_in_progress_and_the_numbers_are_the_same(tmp_path):
    cells = [arm_cell("pico", arm, "v2", each) for each in vary(ACCURACY, seed=(0, 1, 2)) for arm in ("v1", "v1+ope")]
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


@pytest.mark.slow
def test_an_interrupted_command_says_how_to_go_on(tmp_path):
    command = [sys.executable, "run_ablation.py", "accuracy", "--variants", "pico", "--results", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("logs/*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)  # until an epoch was trained
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 130
    generally = "stopped; rerun the same command to resume"  # between two trainings
    amid = (
        r"stopped in epoch \d+ of 20, after \d+ of its steps; a checkpoint is saved; rerun the same command to resume"
    )
    assert re.fullmatch(f"{generally}|{amid}", complaint.splitlines()[-1])
    assert "Traceback" not in complaint


UNCOUNTED = """
import torch
from PIL import Image
from torch import Tensor, nn

@torch.library.custom_op("NAME::triple", mutates_args=())
def triple(x: Tensor) -> Tensor:
    return 3 * x

@triple.register_fake
def _(x):
    return torch.empty_like(x)

class Tripled(nn.Conv2d):
    def forward(self, x):
        return triple(super().forward(x))

def build():
    return Tripled(3, 4, 1)
"""


def cost_of(model, resolution=64, **conditions):
    return build_cell(str(model), Cost(resolution=resolution, **conditions))


@pytest.mark.slow
def test_a_size_that_a_model_refuses_is_a_row_with_its_reason(tmp_path):
    cells = [cost_of("timm:swin_tiny_patch4_window7_224", side) for side in (224, 256)]
    summary = run(cells, tmp_path)
    assert (summary.measured, summary.failed) == (2, [])
    taken, refused = (find_record(tmp_path, cell)["result"] for cell in cells)
    assert round(taken["macs"] / 1e9, 2) == 4.49
    assert taken["params"] == refused["params"] == sum(row["params"] for row in taken["breakdown"].values())
    assert refused.pop("refused").startswith("AssertionError: Input height (256) doesn't match")
    assert refused == {"params": taken["params"], "macs": None}
    assert run(cells, tmp_path).kept == 2


def test_what_a_image_decides_is_a_row_with_its_reason(tmp_path):
    cell = cost_of("pvt:pico/v1/v2", head="mask_rcnn")
    assert run([cell], tmp_path).failed == []
    result = find_record(tmp_path, cell)["result"]
    assert result["params"] > 15e6
    assert result["macs"] is None
    assert "depends on what the first proposes" in result["refused"]


def test_an_arm_that_refuses_a_size_is_a_fault_of_ours(tmp_path, monkeypatch):
    def refuse(part, shape):
        raise ValueError("no")

    monkeypatch.setattr(macs, "trace_macs", refuse)
    assert run(CELLS[:1], tmp_path).failed == [(CELLS[0].label, "ValueError: no")]


def test_a_user_s_model_from_its_file_to_its_record(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())\n")
    cell = cost_of(f"{path}:build", (10, 12))
    assert run([cell], tmp_path / "out").measured == 1
    result = find_record(tmp_path / "out", cell)["result"]
    macs = 8 * 10 * 9 * 3 * 4
    assert result == {
        "params": 9 * 3 * 4 + 4,
        "macs": macs,
        "macs_by_operator": {"convolution": macs},
        "breakdown": {"0": {"params": 112, "macs": macs}},
        "other_values": {"relu": 8 * 10 * 4},
    }


def test_a_changed_file_is_another_model_in_the_same_process(tmp_path):
    path, cells = tmp_path / "mine.py", []
    for width in (4, 40):
        path.write_text(f"from torch import nn\ndef build():\n    return nn.Conv2d(3, {width}, 1, bias=False)\n")
        cells.append(cost_of(f"{path}:build"))
        run(cells[-1:], tmp_path / "out")
    assert [find_record(tmp_path / "out", cell)["result"]["params"] for cell in cells] == [12, 120]


def test_an_operator_that_nobody_can_count_fails_its_cell_and_is_named(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(UNCOUNTED.replace("NAME", "test_runner"))
    cell = cost_of(f"{path}:build")
    summary = run([cell, *CELLS[:1]], tmp_path / "out")
    assert (summary.measured, len(summary.failed)) == (1, 1)
    assert "UncountedOperator: nobody knows how many MACs test_runner.triple" in summary.failed[0][1]
    assert find_record(tmp_path / "out", cell)["status"] == "failed"


@pytest.mark.parametrize(
    ("model", "head", "message"),
    [
        ("timm:resnet81", "classifier", "model='resnet81' is not possible; allowed: one of"),
        ("timm:resnet18?nonsense=3", "classifier", "model='timm:resnet18' cannot be built"),
        ("timm:vit_tiny_patch16_224", "fcos", "allowed: one with maps at strides"),
        ("baselines:cpvt_ti", "fcos", "allowed: timm:NAME, FILE.py:FUNCTION or an arm"),
        ("baselines:cpvt", "classifier", "did you mean 'cpvt_s'"),
        ("mine.py:other", "classifier", "mine.py='other' is not possible; allowed: build"),
        ("mine.py:build", "classifier", "mine.py:build' returns a int"),
    ],
)
def test_a_model_that_is_none_is_refused_before_anything_is_measured(tmp_path, monkeypatch, model, head, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def build():\n    return 1\n")
    called = fake(monkeypatch, lambda cell: {"params": 1, "macs": 2})
    with pytest.raises(InputError) as caught:
        run([*CELLS, cost_of(model, head=head)], tmp_path / "out")
    assert message in str(caught.value)
    assert called == []
    assert not (tmp_path / "out").exists()


def test_a_network_is_built_once_for_all_its_sizes(tmp_path, monkeypatch):
    built = []

    def build(cell):
        built.append(cell.name)
        return build_network(cell)

    build_network = network.build_network
    monkeypatch.setattr(network, "build_network", build)
    cells = [cost_of("timm:resnet18?num_classes=3", side) for side in (32, 64, 96)]
    assert run(cells, tmp_path).measured == 3
    assert built == ["timm:resnet18?num_classes=3"]


def test_the_breakdown_gives_repeated_blocks_one_row():
    params = {
        "token": 5,
        "stages.0.proj.weight": 10,
        "stages.0.proj.bias": 1,
        "stages.0.blocks.0.attn.q.weight": 100,
        "stages.0.blocks.1.attn.q.weight": 100,
        "stages.1.blocks.0.attn.q.weight": 1000,
        "stages.0.blocks.0.norm.weight": 3,
        "head.weight": 7,
    }
    macs = {
        "": 2,
        "stages.0.proj": 20,
        "stages.0.blocks.0.attn": 30,
        "stages.0.blocks.1.attn": 30,
        "stages.0.blocks.0.attn.q": 40,
        "stages.0.blocks.1.attn.q": 40,
        "stages.1.blocks.0.attn.q": 50,
        "head": 8,
    }
    assert cost._break_down(params, macs) == {
        "": {"params": 5, "macs": 2},
        "stages.0.proj": {"params": 11, "macs": 20},
        "stages.0.blocks.attn": {"params": 0, "macs": 60},
        "stages.0.blocks.attn.q": {"params": 200, "macs": 80},
        "stages.0.blocks.norm": {"params": 3, "macs": 0},
        "stages.1.blocks.attn.q": {"params": 1000, "macs": 50},
        "head": {"params": 7, "macs": 8},
    }


@pytest.mark.parametrize("model", ["pvt:pico/v1+cffn/v1", "timm:resnet18", "transformers:cvt-13"])
def test_modules_and_operators_sum_to_the_whole(model):
    result = measure_cell(cost_of(model))
    assert sum(row["params"] for row in result["breakdown"].values()) == result["params"]
    assert sum(row["macs"] for row in result["breakdown"].values()) == result["macs"]
    assert sum(result["macs_by_operator"].values()) == result["macs"] > 0


@pytest.mark.slow
def test_several_processes_make_the_records_that_one_makes(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(UNCOUNTED.replace("NAME", "test_runner_workers"))
    models = ["timm:resnet18", "timm:swin_tiny_patch4_window7_224", f"{path}:build"]
    cells = [*CELLS[:3], *(cost_of(model, side) for model in models for side in (64, 224))]
    memory = replace(CELLS[0], conditions=Memory(resolution=32))
    alone = run([*cells, memory], tmp_path / "alone")
    pools = []

    class Pool(process.ProcessPoolExecutor):
        def __init__(self, workers, **options):
            pools.append(workers)
            super().__init__(workers, **options)

    monkeypatch.setattr(process, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(runner, "CELLS_PER_WORKER", 4)
    monkeypatch.setattr(runner, "available_cores", lambda: 16)
    together = run([memory, *cells], tmp_path / "together")
    assert pools == [len(cells) // 4]
    assert (together.measured, together.kept, together.left) == (alone.measured, 0, 0) == (8, 0, 0)
    assert sorted(together.failed) == sorted(alone.failed)
    assert [label for label, _ in alone.failed] == [cell.label for cell in cells[-2:]]
    for cell in cells:
        one, other = (find_record(tmp_path / name, cell) for name in ("alone", "together"))
        for name in ("result", "failure", "status", "study", "conditions", "environment"):
            assert one[name] == other[name]
    again = run([memory, *cells], tmp_path / "together")
    assert (again.measured, again.kept, len(again.failed)) == (0, 8, 2)


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
@pytest.mark.slow
def test_an_end_amid_several_processes_leaves_whole_records_and_no_process(tmp_path, name):
    command = [sys.executable, "-c", AMID_SEVERAL_PROCESSES, "--results", str(tmp_path), "--variants", "pico"]
    command += ["--resolutions", *map(str, range(32, 320, 32))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("records/cost/*.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.Signals[name])
        _, complaint = process.communicate(timeout=60)  # to the end of what the workers, too, may write to
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == (-signal.SIGKILL if name == "SIGKILL" else 130)
    assert name == "SIGKILL" or complaint.decode().splitlines()[-1] == "stopped; rerun the same command to resume"
    assert read_records(tmp_path).damaged == {}
    assert 1 <= len(read_records(tmp_path).records) < 8 * 9


AMID_SEVERAL_PROCESSES = """
import sys
from ablations import cli
from ablations.runner import needs, run as runner
if __name__ == "__main__":
    runner.available_cores = needs.available_cores = lambda: 2
    sys.exit(cli.main(["cost", *sys.argv[1:]]))
"""


TIMES = ("seconds", "wait_s", "train_s", "train_img_per_s", "wait_fraction")


def strip_times(result):
    history = [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in result["history"]]
    return {name: value for name, value in result.items() if name not in TIMES} | {"history": history}


def files_below(folder):
    return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


def test_a_training_that_diverges_is_recorded_with_step_rate_and_norm_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "CHECKPOINT_EVERY_S", 0.0)
    lost = Accuracy(epochs=8, train_images=100, batch_size=50, warmup_epochs=0.0, base_lr=1e15, clip_grad_norm=0.0)
    cells = [arm_cell(variant="pico", arm="v1", base="v2", conditions=each) for each in (lost, ACCURACY)]
    summary = run(cells, tmp_path)
    assert (summary.measured, len(summary.failed)) == (1, 1)
    (label, reason) = summary.failed[0]
    assert label == cells[0].label
    number = r"[\d.]+(?:e[+-]\d+)?"
    told = re.fullmatch(
        rf"Diverged: the loss is (?:nan|inf) at step (\d+), learning rate ({number}), "
        rf"gradient norm (?:nan|inf|{number})",
        reason,
    )
    assert told
    assert 1 < int(told[1]) <= 16
    assert float(told[2]) > 1e12
    record = find_record(tmp_path, cells[0])
    assert (record["status"], record["failure"], record["result"]) == ("failed", reason, None)
    assert find_record(tmp_path, cells[1])["status"] == "done"
    assert files_below(tmp_path / "checkpoints") == [], "it would diverge again"


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate"), MemoryError()]
)
def test_a_cell_for_which_memory_does_not_suffice_says_so_in_words(tmp_path, monkeypatch, error):
    def run_out(*_):
        raise error

    monkeypatch.setattr(Accuracy, "run", run_out)
    cell = arm_cell(variant="pico", arm="v1", base="v2", conditions=ACCURACY)
    ((_, reason),) = run([cell], tmp_path).failed
    said = "out of memory on cpu: a smaller batch or smaller images take less"
    assert reason.startswith(f"{said} ({type(error).__name__}: ")


def test_a_training_that_fails_otherwise_keeps_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "CHECKPOINT_EVERY_S", 0.0)
    evaluate = loop.Training.evaluate
    monkeypatch.setattr(loop.Training, "evaluate", lambda training: 1 / 0)
    cell = arm_cell(variant="pico", arm="v1", base="v2", conditions=ACCURACY)
    assert len(run([cell], tmp_path).failed) == 1
    assert files_below(tmp_path / "checkpoints") == [f"{cell.file_name}.pt"]
    monkeypatch.setattr(loop.Training, "evaluate", evaluate)
    monkeypatch.setattr(loop.Training, "_take_step", None)  # it was trained already
    assert run([cell], tmp_path).measured == 1
    assert files_below(tmp_path / "checkpoints") == []


@pytest.mark.slow
def test_a_spent_budget_leaves_a_training_with_a_checkpoint_and_the_next_run_ends_it(tmp_path, monkeypatch):
    cells = [arm_cell("pico", arm, "v2", each) for each in (replace(ACCURACY, epochs=3),) for arm in ("v1", "v1+ope")]
    run(cells, tmp_path / "whole")
    looks = []

    def monotonic():
        """Jumps by an hour after the first training's third step."""
        looks.append(None)
        return time.monotonic() + (3600 if len(looks) > 4 else 0)

    monkeypatch.setattr(resume, "time", SimpleNamespace(monotonic=monotonic, perf_counter=time.perf_counter))
    parts = tmp_path / "parts"
    first = run(cells, parts, time_budget_s=1800)
    assert (first.measured, first.failed, first.left) == (0, [], 2)
    states = [torch.load(path, weights_only=True) for path in sorted((parts / "checkpoints").iterdir())]
    assert sorted(state["step"] for state in states) == [1, 4]
    assert not read_records(parts).records
    monkeypatch.setattr(resume, "time", time)
    second = run(cells, parts)
    assert (second.measured, second.kept, second.left) == (2, 0, 0)
    for cell in cells:
        one, other = (find_record(tmp_path / name, cell)["result"] for name in ("whole", "parts"))
        assert strip_times(one) == strip_times(other)
    assert files_below(parts / "checkpoints") == []


def test_a_budget_that_was_spent_before_starts_no_training(tmp_path):
    cell = arm_cell(variant="pico", arm="v1", base="v2", conditions=ACCURACY)
    summary = run([cell], tmp_path, time_budget_s=0.0)
    assert (summary.measured, summary.left) == (0, 1)
    assert files_below(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("jobs", [0, -1, 3])
def test_so_many_trainings_side_by_side_are_refused(tmp_path, monkeypatch, jobs):
    monkeypatch.setattr(needs, "available_cores", lambda: 2)
    with pytest.raises(InputError, match=f"jobs={jobs} is not possible; allowed: 1 to 2, the number of cores"):
        run([arm_cell(variant="pico", arm="v1", base="v2", conditions=ACCURACY)], tmp_path / "runs", jobs=jobs)
    assert not (tmp_path / "runs").exists()


def test_by_default_so_many_trainings_go_side_by_side_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(needs, "available_cores", lambda: 4)
    for gibibytes, jobs in ((64, 4), (7, 3), (1, 1)):
        monkeypatch.setattr(needs, "available_memory", lambda device, free=gibibytes: free * 2**30)
        assert needs.default_jobs() == jobs
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert needs.default_jobs() == 1


@pytest.mark.slow
def test_trainings_side_by_side_make_the_records_that_one_after_the_other_makes(tmp_path, monkeypatch):
    for module in (needs, runner):
        monkeypatch.setattr(module, "available_cores", lambda: 2)
    conditions = replace(ACCURACY, epochs=20, mixup=0.8, drop_path_rate=0.2)
    cells = [arm_cell("pico", arm, "v2", each) for each in (conditions,) for arm in ("v1", "v1+ope", "v1+cffn")]
    told = []
    tell = runner.Progress.tell
    monkeypatch.setattr(runner.Progress, "tell", lambda *how_far: (told.append(how_far[1:3]), tell(*how_far)))
    summary = run(cells, tmp_path / "together", jobs=2)
    assert (summary.measured, summary.failed) == (3, [])
    assert {cell for cell, _ in told} == set(cells)
    assert any(0 < share < 1 for _, share in told), "how far they are comes from their processes"
    threads = torch.get_num_threads()
    run(cells, tmp_path / "alone")
    assert torch.get_num_threads() == threads
    for cell in cells:
        one, other = (find_record(tmp_path / name, cell) for name in ("together", "alone"))
        assert strip_times(one["result"]) == strip_times(other["result"])
        assert one["environment"] == other["environment"]
        assert one["environment"]["threads"] == 1
    assert files_below(tmp_path / "together" / "logs") == sorted(f"{cell.file_name}.jsonl" for cell in cells)


SIDE_BY_SIDE = """
import sys
from ablations import cli
from ablations.runner import needs, run as runner
if __name__ == "__main__":
    runner.available_cores = needs.available_cores = lambda: 2
    sys.exit(cli.main(["accuracy", "--jobs", "2", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_an_interrupt_amid_trainings_side_by_side_leaves_their_checkpoints(tmp_path):
    command = [sys.executable, "-c", SIDE_BY_SIDE, "--results", str(tmp_path), "--variants", "pico"]
    command += ["--arms", "v1", "v1+ope", "--epochs", "1000", "--train-images", "100", "--batch-size", "50"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("logs/*.jsonl"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, complaint = process.communicate(timeout=60)  # to the end of what the workers, too, may write to
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert complaint.decode().splitlines()[-1] == "stopped; rerun the same command to resume"
    assert "Traceback" not in complaint.decode()
    states = [torch.load(path, weights_only=True) for path in (tmp_path / "checkpoints").glob("[!.]*.pt")]
    assert len(states) == 2
    assert all(2 <= state["step"] < 2000 for state in states)
    assert not read_records(tmp_path).records


@pytest.mark.slow
def test_a_model_of_timm_s_trains_by_the_same_recipe(tmp_path):
    cell = build_cell("timm:resnet18", replace(ACCURACY, train_images=20, batch_size=10))
    assert run([cell], tmp_path).failed == []
    record = find_record(tmp_path, cell)
    assert record["model"] == "timm:resnet18"
    assert record["conditions"]["num_classes"] == 10
    assert record["result"]["n_train_images"] == 20
    assert [entry["epoch"] for entry in record["result"]["history"]] == [1]


LOGITS = """
from torch import nn
def build():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES))
"""


def test_a_user_s_model_trains_with_the_classes_of_the_data_and_is_refused_with_others(tmp_path):
    cells = []
    for classes in (10, 7):
        path = tmp_path / f"mine_{classes}.py"
        path.write_text(LOGITS.replace("CLASSES", str(classes)))
        cells.append(build_cell(f"{path}:build", ACCURACY))
    assert run(cells[:1], tmp_path / "runs").measured == 1
    with pytest.raises(InputError) as caught:
        run(cells[1:], tmp_path / "other")
    assert str(caught.value).endswith("allowed: one that returns (B, 10) logits in evaluation, not (2, 7)")
    assert not (tmp_path / "other").exists()


def test_a_size_that_a_trained_model_refuses_is_one_line_that_says_what_would_do(tmp_path):
    refused = build_cell("timm:vit_tiny_patch16_224", ACCURACY)
    with pytest.raises(InputError) as caught:
        run([refused], tmp_path / "runs")
    message = str(caught.value)
    assert message.startswith("resolution=32 is not possible; allowed: a size that timm:vit_tiny_patch16_224 takes")
    assert "\n" not in message
    assert "224" in message.partition("takes")[2]
    assert not (tmp_path / "runs").exists()


def test_a_prediction_equals_what_is_tracked_and_needs_no_device(tmp_path):
    cell = arm_cell(variant="pico", arm="v1+lsra", base="v2", conditions=Memory(resolution=48, mode="training"))
    predicted = replace(cell, conditions=replace(cell.conditions, method="predicted"))
    on_cuda = replace(cell, conditions=replace(cell.conditions, method="predicted", device="cuda"))
    named = build_cell("timm:resnet18", Memory(resolution=64, method="predicted"))
    summary = run([cell, predicted, on_cuda, named], tmp_path)
    assert (summary.measured, summary.failed) == (4, [])
    results = [find_record(tmp_path, each)["result"] for each in (cell, predicted, on_cuda, named)]
    assert results[0]["peak_memory_bytes"] == results[1]["peak_memory_bytes"]
    assert results[2]["peak_memory_bytes"] % 512 == 0
    assert results[3]["parameter_bytes"] == 4 * 11_689_512
    assert all(sum(result["bytes_at_peak"].values()) == result["peak_memory_bytes"] for result in results[1:])


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_its_own_resident_too(tmp_path):
    cell = arm_cell(variant="pico", arm="v1", base="v2", conditions=Memory(resolution=64, mode="training"))
    lean = replace(cell, conditions=replace(cell.conditions, checkpointing="1+2"))
    rows = replace(cell, conditions=replace(cell.conditions, channels_last=False))
    assert run([cell, lean, rows], tmp_path).failed == []
    results = [find_record(tmp_path, each)["result"] for each in (cell, lean, rows)]
    assert results[1]["peak_memory_bytes"] < results[0]["peak_memory_bytes"] < results[2]["peak_memory_bytes"]
    assert find_record(tmp_path, cell)["environment"]["keeps_freed_memory"] is False
    if sys.platform == "linux":
        # Code that a first step brings into memory may count, a leak of what went before may not.
        assert all(0 < result["resident_peak_bytes"] < 64 * 2**20 for result in results)


@pytest.mark.slow
def test_what_would_not_fit_is_a_row_and_runs_when_it_is_forced_to(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "available_memory", lambda device: 2**20)
    cells = [
        arm_cell(variant="pico", arm="v1", base="v2", conditions=Memory(resolution=side, mode="training"))
        for side in (128, 32)
    ]
    summary = run(cells, tmp_path)
    assert (summary.measured, summary.failed) == (2, [])
    large = find_record(tmp_path, cells[0])
    assert large["status"] == "done"
    assert large["result"]["peak_memory_bytes"] is None
    needed = re.fullmatch(r"predicted to need ([\d.]+) MiB, free 1.0 MiB; not run", large["result"]["out_of_memory"])
    assert float(needed[1]) > 1
    again = run(cells, tmp_path, force=True)
    assert (again.measured, again.kept) == (2, 0)  # 0.1 M parameters with their state are more than 1 MiB
    forced = find_record(tmp_path, cells[0])["result"]
    assert forced["peak_memory_bytes"] / 2**20 == pytest.approx(float(needed[1]), abs=0.06)
    assert run(cells, tmp_path, force=True).kept == 2


def test_a_prediction_does_not_depend_on_those_before_it():
    rows = Memory(resolution=64, mode="training", method="predicted", channels_last=False)
    cells = [
        arm_cell(variant="pico", arm="v1+ope+cffn+lsra", base="v2", conditions=replace(rows, channels_last=layout))
        for layout in (False, True, False)
    ]
    first, _, again = (measure_cell(cell)["peak_memory_bytes"] for cell in cells)
    assert (
        first
        == again
        == measure_cell(replace(cells[0], conditions=replace(rows, method="measured")))["peak_memory_bytes"]
    )


@pytest.mark.parametrize("method", ["predicted", "measured"])
def test_a_model_that_refuses_a_size_is_a_row_of_memory_too(tmp_path, method):
    cell = build_cell("timm:vit_tiny_patch16_224", Memory(resolution=256, method=method))
    assert run([cell], tmp_path).failed == []
    result = find_record(tmp_path, cell)["result"]
    assert result["peak_memory_bytes"] is None
    assert "doesn't match model" in result["refused"]
    (table,) = (table for table in TABLES if table.name == "memory_models")
    assert "refused |" in render_markdown(table, table.values(load_records(tmp_path)))


def test_a_record_of_another_data_set_of_the_same_name_is_not_taken_for_this_one(tmp_path):
    cell = arm_cell(
        variant="pico", arm="v1", base="v2", conditions=Accuracy(data="toy", num_classes=2, epochs=1, batch_size=2)
    )
    for number, folder in enumerate(("one", "other")):
        for split, label in itertools.product(("train", "val"), "ab"):
            place = tmp_path / folder / "toy" / split / label
            place.mkdir(parents=True)
            for index in range(2 + number):
                Image.new("RGB", (32, 32), (90 * index, 0, 0)).save(place / f"{index}.png")
    assert run([cell], tmp_path / "runs", data_dir=tmp_path / "one").measured == 1
    assert run([cell], tmp_path / "runs", data_dir=tmp_path / "one").kept == 1
    with pytest.raises(InputError, match="data='toy' is not possible; allowed: the data set that the results folder"):
        run([cell], tmp_path / "runs", data_dir=tmp_path / "other")
    assert run([cell], tmp_path / "runs", data_dir=tmp_path).kept == 1, "records count without their data too"


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_own_cell_alone(tmp_path, monkeypatch):
    for module in (needs, runner):
        monkeypatch.setattr(module, "available_cores", lambda: 2)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "deadly.py").write_text(
        "import multiprocessing, os, signal\nfrom torch import nn\n"
        "def build():\n"
        "    if multiprocessing.parent_process():\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))\n"
    )
    deadly = build_cell(f"{folder / 'deadly.py'}:build", ACCURACY)
    cells = [deadly, *(arm_cell(variant="pico", arm=arm, base="v2", conditions=ACCURACY) for arm in ("v1", "v1+ope"))]
    summary = run(cells, tmp_path / "runs", jobs=2)
    assert summary.measured == 2
    assert summary.failed == [(deadly.label, "the process that computed it was killed")]
    assert set(load_records(tmp_path / "runs")["threads"]) == {1}, "with as many as beside the others"


@pytest.mark.parametrize("what", ["folder", "records"])
def test_a_folder_that_vanishes_while_it_is_measured_into_ends_the_run(tmp_path, monkeypatch, what):
    results = tmp_path / "runs"

    def measure(cell):
        if cell.arm == ARMS[2]:
            (results if what == "folder" else results / "records").rename(tmp_path / "elsewhere")
            results.mkdir(exist_ok=True)
        return {"params": 1, "macs": 1}

    fake(monkeypatch, measure)
    with pytest.raises(InputError, match=r"allowed: a folder that stays while it is measured into; .* gone"):
        run(CELLS, results)


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"params": 1, "macs": float("nan")}, "it has no macs of the kind that it should be (integer)"),
        ({"macs": 1}, "its result has no params"),
    ],
)
def test_a_result_that_no_record_may_have_is_a_failed_cell(tmp_path, monkeypatch, result, why):
    fake(monkeypatch, lambda cell: result)
    summary = run(CELLS[:1], tmp_path)
    assert summary.failed == [(CELLS[0].label, f"ValueError: {why}")]
    assert read_records(tmp_path).damaged == {}


def test_processes_with_other_images_do_not_train_together(monkeypatch):
    cell = arm_cell("pico", "v1", "v2", ACCURACY)
    monkeypatch.setattr(Accuracy, "data_digest", lambda self, data_dir: "here")
    ranks = SimpleNamespace(count=2, gather=lambda own: [own, {"digits": "there"}])
    with pytest.raises(InputError, match=r"data='digits' is not possible; .*those of process 1 are others"):
        needs.refuse_different_data(ranks, [cell], None)
    needs.refuse_different_data(SimpleNamespace(count=2, gather=lambda own: [own, own]), [cell], None)
