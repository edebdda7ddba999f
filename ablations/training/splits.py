"""What the two splits of a data set have in common, however its images are kept."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Labels (N,) of int64 of the training and of the validation images, and how images are made a model's input."""

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
