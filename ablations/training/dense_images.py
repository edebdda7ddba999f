"""Images of what a network found, beside the ground truth, for a user's own report: they hold a data set's images."""

from collections.abc import Callable
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from ablations.data.ade20k import VOID
from ablations.data.coco import decode_outline
from ablations.data.dense_views import read_pixels
from ablations.files import written_whole
from ablations.training.detection import Detection
from ablations.training.distributed import ALONE
from ablations.training.segmentation import Segmentation
from ablations.training.tasks import Task

MOST_EXAMPLES = 4
"""Validation images that are drawn, the first ones."""

SHOWN_SCORE = 0.3
"""Score from which on a detection is drawn."""

GAP = 8
"""Pixels between the truth, on the left, and what was found."""


def save_examples(model: nn.Module, task: Task, path: Path) -> None:
    """Writes a PNG with a row for each of the first validation images: the ground truth on the left."""
    rows = _DRAWN[type(task)](model, task)
    width = max(row.shape[2] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, GAP), (0, width - row.shape[2])), constant_values=255) for row in rows]
    with written_whole(path) as file:
        Image.fromarray(np.concatenate(padded, axis=1).transpose(1, 2, 0)).save(file, format="png")


def _beside(truth: Tensor, found: Tensor) -> np.ndarray:
    gap = torch.full((3, truth.shape[1], GAP), 255, dtype=torch.uint8)
    return torch.cat([truth, gap, found], dim=2).numpy()


def _colours(labels: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns a colour for each class, the same one every time."""
    chosen = np.random.default_rng(0).integers(40, 256, (VOID + 1, 3))
    return [(int(red), int(green), int(blue)) for red, green, blue in chosen[labels]]


def _draw_objects(model: nn.Module, task: Any) -> list[np.ndarray]:
    images = task.data.validation[:MOST_EXAMPLES]
    found = task.detect(model, replace(task.data, validation=images))
    rows = []
    for item, each in zip(images, found, strict=True):
        image = read_pixels(item.path)
        truth = _with_objects(image, item.boxes, item.labels, task.data.classes, item.outlines, item.size)
        kept = each.scores >= SHOWN_SCORE
        masks = None if each.masks is None else list(compress(each.masks, kept))
        drawn = _with_objects(image, each.boxes[kept], each.labels[kept], task.data.classes, masks, item.size)
        rows.append(_beside(truth, drawn))
    return rows


def _with_objects(
    image: Tensor, boxes: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], outlines: Any, size: tuple[int, int]
) -> Tensor:
    if not len(boxes):
        return image
    colours: Any = _colours(labels)
    if outlines is not None:
        masks = np.stack([decode_outline(outline, size) for outline in outlines]).astype(bool)
        image = draw_segmentation_masks(image, torch.from_numpy(masks), alpha=0.5, colors=colours)
    names = [classes[label] for label in labels]
    return draw_bounding_boxes(image, torch.from_numpy(np.asarray(boxes)), names, colors=colours, width=2)


def _draw_segments(model: nn.Module, task: Any) -> list[np.ndarray]:
    images = task.data.validation[:MOST_EXAMPLES]
    model.eval()
    rows = []
    views = task.shown(replace(task.data, validation=images), 1, ranks=ALONE, workers=0)
    for item, (shown, masks) in zip(images, views, strict=True):
        with torch.inference_mode():
            found = task.predict(model, shown, masks[0].shape)[0].cpu()
        image = read_pixels(item.path)
        rows.append(_beside(_with_classes(image, masks[0].cpu()), _with_classes(image, found)))
    return rows


def _with_classes(image: Tensor, classes: Tensor) -> Tensor:
    labels = np.array([label for label in classes.unique().tolist() if label != VOID], dtype=int)
    if not len(labels):
        return image
    masks = torch.stack([classes == label for label in labels])
    colours: Any = _colours(labels)
    return draw_segmentation_masks(image, masks, alpha=0.7, colors=colours)


_DRAWN: dict[type[Task], Callable[[nn.Module, Any], list[np.ndarray]]] = {
    Detection: _draw_objects,
    Segmentation: _draw_segments,
}
