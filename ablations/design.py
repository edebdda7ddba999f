"""What is measured: conditions, cells, studies. A study is a list of cells; a cell is one record. Needs no torch."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cached_property
from itertools import product
from typing import Any, Literal, cast, get_args

from ablations.config import ARMS, AttentionKernel, PVTConfig, Size, build_config, variant_name
from ablations.errors import pick, refuse

Measurement = Literal["cost", "memory", "speed", "accuracy"]
Mode = Literal["inference", "training"]
Precision = Literal["float32", "bf16"]
Device = Literal["cpu", "cuda"]

LADDER = ("v1", "v1+ope", "v1+ope+cffn", "v1+ope+cffn+lsra")
"""The paper's path through the arms (Table 6)."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Parameters and multiply-adds of one picture's forward pass."""

    measurement = "cost"

    resolution: Size = 224
    """Side of the input in pixels, or height and width."""


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


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Time of one inference or training step, beside arm v1's in the same frame, timed in turn in one process."""

    measurement = "speed"

    resolution: Size = 224
    """Side of the input in pixels, or height and width."""
    mode: Mode = "inference"
    batch_size: int = 8
    precision: Precision = "float32"
    """`bf16` is autocast to bfloat16."""
    device: Device = "cpu"
    repeats: int = 10
    """Timed steps of each of the two models, after the warm-up."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Top-1 accuracy on the held-out pictures after training from scratch."""

    measurement = "accuracy"

    data: str = "digits"
    """`digits`, `fashion-mnist`, or the name of an image folder in the data directory."""
    num_classes: int = 10
    """Of the data set; one that has another number is refused."""
    resolution: int = 32
    """Side in pixels of the pictures as the model sees them; grey ones are given to all three channels."""
    train_images: int = 0
    """How many training pictures to use, the same number of each class; 0 is all."""
    epochs: int = 20
    batch_size: int = 64
    base_lr: float = 3e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.05
    warmup_epochs: float = 0.5
    """Epochs of linear rise of the learning rate; a cosine takes it to 1 % of its peak after them."""
    label_smoothing: float = 0.1
    drop_path_rate: float = 0.0
    precision: Precision = "float32"
    """`bf16` is autocast to bfloat16."""
    device: Device = "cpu"
    seed: int = 0
    """Of the initial weights, the order of the pictures and their augmentation: arms with equal seeds are paired."""

    def check(self) -> None:
        """Raises InputError for a recipe that cannot be trained."""
        if not self.base_lr > 0:
            raise refuse("base_lr", self.base_lr, "more than 0")
        if not 0 <= self.label_smoothing < 1:
            raise refuse("label_smoothing", self.label_smoothing, "0 or more and less than 1")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise refuse("warmup_epochs", self.warmup_epochs, f"0 or more and less than epochs, {self.epochs}")
        if self.train_images % self.num_classes:
            raise refuse(
                "train_images", self.train_images, f"0 for all, or a multiple of num_classes, {self.num_classes}"
            )


CHOICES: dict[str, tuple[str, ...]] = {
    "mode": get_args(Mode),
    "precision": get_args(Precision),
    "device": get_args(Device),
}
LEAST = {"batch_size": 1, "repeats": 2, "epochs": 1, "train_images": 0, "weight_decay": 0, "seed": 0, "num_classes": 2}
"""The smallest value that makes sense for a condition."""

Conditions = Cost | Memory | Speed | Accuracy

CONDITIONS_OF: dict[str, type] = {kind.measurement: kind for kind in get_args(Conditions)}
"""The class of each measurement's conditions."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model under one set of conditions: what makes one record."""

    variant: str
    arm: str
    frame: str
    conditions: Conditions
    attention: AttentionKernel = "fused"
    pool_size: int | None = None
    """P of linear SRA; the variant's own where None."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "variant", variant_name(self.variant))
        for name, value in vars(self.conditions).items():
            if name in CHOICES:
                pick(name, value, CHOICES[name])
            elif name in LEAST and not value >= LEAST[name]:  # nan is neither
                raise refuse(name, value, f"{LEAST[name]} or more")
        if isinstance(self.conditions, Accuracy):
            self.conditions.check()
        self.config.check_size("resolution", self.conditions.resolution)

    @property
    def measurement(self) -> str:
        return self.conditions.measurement

    @cached_property
    def config(self) -> PVTConfig:
        """The model's config; learned position embeddings are made for the variant's `img_size` and resized from it."""
        overrides: dict[str, Any] = {"attention": self.attention}
        if self.pool_size is not None:
            overrides["pool_size"] = self.pool_size
        if isinstance(self.conditions, Accuracy):
            overrides |= {
                "img_size": self.conditions.resolution,
                "num_classes": self.conditions.num_classes,
                "drop_path_rate": self.conditions.drop_path_rate,
            }
        return build_config(self.variant, self.arm, self.frame, **overrides)

    def describe(self) -> dict[str, Any]:
        """Returns what identifies the cell, as plain values: names, the whole config and the conditions."""
        names = {"measurement": self.measurement, "variant": self.variant, "arm": self.arm, "frame": self.frame}
        return names | {"config": asdict(self.config), "conditions": asdict(self.conditions)}

    @cached_property
    def key(self) -> str:
        """The cell's address among the records."""
        return address(self.describe())

    @property
    def label(self) -> str:
        """One line for people: the names and the conditions that differ from their defaults."""
        defaults = type(self.conditions)()
        values = {name: value for name, value in vars(self.conditions).items() if value != getattr(defaults, name)}
        if self.pool_size is not None:
            values = {"pool_size": self.pool_size} | values
        if self.attention != "fused":
            values = {"attention": self.attention} | values
        return " ".join(
            [self.measurement, self.variant, self.arm, f"frame={self.frame}", *(f"{k}={v}" for k, v in values.items())]
        )


def address(description: dict[str, Any]) -> str:
    """Returns the address that a cell's description gives it: 16 hex digits of a SHA-256.

    Values that are their field's default do not count, so a field that is added later, with a default that leaves
    everything as it was, changes no address.
    """
    counted = description | {
        "config": _without_defaults(description["config"], PVTConfig),
        "conditions": _without_defaults(description["conditions"], CONDITIONS_OF[description["measurement"]]),
    }
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_defaults(values: dict[str, Any], kind: type) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(kind)}
    return {name: value for name, value in values.items() if value != defaults.get(name, MISSING)}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All combinations of variants, arms, frames, attention kernels and conditions."""

    conditions: tuple[Conditions, ...]
    variants: tuple[str, ...]
    arms: tuple[str, ...] = ARMS
    frames: tuple[str, ...] = ("v2",)
    attention: tuple[AttentionKernel, ...] = ("fused",)
    pool_size: int | None = None
    """P of linear SRA; each variant's own where None."""

    def cells(self) -> Iterator[Cell]:
        # Arms vary fastest, so that an interrupted study has whole comparisons.
        rows = product(self.variants, self.frames, self.attention, self.conditions, self.arms)
        for variant, frame, attention, conditions, arm in rows:
            yield Cell(
                variant=variant,
                arm=arm,
                frame=frame,
                attention=attention,
                pool_size=self.pool_size,
                conditions=conditions,
            )


@dataclass(frozen=True, kw_only=True)
class Study:
    """A named list of grids, in order of value."""

    name: str
    description: str
    grids: tuple[Grid, ...]
    portable: bool = True
    """Whether its cells mean something on any device, or only where the study has them."""

    def cells(self) -> list[Cell]:
        """Returns every cell once, in order."""
        return list({cell.key: cell for grid in self.grids for cell in grid.cells()}.values())


def vary(conditions: Conditions, **values: tuple) -> tuple[Conditions, ...]:
    """Returns `conditions` with every combination of the given `values` of its fields."""
    return tuple(replace(conditions, **dict(zip(values, row, strict=True))) for row in product(*values.values()))


MODES: tuple[Mode, ...] = get_args(Mode)
KERNELS: tuple[AttentionKernel, ...] = get_args(AttentionKernel)

IMAGENETTE = Accuracy(
    data="imagenette224",
    resolution=224,
    epochs=60,
    batch_size=128,
    base_lr=1e-3,
    warmup_epochs=5.0,
    drop_path_rate=0.1,
    precision="bf16",
    device="cuda",
)
"""The ten classes of fastai's Imagenette, squashed to 224 x 224 px."""

STUDIES = {
    study.name: study
    for study in (
        Study(
            name="quick",
            description="every measurement, eight arms, small models, scikit-learn's digits; minutes on two CPU cores",
            grids=(
                Grid(
                    variants=("b2",),
                    frames=("published",),
                    conditions=vary(Cost(), resolution=(224, (800, 1280))),
                ),
                Grid(variants=("b2",), conditions=vary(Cost(), resolution=(224, 512, 1024, 2048))),
                Grid(variants=("nano",), conditions=vary(Cost(), resolution=(32,))),
                Grid(
                    variants=("nano",),
                    attention=KERNELS,
                    conditions=vary(Memory(), mode=MODES, resolution=(128, 256, 512)),
                ),
                Grid(
                    variants=("nano",),
                    conditions=vary(Speed(), mode=MODES, resolution=(32, 96)),
                ),
                Grid(
                    variants=("pico",),
                    conditions=vary(Accuracy(epochs=3, batch_size=32, base_lr=5e-3), seed=(0, 1, 2)),
                ),
            ),
        ),
        Study(
            name="fashion-mnist",
            description="accuracy of eight arms on all of Fashion-MNIST, pico, paired seeds; about an hour on a CPU",
            grids=(
                Grid(
                    variants=("pico",),
                    conditions=vary(
                        Accuracy(data="fashion-mnist", epochs=3, base_lr=6e-3, warmup_epochs=0.2), seed=(0, 1, 2)
                    ),
                ),
            ),
        ),
        Study(
            name="gpu",
            description="what needs a GPU: Imagenette at 224 px with b0; memory and speed of b0 and b2",
            portable=False,
            grids=(
                Grid(variants=("b0",), conditions=(IMAGENETTE,)),
                Grid(
                    variants=("b2", "b0"),
                    attention=KERNELS,
                    conditions=vary(Memory(device="cuda"), mode=MODES, resolution=(224, 512, 1024, 2048)),
                ),
                Grid(
                    variants=("b2", "b0"),
                    conditions=vary(
                        Speed(device="cuda", batch_size=64, repeats=30),
                        mode=MODES,
                        precision=("float32", "bf16"),
                        resolution=(224, 512),
                    ),
                ),
                Grid(variants=("b0",), conditions=vary(IMAGENETTE, seed=(1, 2))),
            ),
        ),
    )
}


def select(cells: list[Cell], **wanted: tuple) -> list[Cell]:
    """Returns the cells whose fields have one of the `wanted` values; an empty tuple wants all.

    Fields are those of Cell and of its conditions; a cell without such a field (a cost has no seed) stays. Raises
    InputError for a value that no cell has.
    """
    for name, values in wanted.items():
        present = list(dict.fromkeys(_field(cell, name) for cell in cells if _field(cell, name) is not None))
        for value in values:
            if value not in present:
                raise refuse(name, value, ", ".join(map(str, present)) or "nothing: no cell is left to choose from")
        if values:
            cells = [cell for cell in cells if _field(cell, name) in (None, *values)]
    return cells


def on_devices(cells: list[Cell], devices: tuple[Device, ...]) -> list[Cell]:
    """Returns the cells that depend on a device once for each of `devices`, and the others as they are."""
    placed = [
        replace(cell, conditions=replace(cast(Any, cell.conditions), device=device)) if _field(cell, "device") else cell
        for device in devices
        for cell in cells
    ]
    return list({cell.key: cell for cell in placed}.values())


def _field(cell: Cell, name: str) -> Any:
    return getattr(cell, name, getattr(cell.conditions, name, None))


def find_study(name: str) -> Study:
    """Returns the study of that name; raises InputError for an unknown one."""
    return STUDIES[pick("study", name, STUDIES)]
