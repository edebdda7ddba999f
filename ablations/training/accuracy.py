"""The whole measurement of accuracy: train a model from scratch, or resume its training, and evaluate it once."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import nn

from ablations.data.loading import load_data, load_eval_images
from ablations.data.splits import Data, StreamingData
from ablations.errors import refuse
from ablations.measure import Accuracy
from ablations.measure.metrics import METRICS
from ablations.model.checkpoint import save_weights
from ablations.model.compiled import compile_alone
from ablations.records.bits import pack_bits
from ablations.training.classification import evaluate
from ablations.training.distributed import ALONE, Ranks
from ablations.training.logs import Logs
from ablations.training.loop import Diverged, Training
from ablations.training.resume import Saver

Progress = Callable[[float, str], None]
"""Takes the share of a training's steps that are done, and in words how far it is."""

TELL_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Files:
    """What a training writes beside its record."""

    checkpoint: Path
    """To resume from."""
    log: Path
    """One JSON line an epoch."""
    tensorboard: Path | None = None
    """Folder of TensorBoard's events."""
    weights: Path | None = None
    """The trained weights, as safetensors."""
    examples: Path | None = None
    """Images of what a detector or a segmentation network found, beside the truth, as PNG."""
    made_by: dict[str, Any] = field(default_factory=dict)
    """What the numbers depend on beside the conditions; a checkpoint of another is not resumed."""


class Run(TypedDict, total=False):
    """How a training runs, beside its conditions."""

    ranks: Ranks | None
    workers: int
    """Processes that read images ahead; 0 reads them in this one."""
    files: Files | None
    """With them a training that was stopped or killed resumes from its last checkpoint, which stays."""
    deadline: float
    """In seconds of the monotonic clock."""
    progress: Progress | None
    description: Mapping[str, Any] | None
    """What the file of trained weights says of itself."""


def measure_accuracy(
    build: Callable[[], nn.Module], conditions: Accuracy, data_dir: Path | None, **run: Unpack[Run]
) -> dict[str, Any]:
    """Builds a model, trains it from scratch and evaluates it; returns the record's result, as plain values.

    `build` is called once and draws its weights from torch's generator, seeded with the conditions' seed. Keys:
    `top1` (a fraction), `top1_by_resolution` (the same at each of `eval_resolutions`, by the side as text), `correct`
    (which validation images were right, as `pack_bits` writes it), `eval_loss`, `n_eval_images`, `largest_class_share`
    (of the validation images), `n_train_images`, `skipped` (images that could not be read), and those of
    `Training.summary`. Raises what `load_data` and `train_model` do, and InputError for a model of other classes.
    """
    conditions.check()
    data = load_data(conditions, data_dir).to(conditions.device)
    with train_model(build, data, conditions, **run) as training:
        scores = training.evaluate()
        elsewhere = {
            str(side): evaluate(
                training.trained,
                at_resolution(data, conditions, side, data_dir),
                _at_side(conditions, side),
                ranks=training.ranks,
                workers=training.workers,
            )["top1"]
            for side in conditions.eval_resolutions
        }
        if not math.isfinite(scores["loss"]):
            last = training.history[-1]
            raise Diverged(training.step, last["lr"], scores["loss"], last["grad_norm"])
    return {
        "top1": scores["top1"],
        "eval_loss": scores["loss"],
        "top1_by_resolution": elsewhere,
        "correct": pack_bits(scores["correct"].tolist()),
        "n_eval_images": scores["n_images"],
        "largest_class_share": int(data.eval_labels.bincount().max()) / len(data.eval_labels),
        "n_train_images": len(data.train_labels),
        "skipped": list(data.skipped),
        **training.summary(),
    }


@contextmanager
def train_model(
    build: Callable[[], nn.Module],
    data: Any,
    conditions: Any,
    *,
    ranks: Ranks | None = None,
    workers: int = 0,
    files: Files | None = None,
    deadline: float = math.inf,
    progress: Progress | None = None,
    description: Mapping[str, Any] | None = None,
) -> Iterator[Training]:
    """Gives a finished training, resumed from its checkpoint where there is one; what is drawn inside is its own.

    The trained weights are written afterwards, unless an error is raised inside. The caller's random state is left as
    it was. Raises Diverged as `Training`; with `files` OutOfTime after `deadline`, and Stopped, as `Saver`.
    """
    ranks = ranks or ALONE
    saver = Saver(files.checkpoint, files.made_by, deadline=deadline) if files else None
    logs = Logs(files.log, files.tensorboard) if files and ranks.is_first else None
    with _random_state_kept(conditions):
        with saver.catching_signals() if saver else nullcontext():
            model = _start_model(build, conditions, ranks)
            training = Training(model, data, conditions, ranks=ranks, workers=workers)
            if saver:
                saver.restore(training)
            training.run(progress=_TrainingMonitor(progress, logs), save=saver.save_if_due if saver else None)
            if saver:
                saver.save_if_due(training, is_over=True)
        yield training
    if files and files.weights and ranks.is_first:
        save_weights(training.trained, files.weights, description)


def _at_side(conditions: Accuracy, side: int) -> Accuracy:
    """Returns the conditions at another resolution, with at most as many pixels in a batch as in training.

    A batch of larger images no longer fits a CPU's cache: at 160 px nano took 49 ms an image in batches of 32, 27 in
    batches of 8 and 29 of 4; and what fitted into a GPU's memory in training fits in validation.
    """
    share = min(1.0, (conditions.resolution / side) ** 2)
    return replace(conditions, resolution=side, batch_size=max(1, int(conditions.batch_size * share)))


def at_resolution(data: Data, conditions: Accuracy, side: int, data_dir: Path | None) -> Data:
    """Returns the data with validation images of another resolution, on the same device."""
    if isinstance(data, StreamingData):
        return data
    images = load_eval_images(replace(conditions, resolution=side), data_dir)
    return replace(data, eval_images=images.to(data.eval_labels.device))


@contextmanager
def _random_state_kept(conditions: Any) -> Iterator[None]:
    drawn = np.random.get_state()  # noqa: NPY002, timm's mixup draws from it
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if conditions.device == "cuda" else []):
            yield
    finally:
        np.random.set_state(drawn)  # noqa: NPY002


def _start_model(build: Callable[[], nn.Module], conditions: Any, ranks: Ranks) -> nn.Module:
    """Returns the model with the weights that the seed gives it, on its device, channels-last as its maps lie."""
    torch.manual_seed(conditions.seed)
    model = build().to(conditions.device)
    model.to(memory_format=torch.channels_last)
    if ranks.count > 1:
        if conditions.device == "cpu":
            check_shareable(model, ranks.count)
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if getattr(conditions, "compiled", False):
        compile_alone(model)
    return model


def check_shareable(model: nn.Module, processes: int) -> None:
    """Raises InputError for a model that several processes cannot train together on a CPU."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise refuse("processes", processes, "1 for a model with batch norm on a CPU, where it is not shared")


class _TrainingMonitor:
    """Tells of a training about once a second, and logs each epoch."""

    def __init__(self, progress: Progress | None, logs: Logs | None) -> None:
        self.progress, self.logs = progress, logs
        self._told, self._logged = 0.0, 0

    def __call__(self, training: Training) -> None:
        history = training.history
        if self.logs and history and history[-1]["epoch"] > self._logged:
            self.logs.write(history)
            self._logged = history[-1]["epoch"]
        if self.progress and time.monotonic() - self._told >= TELL_EVERY_S:
            self._told = time.monotonic()
            self.progress(training.step / training.total_steps, _describe(training))


def _describe(training: Training) -> str:
    history, total = training.history, training.total_epochs
    words = f"epoch {min(training.epoch, total)}/{total}"
    if not history:
        return f"{words} step {training.step}/{training.steps_per_epoch}"
    last = history[-1]
    rate = training.steps_per_epoch * training.task.images_per_step / last["seconds"]
    words += f" loss {last['loss']:.3f} lr {last['lr']:.1e} {rate:.0f} img/s"
    words += f" {last['wait_s'] / last['seconds']:.0%} waiting"
    score = training.task.score
    evaluated = [entry[score] for entry in history if entry.get(score) is not None]
    return f"{words} {METRICS[score].label.lower()} {evaluated[-1]:.1%}" if evaluated else words
