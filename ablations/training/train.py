"""What every training does, whichever its task: from a fresh model or a checkpoint to trained weights."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ablations.errors import refuse
from ablations.measure.measurement import Setting
from ablations.measure.metrics import METRICS
from ablations.model.checkpoint import save_weights
from ablations.model.compiled import compile_alone
from ablations.training.distributed import ALONE, Ranks
from ablations.training.logs import Logs
from ablations.training.loop import Training
from ablations.training.resume import Saver

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


@contextmanager
def train_model(
    build: Callable[[], nn.Module],
    data: Any,
    conditions: Any,
    setting: Setting,
    description: Mapping[str, Any] | None = None,
) -> Iterator[Training]:
    """Gives a finished training, resumed from its checkpoint where there is one; what is drawn inside is its own.

    The trained weights are written afterwards, with a `description` of themselves, unless an error is raised inside;
    the checkpoint stays. The caller's random state is left as it was. Raises Diverged as `Training`; with files
    OutOfTime after the setting's deadline, and Stopped, as `Saver`.
    """
    ranks, files = setting.ranks or ALONE, setting.files
    saver = Saver(files.checkpoint, files.made_by, deadline=setting.deadline) if files else None
    logs = Logs(files.log, files.tensorboard) if files and ranks.is_first else None
    with _random_state_kept(conditions):
        with saver.catching_signals() if saver else nullcontext():
            model = _start_model(build, conditions, ranks)
            training = Training(model, data, conditions, ranks=ranks, workers=setting.workers)
            if saver:
                saver.restore(training)
            training.run(progress=_TrainingMonitor(setting.tell, logs), save=saver.save_if_due if saver else None)
            if saver:
                saver.save_if_due(training, is_over=True)
        yield training
    if files and files.weights and ranks.is_first:
        save_weights(training.trained, files.weights, description)


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

    def __init__(self, tell: Callable[[float, str], None], logs: Logs | None) -> None:
        self.tell, self.logs = tell, logs
        self._told, self._logged = 0.0, 0

    def __call__(self, training: Training) -> None:
        history = training.history
        if self.logs and history and history[-1]["epoch"] > self._logged:
            self.logs.write(history)
            self._logged = history[-1]["epoch"]
        if time.monotonic() - self._told >= TELL_EVERY_S:
            self._told = time.monotonic()
            self.tell(training.step / training.total_steps, _describe(training))


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
