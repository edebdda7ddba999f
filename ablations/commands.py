"""The commands: what each takes, as dataclasses whose docstrings are the help, and its cells."""

# No torch is imported here, so that help and lists answer at once.
import itertools
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_type_hints

from ablations.baselines.registry import ARMS_OF_LIBRARIES as LIBRARIES
from ablations.cells import Arm, Cell, arm_cell, build_cell, split_file_model
from ablations.config import (
    BASES,
    CONFOUNDERS,
    PAPER_TOGGLES,
    PUBLISHED_MODELS,
    PVT_V1,
    PVT_V2,
    TOGGLES,
    VARIANT_ALIASES,
    VARIANTS,
    AttentionKernel,
    Size,
    arm_toggles,
    arms_of,
    published_model,
    variant_name,
)
from ablations.data.registry import DATA_SETS, count_classes
from ablations.dense_recipes import DetectionRecipe, SegmentationRecipe
from ablations.errors import InputError, pick, refuse
from ablations.files import file_digest
from ablations.flags import HELP, HELP_ALL, POSITIONAL, Layout, describe_flags, like, parse_flags
from ablations.measure import (
    MEASUREMENTS,
    Accuracy,
    Cost,
    Counters,
    Detection,
    Evaluation,
    Measurement,
    Memory,
    Segmentation,
    Speed,
)
from ablations.measure.counters import TOOLS
from ablations.measure.evaluation import Protocol
from ablations.measure.measurement import MODES, Device
from ablations.measure.memory import parse_stages
from ablations.recipes import Recipe, recipe_values
from ablations.studies import Study, find_study, list_studies, on_devices, parse_size, select, vary
from ablations.toggle_files import take_toggles

Library = Literal["timm", "transformers"]

DEFAULT_BASE = "v2"
"""What every command adds the toggles to unless it is told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Debug:
    """What every command takes."""

    debug: bool = False
    """Print full tracebacks."""


@dataclass(frozen=True, kw_only=True)
class Output(Debug):
    """Where records go and how a measuring command behaves."""

    results: Path = Path("runs")
    """Folder of records, tables and figures."""
    time_budget: str | None = None
    """Such as 20min, 90s or 1.5h: start no cell that by the records of its like would end later."""
    dry_run: bool = False
    """Print the cells and which are done, and measure nothing."""


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """Where images are."""

    data_dir: Path | None = None
    """Folder of the data sets; else the environment variable ABLATIONS_DATA_DIR, else `data`."""


@dataclass(frozen=True, kw_only=True)
class Force:
    """For measured memory."""

    force: bool = False
    """Measure memory even where a prediction says that there is not enough, and again where there was not."""


@dataclass(frozen=True, kw_only=True)
class TrainingRuns:
    """How trainings run, and what is kept of them."""

    jobs: int | None = None
    """Trainings side by side on the CPU, one thread each; by default one a core."""
    tensorboard: bool = False
    """Write TensorBoard's events to RESULTS/tensorboard; the history is in the records and RESULTS/logs anyway."""
    save_weights: bool = False
    """Write the trained weights to RESULTS/weights; `evaluate` takes them."""


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """What a training begins from."""

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


@dataclass(frozen=True, kw_only=True)
class Launched:
    """Who runs a study: this process, or workers."""

    launcher: Literal["local", "slurm"] | None = None
    """Start workers that share the results folder: `local` processes, or jobs of `slurm`."""
    workers: int | None = None
    """With --launcher: how many; 1 by default."""
    gpus_per_worker: int = 0
    """With --launcher slurm: GPUs of a worker; with several, torchrun trains each cell on all of them."""
    cpus_per_worker: int | None = None
    """With --launcher slurm: CPU cores of a worker."""
    per_gpu: int = 1
    """With --launcher local: so many workers may share a GPU."""
    time: str | None = None
    """With --launcher slurm: how long a job may take, such as 4h, the default; it is requeued while cells are left."""
    partition: str | None = None
    """With --launcher slurm: the partition."""
    account: str | None = None
    """With --launcher slurm: the account."""
    constraint: str | None = None
    """With --launcher slurm: features that the nodes must have."""
    profile: Path | None = None
    """With --launcher slurm: a TOML file with these settings and qos, memory_gib, setup and container."""


@dataclass(frozen=True, kw_only=True)
class Run(Launched, TrainingRuns, Force, DataFolder, Output):
    """Measure a study; the flags choose among its cells."""

    study: str = field(default="quick", metadata=POSITIONAL)
    """Its name, or the path of a file of your own; `list` says what there is."""
    measurements: tuple[str, ...] = ()
    """Of those that the study has, such as cost or accuracy."""
    variants: tuple[str, ...] = ()
    """Sizes; see `list`."""
    arms: tuple[str, ...] = ()
    """Toggles that are on, or published models such as PVTv2-B2; see `list`."""
    bases: tuple[str, ...] = ()
    """What the toggles are added to; see `list`."""
    resolutions: tuple[str, ...] = ()
    """Pixels, such as 224 or 800x1280."""
    seeds: tuple[int, ...] = ()
    """Of trainings."""
    devices: tuple[Device, ...] = ()
    """Run the cells here instead of where the study has them; by default also on a GPU where there is one."""
    toggles: tuple[str, ...] = ()
    """Those that the study's arms vary, instead of its own; one of yours is FILE.py:NAME."""
    verbose: bool = False
    """Print all tables at the end, not the comparison alone."""

    def named_study(self) -> Study:
        """Returns the study, with the toggles that are given."""
        return find_study(self.study, take_toggles(self.toggles))

    def cells(self) -> list[Cell]:
        study = self.named_study()
        for name in self.measurements:
            pick("measurements", name, MEASUREMENTS)
        cells = select(
            self._of_models(study.cells()),
            measurement=self.measurements,
            resolution=tuple(map(parse_size, self.resolutions)),
            seed=self.seeds,
        )
        return on_devices(cells, self.devices or _default_devices()) if self.devices or study.portable else cells

    def _of_models(self, cells: list[Cell]) -> list[Cell]:
        """Returns the cells of the arms, variants and bases that are named; of all where none is."""
        named, plain = _split_arms(self.arms, self.variants, self.bases)
        variants = tuple(map(variant_name, self.variants))
        for base in self.bases:
            pick("base", base, BASES)
        chosen = select(cells, variant=variants, base=self.bases, arm=plain) if plain or not named else []
        for name, (variant, arm) in named.items():
            own = [cell for cell in cells if cell.model == Arm(variant=variant, arm=arm, base="published")]
            if not own:
                raise refuse("arm", name, f"{arm}, with --variants {variant} if the study has it in another base")
            chosen += own
        return [cell for cell in cells if cell in chosen] if named else chosen


def _split_arms(
    arms: tuple[str, ...], variants: tuple[str, ...], bases: tuple[str, ...]
) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """Returns the variant and the arm of each published model among `arms`, and the other arms.

    Raises InputError for an unknown one, and for a variant or a base beside a model that has another.
    """
    named = {name: model for name in arms if (model := published_model(name))}
    for name, (variant, _) in named.items():
        if any(variant_name(given) != variant for given in variants):
            raise refuse("variants", variants, f"none beside {name}, which is variant {variant}")
        if any(given != "published" for given in bases):
            raise refuse("bases", bases, f"none beside {name}, which is in base published")
    plain = tuple(name for name in arms if name not in named)
    for name in plain:
        _check_arm(name)
    return named, plain


def _check_arm(name: str) -> None:
    """Raises InputError for a name that is no arm's; it lists those of published models too."""
    if not name.startswith("v2"):  # which names a base
        pick("arm", name, (*arms_of(TOGGLES), *PUBLISHED_MODELS))
    arm_toggles(name)


@dataclass(frozen=True, kw_only=True)
class Arms(Output):
    """Which arms a single measurement takes."""

    variants: tuple[str, ...] = ()
    """Sizes; see `list`."""
    arms: tuple[str, ...] = ()
    """Toggles that are on, or published models such as PVTv2-B2; all arms of the paper's by default; see `list`."""
    bases: tuple[str, ...] = ()
    """What the toggles are added to, v2 by default; see `list`."""
    toggles: tuple[str, ...] = ()
    """Those whose arms are taken where none is named, the paper's by default; one of yours is FILE.py:NAME."""
    pool_size: int | None = None
    """P of linear SRA; the variant's own by default."""
    set: tuple[str, ...] = ()
    """Single confounders that are not the base's, such as stage_norm=every."""

    DEFAULT_VARIANT = "b2"

    def cells(self) -> list[Cell]:
        """Returns the cells that are asked for, each once."""
        take_toggles(self.toggles)
        return list({cell.key: cell for cell in self._cells()}.values())

    def _cells(self) -> list[Cell]:
        raise NotImplementedError

    def sizes(self: Any, default: tuple[Size, ...] = ()) -> tuple[Size, ...]:
        """Returns the resolutions that are asked for."""
        return tuple(map(parse_size, self.resolutions)) or default

    @property
    def names_arms(self) -> bool:
        named = self.variants or self.arms or self.bases or self.toggles
        return bool(named or self.pool_size is not None or self.set)

    def _of_arms(self, conditions: list[Any], attention: tuple[AttentionKernel, ...] = ("fused",)) -> list[Cell]:
        changed = dict(map(_parse_setting, self.set)) | {"pool_size": self.pool_size}
        return [
            arm_cell(variant, arm, base, each, attention=kernel, **changed)
            for variant, base, arms in self._groups()
            for kernel, each, arm in product(attention, conditions, arms)
        ]

    def _groups(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yields each variant and base with its arms."""
        for name, choices in (("base", BASES), ("variant", (*VARIANTS, *VARIANT_ALIASES))):
            for value in getattr(self, f"{name}s"):
                pick(name, value, choices)
        named, plain = _split_arms(self.arms, self.variants, self.bases)
        if named and (self.set or self.pool_size is not None):
            name = "set" if self.set else "pool_size"
            raise refuse(name, getattr(self, name), f"none beside {next(iter(named))}, which is as published")
        if plain or not named:
            every = arms_of(take_toggles(self.toggles) or PAPER_TOGGLES)
            for variant, base in product(self.variants or (self.DEFAULT_VARIANT,), self.bases or (DEFAULT_BASE,)):
                yield variant, base, plain or every
        for variant, arm in named.values():
            yield variant, "published", (arm,)


@dataclass(frozen=True, kw_only=True)
class Models(Arms):
    """Which models a single measurement takes, arms or not."""

    model: tuple[str, ...] = ()
    """Models by name, instead of arms or beside named ones: PVTv2-B2, timm:NAME, transformers:cvt-13, baselines:NAME,
    pvt:VARIANT/ARM/BASE, or FILE.py:FUNCTION that returns a module."""
    label: tuple[str, ...] = ()
    """What tables and figures call the models from files, one name for each."""

    def cells(self) -> list[Cell]:
        cells = super().cells()
        sources: dict[str, str] = {}
        for cell in cells:
            if sources.setdefault(cell.name, cell.source) != cell.source and not cell.model.is_arm:
                allowed = f"models of different names, by --label: {sources[cell.name]} has this one's"
                raise refuse("model", cell.source, allowed)
        return cells

    def _of_models(self, conditions: list[Any], attention: tuple[AttentionKernel, ...] = ("fused",)) -> list[Cell]:
        """Returns the cells of the models by name, and of the arms unless only models were named."""
        from_files = [model for model in self.model if split_file_model(model)]
        if self.label and len(self.label) != len(from_files):
            raise refuse("label", self.label, f"{len(from_files)} names, one for each FILE.py:FUNCTION of --model")
        labels = dict(zip(from_files, self.label, strict=False))
        named = [build_cell(model, each, labels.get(model)) for model in self.model for each in conditions]
        if not self.names_arms and self.model:
            return named
        if self.model and not (self.variants or self.arms):
            for name in ("bases", "pool_size", "set"):
                if value := getattr(self, name):
                    raise refuse(name, value, "none beside --model without --arms or --variants: it is the arms'")
        return named + self._of_arms(conditions, attention)


def _parse_setting(text: str) -> tuple[str, Any]:
    """Returns the name and the value of a confounder such as `stage_norm=every`."""
    name, _, value = text.partition("=")
    pick("set", name, CONFOUNDERS)
    truths = {"True": True, "False": False, "true": True, "false": False}
    return name, truths.get(value, value)


def _with_flags_of(
    kind: type[Measurement], plural: Mapping[str, tuple[str, Any]] = MappingProxyType({}), leave_out: Container = ()
) -> Any:
    """Makes of a class a command that has the conditions of a measurement as flags, too.

    `plural` are those of which a command takes several: the flag's name and its default values.
    """
    hints, flags = get_type_hints(kind), []
    for each in fields(kind):
        if each.name in leave_out:
            continue
        name, annotation, default = each.name, hints[each.name], each.default
        if each.name in plural:
            name, default = plural[each.name]
            kind_of_value = str if each.name == "resolution" else annotation
            annotation = tuple[kind_of_value, ...]  # type: ignore[valid-type]
        flags.append((name, annotation, like(kind, each.name, default)))

    def extend(behaviour: type) -> Any:
        made = make_dataclass(behaviour.__name__, flags, bases=(behaviour,), frozen=True, kw_only=True)
        made.__doc__ = behaviour.__doc__
        return made

    return extend


def _given(command: Any, kind: type[Measurement], leave_out: tuple[str, ...]) -> Any:
    """Returns the conditions that a command's flags give."""
    return kind(**{each.name: getattr(command, each.name) for each in fields(kind) if each.name not in leave_out})


@_with_flags_of(Cost, plural={"resolution": ("resolutions", ()), "head": ("heads", ())})
@dataclass(frozen=True, kw_only=True)
class MeasureCost(Models):
    """Count parameters and MACs: of every table of the paper, or of what the flags name."""

    breakdown: bool = False
    """Print what each module adds by itself, too."""

    def _cells(self: Any) -> list[Cell]:
        if not (self.names_arms or self.model or self.resolutions or self.heads):
            return find_study("paper").cells()
        return self._of_models(vary(Cost(), head=self.heads or ("classifier",), resolution=self.sizes((224,))))


@_with_flags_of(Counters, plural={"resolution": ("resolutions", ()), "tool": ("tools", TOOLS)})
@dataclass(frozen=True, kw_only=True)
class MeasureCounters(Arms):
    """Ask other people's counters of FLOPs: of the study counters, or of what the flags name."""

    attention: tuple[AttentionKernel, ...] = ("fused", "explicit")
    """Which of our kernels: most tools do not see the fused one."""

    def _cells(self: Any) -> list[Cell]:
        if not (self.names_arms or self.resolutions):
            cells = select(find_study("counters").cells(), tool=self.tools)
            return [cell for cell in cells if cell.arm_config.attention in self.attention]
        return self._of_arms(vary(Counters(), tool=self.tools, resolution=self.sizes((224,))), self.attention)


@_with_flags_of(
    Memory,
    plural={
        "resolution": ("resolutions", ()),
        "mode": ("modes", MODES),
        "checkpointing": ("checkpointing", ("none",)),
        "head": ("heads", ("classifier",)),
    },
    leave_out=("method",),
)
@dataclass(frozen=True, kw_only=True)
class MeasureMemory(Force, Models):
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
        left_out = ("resolution", "mode", "method", "checkpointing", "head")
        conditions = replace(_given(self, Memory, left_out), method="predicted" if self.predict else "measured")
        for stages in self.checkpointing:
            parse_stages(stages)
        sizes = self.sizes((224, 512, 1024, 2048, 4096) if self.predict else (224, 512, 1024))
        varied = [
            each
            for mode in self.modes
            for stages in (self.checkpointing if mode == "training" else ("none",))
            for each in vary(conditions, head=self.heads, mode=(mode,), checkpointing=(stages,), resolution=sizes)
        ]
        return self._of_models(varied, self.attention or (("fused",) if self.budget else ("fused", "explicit")))


@_with_flags_of(
    Speed,
    plural={"resolution": ("resolutions", ("224",)), "mode": ("modes", MODES), "head": ("heads", ("classifier",))},
    leave_out=("reference",),
)
@dataclass(frozen=True, kw_only=True)
class MeasureSpeed(Arms):
    """Time inference and training steps of each arm, interleaved with arm v1's or with the same model of a library."""

    versus: tuple[Library, ...] = ()
    """Libraries whose models are timed beside ours, with the same weights and outputs that are compared first. Then the
    arms are those that the libraries have, as published."""
    attention: tuple[AttentionKernel, ...] = ("fused",)
    """Of our models; timm's attend with the fused kernel, transformers' explicitly."""

    def _cells(self: Any) -> list[Cell]:
        reference: Any = "+".join(name for name in LIBRARIES if name in self.versus) or PVT_V1
        conditions = replace(_given(self, Speed, ("resolution", "mode", "reference", "head")), reference=reference)
        sizes = self.sizes()
        every = arms_of(take_toggles(self.toggles) or PAPER_TOGGLES)
        shared = [arm for arm in every if all(arm in LIBRARIES[name] for name in self.versus)]
        small = any("stem_stride" in VARIANTS.get(name, {}) for name in self.variants)
        if self.versus and (small or set(sizes) != {224}):  # libraries' v1 has patches of 4 px and inputs of 224
            shared = [arm for arm in shared if arm != PVT_V1]
        bases = self.bases or (("published",) if self.versus else ())
        models = replace(self, arms=self.arms or tuple(shared), bases=bases)
        varied = vary(conditions, head=self.heads, mode=self.modes, resolution=sizes)
        return models._of_arms(varied, self.attention)


@_with_flags_of(Accuracy, plural={"seed": ("seeds", (0,))}, leave_out=("num_classes", "init"))
@dataclass(frozen=True, kw_only=True)
class MeasureAccuracy(InitialWeights, TrainingRuns, DataFolder, Models):
    """Train each arm, or any model, by a recipe and evaluate it; a training that was stopped resumes."""

    DEFAULT_VARIANT = "nano"

    recipe: str = "small"
    """Where the fields of a training begin, of which each is a flag. One of those that `list` names."""

    @property
    def conditions(self: Any) -> Accuracy:
        """What is trained by, with the classes of the data set."""
        given = _given(self, Accuracy, ("seed", "num_classes", "init"))
        return replace(given, num_classes=count_classes(self.data, self.data_dir), init=self.init_digest)

    def _cells(self: Any) -> list[Cell]:
        return self._of_models(vary(self.conditions, seed=self.seeds))


@dataclass(frozen=True, kw_only=True)
class DenseTraining(InitialWeights, TrainingRuns, DataFolder, Models):
    """What detection and segmentation have in common."""

    DEFAULT_VARIANT = "nano"
    KIND: ClassVar[Any]

    recipe: str = "small"
    """Where the fields of a training begin, of which each is a flag. One of those that `list` names."""

    def _cells(self: Any) -> list[Cell]:
        given = _given(self, self.KIND, ("seed", "head", "init", "initial_weights"))
        given = replace(given, init=self.init_digest)
        return self._of_models(vary(given, head=self.heads, seed=self.seeds))


_OF_DENSE: dict[str, Any] = {"leave_out": ("init", "initial_weights")}


@_with_flags_of(Detection, plural={"seed": ("seeds", (0,)), "head": ("heads", ("retinanet",))}, **_OF_DENSE)
@dataclass(frozen=True, kw_only=True)
class MeasureDetection(DenseTraining):
    """Train a detector on each arm, or on any backbone, and compute AP; a training that was stopped resumes."""

    KIND = Detection


@_with_flags_of(Segmentation, plural={"seed": ("seeds", (0,)), "head": ("heads", ("semantic_fpn",))}, **_OF_DENSE)
@dataclass(frozen=True, kw_only=True)
class MeasureSegmentation(DenseTraining):
    """Train a segmentation network on each arm, or on any backbone, and compute mIoU; one that was stopped resumes."""

    KIND = Segmentation


@_with_flags_of(Evaluation, leave_out=("checkpoint", "data", "resolution", "protocol", "num_classes", "img_size"))
@dataclass(frozen=True, kw_only=True)
class Evaluate(DataFolder, Output):
    """Evaluate finished weights on validation images, at one test resolution or several.

    Weights that `accuracy --save-weights` wrote say themselves which model they are of, and which data.
    """

    checkpoint: Path
    """File of weights, by torch.save or .safetensors: this project's, the released code's, timm's or transformers'."""
    data: str | None = None
    """A data set that `list` shows, or an image folder with images as val/CLASS/* or CLASS/*; that of the training
    where the file of weights says it, else imagenet."""
    variant: str | None = None
    """Size; see `list`. b2 where the file of weights does not say it."""
    arm: str | None = None
    """Toggles that are on, or a published model such as PVTv2-B2-Li; see `list`. PVT v2 where the file does not say."""
    base: str | None = None
    """What the toggles are added to; see `list`. v2 where the file does not say it."""
    toggles: tuple[str, ...] = ()
    """Of the weights' arm, those that are from files of yours, as FILE.py:NAME."""
    resolutions: tuple[str, ...] = ()
    """Sides in pixels of the centre crop that the model sees; that of the training where the file says it, else 224."""
    protocol: Protocol | None = None
    """The crop is 0.875 of the resized image's short side in `paper`, as trainings here have it, 0.9 in `timm`, the
    default for other weights."""
    num_classes: int | None = like(Evaluation, "num_classes", None)
    img_size: int | None = like(Evaluation, "img_size", None)

    def cells(self: Any) -> list[Cell]:
        take_toggles(self.toggles)
        if not self.checkpoint.is_file():
            raise refuse("checkpoint", str(self.checkpoint), "a file of weights")

        from ablations.model.checkpoint import read_description
        from ablations.model.weights_file import read_weights_file

        weights = read_weights_file(self.checkpoint)
        told = read_description(weights)
        if told and "config" not in told:
            raise refuse("checkpoint", self.checkpoint.name, f"weights of an arm; these are of {told['model']}")
        held = {"num_classes": told["config"]["num_classes"], "img_size": told["config"]["img_size"]} if told else {}
        conditions = Evaluation(
            checkpoint=weights.sha256,
            data=self.data or told.get("data") or Evaluation.data,
            protocol=self.protocol or ("paper" if told else Evaluation.protocol),
            **{name: self._agreed(name, held) or getattr(Evaluation, name) for name in ("num_classes", "img_size")},
            **{
                name: getattr(self, name)
                for name in ("raw_weights", "skip_unreadable", "batch_size", "precision", "device")
            },
        )
        sizes = tuple(map(_parse_side, self.resolutions)) or (conditions.img_size,)
        model = self._arm(told)
        return [Cell(model=model, conditions=each) for each in vary(conditions, resolution=sizes)]

    def _arm(self, told: dict[str, Any]) -> Arm:
        """Returns the arm that the file of weights says it is of, or else the flags."""
        given: Any = self
        if model := published_model(self.arm or ""):
            _split_arms((str(self.arm),), tuple(filter(None, [self.variant])), tuple(filter(None, [self.base])))
            given = replace(self, variant=model[0], arm=model[1], base="published")
        elif self.arm:
            _check_arm(self.arm)
        if given.variant:
            given = replace(given, variant=variant_name(given.variant))
        held = told.get("model", {})
        names = {name: given._agreed(name, held) for name in ("variant", "arm", "base")}
        defaults = {"variant": Models.DEFAULT_VARIANT, "arm": PVT_V2, "base": DEFAULT_BASE}
        names = {name: value or defaults[name] for name, value in names.items()}
        overrides = tuple((name, told["config"][name]) for name in Arm.ALLOWED) if told else ()
        return Arm(**names, overrides=overrides)

    def _agreed(self, name: str, held: dict[str, Any]) -> Any:
        """Returns a flag's value, or what the file of weights holds; raises InputError where the two differ."""
        given = getattr(self, name)
        if name in held and given not in (None, held[name]):
            raise refuse(name, given, f"{held[name]}, which the weights in {self.checkpoint.name} have")
        return held.get(name, given)


def _parse_side(text: str) -> int:
    size = parse_size(text)
    if not isinstance(size, int):
        raise refuse("resolution", text, "one side in pixels: images are cropped to a square")
    return size


@dataclass(frozen=True, kw_only=True)
class ClosedForm(Debug):
    """Print parameters and MACs of all arms, bases and published variants as CSV, in closed form."""

    resolutions: tuple[str, ...] = ("224", "256", "320", "384", "448", "512", "640", "800x1280", "1024", "2048")
    """Pixels, such as 224 or 800x1280."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkCount(Debug):
    """Time the count of MACs: our trace beside fvcore's on real tensors, interleaved in one process."""

    variant: str | None = None
    """Size, b2 by default; see `list`."""
    arm: str = PVT_V2
    """Toggles that are on, or a published model such as PVTv2-B2; see `list`."""
    resolution: str = "1024"
    """Pixels, such as 224 or 800x1280."""
    repeats: int = 6
    """Counts of each."""

    @property
    def model(self) -> Arm:
        named, _ = _split_arms((self.arm,), tuple(filter(None, [self.variant])), ())
        if named:
            ((variant, arm),) = named.values()
            return Arm(variant=variant, arm=arm, base="published")
        return Arm(variant=self.variant or Arms.DEFAULT_VARIANT, arm=self.arm, base=DEFAULT_BASE)


@_with_flags_of(Accuracy, leave_out={each.name for each in fields(Accuracy)} - {"precision", "device", "compiled"})
@dataclass(frozen=True, kw_only=True)
class BenchmarkEpoch(DataFolder, Debug):
    """Time an epoch of training beside timm's step and loader doing the same work, interleaved in one process."""

    variant: str = "b0"
    """Of PVT v2 as published, which timm has too."""
    data: str | None = None
    """`digits`, ... or an image folder; imagenette224 by default if the data directory has it, else digits."""
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


@dataclass(frozen=True, kw_only=True)
class BuildReport(Debug):
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
    article: Path | None = None
    """Write the headline tables and figures, or with --all all of them, to this folder instead; figures as PDF too."""
    rename: tuple[str, ...] = ()
    """With --article: what arms are called there, such as 'v1+ope=PVTv1 + OPE'."""
    title: bool = True
    """With --article: --no-title leaves the titles above figures out."""
    toggles: tuple[str, ...] = ()
    """Of the records' arms, toggles from files of yours, as FILE.py:NAME: theirs are the records of now."""


@dataclass(frozen=True, kw_only=True)
class Compare(Debug):
    """Print what each change costs and gains, from records: a row an arm and a sentence a toggle."""

    study: str | None = field(default=None, metadata=POSITIONAL)
    """Compare the models of this study, by its name or the path of a file; by default the largest of each kind."""
    results: Path = Path("runs")
    """Folder of records."""
    toggles: tuple[str, ...] = ()
    """Those that the study's arms vary, instead of its own; one of yours is FILE.py:NAME."""
    format: Literal["terminal", "markdown", "csv", "latex", "html"] = "terminal"
    """How it is printed."""
    rename: tuple[str, ...] = ()
    """What arms are called, such as 'v1+ope=PVTv1 + OPE'."""


@dataclass(frozen=True, kw_only=True)
class Records(Debug):
    """Pack, unpack, merge or move aside records; none is changed or lost."""

    action: Literal["pack", "unpack", "merge", "drop"] = field(metadata=POSITIONAL)
    """pack: one file a measurement. unpack: one file a record. merge: copy those of other results folders. drop: move
    those that --where names to RESULTS/dropped."""
    folders: tuple[Path, ...] = field(default=(), metadata=POSITIONAL)
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
class NewToggleFile(Debug):
    """Print a file with a toggle of your own that runs at once, its shapes in comments."""

    slot: str = field(metadata=POSITIONAL)
    """What it replaces: attention (attn), mlp, norm, patch_embed, pos_embed, or the whole block."""


@dataclass(frozen=True, kw_only=True)
class StudyCells(Debug):
    """Which cells of a study."""

    study: str = field(default="quick", metadata=POSITIONAL)
    """Its name, or the path of a file of your own."""
    devices: tuple[Device, ...] = ()
    """As in `run`."""
    toggles: tuple[str, ...] = ()
    """As in `run`."""

    def cells(self) -> list[Cell]:
        return Run(study=self.study, devices=self.devices, toggles=self.toggles).cells()


@dataclass(frozen=True, kw_only=True)
class Status(StudyCells):
    """Say which cells of a study are queued, running, done and failed, and where they run."""

    results: Path = Path("runs")
    """Results folder."""


@dataclass(frozen=True, kw_only=True)
class Plan(StudyCells):
    """Estimate what the trainings of a study will take on a device: hours, memory and disk, by records of its speed."""

    device: str
    """Part of the device's name in the records, such as h100."""
    results: Path = Path("runs")
    """Results folder: it has the records of speed, and of the study what is done."""


@dataclass(frozen=True, kw_only=True)
class Cancel(Debug):
    """Stop the workers of a results folder; trainings leave checkpoints."""

    results: Path = Path("runs")
    """Results folder."""


@dataclass(frozen=True, kw_only=True)
class List(Debug):
    """List the arms, published models, variants, bases, data sets, recipes and studies."""


PROG = "run_ablation.py"

ABOUT = "Honest ablations of the Pyramid Vision Transformer, v1 to v2."

COMMANDS: dict[str, Any] = {
    "run": Run,
    "cost": MeasureCost,
    "counters": MeasureCounters,
    "memory": MeasureMemory,
    "speed": MeasureSpeed,
    "accuracy": MeasureAccuracy,
    "detect": MeasureDetection,
    "segment": MeasureSegmentation,
    "evaluate": Evaluate,
    "compare": Compare,
    "report": BuildReport,
    "records": Records,
    "power": Power,
    "plan": Plan,
    "status": Status,
    "cancel": Cancel,
    "list": List,
    "new-toggle": NewToggleFile,
    "closed-form": ClosedForm,
    "benchmark-count": BenchmarkCount,
    "benchmark-epoch": BenchmarkEpoch,
}
"""Every command by its name, the commonest first."""

GROUPS: dict[str, tuple[str, ...]] = {
    "models": (
        *("study", "measurements", "checkpoint", "toggles", "arms", "arm", "variants", "variant", "bases", "base"),
        *("model", "label", "set", "pool_size", "attention", "heads", "tools", "versus", "init"),
        *("img_size", "num_classes", "raw_weights"),
    ),
    "data": (
        *("data", "data_dir", "loading", "train_images", "tuning_images", "skip_unreadable", "skip_faulty"),
        *("first_label", "void_label"),
        *("resolution", "resolutions", "eval_resolutions", "protocol"),
    ),
    "conditions": (),
    "recipe": (
        "recipe",
        *dict.fromkeys(each.name for kind in (Recipe, DetectionRecipe, SegmentationRecipe) for each in fields(kind)),
    ),
    "run": (
        *("results", "seeds", "devices", "device", "precision", "compiled", "dry_run", "time_budget", "jobs"),
        *("workers", "force", "save_weights", "tensorboard", "breakdown", "verbose", "debug"),
    ),
    "workers": (
        *("launcher", "gpus_per_worker", "cpus_per_worker", "per_gpu", "time", "partition", "account"),
        *("constraint", "profile"),
    ),
}
"""The headings of the commands' help, and their flags; the first that has a flag shows it."""

FIRST: dict[Any, tuple[str, ...]] = {
    Run: (
        *("study", "measurements", "toggles", "arms", "variants", "data_dir"),
        *("results", "dry_run", "time_budget", "jobs", "devices"),
    ),
    MeasureCost: (
        "toggles",
        "arms",
        "variants",
        "bases",
        "model",
        "resolutions",
        "heads",
        "breakdown",
        "results",
        "dry_run",
    ),
    MeasureCounters: ("tools", "arms", "variants", "bases", "resolutions", "attention", "results", "dry_run"),
    MeasureMemory: (
        *("toggles", "arms", "variants", "model", "resolutions", "modes", "attention", "predict"),
        *("budget", "results"),
    ),
    MeasureSpeed: (
        *("toggles", "arms", "variants", "versus", "resolutions", "modes", "batch_size"),
        *("repeats", "device", "results"),
    ),
    MeasureAccuracy: (
        *("toggles", "arms", "variants", "data", "data_dir", "recipe"),
        *("epochs", "seeds", "jobs", "results"),
    ),
    **dict.fromkeys(
        (MeasureDetection, MeasureSegmentation),
        (
            *("toggles", "arms", "variants", "heads", "init", "data", "data_dir"),
            *("recipe", "seeds", "results"),
        ),
    ),
    Evaluate: (
        *("checkpoint", "arm", "variant", "base", "data", "data_dir", "resolutions"),
        *("batch_size", "device", "results"),
    ),
    BuildReport: ("toggles", "results", "check", "html", "all", "figures", "article", "rename", "title"),
    BenchmarkEpoch: ("variant", "data", "data_dir", "resolution", "batch_size", "steps", "workers", "device"),
}
"""The flags that `--help` shows of commands that have many."""


def parse(arguments: list[str]) -> Any:
    """Returns the command that arguments ask for; raises InputError with what is wrong, and what may be meant.

    Where they ask for help, prints it and raises SystemExit.
    """
    if arguments and arguments[0] in (*HELP, HELP_ALL):
        print(_overview())
        raise SystemExit(0)
    words = arguments if arguments and not arguments[0].startswith("-") else ["run", *arguments]
    name, words = words[0], words[1:]
    if name not in COMMANDS and (name in list_studies() or name.endswith(".toml")):
        raise InputError(f"command={name!r} is not possible: it is a study (did you mean 'run {name}'?)")
    command, prog = COMMANDS[pick("command", name, COMMANDS)], f"{PROG} {name}"
    defaults = _recipe_defaults(command, words)
    if {*HELP, HELP_ALL} & {*words}:
        layout = Layout()
        if command in FIRST:
            # Elsewhere than in a training no flag is a recipe's, whatever its name.
            groups = {title: names for title, names in GROUPS.items() if title != "recipe" or defaults}
            layout = Layout(groups=groups, rest="conditions", first=FIRST[command])
        print(describe_flags(command, prog, layout, defaults, everything=HELP_ALL in words), end="")
        raise SystemExit(0)
    return _with_data_by_name(parse_flags(command, prog, words, defaults))


def _overview() -> str:
    """Returns the help of all commands together."""
    lines = [f"  {name:17}{command.__doc__.splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROG} COMMAND [FLAGS]",
            "",
            f"{ABOUT} Without a command it runs the study `quick`.",
            "",
            *lines,
            "",
            f"COMMAND --help shows a command's commonest flags, COMMAND {HELP_ALL} all of them.",
        ]
    )


TRAININGS: dict[Any, type[Measurement]] = {
    MeasureAccuracy: Accuracy,
    MeasureDetection: Detection,
    MeasureSegmentation: Segmentation,
}
"""The commands that train by a recipe, and what they measure."""


def _recipe_defaults(command: Any, words: list[str]) -> dict[str, Any]:
    """Returns what flags of a training are by default: the fields of the recipe that the words name.

    Nothing of a command that trains by none.
    """
    if command not in TRAININGS:
        return {}
    name = next((after for flag, after in itertools.pairwise(words) if flag == "--recipe"), "small")
    name = next((word.partition("=")[2] for word in words if word.startswith("--recipe=")), name)
    return recipe_values(name, TRAININGS[command].recipes)


def _with_data_by_name(command: Any) -> Any:
    """Returns the command with an image folder's path as its name and the folder that it lies in."""
    data = getattr(command, "data", None)
    if not data or Path(data).name == data:
        return command
    if command.data_dir:
        if Path(data).is_absolute() or ".." in Path(data).parts or not (command.data_dir / data).is_dir():
            raise refuse("data", data, f"the name of a folder in --data-dir {command.data_dir}")
        return command  # a set that lies deeper has its whole path there as its name
    if not Path(data).is_dir():
        raise refuse("data", data, f"an image folder that exists, or one of {', '.join(DATA_SETS)}")
    path = Path(data).resolve()
    return replace(command, data=path.name, data_dir=path.parent)


def _default_devices() -> tuple[Device, ...]:
    from ablations.measure.environment import default_device

    return ("cpu",) if default_device() == "cpu" else ("cpu", "cuda")


def parse_duration(text: str, name: str = "time_budget") -> float:
    """Returns seconds for a text such as `90s`, `20min` or `1.5h`; raises InputError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text)
    if not match:
        raise refuse(name, text, "a number with s, min or h, such as 20min")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]
