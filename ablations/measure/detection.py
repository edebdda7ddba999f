"""Measurement `detection`: AP on the validation images after training a detector by a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ablations.conditions import condition
from ablations.data.dense_registry import DETECTION_LAYOUTS, Layout
from ablations.dense_recipes import DETECTION_RECIPES, DetectionRecipe, released_lr
from ablations.measure.dense import TRAINED_COLUMNS, DenseMeasurement
from ablations.measure.measurement import Column, integer, share, table

Detector = Literal["retinanet", "mask_rcnn", "fcos"]


@dataclass(frozen=True, kw_only=True)
class Detection(DetectionRecipe, DenseMeasurement):
    """AP on the validation images, as COCO computes it, after training a detector by a recipe."""

    name: ClassVar[str] = "detection"
    main_metric: ClassVar[str] = "ap"
    responses: ClassVar[tuple[str, ...]] = ("ap",)
    recipes: ClassVar[Mapping[str, type]] = DETECTION_RECIPES
    task: ClassVar[str] = "ablations.training.detection:Detection"
    layouts: ClassVar[tuple[Layout, ...]] = DETECTION_LAYOUTS
    columns: ClassVar[dict[str, Column]] = {
        "ap": share("Average precision of boxes, the mean over classes and over IoU from 0.5 to 0.95."),
        "ap50": share("The same at IoU 0.5."),
        "ap75": share("The same at IoU 0.75."),
        "ap_small": share("AP of objects of less than 32 x 32 pixels."),
        "ap_medium": share("AP of objects of 32 x 32 to 96 x 96 pixels."),
        "ap_large": share("AP of larger objects."),
        "mask_ap": share("Average precision of masks, as of boxes."),
        "ap_by_class": table("AP of boxes by the class's name."),
        "constant_ap50": share("AP50 of a detector that finds the same boxes in every image."),
        "n_objects": integer("Objects in the images that were scored.", "objects"),
        **TRAINED_COLUMNS,
    }

    head: Detector = condition("retinanet")
    """The detector on the backbone."""

    def as_released(self, model: str) -> Detection:
        return self if self.base_lr is not None else replace(self, base_lr=released_lr(self.head, model))

    def load_data(self, data_dir: Path | None) -> Any:
        from ablations.data.dense_loading import load_objects

        return load_objects(self, data_dir)
