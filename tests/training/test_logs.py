"""Logs: a line an epoch, each once, and TensorBoard's scalars where it is installed."""

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any, ClassVar

import pytest

from ablations.errors import InputError
from ablations.training.logs import Logs, check_tensorboard

HISTORY = [
    {"epoch": 1, "loss": 2.0, "lr": 0.1, "grad_norm": 3.0, "seconds": 1.5, "wait_s": 0.1},
    {"epoch": 2, "loss": 1.0, "lr": 0.2, "grad_norm": 2.0, "seconds": 1.4, "wait_s": 0.2, "top1": 0.5},
]


def test_each_epoch_is_a_line_and_stands_once_however_often_it_is_written(tmp_path):
    lines = tmp_path / "logs" / "one.jsonl"
    Logs(lines).write(HISTORY[:1])
    assert [json.loads(line) for line in lines.read_text().splitlines()] == HISTORY[:1]
    resumed = Logs(lines)
    for _ in range(2):
        resumed.write(HISTORY)
        assert [json.loads(line) for line in lines.read_text().splitlines()] == HISTORY


class Writer:
    """In the place of TensorBoard's; keeps what it is given."""

    written: ClassVar[list[Any]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.written.append(("begin", folder, purge_step))

    def add_scalar(self, name: str, value: float, epoch: int) -> None:
        self.written.append((name, value, epoch))

    def flush(self) -> None:
        self.written.append("flush")


def test_tensorboard_has_the_scalars_of_each_epoch(tmp_path, monkeypatch):
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "written", [])
    logs = Logs(tmp_path / "one.jsonl", tmp_path / "events")
    logs.write(HISTORY[:1])
    logs.write(HISTORY)
    first = [(name, value, 1) for name, value in HISTORY[0].items() if name != "epoch"]
    second = [(name, value, 2) for name, value in HISTORY[1].items() if name != "epoch"]
    folder = str(tmp_path / "events")
    assert Writer.written == [("begin", folder, 1), *first, "flush", *second, "flush"]


def test_tensorboard_is_refused_in_one_line_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # whether it is or not
    for ask in (check_tensorboard, lambda: Logs(tmp_path / "one.jsonl", tmp_path / "events")):
        with pytest.raises(InputError, match="tensorboard=True needs the package tensorboard, which is not installed"):
            ask()
    assert list(tmp_path.iterdir()) == []
    Logs(tmp_path / "one.jsonl").write(HISTORY)  # the lines need nothing


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_the_events_of_a_resumed_training_have_each_epoch_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for history in (HISTORY[:1], HISTORY, HISTORY):
        Logs(tmp_path / "one.jsonl", tmp_path / "events").write(history)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (2, 1.0)]
    assert [event.step for event in events.Scalars("top1")] == [2]
