"""Made-up images with coloured rectangles, in the layouts of COCO, Pascal VOC and ADE20K."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220)}
"""The classes, in order of label."""


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, which is not the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ABLATIONS_CACHE_DIR", str(folder))
    return folder


def draw_scene(seed: int, height: int, width: int) -> tuple[np.ndarray, list[tuple[int, tuple[int, int, int, int]]]]:
    """Returns an image (height, width, 3) of bytes and its rectangles: class from 0 and left, top, right, bottom.

    Each class has one, in columns of their own, so that none covers another.
    """
    chance = np.random.default_rng(seed)
    image = chance.integers(90, 130, (height, width, 3)).astype(np.uint8)
    rectangles = []
    column = width // len(COLOURS)
    for label, colour in enumerate(COLOURS.values()):
        wide, high = chance.integers(column // 2, column - 1), chance.integers(height // 3, height * 2 // 3)
        left, top = label * column + chance.integers(0, column - wide), chance.integers(0, height - high)
        image[top : top + high, left : left + wide] = colour
        rectangles.append((label, (int(left), int(top), int(left + wide), int(top + high))))
    return image, rectangles


def size_of(number: int) -> tuple[int, int]:
    """Returns the height and the width of an image; not all have one size."""
    return (64, 96) if number % 3 else (72, 84)


@pytest.fixture
def make_coco(tmp_path: Path) -> Callable[..., Path]:
    """Returns `make_coco(train=4, val=2, name="made-up")`, which writes a data set and returns its folder."""

    def make(train: int = 4, val: int = 2, name: str = "made-up") -> Path:
        root = tmp_path / name
        (root / "annotations").mkdir(parents=True)
        for split, first, count in (("train2017", 0, train), ("val2017", 100, val)):
            (root / split).mkdir()
            images, annotations = [], []
            for number in range(first, first + count):
                height, width = size_of(number)
                image, rectangles = draw_scene(number, height, width)
                file = f"{number:06}.png"
                Image.fromarray(image).save(root / split / file)
                images.append({"id": number, "file_name": file, "height": height, "width": width})
                for label, (left, top, right, bottom) in rectangles:
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": number,
                            "category_id": 10 * label + 3,  # numbers with gaps, as COCO has them
                            "bbox": [left, top, right - left, bottom - top],
                            "area": (right - left) * (bottom - top),
                            "iscrowd": 0,
                            "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
                        }
                    )
            categories = [{"id": 10 * label + 3, "name": name} for label, name in enumerate(COLOURS)]
            content = {"images": images, "annotations": annotations, "categories": categories}
            (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        return root

    return make


@pytest.fixture
def change_coco() -> Callable[..., None]:
    """Returns `change_coco(root, change, split="train2017")`, which has `change` alter the content of the JSON file."""

    def change_file(root: Path, change: Callable[[dict[str, Any]], object], split: str = "train2017") -> None:
        path = root / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return change_file


@pytest.fixture
def make_ade20k(tmp_path: Path) -> Callable[..., Path]:
    """Returns `make_ade20k(train=4, val=2, name="scenes", palette=False)`, which writes a data set.

    Masks have 0 where there is no rectangle, which says nothing, and the classes from 1.
    """

    def make(train: int = 4, val: int = 2, name: str = "scenes", *, palette: bool = False) -> Path:
        root = tmp_path / name
        for split, first, count in (("training", 0, train), ("validation", 100, val)):
            for kind in ("images", "annotations"):
                (root / kind / split).mkdir(parents=True)
            for number in range(first, first + count):
                image, rectangles = draw_scene(number, *size_of(number))
                mask = np.zeros(image.shape[:2], dtype=np.uint8)
                for label, (left, top, right, bottom) in rectangles:
                    mask[top:bottom, left:right] = label + 1
                Image.fromarray(image).save(root / "images" / split / f"{number:06}.png")
                written = Image.fromarray(mask)
                if palette:
                    written.putpalette(  # which makes it one of mode P
                        [7, 7, 7, *(level for colour in COLOURS.values() for level in colour)]
                    )
                written.save(root / "annotations" / split / f"{number:06}.png")
        return root

    return make


@pytest.fixture
def make_voc(tmp_path: Path) -> Callable[..., Path]:
    """Returns `make_voc(train=3, val=2, name="voc")`, which writes a data set."""

    def make(train: int = 3, val: int = 2, name: str = "voc") -> Path:
        root = tmp_path / name
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        for split, first, count in (("train", 0, train), ("val", 100, val)):
            names = []
            for number in range(first, first + count):
                height, width = size_of(number)
                image, rectangles = draw_scene(number, height, width)
                names.append(f"{number:06}")
                Image.fromarray(image).save(root / "JPEGImages" / f"{names[-1]}.jpg", quality=95)
                colours = list(COLOURS)
                objects = "".join(
                    f"<object><name>{colours[label]}</name><difficult>{int(label == 2 and number == 0)}</difficult>"
                    "<bndbox>"
                    f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
                    "</bndbox></object>"
                    for label, (left, top, right, bottom) in rectangles
                )
                size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
                text = f"<annotation><filename>{names[-1]}.jpg</filename>{size}{objects}</annotation>"
                (root / "Annotations" / f"{names[-1]}.xml").write_text(text)
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        return root

    return make
