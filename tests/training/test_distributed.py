"""One training in several processes equals one in one; what cannot be shared is refused, once and in one line."""

import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ablations import cli
from ablations.cells import arm_cell
from ablations.config import build_config
from ablations.data.loading import load_data
from ablations.errors import InputError
from ablations.measure import Accuracy, Cost
from ablations.model import build_model
from ablations.model.checkpoint import load_weights
from ablations.records.bits import pack_bits
from ablations.records.folder import read_records
from ablations.runner import needs
from ablations.runner.run import run_cells
from ablations.training import distributed
from ablations.training.classification import evaluate
from ablations.training.distributed import Ranks, count_ranks, joined

RECIPE = (
    "--variants pico --arms v1+ope --epochs 1 --train-images 200 --batch-size 40 --base-lr 1e-3 --warmup-epochs 0.4 "
    "--mixup 0.8 --cutmix 1.0 --random-erasing 0.5 --aug-repeats 3 --ema-decay 0.9 --drop-path-rate 0.3 --save-weights "
    "--eval-resolutions 48"
).split()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shares", [1, 2, 5])
def test_shares_are_equal_mirrored_and_together_the_whole_batch(count: int, shares: int):
    size = 2 * count * shares
    places = [Ranks(rank, count).share(size) for rank in range(count)]
    assert {len(own) for own in places} == {2 * shares}
    assert sorted(torch.cat(places).tolist()) == list(range(size))
    for own in places:
        assert torch.equal(own.flip(0), size - 1 - own), "each is paired with its mirror image"


def test_one_process_may_take_any_batch_and_several_what_they_can_share():
    assert Ranks().share(7).tolist() == list(range(7))
    for count, size in ((1, 7), (2, 4), (4, 64)):
        Ranks(0, count).check_batch(size)
    for count, size in ((2, 2), (2, 6), (4, 12), (8, 8)):
        with pytest.raises(InputError, match=f"batch_size={size} is not possible; allowed: a multiple of {2 * count}"):
            Ranks(0, count).check_batch(size)


def test_alone_there_is_nobody_to_ask(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert count_ranks() == 1
    with joined("cpu") as ranks:
        assert ranks == Ranks()
        values = torch.arange(3.0)
        assert ranks.add(values) is values
        assert (ranks.agree(2, "cpu"), ranks.gather("own"), ranks.tell_all("own")) == (2, ["own"], "own")
        assert ranks.is_first


ACCURACY = arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy(batch_size=40))
COST = arm_cell(variant="pico", arm="v1", base="v2", conditions=Cost())


@pytest.mark.parametrize(
    ("cells", "jobs", "message"),
    [
        ([COST], 1, "processes=2 is not possible; allowed: 1, but for trainings on one device, without --jobs"),
        ([ACCURACY, COST], 1, "processes=2 is not possible"),
        ([ACCURACY], 2, "processes=2 is not possible"),
        (
            [arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy(batch_size=42))],
            1,
            "batch_size=42 is not",
        ),
    ],
)
def test_what_several_processes_cannot_do_is_refused_before_they_meet(tmp_path, monkeypatch, cells, jobs, message):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(needs, "available_cores", lambda: 2)
    with pytest.raises(InputError, match=message):
        run_cells(cells, study="test", results=tmp_path / "runs", jobs=jobs)
    assert not (tmp_path / "runs").exists()


def test_only_the_first_process_complains(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "SILENCE_S", 0.2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    waited = []
    monkeypatch.setattr(cli.time, "sleep", lambda seconds: waited.append((seconds, capsys.readouterr().err)))
    try:
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            assert cli.main(["cost", "--variants", "pico", "--results", str(tmp_path / "runs")]) == 2
            # The other one speaks only if nobody ended it meanwhile.
            assert capsys.readouterr().err.startswith("error: processes=2 is not possible")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert waited == [(0.2, "")]


ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SCRIPT = """
import sys
from ablations import cli
from ablations.measure import environment
from ablations.report import build
from ablations.training import resume

environment.find_commit = lambda folder: "tested"  # files may change while this runs

def report(results, **options):
    print("reported")
    return build.Built(files=[], not_rebuilt={})

build.build_report = report
if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("script") / "run.py"
    path.write_text(SCRIPT)
    return path


def start(*command: object) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*map(str, command)], env=environment, **pipes)


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path, script):
    both = [
        start(*command, "accuracy", *RECIPE, "--eval-every", 1, "--results", tmp_path / name)
        for name, command in (("one", [sys.executable, script]), ("two", [*TORCHRUN, script]))
    ]
    printed = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    (one,), (two,) = (read_records(tmp_path / name).records for name in ("one", "two"))
    assert (one["environment"]["processes"], two["environment"]["processes"]) == (1, 2)
    assert one["key"] == two["key"]
    (first,), (second,) = one["result"]["history"], two["result"]["history"]
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-3)
    assert second["lr"] == first["lr"]
    assert two["result"]["eval_loss"] == pytest.approx(one["result"]["eval_loss"], rel=1e-4)
    assert two["result"]["n_eval_images"] == one["result"]["n_eval_images"] == 360
    assert two["result"]["top1"] == pytest.approx(one["result"]["top1"], abs=2 / 360)
    # With the weights that two processes left, one process answers each image as they did together.
    (weights,) = (tmp_path / "two" / "weights").iterdir()
    conditions = Accuracy(num_classes=10, train_images=200, batch_size=40)
    model = build_model(build_config("pico", "v1+ope", "v2", num_classes=10, img_size=32))
    load_weights(model, weights)
    model.to(memory_format=torch.channels_last)
    expected = evaluate(model, load_data(conditions, None), conditions)
    assert two["result"]["correct"] == pack_bits(expected["correct"].tolist())
    assert two["result"]["top1"] == expected["top1"]
    assert two["result"]["top1_by_resolution"].keys() == {"48"}
    for out, _ in printed:
        for once in ("recipe: resolution=32 data=digits", "reported", "1 cell measured"):
            assert out.count(once) == 1


@pytest.mark.slow
def test_what_cannot_be_shared_is_one_line_of_several_processes(tmp_path, script):
    arguments = ["accuracy", *RECIPE, "--batch-size", 42, "--results", tmp_path / "runs"]
    _, errors = start(*TORCHRUN, script, *arguments).communicate(timeout=120)
    said = [line for line in errors.splitlines() if line.startswith(("error:", "stopped", "internal"))]
    assert said == ["error: batch_size=42 is not possible; allowed: a multiple of 4, twice the number of processes"]
    assert re.search(r"exitcode\s*: 2\b", errors)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_several_processes_that_are_told_to_stop_write_a_checkpoint_that_as_many_resume_from(tmp_path, script):
    arguments = ["accuracy", *RECIPE, "--epochs", 8, "--results", tmp_path / "runs"]
    process = start(*TORCHRUN, script, *arguments)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "runs").glob("logs/*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    said = re.findall(r"^stopped in epoch (\d+) of 8, after \d of its steps; a checkpoint is saved", errors, re.M)
    assert len(said) == 1, errors
    (log,) = (tmp_path / "runs" / "logs").iterdir()
    before = log.read_text().splitlines()
    assert list((tmp_path / "runs").glob("checkpoints/[!.]*.pt"))
    alone = start(sys.executable, script, *arguments)
    _, errors = alone.communicate(timeout=120)
    assert alone.returncode == 1
    assert "was written with processes=2, and this is processes=1: resume as then, or remove it" in errors
    _, errors = start(*TORCHRUN, script, *arguments).communicate(timeout=120)
    assert "starts over" not in errors
    assert log.read_text().splitlines()[: len(before)] == before, "they went on from there"
    assert len(log.read_text().splitlines()) == 8


def test_the_process_that_failed_says_why_and_the_others_are_silent(monkeypatch):
    store = dist.HashStore()
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(distributed, "TELL_WITHIN", timedelta(seconds=0.1))
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234")
    alone = Ranks(0, 2).fault(lost)
    assert (str(alone), alone.is_told) == ("process 0 of 2: another one ended, and did not say why", False)
    first = Ranks(1, 2).fault(OSError("image 7 cannot be read"))
    assert (str(first), first.is_told) == ("process 1 of 2: OSError: image 7 cannot be read", False)
    other = Ranks(0, 2).fault(lost)
    assert (str(other), other.is_told) == (str(first), True)
    assert Ranks(0, 2).fault(ValueError("later")).is_told
