"""How images are shown to a finished model, by protocol.

A protocol resizes an image so that the centre crop is a given share of its short side, bicubically. The numbers are
those of timm's validate.py, and with `paper` those of the released PVT code.
"""

import math

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from torch import Tensor
from torchvision.transforms.v2.functional import normalize

from ablations.config import LARGEST_INPUT
from ablations.data.images import Transform
from ablations.errors import pick, refuse

CROPS = {"paper": 0.875, "timm": 0.9}
"""Side of the centre crop over the short side: of the paper (PVT v2, 4.1), and of timm's settings for PVT v2."""


def build_transform(protocol: str, resolution: int) -> Transform:
    """Returns what makes a model's input of an RGB image: bytes (3, S, S) with S = `resolution`, not normalised yet.

    Raises InputError for an unknown protocol, and for a resolution that is none.
    """
    if not 1 <= resolution <= LARGEST_INPUT:
        raise refuse("resolution", resolution, f"1 to {LARGEST_INPUT} pixels")
    return create_transform(
        input_size=(3, resolution, resolution),
        interpolation="bicubic",
        crop_pct=CROPS[pick("protocol", protocol, CROPS)],
        crop_mode="center",
        normalize=False,
    )


def resized_short_side(protocol: str, resolution: int) -> int:
    """Returns the pixels that a protocol resizes an image's short side to, rounded as timm does: down."""
    return math.floor(resolution / CROPS[protocol])


def normalise_bytes(images: Tensor) -> Tensor:
    """Returns bytes (B, 3, S, S) as models trained on ImageNet take them: floats by its mean and deviation."""
    images = images.contiguous(memory_format=torch.channels_last).float().div(255)
    return normalize(images, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, inplace=True)
