"""The commands: what each takes, as dataclasses whose docstrings are the help, and the cells that it asks for."""

# No torch is imported here, so that help and lists answer at once.
import hashlib
import io
import itertools
import os
import re
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from ablations.catalogue import ARMS_OF_LIBRARIES as LIBRARIES
from ablations.config import ARMS, BASES, VARIANT_ALIASES, VARIANTS, AttentionKernel, Size
from ablations.data.registry import count_classes
from ablations.design import (
    Accuracy,
    AnyCell,
    Cell,
    Cost,
    Device,
    Evaluation,
    Head,
    Memory,
    Mode,
    Precision,
    Protocol,
    Speed,
    build_cell,
    parse_stages,
)
from ablations.errors import InputError, pick, refuse
from ablations.recipes import RECIPES, RecipeName, recipe_values
from ablations.studies import MODES, Grid, find_study, on_devices, select, vary

Library = Literal["timm", "transformers"]


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where records go and how the command behaves."""

    results: Path = Path("runs")
    """Folder of records, tables and figures."""
    data_dir: Path | None = None
    """Folder of the data sets; else the environment variable ABLATIONS_DATA_DIR, else `data`."""
    time_budget: str | None = None
    """Such as 20min, 90s or 1.5h: start no cell that by the records of its like would end later."""
    dry_run: bool = False
    """Print the cells and which are done, and measure nothing."""
    force: bool = False
    """Measure memory even where a prediction says that there is not enough, and again where there was not."""
    debug: bool = False
    """Print full tracebacks."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How trainings run, and what is kept of them."""

    jobs: int = 1
    """Trainings side by side on the CPU, which share its cores; for small models one a core is fastest. The last digits
    depend on the threads that each has, and only arms with equally many are compared."""
    tensorboard: bool = False
    """Write TensorBoard's events to RESULTS/tensorboard; the history is in the records and RESULTS/logs anyway."""
    save_weights: bool = False
    """Write the trained weights to RESULTS/weights; `evaluate` takes them, with image folders."""


@dataclass(frozen=True, kw_only=True)
class Run(Training, Output):
    """Measure a study; the flags choose among its cells."""

    study: tyro.conf.Positional[str] = "quick"
    """Its name; `list` says what there is."""
    measurements: tuple[str, ...] = ()
    """Among cost, memory, speed and accuracy."""
    variants: tuple[str, ...] = ()
    """Sizes; see `list`."""
    arms: tuple[str, ...] = ()
    """Toggles that are on; see `list`."""
    bases: tuple[str, ...] = ()
    """What sets the confounders; see `list`."""
    resolutions: tuple[str, ...] = ()
    """Pixels, such as 224 or 800x1280."""
    seeds: tuple[int, ...] = ()
    """Of trainings."""
    devices: tuple[Device, ...] = ()
    """Run the cells here instead of where the study has them; by default also on a GPU where there is one."""

    def cells(self) -> list[AnyCell]:
        study = find_study(self.study)
        cells = select(
            study.cells(),
            measurement=self.measurements,
            variant=tuple(VARIANT_ALIASES.get(name, name) for name in self.variants),
            arm=self.arms,
            base=self.bases,
            resolution=tuple(map(parse_size, self.resolutions)),
            seed=self.seeds,
        )
        return on_devices(cells, self.devices or _default_devices()) if self.devices or study.portable else cells


@dataclass(frozen=True, kw_only=True)
class Models(Output):
    """Which models a single measurement takes."""

    variants: tuple[str, ...] = ("b2",)
    """Sizes; see `list`."""
    arms: tuple[str, ...] = ARMS
    """Toggles that are on; see `list`."""
    bases: tuple[str, ...] = ("v2",)
    """What sets the confounders; see `list`."""
    pool_size: int | None = None
    """P of linear SRA; the variant's own by default."""

    def cells(self) -> list[AnyCell]:
        raise NotImplementedError

    def _grid(self, conditions: tuple, attention: tuple[AttentionKernel, ...] = ("fused",)) -> list[AnyCell]:
        for name, choices in (("arm", ARMS), ("base", BASES), ("variant", (*VARIANTS, *VARIANT_ALIASES))):
            for value in getattr(self, f"{name}s"):
                pick(name, value, choices)
        grid = Grid(
            variants=self.variants,
            arms=self.arms,
            bases=self.bases,
            attention=attention,
            conditions=conditions,
            pool_size=self.pool_size,
        )
        return list({cell.key: cell for cell in grid.cells()}.values())


@dataclass(frozen=True, kw_only=True)
class MeasureCost(Models):
    """Count parameters and MACs: of every table of the paper, or of what the flags name."""

    variants: tuple[str, ...] = ()
    """b2 where only arms or bases are named."""
    arms: tuple[str, ...] = ()
    """All eight where only variants or bases are named."""
    bases: tuple[str, ...] = ()
    """v2 where only variants or arms are named."""
    model: tuple[str, ...] = ()
    """timm:NAME, transformers:cvt-13, baselines:NAME, pvt:VARIANT/ARM/BASE, or FILE.py:FUNCTION that returns a module."""
    resolutions: tuple[str, ...] = ()
    """Pixels, such as 224 or 800x1280; 224 by default."""
    heads: tuple[Head, ...] = ()
    """What stands on the backbones; their classifiers by default."""
    breakdown: bool = False
    """Print what each module adds by itself, too."""

    def cells(self) -> list[AnyCell]:
        arms_asked = bool(self.variants or self.arms or self.bases or self.pool_size is not None)
        if not (arms_asked or self.model or self.resolutions or self.heads):
            return find_study("paper").cells()
        sizes = tuple(map(parse_size, self.resolutions)) or (224,)
        conditions = vary(Cost(), head=self.heads or ("classifier",), resolution=sizes)
        cells = [build_cell(model, each) for model in self.model for each in conditions]
        if arms_asked or not self.model:
            whole = replace(
                self, variants=self.variants or ("b2",), arms=self.arms or ARMS, bases=self.bases or ("v2",)
            )
            cells += whole._grid(conditions)
        return list({cell.key: cell for cell in cells}.values())


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """Print parameters and MACs of all arms, bases and published variants as CSV, in closed form."""

    resolutions: tuple[str, ...] = ("224", "256", "320", "384", "448", "512", "640", "800x1280", "1024", "2048")
    """Pixels, such as 224 or 800x1280."""
    debug: bool = False
    """Print full tracebacks."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Time the count of MACs: our trace beside fvcore's on real tensors, interleaved in one process."""

    variant: str = "b2"
    """Size; see `list`."""
    arm: str = "v1+ope+cffn"
    """Toggles that are on; see `list`."""
    resolution: str = "1024"
    """Pixels, such as 224 or 800x1280."""
    repeats: int = 6
    """Counts of each, interleaved."""
    debug: bool = False
    """Print full tracebacks."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkEpoch:
    """Time an epoch of training beside timm's step and loader doing the same work, interleaved in one process."""

    variant: str = "b0"
    """Of arm v1+ope+cffn in the published base, which timm has too."""
    data: str | None = None
    """`digits`, ... or an image folder; imagenette224 by default if the data directory has it, else digits."""
    data_dir: Path | None = None
    """Folder of the data sets; else the environment variable ABLATIONS_DATA_DIR, else `data`."""
    resolution: int = 224
    """Side in pixels; more than 64."""
    batch_size: int = 64
    """Images of a step."""
    steps: int | None = None
    """Timed steps of each side; by default as many as take about 20 s, 0 is an epoch."""
    workers: int | None = None
    """Processes of timm's loader; one a core by default."""
    channels_last: bool = False
    """Lay timm's images and weights out channels-last, as ours are; by default as in timm's train.py."""
    precision: Precision = "float32"
    """`bf16` is autocast to bfloat16."""
    device: Device = "cpu"
    """Where it runs."""
    compiled: bool = False
    """Compile both models with torch.compile."""
    debug: bool = False
    """Print full tracebacks."""

    def conditions(self) -> Accuracy:
        directory = self.data_dir or Path(os.environ.get("ABLATIONS_DATA_DIR") or "data")
        data = self.data or ("imagenette224" if (directory / "imagenette224").is_dir() else "digits")
        return replace(
            start_recipe("small"),
            data=data,
            num_classes=count_classes(data, self.data_dir),
            resolution=self.resolution,
            batch_size=self.batch_size,
            precision=self.precision,
            device=self.device,
            compiled=self.compiled,
        )


@dataclass(frozen=True, kw_only=True)
class MeasureMemory(Models):
    """Measure peak memory of inference and of training steps, or predict it."""

    predict: bool = False
    """Run shapes alone: in about a second a cell at any size, and for a device that need not be there."""
    budget: str | None = None
    """Such as 24GiB or 16GB: print the largest image and the largest batch at each of the resolutions that fit."""
    verify: bool = False
    """With --budget: measure what fits, on the device."""
    model: tuple[str, ...] = ()
    """These models instead of arms: timm:NAME, pvt:VARIANT/ARM/BASE, FILE.py:FUNCTION, ... as `cost` takes them."""
    resolutions: tuple[str, ...] = ()
    """Pixels, such as 224 or 800x1280; 224, 512 and 1024 by default, with --predict 2048 and 4096 too."""
    modes: tuple[Mode, ...] = MODES
    """A forward pass without gradients, or a training step."""
    attention: tuple[AttentionKernel, ...] = ()
    """Both by default, with --budget the fused kernel."""
    checkpointing: tuple[str, ...] = ("none",)
    """Stages of the arms that keep no activations for the backward pass: none, or such as 1 or 1+2+3+4."""
    batch_size: int = 1
    """Images of a step."""
    precision: Precision = "float32"
    """`bf16` is autocast to bfloat16."""
    device: Device = "cpu"
    """Where it runs."""
    channels_last: bool = True
    """Lay images and convolutions' weights out channels-last, not channels-first."""

    def cells(self) -> list[AnyCell]:
        conditions = Memory(
            batch_size=self.batch_size,
            precision=self.precision,
            device=self.device,
            method="predicted" if self.predict else "measured",
            channels_last=self.channels_last,
        )
        for stages in self.checkpointing:
            parse_stages(stages)
        sizes = self.sizes((224, 512, 1024, 2048, 4096) if self.predict else (224, 512, 1024))
        varied = [
            each
            for mode in self.modes
            for stages in (self.checkpointing if mode == "training" else ("none",))
            for each in vary(conditions, mode=(mode,), checkpointing=(stages,), resolution=sizes)
        ]
        if self.model:
            cells = [build_cell(model, each) for model in self.model for each in varied]
            return list({cell.key: cell for cell in cells}.values())
        return self._grid(tuple(varied), self.attention or (("fused",) if self.budget else ("fused", "explicit")))

    def sizes(self, default: tuple[Size, ...]) -> tuple[Size, ...]:
        return tuple(map(parse_size, self.resolutions)) or default


@dataclass(frozen=True, kw_only=True)
class MeasureSpeed(Models):
    """Time inference and training steps of each arm, interleaved with arm v1's or with the same model of a library."""

    arms: tuple[str, ...] = ()
    """All eight by default, with --versus those that the library has."""
    bases: tuple[str, ...] = ()
    """v2 by default, with --versus published."""
    versus: tuple[Library, ...] = ()
    """Libraries whose models are timed beside ours, with the same weights and outputs that are compared first."""
    resolutions: tuple[str, ...] = ("224",)
    """Pixels, such as 224 or 800x1280."""
    modes: tuple[Mode, ...] = MODES
    """A forward pass without gradients, or a training step."""
    attention: tuple[AttentionKernel, ...] = ("fused",)
    """Of our models; timm's attend with the fused kernel, transformers' explicitly."""
    batch_size: int = 8
    """Images of a step."""
    precision: Precision = "float32"
    """`bf16` is autocast to bfloat16."""
    device: Device = "cpu"
    """Where it runs."""
    repeats: int = 10
    """Timed steps of each of the models, after the warm-up; six or more, as an interval needs."""
    channels_last: bool = True
    """Lay images and convolutions' weights out channels-last; libraries' models are timed in both layouts."""
    compiled: bool = False
    """Compile all models with torch.compile."""

    def cells(self) -> list[AnyCell]:
        conditions = Speed(
            batch_size=self.batch_size,
            precision=self.precision,
            device=self.device,
            repeats=self.repeats,
            reference=cast(Any, "+".join(name for name in LIBRARIES if name in self.versus) or "v1"),
            channels_last=self.channels_last,
            compiled=self.compiled,
        )
        sizes = tuple(map(parse_size, self.resolutions))
        shared = [arm for arm in ARMS if all(arm in LIBRARIES[name] for name in self.versus)]
        small = any("stem_stride" in VARIANTS.get(name, {}) for name in self.variants)
        if self.versus and (small or set(sizes) != {224}):  # libraries' v1 has patches of 4 px and inputs of 224
            shared = [arm for arm in shared if arm != "v1"]
        models = replace(
            self,
            arms=self.arms or tuple(shared),
            bases=self.bases or (("published",) if self.versus else ("v2",)),
        )
        return models._grid(vary(conditions, mode=self.modes, resolution=sizes), self.attention)


@dataclass(frozen=True, kw_only=True)
class MeasureAccuracy(Training, Models):
    """Train each arm, or any model, from scratch by a recipe and evaluate it; a training that was stopped goes on."""

    variants: tuple[str, ...] = ()
    """nano by default."""
    arms: tuple[str, ...] = ()
    """All eight by default."""
    bases: tuple[str, ...] = ()
    """v2 by default."""
    model: tuple[str, ...] = ()
    """These models instead of arms, or beside named ones: timm:NAME, pvt:VARIANT/ARM/BASE, FILE.py:FUNCTION."""
    recipe: RecipeName = "small"
    """Where the fields below begin; each may be given by itself."""
    seeds: tuple[int, ...] = ()
    """Several seeds instead of the one of --seed."""
    training: tyro.conf.OmitArgPrefixes[Accuracy] = field(default_factory=lambda: start_recipe("small"))

    def cells(self) -> list[AnyCell]:
        conditions = self.training
        if not conditions.num_classes:
            conditions = replace(conditions, num_classes=count_classes(conditions.data, self.data_dir))
        arms_asked = bool(self.variants or self.arms) or not self.model
        for name in () if arms_asked else ("bases", "pool_size"):
            if getattr(self, name):
                raise refuse(
                    name, getattr(self, name), "none beside --model without --arms or --variants: it is the arms'"
                )
        varied = vary(conditions, seed=self.seeds or (conditions.seed,))
        cells = [build_cell(model, each) for model in self.model for each in varied]
        if arms_asked:
            arms = replace(
                self, variants=self.variants or ("nano",), arms=self.arms or ARMS, bases=self.bases or ("v2",)
            )
            cells += arms._grid(varied)
        return list({cell.key: cell for cell in cells}.values())


def start_recipe(name: str) -> Accuracy:
    """Returns the conditions that a recipe begins with; 0 classes are those of the data set, whatever it is."""
    values: dict[str, Any] = recipe_values(name)
    return Accuracy(**values, num_classes=0)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Output):
    """Evaluate finished weights on a folder of images, at one test resolution or several."""

    checkpoint: Path
    """File of weights, by torch.save or .safetensors: this project's, the released code's, timm's or transformers'."""
    variant: str = "b2"
    """Size; see `list`."""
    arm: str = "v1+ope+cffn"
    """Toggles that are on; see `list`."""
    base: str = "published"
    """What sets the confounders; see `list`."""
    data: str = "imagenet"
    """Folder in the data directory, with images as val/CLASS/* or CLASS/*; some of ImageNet's classes will do."""
    resolutions: tuple[int, ...] = (224,)
    """Sides in pixels."""
    protocol: Protocol = "timm"
    """The centre crop is 0.9 of the resized image's short side in timm, 0.875 in paper."""
    num_classes: int = 1000
    """Classes that the weights tell apart."""
    img_size: int = 224
    """Pixels that learned position embeddings of the checkpoint are made for."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, and name them in the record."""
    batch_size: int = 64
    """Images of a step."""
    precision: Precision = "float32"
    """`bf16` is autocast to bfloat16."""
    device: Device = "cpu"
    """Where it runs."""

    def cells(self) -> list[AnyCell]:
        if not self.checkpoint.is_file():
            raise refuse("checkpoint", str(self.checkpoint), "a file of weights")
        names = ("data", "protocol", "num_classes", "img_size", "skip_unreadable", "batch_size", "precision", "device")
        with self.checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        conditions = Evaluation(checkpoint=digest, **{name: getattr(self, name) for name in names})
        return [
            Cell(variant=self.variant, arm=self.arm, base=self.base, conditions=each)
            for each in vary(conditions, resolution=self.resolutions)
        ]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Rebuild the tables and figures from the records."""

    results: Path = Path("runs")
    """Folder of records, tables and figures."""
    check: bool = False
    """Write nothing; name the tables and figures that differ from what the records give, and exit with 1 if any do."""
    html: bool = False
    """Write report.html too: one page with all of it, to be read anywhere."""
    debug: bool = False
    """Print full tracebacks."""


@dataclass(frozen=True, kw_only=True)
class List:
    """List the arms, variants, bases, data sets and studies."""

    debug: bool = False
    """Print full tracebacks."""


ABOUT = "Honest ablations of the Pyramid Vision Transformer, v1 to v2. Without a command it runs the study `quick`."


def parse(arguments: list[str]) -> Any:
    """Returns the command; raises InputError with the parser's complaint, and SystemExit where help was asked for."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["run", *arguments]
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            command: Any = tyro.cli(
                build_commands(arguments), prog="run_ablation.py", description=ABOUT, args=arguments
            )
    except SystemExit as leaving:
        if leaving.code:
            raise InputError(_one_line(complaint.getvalue())) from None
        raise
    for name, value in vars(command).items():
        if value == () and f"--{name.replace('_', '-')}" in arguments:
            raise refuse(name, (), "one or more values")
    return command


def build_commands(arguments: list[str]) -> Any:
    """Returns the commands; `accuracy` has the defaults, and so the help, of the recipe that the arguments name."""
    name = next((after for flag, after in itertools.pairwise(arguments) if flag == "--recipe"), "small")
    name = next((each.partition("=")[2] for each in arguments if each.startswith("--recipe=")), name)
    if name not in RECIPES:
        name = "small"  # the parser complains
    default = MeasureAccuracy(recipe=cast(Any, name), training=start_recipe(name))
    return (
        Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[MeasureCost, tyro.conf.subcommand("cost")]
        | Annotated[ClosedForm, tyro.conf.subcommand("closed-form")]
        | Annotated[MeasureMemory, tyro.conf.subcommand("memory")]
        | Annotated[MeasureSpeed, tyro.conf.subcommand("speed")]
        | Annotated[MeasureAccuracy, tyro.conf.subcommand("accuracy", default=default)]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Benchmark, tyro.conf.subcommand("benchmark-count")]
        | Annotated[BenchmarkEpoch, tyro.conf.subcommand("benchmark-epoch")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[List, tyro.conf.subcommand("list")]
    )


def _one_line(box: str) -> str:
    """Returns the first section of the parser's framed complaint as one line."""
    lines = [line.strip(" │╭╮╰╯") for line in box.splitlines()[1:]]
    return " ".join(lines).partition("───")[0].strip()


def _default_devices() -> tuple[Device, ...]:
    from ablations.measure.environment import default_device

    return ("cpu",) if default_device() == "cpu" else ("cpu", "cuda")


def parse_size(text: str) -> Size:
    """Returns the size that `224` or `800x1280` (height x width) means; raises InputError for anything else."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise refuse("resolution", text, "pixels such as 224, or height x width such as 800x1280")
    height, width = int(match[1]), int(match[2] or match[1])
    return height if height == width else (height, width)


def parse_duration(text: str) -> float:
    """Returns seconds for a text such as `90s`, `20min` or `1.5h`; raises InputError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text)
    if not match:
        raise refuse("time_budget", text, "a number with s, min or h, such as 20min")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]
