"""mIoU and pixel accuracy of segmentation, from a confusion matrix that is added up over all images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ablations.data.ade20k import VOID


def count_confusions(predicted: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """Returns the confusion matrix (classes, classes): pixels of each class, by row, that were taken for each.

    `predicted` (B, H, W) are classes, `mask` (B, H, W) too, or VOID, which is not counted.
    """
    labelled = mask != VOID
    pairs = num_classes * mask[labelled] + predicted[labelled]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def score_segments(confusions: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Returns `miou` and `pixel_accuracy` as fractions, and `iou_by_class` by name.

    The mean is over the classes that some pixel is of or was taken for; of the others the IoU is None.
    """
    counts = confusions.double()
    hits = counts.diagonal()
    union = counts.sum(dim=0) + counts.sum(dim=1) - hits
    iou = (hits / union)[union > 0]
    by_class = {
        name: float(hit / all_of) if all_of > 0 else None
        for name, hit, all_of in zip(classes, hits, union, strict=True)
    }
    return {
        "miou": float(iou.mean()),
        "pixel_accuracy": float(hits.sum() / counts.sum()),
        "iou_by_class": by_class,
    }


def constant_scores(confusions: Tensor, trained: Tensor) -> dict[str, float]:
    """Returns `constant_miou` and `constant_pixel_accuracy` of naming the commonest class everywhere.

    `confusions` say how many pixels there are of each class; `trained` (classes,) how many in training, by which the
    commonest is chosen.
    """
    guess = int(trained.argmax())
    constant = torch.zeros_like(confusions)
    constant[:, guess] = confusions.sum(dim=1)
    scores = score_segments(constant, [str(label) for label in range(len(trained))])
    return {f"constant_{name}": scores[name] for name in ("miou", "pixel_accuracy")}
