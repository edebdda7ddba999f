"""The commands: what each takes, as dataclasses whose docstrings are the help, and the cells that it asks for."""

# No torch is imported here, so that help and lists answer at once.
import hashlib
import io
import itertools
import re
from contextlib import redirect_stderr
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro

from ablations.baselines.registry import ARMS_OF_LIBRARIES as LIBRARIES
from ablations.cells import Cell, arm_cell, build_cell
from ablations.conditions import field_docstrings
from ablations.config import (
    ARMS,
    BASES,
    CONFOUNDERS,
    PVT_V1,
    PVT_V2,
    VARIANT_ALIASES,
    VARIANTS,
    AttentionKernel,
    Size,
    arm_toggles,
)
from ablations.data.registry import count_classes
from ablations.errors import InputError, pick, refuse
from ablations.measure import Accuracy, Cost, Evaluation, Measurement, Memory, Speed
from ablations.measure.measurement import MODES, Device
from ablations.measure.memory import parse_stages
from ablations.recipes import RECIPES, recipe_values
from ablations.studies import find_study, on_devices, parse_size, select, vary

Library = Literal["timm", "transformers"]


@dataclass(frozen=True, kw_only=True)
class Debug:
    """What every command takes."""

    debug: bool = False
    """Print full tracebacks."""


@dataclass(frozen=True, kw_only=True)
class Output(Debug):
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


@dataclass(frozen=True, kw_only=True)
class Training:
    """How trainings run, and what is kept of them."""

    jobs: int | None = None
    """Trainings side by side on the CPU, one thread each; by default one a core."""
    tensorboard: bool = False
    """Write TensorBoard's events to RESULTS/tensorboard; the history is in the records and RESULTS/logs anyway."""
    save_weights: bool = False
    """Write the trained weights to RESULTS/weights; `evaluate` takes them, with image folders."""


@dataclass(frozen=True, kw_only=True)
class Run(Training, Output):
    """Measure a study; the flags choose among its cells."""

    study: tyro.conf.Positional[str] = "quick"
    """Its name, or the path of a file of your own; `list` says what there is."""
    measurements: tuple[str, ...] = ()
    """Among cost, memory, speed and accuracy."""
    variants: tuple[str, ...] = ()
    """Sizes; see `list`."""
    arms: tuple[str, ...] = ()
    """Toggles that are on; see `list`."""
    bases: tuple[str, ...] = ()
    """What the toggles are added to; see `list`."""
    resolutions: tuple[str, ...] = ()
    """Pixels, such as 224 or 800x1280."""
    seeds: tuple[int, ...] = ()
    """Of trainings."""
    devices: tuple[Device, ...] = ()
    """Run the cells here instead of where the study has them; by default also on a GPU where there is one."""
    verbose: bool = False
    """Print all tables at the end, not the comparison alone."""

    def cells(self) -> list[Cell]:
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

    variants: tuple[str, ...] = ()
    """Sizes; see `list`."""
    arms: tuple[str, ...] = ()
    """Toggles that are on, all arms of the paper's by default; see `list`."""
    bases: tuple[str, ...] = ()
    """What the toggles are added to, v2 by default; see `list`."""
    pool_size: int | None = None
    """P of linear SRA; the variant's own by default."""
    set: tuple[str, ...] = ()
    """Single confounders that are not the base's, such as stage_norm=every."""
    model: tuple[str, ...] = ()
    """Models by name, instead of arms or beside named ones: timm:NAME, transformers:cvt-13, baselines:NAME,
    pvt:VARIANT/ARM/BASE, or FILE.py:FUNCTION that returns a module."""

    DEFAULT_VARIANT = "b2"

    def cells(self) -> list[Cell]:
        """Returns the cells that are asked for, each once."""
        cells = list({cell.key: cell for cell in self._cells()}.values())
        sources: dict[str, str] = {}
        for cell in cells:
            if sources.setdefault(cell.name, cell.source) != cell.source and not cell.model.is_arm:
                raise refuse("model", cell.source, f"files of different names: {sources[cell.name]} has this one's")
        return cells

    def _cells(self) -> list[Cell]:
        raise NotImplementedError

    @property
    def names_arms(self) -> bool:
        return bool(self.variants or self.arms or self.bases or self.pool_size is not None or self.set)

    def _of_models(self, conditions: list[Any], attention: tuple[AttentionKernel, ...] = ("fused",)) -> list[Cell]:
        """Returns the cells of the models by name, and of the arms unless only models were named."""
        named = [build_cell(model, each) for model in self.model for each in conditions]
        if not self.names_arms and self.model:
            return named
        if self.model and not (self.variants or self.arms):
            for name in ("bases", "pool_size", "set"):
                if value := getattr(self, name):
                    raise refuse(name, value, "none beside --model without --arms or --variants: it is the arms'")
        return named + self._of_arms(conditions, attention)

    def _of_arms(self, conditions: list[Any], attention: tuple[AttentionKernel, ...] = ("fused",)) -> list[Cell]:
        for arm in self.arms:
            arm_toggles(arm)
        for name, choices in (("base", BASES), ("variant", (*VARIANTS, *VARIANT_ALIASES))):
            for value in getattr(self, f"{name}s"):
                pick(name, value, choices)
        changed = dict(map(_parse_setting, self.set)) | {"pool_size": self.pool_size}
        rows = product(
            self.variants or (self.DEFAULT_VARIANT,), self.bases or ("v2",), attention, conditions, self.arms or ARMS
        )
        return [
            arm_cell(variant, arm, base, each, attention=kernel, **changed) for variant, base, kernel, each, arm in rows
        ]


def _parse_setting(text: str) -> tuple[str, Any]:
    """Returns the name and the value of a confounder such as `stage_norm=every`."""
    name, _, value = text.partition("=")
    pick("set", name, CONFOUNDERS)
    truths = {"True": True, "False": False, "true": True, "false": False}
    return name, truths.get(value, value)


def _flags(kind: type[Measurement], plural: dict[str, tuple[str, Any]], leave_out: tuple[str, ...] = ()) -> list[Any]:
    """Returns the conditions of a measurement as fields of a command, with their docstrings as help.

    `plural` are those of which a command takes several: the flag's name and its default values.
    """
    hints, meanings, flags = get_type_hints(kind), field_docstrings(kind), []
    for each in fields(kind):
        if each.name in leave_out:
            continue
        name, annotation, default = each.name, hints[each.name], each.default
        if each.name in plural:
            name, default = plural[each.name]
            kind_of_value = str if each.name == "resolution" else annotation
            annotation = tuple[kind_of_value, ...]  # type: ignore[valid-type]
        help_text = " ".join(meanings.get(each.name, "").split())
        flags.append((name, Annotated[annotation, tyro.conf.arg(help=help_text)], field(default=default)))
    return flags


def _command(name: str, behaviour: type, kind: type[Measurement], **options: Any) -> Any:
    """Returns a command: a behaviour, and the conditions of a measurement as flags."""
    made = make_dataclass(name, _flags(kind, **options), bases=(behaviour,), frozen=True, kw_only=True)
    made.__doc__ = behaviour.__doc__
    return made


def _given(command: Any, kind: type[Measurement], leave_out: tuple[str, ...]) -> Any:
    """Returns the conditions that a command's flags give."""
    return kind(**{each.name: getattr(command, each.name) for each in fields(kind) if each.name not in leave_out})


@dataclass(frozen=True, kw_only=True)
class _Cost(Models):
    """Count parameters and MACs: of every table of the paper, or of what the flags name."""

    breakdown: bool = False
    """Print what each module adds by itself, too."""

    def _cells(self: Any) -> list[Cell]:
        if not (self.names_arms or self.model or self.resolutions or self.heads):
            return find_study("paper").cells()
        sizes = tuple(map(parse_size, self.resolutions)) or (224,)
        return self._of_models(vary(Cost(), head=self.heads or ("classifier",), resolution=sizes))


MeasureCost = _command("MeasureCost", _Cost, Cost, plural={"resolution": ("resolutions", ()), "head": ("heads", ())})


@dataclass(frozen=True, kw_only=True)
class _Memory(Models):
    """Measure peak memory of inference and of training steps, or predict it."""

    predict: bool = False
    """Run shapes alone: in about a second a cell at any size, and for a device that need not be there."""
    budget: str | None = None
    """Such as 24GiB or 16GB: print the largest image and the largest batch at each of the resolutions that fit."""
    verify: bool = False
    """With --budget: measure what fits, on the device."""
    attention: tuple[AttentionKernel, ...] = ()
    """Both by default, with --budget the fused kernel."""

    def _cells(self: Any) -> list[Cell]:
        left_out = ("resolution", "mode", "method", "checkpointing")
        conditions = replace(_given(self, Memory, left_out), method="predicted" if self.predict else "measured")
        for stages in self.checkpointing:
            parse_stages(stages)
        sizes = self.sizes((224, 512, 1024, 2048, 4096) if self.predict else (224, 512, 1024))
        varied = [
            each
            for mode in self.modes
            for stages in (self.checkpointing if mode == "training" else ("none",))
            for each in vary(conditions, mode=(mode,), checkpointing=(stages,), resolution=sizes)
        ]
        return self._of_models(varied, self.attention or (("fused",) if self.budget else ("fused", "explicit")))

    def sizes(self: Any, default: tuple[Size, ...]) -> tuple[Size, ...]:
        return tuple(map(parse_size, self.resolutions)) or default


MeasureMemory = _command(
    "MeasureMemory",
    _Memory,
    Memory,
    plural={
        "resolution": ("resolutions", ()),
        "mode": ("modes", MODES),
        "checkpointing": ("checkpointing", ("none",)),
    },
    leave_out=("method",),
)


@dataclass(frozen=True, kw_only=True)
class _Speed(Models):
    """Time inference and training steps of each arm, interleaved with arm v1's or with the same model of a library."""

    versus: tuple[Library, ...] = ()
    """Libraries whose models are timed beside ours, with the same weights and outputs that are compared first. Then the
    arms are those that the libraries have, in base published."""
    attention: tuple[AttentionKernel, ...] = ("fused",)
    """Of our models; timm's attend with the fused kernel, transformers' explicitly."""

    def _cells(self: Any) -> list[Cell]:
        reference: Any = "+".join(name for name in LIBRARIES if name in self.versus) or PVT_V1
        conditions = replace(_given(self, Speed, ("resolution", "mode", "reference")), reference=reference)
        sizes = tuple(map(parse_size, self.resolutions))
        shared = [arm for arm in ARMS if all(arm in LIBRARIES[name] for name in self.versus)]
        small = any("stem_stride" in VARIANTS.get(name, {}) for name in self.variants)
        if self.versus and (small or set(sizes) != {224}):  # libraries' v1 has patches of 4 px and inputs of 224
            shared = [arm for arm in shared if arm != PVT_V1]
        bases = self.bases or (("published",) if self.versus else ("v2",))
        models = replace(self, arms=self.arms or tuple(shared), bases=bases)
        if self.model:
            raise refuse("model", self.model, "no such flag with speed, which is measured of arms alone")
        return models._of_arms(vary(conditions, mode=self.modes, resolution=sizes), self.attention)


MeasureSpeed = _command(
    "MeasureSpeed",
    _Speed,
    Speed,
    plural={"resolution": ("resolutions", ("224",)), "mode": ("modes", MODES)},
    leave_out=("reference",),
)


@dataclass(frozen=True, kw_only=True)
class MeasureAccuracy(Training, Models):
    """Train each arm, or any model, from scratch by a recipe and evaluate it; a training that was stopped resumes."""

    DEFAULT_VARIANT = "nano"

    recipe: str = "small"
    """Where the fields below begin; each may be given by itself. One of those that `list` names."""
    seeds: tuple[int, ...] = ()
    """Several seeds instead of the one of --seed."""
    training: tyro.conf.OmitArgPrefixes[Accuracy] = field(default_factory=lambda: start_recipe("small"))

    def _cells(self) -> list[Cell]:
        conditions = self.training
        if not conditions.num_classes:
            conditions = replace(conditions, num_classes=count_classes(conditions.data, self.data_dir))
        if self.seeds and conditions.seed:
            raise refuse("seed", conditions.seed, "no such flag beside --seeds")
        return self._of_models(vary(conditions, seed=self.seeds or (conditions.seed,)))


def start_recipe(name: str) -> Accuracy:
    """Returns the conditions that a recipe begins with; 0 classes are those of the data set, whatever it is."""
    values: dict[str, Any] = recipe_values(name)
    return Accuracy(**values, num_classes=0)


@dataclass(frozen=True, kw_only=True)
class _Evaluate(Output):
    """Evaluate finished weights on a folder of images, at one test resolution or several."""

    checkpoint: Path
    """File of weights, by torch.save or .safetensors: this project's, the released code's, timm's or transformers'."""
    variant: str = "b2"
    """Size; see `list`."""
    arm: str = PVT_V2
    """Toggles that are on; see `list`."""
    base: str = "published"
    """What the toggles are added to; see `list`."""

    def cells(self: Any) -> list[Cell]:
        if not self.checkpoint.is_file():
            raise refuse("checkpoint", str(self.checkpoint), "a file of weights")
        with self.checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        conditions = replace(_given(self, Evaluation, ("checkpoint", "resolution")), checkpoint=digest)
        return [
            arm_cell(self.variant, self.arm, self.base, each)
            for each in vary(conditions, resolution=tuple(map(_parse_side, self.resolutions)))
        ]


def _parse_side(text: str) -> int:
    size = parse_size(text)
    if not isinstance(size, int):
        raise refuse("resolution", text, "one side in pixels: images are cropped to a square")
    return size


Evaluate = _command(
    "Evaluate", _Evaluate, Evaluation, plural={"resolution": ("resolutions", ("224",))}, leave_out=("checkpoint",)
)


@dataclass(frozen=True, kw_only=True)
class ClosedForm(Debug):
    """Print parameters and MACs of all arms, bases and published variants as CSV, in closed form."""

    resolutions: tuple[str, ...] = ("224", "256", "320", "384", "448", "512", "640", "800x1280", "1024", "2048")
    """Pixels, such as 224 or 800x1280."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkCount(Debug):
    """Time the count of MACs: our trace beside fvcore's on real tensors, interleaved in one process."""

    variant: str = "b2"
    """Size; see `list`."""
    arm: str = PVT_V2
    """Toggles that are on; see `list`."""
    resolution: str = "1024"
    """Pixels, such as 224 or 800x1280."""
    repeats: int = 6
    """Counts of each."""


@dataclass(frozen=True, kw_only=True)
class _BenchmarkEpoch(Debug):
    """Time an epoch of training beside timm's step and loader doing the same work, interleaved in one process."""

    variant: str = "b0"
    """Of PVT v2 as published, which timm has too."""
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


BenchmarkEpoch: Any = make_dataclass(
    "BenchmarkEpoch",
    [flag for flag in _flags(Accuracy, {}) if flag[0] in ("precision", "device", "compiled")],
    bases=(_BenchmarkEpoch,),
    frozen=True,
    kw_only=True,
)
BenchmarkEpoch.__doc__ = _BenchmarkEpoch.__doc__


@dataclass(frozen=True, kw_only=True)
class Report(Debug):
    """Rebuild the tables and figures from the records."""

    results: Path = Path("runs")
    """Folder of records, tables and figures."""
    check: bool = False
    """Write nothing; name the tables and figures that differ from what the records give, and exit with 1 if any do."""
    html: bool = False
    """Write report.html too: one page that loads nothing, to be read anywhere."""
    all: bool = False
    """Write every table and figure, not the headlines alone."""
    figures: bool = True
    """Draw figures; --no-figures leaves those that are there as they are."""
    readme: Path | None = None
    """A text, such as README.md, whose numbers between markers are written anew from the records."""


@dataclass(frozen=True, kw_only=True)
class Compare(Debug):
    """Print what each change costs and gains, from records: a row an arm and a sentence a toggle."""

    study: tyro.conf.Positional[str | None] = None
    """Compare the models of this study, by its name or the path of a file; by default the largest of each kind."""
    results: Path = Path("runs")
    """Folder of records."""
    format: Literal["terminal", "markdown", "csv", "latex", "html"] = "terminal"
    """How it is printed."""


@dataclass(frozen=True, kw_only=True)
class Records(Debug):
    """Pack, unpack, merge or move aside records; none is changed or lost."""

    action: tyro.conf.Positional[Literal["pack", "unpack", "merge", "drop"]]
    """pack: one file a measurement. unpack: one file a record. merge: copy those of other results folders. drop: move
    those that --where names to RESULTS/dropped."""
    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """With merge: the other results folders."""
    results: Path = Path("runs")
    """Results folder."""
    where: tuple[str, ...] = ()
    """With drop: columns and their values, such as arm=v1+ope measurement=speed; all must hold."""


@dataclass(frozen=True, kw_only=True)
class Power(Debug):
    """Say how many seeds a study needs, by the spread over seeds of the accuracies that there are."""

    difference: float
    """In points of accuracy: the smallest true difference that the study is to resolve."""
    power: float = 0.8
    """The probability with which it is to be resolved."""
    results: Path = Path("runs")
    """Folder with records of accuracy, of a study or of a pilot of it."""


@dataclass(frozen=True, kw_only=True)
class List(Debug):
    """List the arms, variants, bases, data sets, recipes and studies."""


ABOUT = "Honest ablations of the Pyramid Vision Transformer, v1 to v2. Without a command it runs the study `quick`."

COMMANDS: dict[str, Any] = {
    "run": Run,
    "cost": MeasureCost,
    "closed-form": ClosedForm,
    "memory": MeasureMemory,
    "speed": MeasureSpeed,
    "accuracy": MeasureAccuracy,
    "evaluate": Evaluate,
    "compare": Compare,
    "benchmark-count": BenchmarkCount,
    "benchmark-epoch": BenchmarkEpoch,
    "report": Report,
    "records": Records,
    "power": Power,
    "list": List,
}


def parse(arguments: list[str]) -> Any:
    """Returns the command; raises InputError with the parser's complaint, and SystemExit where help was asked for."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["run", *arguments]
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            command: Any = tyro.cli(_build(arguments), prog="run_ablation.py", description=ABOUT, args=arguments)
    except SystemExit as leaving:
        if leaving.code:
            raise InputError(_one_line(complaint.getvalue())) from None
        raise
    for name, value in vars(command).items():
        if value == () and f"--{name.replace('_', '-')}" in arguments:
            raise refuse(name, (), "one or more values")
    return command


def _build(arguments: list[str]) -> Any:
    """Returns the commands; `accuracy` has the defaults, and so the help, of the recipe that the arguments name."""
    name = next((after for flag, after in itertools.pairwise(arguments) if flag == "--recipe"), "small")
    name = next((each.partition("=")[2] for each in arguments if each.startswith("--recipe=")), name)
    pick("recipe", name, RECIPES)
    accuracy = MeasureAccuracy(recipe=name, training=start_recipe(name))
    union: Any = None
    for word, command in COMMANDS.items():
        default = accuracy if command is MeasureAccuracy else MISSING
        chosen = tyro.conf.subcommand(word) if default is MISSING else tyro.conf.subcommand(word, default=default)
        annotated = Annotated[command, chosen]  # type: ignore[valid-type]
        union = annotated if union is None else union | annotated
    return union


def _one_line(box: str) -> str:
    """Returns the first section of the parser's framed complaint as one line."""
    lines = [line.strip(" │╭╮╰╯") for line in box.splitlines()[1:]]
    return " ".join(lines).partition("───")[0].strip()


def _default_devices() -> tuple[Device, ...]:
    from ablations.measure.environment import default_device

    return ("cpu",) if default_device() == "cpu" else ("cpu", "cuda")


def parse_duration(text: str) -> float:
    """Returns seconds for a text such as `90s`, `20min` or `1.5h`; raises InputError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text)
    if not match:
        raise refuse("time_budget", text, "a number with s, min or h, such as 20min")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]
