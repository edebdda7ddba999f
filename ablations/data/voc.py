"""Pascal VOC's layout: `JPEGImages/*`, `Annotations/*.xml`, and the names of each split in `ImageSets/Main/*.txt`."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ablations.data.annotations import Faults, Objects, check_split, keep_sound_boxes, refuse_file

SPLITS = ("train", "val")

SUFFIXES = (".jpg", ".jpeg", ".png")


def read_voc(
    root: Path, split: str, classes: dict[int, str] | None, *, faults: Faults
) -> tuple[list[Objects], dict[int, str]]:
    """Returns the images of a split with their boxes, and the classes' names by number, in order of name.

    `classes` are those of the training split; the split's own where it is None. Objects that are marked difficult
    count as crowd: no detection is blamed for them. Faults of single objects are noted, and these left out. Raises
    InputError for a file that is no such file, and for a split without images.
    """
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        names = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise refuse_file(listing, "the name of an image a line") from error
    check_split(names, f"{split} of {root.name}", "images")
    trees = {name: _read_xml(root / "Annotations" / f"{name}.xml", faults) for name in names}
    if classes is None:
        every = {_text(each, "name") for tree in trees.values() if tree is not None for each in tree.iter("object")}
        classes = dict(enumerate(sorted(every)))
    places = {name: place for place, name in classes.items()}
    there = {entry.stem: entry for entry in sorted((root / "JPEGImages").glob("*")) if entry.suffix.lower() in SUFFIXES}
    found = []
    for number, (name, tree) in enumerate(trees.items()):
        if tree is None:
            continue
        if name not in there:
            faults.note("annotations of a missing image", f"{name}.xml")
            continue
        found.append(_objects(there[name], number, tree, places, name, faults))
    check_split(found, f"{split} of {root.name}", "images that are there")
    return found, classes


def _read_xml(path: Path, faults: Faults) -> ElementTree.Element | None:
    if not path.is_file():
        faults.note("images without annotations", path.name)
        return None
    try:
        tree = ElementTree.parse(path).getroot()
        int(_text(tree, "size/height"))
        int(_text(tree, "size/width"))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise refuse_file(path, "XML with a size and objects, as Pascal VOC has it") from error
    return tree


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _objects(
    image: Path, number: int, tree: ElementTree.Element, places: dict[str, int], name: str, faults: Faults
) -> Objects:
    size = int(_text(tree, "size/height")), int(_text(tree, "size/width"))
    boxes, labels, difficult, names = [], [], [], []
    for place, each in enumerate(tree.iter("object"), start=1):
        where = f"object {place} of {name}.xml"
        try:
            left, top, right, bottom = (float(_text(each, f"bndbox/{end}")) for end in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            faults.note("boxes that are not four numbers", where)
            continue
        label = places.get(_text(each, "name"))
        if label is None:
            faults.note("labels beyond the classes", where)
            continue
        boxes.append((left - 1, top - 1, right, bottom))  # pixels are counted from 1, and the last is inside
        labels.append(label)
        difficult.append(_text(each, "difficult") == "1")
        names.append(where)
    cut, sound = keep_sound_boxes(np.array(boxes, dtype=np.float64).reshape(-1, 4), size, names, faults)
    whole = Objects(
        path=str(image),
        id=number,
        size=size,
        boxes=cut.astype(np.float32),
        labels=np.array(labels, dtype=np.int64),
        crowd=np.array(difficult, dtype=bool),
        areas=(cut[:, 2:] - cut[:, :2]).prod(axis=1),
    )
    return whole.only(sound)
