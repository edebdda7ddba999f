"""What a detector or a segmentation network is shown: images with their boxes and masks, cut and changed together.

What is drawn for an image comes from one seed, so that all arms with a seed see the same. Transforms are torchvision's.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ablations.data.ade20k import VOID, read_mask
from ablations.data.annotations import DenseData, Objects, Segments
from ablations.data.coco import decode_outline
from ablations.data.images import read_image
from ablations.data.protocols import normalise_bytes
from ablations.data.stream import drawn_from, reading_ahead
from ablations.errors import InputError

TRIES = 10
"""Crops that are drawn, at most, for one in which no class has too large a share."""

MULTIPLE = 32
"""What sides of tested images are rounded up to, and batches padded to: the coarsest stride."""

View = tuple[Tensor, Any]
"""An image, bytes (3, H, W), and its target: a mask (H, W) of bytes, or by name a detector's `boxes` (n, 4), `labels`
(n,), `masks` (n, H, W) where they are read, and the `index` of the image."""

Request = tuple[Any, int, int | None]
"""An annotated image, its place in the data, and the seed of what is drawn for it; None where it is shown as it is."""


def read_pixels(path: str, size: tuple[int, int] | None = None) -> Tensor:
    """Returns an image as bytes (3, H, W); raises InputError where it cannot be read or is not of a size."""
    image = read_image(path, F.pil_to_tensor)
    if isinstance(image, str):
        raise InputError(f"an image cannot be read: {path} ({image})")
    if size is not None and tuple(image.shape[1:]) != size:
        height, width = image.shape[1:]
        raise InputError(
            f"{path} is {height} x {width} pixels, and its annotations say {size[0]} x {size[1]}; allowed: the same"
        )
    return image


class ObjectViews:
    """Shows images to a detector, with labels from `first_label`. Picklable, for processes that read ahead."""

    def __init__(self, conditions: Any, first_label: int) -> None:
        self.first_label = first_label
        distortion = v2.RandomPhotometricDistort() if conditions.distortion else v2.Identity()
        self.augmentation = v2.Compose([distortion, v2.RandomHorizontalFlip(conditions.flip)])

    def __call__(self, item: Objects, index: int, is_training: bool) -> View:
        image = tv_tensors.Image(read_pixels(item.path, item.size))
        kept = item.only(~item.crowd) if is_training else item
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(kept.boxes), format="XYXY", canvas_size=item.size)
        target: dict[str, Any] = {"boxes": boxes, "labels": torch.from_numpy(kept.labels) + self.first_label}
        if kept.outlines is not None and is_training:
            masks = [decode_outline(outline, item.size) for outline in kept.outlines]
            target["masks"] = tv_tensors.Mask(torch.from_numpy(np.stack(masks)))
        if is_training:
            image, target = self.augmentation(image, target)
        plain = {name: value.as_subclass(Tensor) for name, value in target.items()}
        return image.as_subclass(Tensor), plain | {"index": torch.tensor(index)}


class SegmentViews:
    """Shows images and masks to a segmentation network. Picklable, for processes that read ahead."""

    def __init__(self, conditions: Any, data: DenseData[Segments]) -> None:
        self.conditions = conditions
        self.labels = data.mask_labels
        distortion = v2.RandomPhotometricDistort() if conditions.distortion else v2.Identity()
        self.augmentation = v2.Compose([v2.RandomHorizontalFlip(conditions.flip), distortion])

    def __call__(self, item: Segments, index: int, is_training: bool) -> View:
        image = tv_tensors.Image(read_pixels(item.path))
        mask = tv_tensors.Mask(torch.from_numpy(read_mask(item.mask_path, **self.labels)))
        if not is_training:
            shown = F.resize(image, list(evaluation_size(image.shape[1:], self.conditions)), antialias=True)
            return shown.as_subclass(Tensor), mask.as_subclass(Tensor)
        scale = float(torch.empty(()).uniform_(self.conditions.min_scale, self.conditions.max_scale))
        size = list(resized(image.shape[1:], self.conditions.short_side * scale, self.conditions.long_side * scale))
        image, mask = F.resize(image, size, antialias=True), F.resize(mask, size, F.InterpolationMode.NEAREST)
        image, mask = self.augmentation(*self._crop(image, mask))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)

    def _crop(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a random crop, smaller where the image is; the last that was tried where none is varied enough."""
        side = self.conditions.resolution
        height, width = min(side, image.shape[1]), min(side, image.shape[2])
        for _ in range(TRIES):
            top = int(torch.randint(image.shape[1] - height + 1, ()))
            left = int(torch.randint(image.shape[2] - width + 1, ()))
            cut = F.crop(mask, top, left, height, width)
            counts = torch.bincount(cut.flatten(), minlength=VOID + 1)[:VOID]
            if (counts > 0).sum() > 1 and counts.max() < self.conditions.max_class_share * counts.sum():
                break
        return F.crop(image, top, left, height, width), cut


def resized(size: Sequence[int], short_side: float, long_side: float) -> tuple[int, int]:
    """Returns (height, width) with the short side brought to `short_side`, or the long one to `long_side` if that is
    less; rounded, and the ratio kept."""
    height, width = size
    scale = min(short_side / min(height, width), long_side / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def evaluation_size(size: Sequence[int], conditions: Any) -> tuple[int, int]:
    """Returns (height, width) that an image is tested at: each side rounded up to a multiple of MULTIPLE."""
    height, width = resized(size, conditions.short_side, conditions.long_side)
    return math.ceil(height / MULTIPLE) * MULTIPLE, math.ceil(width / MULTIPLE) * MULTIPLE


class _Views(Dataset):
    """Views by request, or the message of what is wrong with one."""

    def __init__(self, show: Callable[[Any, int, bool], View]) -> None:
        self.show = show

    def __getitem__(self, request: Request) -> View | str:
        item, index, seed = request
        try:
            if seed is None:
                return self.show(item, index, False)
            with drawn_from(seed):
                return self.show(item, index, True)
        except InputError as error:  # a worker would raise it with its whole trace
            return str(error)


def show_batches(
    show: Callable[[Any, int, bool], View], batches: Iterable[list[Request]], *, workers: int
) -> Iterator[tuple[list[Tensor], list[Any]]]:
    """Yields the images and the targets of each batch, in main memory.

    `workers` processes read ahead; with 0, this one reads. Raises InputError for an image that cannot be read, where it
    is met.
    """
    # Views have sizes of their own, so a batch is a list of them.
    for views in DataLoader(_Views(show), batch_sampler=batches, collate_fn=list, **reading_ahead(workers)):
        faults = [view for view in views if isinstance(view, str)]
        if faults:
            raise InputError(faults[0])
        yield [view[0] for view in views], [view[1] for view in views]


def pad_images(images: Sequence[Tensor]) -> Tensor:
    """Returns bytes (3, h, w) of several sizes, normalised, as one batch (B, 3, H, W).

    They are padded with zeros, which are the mean colour, to the largest sides rounded up to a multiple of MULTIPLE.
    """
    height, width = (math.ceil(max(image.shape[axis] for image in images) / MULTIPLE) * MULTIPLE for axis in (1, 2))
    shape = (len(images), 3, height, width)
    batch = torch.zeros(shape, device=images[0].device).contiguous(memory_format=torch.channels_last)
    for place, image in enumerate(images):
        batch[place, :, : image.shape[1], : image.shape[2]] = normalise_bytes(image[None])[0]
    return batch


def pad_masks(masks: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Returns masks (h, w) of several sizes as one batch (B, H, W) of int64 of a size, VOID beside them."""
    batch = torch.full((len(masks), *size), VOID, dtype=torch.int64, device=masks[0].device)
    for place, mask in enumerate(masks):
        batch[place, : mask.shape[0], : mask.shape[1]] = mask
    return batch
