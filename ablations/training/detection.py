"""The task of detecting objects: boxes, and masks where the head has them."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ablations.data.annotations import DenseData, Objects
from ablations.data.dense_views import ObjectViews
from ablations.training.box_scores import Detections, constant_detections, score_boxes
from ablations.training.dense import DenseTask
from ablations.training.distributed import ALONE, Ranks
from ablations.training.recipe import autocast

FIRST_LABELS = {"retinanet": 0, "fcos": 0, "mask_rcnn": 1}
"""The label of the first class in each of torchvision's detectors: 0 is the background in one of two stages."""

MASK_THRESHOLD = 0.5
"""Probability from which on a pixel belongs to an object, as in torchvision's reference code."""


class Detection(DenseTask):
    """Images of several sizes and their objects; the loss is the sum of the detector's own."""

    score: ClassVar[str] = "ap"
    data: DenseData[Objects]

    def build_views(self) -> ObjectViews:
        return ObjectViews(self.conditions, FIRST_LABELS[self.conditions.head])

    def loss(self, network: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        losses = network([image.float().div(255) for image in images], targets)
        return torch.stack(list(losses.values())).sum()

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, *, ranks: Ranks = ALONE, workers: int = 0) -> dict[str, Any]:
        """Returns the scores of `score_boxes`, `n_images`, `n_objects`, and AP50 of a constant predictor."""
        found = [each for part in ranks.gather(self.detect(model, self.data, ranks, workers)) for each in part]
        images, classes = self.data.validation, self.data.classes
        scores = score_boxes(images, found, classes) if ranks.is_first else {}
        if ranks.is_first:
            plain = [replace(image, outlines=None) for image in images]
            scores["constant_ap50"] = score_boxes(plain, constant_detections(self.data.train, images), classes)["ap50"]
        return ranks.tell_all(scores) | {
            "n_images": len(images),
            "n_objects": sum(int((~image.crowd).sum()) for image in images),
        }

    @torch.inference_mode()
    def detect(
        self, model: nn.Module, data: DenseData[Objects], ranks: Ranks = ALONE, workers: int = 0
    ) -> list[Detections]:
        """Returns what the model finds in this process's share of the validation images."""
        model.eval()
        first, found = FIRST_LABELS[self.conditions.head], []
        for images, targets in self.shown(data, self.conditions.batch_size, ranks=ranks, workers=workers):
            with autocast(self.conditions):
                outputs = model([image.float().div(255) for image in images])
            for output, target in zip(outputs, targets, strict=True):
                found.append(as_detections(output, data.validation[int(target["index"])].id, first))
        return found


def as_detections(output: dict[str, Tensor], image: int, first_label: int) -> Detections:
    """Returns the output of one of torchvision's detectors for an image, by the image's id."""
    masks = None
    if "masks" in output:
        from pycocotools import mask as coco_mask

        inside = (output["masks"][:, 0] > MASK_THRESHOLD).to(torch.uint8).cpu().numpy()
        masks = tuple(coco_mask.encode(np.asfortranarray(each)) for each in inside)
    return Detections(
        image=image,
        boxes=output["boxes"].float().cpu().numpy(),
        scores=output["scores"].float().cpu().numpy(),
        labels=output["labels"].cpu().numpy() - first_label,
        masks=masks,
    )
