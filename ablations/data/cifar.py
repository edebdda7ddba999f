"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in their binary version: plain records of labels and levels.

The version for Python, which torchvision reads, is a pickle, and a file from outside is never unpickled here.
"""

import shutil
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets.utils import download_url

from ablations.data.registry import DATA_SETS
from ablations.data.splits import LabelledImages
from ablations.errors import InputError, first_line

SIDE = 32
LEVELS = 3 * SIDE * SIDE  # bytes of an image


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """One of the two sets: where it comes from, and how its files are laid out."""

    archive: str
    """The file's name under the site; it unpacks to the set's folder."""
    md5: str
    """Of the archive, as the site has it."""
    train: tuple[str, ...]
    validation: tuple[str, ...]
    labels: int
    """Bytes before each image; the last is its label. CIFAR-100 has one of twenty coarse classes before it."""


SITE = "https://www.cs.toronto.edu/~kriz/"

CIFARS = {
    "cifar10": Cifar(
        archive="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        validation=("test_batch.bin",),
        labels=1,
    ),
    "cifar100": Cifar(
        archive="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        train=("train.bin",),
        validation=("test.bin",),
        labels=2,
    ),
}


def read_cifar(name: str, directory: Path) -> tuple[LabelledImages, LabelledImages]:
    """Returns the two splits that the set is published with; downloads it if it is missing.

    Raises InputError if it cannot, and for a file that holds no whole number of records.
    """
    fetch_cifar(name, directory)
    cifar, folder = CIFARS[name], directory / DATA_SETS[name].folder
    splits = []
    for files in (cifar.train, cifar.validation):
        records = torch.cat([_read_records(name, folder / file, cifar.labels + LEVELS) for file in files])
        images = records[:, cifar.labels :].reshape(-1, 3, SIDE, SIDE)
        splits.append((images, records[:, cifar.labels - 1].long()))
    return splits[0], splits[1]


def fetch_cifar(name: str, directory: Path) -> None:
    """Downloads and unpacks a set into `directory` if its files are not there; raises InputError if it cannot."""
    cifar = CIFARS[name]
    folder = directory / DATA_SETS[name].folder
    if all((folder / file).is_file() for file in (*cifar.train, *cifar.validation)):
        return
    was_there = directory.exists()
    try:
        if folder.exists():  # what is there in part is its owner's to see to
            raise FileNotFoundError("some of its files are missing there")
        download_url(SITE + cifar.archive, directory, md5=cifar.md5)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".") as place:  # so that it is there whole or not at all
            shutil.unpack_archive(directory / cifar.archive, place, filter="data")
            (Path(place) / folder.name).rename(folder)
    except (OSError, EOFError, HTTPException, RuntimeError, ValueError, tarfile.TarError) as error:
        if not was_there:
            with suppress(OSError):
                directory.rmdir()
        files = ", ".join((*cifar.train, *cifar.validation))
        raise InputError(
            f"{name} can be neither read from {folder} nor downloaded to it ({first_line(error)}); put its files "
            f"there ({files}), the binary version, or give another data directory"
        ) from error


def _read_records(name: str, file: Path, length: int) -> Tensor:
    try:
        size = file.stat().st_size
        if not size or size % length:
            raise ValueError(f"{size} bytes, where an image has {length}")
        return torch.from_file(str(file), size=size, dtype=torch.uint8).view(-1, length)
    except (OSError, RuntimeError, ValueError) as error:
        fault = first_line(error).replace(str(file), file.name)
        raise InputError(f"{name}: {file.parent.name}/{file.name} is not one of its files ({fault})") from error
