"""Data sets by name: whole in memory, decoded once to bytes, or as paths and labels of images to stream.

Letters: N images, C channels (1 of grey images, else 3), S the resolution in pixels.
"""

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

from ablations.design import Accuracy
from ablations.errors import InputError, refuse
from ablations.recipes import BUILT_IN
from ablations.training.built_in import SPLIT_SEED, SmallImages, check_built_in, read_built_in
from ablations.training.cache import Question, describe_files, library_versions, load_images, store_images
from ablations.training.folders import (
    SPLITS,
    Split,
    digest_listing,
    find_unreadable,
    open_image_folder,
    unreadable_images,
    validation_folder,
)
from ablations.training.protocols import read_in_order, resized_short_side
from ablations.training.splits import Splits
from ablations.training.stream import StreamingData, build_augmentation


@dataclass(frozen=True, kw_only=True)
class InMemoryData(Splits):
    """A data set's two splits, as bytes (N, C, S, S)."""

    train_images: Tensor
    eval_images: Tensor


Data = InMemoryData | StreamingData


def data_directory(given: Path | None) -> Path:
    """Returns the folder of the data sets: the one `given`, else ABLATIONS_DATA_DIR, else `data`."""
    return given or Path(os.environ.get("ABLATIONS_DATA_DIR") or "data")


def check_data(name: str, num_classes: int, data_dir: Path | None) -> None:
    """Raises InputError if a data set is not there, not laid out as it must be, or has another number of classes.

    Fetches Fashion-MNIST and CIFAR if they are missing.
    """
    directory = data_directory(data_dir)
    if name in BUILT_IN:
        check_built_in(name, directory)
    classes = BUILT_IN[name] if name in BUILT_IN else len(_open_folder(name, directory)[0].classes)
    if classes != num_classes:
        raise refuse("num_classes", num_classes, f"{classes}, which {name} has")


def check_loading(conditions: Accuracy) -> None:
    """Raises InputError for a set that cannot be streaming, or for a RandAugment that timm does not know."""
    if conditions.loading == "streaming":
        if conditions.data in BUILT_IN:
            raise refuse("loading", conditions.loading, f"resident for {conditions.data}: only image folders stream")
        build_augmentation(conditions, may_flip=True)


def data_digest(name: str, data_dir: Path | None, *, val_only: bool = False) -> str | None:
    """Returns a SHA-256 by which another image folder of the same name is told apart; contents are not read.

    It is that of the images' paths and sizes, not of their times: with `val_only` of those that `evaluate` reads, in
    either layout and by path in the folder of classes, else of both splits'. None for the built-in sets, which are
    always the same, and where a folder is not there.
    """
    if name in BUILT_IN and not val_only:
        return None
    root = data_directory(data_dir) / name
    folders = {"": validation_folder(root)} if val_only else {split: root / split for split in SPLITS}
    return digest_listing(folders) if all(folder.is_dir() for folder in folders.values()) else None


def load_data(conditions: Accuracy, data_dir: Path | None) -> Data:
    """Returns the data set of the conditions with their training subset, in main memory.

    With `tuning_images` so many training images, always the same, are evaluated on instead of the validation images.

    in-memory sets are decoded, to bytes of the conditions' resolution:

    - `digits`: scikit-learn's, 80 % for training, the split stratified and always the same; enlarged bilinearly.
    - `fashion-mnist`: padded with zeros from 28 to 32 pixels, to other resolutions resized bilinearly.
    - `cifar10`, `cifar100`: as they are, to other resolutions resized bilinearly.
    - An image folder: the short side resized to S for training, to S / 0.875, rounded down, for validation, both
      bicubically, then the centre S x S. Validation does so with every image, even one that has S x S already. What
      was decoded is kept in the cache (`ablations.training.cache`).

    Streaming ones, which only image folders can be, are paths and labels. With `skip_unreadable` images that cannot be
    read are left out of the subset too; all are tried for it, once for as long as the files stay as they are.

    The last set loaded is kept, because studies train many arms on one. Raises InputError if the set is not there, not
    laid out as it must be, too large for the memory, has images that cannot be read (streaming ones are met later),
    labels out of range, or has another number of classes or too few training images.
    """
    check_loading(conditions)
    check_data(conditions.data, conditions.num_classes, data_dir)
    return _load(_ask(conditions, data_dir))


def load_eval_images(conditions: Accuracy, data_dir: Path | None) -> Tensor:
    """Returns the images (N, C, S, S) that `load_data` evaluates on, in memory whatever the conditions' loading."""
    return _load_eval_images(_ask(conditions, data_dir))


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What of the conditions decides the data."""

    name: str
    directory: Path
    resolution: int
    train_images: int
    tuning_images: int
    streaming: bool
    skip_unreadable: bool


def _ask(conditions: Accuracy, data_dir: Path | None) -> _Question:
    names = ("resolution", "train_images", "tuning_images", "skip_unreadable")
    return _Question(
        name=conditions.data,
        directory=data_directory(data_dir).resolve(),
        streaming=conditions.loading == "streaming",
        **{name: getattr(conditions, name) for name in names},
    )


@lru_cache(maxsize=1)
def _load(question: _Question) -> Data:
    return _load_small(question) if question.name in BUILT_IN else _load_folder(question)


def _load_eval_images(question: _Question) -> Tensor:
    if question.name in BUILT_IN:
        return _resize_small(_split_small(question).validation[0], question.resolution)
    _, validation, _ = _split_folder(question)
    unread: dict[str, str] = {}
    images = _decode_validation(validation, question, unread)
    if unread:
        raise unreadable_images(unread, len(images))
    return images


def _split_small(question: _Question) -> SmallImages:
    """Returns a built-in set with the training images that are trained on, and those that are evaluated on."""
    small = read_built_in(question.name, question.directory)
    images, labels = small.train
    kept, tuning = choose_split(labels, question.train_images, question.tuning_images)
    validation = (images[tuning], labels[tuning]) if question.tuning_images else small.validation
    return replace(small, train=(images[kept], labels[kept]), validation=validation)


def _load_small(question: _Question) -> InMemoryData:
    """Returns a built-in set, its images brought to the resolution."""
    small, resolution = _split_small(question), question.resolution
    count, channels = len(small.train[0]) + len(small.validation[0]), small.train[0].shape[1]
    _check_memory(count, channels, resolution, "a lower resolution fits")
    images = _resize_small(small.train[0], resolution)
    mean, std = zip(*map(_mean_and_std, images.unbind(1)), strict=True)
    return InMemoryData(
        train_images=images,
        train_labels=small.train[1],
        eval_images=_resize_small(small.validation[0], resolution),
        eval_labels=small.validation[1],
        mean=torch.stack(mean).float(),
        std=torch.stack(std).float(),
        may_flip=small.may_flip,
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


def _split_folder(question: _Question) -> tuple[Split, Split, tuple[str, ...]]:
    """Returns the images that are trained on, those that are evaluated on, and the names of those left out."""
    train, validation = _open_folder(question.name, question.directory)
    skipped: tuple[str, ...] = ()
    if question.skip_unreadable:
        faults = find_unreadable(train), find_unreadable(validation)
        skipped = tuple(
            split.name(path) for split, found in zip((train, validation), faults, strict=True) for path in found
        )
        train, validation = train.without(faults[0]), validation.without(faults[1])
    kept, tuning = choose_split(torch.tensor(train.labels), question.train_images, question.tuning_images)
    return train.only(kept.tolist()), train.only(tuning.tolist()) if question.tuning_images else validation, skipped


def _load_folder(question: _Question) -> Data:
    train, validation, skipped = _split_folder(question)
    both: dict[str, Any] = {
        "train_labels": torch.tensor(train.labels),
        "eval_labels": torch.tensor(validation.labels),
        "mean": 255 * torch.tensor(IMAGENET_DEFAULT_MEAN),
        "std": 255 * torch.tensor(IMAGENET_DEFAULT_STD),
        "may_flip": True,
        "skipped": skipped,
    }
    if question.streaming:
        both["folder"] = question.directory / question.name
        return StreamingData(train_paths=tuple(train.paths), eval_paths=tuple(validation.paths), **both)
    count, resolution = len(train.paths) + len(validation.paths), question.resolution
    _check_memory(count, 3, resolution, "loading=streaming reads them anew in every epoch instead")
    unread: dict[str, str] = {}
    subset = f"{question.train_images} without {question.tuning_images}"
    images = [
        _decode(train, resolution, resolution, subset, unread),
        _decode_validation(validation, question, unread),
    ]
    if unread:
        raise unreadable_images(unread, count)
    return InMemoryData(train_images=images[0], eval_images=images[1], **both)


def _decode_validation(split: Split, question: _Question, unread: dict[str, str]) -> Tensor:
    short_side = resized_short_side("paper", question.resolution)
    return _decode(split, question.resolution, short_side, str(question.tuning_images), unread)


def _open_folder(name: str, directory: Path) -> tuple[Split, Split]:
    """Returns the training and the validation split of an image folder, or raises InputError with what is wrong."""
    root = directory / name
    if not root.is_dir():
        raise refuse("data", name, f"{', '.join(BUILT_IN)}, or an image folder in {directory}, where this one is not")
    return open_image_folder(root)


def _decode(split: Split, resolution: int, short_side: int, subset: str, unread: dict[str, str]) -> Tensor:
    """Returns the images (N, 3, S, S): the short side resized to `short_side`, then the centre.

    They come from the cache, if it has them. Those that cannot be read are added to `unread`, with the reason.
    """
    question: Question = {
        "what": "decoded images",
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
    threads = torch.get_num_threads()
    stream = read_in_order(split.paths, show, workers=threads, ahead=16 * threads)
    for index, (path, read) in enumerate(zip(split.paths, stream, strict=True)):
        if isinstance(read, str):
            unread[split.name(path)] = read
        else:
            images[index] = read
    if not unread:
        store_images(question, state, images)
    return images


def choose_split(labels: Tensor, train_images: int, tuning_images: int) -> tuple[Tensor, Tensor]:
    """Returns the indices of the images that are trained on, and of those set aside for tuning.

    `labels` (N,) must have every class. Both are class-balanced; 0 sets none aside, and trains on all others. The
    images set aside are always the same. Raises InputError as `choose_subset`.
    """
    tuning = (
        choose_subset(labels, tuning_images, "tuning_images") if tuning_images else torch.empty(0, dtype=torch.int64)
    )
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[tuning] = False
    others = rest.nonzero()[:, 0]
    return others[choose_subset(labels[others], train_images)], tuning


def choose_subset(labels: Tensor, count: int, field: str = "train_images") -> Tensor:
    """Returns the indices of a class-balanced subset of `count` images; of all where it is 0.

    `labels` (N,) must have every class. A smaller subset is part of a larger one. Raises InputError if `count` is not
    a multiple of the number of classes, or more than the smallest class allows.
    """
    if count == 0:
        return torch.arange(len(labels))
    sizes = torch.bincount(labels)
    classes = len(sizes)
    most = classes * int(sizes.min())
    if count % classes or count > most:
        raise refuse(field, count, f"0 for all {len(labels)}, or a multiple of {classes} up to {most}")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    members = [shuffled[labels[shuffled] == label][: count // classes] for label in range(classes)]
    return torch.cat(members).sort().values


def _check_memory(images: int, channels: int, resolution: int, way_out: str) -> None:
    needed, limit = images * channels * resolution**2, physical_memory_bytes() // 2
    if needed > limit:
        raise InputError(
            f"{images} images at resolution={resolution} need {needed / 2**30:.1f} GiB, more than half of this "
            f"machine's memory ({limit / 2**30:.1f} GiB); {way_out}"
        )


def physical_memory_bytes() -> int:
    """Returns the size of the machine's main memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
