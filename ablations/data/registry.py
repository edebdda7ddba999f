"""The data sets that the suite knows by name. Needs no torch.

A new one is an entry of DATA_SETS and the function that reads it; the command line, `list` and the checks follow.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ablations.data.listing import class_folders
from ablations.errors import as_text, did_you_mean, refuse

SPLITS = ("train", "val")
"""The parts of an image folder: training and validation images, with a folder for each class."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set. Its reader is named by string, `module:function`, so nothing is imported."""

    description: str
    num_classes: int
    train_images: int
    """Training images."""
    reader: str = ""
    """A function of (name, data directory) that fetches what is missing and returns the training and the validation
    images, each as (bytes (N, C, h, w), labels (N,) of int64); it raises InputError for files that are not the set's.
    Empty for an image folder."""
    folder: str = ""
    """Where its files lie in the data directory; empty where its reader needs none."""
    may_flip: bool = True
    """Whether a mirrored image is still of its class."""

    @property
    def summary(self) -> str:
        """One line for `list`."""
        place = f"DIR/{self.folder}, else downloaded" if self.folder else "needs no files"
        place = place if self.reader else IMAGE_FOLDER_LAYOUT
        return f"{self.description}, {self.num_classes} classes; {place}"


IMAGE_FOLDER_LAYOUT = "DIR/NAME/train/CLASS/* and DIR/NAME/val/CLASS/*"

DATA_SETS: dict[str, DataSet] = {
    "digits": DataSet(
        description="1,797 hand-written digits of scikit-learn, 8 x 8 px",
        num_classes=10,
        train_images=1_437,
        reader="ablations.data.digits:read_digits",
        may_flip=False,
    ),
    "fashion-mnist": DataSet(
        description="70,000 images of clothes, 28 x 28 px",
        num_classes=10,
        train_images=60_000,
        reader="ablations.data.fashion_mnist:read_fashion_mnist",
        folder="FashionMNIST/raw",
    ),
    "cifar10": DataSet(
        description="60,000 images, 32 x 32 px",
        num_classes=10,
        train_images=50_000,
        reader="ablations.data.cifar:read_cifar",
        folder="cifar-10-batches-bin",
    ),
    "cifar100": DataSet(
        description="60,000 images, 32 x 32 px",
        num_classes=100,
        train_images=50_000,
        reader="ablations.data.cifar:read_cifar",
        folder="cifar-100-binary",
    ),
    "imagenet": DataSet(description="ImageNet-1k as an image folder", num_classes=1000, train_images=1_281_167),
}
"""Every data set by its name. Any other name is an image folder's."""


LARGEST_CLASSES = {"digits": (37, 360), "fashion-mnist": (1_000, 10_000), "imagenette224": (419, 3_925)}
"""Of data sets, the validation images of the largest class and all of them; a test counts them. A set with a reader
whose classes are of unequal size needs an entry."""


def largest_class_share(name: str, n_eval_images: int, num_classes: int) -> float:
    """Returns the share of validation images that always naming one class gets right at best.

    Of a data set that LARGEST_CLASSES does not know with this number of images, it takes the classes to be equally
    large.
    """
    largest, images = LARGEST_CLASSES.get(name, (0, 0))
    return largest / images if images == n_eval_images else 1 / num_classes


def is_built_in(name: str) -> bool:
    """Whether a data set has a reader of its own; else it is an image folder."""
    return name in DATA_SETS and bool(DATA_SETS[name].reader)


def built_in_names() -> str:
    """Returns the names of the data sets with a reader, for messages."""
    return ", ".join(filter(is_built_in, DATA_SETS))


def list_data_sets() -> dict[str, str]:
    """Returns a line for each data set by name, and one for image folders under `NAME`."""
    return {name: known.summary for name, known in DATA_SETS.items()} | {
        "NAME": f"any image folder: {IMAGE_FOLDER_LAYOUT}"
    }


def data_directory(given: Path | None) -> Path:
    """Returns the folder of the data sets: the one `given`, else ABLATIONS_DATA_DIR, else `data`."""
    return given or Path(os.environ.get("ABLATIONS_DATA_DIR") or "data").expanduser()


def count_classes(name: str, data_dir: Path | None) -> int:
    """Returns how many classes a data set has: the registry's number, or the class folders of an image folder.

    Raises InputError for an unknown name that is no image folder's.
    """
    if name in DATA_SETS:
        return DATA_SETS[name].num_classes
    classes = len(_class_folders(name, data_dir))
    if classes < 2:
        directory = data_directory(data_dir)
        place = directory / name / SPLITS[0]
        folders = [folder for folder in directory.glob("*/") if os.path.isdir(folder / SPLITS[0])]  # noqa: PTH112, raises nothing
        others = [*filter(is_built_in, DATA_SETS), *(folder.name for folder in folders)]
        hint = did_you_mean(name, [other for other in others if other != name])
        raise refuse(
            "data", name, f"{built_in_names()}, or an image folder: {place}/CLASS/* of 2 classes or more{hint}"
        )
    return classes


def list_classes(name: str, data_dir: Path | None) -> list[str]:
    """Returns the names of a data set's classes in the order of their labels: numbers for a built-in set."""
    if is_built_in(name):
        return [str(label) for label in range(DATA_SETS[name].num_classes)]
    return _class_folders(name, data_dir)


def _class_folders(name: str, data_dir: Path | None) -> list[str]:
    return [as_text(each) for each in class_folders(data_directory(data_dir) / name / SPLITS[0])]


def count_train_images(name: str) -> int:
    """Returns how many training images a data set has; of an image folder that the registry does not know, 10,000."""
    return DATA_SETS[name].train_images if name in DATA_SETS else 10_000
