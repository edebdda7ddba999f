"""Loads a data set of detection or segmentation by name: lists its images and annotations, and decodes nothing."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ablations.data import ade20k, coco, voc
from ablations.data.annotations import DenseData, Faults, Objects, Segments, check_split, drop_empty_classes
from ablations.data.dense_registry import DETECTION_LAYOUTS, Layout, find_layout
from ablations.errors import InputError

OF_LAYOUT: dict[Layout, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "coco": (coco.SPLITS, ("annotations/instances_train2017.json", "annotations/instances_val2017.json")),
    "voc": (("JPEGImages", "Annotations"), ("ImageSets/Main/train.txt", "ImageSets/Main/val.txt")),
    "ade20k": (tuple(f"{part}/{split}" for part in ("images", "annotations") for split in ade20k.SPLITS), ()),
}
"""Of each layout: the folders of its images and annotations, and the files whose content is part of the set."""


def load_objects(conditions: Any, data_dir: Path | None) -> DenseData[Objects]:
    """Returns the images and objects that a detector is trained and evaluated on, a subset if the conditions say so.

    Training images without an object that is no crowd are left out, as in the released code. Raises InputError where
    the set is not there, is empty, or has faults that the conditions do not skip.
    """
    folder, layout = find_layout(conditions.data, data_dir, DETECTION_LAYOUTS)
    masks = conditions.head == "mask_rcnn"
    if masks and layout != "coco":
        raise InputError(f"head='mask_rcnn' is not possible with {conditions.data}, which has no masks of objects")
    data = _load_objects(folder, layout, masks=masks, skip_faulty=conditions.skip_faulty)
    return data.choose(conditions.train_images, conditions.tuning_images)


@lru_cache(maxsize=1)
def _load_objects(folder: Path, layout: Layout, *, masks: bool, skip_faulty: bool) -> DenseData[Objects]:
    faults, name = Faults(), folder.name
    splits = (coco if layout == "coco" else voc).SPLITS
    read = partial(coco.read_coco, masks=masks) if layout == "coco" else voc.read_voc
    train, classes = read(folder, splits[0], None, faults=faults)
    validation, _ = read(folder, splits[1], classes, faults=faults)
    faults.refuse(name, skip=skip_faulty)  # which may be why a category has no images
    data = DenseData(
        folder=folder,
        classes=tuple(classes.values()),
        train=tuple(image for image in train if (~image.crowd).any()),
        validation=tuple(validation),
    )
    data = drop_empty_classes(data, faults)
    faults.refuse(name, skip=skip_faulty)
    check_split(data.train, f"training of {name}", "images with objects")
    if not any((~image.crowd).any() for image in data.validation):
        raise InputError(f"validation of {name} has no objects; allowed: one or more")
    return replace(data, left_out=faults.counts)


def load_segments(conditions: Any, data_dir: Path | None) -> DenseData[Segments]:
    """Returns the images and masks that a segmentation network is trained and evaluated on.

    Raises InputError as `load_objects` does.
    """
    folder, _ = find_layout(conditions.data, data_dir, ("ade20k",))
    names = ("num_classes", "first_label", "void_label", "skip_faulty")
    data = _load_segments(folder, **{name: getattr(conditions, name) for name in names})
    return data.choose(conditions.train_images, conditions.tuning_images)


@lru_cache(maxsize=1)
def _load_segments(
    folder: Path, *, num_classes: int, first_label: int, void_label: int, skip_faulty: bool
) -> DenseData[Segments]:
    faults, name = Faults(), folder.name
    labels: dict[str, Any] = {"num_classes": num_classes, "first_label": first_label, "void_label": void_label}
    read = partial(ade20k.read_ade20k, folder, **labels, faults=faults)
    (train, trained), (validation, shown) = map(read, ade20k.SPLITS)
    faults.refuse(name, skip=skip_faulty)  # which may be why a class has no pixel
    for label in sorted(set(range(num_classes)) - (trained or shown)):
        faults.note("classes without a pixel", f"label {label + first_label} in training")
    faults.refuse(name, skip=skip_faulty)
    for split, images in zip(ade20k.SPLITS, (train, validation), strict=True):
        check_split(images, f"{split} of {name}", "images that can be used")
    return DenseData(
        folder=folder,
        classes=tuple(map(str, range(num_classes))),
        train=tuple(train),
        validation=tuple(validation),
        left_out=faults.counts,
        first_label=first_label,
        void_label=void_label,
    )


def dense_digest(name: str, data_dir: Path | None, allowed: tuple[Layout, ...]) -> str | None:
    """Returns a SHA-256 by which another data set of the same name is told apart; None where it is not there.

    It is that of the paths and sizes of its images and masks, and of what its lists of annotations say.
    """
    try:
        folder, layout = find_layout(name, data_dir, allowed)
    except InputError:
        return None
    found = hashlib.sha256()
    folders, files = OF_LAYOUT[layout]
    for path, size in sorted(_list_files(folder, folders)):
        found.update(os.fsencode(path) + b"\0%d\0" % size)
    for file in files:
        if (folder / file).is_file():
            found.update((folder / file).read_bytes())
    return found.hexdigest()


def _list_files(folder: Path, below: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for name in below:
        if not (folder / name).is_dir():
            continue
        with os.scandir(folder / name) as entries:
            for entry in entries:
                if entry.is_file():
                    yield f"{name}/{entry.name}", entry.stat().st_size
