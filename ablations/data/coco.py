"""COCO's layout: images in `{train,val}2017`, boxes and masks in `annotations/instances_{train,val}2017.json`."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Container
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
    own = {each["id"]: each["name"] for each in sorted(content["categories"], key=lambda each: each["id"])}
    known = own if classes is None else classes
    places = {number: place for place, number in enumerate(known)}
    images = {each["id"]: each for each in content["images"]}
    check_split(list(images), f"{split} of {root.name}", "images")
    there = {entry.name for entry in (root / split).iterdir()} if (root / split).is_dir() else set()
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for each in content["annotations"]:
        if fault := _fault_of_annotation(each, images, places):
            faults.note(fault, f"annotation {each.get('id')} of {split}")
        else:
            by_image[each["image_id"]].append(each)
    found = []
    for number, image in sorted(images.items()):
        if image["file_name"] not in there:
            faults.note("missing images", f"{split}/{image['file_name']}")
            continue
        path_of_image, size = root / split / image["file_name"], (image["height"], image["width"])
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
    for name, (is_one, words) in _ENTRIES.items():
        if not all(isinstance(each, dict) and is_one(each) for each in content[name]):
            raise refuse_file(path, f"in each of its {name} {words}")
    for name in ("images", "categories"):
        ids = [each["id"] for each in content[name]]
        if len(set(ids)) < len(ids):
            raise refuse_file(path, f"another id for each of its {name}")
    return content


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_image(each: dict[str, Any]) -> bool:
    is_whole = all(_is_whole(each.get(name)) for name in ("id", "width", "height"))
    return is_whole and isinstance(each.get("file_name"), str) and min(each["width"], each["height"]) > 0


def _is_category(each: dict[str, Any]) -> bool:
    return _is_whole(each.get("id")) and isinstance(each.get("name"), str)


_ENTRIES: dict[str, tuple[Callable[[dict[str, Any]], bool], str]] = {
    "images": (_is_image, "id, width and height as whole numbers, and file_name as text"),
    "categories": (_is_category, "id as a whole number and name as text"),
    "annotations": (lambda each: True, "fields by name"),
}
"""What a list of the file holds, in a test and in words. Single annotations may have faults."""


def _fault_of_annotation(each: dict[str, Any], images: Container[int], places: Container[int]) -> str:
    """Returns what is wrong with an annotation, its mask aside, in words; nothing where it is sound."""
    if not _is_whole(each.get("image_id")) or each["image_id"] not in images:
        return "annotations of a missing image"
    if not _is_whole(each.get("category_id")) or each["category_id"] not in places:
        return "labels beyond the classes"
    box = each.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return "boxes that are not four numbers"
    if each.get("iscrowd", 0) not in (0, 1):
        return "marks of crowds that are not 0 or 1"
    if each.get("area") is not None and not _is_number(each["area"]):
        return "areas that are no numbers"
    return ""


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
    said = np.array([each.get("area") for each in annotations], dtype=np.float64)  # nan where nothing is said
    whole = Objects(
        path=str(path),
        id=number,
        size=size,
        boxes=cut.astype(np.float32),
        labels=np.array([places[each["category_id"]] for each in annotations], dtype=np.int64),
        crowd=np.array([bool(each.get("iscrowd", 0)) for each in annotations], dtype=bool),
        areas=np.where(np.isnan(said), (cut[:, 2:] - cut[:, :2]).prod(axis=1), said),
        outlines=tuple(each.get("segmentation") for each in annotations) if masks else None,
    )
    return whole.only(sound)


def _fault_of_outline(outline: Outline, size: tuple[int, int]) -> str:
    """Returns what is wrong with an object's mask in words; nothing where it is sound."""
    if isinstance(outline, dict):
        return "" if _is_run_length_code(outline, size) else "masks of another size than their image"
    if not isinstance(outline, list) or not outline:
        return "objects without a mask"
    if any(not isinstance(polygon, list) or len(polygon) < LEAST_NUMBERS or len(polygon) % 2 for polygon in outline):
        return "polygons of fewer than three points"
    return "" if all(_is_number(each) for polygon in outline for each in polygon) else "polygons that are no numbers"


def _is_run_length_code(outline: dict[str, Any], size: tuple[int, int]) -> bool:
    """Whether a code covers each pixel of an image of (height, width) once; pycocotools does not ask that."""
    counts = outline.get("counts")
    if isinstance(counts, str):
        counts = _run_lengths(counts)
    if outline.get("size") != list(size) or not isinstance(counts, list):
        return False
    return all(_is_whole(count) and count >= 0 for count in counts) and sum(counts) == size[0] * size[1]


def _run_lengths(text: str) -> list[int] | None:
    """Returns the lengths that a compressed code stands for; None for a text that is no code.

    A character from "0" on holds five bits, the lowest first, and a sixth for "more follow"; the fifth bit of the last
    is the sign. From the fourth length on the code has differences from the length two before.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - ord("0")
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return None if shift else lengths


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
