"""Training that stops at any step and resumes in another process as if nothing had happened.

A checkpoint is written whole or not at all, and read without unpickling anything.
"""

import ast
import copy
import hashlib
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ablations.data.registry import DATA_SETS
from ablations.errors import InputError, first_line, refuse
from ablations.files import opened_regular, written_whole
from ablations.training.loop import Training

CHECKPOINT_EVERY_S = 60.0

AGREE_EVERY = {"cpu": 1, "cuda": 10}
"""Steps between which several processes ask each other whether to stop; asking waits for the GPU."""

ONE_REQUEST_S = 2.0
"""Signals that follow each other this soon are one request: of a terminal to all processes, and of a parent."""

_TRAIN, _SAVE, _PAUSE, _STOP = range(4)


class OutOfTime(RuntimeError):
    """The time for a training was over before it was finished; it has written a checkpoint."""


class Stopped(KeyboardInterrupt):
    """A training was asked to stop by a signal; it has written a checkpoint."""


class Saver:
    """Writes the checkpoints of one training: every so often, when its time is over, and when it is asked to stop.

    `made_by` says what its numbers depend on beside the conditions; no training resumes from a checkpoint that another
    made. `deadline` is in seconds of the monotonic clock.
    """

    def __init__(self, path: Path, made_by: dict[str, Any], *, deadline: float = math.inf) -> None:
        self.path, self.made_by, self.deadline = path, made_by, deadline
        self._saved = time.monotonic()
        self._asked: float | None = None

    def restore(self, training: Training) -> None:
        """Has a training resume from the checkpoint, if there is one that suits it; else it starts over."""
        ranks = training.ranks
        shapes = shapes_of(training.model.state_dict())
        state = load_checkpoint(self.path, self.made_by, shapes) if ranks.is_first else None
        state = ranks.tell_all(state)
        if state is None:
            return
        anew = copy.deepcopy(training.state())
        fault = ""
        try:
            training.load_state(state)
        except Exception as error:  # a state that something is missing in fails in every way
            fault = first_line(error)
        if any(faults := ranks.gather(fault)):
            training.load_state(anew)
            if ranks.is_first:
                _warn(f"{self.path} does not suit it ({next(filter(None, faults))})")

    def save_if_due(self, training: Training, *, is_over: bool = False) -> None:
        """Saves where it is time to, or where the training is over.

        Raises OutOfTime or Stopped, after saving, where it has to end. A checkpoint that cannot be written is warned
        of, because the training itself can continue.
        """
        ranks, device = training.ranks, training.conditions.device
        if ranks.count > 1 and not is_over and training.step % AGREE_EVERY[device]:
            return
        wish = ranks.agree(max(self._wish(), _SAVE if is_over else _TRAIN), device)
        if wish == _TRAIN:
            return
        fault = self._save(training)
        if wish == _SAVE:
            if fault:
                print(f"warning: {fault}", file=sys.stderr)
            return
        done = training.step % training.steps_per_epoch
        where = f"in epoch {training.epoch} of {training.total_epochs}, after {done} of its steps"
        if is_over:
            where = "after its last step"
        if wish == _PAUSE:
            raise OutOfTime(f"the time is over {where}; {fault or 'a checkpoint is saved'}")
        raise Stopped(f"stopped {where}; {fault or 'a checkpoint is saved; rerun the same command to resume'}")

    def _save(self, training: Training) -> InputError | None:
        """Writes a checkpoint; returns what was wrong where it could not."""
        state = training.state()
        self._saved = time.monotonic()
        if training.ranks.is_first:
            try:
                save_checkpoint(self.path, state | {"made_by": self.made_by})
            except InputError as error:
                return error
        return None

    def _wish(self) -> int:
        if self._asked is not None:
            return _STOP
        now = time.monotonic()
        if now >= self.deadline:
            return _PAUSE
        return _SAVE if now - self._saved >= CHECKPOINT_EVERY_S else _TRAIN

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Has SIGINT and SIGTERM stop the training after its step; another, later one stops the process as before."""
        if threading.current_thread() is not threading.main_thread():
            yield  # which Python gives no signals
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

        def ask(number: int, base: Any) -> None:
            now = time.monotonic()
            if self._asked is None:
                self._asked = now
            elif now - self._asked > ONE_REQUEST_S:
                for each, handler in before.items():
                    signal.signal(each, handler)
                signal.raise_signal(number)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a state of tensors and plain values; a kill at any moment leaves the old file or the new one.

    Raises InputError where the file cannot be written.
    """
    try:
        with written_whole(path) as file:
            torch.save(state | {"digest": state_digest(state)}, file)
    except (OSError, RuntimeError) as error:  # torch's writer raises the second where a disk is full
        raise refuse("checkpoint", str(path), f"a file that can be written ({first_line(error)})") from error


def state_digest(state: Any) -> str:
    """Returns the SHA-256 of tensors and plain values, one within the other."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            digest.update(b"{%d" % len(value))
            for name, each in value.items():
                add(name)
                add(each)
        elif isinstance(value, list | tuple):
            digest.update(b"[%d" % len(value))
            for each in value:
                add(each)
        else:
            digest.update(f"{type(value).__name__}{value!r}\0".encode())

    add(state)
    return digest.hexdigest()


LARGEST_CHECKPOINT = 2**38
"""Bytes."""

SET_BY_HAND = {"threads", "processes"}
"""What a user can set as it was, unlike code, libraries, machine and data."""


def load_checkpoint(
    path: Path, made_by: dict[str, Any], shapes: Mapping[str, torch.Size | None] | None = None
) -> dict[str, Any] | None:
    """Returns the state that `save_checkpoint` wrote, in main memory, or None where there is none to resume from.

    Without a state, a warning says so: the file is damaged, or of a model of other `shapes` by name, or was written
    where numbers might differ, by other code or on another kind of machine. Where nothing but SET_BY_HAND differs,
    raises InputError, so that the file is not lost.
    """
    if not path.is_file():
        return None
    try:
        with opened_regular(path, LARGEST_CHECKPOINT) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
        if state.pop("digest", None) != state_digest(state):
            raise ValueError("its content was changed")
        others = [name for name, value in made_by.items() if state["made_by"][name] != value]
    except (OSError, MemoryError) as error:  # the file may be whole
        raise refuse("checkpoint", str(path), f"a file that can be read ({first_line(error)})") from error
    except Exception as error:  # a damaged file fails in every way that a reader can
        _warn(f"{path} is damaged ({first_line(error)})")
        return None
    sources = state["made_by"], made_by
    if others and set(others) <= SET_BY_HAND:
        was, is_now = (" and ".join(f"{name}={source[name]}" for name in others) for source in sources)
        raise InputError(f"{path} was written with {was}, and this is {is_now}: resume as then, or remove it")
    if others:
        was, is_now = (", ".join(str(source[name]) for name in others) for source in sources)
        _warn(f"{path} was written with another {' and '.join(others)} ({was}; now {is_now})")
        return None
    model = state.get("model")
    if shapes is not None and (not isinstance(model, Mapping) or shapes_of(model) != shapes):
        _warn(f"{path} is of another model")
        return None
    return state


def shapes_of(weights: Mapping[str, Any]) -> dict[str, torch.Size | None]:
    return {name: getattr(value, "shape", None) for name, value in weights.items()}


def _warn(fact: str) -> None:
    print(f"warning: {fact}; that training starts over", file=sys.stderr)


PACKAGE = Path(__file__).parents[1]

TRAINS = tuple(
    """
    config.py recipes.py dense_recipes.py model heads data training
    measure/accuracy.py measure/network.py measure/measurement.py
    measure/dense.py measure/detection.py measure/segmentation.py
    """.split()
)
"""The files and folders of the package that decide the numbers of a training."""

BESIDE_TRAINING = ("model/checkpoint.py", "model/timm_registry.py", "training/evaluation.py", "training/logs.py")
"""Those in these folders that do not."""

PROSE = re.compile(r"\S \S")
"""What texts for people have: captions, meanings of columns, messages of errors."""

REGISTRIES = ("DATA_SETS", "DENSE_SETS", "LARGEST_CLASSES")
"""What is said of data sets, by name; a training depends on the entry of its own alone."""


@cache
def training_code_digest(data: str, folder: Path | None = None, *, baselines: bool = False) -> str:
    """Returns the SHA-256 of the code that trains on a data set, by which a checkpoint of other code is told apart.

    Comments, docstrings, layout and texts for people don't count, nor do entries and readers of other data sets.
    `folder` adds the Python files of a user's folder, byte by byte, and `baselines` the package's own baseline models.
    """
    digest = hashlib.sha256()
    readers = {name: known.reader.partition(":")[0] for name, known in DATA_SETS.items()}
    of_other_sets = {*readers.values()} - {readers.get(data)}
    for name in (*TRAINS, *(["baselines"] if baselines else [])):
        place = PACKAGE / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            path = file.relative_to(PACKAGE).as_posix()
            module = ".".join([PACKAGE.name, *Path(path).with_suffix("").parts])
            if path not in BESIDE_TRAINING and module not in of_other_sets:
                digest.update(f"{path}\0{_decisive_part(file.read_text(encoding='utf-8'), data)}\0".encode())
    for file in sorted(folder.glob("*.py")) if folder else ():
        digest.update(os.fsencode(file.name) + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _decisive_part(source: str, data: str) -> str:
    """Returns the syntax tree of a source without docstrings, texts for people, and entries of other data sets."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict() as entries)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict() as entries)
            ) if name in REGISTRIES:
                named = zip(entries.keys, entries.values, strict=True)
                own = [(key, entry) for key, entry in named if isinstance(key, ast.Constant) and key.value == data]
                entries.keys, entries.values = [key for key, _ in own], [entry for _, entry in own]
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and PROSE.search(node.value):
            node.value = ""
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a string alone, as docstrings of functions and of fields are."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
