"""The data sets of detection and segmentation that the suite knows by name, and their layouts. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ablations.data.registry import data_directory
from ablations.errors import refuse

Layout = Literal["coco", "voc", "ade20k"]

LAYOUTS: dict[Layout, str] = {
    "coco": "COCO's: {train,val}2017/*, annotations/instances_{train,val}2017.json",
    "voc": "Pascal VOC's: JPEGImages/*, Annotations/*.xml, ImageSets/Main/{train,val}.txt",
    "ade20k": "ADE20K's: images/{training,validation}/*, annotations/{training,validation}/*.png",
}
"""Each layout in words, below DIR/NAME."""

MARKS: dict[Layout, str] = {
    "coco": "annotations/instances_train2017.json",
    "voc": "ImageSets/Main/train.txt",
    "ade20k": "annotations/training",
}
"""What a folder of each layout has, and none of the others."""

DETECTION_LAYOUTS: tuple[Layout, ...] = ("coco", "voc")

MOST_CLASSES = 255
"""Of segmentation: one value of a byte says that a pixel has no label."""


@dataclass(frozen=True, kw_only=True)
class DenseSet:
    """One data set with boxes, masks of objects, or a class for each pixel."""

    description: str
    layout: Layout
    num_classes: int
    train_images: int
    """Training images."""
    folder: str
    """In the data directory."""
    first_label: int = 0
    """In masks of pixels: the value of the first class."""
    void_label: int = 255
    """In masks of pixels: the value that says nothing, beside those below the first class."""

    @property
    def summary(self) -> str:
        """One line for `list`."""
        return f"{self.description}, {self.num_classes} classes; DIR/{self.folder}"


DENSE_SETS: dict[str, DenseSet] = {
    "coco": DenseSet(
        description="COCO 2017: boxes and masks of objects",
        layout="coco",
        num_classes=80,
        train_images=118_287,
        folder="coco",
    ),
    "voc2012": DenseSet(
        description="Pascal VOC 2012: boxes",
        layout="voc",
        num_classes=20,
        train_images=5_717,
        folder="VOCdevkit/VOC2012",
    ),
    "bccd": DenseSet(
        description="BCCD: boxes of blood cells",
        layout="coco",
        num_classes=3,
        train_images=205,
        folder="bccd",
    ),
    "ade20k": DenseSet(
        description="ADE20K: a class for each pixel",
        layout="ade20k",
        num_classes=150,
        train_images=20_210,
        folder="ADEChallengeData2016",
        first_label=1,
        void_label=0,
    ),
    "camvid": DenseSet(
        description="CamVid: street scenes, a class for each pixel",
        layout="ade20k",
        num_classes=11,
        train_images=367,
        folder="camvid",
        void_label=11,
    ),
}
"""Every such data set by its name. Any other name is a folder's in one of LAYOUTS."""


def list_dense_sets() -> dict[str, str]:
    """Returns a line for each data set by name, and one for each layout of a user's own."""
    own = {f"NAME ({name})": f"any folder in the layout {text}" for name, text in LAYOUTS.items()}
    return {name: known.summary for name, known in DENSE_SETS.items()} | own


def find_layout(name: str, data_dir: Path | None, allowed: tuple[Layout, ...]) -> tuple[Path, Layout]:
    """Returns a data set's folder and its layout; raises InputError where it is not there in one that is allowed."""
    folder = data_directory(data_dir) / (DENSE_SETS[name].folder if name in DENSE_SETS else name)
    for layout in allowed:
        if (folder / MARKS[layout]).exists():
            return folder, layout
    known = [each for each, entry in DENSE_SETS.items() if entry.layout in allowed]
    layouts = " or ".join(LAYOUTS[layout] for layout in allowed)
    raise refuse("data", name, f"{', '.join(known)}, or a folder; {folder} is not there in the layout {layouts}")
