"""Measurement `segmentation`: mIoU on the validation images after training a segmentation network by a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ablations.conditions import condition
from ablations.data.dense_registry import DENSE_SETS, MOST_CLASSES, Layout
from ablations.dense_recipes import SEGMENTATION_RECIPES, SegmentationRecipe, released_lr
from ablations.errors import refuse
from ablations.measure.dense import TRAINED_COLUMNS, DenseMeasurement
from ablations.measure.measurement import Column, share, table

Segmenter = Literal["semantic_fpn"]


@dataclass(frozen=True, kw_only=True)
class Segmentation(SegmentationRecipe, DenseMeasurement):
    """mIoU on the validation images after training a segmentation network by a recipe."""

    name: ClassVar[str] = "segmentation"
    main_metric: ClassVar[str] = "miou"
    responses: ClassVar[tuple[str, ...]] = ("miou",)
    recipes: ClassVar[Mapping[str, type]] = SEGMENTATION_RECIPES
    task: ClassVar[str] = "ablations.training.segmentation:Segmentation"
    layouts: ClassVar[tuple[Layout, ...]] = ("ade20k",)
    columns: ClassVar[dict[str, Column]] = {
        "miou": share("Intersection over union of each class's pixels, the mean over classes."),
        "pixel_accuracy": share("Share of the labelled pixels whose class was named."),
        "iou_by_class": table("Intersection over union by the class's number, from 0."),
        "constant_miou": share("mIoU of naming the commonest class everywhere."),
        "constant_pixel_accuracy": share("Pixel accuracy of naming the commonest class everywhere."),
        **TRAINED_COLUMNS,
    }

    head: Segmenter = condition("semantic_fpn")
    """The network on the backbone."""
    num_classes: int = condition(0, least=0, unit="classes")
    """Of the data set; 0 where `list` names it."""
    first_label: int = condition(0, least=0)
    """Value of the first class in masks; smaller values say nothing. What `list` names has its own."""
    void_label: int = condition(255, least=0)
    """Value in masks that says nothing. What `list` names has its own."""

    def check(self) -> None:
        """Raises InputError for a recipe that cannot be trained, or without the number of classes."""
        DenseMeasurement.check(self)
        SegmentationRecipe.check(self)
        if not 2 <= self.num_classes <= MOST_CLASSES:
            allowed = f"2 to {MOST_CLASSES}, the number of classes of {self.data}, which is not among those of `list`"
            raise refuse("num_classes", self.num_classes, allowed)

    def as_released(self, model: str) -> Segmentation:
        known = DENSE_SETS.get(self.data)
        filled: dict[str, Any] = {}
        if known and self.num_classes == 0:
            filled = {name: getattr(known, name) for name in ("num_classes", "first_label", "void_label")}
        if self.base_lr is None:
            filled["base_lr"] = released_lr(self.head, model)
        return replace(self, **filled) if filled else self

    def load_data(self, data_dir: Path | None) -> Any:
        from ablations.data.dense_loading import load_segments

        return load_segments(self, data_dir)
