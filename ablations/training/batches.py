"""What a model is shown: the order and the augmentation of an epoch, drawn from nothing but the seed and the epoch.

So arms that train with one seed see the same pictures, cut the same way, in the same order. The numbers are drawn on
the CPU, for all pictures of an epoch at once, and are the same on every device. The pictures are cut on theirs.
Letters: B pictures of a batch, N of the data set, C channels, S the resolution in pixels.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ablations.design import Accuracy
from ablations.training.data import ImageData

SMALL = 64
"""Pictures of up to so many pixels a side are shifted; from larger ones a random part is cut and resized."""

LARGEST_SHIFT = 1 / 16  # of the side: 1/8 loses part of the garment, and cost 3 points in an epoch of Fashion-MNIST
CROP_AREA = (0.35, 1.0)  # of the picture; from 0.08 up is for hundreds of epochs
CROP_RATIO = (3 / 4, 4 / 3)


def mix_seeds(*seeds: int) -> int:
    """Returns one seed that depends on all the given (0 or more)."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


def steps_per_epoch(data: ImageData, conditions: Accuracy) -> int:
    """Returns the number of whole batches, at least one: pictures that fill none are left out of that epoch."""
    return max(len(data.train_labels) // conditions.batch_size, 1)


def training_batches(data: ImageData, conditions: Accuracy, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches of an epoch on the data's device: pictures (B, 3, S, S), channels-last, and labels (B,)."""
    count, side = len(data.train_labels), data.train_images.shape[-1]
    generator = torch.Generator().manual_seed(mix_seeds(conditions.seed, epoch))
    order = torch.randperm(count, generator=generator)
    views = draw_shifts(count, side, generator) if side <= SMALL else draw_crops(count, generator)
    if data.may_flip:
        views[:, 0, 0] *= 1 - 2 * torch.randint(2, (count,), generator=generator)
    device = data.train_labels.device
    order, views = order.to(device), views.to(device)
    used = steps_per_epoch(data, conditions) * conditions.batch_size
    for index in order[:used].split(conditions.batch_size):
        images = look(data.train_images[index], views[index], beyond="zeros" if side <= SMALL else "border")
        yield normalise(images, data), data.train_labels[index]


def draw_shifts(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Returns views (N, 2, 3) that are moved by whole pixels, up to a sixteenth of the side either way."""
    most = int(side * LARGEST_SHIFT)
    pixels = torch.randint(-most, most + 1, (count, 2), generator=generator)
    return _views(torch.ones(count, 2), 2 * pixels / side)


def draw_crops(count: int, generator: torch.Generator) -> Tensor:
    """Returns views (N, 2, 3) of a random part of the picture, 35 to 100 % of it, of a ratio from 3:4 to 4:3.

    A part that would be wider or higher than the picture is as wide or as high as that.
    """
    area = torch.empty(count).uniform_(*CROP_AREA, generator=generator)
    ratio = torch.empty(count).uniform_(*map(math.log, CROP_RATIO), generator=generator).exp()
    extent = torch.stack([area * ratio, area / ratio], dim=1).sqrt().clamp(max=1)  # width and height
    centre = (1 - extent) * torch.empty(count, 2).uniform_(-1, 1, generator=generator)
    return _views(extent, centre)


def _views(extent: Tensor, centre: Tensor) -> Tensor:
    return torch.cat([torch.diag_embed(extent), centre[:, :, None]], dim=2)


def look(images: Tensor, views: Tensor, beyond: str) -> Tensor:
    """Returns pictures (B, C, S, S) of floats through views (B, 2, 3), sampled bilinearly.

    A view is the affine map, in coordinates from -1 to 1, from a place in the result to one in the picture. Outside
    of the picture is `zeros`, or its `border` goes on.
    """
    grid = F.affine_grid(views, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode=beyond, align_corners=False)


def normalise(images: Tensor, data: ImageData) -> Tensor:
    """Returns pictures (B, C, S, S) as models take them: (B, 3, S, S), mean 0 and deviation 1, channels-last."""
    images = (images - data.mean[:, None, None]) / data.std[:, None, None]
    return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
