"""Data sets that have a loader of their own: digits, Fashion-MNIST and CIFAR, as small images with labels.

Letters: N images, C channels (1 of grey images, else 3), h and w their own height and width in pixels.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST

from ablations.errors import InputError, first_line
from ablations.recipes import BUILT_IN
from ablations.training.cifar import CIFARS, fetch_cifar, read_cifar
from ablations.training.folders import listed

Images = tuple[Tensor, Tensor]
"""Bytes (N, C, h, w), and labels (N,) of int64."""

FASHION_MNIST = "FashionMNIST/raw"
"""Where torchvision keeps Fashion-MNIST in the data directory."""

# Splits and subsets are the same for every training seed: a spread over seeds is not one over images.
SPLIT_SEED = 0


@dataclass(frozen=True, kw_only=True)
class SmallImages:
    """The two splits of a built-in data set, in their own size."""

    train: Images
    validation: Images
    may_flip: bool
    """Whether a mirrored image is still of its class."""


def check_built_in(name: str, directory: Path) -> None:
    """Raises InputError for a set that cannot be read; Fashion-MNIST and CIFAR are downloaded if they are missing.

    All of it is read, in a fifth of a second, so that no training is the first to meet a damaged file.
    """
    if name in CIFARS:
        fetch_cifar(name, directory)
    if name != "digits":
        read_built_in(name, directory)


def read_built_in(name: str, directory: Path) -> SmallImages:
    """Returns the images of a built-in data set; CIFAR's files must be there.

    Of digits 20 % are held out, the split stratified and always the same; the others have splits of their own. Raises
    InputError for files that are not the set's, and unless every label is a class's and each class has an image.
    """
    if name == "digits":
        return _read_digits()
    if name == "fashion-mnist":
        opened = [_open_fashion_mnist(directory, train=train) for train in (True, False)]
        splits = [(split.data[:, None], split.targets) for split in opened]
        place = FASHION_MNIST
    else:
        splits = [read_cifar(name, directory, train=train) for train in (True, False)]
        place = CIFARS[name].folder
    for images, labels in splits:
        _check_labels(name, place, images, labels)
    return SmallImages(train=splits[0], validation=splits[1], may_flip=True)


def _read_digits() -> SmallImages:
    # Deferred: scikit-learn takes a second to import and no other data set needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy(digits.images[:, None] * (255 / 16)).round().to(torch.uint8)  # its levels are 0 to 16
    labels = torch.from_numpy(digits.target).long()
    train, validation = train_test_split(
        torch.arange(len(labels)), test_size=0.2, stratify=labels, random_state=SPLIT_SEED
    )
    return SmallImages(
        train=(images[train], labels[train]), validation=(images[validation], labels[validation]), may_flip=False
    )


def _open_fashion_mnist(directory: Path, *, train: bool) -> FashionMNIST:
    raw = directory / FASHION_MNIST
    made = [folder for folder in (raw, raw.parent, directory) if not folder.exists()]
    try:
        return FashionMNIST(directory, train=train, download=True)
    except (OSError, EOFError, RuntimeError, ValueError, AssertionError) as error:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise InputError(
            f"fashion-mnist can be neither read from {raw} nor downloaded to it "
            f"({first_line(error)}); put its four idx files there, or give another data directory"
        ) from error


def _check_labels(name: str, place: str, images: Tensor, labels: Tensor) -> None:
    """Raises InputError unless each image has a label, each label is a class's and each class has an image."""
    which = f"{name} in {place} of the data directory"
    if len(images) != len(labels):
        raise InputError(f"{which} has {len(images)} images and {len(labels)} labels in one split")
    present, classes = set(labels.unique().tolist()), set(range(BUILT_IN[name]))
    if unknown := sorted(present - classes):
        raise InputError(f"{which} has a label {unknown[0]}; allowed: 0 to {len(classes) - 1}")
    if missing := sorted(classes - present):
        raise InputError(f"{which} has no images of class {listed([str(label) for label in missing])}")
