"""The studies: named lists of cells, in order of value, and how to choose among cells. Needs no torch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeVar, cast, get_args

from ablations.catalogue import (
    ARMS_OF_LIBRARIES,
    EQUAL_MODELS,
    MODELS,
    OTHER_BASELINES,
    OWN_RESOLUTIONS,
    PAPER_TABLES,
    SCALED,
)
from ablations.config import ARMS, BASES, AttentionKernel
from ablations.design import (
    Accuracy,
    AnyCell,
    Cell,
    Conditions,
    Cost,
    Device,
    Evaluation,
    Memory,
    Method,
    Mode,
    Speed,
    build_cell,
)
from ablations.errors import pick, refuse

CUMULATIVE = ("v1", "v1+ope", "v1+ope+cffn", "v1+ope+cffn+lsra")
"""The paper's path through the arms (Table 6)."""

MODES: tuple[Mode, ...] = get_args(Mode)
KERNELS: tuple[AttentionKernel, ...] = get_args(AttentionKernel)
METHODS: tuple[Method, ...] = get_args(Method)

Kind = TypeVar("Kind", Cost, Memory, Speed, Accuracy, Evaluation)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All combinations of variants, arms, bases, attention kernels and conditions."""

    conditions: tuple[Conditions, ...]
    variants: tuple[str, ...]
    arms: tuple[str, ...] = ARMS
    bases: tuple[str, ...] = ("v2",)
    attention: tuple[AttentionKernel, ...] = ("fused",)
    pool_size: int | None = None
    """P of linear SRA; each variant's own where None."""

    def cells(self) -> Iterator[Cell]:
        # Arms vary fastest, so that an interrupted study has whole comparisons.
        rows = product(self.variants, self.bases, self.attention, self.conditions, self.arms)
        for variant, base, attention, conditions, arm in rows:
            yield Cell(
                variant=variant,
                arm=arm,
                base=base,
                attention=attention,
                pool_size=self.pool_size,
                conditions=conditions,
            )


@dataclass(frozen=True, kw_only=True)
class NamedModels:
    """All combinations of named models and conditions; `pvt:` names are arms."""

    models: tuple[str, ...]
    conditions: tuple[Cost | Memory, ...]

    def cells(self) -> Iterator[AnyCell]:
        for model, conditions in product(self.models, self.conditions):
            yield build_cell(model, conditions)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A named list of grids, in order of value."""

    name: str
    description: str
    grids: tuple[Grid | NamedModels, ...]
    portable: bool = True
    """Whether its cells mean something on any device, or only where the study has them."""

    def cells(self) -> list[AnyCell]:
        """Returns every cell once, in order."""
        return list({cell.key: cell for grid in self.grids for cell in grid.cells()}.values())


def vary(conditions: Kind, **values: tuple) -> tuple[Kind, ...]:
    """Returns `conditions` with every combination of the given `values` of its fields."""
    return tuple(replace(conditions, **dict(zip(values, row, strict=True))) for row in product(*values.values()))


DIGITS = Accuracy(epochs=3, batch_size=32, base_lr=5e-3)
"""Scikit-learn's digits, for as long as some seconds a training."""

FASHION_MNIST = Accuracy(data="fashion-mnist", epochs=3, base_lr=6e-3, warmup_epochs=0.2)
"""All of it, for some minutes a training."""

IMAGENETTE_64 = Accuracy(
    data="imagenette224", resolution=64, epochs=12, warmup_epochs=1.0, eval_resolutions=(48, 96, 128, 160)
)
"""Imagenette at 64 px, where P = 4 gives linear SRA as many keys as SRA has."""

TUNING_SEED = 100
"""Of trainings that choose a recipe; the studies' seeds are others."""


def tuned(conditions: Accuracy, tuning_images: int, rates: tuple[float, ...]) -> tuple[Accuracy, ...]:
    """Returns trainings at several learning rates, scored on images that are set aside from the training images."""
    conditions = replace(conditions, tuning_images=tuning_images, eval_resolutions=(), seed=TUNING_SEED)
    return vary(conditions, base_lr=rates)


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

SCALES = (224, 320, 448, 512, 640, 800, 1024, 1280, 1600, 2048)
"""Sides in pixels at which MACs are drawn against the size of the input (the paper's Figure 4)."""

BESIDE_LIBRARIES = Speed(reference="timm+transformers", repeats=20)

SPEED_BESIDE_LIBRARIES = (
    *(
        replace(BESIDE_LIBRARIES, mode=mode, resolution=side, batch_size=batch, repeats=repeats)
        for side, batch, repeats in ((64, 16, 20), (224, 4, 20), (512, 1, 12))
        for mode in MODES
    ),
    replace(BESIDE_LIBRARIES, resolution=1024, batch_size=1, repeats=9),
    replace(BESIDE_LIBRARIES, mode="training", resolution=1024, batch_size=1, repeats=9, reference="timm"),
)
"""Sizes and batches on a CPU, the fewer repeats the longer a step takes: from nine on an interval is less than their
range. A step of transformers' training at 1024 px would take longer than all others."""

GPU_BESIDE_LIBRARIES = replace(BESIDE_LIBRARIES, device="cuda", batch_size=64, repeats=30)

GPU_SETTINGS: dict[str, tuple] = {"mode": MODES, "precision": ("float32", "bf16"), "compiled": (False, True)}

PREDICTED = Memory(method="predicted")

PREDICTED_SIZES = (224, 512, 768, 1024, 1536, 2048, 4096)
"""Sides in pixels of the curves that are predicted."""

BOTH_WAYS = Memory(resolution=512)
"""What is predicted and measured under further conditions."""

GPU_SIZES = (224, 512, 1024, 2048)
"""Sides in pixels at which memory is measured on a GPU."""

BASELINES_IN_MEMORY = tuple(MODELS[name] for name in ("ResNet50", "ViT-S/16", "Swin-T"))

LIBRARY_SIZES = (64, 224, 512, 1024)
"""Sides in pixels at which memory stands beside that of libraries' equal models."""


def beside_libraries(variant: str, conditions: tuple[Memory, ...]) -> tuple[Grid | NamedModels, ...]:
    """Returns a variant's arms that libraries have too, and the libraries' models.

    These are taken in the default layout, channels-first, and at 224 px channels-last too. v1 is taken at 224 px alone, the
    only size that transformers' takes.
    """
    grids: list[Grid | NamedModels] = []
    at_224 = tuple(each for each in conditions if each.resolution == 224)
    for arm in ARMS_OF_LIBRARIES["transformers"]:
        chosen = at_224 if arm == "v1" else conditions
        default_layout = tuple(replace(each, channels_last=False) for each in chosen)
        models = tuple(names[variant, arm] for names in EQUAL_MODELS.values() if (variant, arm) in names)
        grids.append(Grid(variants=(variant,), arms=(arm,), bases=("published",), conditions=chosen))
        grids.append(NamedModels(models=models, conditions=(*default_layout, *at_224)))
    return tuple(grids)


STUDIES = {
    study.name: study
    for study in (
        Study(
            name="paper",
            description="every parameter and GFLOPs column of the paper, its Figure 4, and the backbones it names",
            grids=(
                *(
                    NamedModels(
                        models=tuple(table.models.values()),
                        conditions=vary(Cost(), head=table.heads, resolution=(table.resolution,)),
                    )
                    for table in PAPER_TABLES.values()
                ),
                Grid(
                    variants=("b2",),
                    bases=BASES,
                    conditions=(Cost(head="retinanet", resolution=(800, 1280)),),
                ),
                Grid(variants=("b2",), bases=("published",), conditions=vary(Cost(), resolution=SCALES)),
                NamedModels(models=tuple(MODELS[name] for name in SCALED), conditions=vary(Cost(), resolution=SCALES)),
                *(
                    NamedModels(models=(model,), conditions=(Cost(resolution=OWN_RESOLUTIONS.get(name, 224)),))
                    for name, model in OTHER_BASELINES.items()
                ),
            ),
        ),
        Study(
            name="quick",
            description="every measurement, eight arms, small models, scikit-learn's digits; minutes on two CPU cores",
            grids=(
                Grid(
                    variants=("b2",),
                    bases=("published",),
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
            name="memory",
            description="peak memory of b2 and of baselines: predicted to 4096 px, measured to 1024 px; an hour on a CPU",
            portable=False,
            grids=(
                Grid(
                    variants=("b2",),
                    attention=KERNELS,
                    conditions=vary(PREDICTED, mode=MODES, resolution=PREDICTED_SIZES),
                ),
                Grid(
                    variants=("nano",),
                    attention=KERNELS,
                    conditions=vary(PREDICTED, mode=MODES, resolution=(128, 256, 512)),
                ),
                NamedModels(
                    models=BASELINES_IN_MEMORY, conditions=vary(PREDICTED, mode=MODES, resolution=PREDICTED_SIZES)
                ),
                Grid(
                    variants=("b2",),
                    attention=KERNELS,
                    conditions=vary(PREDICTED, mode=MODES, resolution=((800, 1280), (512, 2048))),
                ),
                # What of the published first step is the base's.
                Grid(
                    variants=("b2",),
                    bases=("v1",),
                    arms=("v1", "v1+ope"),
                    attention=KERNELS,
                    conditions=vary(PREDICTED, mode=MODES, resolution=(224, 512, 1024)),
                ),
                # What the GPU cells of the study `gpu` are compared with.
                Grid(
                    variants=("b2", "b0"),
                    attention=KERNELS,
                    conditions=vary(replace(PREDICTED, device="cuda"), mode=MODES, resolution=GPU_SIZES),
                ),
                Grid(
                    variants=("b2",),
                    attention=KERNELS,
                    conditions=vary(Memory(), mode=MODES, resolution=(224, 512, 1024)),
                ),
                NamedModels(
                    models=BASELINES_IN_MEMORY, conditions=vary(Memory(), mode=MODES, resolution=(224, 512, 1024))
                ),
                Grid(
                    variants=("b2",),
                    arms=(CUMULATIVE[0], CUMULATIVE[-1]),
                    attention=KERNELS,
                    conditions=(
                        *vary(BOTH_WAYS, method=METHODS, mode=MODES, precision=("bf16",)),
                        *vary(BOTH_WAYS, method=METHODS, mode=MODES, channels_last=(False,)),
                        *vary(BOTH_WAYS, method=METHODS, mode=("training",), checkpointing=("1", "1+2+3+4")),
                    ),
                ),
                *beside_libraries("b0", vary(PREDICTED, mode=MODES, resolution=LIBRARY_SIZES)),
                *beside_libraries("b2", vary(PREDICTED, mode=MODES, resolution=LIBRARY_SIZES)),
                *beside_libraries("b2", vary(Memory(), mode=MODES, resolution=(224,))),
            ),
        ),
        Study(
            name="speed",
            description="speed of b0, b2 and nano beside timm's and transformers'; 40 minutes on a quiet CPU",
            portable=False,
            grids=(
                Grid(
                    variants=("nano",),
                    arms=("v1+ope+cffn", "v1+ope+cffn+lsra"),
                    bases=("published",),
                    conditions=vary(BESIDE_LIBRARIES, mode=MODES, resolution=(32,), batch_size=(128,)),
                ),
                Grid(
                    variants=("b0", "b2"),
                    arms=("v1+ope+cffn",),
                    bases=("published",),
                    conditions=SPEED_BESIDE_LIBRARIES,
                ),
                Grid(
                    variants=("b2",),
                    arms=("v1+ope+cffn+lsra",),
                    bases=("published",),
                    conditions=SPEED_BESIDE_LIBRARIES,
                ),
                Grid(
                    variants=("b2",),
                    arms=("v1",),
                    bases=("published",),
                    conditions=vary(
                        replace(BESIDE_LIBRARIES, reference="transformers"),
                        mode=MODES,
                        resolution=(224,),
                        batch_size=(4,),
                    ),
                ),
            ),
        ),
        Study(
            name="digits",
            description="accuracy on scikit-learn's digits, pico and nano, bases v1 and v2, 20 seeds; an hour on a CPU",
            grids=tuple(
                Grid(variants=(variant,), bases=("v1", "v2"), conditions=(replace(DIGITS, base_lr=rate, seed=seed),))
                for seed in range(20)
                for variant, rate in (("pico", 5e-3), ("nano", 2.5e-3))
            ),
        ),
        Study(
            name="fashion-mnist",
            description="accuracy on Fashion-MNIST",
            grids=tuple(
                Grid(variants=("pico",), conditions=(replace(FASHION_MNIST, seed=seed),))
                for seed in range(10)
            ),
        ),
        Study(
            name="imagenette",
            description="accuracy on Imagenette at 64 px",
            grids=tuple(
                Grid(variants=("nano",), bases=("v2", "v1"), pool_size=4, conditions=(replace(IMAGENETTE_64, seed=seed),))
                for seed in range(6)
            ),
        ),
        Study(
            name="tuning-digits",
            description="learning rates of the study digits, on training images set aside; ten minutes on a CPU",
            grids=(
                Grid(
                    variants=("pico", "nano"),
                    bases=("v1", "v2"),
                    conditions=tuned(DIGITS, 300, (1.25e-3, 2.5e-3, 5e-3, 1e-2)),
                ),
            ),
        ),
        Study(
            name="tuning-fashion-mnist",
            description="learning rates of the study fashion-mnist, on training images set aside; an hour on a CPU",
            grids=(
                Grid(
                    variants=("pico",),
                    arms=(CUMULATIVE[0], CUMULATIVE[-1]),
                    conditions=tuned(FASHION_MNIST, 6000, (3e-3, 6e-3, 1.2e-2)),
                ),
            ),
        ),
        Study(
            name="tuning-imagenette",
            description="learning rates of the study imagenette, on training images set aside; an hour on a CPU",
            grids=(
                Grid(
                    variants=("nano",),
                    bases=("v1", "v2"),
                    arms=(CUMULATIVE[0], CUMULATIVE[-1]),
                    pool_size=4,
                    conditions=tuned(IMAGENETTE_64, 940, (1.5e-3, 3e-3, 6e-3)),
                ),
            ),
        ),
        Study(
            name="gpu",
            description="what needs a GPU: Imagenette at 224 px with b0; memory and speed of b0 and b2",
            portable=False,
            grids=(
                Grid(variants=("b0",), conditions=(IMAGENETTE,)),
                Grid(variants=("b0",), bases=("published",), conditions=(IMAGENETTE,)),
                Grid(
                    variants=("b2", "b0"),
                    attention=KERNELS,
                    conditions=vary(Memory(device="cuda"), mode=MODES, resolution=GPU_SIZES),
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
                Grid(
                    variants=("b0", "b2"),
                    arms=("v1+ope+cffn", "v1+ope+cffn+lsra"),
                    bases=("published",),
                    conditions=vary(GPU_BESIDE_LIBRARIES, **GPU_SETTINGS, resolution=(224, 512)),
                ),
                Grid(
                    variants=("b0", "b2"),
                    arms=("v1",),
                    bases=("published",),
                    conditions=vary(replace(GPU_BESIDE_LIBRARIES, reference="transformers"), **GPU_SETTINGS),
                ),
                NamedModels(
                    models=BASELINES_IN_MEMORY,
                    conditions=vary(Memory(device="cuda"), mode=MODES, resolution=GPU_SIZES),
                ),
                Grid(variants=("b0",), bases=("v2", "published"), conditions=vary(IMAGENETTE, seed=(1, 2))),
                Grid(
                    variants=("nano",),
                    conditions=vary(
                        Accuracy(
                            data="fashion-mnist",
                            epochs=15,
                            batch_size=128,
                            base_lr=6e-3,
                            precision="bf16",
                            device="cuda",
                        ),
                        seed=(0, 1, 2),
                    ),
                ),
            ),
        ),
    )
}


def select(cells: list[AnyCell], **wanted: tuple) -> list[AnyCell]:
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


def on_devices(cells: list[AnyCell], devices: tuple[Device, ...]) -> list[AnyCell]:
    """Returns the cells that depend on a device once for each of `devices`, and the others as they are."""
    placed = [
        replace(cell, conditions=replace(cast(Any, cell.conditions), device=device)) if _field(cell, "device") else cell
        for device in devices
        for cell in cells
    ]
    return list({cell.key: cell for cell in placed}.values())


def _field(cell: AnyCell, name: str) -> Any:
    return getattr(cell, name, getattr(cell.conditions, name, None))


def find_study(name: str) -> Study:
    """Returns the study of that name; raises InputError for an unknown one."""
    return STUDIES[pick("study", name, STUDIES)]
