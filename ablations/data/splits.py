"""What is trained on and what is validated on, however the images are kept.

Letters: N images, C channels (1 of grey images, else 3), S the resolution in pixels.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ablations.errors import refuse

SPLIT_SEED = 0
"""Of splits and subsets, which are the same for every training seed: a spread over seeds is not one over images."""

LabelledImages = tuple[Tensor, Tensor]
"""Bytes (N, C, h, w) in their own size, and labels (N,) of int64."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The labels of a data set's two splits, (N,) of int64, and how its images become a model's input."""

    train_labels: Tensor
    eval_labels: Tensor
    mean: Tensor
    """Of each channel (C,), in levels of 0 to 255."""
    std: Tensor
    """Of each channel (C,), in levels of 0 to 255."""
    may_flip: bool
    """Whether a mirrored image is still of its class."""
    skipped: tuple[str, ...] = ()
    """Images that were left out because they cannot be read, by path in the set's folder."""

    def to(self, device: str | torch.device) -> Self:
        """Returns the same data with its tensors on a device."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


@dataclass(frozen=True, kw_only=True)
class InMemoryData(Splits):
    """Both splits decoded, as bytes (N, C, S, S)."""

    train_images: Tensor
    eval_images: Tensor


@dataclass(frozen=True, kw_only=True)
class StreamingData(Splits):
    """Both splits as paths: nothing is decoded yet."""

    folder: Path
    """The set's own, which all paths are in."""
    train_paths: tuple[str, ...]
    eval_paths: tuple[str, ...]


Data = InMemoryData | StreamingData


def choose_split(labels: Tensor, train_images: int, tuning_images: int) -> tuple[Tensor, Tensor]:
    """Returns the indices of the images that are trained on, and of those set aside for tuning.

    `labels` (N,) must have every class. Both are class-balanced; 0 sets none aside, and trains on all others. The
    images set aside are always the same. Raises InputError as `choose_subset`.
    """
    tuning = (
        choose_subset(labels, tuning_images, "tuning_images") if tuning_images else torch.empty(0, dtype=torch.int64)
    )
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[tuning] = False
    others = rest.nonzero()[:, 0]
    return others[choose_subset(labels[others], train_images)], tuning


def choose_subset(labels: Tensor, count: int, field: str = "train_images") -> Tensor:
    """Returns the indices of a class-balanced subset of `count` images; of all where it is 0.

    `labels` (N,) must have every class. A smaller subset is part of a larger one. Raises InputError if `count` is not
    a multiple of the number of classes, or more than the smallest class allows.
    """
    if count == 0:
        return torch.arange(len(labels))
    sizes = torch.bincount(labels)
    classes = len(sizes)
    most = classes * int(sizes.min())
    if count % classes or count > most:
        raise refuse(field, count, f"0 for all {len(labels)}, or a multiple of {classes} up to {most}")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    members = [shuffled[labels[shuffled] == label][: count // classes] for label in range(classes)]
    return torch.cat(members).sort().values
