"""The task of classifying whole images."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablations.data.splits import Data
from ablations.errors import refuse
from ablations.measure import Accuracy
from ablations.training.batches import eval_batches, mix_seeds, training_batches
from ablations.training.distributed import ALONE, Ranks
from ablations.training.recipe import autocast, build_loss, build_mixup, build_optimizer, build_schedule
from ablations.training.tasks import Batch, Schedule, Task


class Classification(Task):
    """Images (B, 3, S, S) and labels (B,), by cross-entropy. Raises InputError for batches that cannot be mixed."""

    score: ClassVar[str] = "top1"

    def __init__(self, data: Data, conditions: Accuracy) -> None:
        super().__init__(data, conditions, len(data.train_labels))
        self.device = data.train_labels.device
        self.total_steps = self.steps_per_epoch * conditions.total_epochs
        self._mixup, self._loss = build_mixup(conditions), build_loss(conditions)
        if self._mixup and self.images_per_step % 2:
            allowed = "an even number with mixup or cutmix; these are all training images"
            raise refuse("batch_size", self.images_per_step, allowed)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(model, self.conditions)

    def build_schedule(self, optimizer: torch.optim.Optimizer) -> Schedule:
        return build_schedule(optimizer, self.conditions, self.steps_per_epoch)

    def batches(self, epoch: int, *, first_step: int, ranks: Ranks, workers: int) -> Iterator[Batch]:
        return training_batches(self.data, self.conditions, epoch, first_step=first_step, ranks=ranks, workers=workers)

    def mix(self, images: Tensor, targets: Tensor, step: int) -> Batch:
        if self._mixup:
            np.random.seed(mix_seeds(self.conditions.seed, step, 2) % 2**32)  # noqa: NPY002, what timm draws from
            images, targets = self._mixup(images, targets)
        return images, targets

    def loss(self, network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        return self._loss(network(images), targets)

    def evaluate(self, model: nn.Module, *, ranks: Ranks = ALONE, workers: int = 0) -> dict[str, Any]:
        return evaluate(model, self.data, self.conditions, ranks=ranks, workers=workers)


@torch.inference_mode()
def evaluate(
    model: nn.Module, data: Data, conditions: Accuracy, *, ranks: Ranks = ALONE, workers: int = 0
) -> dict[str, Any]:
    """Returns `top1` (a fraction), `loss` (cross-entropy without smoothing, the mean), `n_images` and `correct`.

    `correct` (N,), booleans on the CPU, says which images were classified correctly, in the order of the data.

    Model and data are on one device; the model is put into evaluation mode and left in it. Where several processes
    share the images, all return the scores of all images.
    """
    model.eval()
    device = data.eval_labels.device
    correct = torch.zeros(len(data.eval_labels), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    batches = eval_batches(data, conditions, ranks=ranks, workers=workers)
    for number, (images, labels) in enumerate(batches):
        with autocast(conditions):
            logits = model(images)
        start = (ranks.rank + number * ranks.count) * conditions.batch_size
        correct[start : start + len(labels)] = logits.argmax(dim=1) == labels
        loss += F.cross_entropy(logits.float(), labels, reduction="sum")
    correct, total = ranks.add(correct).bool().cpu(), len(correct)
    return {
        "top1": correct.sum().item() / total,
        "loss": ranks.add(loss).item() / total,
        "n_images": total,
        "correct": correct,
    }
