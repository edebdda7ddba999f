"""Honest ablations of the Pyramid Vision Transformer, v1 to v2. Without a command it runs the study `quick`."""

# No torch is imported before something is measured, so that help and lists answer at once.
import hashlib
import io
import itertools
import os
import re
import shlex
import signal
import sys
import time
import traceback
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, cast

import tyro

from ablations.catalogue import ARMS_OF_LIBRARIES as LIBRARIES
from ablations.config import (
    ARMS,
    FRAMES,
    VARIANT_ALIASES,
    VARIANTS,
    AttentionKernel,
    PVTConfig,
    Size,
    as_pair,
    build_config,
)
from ablations.cost import count_macs, count_params
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
from ablations.recipes import BUILT_IN, RECIPES, recipe_values
from ablations.studies import MODES, STUDIES, Grid, find_study, on_devices, select, vary
from ablations.units import format_bytes, parse_bytes

Library = Literal["timm", "transformers"]

RecipeName = Literal["small", "smoke", "paper"]

DATA_SETS = {
    "digits": "1,797 hand-written digits, 8 x 8 px, 10 classes; shipped with scikit-learn",
    "fashion-mnist": "70,000 pictures of clothes, 28 x 28 px, 10 classes; DIR/FashionMNIST/raw, else downloaded",
    "cifar10": "60,000 pictures, 32 x 32 px, 10 classes; DIR/cifar-10-batches-bin, else downloaded",
    "cifar100": "60,000 pictures, 32 x 32 px, 100 classes; DIR/cifar-100-binary, else downloaded",
    "NAME": "any image folder: DIR/NAME/train/CLASS/* and DIR/NAME/val/CLASS/*",
}


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
    """How trainings run, and what is kept of them; their numbers do not depend on it."""

    jobs: int = 1
    """Trainings side by side on the CPU, which share its cores; for small models one a core is fastest."""
    tensorboard: bool = False
    """Write TensorBoard's events to RESULTS/tensorboard; the history is in the records and RESULTS/logs anyway."""
    save_weights: bool = False
    """Write the trained weights to RESULTS/weights, for `evaluate`."""


@dataclass(frozen=True, kw_only=True)
class Run(Training, Output):
    """Measure a study; the flags choose among its cells."""

    study: tyro.conf.Positional[str] = "quick"
    """Its name; `list` says what there is."""
    measurements: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()
    resolutions: tuple[str, ...] = ()
    """Pixels, such as 224 or 800x1280."""
    seeds: tuple[int, ...] = ()
    devices: tuple[Device, ...] = ()
    """Run the cells here instead of where the study has them; by default also on a GPU where there is one."""

    def cells(self) -> list[AnyCell]:
        study = find_study(self.study)
        cells = select(
            study.cells(),
            measurement=self.measurements,
            variant=tuple(VARIANT_ALIASES.get(name, name) for name in self.variants),
            arm=self.arms,
            frame=self.frames,
            resolution=tuple(map(parse_size, self.resolutions)),
            seed=self.seeds,
        )
        return on_devices(cells, self.devices or _default_devices()) if self.devices or study.portable else cells


@dataclass(frozen=True, kw_only=True)
class Models(Output):
    """Which models a single measurement takes."""

    variants: tuple[str, ...] = ("b2",)
    arms: tuple[str, ...] = ARMS
    frames: tuple[str, ...] = ("v2",)
    pool_size: int | None = None
    """P of linear SRA; the variant's own by default."""

    def cells(self) -> list[AnyCell]:
        raise NotImplementedError

    def _grid(self, conditions: tuple, attention: tuple[AttentionKernel, ...] = ("fused",)) -> list[AnyCell]:
        for name, choices in (("arm", ARMS), ("frame", FRAMES), ("variant", (*VARIANTS, *VARIANT_ALIASES))):
            for value in getattr(self, f"{name}s"):
                pick(name, value, choices)
        grid = Grid(
            variants=self.variants,
            arms=self.arms,
            frames=self.frames,
            attention=attention,
            conditions=conditions,
            pool_size=self.pool_size,
        )
        return list({cell.key: cell for cell in grid.cells()}.values())


@dataclass(frozen=True, kw_only=True)
class MeasureCost(Models):
    """Count parameters and multiply-adds: of every table of the paper, or of what the flags name."""

    variants: tuple[str, ...] = ()
    """b2 where only arms or frames are named."""
    arms: tuple[str, ...] = ()
    """All eight where only variants or frames are named."""
    frames: tuple[str, ...] = ()
    """v2 where only variants or arms are named."""
    model: tuple[str, ...] = ()
    """timm:NAME, transformers:cvt-13, peers:NAME, pvt:VARIANT/ARM/FRAME, or FILE.py:FUNCTION that returns a module."""
    resolutions: tuple[str, ...] = ()
    """Pixels, such as 224 or 800x1280; 224 by default."""
    heads: tuple[Head, ...] = ()
    """What stands on the backbones; their classifiers by default."""
    breakdown: bool = False
    """Print what each module adds by itself, too."""

    def cells(self) -> list[AnyCell]:
        arms_asked = bool(self.variants or self.arms or self.frames or self.pool_size is not None)
        if not (arms_asked or self.model or self.resolutions or self.heads):
            return find_study("paper").cells()
        sizes = tuple(map(parse_size, self.resolutions)) or (224,)
        conditions = vary(Cost(), head=self.heads or ("classifier",), resolution=sizes)
        cells = [build_cell(model, each) for model in self.model for each in conditions]
        if arms_asked or not self.model:
            whole = replace(
                self, variants=self.variants or ("b2",), arms=self.arms or ARMS, frames=self.frames or ("v2",)
            )
            cells += whole._grid(conditions)
        return list({cell.key: cell for cell in cells}.values())


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """Print parameters and multiply-adds of all arms, frames and published variants as CSV, in closed form."""

    resolutions: tuple[str, ...] = ("224", "256", "320", "384", "448", "512", "640", "800x1280", "1024", "2048")
    """Pixels, such as 224 or 800x1280."""
    debug: bool = False
    """Print full tracebacks."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Time the count of multiply-adds: our trace beside fvcore's on real tensors, in turn in one process."""

    variant: str = "b2"
    arm: str = "v1+ope+cffn"
    resolution: str = "1024"
    """Pixels, such as 224 or 800x1280."""
    repeats: int = 5
    debug: bool = False
    """Print full tracebacks."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkEpoch:
    """Time an epoch of training beside timm's step and loader doing the same work, in turn in one process."""

    variant: str = "b0"
    """Of arm v1+ope+cffn in the published frame, which timm has too."""
    data: str | None = None
    """`digits`, ... or an image folder; imagenette224 by default if the data directory has it, else digits."""
    data_dir: Path | None = None
    """Folder of the data sets; else the environment variable ABLATIONS_DATA_DIR, else `data`."""
    resolution: int = 224
    """Side in pixels; more than 64."""
    batch_size: int = 64
    steps: int | None = None
    """Timed steps of each side; by default as many as take about 20 s, 0 is an epoch."""
    workers: int | None = None
    """Processes of timm's loader; one a core by default."""
    channels_last: bool = False
    """Lay timm's pictures and weights out pixel by pixel, as ours are; by default as in timm's train.py."""
    precision: Precision = "float32"
    device: Device = "cpu"
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
    """Such as 24GiB or 16GB: print the largest picture and the largest batch at each of the resolutions that fit."""
    verify: bool = False
    """With --budget: measure what fits, on the device."""
    model: tuple[str, ...] = ()
    """These models instead of arms: timm:NAME, pvt:VARIANT/ARM/FRAME, FILE.py:FUNCTION, ... as `cost` takes them."""
    resolutions: tuple[str, ...] = ()
    """Pixels, such as 224 or 800x1280; 224, 512 and 1024 by default, with --predict 2048 and 4096 too."""
    modes: tuple[Mode, ...] = MODES
    attention: tuple[AttentionKernel, ...] = ()
    """Both by default, with --budget the fused kernel."""
    checkpointing: tuple[str, ...] = ("none",)
    """Stages of the arms that keep no activations for the backward pass: none, or such as 1 or 1+2+3+4."""
    batch_size: int = 1
    precision: Precision = "float32"
    device: Device = "cpu"
    channels_last: bool = True
    """Lay pictures and convolutions' weights out pixel by pixel, not channel by channel."""

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
    """Time inference and training steps of each arm, in turn with arm v1's or with the same model of a library."""

    arms: tuple[str, ...] = ()
    """All eight by default, with --versus those that the library has."""
    frames: tuple[str, ...] = ()
    """v2 by default, with --versus published."""
    versus: tuple[Library, ...] = ()
    """Libraries whose models are timed beside ours, with the same weights and outputs that are compared first."""
    resolutions: tuple[str, ...] = ("224",)
    """Pixels, such as 224 or 800x1280."""
    modes: tuple[Mode, ...] = MODES
    attention: tuple[AttentionKernel, ...] = ("fused",)
    """Of our models; timm's attend with the fused kernel, transformers' explicitly."""
    batch_size: int = 8
    precision: Precision = "float32"
    device: Device = "cpu"
    repeats: int = 10
    """Timed steps of each of the models, after the warm-up."""
    channels_last: bool = True
    """Lay pictures and convolutions' weights out pixel by pixel; libraries' models are timed in both layouts."""
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
            frames=self.frames or (("published",) if self.versus else ("v2",)),
        )
        return models._grid(vary(conditions, mode=self.modes, resolution=sizes), self.attention)


@dataclass(frozen=True, kw_only=True)
class MeasureAccuracy(Training, Models):
    """Train each arm, or any model, from scratch by a recipe and evaluate it; a training that was stopped goes on."""

    variants: tuple[str, ...] = ()
    """nano by default."""
    arms: tuple[str, ...] = ()
    """All eight by default."""
    model: tuple[str, ...] = ()
    """These models instead of arms, or beside named ones: timm:NAME, pvt:VARIANT/ARM/FRAME, FILE.py:FUNCTION."""
    recipe: RecipeName = "small"
    """Where the fields below begin; each may be given by itself."""
    seeds: tuple[int, ...] = ()
    """Several seeds instead of the one of --seed."""
    training: tyro.conf.OmitArgPrefixes[Accuracy] = field(default_factory=lambda: start_recipe("small"))

    def cells(self) -> list[AnyCell]:
        conditions = self.training
        if not conditions.num_classes:
            conditions = replace(conditions, num_classes=count_classes(conditions.data, self.data_dir))
        varied = vary(conditions, seed=self.seeds or (conditions.seed,))
        cells = [build_cell(model, each) for model in self.model for each in varied]
        if self.variants or self.arms or not self.model:
            arms = replace(self, variants=self.variants or ("nano",), arms=self.arms or ARMS)
            cells += arms._grid(varied)
        return list({cell.key: cell for cell in cells}.values())


def start_recipe(name: str) -> Accuracy:
    """Returns the conditions that a recipe begins with; 0 classes are those of the data set, whatever it is."""
    values: dict[str, Any] = recipe_values(name)
    return Accuracy(**values, num_classes=0)


def count_classes(data: str, data_dir: Path | None) -> int:
    """Returns how many classes a data set has: a known one, or the class folders of an image folder."""
    if data in BUILT_IN:
        return BUILT_IN[data]
    folder = (data_dir or Path(os.environ.get("ABLATIONS_DATA_DIR") or "data")) / data / "train"
    classes = sum(entry.is_dir() for entry in folder.iterdir()) if folder.is_dir() else 0
    if classes < 2:
        raise refuse("data", data, f"{', '.join(BUILT_IN)}, or an image folder: {folder}/CLASS/* of 2 classes or more")
    return classes


@dataclass(frozen=True, kw_only=True)
class Evaluate(Output):
    """Evaluate finished weights on a folder of pictures, at one test resolution or several."""

    checkpoint: Path
    """File of weights, by torch.save or .safetensors: this project's, the released code's, timm's or transformers'."""
    variant: str = "b2"
    arm: str = "v1+ope+cffn"
    frame: str = "published"
    data: str = "imagenet"
    """Folder in the data directory, with pictures as val/CLASS/* or CLASS/*; some of ImageNet's classes will do."""
    resolutions: tuple[int, ...] = (224,)
    """Sides in pixels."""
    protocol: Protocol = "timm"
    """The centre crop is 0.9 of the resized picture's short side in timm, 0.875 in paper."""
    num_classes: int = 1000
    img_size: int = 224
    """Pixels that learned position embeddings of the checkpoint are made for."""
    skip_unreadable: bool = False
    """Leave out pictures that cannot be read, and name them in the record."""
    batch_size: int = 64
    precision: Precision = "float32"
    device: Device = "cpu"

    def cells(self) -> list[AnyCell]:
        if not self.checkpoint.is_file():
            raise refuse("checkpoint", str(self.checkpoint), "a file of weights")
        names = ("data", "protocol", "num_classes", "img_size", "skip_unreadable", "batch_size", "precision", "device")
        with self.checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        conditions = Evaluation(checkpoint=digest, **{name: getattr(self, name) for name in names})
        return [
            Cell(variant=self.variant, arm=self.arm, frame=self.frame, conditions=each)
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
    """List the arms, variants, frames, data sets and studies."""

    debug: bool = False
    """Print full tracebacks."""


Command = (
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[MeasureCost, tyro.conf.subcommand("cost")]
    | Annotated[ClosedForm, tyro.conf.subcommand("closed-form")]
    | Annotated[Benchmark, tyro.conf.subcommand("benchmark-count")]
    | Annotated[BenchmarkEpoch, tyro.conf.subcommand("benchmark-epoch")]
    | Annotated[MeasureMemory, tyro.conf.subcommand("memory")]
    | Annotated[MeasureSpeed, tyro.conf.subcommand("speed")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[List, tyro.conf.subcommand("list")]
)


SILENCE_S = 30.0
"""How long the other processes of a training wait for the first one to complain."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 for failed cells or stale files, 2 for bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command = parse(arguments)
        match command:
            case List():
                return _list()
            case Report():
                return _report(command)
            case ClosedForm():
                return _print_closed_form(command)
            case Benchmark():
                return _benchmark_count(command)
            case BenchmarkEpoch():
                return _benchmark_epoch(command)
            case MeasureMemory(budget=str()):
                return _answer_budget(command)
            case MeasureMemory(verify=True):
                raise refuse("verify", True, "False without --budget")
            case _:
                return _measure(command, shlex.join(arguments))
    except InputError as error:
        if not _is_first_process():
            _await_the_first()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as stop:
        if _is_first_process():
            print(f"\n{str(stop) or 'stopped; the same command goes on from here'}", file=sys.stderr)
        return 130
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        else:
            print(f"internal error: {error!r}; --debug prints the traceback", file=sys.stderr)
        return 1


def _is_first_process() -> bool:
    """Whether this is the process that speaks, among those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def _await_the_first() -> None:
    """Gives the first process time to meet the same error and to say it; `torchrun` then ends this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    time.sleep(SILENCE_S)


def parse(arguments: list[str]) -> Any:
    """Returns the command; raises InputError with the parser's complaint, and SystemExit where help was asked for."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["run", *arguments]
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            command: Any = tyro.cli(_commands(arguments), prog="run_ablation.py", description=__doc__, args=arguments)
    except SystemExit as leaving:
        if leaving.code:
            raise InputError(_one_line(complaint.getvalue())) from None
        raise
    for name, value in vars(command).items():
        if value == () and f"--{name.replace('_', '-')}" in arguments:
            raise refuse(name, (), "one or more values")
    return command


def _commands(arguments: list[str]) -> Any:
    """Returns the commands; `accuracy` has the defaults, and so the help, of the recipe that the arguments name."""
    name = next((after for flag, after in itertools.pairwise(arguments) if flag == "--recipe"), "small")
    name = next((each.partition("=")[2] for each in arguments if each.startswith("--recipe=")), name)
    if name not in RECIPES:
        name = "small"  # the parser complains
    default = MeasureAccuracy(recipe=cast(Any, name), training=start_recipe(name))
    return Command | Annotated[MeasureAccuracy, tyro.conf.subcommand("accuracy", default=default)]


def _one_line(box: str) -> str:
    """Returns the first section of the parser's framed complaint as one line."""
    lines = [line.strip(" │╭╮╰╯") for line in box.splitlines()[1:]]
    return " ".join(lines).partition("───")[0].strip()


def _measure(command: Run | Models | Evaluate, arguments: str) -> int:
    """Measures what a command asks for, rebuilds the report, and prints the tables and where the files are."""
    cells = command.cells()
    budget_s = parse_duration(command.time_budget) if command.time_budget else float("inf")
    if command.dry_run:
        return _print_plan(cells, command.results)

    from ablations.runner import Keep, run_cells

    if isinstance(command, MeasureAccuracy) and _is_first_process():
        _print_recipe(cast(Accuracy, cells[0].conditions))
    training = command if isinstance(command, Training) else Training()
    if training.tensorboard:
        from ablations.training.logs import check_tensorboard

        check_tensorboard()
    study = command.study if isinstance(command, Run) else cells[0].measurement
    summary = run_cells(
        cells,
        study=study,
        results=command.results,
        data_dir=command.data_dir,
        weights=getattr(command, "checkpoint", None),
        time_budget_s=budget_s,
        jobs=training.jobs,
        keep=Keep(tensorboard=training.tensorboard, weights=training.save_weights),
        force=command.force,
        debug=command.debug,
    )

    if not _is_first_process():
        return 1 if summary.failed else 0
    for label, reason in summary.failed:
        print(f"failed: {label}: {reason}", file=sys.stderr)
    if summary.left:
        print(f"the time budget is spent; go on with: run_ablation.py {arguments}".strip(), file=sys.stderr)

    from ablations.report.build import build_report

    build_report(command.results)
    _print_tables(cells, command)
    print(
        f"{summary.measured} cells measured in {summary.seconds:.1f} s, {summary.kept} were there, "
        f"{summary.left} left for a next run"
    )
    for name in ("records", "tables", "figures", "README.md"):
        if (command.results / name).exists():
            print(f"{name:10}{command.results / name}")
    return 1 if summary.failed else 0


def _print_recipe(conditions: Accuracy) -> None:
    """Prints what is trained by, as it was resolved."""
    fields = " ".join(f"{name}={value}" for name, value in vars(conditions).items() if name != "seed")
    print(f"recipe: {fields}")
    print(f"total batch {conditions.batch_size}, peak learning rate {conditions.peak_lr:.3g}", flush=True)


NAMED_MODELS_TABLES = ("models", "operators")
"""What is printed of models that were named one by one, arms among them."""

NOT_PRINTED_OF_PAPER = ("models", "operators", "parts", "cost", "ladder")
"""Long tables that the count of the whole paper leaves in their files."""


def _print_tables(cells: list[AnyCell], command: Run | Models | Evaluate) -> None:
    """Prints the tables that the records of these cells give, and no others'."""
    from ablations.records import load_records
    from ablations.report.comparison import model_values
    from ablations.report.contents import TABLES
    from ablations.report.cost_tables import render_breakdown
    from ablations.report.tables import render_markdown

    named = isinstance(command, MeasureCost) and bool(command.model)
    whole_paper = {cell.key for cell in find_study("paper").cells()} <= {cell.key for cell in cells}
    records = load_records(command.results)
    records = records[records["key"].isin([cell.key for cell in cells])] if "key" in records else records
    for table in TABLES:
        left_out = table.name not in NAMED_MODELS_TABLES if named else table.name in NOT_PRINTED_OF_PAPER
        if left_out and (named or whole_paper):
            continue
        values = model_values(records, arms=True) if named and table.name == "models" else table.values(records)
        if not values.empty:
            print(f"\n{render_markdown(table, values)}")
    if isinstance(command, MeasureCost) and command.breakdown:
        print(render_breakdown(records))


def _print_closed_form(command: ClosedForm) -> int:
    sizes = [(text, parse_size(text)) for text in command.resolutions]
    variants = [name for name, fields in VARIANTS.items() if "stem_stride" not in fields]
    start = time.perf_counter()
    lines = ["variant,frame,arm,resolution,params,macs"]
    for variant, frame, arm in itertools.product(variants, FRAMES, ARMS):
        config = build_config(variant, arm, frame)
        params = count_params(config)
        lines += [f"{variant},{frame},{arm},{text},{params},{count_macs(config, size)}" for text, size in sizes]
    seconds = time.perf_counter() - start
    print("\n".join(lines))
    print(f"{len(lines) - 1:,} counts in {seconds:.2f} s, without torch", file=sys.stderr)
    return 0


def _benchmark_count(command: Benchmark) -> int:
    config = build_config(command.variant, command.arm)
    size = as_pair(config.check_size("resolution", parse_size(command.resolution)))
    if command.repeats < 2:
        raise refuse("repeats", command.repeats, "2 or more")

    from ablations.measure.fvcore_count import count_with_fvcore
    from ablations.measure.macs import trace_macs
    from ablations.measure.samples import paired_ratio, summarise_times
    from ablations.measure.speed import Step, time_in_turn
    from ablations.model import build_model

    model = build_model(config).eval()
    shape = (1, config.in_chans, *size)
    counts: dict[str, Step] = {
        "trace on meta": lambda: trace_macs(model, shape),
        "fvcore, real": lambda: count_with_fvcore(model, shape, device="cpu"),
    }
    samples = time_in_turn(counts, repeats=command.repeats, device="cpu")
    print(f"{command.variant} {command.arm} at {command.resolution} px, {command.repeats} repeats of each in turn")
    for name, times in samples.items():
        summary = summarise_times(times)
        print(f"{name:14} median {summary['median']:.3f} s, IQR {100 * summary['iqr_over_median']:.0f} % of it")
    third = count_with_fvcore(model, shape, device="cpu")
    closed, traced, products = count_macs(config, size), trace_macs(model, shape).total, sum(third.products.values())
    print(f"multiply-adds: closed form {closed:,}, trace {traced:,}, fvcore {products:,}")
    print(f"fvcore counts beside them: {', '.join(f'{name} {count:,}' for name, count in third.others.items())}")
    ratio, low, high = paired_ratio(samples["fvcore, real"], samples["trace on meta"])
    print(f"fvcore takes {ratio:.2f} times as long as the trace (95 % interval {low:.2f} to {high:.2f})")
    return 0


def _benchmark_epoch(command: BenchmarkEpoch) -> int:
    if command.steps is not None and command.steps != 0 and command.steps < 2:
        raise refuse("steps", command.steps, "2 or more, or 0 for an epoch")
    if command.workers is not None and command.workers < 0:
        raise refuse("workers", command.workers, "0 or more")
    conditions = command.conditions()

    import torch

    from ablations.measure.allocator import keep_freed_memory
    from ablations.measure.environment import available_cores, check_device, describe_environment, use_full_float32
    from ablations.model import build_model
    from ablations.peers.equal import build_equal, check_equal
    from ablations.training.epoch_benchmark import COMPARED, Rounds, benchmark_epoch, check_alike

    check_device(command.device)
    check_alike(conditions)
    cell = Cell(variant=command.variant, arm="v1+ope+cffn", frame="published", conditions=conditions)
    keep_freed_memory()
    use_full_float32()
    torch.manual_seed(conditions.seed)
    model = build_model(cell.config).to(command.device)
    peer = build_equal(model, "timm")
    check_equal(model, peer, (2, 3, command.resolution, command.resolution))
    workers = available_cores() if command.workers is None else command.workers
    times = benchmark_epoch(
        model,
        peer,
        conditions,
        command.data_dir,
        steps=command.steps,
        workers=workers,
        channels_last=command.channels_last,
    )

    def row(name: str, rounds: Rounds) -> str:
        rates = "  ".join(f"{rounds.images / median(side):7.1f} img/s" for side in (rounds.ours, rounds.timms))
        ratio, low, high = rounds.relative_speed
        interval = "95 % interval" if len(rounds.ours) >= 6 else "range"
        return f"{name:14}  {rates}  {ratio:6.2f} ({interval} {low:.2f} to {high:.2f}, n = {len(rounds.ours)})"

    machine = describe_environment(command.device)
    layout = "channels-last" if command.channels_last else "channels-first"
    print(
        f"{cell.name} on {conditions.data} at {conditions.resolution} px, batches of {conditions.batch_size}, "
        f"{conditions.precision}{', compiled' if conditions.compiled else ''}, on {machine['device_name']} "
        f"({command.device}, {machine['threads']} threads, torch {machine['torch']}, timm {machine['timm']})"
    )
    print(
        f"{len(times.whole.ours)} rounds of {times.whole.images // conditions.batch_size} steps of each in turn, of "
        f"{times.steps_per_epoch} in an epoch; timm's {layout}, its loader with {workers} workers"
    )
    print(f"losses of {COMPARED} steps on one batch differ by {times.loss_difference:.1e} of them at most")
    print(f"{'':14}  {'ours':>13}  {'timm':>13}  ours over timm")
    print(row("epoch", times.whole))
    print(row("step alone", times.step))
    print(row("pictures alone", times.pictures))
    print(f"waiting for pictures: ours {times.ours_waiting:.1%} of the time, timm {times.timms_waiting:.1%}")
    return 0


def _answer_budget(command: MeasureMemory) -> int:
    """Prints what fits into a budget; with `verify` returns 1 unless all of it was measured to fit."""
    for name in ("predict", "dry_run", "time_budget", "force"):
        if getattr(command, name):
            raise refuse(name, getattr(command, name), "no such flag beside --budget, which writes no records")
    budget_bytes = parse_bytes(cast(str, command.budget))
    sizes = command.sizes((224, 512, 1024))
    # One cell for all sizes: the first of them stands for the others.
    cells = list({_without_size(cell): cell for cell in reversed(command.cells())}.values())[::-1]

    from tqdm import tqdm

    from ablations.budget import answer_budgets, budget_values, verify_answer
    from ablations.measure.environment import available_cores, check_device
    from ablations.report.budget_table import render_budget

    if command.verify:
        check_device(command.device)
    # Without a terminal a mistake is to be the only line.
    asked = answer_budgets(cells, budget_bytes, sizes, available_cores())
    answers = list(tqdm(asked, total=len(cells), unit="cell", disable=None))
    print(f"\n{render_budget(budget_values(answers))}")
    fits = True
    for cell, answer in zip(cells, answers, strict=True) if command.verify else ():
        for check in verify_answer(answer, cell):
            where = (
                f"{cell.name} {cast(Memory, cell.conditions).mode} at {check.resolution} px, batch {check.batch_size}"
            )
            predicted = f"predicted {format_bytes(check.predicted_bytes)}"
            fits = fits and check.fits is True
            if check.measured_bytes is None:
                print(f"{where}: {predicted}; not verified: {check.note}")
            else:
                words = "fits" if check.fits else "does not fit"
                print(f"{where}: {predicted}, measured {format_bytes(check.measured_bytes)}: {words}")
    return 0 if fits else 1


def _without_size(cell: AnyCell) -> AnyCell:
    return replace(cell, conditions=replace(cast(Any, cell.conditions), resolution=Memory.resolution))


def _print_plan(cells: list[AnyCell], results: Path) -> int:
    from ablations.records import find_record

    records = [None if cell.is_from_file else find_record(results, cell) for cell in cells]
    states = [record["status"] if record else "missing" for record in records]
    for cell, state in zip(cells, states, strict=True):
        print(f"{state:8} {cell.label}")
    print(f"{len(cells)} cells, {states.count('done')} done")
    return 0


def _report(command: Report) -> int:
    if command.check and command.html:
        raise refuse("html", True, "False with --check, which writes nothing")
    if not (command.results / "records").is_dir():
        raise refuse("results", str(command.results), "a folder that holds records")

    from ablations.records import find_damaged
    from ablations.report.build import build_report, check_report

    for name, why in find_damaged(command.results).items():
        print(f"damaged, and left out: {name}: {why}", file=sys.stderr)
    if not command.check:
        for path in build_report(command.results):
            print(path)
        if command.html:
            from ablations.report.page import write_page

            write_page(command.results, command.results / "report.html")
            print(command.results / "report.html")
        return 0
    stale = check_report(command.results)
    for name in stale:
        print(f"stale: {name}", file=sys.stderr)
    return 1 if stale else 0


def _list() -> int:
    sections: dict[str, dict[str, str]] = {
        "arms": dict.fromkeys(ARMS, ""),
        "variants": {name: _describe_variant(name) for name in VARIANTS},
        "names of PVT v1": {old: f"the shape {new}" for old, new in VARIANT_ALIASES.items()},
        "frames": dict(zip(FRAMES, ("v1's riders for arm v1, v2's for the others", "v1's", "v2's"), strict=True)),
        "data sets": DATA_SETS,
        "studies": {name: f"{study.description}; {len(study.cells())} cells" for name, study in STUDIES.items()},
    }
    for title, entries in sections.items():
        print(title)
        for name, words in entries.items():
            print(f"  {name:20}{words}".rstrip())
    return 0


def _describe_variant(name: str) -> str:
    config = build_config(name)
    shape = [f"{word} {'-'.join(map(str, values))}" for word, values in _shapes(config).items()]
    count = f"{count_params(config) / 1e6:.2f} M parameters as PVT v2 with 1000 classes"
    return f"{', '.join(shape)}, stem stride {config.stem_stride}, P {config.pool_size}; {count}"


def _shapes(config: PVTConfig) -> dict[str, tuple[int, ...]]:
    return {"dims": config.embed_dims, "depths": config.depths, "heads": config.num_heads, "mlp": config.mlp_ratios}


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
