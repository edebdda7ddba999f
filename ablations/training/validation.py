"""Evaluation of a model that was trained here: every validation image once, as it is."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ablations.data.splits import Data
from ablations.measure import Accuracy
from ablations.training.batches import eval_batches
from ablations.training.distributed import ALONE, Ranks
from ablations.training.recipe import autocast


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    data: Data,
    conditions: Accuracy,
    *,
    ranks: Ranks = ALONE,
    workers: int = 0,
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
