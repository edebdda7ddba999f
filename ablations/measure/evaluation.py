"""Measurement `evaluation`: accuracy of finished weights on a folder of images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from ablations.conditions import condition
from ablations.measure.accuracy import Accuracy
from ablations.measure.measurement import (
    NAME,
    Column,
    Device,
    Measurement,
    Precision,
    Setting,
    integer,
    number,
    share,
    table,
)

if TYPE_CHECKING:
    from ablations.cells import Cell

Protocol = Literal["paper", "timm"]


@dataclass(frozen=True, kw_only=True)
class Evaluation(Measurement):
    """Accuracy of finished weights on validation images, as they are."""

    name: ClassVar[str] = "evaluation"
    main_metric: ClassVar[str] = "top1"
    axes: ClassVar[tuple[str, ...]] = ("resolution", "arm", "checkpoint")
    split_by: ClassVar[tuple[str, ...]] = ("n_images", "classes")
    pools_machines: ClassVar[bool] = True
    takes_baselines: ClassVar[bool] = False
    columns: ClassVar[dict[str, Column]] = {
        "top1": share("Share of the validation images whose class has the highest score."),
        "top5": share("Share of those whose class is among the five highest."),
        "loss": number("Mean cross-entropy over the images.", "nat"),
        "ece": share("Expected calibration error, 15 bins of equal width."),
        "expected_top1": share("Top-1 of the released weights of such a model on all of ImageNet."),
        "n_images": integer("Images that were scored.", "images", least=1),
        "n_classes": integer("Classes that these are of.", "classes"),
        "classes": Column("How folders were mapped to the model's classes."),
        "skipped": table("Images that could not be read.", of=[NAME]),
    }

    checkpoint: str = condition("")
    """SHA-256 of the file of weights."""
    data: str = condition("imagenet")
    """A data set that `list` shows, or the name of a folder in the data directory, with images as val/CLASS/* or
    CLASS/*."""
    resolution: int = condition(224, unit="px")
    """Side in pixels of the centre crop that the model sees."""
    protocol: Protocol = condition("timm")
    """The crop is 0.875 of the resized image's short side in `paper`, 0.9 in `timm`."""
    num_classes: int = condition(1000, least=2, unit="classes")
    """Classes that the weights tell apart."""
    img_size: int = condition(224, unit="px")
    """Pixels that learned position embeddings of the checkpoint are made for."""
    raw_weights: bool = condition(False)
    """Take the weights themselves where the file has a moving average of them too, which is the default."""
    skip_unreadable: bool = condition(False)
    """Leave out images that cannot be read, and name them."""
    batch_size: int = condition(64, least=1, unit="images")
    """Images of a step."""
    precision: Precision = condition("float32")
    """`bf16` is autocast to bfloat16."""
    device: Device = condition("cpu")
    """Where it runs."""

    @property
    def config_fields(self) -> dict[str, Any]:
        return {"img_size": self.img_size, "num_classes": self.num_classes}

    def data_digest(self, data_dir: Path | None) -> str | None:
        from ablations.data.loading import data_digest

        return data_digest(self.data, data_dir, val_only=True)

    def environment(self, setting: Setting) -> dict[str, Any]:
        return {"data_sha256": self.data_digest(setting.data_dir)}

    @classmethod
    def check_needs(cls, cells: Sequence[Cell], setting: Setting) -> None:
        from ablations.data.folders import say_left_out
        from ablations.data.loading import check_data
        from ablations.data.registry import data_directory, is_built_in
        from ablations.model import build_model
        from ablations.model.checkpoint import load_weights, read_description
        from ablations.model.weights_file import read_weights_file
        from ablations.training.evaluation import open_images

        weights = read_weights_file(cast(Path, setting.weights))
        name = weights.path.name
        class_names = read_description(weights).get("class_names", ())
        for config, data in {(cell.arm_config, cell.conditions.data) for cell in cells}:
            report = load_weights(build_model(config), weights, raw=cells[0].conditions.raw_weights)
            if report.others:
                others = ", ".join(report.others)
                print(f"note: {name}: took {report.place}, and not {others}; see --raw-weights", file=sys.stderr)
            if is_built_in(data):
                check_data(data, config.num_classes, setting.data_dir)
            else:
                images = open_images(data_directory(setting.data_dir) / data, config.num_classes, class_names)
                say_left_out([images.complaint])

    def run(self, cell: Cell, setting: Setting) -> dict[str, Any]:
        from ablations.data.registry import data_directory, is_built_in
        from ablations.model import build_model
        from ablations.model.checkpoint import load_weights, read_description
        from ablations.model.weights_file import read_weights_file
        from ablations.training.evaluation import evaluate_built_in, evaluate_checkpoint

        weights = read_weights_file(cast(Path, setting.weights))
        if self.checkpoint:
            weights.check_digest(self.checkpoint, "evaluated")
        description = read_description(weights)
        model = build_model(cell.arm_config)
        load_weights(model, weights, raw=self.raw_weights)
        if is_built_in(self.data):
            return evaluate_built_in(model, self._training(description), self.resolution, setting.data_dir)
        names = ("protocol", "resolution", "batch_size", "device", "precision", "skip_unreadable")
        how: dict[str, Any] = {name: getattr(self, name) for name in names}
        return evaluate_checkpoint(
            model,
            data_directory(setting.data_dir) / self.data,
            **how,
            workers=setting.workers,
            class_names=description.get("class_names", ()),
            progress=lambda done, total: setting.tell(
                done / total, f"{cell.name} {self.resolution} px, {done}/{total} images"
            ),
        )

    def _training(self, description: dict[str, Any]) -> Accuracy:
        """Returns what decides how the images of a built-in set are shown: as in the training, where it is known."""
        recipe = description["recipe"] if description.get("data") == self.data else {}
        return Accuracy(
            data=self.data,
            resolution=self.img_size,
            num_classes=self.num_classes,
            train_images=recipe.get("train_images", 0),
            batch_size=self.batch_size,
            precision=self.precision,
            device=self.device,
        )
