"""Measurement `accuracy`: top-1 on the validation images after training from scratch by a recipe."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ablations.conditions import condition
from ablations.config import BY_NAME, LARGEST_INPUT
from ablations.data.registry import count_train_images, largest_class_share, list_classes
from ablations.errors import refuse
from ablations.measure.measurement import (
    MACS_PER_S,
    NAME,
    Column,
    Device,
    Precision,
    Setting,
    TrainingMeasurement,
    integer,
    number,
    share,
    table,
    training_columns,
)
from ablations.recipes import RECIPES, Recipe, as_released

if TYPE_CHECKING:
    from ablations.cells import Cell

InitialWeights = Literal["by_name", "in_order"]


@dataclass(frozen=True, kw_only=True)
class Accuracy(Recipe, TrainingMeasurement):
    """Top-1 accuracy on the validation images after training by a recipe, from scratch or from given weights."""

    name: ClassVar[str] = "accuracy"
    main_metric: ClassVar[str] = "top1"
    responses: ClassVar[tuple[str, ...]] = ("top1",)
    needed: ClassVar[tuple[str, ...]] = ("n_eval_images", "n_train_images")
    split_by: ClassVar[tuple[str, ...]] = ("n_train_images", "n_eval_images")
    recipes: ClassVar[Mapping[str, type]] = RECIPES
    task: ClassVar[str] = "ablations.training.classification:Classification"
    columns: ClassVar[dict[str, Column]] = {
        "top1": share("Share of the validation images whose class has the highest score."),
        "top1_by_resolution": table(
            "The same at each of eval_resolutions, by the side in pixels as text.", of={"*": share("The same.")}
        ),
        "correct": Column("Which validation images were right, in their order, as `unpack_bits` reads it."),
        "eval_loss": number("Mean cross-entropy over the validation images.", "nat"),
        "n_eval_images": integer("Validation images.", "images", least=1),
        "largest_class_share": share("Share of the largest class of these: what always naming one class reaches."),
        "n_train_images": integer("Training images.", "images", least=1),
        "skipped": table("Images that could not be read.", of=[NAME]),
        **training_columns("the weights that the training began from", "top-1", **{"top1?": share("If evaluated.")}),
    }

    num_classes: int = condition(10, least=2, unit="classes")
    """Of the data set; one that has another number is refused."""
    train_images: int = condition(0, least=0, unit="images")
    """How many training images to use, the same number of each class; 0 is all."""
    skip_unreadable: bool = condition(False)
    """Leave out images that cannot be read, and name them in the record."""
    precision: Precision = condition("float32")
    """`bf16` is autocast to bfloat16."""
    device: Device = condition("cpu")
    """Where it runs."""
    compiled: bool = condition(False)
    """Whether the model is compiled by `torch.compile`, for this cell alone and with static shapes."""
    tuning_images: int = condition(0, least=0, unit="images")
    """Training images set aside, the same number of each class and always the same ones. They are not trained on, and
    accuracy is theirs instead of the validation images': for choosing a recipe. 0 validates as usual."""
    eval_resolutions: tuple[int, ...] = condition((), unit="px")
    """Sides in pixels at which the trained model is evaluated too."""
    init: str = condition("")
    """What the training begins from: SHA-256 of a file of weights; the name of a study whose classifier of the same arm
    and seed it is; empty from scratch."""
    seed: int = condition(0, least=0)
    """Of the initial weights, the order of the images and their augmentation: arms with equal seeds are paired."""
    initial_weights: InitialWeights = condition(BY_NAME, in_key=True)
    """How the seed gives the initial weights: `by_name` of each parameter, so that arms share what they have in common,
    or `in_order` of construction, as libraries' models have it."""

    def check(self) -> None:
        """Raises InputError for a recipe that cannot be trained, or a subset that cannot be drawn."""
        TrainingMeasurement.check(self)
        Recipe.check(self)
        for name, every in (("train_images", "0 for all"), ("tuning_images", "0 for none")):
            if getattr(self, name) % self.num_classes:
                allowed = f"{every}, or a multiple of num_classes, {self.num_classes}"
                raise refuse(name, getattr(self, name), allowed)
        for side in self.eval_resolutions:
            if not 1 <= side <= LARGEST_INPUT:
                raise refuse("eval_resolutions", side, f"1 to {LARGEST_INPUT} pixels a side")

    @property
    def config_fields(self) -> dict[str, Any]:
        return {"img_size": self.resolution, "num_classes": self.num_classes, "drop_path_rate": self.drop_path_rate}

    def chance_level(self, n_eval_images: int) -> float:
        """Returns the accuracy of always naming the largest class, on so many validation images of the data set."""
        return largest_class_share(self.data, n_eval_images, self.num_classes)

    @classmethod
    def check_result(cls, result: dict[str, Any]) -> None:
        bits, images = result.get("correct"), result.get("n_eval_images")
        if bits is not None and images is not None:
            length = 4 * math.ceil(math.ceil(images / 8) / 3)  # of as many bits in base64
            if len(bits) != length or not re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", bits):
                raise ValueError(f"its result has no bit of correct for each of {images} images")

    def as_released(self, model: str) -> Accuracy:
        released: dict[str, Any] = as_released(model)
        return replace(self, **{name: value for name, value in released.items() if getattr(self, name) is None})

    @property
    def images_seen(self) -> int:
        """Training images, each as often as it is trained on."""
        return self.total_epochs * (self.train_images or count_train_images(self.data))

    def typical_seconds(self, macs: int) -> float:
        images = self.images_seen
        return 0.5 + 0.018 * images / self.batch_size + 3 * images * macs / MACS_PER_S

    def data_digest(self, data_dir: Path | None) -> str | None:
        from ablations.data.loading import data_digest

        return data_digest(self.data, data_dir)

    @classmethod
    def check_needs(cls, cells: Sequence[Cell], setting: Setting) -> None:
        from ablations.baselines.build import check_baseline
        from ablations.data.loading import check_data, check_loading, load_data
        from ablations.measure.network import build_network, load_initial
        from ablations.training.distributed import count_ranks
        from ablations.training.train import check_shareable

        baselines = [cell for cell in cells if cell.config is None]
        for cell in baselines:
            check_baseline(cell.source)
        trained = {
            (cell.source, cell.conditions.num_classes, cell.conditions.resolution, cell.conditions.drop_path_rate): cell
            for cell in baselines
        }
        for cell in trained.values():
            network = build_network(cell)
            if count_ranks() > 1 and cell.conditions.needed_device == "cpu":
                check_shareable(network, count_ranks())
        for cell in cells if setting.weights else ():
            load_initial(build_network(cell), cell, setting)
        conditions = [cell.conditions for cell in cells]
        for data, classes in sorted({(each.data, each.num_classes) for each in conditions}):
            check_data(data, classes, setting.data_dir)
        for each in conditions:
            check_loading(each)
            if each.train_images or each.tuning_images:
                load_data(each, setting.data_dir)  # which says how many there are

    def run(self, cell: Cell, setting: Setting) -> dict[str, Any]:
        from ablations.measure.network import build_network, load_initial
        from ablations.training.accuracy import measure_accuracy

        loaded: dict[str, Any] = {}

        def build() -> Any:
            network = build_network(cell)
            loaded.update(load_initial(network, cell, setting))
            return network

        options = self.training_options(cell, setting, list_classes(self.data, setting.data_dir))
        result = measure_accuracy(build, self, **options)
        return result | ({"init_file": loaded} if loaded else {})
