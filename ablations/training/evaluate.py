"""Evaluation: every held-out picture once, as it is."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ablations.design import Accuracy
from ablations.training.batches import normalise
from ablations.training.data import ImageData
from ablations.training.recipe import autocast


@torch.inference_mode()
def evaluate(model: nn.Module, data: ImageData, conditions: Accuracy) -> dict[str, Any]:
    """Returns `top1` (a fraction), `loss` (cross-entropy without smoothing, the mean) and `n_images`.

    Model and data are on one device; the model is put into evaluation mode and left in it.
    """
    model.eval()
    count = len(data.eval_labels)
    correct = torch.zeros((), dtype=torch.int64, device=data.eval_labels.device)
    loss = torch.zeros((), dtype=torch.float64, device=data.eval_labels.device)
    batches = zip(
        data.eval_images.split(conditions.batch_size), data.eval_labels.split(conditions.batch_size), strict=True
    )
    for images, labels in batches:
        with autocast(conditions):
            logits = model(normalise(images, data))
        correct += (logits.argmax(dim=1) == labels).sum()
        loss += F.cross_entropy(logits.float(), labels, reduction="sum")
    return {"top1": correct.item() / count, "loss": loss.item() / count, "n_images": count}
