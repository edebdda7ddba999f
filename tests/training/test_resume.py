"""A training that was stopped or killed, anywhere, ends with the record of one that was not."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ablations.config import build_config
from ablations.data.loading import load_data
from ablations.measure import Accuracy
from ablations.measure.measurement import Setting
from ablations.model import build_model
from ablations.training import resume
from ablations.training.accuracy import measure_accuracy
from ablations.training.loop import Diverged, Training
from ablations.training.resume import OutOfTime, Saver, load_checkpoint
from ablations.training.train import Files

EVERYTHING = Accuracy(
    epochs=2,
    cooldown_epochs=1,
    batch_size=50,
    train_images=200,
    mixup=0.8,
    cutmix=1.0,
    random_erasing=0.5,
    aug_repeats=3,
    ema_decay=0.9,
    eval_every=1,
    tuning_images=50,  # which are fewer to evaluate than the validation images
)
TIMES = ("started", "duration_s", "seconds", "wait_s", "train_s", "train_img_per_s", "wait_fraction")


def build(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(build_config("pico", "v1+ope", "v1", num_classes=10, img_size=32, drop_path_rate=0.4))


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in history]


def assert_same(one: Training, other: Training) -> None:
    assert without_times(one.history) == without_times(other.history)
    for model, twin in ((one.model, other.model), (one.trained, other.trained)):
        for name, value in model.state_dict().items():
            assert torch.equal(value, twin.state_dict()[name]), name
    scores, expected = one.evaluate(), other.evaluate()
    assert torch.equal(scores.pop("correct"), expected.pop("correct"))
    assert scores == expected


@pytest.fixture(scope="module")
def whole() -> Training:
    """A training that nobody interrupted."""
    training = Training(build(), load_data(EVERYTHING, None), EVERYTHING)
    training.run()
    return training


@pytest.mark.slow
def test_a_training_that_is_stopped_after_every_step_ends_as_one_that_is_not(tmp_path, whole):
    path = tmp_path / "one.pt"
    for stops in range(1, 100):
        torch.manual_seed(1000 + stops)  # what another process would have drawn
        training = Training(build(seed=stops - 1), load_data(EVERYTHING, None), EVERYTHING)
        saver = Saver(path, {}, deadline=0.0)
        saver.restore(training)
        assert training.step == stops - 1
        if training.epoch > EVERYTHING.total_epochs:
            break
        with pytest.raises(OutOfTime, match="the time is over in epoch"):
            training.run(save=saver.save_if_due)
    assert stops == 13, "12 steps: 4 in each of 3 epochs"
    assert_same(training, whole)


@pytest.mark.slow
def test_a_training_resumes_from_its_last_checkpoint_whatever_came_after(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(resume, "CHECKPOINT_EVERY_S", 0.0)
    training = Training(build(), load_data(EVERYTHING, None), EVERYTHING)

    def fail(training: Training) -> None:
        if training.step == 7:  # whose checkpoint is not written any more
            raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError, match="power"):
        training.run(progress=fail, save=Saver(tmp_path / "one.pt", {}).save_if_due)
    again = Training(build(seed=5), load_data(EVERYTHING, None), EVERYTHING)
    saver = Saver(tmp_path / "one.pt", {})
    saver.restore(again)
    assert again.step == 6
    again.run(save=saver.save_if_due)
    assert_same(again, whole)


@pytest.mark.slow
def test_writing_checkpoints_changes_nothing(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(resume, "CHECKPOINT_EVERY_S", 0.0)
    training = Training(build(), load_data(EVERYTHING, None), EVERYTHING)
    training.run(save=Saver(tmp_path / "one.pt", {}).save_if_due)
    assert_same(training, whole)


@pytest.mark.parametrize("how", ["damaged", "another commit"])
def test_what_cannot_be_resumed_starts_over_to_the_same_numbers(tmp_path, capsys, how):
    files = Files(checkpoint=tmp_path / "c.pt", log=tmp_path / "l.jsonl", made_by={"commit": "one"})
    conditions = replace(EVERYTHING, epochs=1, cooldown_epochs=0)

    def measure(**options: Any) -> dict[str, Any]:
        return measure_accuracy(build, conditions, Setting(files=files, **options))

    with pytest.raises(OutOfTime):
        measure(deadline=0.0)
    if how == "damaged":
        files.checkpoint.write_bytes(files.checkpoint.read_bytes()[:1000])
    else:
        files = replace(files, made_by={"commit": "two"})
    result = measure()
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "that training starts over" in complaint
    plain = measure_accuracy(build, conditions, Setting())
    assert without_times(result["history"]) == without_times(plain["history"])
    assert (result["top1"], result["eval_loss"]) == (plain["top1"], plain["eval_loss"])


@pytest.mark.slow
def test_a_training_that_was_finished_before_its_record_was_written_is_evaluated_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "CHECKPOINT_EVERY_S", 0.0)
    files = Files(checkpoint=tmp_path / "c.pt", log=tmp_path / "l.jsonl")
    first = measure_accuracy(build, EVERYTHING, Setting(files=files))
    monkeypatch.setattr(Training, "_take_step", None)
    assert measure_accuracy(build, EVERYTHING, Setting(files=files)) == first


@pytest.mark.slow
@pytest.mark.parametrize("stops", [5, 12])  # of 12 steps, 4 an epoch
def test_the_log_of_a_resumed_training_has_each_epoch_once(tmp_path, stops):
    files = Files(checkpoint=tmp_path / "c.pt", log=tmp_path / "l.jsonl")
    for _ in range(stops):
        with pytest.raises(OutOfTime):
            measure_accuracy(build, EVERYTHING, Setting(files=files, deadline=0.0))
    result = measure_accuracy(build, EVERYTHING, Setting(files=files))
    assert [json.loads(line)["epoch"] for line in files.log.read_text().splitlines()] == [1, 2, 3]
    assert [json.loads(line) for line in files.log.read_text().splitlines()] == result["history"]


def test_a_loss_that_was_lost_before_the_stop_is_found_at_the_end_of_the_epoch(tmp_path):
    def lose(training: Training) -> None:
        if training.step == 2:
            training.losses[-1] = torch.tensor(float("nan"))

    conditions, path = replace(EVERYTHING, epochs=1), tmp_path / "one.pt"
    for error in (OutOfTime, OutOfTime, OutOfTime, Diverged):  # the fourth step is the epoch's last
        training = Training(build(), load_data(conditions, None), conditions)
        saver = Saver(path, {}, deadline=0.0)
        saver.restore(training)
        with pytest.raises(error) as caught:
            training.run(progress=lose, save=saver.save_if_due)
    assert "at step 2" in str(caught.value)


# The command itself. Starting Python and torch takes seconds, so each command is a fork of a process that has done so.
COMMANDS = """
import io, os, shlex, signal, sys, time
import torch
import ablations.runner
from ablations import cli
from ablations.measure import Accuracy
from ablations.measure import environment
from ablations.report import build
from ablations.data.loading import load_data
from ablations.training import resume

environment.find_commit = lambda folder: "tested"  # files may change while this runs
resume.CHECKPOINT_EVERY_S = 0.0
# Reports take seconds, and are tested elsewhere.
build.build_report = lambda results, **options: build.Built(files=[], not_rebuilt={})
load_data(Accuracy(train_images=1000), None)
write = torch.save

def write_slowly(state, file):  # so that many kills come amid writing, and no run gets far
    content = io.BytesIO()
    write(state, content)
    half = len(content.getvalue()) // 2
    file.write(content.getvalue()[:half])
    file.flush()
    time.sleep(0.02)
    file.write(content.getvalue()[half:])

torch.save = write_slowly
signal.signal(signal.SIGINT, signal.default_int_handler)
for line in sys.stdin:
    errors, *arguments = shlex.split(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = cli.main(arguments)
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
ARGUMENTS = (
    "accuracy --variants pico --arms v1+ope --bases v1 --epochs 2 --train-images 1000 --batch-size 50 --mixup 0.8 "
    "--cutmix 1.0 --random-erasing 0.5 --aug-repeats 3 --ema-decay 0.9 --drop-path-rate 0.3 --eval-every 1 "
    "--tuning-images 50 "
    "--results"
)


class Command:
    """Runs the training of ARGUMENTS, one process after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def start(self, results: Path, arguments: str = ARGUMENTS) -> int:
        """Starts it and returns its process's number."""
        assert self.process.stdin is not None
        self.process.stdin.write(shlex.join([str(errors_of(results)), *arguments.split(), str(results)]) + "\n")
        self.process.stdin.flush()
        return self._read()

    def wait(self) -> int:
        """Returns its exit code."""
        return self._read()

    def _read(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


def errors_of(results: Path) -> Path:
    return results.with_suffix(".err")


@pytest.fixture(scope="module")
def command() -> Iterator[Command]:
    asked = [sys.executable, "-c", COMMANDS]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(asked, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Command(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def uninterrupted(command, tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("uninterrupted") / "runs"
    command.start(results)
    assert command.wait() == 0
    return results


def record_of(results: Path) -> Path:
    (path,) = (results / "records" / "accuracy").glob("*.json")
    return path


def timeless_lines(record: Path) -> list[bytes]:
    """Returns the bytes of a record, line by line, but for the times and the digest, which covers them."""
    lines = record.read_bytes().splitlines(keepends=True)
    others = tuple(f'"{name}":'.encode() for name in (*TIMES, "digest"))
    return [line for line in lines if not line.strip().startswith(others)]


def checkpoint_of(results: Path) -> Path | None:
    return next(results.glob("checkpoints/[!.]*.pt"), None)


def file_number(results: Path) -> int:
    """Returns what is another number when another checkpoint was written; 0 where there is none."""
    path = checkpoint_of(results)
    return path.stat().st_mtime_ns if path else 0


def wait_for_another(results: Path, number: int) -> None:
    """Waits until there is another checkpoint than the one of a number."""
    deadline = time.monotonic() + 60
    while file_number(results) == number:
        assert time.monotonic() < deadline, "no step was taken in a minute"


def step_of(results: Path) -> int:
    path = checkpoint_of(results)
    state = load_checkpoint(path, {}) if path else None
    return state["step"] if state else 0


@pytest.mark.slow
def test_a_command_that_is_killed_ten_times_makes_the_same_record_byte_for_byte(tmp_path, command, uninterrupted):
    results, moments = tmp_path / "runs", random.Random(6)
    for _ in range(10):
        before, number = step_of(results), file_number(results)
        child = command.start(results)
        wait_for_another(results, number)
        time.sleep(moments.uniform(0, 0.06))  # a step and its checkpoint take about that
        os.kill(child, signal.SIGKILL)
        assert command.wait() == -signal.SIGKILL
        assert not list(results.glob("records/accuracy/*.json"))
        assert step_of(results) > before, "it resumes from where it was"
    assert step_of(results) < 40, "there was something left to do"
    command.start(results)
    assert command.wait() == 0
    assert "starts over" not in errors_of(results).read_text()
    assert timeless_lines(record_of(results)) == timeless_lines(record_of(uninterrupted))
    assert len(timeless_lines(record_of(results))) > 100
    assert list(results.glob("checkpoints/[!.]*")) == [], "a finished training needs none"
    (log,) = (results / "logs").iterdir()
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2]


@pytest.mark.slow
def test_a_killed_training_of_a_toggle_of_a_reader_s_file_resumes(tmp_path, command):
    file = Path(__file__).parents[2] / "notebooks" / "squeeze_excite.py"
    (tmp_path / "mine.py").write_bytes(file.read_bytes())
    arguments = ARGUMENTS.replace("--arms v1+ope ", f"--toggles {tmp_path / 'mine.py'}:se --arms v1+ope+se ")
    whole, results = tmp_path / "whole", tmp_path / "runs"
    command.start(whole, arguments)
    assert command.wait() == 0
    for _ in range(2):
        before, number = step_of(results), file_number(results)
        child = command.start(results, arguments)
        wait_for_another(results, number)
        os.kill(child, signal.SIGKILL)
        assert command.wait() == -signal.SIGKILL
        assert step_of(results) > before
    command.start(results, arguments)
    assert command.wait() == 0
    assert "starts over" not in errors_of(results).read_text()
    assert timeless_lines(record_of(results)) == timeless_lines(record_of(whole))
    assert json.loads(record_of(results).read_text())["toggle_files"]["se"]["file"] == "mine.py"


@pytest.mark.slow
def test_a_command_that_is_told_to_stop_says_how_to_resume_and_does(tmp_path, command, uninterrupted):
    results = tmp_path / "runs"
    for number in (signal.SIGTERM, signal.SIGINT):
        before = file_number(results)
        child = command.start(results)
        wait_for_another(results, before)
        os.kill(child, number)
        assert command.wait() == 130
        *_, said = errors_of(results).read_text().splitlines()
        step = step_of(results)
        where = f"in epoch {step // 20 + 1} of 2, after {step % 20} of its steps"
        assert said == f"stopped {where}; a checkpoint is saved; rerun the same command to resume"
        assert "Traceback" not in errors_of(results).read_text()
    command.start(results)
    assert command.wait() == 0
    assert timeless_lines(record_of(results)) == timeless_lines(record_of(uninterrupted))
