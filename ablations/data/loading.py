"""Loads a data set by name: in memory, decoded to bytes, or streaming, as paths and labels.

Letters: N images, C channels (1 of grey images, else 3), S the resolution in pixels.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

from ablations.data.cache import Question, describe_files, library_versions, load_images, store_images
from ablations.data.folders import (
    digest_listing,
    find_unreadable,
    open_image_folder,
    say_left_out,
    unreadable_images,
    validation_folder,
)
from ablations.data.images import RULES, read_all
from ablations.data.listing import Listing, listed
from ablations.data.protocols import resized_short_side
from ablations.data.registry import DATA_SETS, SPLITS, built_in_names, data_directory, is_built_in
from ablations.data.splits import Data, InMemoryData, LabelledImages, StreamingData, choose_split
from ablations.data.stream import build_augmentation
from ablations.errors import InputError, refuse
from ablations.measure import Accuracy
from ablations.measure.environment import control_group_limits


def check_data(name: str, num_classes: int, data_dir: Path | None) -> None:
    """Raises InputError if a data set is not there, not laid out as it must be, or has another number of classes.

    Says on stderr what of an image folder was left out. Fetches a built-in set that is missing, and reads all of it,
    in a fifth of a second, so that no training is the first to meet a damaged file.
    """
    directory = data_directory(data_dir)
    if is_built_in(name):
        read_built_in(name, directory)
    else:
        say_left_out(split.complaint for split in _open_folder(name, directory))
    _check_classes(name, num_classes, directory)


def _check_classes(name: str, num_classes: int, directory: Path) -> None:
    known = DATA_SETS[name].num_classes if is_built_in(name) else len(_open_folder(name, directory)[0].classes)
    if known != num_classes:
        raise refuse("num_classes", num_classes, f"{known}, which {name} has")


def check_loading(conditions: Accuracy) -> None:
    """Raises InputError for a data set that cannot stream, and for a RandAugment that timm does not know."""
    if conditions.loading == "streaming":
        if is_built_in(conditions.data):
            raise refuse("loading", conditions.loading, f"in-memory for {conditions.data}: only image folders stream")
        build_augmentation(conditions, may_flip=True)


def data_digest(name: str, data_dir: Path | None, *, val_only: bool = False) -> str | None:
    """Returns a SHA-256 by which another image folder of the same name is told apart; contents are not read.

    It is that of the images' paths and sizes, not of their times: with `val_only` of those that `evaluate` reads, in
    either layout and by path in the folder of classes, else of both splits'. None for the built-in sets, which are
    always the same, and where a folder is not there.
    """
    if is_built_in(name) and not val_only:
        return None
    root = data_directory(data_dir) / name
    folders = {"": validation_folder(root)} if val_only else {split: root / split for split in SPLITS}
    return digest_listing(folders) if all(folder.is_dir() for folder in folders.values()) else None


def load_data(conditions: Accuracy, data_dir: Path | None) -> Data:
    """Returns the data set of the conditions with their training subset, in main memory.

    With `tuning_images` so many training images, always the same, are evaluated on instead of the validation images.

    In memory, images are bytes of the conditions' resolution:

    - Built-in sets are resized bilinearly; images of 28 pixels are padded with zeros to 32.
    - Of an image folder, the short side is resized to S for training and to S / 0.875, rounded down, for validation,
      both bicubically, then the centre S x S is cut out: for validation of every image, even one that has S x S
      already. The cache keeps what was decoded (`ablations.data.cache`).

    Streaming data are paths and labels. With `skip_unreadable` the subset leaves out images that cannot be read; all
    are tried for it, once for as long as the files stay as they are.

    The last set loaded is kept, because studies train many arms on one. Raises InputError if the set is not there, not
    laid out as it must be, too large for the memory, has images that cannot be read (streaming meets them later),
    labels out of range, or has another number of classes or too few training images.
    """
    check_loading(conditions)
    _check_classes(conditions.data, conditions.num_classes, data_directory(data_dir))
    return _load(_data_conditions(conditions), data_directory(data_dir).resolve())


def load_eval_images(conditions: Accuracy, data_dir: Path | None) -> Tensor:
    """Returns the images (N, C, S, S) that `load_data` evaluates on, in memory whatever the conditions' loading."""
    directory, resolution = data_directory(data_dir).resolve(), conditions.resolution
    way_out = "a lower resolution fits"
    if is_built_in(conditions.data):
        small = _split_small(conditions, directory)[1][0]
        _check_memory(len(small), small.shape[1], resolution, way_out)
        return _resize_small(small, resolution)
    _, validation, _ = _split_folder(conditions, directory)
    _check_memory(len(validation.paths), 3, resolution, way_out)
    unread: dict[str, str] = {}
    images = _decode_validation(validation, conditions, unread)
    if unread:
        raise unreadable_images(unread, len(images))
    return images


def _data_conditions(conditions: Accuracy) -> Accuracy:
    """Returns the conditions with all fields at their defaults but those that decide the data, which arms share."""
    names = ("data", "resolution", "loading", "train_images", "tuning_images", "skip_unreadable")
    return Accuracy(**{name: getattr(conditions, name) for name in names})


@lru_cache(maxsize=1)
def _load(conditions: Accuracy, directory: Path) -> Data:
    return (_load_small if is_built_in(conditions.data) else _load_folder)(conditions, directory)


def read_built_in(name: str, directory: Path) -> tuple[LabelledImages, LabelledImages]:
    """Returns the training and the validation images of a built-in data set, fetched if they are missing.

    Raises InputError for files that are not the set's, for images that are no bytes (N, C, h, w), and unless every
    label is a class's and each class has an image.
    """
    module, _, function = DATA_SETS[name].reader.partition(":")
    read: Callable[[str, Path], tuple[LabelledImages, LabelledImages]] = getattr(import_module(module), function)
    train, validation = read(name, directory)
    for images, labels in (train, validation):
        _check_split(name, images, labels)
    return train, validation


def _check_split(name: str, images: Tensor, labels: Tensor) -> None:
    """Raises InputError unless images are bytes, each has a label, each label is a class's and no class lacks one."""
    folder = DATA_SETS[name].folder
    which = f"{name} in {folder} of the data directory" if folder else name
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise InputError(
            f"{which} has images of {images.dtype} and shape {tuple(images.shape)}; allowed: torch.uint8, (N, C, h, w)"
        )
    if len(images) != len(labels):
        raise InputError(f"{which} has {len(images)} images and {len(labels)} labels in one split")
    present, classes = set(labels.unique().tolist()), set(range(DATA_SETS[name].num_classes))
    if unknown := sorted(present - classes):
        raise InputError(f"{which} has a label {unknown[0]}; allowed: 0 to {len(classes) - 1}")
    if missing := sorted(classes - present):
        raise InputError(f"{which} has no images of class {listed([str(label) for label in missing])}")


def _split_small(conditions: Accuracy, directory: Path) -> tuple[LabelledImages, LabelledImages]:
    """Returns the images of a built-in set that are trained on, and those that are evaluated on."""
    (images, labels), validation = read_built_in(conditions.data, directory)
    kept, tuning = choose_split(labels, conditions.train_images, conditions.tuning_images)
    return (images[kept], labels[kept]), (images[tuning], labels[tuning]) if conditions.tuning_images else validation


def _load_small(conditions: Accuracy, directory: Path) -> InMemoryData:
    """Returns a built-in set, its images brought to the resolution."""
    (train, train_labels), (validation, eval_labels) = _split_small(conditions, directory)
    resolution = conditions.resolution
    _check_memory(len(train) + len(validation), train.shape[1], resolution, "a lower resolution fits")
    images = _resize_small(train, resolution)
    mean, std = zip(*map(_mean_and_std, images.unbind(1)), strict=True)
    return InMemoryData(
        train_images=images,
        train_labels=train_labels,
        eval_images=_resize_small(validation, resolution),
        eval_labels=eval_labels,
        mean=torch.stack(mean).float(),
        std=torch.stack(std).float(),
        may_flip=DATA_SETS[conditions.data].may_flip,
    )


def _mean_and_std(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean and the deviation of bytes of any shape, as float64."""
    counts = torch.bincount(levels.flatten(), minlength=256).double()
    level = torch.arange(256, dtype=torch.float64)
    mean = (counts * level).sum() / counts.sum()
    return mean, ((counts * (level - mean) ** 2).sum() / counts.sum()).sqrt()


def _resize_small(images: Tensor, resolution: int) -> Tensor:
    if images.shape[-1] == 28 and resolution == 32:
        return F.pad(images, [2, 2, 2, 2])
    return resize(images, [resolution, resolution], antialias=True)


def _split_folder(conditions: Accuracy, directory: Path) -> tuple[Listing, Listing, tuple[str, ...]]:
    """Returns the images that are trained on, those that are evaluated on, and the names of those left out."""
    train, validation = _open_folder(conditions.data, directory)
    skipped: tuple[str, ...] = ()
    if conditions.skip_unreadable:
        faults = find_unreadable(train), find_unreadable(validation)
        skipped = tuple(
            split.name(path) for split, found in zip((train, validation), faults, strict=True) for path in found
        )
        train, validation = train.without(faults[0]), validation.without(faults[1])
    kept, tuning = choose_split(torch.tensor(train.labels), conditions.train_images, conditions.tuning_images)
    return train.only(kept.tolist()), train.only(tuning.tolist()) if conditions.tuning_images else validation, skipped


def _load_folder(conditions: Accuracy, directory: Path) -> Data:
    train, validation, skipped = _split_folder(conditions, directory)
    both: dict[str, Any] = {
        "train_labels": torch.tensor(train.labels),
        "eval_labels": torch.tensor(validation.labels),
        "mean": 255 * torch.tensor(IMAGENET_DEFAULT_MEAN),
        "std": 255 * torch.tensor(IMAGENET_DEFAULT_STD),
        "may_flip": DATA_SETS[conditions.data].may_flip if conditions.data in DATA_SETS else True,
        "skipped": skipped,
    }
    if conditions.loading == "streaming":
        both["folder"] = directory / conditions.data
        return StreamingData(train_paths=tuple(train.paths), eval_paths=tuple(validation.paths), **both)
    count, resolution = len(train.paths) + len(validation.paths), conditions.resolution
    _check_memory(count, 3, resolution, "loading=streaming reads them in every epoch instead")
    unread: dict[str, str] = {}
    subset = f"{conditions.train_images} without {conditions.tuning_images}"
    images = [
        _decode(train, resolution, resolution, subset, unread),
        _decode_validation(validation, conditions, unread),
    ]
    if unread:
        raise unreadable_images(unread, count)
    return InMemoryData(train_images=images[0], eval_images=images[1], **both)


def _decode_validation(split: Listing, conditions: Accuracy, unread: dict[str, str]) -> Tensor:
    short_side = resized_short_side("paper", conditions.resolution)
    return _decode(split, conditions.resolution, short_side, str(conditions.tuning_images), unread)


def _open_folder(name: str, directory: Path) -> tuple[Listing, Listing]:
    """Returns the training and the validation split of an image folder, or raises InputError with what is wrong."""
    root = directory / name
    if not root.is_dir():
        raise refuse("data", name, f"{built_in_names()}, or an image folder in {directory}, where this one is not")
    return open_image_folder(root)


def _decode(split: Listing, resolution: int, short_side: int, subset: str, unread: dict[str, str]) -> Tensor:
    """Returns the images (N, 3, S, S): the short side resized to `short_side`, then the centre.

    They come from the cache, if it has them. Those that cannot be read are added to `unread`, with the reason.
    """
    question: Question = {
        "what": "decoded images",
        "rules": RULES,
        **{"folder": str(split.folder), "resolution": resolution, "short_side": short_side, "subset": subset},
    }
    state = {"files": describe_files(split.folder, split.paths), **library_versions()}
    shape = (len(split.paths), 3, resolution, resolution)
    known = load_images(question, state, shape)
    if known is not None:
        return known

    def show(image: Image.Image) -> Tensor:
        # Resizing bytes gives Pillow's numbers in half of Pillow's time.
        resized = resize(pil_to_tensor(image), [short_side], InterpolationMode.BICUBIC, antialias=True)
        return center_crop(resized, [resolution, resolution])

    images = torch.empty(shape, dtype=torch.uint8)
    for index, (path, read) in enumerate(read_all(split.paths, show)):
        if isinstance(read, str):
            unread[split.name(path)] = read
        else:
            images[index] = read
    if not unread:
        store_images(question, state, images)
    return images


def _check_memory(images: int, channels: int, resolution: int, way_out: str) -> None:
    needed, limit = images * channels * resolution**2, physical_memory_bytes() // 2
    if needed > limit:
        raise InputError(
            f"{images} images at resolution={resolution} need {needed / 2**30:.1f} GiB, more than half of this "
            f"machine's memory ({limit / 2**30:.1f} GiB); {way_out}"
        )


def physical_memory_bytes() -> int:
    """Returns the size of the machine's main memory, or what a container's limit leaves of it."""
    return min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *control_group_limits())
