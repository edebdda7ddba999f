"""Data sets, whole in memory: decoded once to bytes, which are augmented and normalised batch by batch on the device.

Letters: N pictures, C channels (1 of grey pictures, else 3), S the resolution in pixels.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.datasets import FashionMNIST, ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

from ablations.design import Accuracy
from ablations.errors import InputError, refuse

BUILT_IN = {"digits": 10, "fashion-mnist": 10}
"""The classes of the data sets that have a loader of their own. Any other name is an image folder's."""

VAL_CROP = 0.875
"""Side of the centre crop that a validation picture is seen by, over its short side (PVT v2, 4.1)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Splits and subsets are the same for every training seed: a spread over seeds is not one over pictures.
SPLIT_SEED = 0


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A data set's two splits, as bytes (N, C, S, S) with labels (N,) of int64."""

    train_images: Tensor
    train_labels: Tensor
    eval_images: Tensor
    eval_labels: Tensor
    mean: Tensor
    """Of each channel (C,), in levels of 0 to 255."""
    std: Tensor
    """Of each channel (C,), in levels of 0 to 255."""
    may_flip: bool
    """Whether a mirrored picture is still of its class."""

    def to(self, device: str | torch.device) -> "ImageData":
        """Returns the same data on a device."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def data_directory(given: Path | None) -> Path:
    """Returns the folder of the data sets: the one `given`, else ABLATIONS_DATA_DIR, else `data`."""
    return given or Path(os.environ.get("ABLATIONS_DATA_DIR") or "data")


def check_data(name: str, num_classes: int, data_dir: Path | None) -> None:
    """Raises InputError if a data set is not there, not laid out as it must be, or has another number of classes.

    Fetches Fashion-MNIST if it is missing.
    """
    if name == "fashion-mnist":
        _open_fashion_mnist(data_directory(data_dir), train=False)
    classes = count_classes(name, data_dir)
    if classes != num_classes:
        raise refuse("num_classes", num_classes, f"{classes}, which {name} has")


def count_classes(name: str, data_dir: Path | None) -> int:
    """Returns how many classes a data set has; raises InputError for an image folder that is not there or not sound."""
    return BUILT_IN[name] if name in BUILT_IN else len(_open_folder(name, data_directory(data_dir))[0].classes)


def load_data(conditions: Accuracy, data_dir: Path | None) -> ImageData:
    """Returns the data set of the conditions in main memory, at their resolution and with their training subset.

    - `digits`: scikit-learn's, 80 % for training, the split stratified and always the same; enlarged bilinearly.
    - `fashion-mnist`: padded with zeros from 28 to 32 pixels, to other resolutions resized bilinearly.
    - An image folder: the short side resized to S for training, to S / 0.875 for validation, both bicubically, then
      the centre S x S. Validation does so with every picture, even one that has S x S already.

    The last set loaded is kept, because studies train many arms on one. Raises InputError if the set is not there, not
    laid out as it must be, too large for the memory, or has another number of classes or too few training pictures.
    """
    check_data(conditions.data, conditions.num_classes, data_dir)
    directory = data_directory(data_dir).resolve()
    return _load(conditions.data, directory, conditions.resolution, conditions.train_images)


@lru_cache(maxsize=1)
def _load(name: str, directory: Path, resolution: int, train_images: int) -> ImageData:
    if name == "digits":
        return _load_digits(resolution, train_images)
    if name == "fashion-mnist":
        return _load_fashion_mnist(directory, resolution, train_images)
    return _load_folder(name, directory, resolution, train_images)


def _load_digits(resolution: int, train_images: int) -> ImageData:
    # Deferred: scikit-learn takes a second to import and no other data set needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)  # its levels are 0 to 16
    labels = torch.from_numpy(digits.target).long()
    train, held_out = train_test_split(
        torch.arange(len(labels)), test_size=0.2, stratify=labels, random_state=SPLIT_SEED
    )
    train = train[choose_subset(labels[train], train_images)]
    return _grey_data((images[train], labels[train]), (images[held_out], labels[held_out]), resolution, may_flip=False)


def _load_fashion_mnist(directory: Path, resolution: int, train_images: int) -> ImageData:
    train, held_out = (_open_fashion_mnist(directory, train=train) for train in (True, False))
    kept = choose_subset(train.targets, train_images)
    return _grey_data(
        (train.data[kept], train.targets[kept]), (held_out.data, held_out.targets), resolution, may_flip=True
    )


def _open_fashion_mnist(directory: Path, *, train: bool) -> FashionMNIST:
    raw = directory / "FashionMNIST" / "raw"
    made = [folder for folder in (raw, raw.parent, directory) if not folder.exists()]
    try:
        return FashionMNIST(directory, train=train, download=True)
    except (OSError, EOFError, RuntimeError, ValueError, AssertionError) as error:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise InputError(
            f"fashion-mnist can be neither read from {raw} nor downloaded to it "
            f"({_first_line(error)}); put its four idx files there, or give another data directory"
        ) from error


def _grey_data(
    train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], resolution: int, *, may_flip: bool
) -> ImageData:
    """Makes grey pictures (N, h, w) with their labels the data of a resolution."""
    _check_memory(len(train[0]) + len(held_out[0]), 1, resolution)
    images = _resize_grey(train[0][:, None], resolution)
    counts = torch.bincount(images.flatten(), minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64)
    mean = (counts * levels).sum() / counts.sum()
    std = ((counts * (levels - mean) ** 2).sum() / counts.sum()).sqrt()
    return ImageData(
        train_images=images,
        train_labels=train[1],
        eval_images=_resize_grey(held_out[0][:, None], resolution),
        eval_labels=held_out[1],
        mean=mean.float()[None],
        std=std.float()[None],
        may_flip=may_flip,
    )


def _resize_grey(images: Tensor, resolution: int) -> Tensor:
    if images.shape[-1] == 28 and resolution == 32:
        return F.pad(images, [2, 2, 2, 2])
    return resize(images, [resolution, resolution], antialias=True)


def _load_folder(name: str, directory: Path, resolution: int, train_images: int) -> ImageData:
    train, held_out = _open_folder(name, directory)
    labels = torch.tensor(train.targets)
    kept = choose_subset(labels, train_images)
    _check_memory(len(kept) + len(held_out.samples), 3, resolution)
    return ImageData(
        train_images=_decode([train.samples[index][0] for index in kept.tolist()], resolution, resolution),
        train_labels=labels[kept],
        eval_images=_decode([path for path, _ in held_out.samples], resolution, round(resolution / VAL_CROP)),
        eval_labels=torch.tensor(held_out.targets),
        mean=255 * torch.tensor(IMAGENET_MEAN),
        std=255 * torch.tensor(IMAGENET_STD),
        may_flip=True,
    )


def _open_folder(name: str, directory: Path) -> tuple[ImageFolder, ImageFolder]:
    """Returns the training and the validation split of an image folder, or raises InputError with what is wrong."""
    root = directory / name
    if not root.is_dir():
        raise refuse("data", name, f"{', '.join(BUILT_IN)}, or an image folder in {directory}, where this one is not")
    train, held_out = (_open_split(root / split) for split in ("train", "val"))
    if train.classes != held_out.classes:
        alone = sorted(set(train.classes) ^ set(held_out.classes))
        raise InputError(f"{root}: train and val must have the same classes; only one of them has {_listed(alone)}")
    return train, held_out


def _open_split(folder: Path) -> ImageFolder:
    if not folder.is_dir() or not any(entry.is_dir() for entry in folder.iterdir()):
        raise InputError(f"{folder} is missing or has no class folders; an image folder is train/CLASS/*, val/CLASS/*")
    split = ImageFolder(folder, allow_empty=True)
    empty = sorted(set(split.classes) - {split.classes[label] for label in split.targets})
    if empty:
        raise InputError(f"{folder} has no pictures ({', '.join(IMG_EXTENSIONS)}) of class {_listed(empty)}")
    return split


def _decode(paths: Sequence[str], resolution: int, short_side: int) -> Tensor:
    """Returns the pictures (N, 3, S, S): the short side resized to `short_side`, then the centre."""
    images = torch.empty(len(paths), 3, resolution, resolution, dtype=torch.uint8)

    def decode_one(index: int) -> None:
        try:
            with Image.open(paths[index]) as file:
                picture = pil_to_tensor(file.convert("RGB"))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{paths[index]} is not a picture that can be read: {_first_line(error)}") from error
        # Resizing bytes gives Pillow's numbers in half of Pillow's time.
        picture = resize(picture, [short_side], InterpolationMode.BICUBIC, antialias=True)
        images[index] = center_crop(picture, [resolution, resolution])

    # Decoding and resizing run without the interpreter's lock, so threads are enough.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(decode_one, range(len(paths))):
            pass
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


def _check_memory(pictures: int, channels: int, resolution: int) -> None:
    needed, limit = pictures * channels * resolution**2, physical_memory_bytes() // 2
    if needed > limit:
        raise InputError(
            f"{pictures} pictures at resolution={resolution} need {needed / 2**30:.1f} GiB, more than half of this "
            f"machine's memory ({limit / 2**30:.1f} GiB); data that does not fit in memory cannot be streamed yet"
        )


def physical_memory_bytes() -> int:
    """Returns the size of the machine's main memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
