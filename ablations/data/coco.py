"""COCO's layout: images in `{train,val}2017`, boxes and masks in `annotations/instances_{train,val}2017.json`."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ablations.data.annotations import Faults, Objects, Outline, check_split, keep_sound_boxes, refuse_file

SPLITS = ("train2017", "val2017")

LEAST_NUMBERS = 6
"""In a polygon: three points."""


def read_coco(
    root: Path, split: str, classes: dict[int, str] | None, *, masks: bool, faults: Faults
) -> tuple[list[Objects], dict[int, str]]:
    """Returns the images of a split with their objects, and the classes' names by their number there, in order.

    `classes` are those of the training split, which decide labels; the split's own where it is None. With `masks`
    objects have outlines. Faults of single annotations are noted, and these left out. Raises InputError for a file that
    is no such file, or has no images.
    """
    path = root / "annotations" / f"instances_{split}.json"
    content = _read_json(path)
    own = {int(each["id"]): str(each["name"]) for each in sorted(content["categories"], key=lambda each: each["id"])}
    known = own if classes is None else classes
    places = {number: place for place, number in enumerate(known)}
    images = {int(each["id"]): each for each in content["images"]}
    check_split(list(images), f"{split} of {root.name}", "images")
    there = {entry.name for entry in (root / split).iterdir()} if (root / split).is_dir() else set()
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for each in content["annotations"]:
        name = f"annotation {each.get('id')} of {split}"
        if each.get("image_id") not in images:
            faults.note("annotations of a missing image", name)
        elif each.get("category_id") not in places:
            faults.note("labels beyond the classes", name)
        elif not _is_box(each.get("bbox")):
            faults.note("boxes that are not four numbers", name)
        else:
            by_image[int(each["image_id"])].append(each)
    found = []
    for number, image in sorted(images.items()):
        if image["file_name"] not in there:
            faults.note("missing images", f"{split}/{image['file_name']}")
            continue
        path_of_image, size = root / split / image["file_name"], (int(image["height"]), int(image["width"]))
        found.append(_objects(path_of_image, number, size, by_image[number], places, split, masks=masks, faults=faults))
    check_split(found, f"{split} of {root.name}", "images that are there")
    return found, known


def _read_json(path: Path) -> dict[str, Any]:
    allowed = "JSON with images, annotations and categories, as COCO has it"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise refuse_file(path, allowed) from error
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise refuse_file(path, allowed)
    needed = {"images": ("id", "file_name", "width", "height"), "categories": ("id", "name")}
    for name, keys in needed.items():
        for each in content[name]:
            if not isinstance(each, dict) or not all(key in each for key in keys):
                raise refuse_file(path, f"{', '.join(keys)} in each of its {name}")
    if not all(isinstance(each, dict) for each in content["annotations"]):
        raise refuse_file(path, allowed)
    return content


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(each, int | float) for each in box)


def _objects(
    path: Path,
    number: int,
    size: tuple[int, int],
    annotations: list[dict[str, Any]],
    places: dict[int, int],
    split: str,
    *,
    masks: bool,
    faults: Faults,
) -> Objects:
    names = [f"annotation {each.get('id')} of {split}" for each in annotations]
    boxes = np.array([each["bbox"] for each in annotations], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    cut, sound = keep_sound_boxes(boxes, size, names, faults)
    for place, each in enumerate(annotations) if masks else ():
        fault = _fault_of_outline(each.get("segmentation"), size)
        if sound[place] and fault:
            faults.note(fault, names[place])
            sound[place] = False
    width_height = cut[:, 2:] - cut[:, :2]
    areas = [
        float(each.get("area", width * height)) for each, (width, height) in zip(annotations, width_height, strict=True)
    ]
    whole = Objects(
        path=str(path),
        id=number,
        size=size,
        boxes=cut.astype(np.float32),
        labels=np.array([places[each["category_id"]] for each in annotations], dtype=np.int64),
        crowd=np.array([bool(each.get("iscrowd", 0)) for each in annotations], dtype=bool),
        areas=np.array(areas, dtype=np.float64),
        outlines=tuple(each.get("segmentation") for each in annotations) if masks else None,
    )
    return whole.only(sound)


def _fault_of_outline(outline: Outline, size: tuple[int, int]) -> str:
    """Returns what is wrong with an object's mask in words; nothing where it is sound."""
    if isinstance(outline, dict):
        if "counts" not in outline or list(outline.get("size", ())) != list(size):
            return "masks of another size than their image"
        return ""
    if not isinstance(outline, list) or not outline:
        return "objects without a mask"
    if any(not isinstance(polygon, list) or len(polygon) < LEAST_NUMBERS or len(polygon) % 2 for polygon in outline):
        return "polygons of fewer than three points"
    return ""


def decode_outline(outline: Outline, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask (height, width) of an outline, as bytes of 0 and 1."""
    from pycocotools import mask as coco_mask

    return coco_mask.decode(encode_outline(outline, size))


def encode_outline(outline: Outline, size: tuple[int, int]) -> dict[str, Any]:
    """Returns the run-length code of an outline of an image of (height, width), as pycocotools takes it."""
    from pycocotools import mask as coco_mask

    if isinstance(outline, dict) and isinstance(outline["counts"], list):
        return coco_mask.frPyObjects(outline, *size)
    if isinstance(outline, dict):
        return outline
    return coco_mask.merge(coco_mask.frPyObjects(outline, *size))
