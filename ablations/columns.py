"""The columns of the table that records make: what each means, its unit, and of which kind its values are."""

import ast
import inspect
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import pandas as pd

from ablations.config import CONFOUNDERS, PVTConfig
from ablations.design import CONDITIONS_OF

Kind = Literal["text", "integer", "number", "boolean", "object"]

_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (list, dict),
}


def is_of_kind(value: object, kind: Kind) -> bool:
    """Whether a value of a record is of a kind; None is of each."""
    return value is None or (isinstance(value, _TYPES[kind]) and (kind == "boolean") == isinstance(value, bool))


@dataclass(frozen=True)
class RecordColumn:
    """What a column of `load_records` means, in which unit it is, and of which kind its values are."""

    meaning: str
    unit: str = ""
    kind: Kind = "text"


def _integer(meaning: str, unit: str = "") -> RecordColumn:
    return RecordColumn(meaning, unit, "integer")


def _number(meaning: str, unit: str = "") -> RecordColumn:
    return RecordColumn(meaning, unit, "number")


def _object(meaning: str, unit: str = "") -> RecordColumn:
    return RecordColumn(meaning, unit, "object")


COLUMNS = {
    "measurement": RecordColumn("What was measured: cost, memory, speed, accuracy or evaluation."),
    "model": RecordColumn("The model by its name; an arm is pvt:VARIANT/ARM/BASE."),
    "variant": RecordColumn("The arm's size; without value for a model that is no arm, as are the next two."),
    "arm": RecordColumn("The toggles that are on."),
    "base": RecordColumn("What sets the confounders."),
    "num_classes": _integer("Classes that the model tells apart; 0 leaves the head out.", "classes"),
    "resolution": RecordColumn("The input, as text such as 224 or 800x1280 (height x width).", "px"),
    "pixels": _integer("Height times width of the input.", "px"),
    "mode": RecordColumn("One forward pass without gradients, or one training step."),
    "batch_size": _integer("Images of a step, in all processes together.", "images"),
    "device": RecordColumn("Where it ran, or whose memory was predicted."),
    "params": _integer("Parameters.", "parameters"),
    "macs": _integer("MACs of one image's forward pass.", "MACs"),
    "macs_traced": _integer("The same by tracing, where macs is in closed form.", "MACs"),
    "macs_by_operator": _object("The same by the operator's name.", "MACs"),
    "breakdown": _object("params and macs of each module by itself; repeated blocks are one."),
    "other_values": _object("Values that layers without MACs look at, by kind of layer.", "values"),
    "refused": RecordColumn("Why the model cannot take this input."),
    "peak_memory_bytes": _integer("Peak memory of the step.", "B"),
    "memory_method": RecordColumn("How the peak was found."),
    "parameter_bytes": _integer("What the parameters take.", "B"),
    "input_bytes": _integer("What the images take.", "B"),
    "resident_peak_bytes": _integer("What a process of its own grew by at its peak, kernels' buffers included.", "B"),
    "resident_method": RecordColumn("How that was found."),
    "peak_reserved_bytes": _integer("What CUDA's allocator held at its peak.", "B"),
    "left_over_bytes": _integer("What was still allocated after the step beside what it began with.", "B"),
    "out_of_memory": RecordColumn("What was asked for and what was free, where memory ran out."),
    "peak_operator": RecordColumn("The operator that reached the predicted peak."),
    "peak_phase": RecordColumn("Where in the step that was."),
    "bytes_at_peak": _object("What the predicted peak is made of, by kind.", "B"),
    "activations_by_stage": _object("Activations at the predicted peak, by the stage that made them.", "B"),
    "latency_s": _number("Median time of a step.", "s"),
    "throughput_img_per_s": _number("Images a second, from the median.", "img/s"),
    "iqr_over_median": _number("Interquartile range of the times over their median."),
    "noisy": RecordColumn("Whether that is over a tenth.", kind="boolean"),
    "samples": _object("Time of each step.", "s"),
    "relative_speed": _number("Arm v1's time over this arm's, steps interleaved: the median ratio."),
    "relative_speed_low": _number("Lower end of its 95 % interval."),
    "relative_speed_high": _number("Upper end of its 95 % interval."),
    "reference_samples": _object("Time of each step of arm v1.", "s"),
    "references": _object("The same of each library's model, by its name; relative_speed is its time over ours."),
    "macs_per_s": _number("MACs a second; a training step counts as three forward passes.", "MACs/s"),
    "peak_macs_per_s": _number("What large matrix products reach on the same machine.", "MACs/s"),
    "peak_samples": _object("Time of each of those products.", "s"),
    "peak_bytes_per_s": _number("What a copy of tensors too large for caches reads and writes a second.", "B/s"),
    "bandwidth_samples": _object("Time of each of those copies and of smaller ones, by the bytes that one moves.", "s"),
    "operators": _object("A row an operator of a profiled step: kind, name, calls, its own time and the samples.", "s"),
    "step_overhead_s": _number(
        "What that step took beside all operators: Python, autograd, dispatch, launches, the profiler.", "s"
    ),
    "step_overhead_samples": _object("The same of each profiled step.", "s"),
    "roofline": _object(
        "A row a kind of operator: calls, MACs, bytes, and their time at the machine's two rates.", "s"
    ),
    "uncounted": _object("Operators of which nobody knows whether they multiply; they count with their bytes."),
    "top1": _number("Share of the validation images whose class has the highest score."),
    "top1_by_resolution": _object("The same at other resolutions, by the side in pixels as text."),
    "correct": RecordColumn("Which validation images were right, in their order, as `unpack_bits` reads it."),
    "top5": _number("Share of those whose class is among the five highest."),
    "loss": _number("Mean cross-entropy over the images.", "nat"),
    "ece": _number("Expected calibration error, 15 bins of equal width."),
    "expected_top1": _number("Top-1 of the released weights of such a model on all of ImageNet."),
    "eval_loss": _number("Mean cross-entropy over the validation images.", "nat"),
    "n_eval_images": _integer("Validation images.", "images"),
    "n_train_images": _integer("Training images.", "images"),
    "n_images": _integer("Images that were scored.", "images"),
    "n_classes": _integer("Classes that these are of.", "classes"),
    "classes": RecordColumn("How folders were mapped to the model's classes."),
    "skipped": _object("Images that could not be read."),
    "peak_lr": _number("The highest learning rate of the schedule."),
    "history": _object("A row an epoch: number, mean training loss, last learning rate, seconds, top-1 if evaluated."),
    "train_s": _number("Time of the training.", "s"),
    "train_img_per_s": _number("Training images a second.", "img/s"),
    "wait_fraction": _number("Share of the training's time that it waited for images."),
    "device_name": RecordColumn("The processor or GPU; without value for a prediction, as are its threads."),
    "torch": RecordColumn("Version of torch."),
    "threads": _integer("Threads of torch on the CPU.", "threads"),
    "processes": _integer("Processes that trained together, each with its threads.", "processes"),
    "commit": RecordColumn("Commit of this code."),
    "study": RecordColumn("The study that the cell was measured for."),
    "key": RecordColumn("The cell's address, which its file name ends with."),
    "duration_s": _number("Time that the whole cell took.", "s"),
}
"""The columns of `load_records`; conditions that are not here are described at their fields in `ablations.design`."""

CONFIG_COLUMNS = ("attention", "pool_size", "num_classes", *CONFOUNDERS)
"""The fields of an arm's config that are columns."""

_FIELD_UNITS = {
    **dict.fromkeys(("epochs", "warmup_epochs", "cooldown_epochs", "eval_every"), "epochs"),
    **dict.fromkeys(("train_images", "lr_base_size"), "images"),
    **{"pool_size": "tokens", "img_size": "px", "repeats": "steps"},
}


def describe_columns() -> pd.DataFrame:
    """Returns what `load_records` gives: a row for each column, with its `meaning`, `unit` and `kind`.

    Shares, ratios and probabilities have no unit. Columns of kind object hold lists or tables of one record.
    """
    rows = [vars(column) for column in list_columns().values()]
    return pd.DataFrame(rows, index=pd.Index(list_columns(), name="column"))


@cache
def list_columns() -> dict[str, RecordColumn]:
    """Returns the columns in their order: names, fields of the config and of conditions, results, environment."""
    of_fields: dict[str, RecordColumn] = {}
    for owner in (PVTConfig, *CONDITIONS_OF.values()):
        meanings = field_docstrings(owner)
        for field in fields(owner):
            if owner is not PVTConfig or field.name in CONFIG_COLUMNS:
                kind = _FIELD_KINDS.get(_type_name(field.type), "text")
                described = RecordColumn(meanings.get(field.name, ""), _FIELD_UNITS.get(field.name, ""), kind)
                of_fields.setdefault(field.name, described)
    names = [*COLUMNS]
    place = names.index("num_classes")
    return {name: COLUMNS.get(name) or of_fields[name] for name in (*names[:place], *of_fields, *names[place:])}


_FIELD_KINDS: dict[str, Kind] = {"int": "integer", "float": "number", "bool": "boolean", "tuple": "object"}


def _type_name(annotation: Any) -> str:
    """Returns `float` of `float` and of `float | None`."""
    return str(getattr(annotation, "__name__", annotation)).partition(" ")[0]


def field_docstrings(kind: type) -> dict[str, str]:
    """Returns the docstring below each field of a class or of one that it extends, where there is one."""
    meanings: dict[str, str] = {}
    for owner in reversed(kind.__mro__[:-1]):
        body = ast.parse(inspect.getsource(owner)).body[0].body  # type: ignore[attr-defined]
        meanings |= {
            named.target.id: text.value.value
            for named, text in pairwise(body)
            if isinstance(named, ast.AnnAssign) and isinstance(named.target, ast.Name)
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
        }
    return meanings
