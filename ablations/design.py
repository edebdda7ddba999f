"""What is measured: a cell is one model under one set of conditions, and makes one record. Needs no torch."""

import hashlib
import json
import math
import re
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from ablations.baselines.registry import MODEL_SOURCES
from ablations.config import (
    CONFOUNDERS,
    LARGEST_INPUT,
    NUM_STAGES,
    AttentionKernel,
    PVTConfig,
    Size,
    as_pair,
    build_config,
    variant_name,
)
from ablations.errors import pick, refuse
from ablations.recipes import Loading, Recipe, as_released

LARGEST_SEED = 2**63 - 1
"""That torch's generators take."""

Measurement = Literal["cost", "memory", "speed", "accuracy", "evaluation"]
Protocol = Literal["paper", "timm"]
Mode = Literal["inference", "training"]
Precision = Literal["float32", "bf16"]
Device = Literal["cpu", "cuda"]
Method = Literal["measured", "predicted"]
Reference = Literal["v1", "timm", "transformers", "timm+transformers"]
InitialWeights = Literal["by_name", "in_order"]
Head = Literal["classifier", "retinanet", "mask_rcnn", "fcos", "semantic_fpn"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Parameters and MACs of one image's forward pass."""

    measurement = "cost"

    resolution: Size = 224
    """Side of the input in pixels, or height and width."""
    head: Head = "classifier"
    """What stands on the backbone: its own classifier, a detector for COCO's 80 classes, or Semantic FPN for 150."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Peak memory of one inference or of one training step (forward, backward, AdamW), counted from the second on."""

    measurement = "memory"

    resolution: Size = 224
    """Side of the input in pixels, or height and width."""
    mode: Mode = "inference"
    batch_size: int = 1
    precision: Precision = "float32"
    """`bf16` is autocast to bfloat16."""
    device: Device = "cpu"
    """Where it runs."""
    method: Method = "measured"
    """`predicted` runs shapes alone, for a device that need not be there."""
    channels_last: bool = True
    """Whether images and the weights of convolutions lie in memory channels-last, or channels-first."""
    checkpointing: str = "none"
    """Stages whose blocks keep no activations and run anew in the backward pass: `none`, or such as `1` or `1+2`."""

    def check(self) -> None:
        """Raises InputError for a checkpointing of no stages, or where there is no backward pass."""
        if parse_stages(self.checkpointing) and self.mode != "training":
            raise refuse("checkpointing", self.checkpointing, "none where mode is inference: nothing is kept there")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Time of one inference or training step, beside that of others, timed interleaved in one process."""

    measurement = "speed"

    resolution: Size = 224
    """Side of the input in pixels, or height and width."""
    mode: Mode = "inference"
    batch_size: int = 8
    precision: Precision = "float32"
    """`bf16` is autocast to bfloat16."""
    device: Device = "cpu"
    """Where it runs."""
    repeats: int = 10
    """Timed steps of each of the models, after the warm-up."""
    reference: Reference = "v1"
    """What is timed beside it: arm v1 in the same base, or libraries' models with the same weights, in two layouts."""
    channels_last: bool = True
    """Whether images and the weights of convolutions lie in memory channels-last, or channels-first."""
    compiled: bool = False
    """Whether all of them are compiled by `torch.compile`."""


@dataclass(frozen=True, kw_only=True)
class Accuracy(Recipe):
    """Top-1 accuracy on the validation images after training from scratch by a recipe."""

    measurement = "accuracy"

    num_classes: int = 10
    """Of the data set; one that has another number is refused."""
    train_images: int = 0
    """How many training images to use, the same number of each class; 0 is all."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, and name them in the record."""
    precision: Precision = "float32"
    """`bf16` is autocast to bfloat16."""
    device: Device = "cpu"
    """Where it runs."""
    compiled: bool = False
    """Whether the model is compiled by `torch.compile`."""
    tuning_images: int = 0
    """Training images set aside, the same number of each class and always the same ones. They are not trained on, and
    accuracy is theirs instead of the validation images': for choosing a recipe. 0 validates as usual."""
    eval_resolutions: tuple[int, ...] = ()
    """Sides in pixels at which the trained model is evaluated too."""
    seed: int = 0
    """Of the initial weights, the order of the images and their augmentation: arms with equal seeds are paired."""
    initial_weights: InitialWeights = field(default="by_name", metadata={"in_key": True})
    """How the seed gives the initial weights: `by_name` of each parameter, so that arms share what they have in common,
    or `in_order` of construction, as libraries' models have it."""

    def check(self) -> None:
        """Raises InputError for a recipe that cannot be trained, or a subset that cannot be drawn."""
        super().check()
        if self.seed > LARGEST_SEED:
            raise refuse("seed", self.seed, f"0 to {LARGEST_SEED}")
        for name, every in (("train_images", "0 for all"), ("tuning_images", "0 for none")):
            if getattr(self, name) % self.num_classes:
                allowed = f"{every}, or a multiple of num_classes, {self.num_classes}"
                raise refuse(name, getattr(self, name), allowed)
        for side in self.eval_resolutions:
            if not 1 <= side <= LARGEST_INPUT:
                raise refuse("eval_resolutions", side, f"1 to {LARGEST_INPUT} pixels a side")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracy of finished weights on a folder of images, as they are."""

    measurement = "evaluation"

    checkpoint: str = ""
    """SHA-256 of the file of weights."""
    data: str = "imagenet"
    """Name of the folder in the data directory, with images as val/CLASS/* or CLASS/*."""
    resolution: int = 224
    """Side in pixels of the centre crop that the model sees."""
    protocol: Protocol = "timm"
    """The crop is 0.875 of the resized image's short side in `paper`, 0.9 in `timm`."""
    num_classes: int = 1000
    img_size: int = 224
    """Pixels that learned position embeddings of the checkpoint are made for."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, and name them."""
    batch_size: int = 64
    precision: Precision = "float32"
    """`bf16` is autocast to bfloat16."""
    device: Device = "cpu"
    """Where it runs."""


CHOICES: dict[str, tuple[str, ...]] = {
    "mode": get_args(Mode),
    "precision": get_args(Precision),
    "device": get_args(Device),
    "head": get_args(Head),
    "method": get_args(Method),
    "reference": get_args(Reference),
    "protocol": get_args(Protocol),
    "loading": get_args(Loading),
    "initial_weights": get_args(InitialWeights),
}
LEAST = {
    **{"batch_size": 1, "repeats": 6, "epochs": 1, "aug_repeats": 1, "num_classes": 2},
    **dict.fromkeys(
        ("train_images", "tuning_images", "weight_decay", "seed", "cooldown_epochs", "lr_base_size", "eval_every"), 0
    ),
    **dict.fromkeys(("mixup", "cutmix", "clip_grad_norm"), 0),
}
"""The smallest value that makes sense for a condition; fewer than six repeats have no 95 % interval."""

Conditions = Cost | Memory | Speed | Accuracy | Evaluation

Kind = TypeVar("Kind", bound=Conditions)

CONDITIONS_OF: dict[str, type] = {kind.measurement: kind for kind in get_args(Conditions)}
"""The class of each measurement's conditions."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model under one set of conditions: what makes one record."""

    variant: str
    arm: str
    base: str
    conditions: Conditions
    attention: AttentionKernel = "fused"
    pool_size: int | None = None
    """P of linear SRA; the variant's own where None."""
    changed: tuple[tuple[str, Any], ...] = ()
    """Confounders that are not the base's, with their values."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "variant", variant_name(self.variant))
        for name, _ in self.changed:
            pick("confounder", name, CONFOUNDERS)
        object.__setattr__(self, "conditions", _resolve(self.conditions, self.variant))
        _check_conditions(self.conditions)
        self.config.check_size("resolution", self.conditions.resolution)

    is_from_file = False

    @property
    def measurement(self) -> str:
        return self.conditions.measurement

    @cached_property
    def config(self) -> PVTConfig:
        """The model's config; learned position embeddings are made for the variant's `img_size` and resized from it."""
        overrides: dict[str, Any] = {"attention": self.attention, **dict(self.changed)}
        if self.pool_size is not None:
            overrides["pool_size"] = self.pool_size
        if isinstance(self.conditions, Accuracy):
            overrides |= {
                "img_size": self.conditions.resolution,
                "num_classes": self.conditions.num_classes,
                "drop_path_rate": self.conditions.drop_path_rate,
            }
        elif isinstance(self.conditions, Evaluation):
            overrides |= {"img_size": self.conditions.img_size, "num_classes": self.conditions.num_classes}
        elif isinstance(self.conditions, Cost) and self.conditions.head != "classifier":
            # As in the released detectors: a class token is for classifying.
            overrides |= {"num_classes": 0, "pooling": "average"}
        return build_config(self.variant, self.arm, self.base, **overrides)

    def describe(self) -> dict[str, Any]:
        """Returns what identifies the cell, as plain values: names, the whole config and the conditions."""
        names = {"measurement": self.measurement, "variant": self.variant, "arm": self.arm, "base": self.base}
        return names | {"config": _as_plain(self.config), "conditions": _as_plain(self.conditions)}

    @cached_property
    def key(self) -> str:
        """The cell's address among the records."""
        return address(self.describe())

    @property
    def name(self) -> str:
        """What is measured, in a few words."""
        return f"{self.variant} {self.arm}"

    @property
    def file_name(self) -> str:
        """Of its record, without the suffix."""
        return f"{self.variant}_{self.base}_{self.arm.replace('+', '-')}_{self.key}"

    @property
    def label(self) -> str:
        """One line for people: the names and the conditions that differ from their defaults."""
        values = {"base": self.base}
        if self.attention != "fused":
            values["attention"] = self.attention
        if self.pool_size is not None:
            values["pool_size"] = str(self.pool_size)
        values |= {name: str(value) for name, value in self.changed}
        return _label(self, values)


@dataclass(frozen=True, kw_only=True)
class ModelCell:
    """A model that is no arm, under one set of conditions; what it is, its name says (`ablations.baselines.registry`)."""

    model: str
    conditions: Cost | Memory | Accuracy
    folder: Path | None = field(default=None, compare=False)
    """Where the file of a user's model is, which the name does not say."""

    def __post_init__(self) -> None:
        conditions = _resolve(self.conditions, self.model)
        if isinstance(conditions, Accuracy):
            conditions = replace(conditions, initial_weights="in_order")
        object.__setattr__(self, "conditions", conditions)
        _check_conditions(self.conditions)
        if getattr(self.conditions, "checkpointing", "none") != "none":
            raise refuse("checkpointing", vars(self.conditions)["checkpointing"], "none for a model that is no arm")
        for side in as_pair(self.conditions.resolution):
            if not 1 <= side <= LARGEST_INPUT:
                raise refuse("resolution", self.conditions.resolution, f"1 to {LARGEST_INPUT} pixels a side")

    @property
    def measurement(self) -> str:
        return self.conditions.measurement

    def describe(self) -> dict[str, Any]:
        """Returns what identifies the cell, as plain values; a model from a file is another when the file changes."""
        digest = {"file_sha256": self.file_digest} if self.file_digest else {}
        names = {"measurement": self.measurement, "model": self.model, **digest}
        return names | {"conditions": _as_plain(self.conditions)}

    @property
    def is_from_file(self) -> bool:
        """Whether the model may be another than its record's: its file may import what has changed since."""
        return bool(self.file_digest)

    @cached_property
    def file_digest(self) -> str:
        """The SHA-256 of the file that the model is built by; empty where it comes from a library."""
        source = split_file_model(self.source)
        return hashlib.sha256(source[0].read_bytes()).hexdigest() if source else ""

    @property
    def source(self) -> str:
        """What builds the model: its name, with the folder of a user's file before it."""
        return self.model if self.folder is None else str(self.folder / self.model)

    @cached_property
    def key(self) -> str:
        """The cell's address among the records."""
        return address(self.describe())

    @property
    def name(self) -> str:
        """What is measured, in a few words."""
        return self.model

    @property
    def file_name(self) -> str:
        """Of its record, without the suffix."""
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', self.model).strip('-.')}_{self.key}"

    @property
    def label(self) -> str:
        """One line for people: the model and the conditions that differ from their defaults."""
        return _label(self)


AnyCell = Cell | ModelCell


def _check_conditions(conditions: Conditions) -> None:
    """Raises InputError for a condition out of its range."""
    for name, value in vars(conditions).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(name, value, "a finite number")
        if name in CHOICES:
            pick(name, value, CHOICES[name])
        elif name in LEAST and not value >= LEAST[name]:  # nan is neither
            raise refuse(name, value, f"{LEAST[name]} or more")
    if isinstance(conditions, Memory | Accuracy):
        conditions.check()


def _resolve(conditions: Kind, model: str) -> Kind:
    """Returns conditions without None: what a recipe leaves to the model is as released."""
    values = vars(conditions)
    left_open: dict[str, Any] = {
        name: value for name, value in as_released(model).items() if name in values and values[name] is None
    }
    return replace(conditions, **left_open)


def parse_stages(checkpointing: str) -> tuple[int, ...]:
    """Returns the stages, from 1, that a text such as `1+2` names; none for `none`. Raises InputError for another."""
    if checkpointing == "none":
        return ()
    stages = checkpointing.split("+")
    if stages != sorted(set(stages) & {str(stage) for stage in range(1, NUM_STAGES + 1)}):
        raise refuse("checkpointing", checkpointing, "none, or stages in their order, such as 1, 1+2 or 1+2+3+4")
    return tuple(map(int, stages))


def _as_plain(values: Any) -> dict[str, Any]:
    return {name: _plain(value) for name, value in asdict(values).items()}


def _label(cell: AnyCell, values: dict[str, str] | None = None) -> str:
    defaults = type(cell.conditions)()
    changed = {name: value for name, value in vars(cell.conditions).items() if value != getattr(defaults, name)}
    words = [f"{name}={value}" for name, value in ((values or {}) | changed).items()]
    return " ".join([cell.measurement, cell.name, *words])


def split_file_model(model: str) -> tuple[Path, str] | None:
    """Returns the file and the function of a model such as `nets/mine.py:build`, or None where it names no file.

    Raises InputError where the file is not there.
    """
    path, _, function = model.rpartition(":")
    if not path.endswith(".py"):
        if model.endswith(".py"):
            raise refuse("model", model, "a file and its function that returns a module, such as mine.py:build")
        return None
    if not Path(path).is_file():
        raise refuse("model", model, "a Python file that exists, before the colon")
    return Path(path), function


def address(description: dict[str, Any]) -> str:
    """Returns the address that a cell's description gives it: 16 hex digits of a SHA-256.

    Values that are their field's default do not count, so a field that is added later, with a default that leaves
    everything as it was, changes no address.
    """
    kinds = {"config": PVTConfig, "conditions": CONDITIONS_OF[description["measurement"]]}
    counted = description | {
        name: without_defaults(description[name], kind) for name, kind in kinds.items() if name in description
    }
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_defaults(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """Returns the values that are not the default of their field in `kind`: an older record lacks newer fields."""
    defaults = {field.name: field.default for field in fields(kind)}
    always = {field.name for field in fields(kind) if field.metadata.get("in_key")}
    return {
        name: value for name, value in values.items() if name in always or value != _plain(defaults.get(name, MISSING))
    }


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def build_cell(model: str, conditions: Cost | Memory | Accuracy) -> AnyCell:
    """Returns the cell of a model by its name: a Cell for `pvt:VARIANT/ARM/BASE`, else a ModelCell.

    Raises InputError for a name that no source has the form of; whether the source knows it, is seen when it is built.
    """
    source, _, rest = model.partition(":")
    if source == "pvt":
        if rest.count("/") != 2:
            raise refuse("model", model, "pvt:VARIANT/ARM/BASE, such as pvt:b2/v1+ope/published")
        variant, arm, base = rest.split("/")
        return Cell(variant=variant, arm=arm, base=base, conditions=conditions)
    if file := split_file_model(model):
        path, function = file
        return ModelCell(model=f"{path.name}:{function}", folder=path.resolve().parent, conditions=conditions)
    if not (source in MODEL_SOURCES and rest):
        sources = ", ".join(f"{name}:NAME" for name in MODEL_SOURCES)
        raise refuse("model", model, f"{sources}, pvt:VARIANT/ARM/BASE or FILE.py:FUNCTION")
    return ModelCell(model=model, conditions=conditions)
