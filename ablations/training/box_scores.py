"""AP of boxes and masks as COCO computes it, by pycocotools. Sizes and boxes are in pixels of the original images."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablations.data.annotations import Objects
from ablations.data.coco import encode_outline

SCORES = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5}
"""Where pycocotools has each score in its summary."""


@dataclass(frozen=True, kw_only=True)
class Detections:
    """What a detector found in one image."""

    image: int
    """Its id."""
    boxes: np.ndarray
    """(n, 4): left, top, right, bottom."""
    scores: np.ndarray
    """(n,)."""
    labels: np.ndarray
    """(n,): classes from 0."""
    masks: tuple[dict[str, Any], ...] | None = None
    """Run-length codes, as pycocotools has them."""


def score_boxes(images: Sequence[Objects], found: Sequence[Detections], classes: Sequence[str]) -> dict[str, Any]:
    """Returns `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large` as fractions, and `ap_by_class` by name.

    With masks also `mask_ap`. A score is None where no object counts for it.
    """
    truth = {
        "info": {},
        "images": [{"id": image.id, "height": image.size[0], "width": image.size[1]} for image in images],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
        "annotations": [
            {
                "id": number,
                "image_id": image.id,
                "category_id": int(image.labels[place]),
                "bbox": as_corner_and_size(image.boxes[place]),
                "area": float(image.areas[place]),
                "iscrowd": int(image.crowd[place]),
                **_code_of(image, place),
            }
            for number, (image, place) in enumerate(
                ((image, place) for image in images for place in range(len(image.labels))), start=1
            )
        ],
    }
    results = [
        {
            "image_id": each.image,
            "category_id": int(each.labels[place]),
            "bbox": as_corner_and_size(each.boxes[place]),
            "score": float(each.scores[place]),
            **({} if each.masks is None else {"segmentation": each.masks[place]}),
        }
        for each in found
        for place in range(len(each.scores))
    ]
    scores = _score(truth, results, "bbox", classes)
    if any(image.outlines is not None for image in images):
        scores["mask_ap"] = _score(truth, results, "segm", classes)["ap"]
    return scores


def _code_of(image: Objects, place: int) -> dict[str, Any]:
    """Returns the mask of an object as COCO has it, where masks are read."""
    return {} if image.outlines is None else {"segmentation": encode_outline(image.outlines[place], image.size)}


def as_corner_and_size(box: np.ndarray) -> list[float]:
    """Returns a box as COCO has it: left, top, width, height."""
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]


def _score(truth: dict[str, Any], results: list[dict[str, Any]], kind: str, classes: Sequence[str]) -> dict[str, Any]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        expected, found = COCO(), COCO()
        expected.dataset = truth
        expected.createIndex()
        if results:
            found = expected.loadRes([dict(each) for each in results])
        else:  # which it takes for an error
            found.dataset = truth | {"annotations": []}
            found.createIndex()
        evaluation = COCOeval(expected, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores: dict[str, Any] = {name: _known(evaluation.stats[place]) for name, place in SCORES.items()}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # all sizes, 100 detections an image
    scores["ap_by_class"] = {
        name: _known(own[own > -1].mean() if (own := precision[:, :, label]).max(initial=-1) > -1 else -1)
        for label, name in enumerate(classes)
    }
    return scores


def _known(value: float) -> float | None:
    """Returns a score; None for -1, by which pycocotools says that there was no object."""
    return None if value < 0 else float(value)


def constant_detections(train: Sequence[Objects], images: Sequence[Objects], most: int = 100) -> list[Detections]:
    """Returns what a detector finds that does not look: the same boxes in every image of a size.

    Each class has a share of the `most` boxes as in training; its boxes have their median size there, over the image's,
    and lie on a grid. What is no better has learned nothing of the images.
    """
    labels = np.concatenate([image.labels[~image.crowd] for image in train])
    sizes = np.concatenate(
        [(image.boxes[:, 2:] - image.boxes[:, :2])[~image.crowd] / np.array(image.size[::-1]) for image in train]
    )
    shares = np.bincount(labels) / len(labels)
    boxes: list[np.ndarray] = []
    scores, owners = [], []
    for label, share in enumerate(shares):
        count = round(most * share)
        if not count:
            continue
        size = np.median(sizes[labels == label], axis=0)
        side = int(np.ceil(np.sqrt(count)))
        rows, columns = np.divmod(np.arange(count), side)
        corners = (np.stack([columns, rows], axis=1) + 0.5) / side - size / 2
        boxes.append(np.hstack([corners, corners + size]))
        scores += [share] * count
        owners += [label] * count
    at = np.concatenate([np.empty((0, 4)), *boxes]).clip(0, 1)
    return [
        Detections(
            image=image.id,
            boxes=at * np.array([image.size[1], image.size[0]] * 2),
            scores=np.array(scores),
            labels=np.array(owners),
        )
        for image in images
    ]
