"""Loads a data set of detection or segmentation by name: lists its images and annotations, and decodes nothing."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablations.data import ade20k, coco, voc
from ablations.data.annotations import DenseData, Faults, Objects, Segments, check_split, drop_empty_classes
from ablations.data.dense_registry import DETECTION_LAYOUTS, Layout, find_layout
from ablations.errors import InputError

OF_LAYOUT: dict[Layout, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "coco": (coco.SPLITS, ("annotations/instances_train2017.json", "annotations/instances_val2017.json")),
    "voc": (("JPEGImages",), ("ImageSets/Main/train.txt", "ImageSets/Main/val.txt")),
    "ade20k": (tuple(f"images/{split}" for split in ade20k.SPLITS), ()),
}
"""Of each layout: the folders of its images, and the files whose content is part of the set."""

MORE_FOLDERS: dict[Layout, tuple[str, ...]] = {
    "coco": (),
    "voc": ("Annotations",),
    "ade20k": tuple(f"annotations/{split}" for split in ade20k.SPLITS),
}


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What of the conditions decides the data."""

    folder: Path
    layout: Layout
    masks: bool
    num_classes: int
    first_label: int
    void_label: int
    skip_faulty: bool


def load_objects(conditions: Any, data_dir: Path | None) -> DenseData[Objects]:
    """Returns the images and objects that a detector is trained and evaluated on, a subset if the conditions say so.

    Training images without an object that is no crowd are left out, as in the released code. Raises InputError where
    the set is not there, is empty, or has faults that the conditions do not skip.
    """
    folder, layout = find_layout(conditions.data, data_dir, DETECTION_LAYOUTS)
    masks = conditions.head == "mask_rcnn"
    if masks and layout != "coco":
        raise InputError(f"head='mask_rcnn' is not possible with {conditions.data}, which has no masks of objects")
    question = _Question(
        folder=folder,
        layout=layout,
        masks=masks,
        num_classes=0,
        first_label=0,
        void_label=0,
        skip_faulty=conditions.skip_faulty,
    )
    return _load_objects(question).choose(conditions.train_images, conditions.tuning_images)


@lru_cache(maxsize=1)
def _load_objects(question: _Question) -> DenseData[Objects]:
    faults = Faults()
    splits = []
    classes: dict[int, str] | None = None
    for split in (coco if question.layout == "coco" else voc).SPLITS:
        if question.layout == "coco":
            found, classes = coco.read_coco(question.folder, split, classes, masks=question.masks, faults=faults)
        else:
            found, classes = voc.read_voc(question.folder, split, classes, faults=faults)
        splits.append(found)
    assert classes is not None
    train, validation = splits
    name = question.folder.name
    faults.refuse(name, skip=question.skip_faulty)  # which may be why a category has no images
    data = DenseData(
        folder=question.folder,
        classes=tuple(classes.values()),
        train=tuple(image for image in train if (~image.crowd).any()),
        validation=tuple(validation),
    )
    data = drop_empty_classes(data, faults)
    faults.refuse(name, skip=question.skip_faulty)
    check_split(data.train, f"training of {name}", "images with objects")
    if not any((~image.crowd).any() for image in data.validation):
        raise InputError(f"validation of {name} has no objects; allowed: one or more")
    return replace(data, left_out=faults.counts)


def load_segments(conditions: Any, data_dir: Path | None) -> DenseData[Segments]:
    """Returns the images and masks that a segmentation network is trained and evaluated on.

    Raises InputError as `load_objects` does.
    """
    folder, layout = find_layout(conditions.data, data_dir, ("ade20k",))
    question = _Question(
        folder=folder,
        layout=layout,
        masks=False,
        num_classes=conditions.num_classes,
        first_label=conditions.first_label,
        void_label=conditions.void_label,
        skip_faulty=conditions.skip_faulty,
    )
    return _load_segments(question).choose(conditions.train_images, conditions.tuning_images)


@lru_cache(maxsize=1)
def _load_segments(question: _Question) -> DenseData[Segments]:
    faults = Faults()
    name = question.folder.name
    of_labels: dict[str, Any] = {
        "num_classes": question.num_classes,
        "first_label": question.first_label,
        "void_label": question.void_label,
    }
    splits: list[tuple[Segments, ...]] = []
    trained: set[int] = set()
    for split in ade20k.SPLITS:
        found, classes = ade20k.read_ade20k(question.folder, split, **of_labels, faults=faults)
        splits.append(tuple(found))
        trained = trained or classes
    faults.refuse(name, skip=question.skip_faulty)  # which may be why a class has no pixel
    for label in sorted(set(range(question.num_classes)) - trained):
        faults.note("classes without a pixel", f"label {label + question.first_label} in training")
    faults.refuse(name, skip=question.skip_faulty)
    for split, images in zip(ade20k.SPLITS, splits, strict=True):
        check_split(images, f"{split} of {name}", "images that can be used")
    return DenseData(
        folder=question.folder,
        classes=tuple(map(str, range(question.num_classes))),
        train=splits[0],
        validation=splits[1],
        left_out=faults.counts,
        first_label=question.first_label,
        void_label=question.void_label,
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
    images, files = OF_LAYOUT[layout]
    for path, size in sorted(_list_files(folder, (*images, *MORE_FOLDERS[layout]))):
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
