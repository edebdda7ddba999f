"""The commands that train by a recipe: `accuracy`, `detect` and `segment`."""

import itertools
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from ablations.cells import Cell
from ablations.commands.arms import Models
from ablations.commands.shared_flags import DataFolder, TrainingRuns, given_conditions, with_flags_of
from ablations.data.registry import count_classes
from ablations.files import file_digest
from ablations.launch import is_first_process
from ablations.measure import Accuracy, Detection, Segmentation
from ablations.recipes import recipe_values
from ablations.studies import vary


@dataclass(frozen=True, kw_only=True)
class TrainingCommand(TrainingRuns, DataFolder, Models):
    """What the commands that train have in common."""

    MEASURES: ClassVar[Any]
    """What is measured, whose conditions are flags."""
    DEFAULT_VARIANT = "nano"

    recipe: str = "small"
    """Where the fields of a training begin, of which each is a flag. One of those that `list` names."""
    init: str | None = None
    """File of a classifier's weights to begin from, in any format that `evaluate` takes, or the key of a record of
    accuracy in RESULTS that was trained with --save-weights; from scratch without it. Position embeddings are resized;
    a head of other classes is left out."""

    @property
    def weights_file(self: Any) -> Path | None:
        """The file of weights, or None from scratch; raises InputError where there is none."""
        if self.init is None or (path := Path(self.init)).is_file():
            return self.init and path
        from ablations.runner.classifiers import find_trained_weights

        return find_trained_weights(self.init, self.results)

    @property
    def init_digest(self) -> str:
        """The SHA-256 of the file of weights; empty from scratch."""
        return file_digest(self.weights_file) if self.weights_file else ""

    @classmethod
    def defaults(cls, words: Sequence[str]) -> dict[str, Any]:
        """Returns the fields of the recipe that the words name."""
        name = next((after for flag, after in itertools.pairwise(words) if flag == "--recipe"), cls.recipe)
        name = next((word.partition("=")[2] for word in words if word.startswith("--recipe=")), name)
        return recipe_values(name, cls.MEASURES.recipes)

    def begin(self, cells: list[Cell]) -> None:
        """Prints what is trained by, once for each way that it was resolved; what is off by default is left out."""
        if not is_first_process():
            return
        recipes = {replace(cell.conditions, seed=0): cell for cell in reversed(cells)}
        for conditions in reversed(recipes):
            given = {each: getattr(conditions, each.name) for each in fields(conditions) if each.name != "seed"}
            shown = [f"{each.name}={value}" for each, value in given.items() if value or each.default]
            text = f"recipe: {' '.join(shown)}; all else is 0, off or empty"
            width = shutil.get_terminal_size().columns
            # Names such as rand-m9-mstd0.5-inc1 are to be copied, so that none is cut in two.
            print(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False))
            print(f"total batch {conditions.batch_size}, peak learning rate {conditions.peak_lr:.3g}", flush=True)
        self._say_other_recipes(cells)

    def _say_other_recipes(self, cells: list[Cell]) -> None:
        """Says by which other recipe the folder has trainings of such models on these data: tables keep them apart."""
        from ablations.records.folder import read_records
        from ablations.records.rows import conditions_of

        def alike(description: dict[str, Any]) -> tuple[Any, ...]:
            model = [description.get(name) for name in ("measurement", "variant", "model", "base")]
            return (*model, *(description["conditions"].get(name) for name in ("data", "head")))

        recipes: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for record in read_records(self.results).records:
            if record["status"] == "done":
                recipes.setdefault(alike(record), []).append(conditions_of(record))
        for description in {alike(cell.describe()): cell.describe() for cell in cells}.values():
            own = description["conditions"]
            others = [
                [f"{name}={theirs[name]}" for name in theirs if name != "seed" and theirs[name] != own[name]]
                for theirs in recipes.get(alike(description), ())
            ]
            if others and all(others):
                found = f"{self.results} has trainings of such a model by another recipe ({' '.join(others[0])})"
                print(f"note: {found}; tables keep the two apart", file=sys.stderr)


@with_flags_of(Accuracy, plural={"seed": ("seeds", (0,))}, leave_out=("num_classes", "init"))
@dataclass(frozen=True, kw_only=True)
class MeasureAccuracy(TrainingCommand):
    """Train each arm, or any model, by a recipe and evaluate it; a training that was stopped resumes."""

    FIRST = ("toggles", "arms", "variants", "data", "data_dir", "recipe", "epochs", "seeds", "jobs", "results")
    TABLES = ("accuracy",)

    @property
    def conditions(self: Any) -> Accuracy:
        """What is trained by, with the classes of the data set."""
        classes = count_classes(self.data, self.data_dir)
        return given_conditions(self, num_classes=classes, init=self.init_digest)

    def _cells(self: Any) -> list[Cell]:
        return self._of_models(vary(self.conditions, seed=self.seeds))


@dataclass(frozen=True, kw_only=True)
class DenseTrainingCommand(TrainingCommand):
    """What detection and segmentation have in common."""

    FIRST = ("toggles", "arms", "variants", "heads", "init", "data", "data_dir", "recipe", "seeds", "results")

    def _cells(self: Any) -> list[Cell]:
        return self._of_models(vary(given_conditions(self, init=self.init_digest), head=self.heads, seed=self.seeds))


_OF_DENSE: dict[str, Any] = {"leave_out": ("init", "initial_weights")}


@with_flags_of(Detection, plural={"seed": ("seeds", (0,)), "head": ("heads", ("retinanet",))}, **_OF_DENSE)
@dataclass(frozen=True, kw_only=True)
class MeasureDetection(DenseTrainingCommand):
    """Train a detector on each arm, or on any backbone, and compute AP; a training that was stopped resumes."""

    TABLES = ("detection",)


@with_flags_of(Segmentation, plural={"seed": ("seeds", (0,)), "head": ("heads", ("semantic_fpn",))}, **_OF_DENSE)
@dataclass(frozen=True, kw_only=True)
class MeasureSegmentation(DenseTrainingCommand):
    """Train a segmentation network on each arm, or on any backbone, and compute mIoU; one that was stopped resumes."""

    TABLES = ("segmentation",)
