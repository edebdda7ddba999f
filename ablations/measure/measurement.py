"""What every measurement is: its conditions, what it needs, how it runs, and the columns that it gives. No torch.

A measurement is a dataclass. Its fields are the conditions under which a cell is measured: they are flags of the
command line, keys of study files, part of a record's key and columns of `load_records`. Adding a measurement is one
file with one such class, and its name in `ablations.measure.MEASUREMENTS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from ablations.conditions import check_fields, condition
from ablations.config import Size
from ablations.errors import refuse

if TYPE_CHECKING:
    from ablations.cells import Cell
    from ablations.training.distributed import Ranks
    from ablations.training.train import Files

Mode = Literal["inference", "training"]
StepHead = Literal["classifier", "retinanet", "fcos", "semantic_fpn"]
"""Those whose work the size of an image decides, not what is in it: a step of theirs has a memory and a time."""
Precision = Literal["float32", "bf16"]
Device = Literal["cpu", "cuda"]
Kind = Literal["text", "integer", "number", "boolean", "object"]

MODES: tuple[Mode, ...] = get_args(Mode)

LARGEST = 2**63 - 1
"""Of a number in a record: what 64 bits hold."""

SMALLEST = 1e-12
"""Of a number that others are divided by, such as a time in seconds."""


@dataclass(frozen=True)
class Column:
    """What a column of `load_records` means, in which unit it is, and of which kind and size its values are."""

    meaning: str
    unit: str = ""
    kind: Kind = "text"
    least: float = 0
    most: float = LARGEST
    of: Any = None
    """What an object consists of: `[each]` is a list, `(each,)` a list that is not empty, `{"*": each}` has any names,
    and other names are those of a row, which may lack those with a question mark. Leaves are columns."""


MACS_PER_S = 1.5e10
"""Of small models, about, on a core or two; where forecasts begin."""


integer, number, table = (partial(Column, kind=kind) for kind in ("integer", "number", "object"))
positive = partial(Column, kind="number", least=SMALLEST)
"""A number that others are divided by."""
share = partial(Column, kind="number", most=1)

NAME, COUNT, NUMBER, SECONDS = Column("A name."), integer("A count."), number("A number."), positive("A time.", "s")
"""What tables of one record consist of."""


def tell_nobody(share: float, words: str) -> None:
    """Ignores how far a cell is."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the cells of a run are measured with, beside their own conditions."""

    data_dir: Path | None = None
    weights: Path | None = None
    """The file that evaluations take, which is loaded anew for each."""
    force: bool = False
    """Measure memory of the CPU even where a prediction says that there is not enough."""
    ranks: Ranks | None = None
    """This process among those that train together; alone where None."""
    workers: int = 1
    """Processes or threads that read images ahead; 0 reads them in this one."""
    deadline: float = math.inf
    """When a training has to end, in seconds of the monotonic clock."""
    files: Files | None = None
    """Where a training writes its checkpoint and log."""
    tell: Callable[[float, str], None] = tell_nobody
    """Takes the share of the cell that is done, and a few words on it."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Base of all measurements. Raises InputError for a condition out of its range."""

    name: ClassVar[str]
    """In commands, records and study files."""
    main_metric: ClassVar[str]
    """What a finished record has, but for those whose size a model refuses or that do not fit in memory."""
    needed: ClassVar[tuple[str, ...]] = ()
    """What such a record has beside it, because no table can do without."""
    columns: ClassVar[dict[str, Column]]
    """The columns of its results."""
    responses: ClassVar[tuple[str, ...]] = ()
    """The metrics that toggles have effects on, in the tables of effects."""
    axes: ClassVar[tuple[str, ...]]
    """The columns in which the records of one table differ; they agree in all other conditions."""
    split_by: ClassVar[tuple[str, ...]] = ()
    """The columns of its results that split tables, as conditions do."""
    pools_machines: ClassVar[bool] = False
    """Whether records of several machines, thread counts and library versions stand in one table."""
    takes_baselines: ClassVar[bool] = True
    """Whether models that are no arms can be measured."""
    trains: ClassVar[bool] = False
    """Whether its cells are trainings: they resume from a checkpoint, and several may run side by side."""
    recipes: ClassVar[Mapping[str, type]] = {}
    """By name: where the fields of its trainings begin."""

    resolution: Size

    def check(self) -> None:
        """Raises InputError for conditions that are impossible or contradict each other."""
        check_fields(self)

    @property
    def config_fields(self) -> dict[str, Any]:
        """The fields of an arm's PVTConfig that these conditions set: a head other than its own classifier sets some.

        As in the released detectors: a class token is for classifying.
        """
        head = getattr(self, "head", "classifier")
        return {} if head == "classifier" else {"num_classes": 0, "pooling": "average"}

    @property
    def is_computed(self) -> bool:
        """Whether it is computed from shapes, so that it does not matter what else the machine does."""
        return False

    @property
    def needed_device(self) -> str:
        """The device that has to be there."""
        return "cpu" if self.is_computed else getattr(self, "device", "cpu")

    def typical_seconds(self, macs: int) -> float:
        """Returns about how long a cell takes on two cores, of a model with so many MACs an image.

        Forecasts begin with it, and scale it by what cells take.
        """
        return 0.1

    def as_released(self, model: str) -> Measurement:
        """Returns the conditions with what they leave to the model, by its variant or its name, filled in."""
        return self

    def data_digest(self, data_dir: Path | None) -> str | None:
        """Returns a digest of the data that it takes; None where it takes none, or data that never change."""
        return None

    def environment(self, setting: Setting) -> dict[str, Any]:
        """Returns what its record says of its environment in place of what holds for the whole run."""
        return {}

    @classmethod
    def needed_with(cls, conditions: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns `needed`, and what such a record needs under its conditions, as a record has them."""
        return cls.needed

    @classmethod
    def check_result(cls, result: dict[str, Any]) -> None:
        """Raises ValueError where values of a result, each possible by itself, contradict each other."""

    @classmethod
    def check_needs(cls, cells: Sequence[Cell], setting: Setting) -> None:
        """Raises InputError for what these cells, all of this measurement, need and is not there."""

    def run(self, cell: Cell, setting: Setting) -> dict[str, Any]:
        """Returns the result of a cell of these conditions, as plain values: the metrics and the raw samples."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class StepMeasurement(Measurement):
    """Base of the measurements of one step."""

    resolution: Size = condition(224)
    """Side of the input in pixels, or height and width."""
    mode: Mode = condition("inference")
    """One forward pass without gradients, or one training step."""
    batch_size: int = condition(1, least=1)
    """Images of a step."""
    head: StepHead = condition("classifier")
    """What stands on the backbone. Of a detector it is what is done to every place of an image, without resizing,
    matching and selecting; it trains by losses over all places. Detectors have COCO's 80 classes, Semantic FPN 150."""
    precision: Precision = condition("float32")
    """`bf16` is autocast to bfloat16."""
    device: Device = condition("cpu")
    """Where it runs."""

    @property
    def step(self) -> dict[str, Any]:
        """What `build_step` is told of the conditions; the network has the others in it."""
        return {name: getattr(self, name) for name in ("mode", "precision", "device")}


@dataclass(frozen=True, kw_only=True)
class TrainingMeasurement(Measurement):
    """Base of the measurements that train by a recipe. Their conditions have `data` and `seed`."""

    axes: ClassVar[tuple[str, ...]] = ("arm", "seed")
    pools_machines: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    task: ClassVar[str]
    """A class of `ablations.training`, `module:class`, that says what is trained."""

    def check(self: Any) -> None:
        Measurement.check(self)
        if self.seed > LARGEST:  # torch's generators take no other
            raise refuse("seed", self.seed, f"0 to {LARGEST}")

    def environment(self, setting: Setting) -> dict[str, Any]:
        import torch

        return {
            "threads": torch.get_num_threads(),
            "processes": setting.ranks.count if setting.ranks else 1,
            "data_sha256": self.data_digest(setting.data_dir),
        }

    def training_options(self: Any, cell: Cell, setting: Setting, class_names: Sequence[str]) -> dict[str, Any]:
        """Returns what a training is told beside its conditions and data, by the names of `ablations.training`."""
        said = cell.describe()
        return {
            "setting": replace(setting, tell=lambda share, words: setting.tell(share, f"{cell.name} {words}")),
            # What weights that are trained so say of themselves, as `ablations.model.checkpoint` reads it.
            "description": {
                "model": cell.model.names if cell.model.is_arm else cell.name,
                **{name: said[name] for name in ("config",) if name in said},
                "num_classes": len(class_names),
                "class_names": list(class_names),
                "data": self.data,
                "recipe": said["conditions"],
            },
        }


def training_columns(began_from: str, score: str, **scores: Column) -> dict[str, Column]:
    """Returns the columns of a training beside its scores; `scores` are those of an epoch's row in the history."""
    row = {"epoch": integer("From 1.", least=1), "loss": NUMBER} | scores
    return {
        "init_file": table(f"What was loaded of {began_from}, and what was not."),
        "peak_lr": number("The highest learning rate of the schedule."),
        "history": table(
            f"A row an epoch: number, mean training loss, last learning rate, seconds, {score} if evaluated.",
            of=[row | {f"{name}?": NUMBER for name in ("lr", "grad_norm", "seconds", "wait_s")}],
        ),
        "train_s": positive("Time of the training.", "s"),
        "train_img_per_s": positive("Training images a second.", "img/s"),
        "wait_fraction": share("Share of the training's time that it waited for images."),
    }
