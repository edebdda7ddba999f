"""AP of boxes and masks: that of the community's code, and of cases that can be worked out."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.data.annotations import Objects
from ablations.data.coco import encode_outline
from ablations.training.box_scores import Detections, as_corner_and_size, constant_detections, score_boxes

CLASSES = ("one", "two", "three")
SIZE = (300, 400)


def outline(box: np.ndarray) -> list[list[float]]:
    left, top, right, bottom = map(float, box)
    return [[left, top, right, top, right, bottom, left, bottom]]


def made_up(count: int = 12, *, masks: bool = True) -> tuple[list[Objects], list[Detections]]:
    """Images with objects of all sizes, some of them crowds, and detections: near, elsewhere, twice, and of other
    classes."""
    chance = np.random.default_rng(7)
    images, found = [], []
    for number in range(count):
        objects = int(chance.integers(0, 9))
        corner = chance.uniform(0, 200, (objects, 2))
        side = chance.choice([12, 60, 150], (objects, 1)) * chance.uniform(0.7, 1.2, (objects, 2))
        boxes = np.concatenate([corner, np.minimum(corner + side, [SIZE[1], SIZE[0]])], axis=1).astype(np.float32)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        image = Objects(
            path="",
            id=10 + number,
            size=SIZE,
            boxes=boxes,
            labels=chance.integers(0, 3, objects),
            crowd=chance.random(objects) < 0.15,
            areas=areas.astype(np.float64),
            outlines=tuple(map(outline, boxes)) if masks else None,
        )
        images.append(image)
        near = boxes + chance.normal(0, 4, boxes.shape)
        far = np.sort(chance.uniform(0, 300, (4, 2, 2)), axis=1).reshape(4, 4)
        guesses = np.concatenate([near, near + 3, far]).clip(0, 300)
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        labels = np.concatenate([image.labels, image.labels, chance.integers(0, 3, 4)])
        wrong = chance.random(len(labels)) < 0.2
        labels = np.where(wrong, (labels + 1) % 3, labels)
        codes = tuple(encode_outline(outline(box), SIZE) for box in guesses) if masks else None
        found.append(
            Detections(image=image.id, boxes=guesses, scores=chance.random(len(labels)), labels=labels, masks=codes)
        )
    return images, found


def by_faster_coco_eval(images: list[Objects], found: list[Detections], kind: str) -> np.ndarray:
    """The twelve numbers of another implementation of the community's, from a description written here."""
    from faster_coco_eval import COCO, COCOeval_faster

    annotations = [
        {
            "id": 100 * image.id + place,
            "image_id": image.id,
            "category_id": int(image.labels[place]),
            "bbox": as_corner_and_size(image.boxes[place]),
            "area": float(image.areas[place]),
            "iscrowd": int(image.crowd[place]),
            "segmentation": encode_outline(outline(image.boxes[place]), SIZE),
        }
        for image in images
        for place in range(len(image.labels))
    ]
    results = [
        {
            "image_id": each.image,
            "category_id": int(each.labels[place]),
            "bbox": as_corner_and_size(each.boxes[place]),
            "score": float(each.scores[place]),
            **({"segmentation": each.masks[place]} if kind == "segm" and each.masks else {}),
        }
        for each in found
        for place in range(len(each.scores))
    ]
    truth = {
        "images": [{"id": image.id, "height": SIZE[0], "width": SIZE[1]} for image in images],
        "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO(truth)
        evaluation = COCOeval_faster(expected, expected.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats)


def test_scores_of_boxes_and_masks_equal_another_implementation_s_to_twelve_digits():
    images, found = made_up()
    scores = score_boxes(images, found, CLASSES)
    boxes = by_faster_coco_eval(images, found, "bbox")
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    assert [scores[name] for name in names] == pytest.approx(boxes[:6].tolist(), rel=1e-12, abs=1e-12)
    assert 0.05 < scores["ap"] < scores["ap50"] < 0.95, "neither all nor nothing"
    masks = by_faster_coco_eval(images, found, "segm")
    assert scores["mask_ap"] == pytest.approx(masks[0], rel=1e-12)
    assert np.mean(list(scores["ap_by_class"].values())) == pytest.approx(scores["ap"], rel=1e-9)


def test_the_truth_scores_1_and_nothing_scores_0_and_a_size_that_is_not_there_has_no_score():
    images, _ = made_up(masks=False)
    images = [image.only(image.areas > 32**2) for image in images]
    truth = [
        Detections(image=image.id, boxes=image.boxes, scores=np.ones(len(image.labels)), labels=image.labels)
        for image in images
    ]
    scores = score_boxes(images, truth, CLASSES)
    assert scores["ap"] == pytest.approx(1.0)
    assert scores["ap_small"] is None
    assert "mask_ap" not in scores
    nothing = score_boxes(images, [], CLASSES)
    assert (nothing["ap"], nothing["ap_small"]) == (0.0, None)
    fewer = score_boxes([image.only(image.labels != 2) for image in images], truth, CLASSES)
    assert fewer["ap_by_class"]["three"] is None


def test_a_constant_detector_finds_the_same_in_every_image():
    images, _ = made_up(masks=False)
    guesses = constant_detections(images, images)
    assert len(guesses) == len(images)
    assert all(np.array_equal(one.boxes, guesses[0].boxes) for one in guesses)
    labels = np.concatenate([image.labels[~image.crowd] for image in images])
    commonest = np.bincount(labels).argmax()
    assert np.bincount(guesses[0].labels).argmax() == commonest
    assert guesses[0].boxes.min() >= 0
    assert (guesses[0].boxes.max(axis=0) <= [SIZE[1], SIZE[0]] * 2).all()


def test_images_without_outlines_are_scored_by_boxes_alone(tmp_path: Path):
    images, found = made_up()
    plain: list[Any] = [replace(image, outlines=None) for image in images]
    both, boxes = (
        score_boxes(images, found, CLASSES),
        score_boxes(plain, [replace(each, masks=None) for each in found], CLASSES),
    )
    both.pop("mask_ap")
    assert both == boxes
