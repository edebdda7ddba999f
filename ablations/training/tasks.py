"""What a training is of: where its batches come from, its loss, its optimiser and its scores.

`ablations.training.loop` takes the steps, whatever the task.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ablations.training.distributed import ALONE, Ranks

Batch = tuple[Any, Any]
"""The images of a process's share of a step, and their targets, on the training's device."""


class Schedule(Protocol):
    """What sets the learning rate."""

    def step_update(self, num_updates: int) -> None:
        """Sets the rate of the step that follows so many steps."""


class Task(ABC):
    """One task on its data, under the conditions of a training."""

    score: ClassVar[str]
    """The main one of its scores."""

    device: torch.device
    """Where data and model are."""
    images_per_step: int
    """Images of a step, in all processes together."""
    steps_per_epoch: int
    """Whole batches, at least one: images that fill none are left out of that epoch."""
    total_steps: int

    def __init__(self, data: Any, conditions: Any, train_images: int) -> None:
        self.data, self.conditions = data, conditions
        self.images_per_step = min(conditions.batch_size, train_images)
        self.steps_per_epoch = train_images // self.images_per_step

    @abstractmethod
    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Returns the optimiser at the peak learning rate."""

    @abstractmethod
    def build_schedule(self, optimizer: torch.optim.Optimizer) -> Schedule:
        """Returns the schedule, at its first step."""

    @abstractmethod
    def batches(self, epoch: int, *, first_step: int, ranks: Ranks, workers: int) -> Iterator[Batch]:
        """Yields this process's share of each batch of an epoch (from 1), from `first_step` (from 0) on."""

    def mix(self, images: Any, targets: Any, step: int) -> Batch:
        """Returns the batch of a step (from 0) as it is trained on."""
        return images, targets

    def split(self, images: Any, targets: Any) -> list[Batch]:
        """Returns the parts of a batch, equally large, whose gradients are added up before the step."""
        return [(images, targets)]

    @abstractmethod
    def loss(self, network: nn.Module, images: Any, targets: Any) -> Tensor:
        """Returns the mean loss of a batch or of a part of it."""

    @abstractmethod
    def evaluate(self, model: nn.Module, *, ranks: Ranks = ALONE, workers: int = 0) -> dict[str, Any]:
        """Returns the scores of a model on the validation images; all processes return those of all images."""


def build_task(data: Any, conditions: Any) -> Task:
    """Returns the task that the conditions name; raises InputError for batches that cannot be."""
    module, _, name = conditions.task.partition(":")
    return getattr(import_module(module), name)(data, conditions)


@cache  # once a process, not once a training
def say_smaller(batch_size: int, images: int) -> None:
    """Says on stderr that a batch takes more images than there are for training."""
    print(f"note: batch_size={batch_size}, but each step has all {images} training images", file=sys.stderr)
