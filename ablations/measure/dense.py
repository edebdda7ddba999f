"""What the measurements of detection and segmentation have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ablations.conditions import condition
from ablations.config import BY_NAME
from ablations.data.dense_registry import DENSE_SETS, Layout
from ablations.dense_recipes import DenseRecipe
from ablations.errors import refuse
from ablations.measure.accuracy import InitialWeights
from ablations.measure.measurement import (
    COUNT,
    MACS_PER_S,
    Column,
    Device,
    Precision,
    Setting,
    TrainingMeasurement,
    integer,
    table,
    training_columns,
)

if TYPE_CHECKING:
    from ablations.cells import Cell

TRAINED_COLUMNS: dict[str, Column] = {
    "n_images": integer("Images that were scored.", "images"),
    "n_train_images": integer("Training images.", "images"),
    "left_out": table("Faults of the data that were left out, by kind.", of={"*": COUNT}),
    **training_columns("the backbone's weights", "score"),
}
"""What a record says of a training, beside its scores."""


@dataclass(frozen=True, kw_only=True)
class DenseMeasurement(DenseRecipe, TrainingMeasurement):
    """Scores on validation images after training a head on a backbone by a recipe."""

    split_by: ClassVar[tuple[str, ...]] = ("n_train_images", "n_images")
    layouts: ClassVar[tuple[Layout, ...]]
    """Of the data sets that it takes."""

    img_size: int = condition(224, least=32, unit="px")
    """Pixels that learned position embeddings are made for; they are resized to each map."""
    train_images: int = condition(0, least=0, unit="images")
    """How many training images to use, always the same ones; 0 is all."""
    skip_faulty: bool = condition(False)
    """Leave out annotations and images that are faulty, and count them in the record."""
    precision: Precision = condition("float32")
    """`bf16` is autocast to bfloat16."""
    device: Device = condition("cpu")
    """Where it runs."""
    tuning_images: int = condition(0, least=0, unit="images")
    """Training images set aside, always the same ones. They are not trained on, and scores are theirs instead of the
    validation images': for choosing a recipe. 0 validates as usual."""
    init: str = condition("")
    """What the backbone begins from: SHA-256 of a file of weights; the name of a study whose classifier of the same
    arm and seed it is; empty from scratch."""
    seed: int = condition(0, least=0)
    """Of the initial weights, the order of the images and their augmentation: arms with equal seeds are paired."""
    initial_weights: InitialWeights = condition(BY_NAME, in_key=True)
    """How the seed gives the initial weights: `by_name` of each parameter, so that arms share what they have in common,
    or `in_order` of construction, as libraries' models have it."""

    def check(self) -> None:
        """Raises InputError for a recipe that cannot be trained, and for a known data set of another task."""
        TrainingMeasurement.check(self)
        DenseRecipe.check(self)
        if self.data in DENSE_SETS and DENSE_SETS[self.data].layout not in self.layouts:
            known = ", ".join(name for name, each in DENSE_SETS.items() if each.layout in self.layouts)
            raise refuse("data", self.data, f"{known}, or a folder; {self.data} has no annotations for {self.name}")

    @property
    def config_fields(self) -> dict[str, Any]:
        return super().config_fields | {"img_size": self.img_size, "drop_path_rate": self.drop_path_rate}

    @property
    def images_seen(self) -> int:
        """Training images, each as often as it is trained on."""
        images = DENSE_SETS[self.data].train_images if self.data in DENSE_SETS else 1000
        steps = self.iterations or self.epochs * max((self.train_images or images) // self.batch_size, 1)
        return steps * self.batch_size

    def typical_seconds(self, macs: int) -> float:
        # A pyramid's layers see a quarter of the image's side in each of about a dozen convolutions of its width.
        head_macs = 12 * 9 * self.pyramid_width**2 * self.resolution**2 // 16
        return 1.0 + 3 * self.images_seen * (macs + head_macs) / MACS_PER_S

    def data_digest(self, data_dir: Path | None) -> str | None:
        from ablations.data.dense_loading import dense_digest

        return dense_digest(self.data, data_dir, self.layouts)

    def load_data(self, data_dir: Path | None) -> Any:
        """Returns the annotated images; raises InputError where they are not there or faulty."""
        raise NotImplementedError

    @classmethod
    def check_needs(cls, cells: Sequence[Cell], setting: Setting) -> None:
        from ablations.measure.network import backbone_of, build_dense_network, load_initial

        for each in dict.fromkeys(cell.conditions for cell in cells):
            each.load_data(setting.data_dir)
        for cell in cells:
            if cell.config is None or setting.weights:
                load_initial(backbone_of(build_dense_network(cell, 2)), cell, setting)

    def run(self, cell: Cell, setting: Setting) -> dict[str, Any]:
        from ablations.measure.network import backbone_of, build_dense_network, load_initial
        from ablations.training.dense_training import measure_dense

        data = self.load_data(setting.data_dir)
        loaded: dict[str, Any] = {}

        def build() -> Any:
            network = build_dense_network(cell, len(data.classes))
            loaded.update(load_initial(backbone_of(network), cell, setting))
            return network

        result = measure_dense(build, data, self, **self.training_options(cell, setting, data.classes))
        return result | {"init_file": loaded}
