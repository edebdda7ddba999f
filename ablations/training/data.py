"""Data sets by name: whole in memory, decoded once to bytes, or as paths and labels of pictures to stream.

Letters: N pictures, C channels (1 of grey pictures, else 3), S the resolution in pixels.
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
from ablations.training.built_in import SPLIT_SEED, check_built_in, read_built_in
from ablations.training.cache import Question, describe_files, library_versions, load_pictures, store_pictures
from ablations.training.folders import (
    SPLITS,
    Split,
    digest_listing,
    find_unreadable,
    held_out_folder,
    open_image_folder,
    unreadable_pictures,
)
from ablations.training.protocols import read_in_order, resized_short_side
from ablations.training.splits import Splits
from ablations.training.stream import StreamedData, build_augmentation


@dataclass(frozen=True, kw_only=True)
class ImageData(Splits):
    """A data set's two splits, as bytes (N, C, S, S)."""

    train_images: Tensor
    eval_images: Tensor


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
    """Raises InputError for a set that cannot be streamed, or for a RandAugment that timm does not know."""
    if conditions.loading == "streamed":
        if conditions.data in BUILT_IN:
            raise refuse("loading", conditions.loading, f"resident for {conditions.data}: only image folders stream")
        build_augmentation(conditions, may_flip=True)


def data_digest(name: str, data_dir: Path | None, *, val_only: bool = False) -> str | None:
    """Returns a SHA-256 by which another image folder of the same name is told apart; contents are not read.

    It is that of the pictures' paths and sizes, not of their times: with `val_only` of those that `evaluate` reads, in
    either layout and by path in the folder of classes, else of both splits'. None for the built-in sets, which are
    always the same, and where a folder is not there.
    """
    if name in BUILT_IN and not val_only:
        return None
    root = data_directory(data_dir) / name
    folders = {"": held_out_folder(root)} if val_only else {split: root / split for split in SPLITS}
    return digest_listing(folders) if all(folder.is_dir() for folder in folders.values()) else None


def load_data(conditions: Accuracy, data_dir: Path | None) -> ImageData | StreamedData:
    """Returns the data set of the conditions with their training subset, in main memory.

    Resident sets are decoded, to bytes of the conditions' resolution:

    - `digits`: scikit-learn's, 80 % for training, the split stratified and always the same; enlarged bilinearly.
    - `fashion-mnist`: padded with zeros from 28 to 32 pixels, to other resolutions resized bilinearly.
    - `cifar10`, `cifar100`: as they are, to other resolutions resized bilinearly.
    - An image folder: the short side resized to S for training, to S / 0.875, rounded down, for validation, both
      bicubically, then the centre S x S. Validation does so with every picture, even one that has S x S already. What
      was decoded is kept in the cache (`ablations.training.cache`).

    Streamed ones, which only image folders can be, are paths and labels. With `skip_unreadable` pictures that cannot be
    read are left out of the subset too; all are tried for it, once for as long as the files stay as they are.

    The last set loaded is kept, because studies train many arms on one. Raises InputError if the set is not there, not
    laid out as it must be, too large for the memory, has pictures that cannot be read (streamed ones are met later),
    labels out of range, or has another number of classes or too few training pictures.
    """
    check_loading(conditions)
    check_data(conditions.data, conditions.num_classes, data_dir)
    directory = data_directory(data_dir).resolve()
    folder = {"streamed": conditions.loading == "streamed", "skip_unreadable": conditions.skip_unreadable}
    return _load(conditions.data, directory, conditions.resolution, conditions.train_images, **folder)


@lru_cache(maxsize=1)
def _load(
    name: str, directory: Path, resolution: int, train_images: int, *, streamed: bool, skip_unreadable: bool
) -> ImageData | StreamedData:
    if name in BUILT_IN:
        return _load_small(name, directory, resolution, train_images)
    return _load_folder(name, directory, resolution, train_images, streamed, skip_unreadable)


def _load_small(name: str, directory: Path, resolution: int, train_images: int) -> ImageData:
    """Returns a built-in set, its pictures brought to the resolution."""
    small = read_built_in(name, directory)
    kept = choose_subset(small.train[1], train_images)
    count, channels = len(kept) + len(small.held_out[0]), small.train[0].shape[1]
    _check_memory(count, channels, resolution, "a lower resolution fits")
    images = _resize_small(small.train[0][kept], resolution)
    mean, std = zip(*map(_mean_and_std, images.unbind(1)), strict=True)
    return ImageData(
        train_images=images,
        train_labels=small.train[1][kept],
        eval_images=_resize_small(small.held_out[0], resolution),
        eval_labels=small.held_out[1],
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


def _load_folder(
    name: str, directory: Path, resolution: int, train_images: int, streamed: bool, skip_unreadable: bool
) -> ImageData | StreamedData:
    train, held_out = _open_folder(name, directory)
    skipped: tuple[str, ...] = ()
    if skip_unreadable:
        faults = find_unreadable(train), find_unreadable(held_out)
        skipped = tuple(
            split.name(path) for split, found in zip((train, held_out), faults, strict=True) for path in found
        )
        train, held_out = train.without(faults[0]), held_out.without(faults[1])
    labels = torch.tensor(train.labels)
    kept = choose_subset(labels, train_images)
    train = replace(train, paths=[train.paths[index] for index in kept.tolist()], labels=labels[kept].tolist())
    both: dict[str, Any] = {
        "train_labels": labels[kept],
        "eval_labels": torch.tensor(held_out.labels),
        "mean": 255 * torch.tensor(IMAGENET_DEFAULT_MEAN),
        "std": 255 * torch.tensor(IMAGENET_DEFAULT_STD),
        "may_flip": True,
        "skipped": skipped,
    }
    if streamed:
        both["folder"] = directory / name
        return StreamedData(train_paths=tuple(train.paths), eval_paths=tuple(held_out.paths), **both)
    count = len(train.paths) + len(held_out.paths)
    _check_memory(count, 3, resolution, "loading=streamed reads them anew in every epoch instead")
    unread: dict[str, str] = {}
    images = [
        _decode(train, resolution, resolution, train_images, unread),
        _decode(held_out, resolution, resized_short_side("paper", resolution), 0, unread),
    ]
    if unread:
        raise unreadable_pictures(unread, count)
    return ImageData(train_images=images[0], eval_images=images[1], **both)


def _open_folder(name: str, directory: Path) -> tuple[Split, Split]:
    """Returns the training and the validation split of an image folder, or raises InputError with what is wrong."""
    root = directory / name
    if not root.is_dir():
        raise refuse("data", name, f"{', '.join(BUILT_IN)}, or an image folder in {directory}, where this one is not")
    return open_image_folder(root)


def _decode(split: Split, resolution: int, short_side: int, subset: int, unread: dict[str, str]) -> Tensor:
    """Returns the pictures (N, 3, S, S): the short side resized to `short_side`, then the centre.

    They come from the cache, if it has them. Those that cannot be read are added to `unread`, with the reason.
    """
    question: Question = {
        "what": "decoded pictures",
        **{"folder": str(split.folder), "resolution": resolution, "short_side": short_side, "subset": subset},
    }
    state = {"files": describe_files(split.folder, split.paths), **library_versions()}
    shape = (len(split.paths), 3, resolution, resolution)
    known = load_pictures(question, state, shape)
    if known is not None:
        return known

    def show(picture: Image.Image) -> Tensor:
        # Resizing bytes gives Pillow's numbers in half of Pillow's time.
        resized = resize(pil_to_tensor(picture), [short_side], InterpolationMode.BICUBIC, antialias=True)
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
        store_pictures(question, state, images)
    return images


def choose_subset(labels: Tensor, count: int) -> Tensor:
    """Returns the indices of a class-balanced subset of `count` pictures; of all where it is 0.

    `labels` (N,) must have every class. A smaller subset is part of a larger one. Raises InputError if `count` is not
    a multiple of the number of classes, or more than the smallest class allows.
    """
    if count == 0:
        return torch.arange(len(labels))
    sizes = torch.bincount(labels)
    classes = len(sizes)
    most = classes * int(sizes.min())
    if count % classes or count > most:
        raise refuse("train_images", count, f"0 for all {len(labels)}, or a multiple of {classes} up to {most}")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    members = [shuffled[labels[shuffled] == label][: count // classes] for label in range(classes)]
    return torch.cat(members).sort().values


def _check_memory(pictures: int, channels: int, resolution: int, way_out: str) -> None:
    needed, limit = pictures * channels * resolution**2, physical_memory_bytes() // 2
    if needed > limit:
        raise InputError(
            f"{pictures} pictures at resolution={resolution} need {needed / 2**30:.1f} GiB, more than half of this "
            f"machine's memory ({limit / 2**30:.1f} GiB); {way_out}"
        )


def physical_memory_bytes() -> int:
    """Returns the size of the machine's main memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
