"""What the tasks of detection and segmentation have in common: batches, optimiser and schedule."""

import bisect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ablations.data.annotations import DenseData
from ablations.data.dense_views import Request, show_batches
from ablations.errors import refuse
from ablations.training.batches import mix_seeds
from ablations.training.distributed import Ranks
from ablations.training.tasks import Batch, Schedule, Task


class RateSchedule:
    """Sets the rate of each step: a linear warm-up, times a fall in steps or as a power of what is left."""

    def __init__(self, optimizer: torch.optim.Optimizer, conditions: Any, steps_per_epoch: int, total: int) -> None:
        self.optimizer, self.conditions = optimizer, conditions
        self.total = total
        self.falls = [epoch * steps_per_epoch for epoch in conditions.decay_epochs]
        self.step_update(0)

    def step_update(self, num_updates: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.conditions.peak_lr * self.factor(num_updates)

    def factor(self, done: int) -> float:
        """Returns the rate of the step that follows so many, over the peak."""
        conditions = self.conditions
        if conditions.decay == "steps":
            fall = conditions.decay_rate ** bisect.bisect_right(self.falls, done)
        else:
            fall = (1 - min(done / self.total, 1)) ** conditions.poly_power
        least, steps = conditions.warmup_ratio, conditions.warmup_steps
        return fall * (least + (1 - least) * done / steps if done < steps else 1.0)


class DenseTask(Task):
    """A task on annotated images. Raises InputError for parts of a batch that are not equal."""

    data: DenseData

    def __init__(self, data: DenseData, conditions: Any) -> None:
        super().__init__(data, conditions, len(data.train))
        self.device = torch.device(data.device)
        self.total_steps = conditions.iterations or conditions.epochs * self.steps_per_epoch

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW on all parameters alike, as in the released configurations."""
        conditions = self.conditions
        return torch.optim.AdamW(
            model.parameters(), lr=conditions.peak_lr, weight_decay=conditions.weight_decay, fused=True
        )

    def build_schedule(self, optimizer: torch.optim.Optimizer) -> Schedule:
        return RateSchedule(optimizer, self.conditions, self.steps_per_epoch, self.total_steps)

    def build_views(self) -> Any:
        """Returns what shows an annotated image: a function of it, its place, and whether it is trained on."""
        raise NotImplementedError

    def batches(self, epoch: int, *, first_step: int, ranks: Ranks, workers: int) -> Iterator[Batch]:
        count, size = len(self.data.train), self.images_per_step
        generator = torch.Generator().manual_seed(mix_seeds(self.conditions.seed, epoch))
        order = torch.randperm(count, generator=generator)
        seeds = torch.randint(2**62, (count,), generator=generator)
        starts = size * torch.arange(first_step, self.steps_per_epoch)
        requests: list[list[Request]] = [
            [(self.data.train[place], place, int(seeds[place])) for place in order[own].tolist()]
            for own in starts[:, None] + ranks.share(size)
        ]
        return self._show(requests, workers)

    def shown(self, data: DenseData, batch_size: int, *, ranks: Ranks, workers: int) -> Iterator[Batch]:
        """Returns the validation images as they are, each in one batch of one process."""
        places = list(range(len(data.validation)))
        batches = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
        requests: list[list[Request]] = [
            [(data.validation[place], place, None) for place in own] for own in batches[ranks.rank :: ranks.count]
        ]
        return self._show(requests, workers)

    def _show(self, requests: list[list[Request]], workers: int) -> Iterator[Batch]:
        """Yields the batches on the training's device; nothing reads ahead on a CPU, whose cores train."""
        processes = workers if self.device.type == "cuda" else 0
        for images, targets in show_batches(self.build_views(), requests, workers=processes):
            yield self._move(images), self._move(targets)

    def _move(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._move(each) for each in value]
        if isinstance(value, dict):
            return {name: self._move(each) for name, each in value.items()}
        return value.to(self.device, non_blocking=True)

    def split(self, images: Any, targets: Any) -> list[Batch]:
        count, parts = len(images), self.conditions.accumulation
        if count % parts:
            raise refuse("accumulation", parts, f"a divisor of a process's share of the batch, {count} images")
        size = count // parts
        return [(images[start : start + size], targets[start : start + size]) for start in range(0, count, size)]
