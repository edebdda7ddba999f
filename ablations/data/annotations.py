"""Annotated images of detection and segmentation, and the faults of annotations.

Faults are found when a data set is listed. They are counted by kind; a training refuses them in one line, or leaves
them out where it was asked to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch

from ablations.data.splits import SPLIT_SEED
from ablations.errors import InputError, refuse

OUTSIDE = 1.0
"""Pixels that a box may reach beyond its image, as rounding has it; it is cut off there."""

FAULTS_WAY_OUT = "mend them, or leave them out by --skip-faulty"

Outline = Any
"""A mask of one object: a list of polygons, each [x1, y1, x2, y2, ...], or a run-length code, as COCO has them."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """An image and its objects; arrays have one entry an object (n)."""

    path: str
    id: int
    size: tuple[int, int]
    """Height and width in pixels."""
    boxes: np.ndarray
    """(n, 4) of float32: left, top, right, bottom, in pixels."""
    labels: np.ndarray
    """(n,) of int64: classes from 0."""
    crowd: np.ndarray
    """(n,) of bool: regions with many objects that no detection is blamed for, and that nothing is trained on."""
    areas: np.ndarray
    """(n,) of float64: pixels of each object, as its annotation says, by which it counts as small, medium or large."""
    outlines: tuple[Outline, ...] | None = None
    """The objects' masks, where they are read."""

    def only(self, kept: np.ndarray) -> Self:
        """Returns the image with some of its objects, by (n,) of bool."""
        outlines = None if self.outlines is None else tuple(compress(self.outlines, kept))
        arrays = {name: getattr(self, name)[kept] for name in ("boxes", "labels", "crowd", "areas")}
        return replace(self, outlines=outlines, **arrays)


@dataclass(frozen=True, kw_only=True)
class Segments:
    """An image and its mask of a class for each pixel."""

    path: str
    mask_path: str


Image = TypeVar("Image", Objects, Segments)


@dataclass(frozen=True, kw_only=True)
class DenseData(Generic[Image]):
    """Training and validation images with their annotations; nothing is decoded."""

    folder: Path
    classes: tuple[str, ...]
    train: tuple[Image, ...]
    validation: tuple[Image, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    """How many faults of each kind were left out."""
    first_label: int = 0
    """In masks of pixels: the value of the first class."""
    void_label: int = 255
    """In masks of pixels: the value that says nothing, beside those below the first class."""
    device: str = "cpu"

    @property
    def mask_labels(self) -> dict[str, int]:
        """How `ablations.data.ade20k.read_mask` takes the values of masks of pixels."""
        return {"num_classes": len(self.classes), "first_label": self.first_label, "void_label": self.void_label}

    def to(self, device: str) -> Self:
        """Returns the same data for a model on a device."""
        return replace(self, device=device)

    def choose(self, train_images: int, tuning_images: int) -> Self:
        """Returns the data with a subset of the training images, all where it is 0, and with `tuning_images` others of
        them in place of the validation images. Both are the same for every training seed.

        Raises InputError where there are too few.
        """
        total = len(self.train)
        if tuning_images >= total:
            raise refuse("tuning_images", tuning_images, f"0 for none, or less than the {total} training images")
        if train_images > total - tuning_images:
            allowed = f"0 for all, or up to {total - tuning_images}"
            raise refuse("train_images", train_images, allowed)
        order = torch.randperm(total, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
        tuning, others = order[:tuning_images], order[tuning_images:]
        kept = sorted(others[: train_images or None])
        validation = tuple(self.train[place] for place in sorted(tuning)) if tuning_images else self.validation
        return replace(self, train=tuple(self.train[place] for place in kept), validation=validation)


class Faults:
    """What is wrong with annotations: names by kind, in the order in which they were found."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def note(self, kind: str, name: str) -> None:
        """Adds one fault of a `kind`, such as `boxes of no area`; `name` says where it is."""
        self.found.setdefault(kind, []).append(name)

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(names) for kind, names in self.found.items()}

    def refuse(self, place: str, *, skip: bool) -> None:
        """Raises InputError, in one line with all kinds, unless there is none or they are skipped."""
        if self.found and not skip:
            words = "; ".join(f"{kind}: {len(names)}, first {names[0]}" for kind, names in self.found.items())
            raise InputError(f"{place} has {words}; {FAULTS_WAY_OUT}")


def check_split(images: Sequence[Any], place: str, what: str) -> None:
    """Raises InputError for a split without images."""
    if not images:
        raise InputError(f"{place} has no {what}; allowed: one or more")


def refuse_file(path: Path, allowed: str) -> InputError:
    """The error for a file of annotations that cannot be read as such."""
    return InputError(f"{path} is not possible as a file of annotations; allowed: {allowed}")


def keep_sound_boxes(
    boxes: np.ndarray, size: tuple[int, int], names: Sequence[str], faults: Faults
) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes (n, 4), left, top, right, bottom, cut to an image of (height, width), and which are sound (n,).

    Boxes that are no numbers, of no area, or beyond the image are noted by their `names`.
    """
    starts, ends, corner = boxes[:, :2], boxes[:, 2:], np.array(size[::-1])
    has_area = np.all(ends > starts, axis=1)  # nan is no more than anything
    is_inside = np.all((starts >= -OUTSIDE) & (starts < corner) & (ends <= corner + OUTSIDE), axis=1)
    for place in np.flatnonzero(~(has_area & is_inside)).tolist():
        faults.note("boxes outside their image" if has_area[place] else "boxes of no area", names[place])
    return boxes.clip(0, np.tile(corner, 2)), has_area & is_inside


def drop_empty_classes(data: DenseData[Objects], faults: Faults) -> DenseData[Objects]:
    """Returns the data without the classes that no training image has an object of, which are noted."""
    there = {label for image in data.train for label in image.labels[~image.crowd].tolist()}
    missing = [name for label, name in enumerate(data.classes) if label not in there]
    if not missing:
        return data
    for name in missing:
        faults.note("categories without images", f"{name} in training")
    kept = sorted(there)
    places = np.full(len(data.classes), -1)
    places[kept] = range(len(kept))

    def renumber(image: Objects) -> Objects:
        rest = image.only(places[image.labels] >= 0)
        return replace(rest, labels=places[rest.labels])

    return replace(
        data,
        classes=tuple(data.classes[label] for label in kept),
        train=tuple(map(renumber, data.train)),
        validation=tuple(map(renumber, data.validation)),
    )
