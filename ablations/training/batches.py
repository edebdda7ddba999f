"""What a model is shown: the order and the augmentation of an epoch, drawn from nothing but the seed and the epoch.

So arms that train with one seed see the same images, cut the same way, in the same order; so do a run that was
interrupted, and several processes that share the batches. Letters: B images of a batch, or of a process's share of
it, N of the data set, S the resolution in pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ablations.data.augmentation import (
    SMALL,
    draw_boxes,
    draw_crops,
    draw_noise,
    draw_shifts,
    erase,
    normalise,
    sample_views,
)
from ablations.data.splits import Data, StreamingData
from ablations.data.stream import stream_eval, stream_images
from ablations.measure import Accuracy
from ablations.training.distributed import ALONE, Ranks

Batch = tuple[Tensor, Tensor]
"""Images (B, 3, S, S), normalised and channels-last, and labels (B,), on the data's device."""


def mix_seeds(*seeds: int) -> int:
    """Returns one seed that depends on all the given (0 or more)."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Epoch:
    """What was drawn for an epoch: the images in their order, and for each place in it the number of its draw."""

    images: Tensor
    draws: Tensor
    views: Tensor | None
    """Of in-memory images, (N, 2, 3) by draw."""
    seeds: Tensor | None
    """Of streaming images, (N,) by draw."""
    boxes: Tensor | None
    """What is erased, (N, 5) by draw."""


def draw_epoch(data: Data, conditions: Accuracy, epoch: int) -> Epoch:
    """Draws an epoch (from 1) on the CPU."""
    count = len(data.train_labels)
    generator = torch.Generator().manual_seed(mix_seeds(conditions.seed, epoch))
    order = torch.randperm(count, generator=generator)
    views = seeds = boxes = None
    if isinstance(data, StreamingData):
        seeds = torch.randint(2**62, (count,), generator=generator)
    else:
        side = data.train_images.shape[-1]
        if side <= SMALL:
            views = draw_shifts(count, side, generator)
        else:
            views = draw_crops(count, conditions.min_crop_scale, generator)
        if data.may_flip:
            views[:, 0, 0] *= 1 - 2 * torch.randint(2, (count,), generator=generator)
    if conditions.random_erasing:
        boxes = draw_boxes(count, conditions.random_erasing, generator)
    repeats = conditions.aug_repeats
    fewer = order[: math.ceil(count / repeats)]
    # Copies are beside each other, as in the released code.
    shown = fewer.repeat_interleave(repeats)[:count]
    return Epoch(images=shown, draws=order, views=views, seeds=seeds, boxes=boxes)


def training_batches(
    data: Data,
    conditions: Accuracy,
    epoch: int,
    *,
    first_step: int = 0,
    ranks: Ranks = ALONE,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yields the batches of an epoch from `first_step` (from 0) on, or this process's share of each.

    `workers` processes read streaming images ahead; none where it is 0.
    """
    drawn = draw_epoch(data, conditions, epoch)
    size = min(conditions.batch_size, len(drawn.images))
    starts = size * torch.arange(first_step, len(drawn.images) // size)
    places = starts[:, None] + ranks.share(size)
    # All of an epoch goes to the device before its first step: a copy in between would wait for the steps before it.
    device = data.train_labels.device
    labels = data.train_labels[drawn.images.to(device)]
    boxes = None if drawn.boxes is None else drawn.boxes[drawn.draws].to(device)
    noise = None if boxes is None else draw_noise(3, conditions.resolution).to(device)
    cut = _cut_images(data, conditions, drawn, places, workers)
    for images, place in zip(cut, places.to(device), strict=True):
        images = normalise(images, data.mean, data.std)
        if boxes is not None and noise is not None:
            images = erase(images, boxes[place], noise)
        yield images, labels[place]


def _cut_images(data: Data, conditions: Accuracy, drawn: Epoch, places: Tensor, workers: int) -> Iterator[Tensor]:
    """Yields the images (B, C, S, S) at each row of places, cut as was drawn, on the data's device."""
    device = data.train_labels.device
    if isinstance(data, StreamingData):
        assert drawn.seeds is not None
        batches, seeds = list(drawn.images[places]), list(drawn.seeds[drawn.draws][places])
        for images in stream_images(data, batches, seeds=seeds, conditions=conditions, workers=workers):
            yield images.to(device, non_blocking=True)
        return
    assert drawn.views is not None
    images, views = drawn.images.to(device), drawn.views[drawn.draws].to(device)
    beyond = "zeros" if data.train_images.shape[-1] <= SMALL else "border"
    for place in places.to(device):
        yield sample_views(data.train_images[images[place]], views[place], beyond)


def eval_batches(data: Data, conditions: Accuracy, *, ranks: Ranks = ALONE, workers: int = 0) -> Iterator[Batch]:
    """Yields the validation images as they are, each in one batch of one process."""
    device = data.train_labels.device
    batches = torch.arange(len(data.eval_labels)).split(conditions.batch_size)[ranks.rank :: ranks.count]
    if isinstance(data, StreamingData):
        if batches:
            for images, labels in stream_eval(data, conditions, torch.cat(batches), workers):
                yield normalise(images.to(device), data.mean, data.std), labels.to(device)
        return
    for batch in batches:
        where = slice(int(batch[0]), int(batch[-1]) + 1)
        yield normalise(data.eval_images[where], data.mean, data.std), data.eval_labels[where]
