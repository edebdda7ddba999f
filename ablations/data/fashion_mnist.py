"""Fashion-MNIST (Xiao et al., 2017), as torchvision downloads and reads it."""

from contextlib import suppress
from pathlib import Path

from torchvision.datasets import FashionMNIST

from ablations.data.registry import DATA_SETS
from ablations.data.splits import LabelledImages
from ablations.errors import InputError, first_line


def read_fashion_mnist(name: str, directory: Path) -> tuple[LabelledImages, LabelledImages]:
    """Returns the two splits that it is published with; downloads it if it is missing.

    Raises InputError for files that cannot be read or downloaded.
    """
    raw = directory / DATA_SETS[name].folder
    missing = [folder for folder in (raw, raw.parent, directory) if not folder.exists()]
    try:
        train, validation = (FashionMNIST(directory, train=train, download=True) for train in (True, False))
    except (OSError, EOFError, RuntimeError, ValueError, AssertionError) as error:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise InputError(
            f"{name} can be neither read from {raw} nor downloaded to it "
            f"({first_line(error)}); put its four idx files there, or give another data directory"
        ) from error
    return (train.data[:, None], train.targets), (validation.data[:, None], validation.targets)
