"""Augmentation of images on their device, in batches, by numbers that were drawn for each image beforehand.

The numbers are drawn on the CPU, for all images of an epoch at once, and are the same on every device. Letters: B
images of a batch, N of an epoch, C channels, S the resolution in pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 64
"""Images of up to so many pixels a side are shifted; from larger ones a random part is cut and resized."""

LARGEST_SHIFT = 1 / 16  # of the side: 1/8 loses part of the garment, and cost 3 points in an epoch of Fashion-MNIST
CROP_RATIO = (3 / 4, 4 / 3)

ERASED_AREA = (0.02, 1 / 3)
"""Share of the image that is erased (Zhong et al. 2020, and timm's and the released code's settings)."""
ERASED_RATIO = (0.3, 1 / 0.3)

NOISES = 64
"""Images of noise that erased parts are filled from."""


def draw_shifts(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Returns views (N, 2, 3) that are moved by whole pixels, up to a sixteenth of the side either way."""
    most = int(side * LARGEST_SHIFT)
    pixels = torch.randint(-most, most + 1, (count, 2), generator=generator)
    return _views(torch.ones(count, 2), 2 * pixels / side)


def draw_crops(count: int, least_area: float, generator: torch.Generator) -> Tensor:
    """Returns views (N, 2, 3) of a random part of the image, `least_area` to all of it, of a ratio from 3:4 to 4:3."""
    extent = _draw_extents(count, (least_area, 1.0), CROP_RATIO, generator)
    centre = (1 - extent) * torch.empty(count, 2).uniform_(-1, 1, generator=generator)
    return _views(extent, centre)


def _draw_extents(
    count: int, area: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Returns width and height (N, 2) of parts of an image, as shares of its side and no more than that."""
    areas = torch.empty(count).uniform_(*area, generator=generator)
    ratios = torch.empty(count).uniform_(*map(math.log, ratio), generator=generator).exp()
    return torch.stack([areas * ratios, areas / ratios], dim=1).sqrt().clamp(max=1)


def _views(extent: Tensor, centre: Tensor) -> Tensor:
    return torch.cat([torch.diag_embed(extent), centre[:, :, None]], dim=2)


def sample_views(images: Tensor, views: Tensor, beyond: str) -> Tensor:
    """Returns images (B, C, S, S) of floats through views (B, 2, 3), sampled bilinearly.

    A view is the affine map, in coordinates from -1 to 1, from a place in the result to one in the image. Outside
    of the image there are `zeros`, or its `border` repeats.
    """
    grid = F.affine_grid(views, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode=beyond, align_corners=False)


def draw_boxes(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Returns boxes (N, 5): left, top, right and bottom as shares of the side, and the number of a noise image.

    With `probability` a box has 2 to 33 % of the image, of a ratio from 0.3 to 3.3; else it is empty.
    """
    extent = _draw_extents(count, ERASED_AREA, ERASED_RATIO, generator)
    corner = (1 - extent) * torch.rand(count, 2, generator=generator)
    extent[torch.rand(count, generator=generator) >= probability] = 0
    noise = torch.randint(NOISES, (count, 1), generator=generator)
    return torch.cat([corner, corner + extent, noise], dim=1)


def draw_noise(channels: int, side: int) -> Tensor:
    """Returns images (NOISES, C, S, S) of normal noise, always the same: what is erased is as any device has it."""
    return torch.randn(NOISES, channels, side, side, generator=torch.Generator().manual_seed(0))


def erase(images: Tensor, boxes: Tensor, noise: Tensor) -> Tensor:
    """Returns normalised images (B, C, S, S) with their boxes (B, 5) filled from noise (NOISES, C, S, S)."""
    places = (torch.arange(images.shape[-1], device=images.device) + 0.5) / images.shape[-1]
    left, top, right, bottom, number = boxes[:, :, None].unbind(1)
    wide, high = (places >= left) & (places < right), (places >= top) & (places < bottom)
    return torch.where((high[:, :, None] & wide[:, None])[:, None], noise[number[:, 0].long()], images)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Returns images (B, C, S, S) as models take them: (B, 3, S, S), mean 0 and deviation 1, channels-last.

    Mean and deviation (C,) are in levels of 0 to 255; C is 1 or 3.
    """
    images = (images - mean[:, None, None]) / std[:, None, None]
    return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
