"""Evaluation of a model that was trained here: every held-out picture once, as it is."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ablations.design import Accuracy
from ablations.training.batches import eval_batches
from ablations.training.data import ImageData, StreamedData
from ablations.training.distributed import Ranks
from ablations.training.optimisation import autocast


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    data: ImageData | StreamedData,
    conditions: Accuracy,
    *,
    ranks: Ranks | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """Returns `top1` (a fraction), `loss` (cross-entropy without smoothing, the mean) and `n_images`.

    Model and data are on one device; the model is put into evaluation mode and left in it. Where several processes
    share the pictures, all return the scores of all pictures.
    """
    model.eval()
    device = data.eval_labels.device
    correct, count = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for images, labels in eval_batches(data, conditions, ranks=ranks, workers=workers):
        with autocast(conditions):
            logits = model(images)
        correct += (logits.argmax(dim=1) == labels).sum()
        loss += F.cross_entropy(logits.float(), labels, reduction="sum")
        count += len(labels)
    right, total, summed = ((ranks or Ranks()).add(value).item() for value in (correct, count, loss))
    return {"top1": right / total, "loss": summed / total, "n_images": total}
