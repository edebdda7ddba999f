"""Records: one JSON file for each measured cell, written whole or not at all, and read as a table.

A record describes itself: names, config, conditions, outcome, result, raw samples, environment, time taken. Its file
name ends with the cell's address, so that a cell is measured once. Nothing here needs torch.
"""

import ast
import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from ablations.config import ARMS, FRAMES, RIDERS, VARIANTS, AttentionKernel, PVTConfig
from ablations.design import CONDITIONS_OF, AnyCell, Head, address
from ablations.errors import FEW, pick, refuse
from ablations.files import write_text

SCHEMA = 1

_OF_ARM = ("measurement", "variant", "arm", "frame", "config", "conditions")
_OF_MODEL = ("measurement", "model", "conditions")
_OUTCOME = ("key", "study", "status", "failure", "result", "environment", "started", "duration_s")

_FIRST = (
    *("measurement", "data", "head", "variant", "frame", "attention", "pool_size", "device", "device_name", "torch"),
    *("mode", "precision", "batch_size", "reference", "channels_last", "checkpointing", "compiled"),
    *("train_images", "epochs"),
)
_LAST = ("pixels", "resolution", "arm", "model", "seed", "key")
_CONDITION_FIELDS = {field.name: field for kind in CONDITIONS_OF.values() for field in fields(kind)}
_SORTED_BY = (*_FIRST, *(name for name in _CONDITION_FIELDS if name not in (*_FIRST, *_LAST)), *_LAST)
_ORDERS: dict[str, list[Any]] = {
    "variant": list(VARIANTS),
    "frame": list(FRAMES),
    "attention": list(get_args(AttentionKernel)),
    "head": list(get_args(Head)),
    "arm": list(ARMS),
    "checkpointing": ["none"],
    "channels_last": [True, False],
}


@dataclass(frozen=True)
class Metric:
    """How a number of a record is shown: `label` for people, its `unit`, and what divides the stored value for it."""

    label: str
    unit: str
    divisor: float = 1.0

    @property
    def title(self) -> str:
        return f"{self.label}, {self.unit}"


METRICS = {
    "params": Metric("Parameters", "M", 1e6),
    "macs": Metric("Multiply-adds", "G", 1e9),
    "peak_memory_bytes": Metric("Peak memory", "MiB", 2**20),
    "latency_s": Metric("Latency", "ms", 1e-3),
    "throughput_img_per_s": Metric("Throughput", "img/s"),
    "relative_speed": Metric("Speed, v1 = 1", "x"),
    "top1": Metric("Top-1", "%", 1e-2),
    "top5": Metric("Top-5", "%", 1e-2),
    "ece": Metric("Calibration error", "%", 1e-2),
}
"""Every metric that a table or figure shows. Stored values are counts, bytes, seconds and fractions."""

Kind = Literal["text", "integer", "number", "boolean", "object"]


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
    "model": RecordColumn("The model by its name; an arm is pvt:VARIANT/ARM/FRAME."),
    "variant": RecordColumn("The arm's size; without value for a model that is no arm, as are the next two."),
    "arm": RecordColumn("The toggles that are on."),
    "frame": RecordColumn("What sets the riders."),
    "num_classes": _integer("Classes that the model tells apart; 0 leaves the head out.", "classes"),
    "resolution": RecordColumn("The input, as text such as 224 or 800x1280 (height x width).", "px"),
    "pixels": _integer("Height times width of the input.", "px"),
    "mode": RecordColumn("One forward pass without gradients, or one training step."),
    "batch_size": _integer("Pictures of a step, in all processes together.", "pictures"),
    "device": RecordColumn("Where it ran, or whose memory was predicted."),
    "params": _integer("Parameters.", "parameters"),
    "macs": _integer("Multiply-adds of one picture's forward pass.", "multiply-adds"),
    "macs_traced": _integer("The same by tracing, where macs is in closed form.", "multiply-adds"),
    "macs_by_operator": _object("The same by the operator's name.", "multiply-adds"),
    "breakdown": _object("params and macs of each module by itself; repeated blocks are one."),
    "other_values": _object("Values that layers without multiply-adds look at, by kind of layer.", "values"),
    "refused": RecordColumn("Why the model cannot take this input."),
    "peak_memory_bytes": _integer("Peak memory of the step.", "B"),
    "memory_method": RecordColumn("How the peak was found."),
    "parameter_bytes": _integer("What the parameters take.", "B"),
    "input_bytes": _integer("What the pictures take.", "B"),
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
    "throughput_img_per_s": _number("Pictures a second, from the median.", "img/s"),
    "iqr_over_median": _number("Interquartile range of the times over their median."),
    "noisy": RecordColumn("Whether that is over a tenth.", kind="boolean"),
    "samples": _object("Time of each step.", "s"),
    "relative_speed": _number("Arm v1's time over this arm's, steps in turn: the median ratio."),
    "relative_speed_low": _number("Lower end of its 95 % interval."),
    "relative_speed_high": _number("Upper end of its 95 % interval."),
    "reference_samples": _object("Time of each step of arm v1.", "s"),
    "references": _object("The same of each library's model, by its name; relative_speed is its time over ours."),
    "macs_per_s": _number("Multiply-adds a second; a training step counts as three forward passes.", "multiply-adds/s"),
    "peak_macs_per_s": _number("What large matrix products reach on the same machine.", "multiply-adds/s"),
    "peak_samples": _object("Time of each of those products.", "s"),
    "top1": _number("Share of the held-out pictures whose class has the highest score."),
    "top5": _number("Share of those whose class is among the five highest."),
    "loss": _number("Mean cross-entropy over the pictures.", "nat"),
    "ece": _number("Expected calibration error, 15 bins of equal width."),
    "expected_top1": _number("Top-1 of the released weights of such a model on all of ImageNet."),
    "eval_loss": _number("Mean cross-entropy over the held-out pictures.", "nat"),
    "n_eval_images": _integer("Held-out pictures.", "pictures"),
    "n_train_images": _integer("Training pictures.", "pictures"),
    "n_images": _integer("Pictures that were scored.", "pictures"),
    "n_classes": _integer("Classes that these are of.", "classes"),
    "classes": RecordColumn("How folders were mapped to the model's classes."),
    "skipped": _object("Pictures that could not be read."),
    "history": _object("A row an epoch: its number, mean training loss, last learning rate, seconds."),
    "train_s": _number("Time of the training.", "s"),
    "train_img_per_s": _number("Training pictures a second.", "img/s"),
    "device_name": RecordColumn("The processor or GPU; without value for a prediction, as are its threads."),
    "torch": RecordColumn("Version of torch."),
    "threads": _integer("Threads of torch on the CPU.", "threads"),
    "commit": RecordColumn("Commit of this code."),
    "study": RecordColumn("The study that the cell was measured for."),
    "key": RecordColumn("The cell's address, which its file name ends with."),
    "duration_s": _number("Time that the whole cell took.", "s"),
}
"""The columns of `load_records`; conditions that are not here are described at their fields in `ablations.design`."""

_CONFIG_COLUMNS = ("attention", "pool_size", "num_classes", *RIDERS)
_FIELD_UNITS = {
    **dict.fromkeys(("epochs", "warmup_epochs", "cooldown_epochs", "eval_every"), "epochs"),
    **dict.fromkeys(("train_images", "lr_batch"), "pictures"),
    **{"pool_size": "tokens", "img_size": "px", "repeats": "steps"},
}


def record_path(results: Path, cell: AnyCell) -> Path:
    """Returns where the record of a cell lies under the results folder."""
    return results / "records" / cell.measurement / f"{cell.file_name}.json"


def write_record(
    results: Path,
    cell: AnyCell,
    *,
    study: str,
    result: dict[str, Any] | None,
    failure: str | None,
    environment: dict[str, Any],
    started: str,
    duration_s: float,
) -> Path:
    """Writes the record of a cell, replacing an older one, and returns its path.

    `result` holds metrics and raw samples, or is None where the cell failed and `failure` says why; `started` is an
    ISO 8601 time in UTC.
    """
    record = {
        "schema": SCHEMA,
        "key": cell.key,
        "study": study,
        **cell.describe(),
        "status": "failed" if failure else "done",
        "failure": failure,
        "result": result,
        "environment": environment,
        "started": started,
        "duration_s": duration_s,
    }
    path = record_path(results, cell)
    try:
        write_text(path, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise refuse("record", str(path), f"a file that can be written ({error.strerror})") from error
    return path


def read_record(path: Path) -> dict[str, Any]:
    """Returns one record; raises ValueError, saying why, if the file is none or not the one that its name says."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"not a record of schema {SCHEMA}")
    description = _OF_MODEL if "model" in record else _OF_ARM
    missing = [name for name in (*description, *_OUTCOME) if name not in record]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    if (record["status"], type(record["result"])) not in (("done", dict), ("failed", type(None))):
        raise ValueError("its result and its status contradict each other")
    if str(record["measurement"]) not in CONDITIONS_OF or not all(
        isinstance(record.get(name, {}), dict) for name in ("config", "conditions", "environment")
    ):
        raise ValueError("its measurement is unknown, or its config, conditions or environment is no object")
    # What this version does not know, it would not keep apart either.
    for name, kind in (("conditions", CONDITIONS_OF[record["measurement"]]), ("config", PVTConfig)):
        unknown = record.get(name, {}).keys() - {field.name for field in fields(kind)}
        if unknown:
            raise ValueError(f"this version does not know {', '.join(sorted(unknown))} of its {name}")
    if record["key"] != address({name: record[name] for name in (*description, "file_sha256") if name in record}):
        raise ValueError("its description was changed after it was measured")
    if not path.stem.endswith(f"_{record['key']}") or path.parent.name != record["measurement"]:
        raise ValueError("it lies under another record's name")
    _check_values(record)
    return record


_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (list, dict),
}


def _check_values(record: dict[str, Any]) -> None:
    """Raises ValueError for a value that is not of its column's kind."""
    result = record["result"] or {}
    resolution = record["conditions"].get("resolution", 0)
    sizes = resolution if isinstance(resolution, list) and len(resolution) == 2 else [resolution]
    values = record | record["environment"] | record["conditions"] | result | {"resolution": ""}
    columns = _all_columns()
    wrong = [name for name in ("started", "failure", "file_sha256") if not _is_of_kind(record.get(name), "text")]
    wrong += [name for name, value in values.items() if name in columns and not _is_of_kind(value, columns[name].kind)]
    wrong += [] if all(_is_of_kind(size, "integer") for size in sizes) else ["resolution"]
    if wrong:
        raise ValueError(f"it has no {wrong[0]} of the kind that it should be")


def _is_of_kind(value: object, kind: Kind) -> bool:
    return value is None or (isinstance(value, _TYPES[kind]) and (kind == "boolean") == isinstance(value, bool))


def find_record(results: Path, cell: AnyCell) -> dict[str, Any] | None:
    """Returns the record of a cell, or None where there is none that can be read."""
    try:
        return read_record(record_path(results, cell))
    except ValueError:
        return None


def iterate_records(results: Path) -> Iterator[dict[str, Any]]:
    """Yields every record under the results folder, in order of file name; damaged files are left out."""
    for path in _record_files(results):
        try:
            yield read_record(path)
        except ValueError:
            continue


def find_damaged(results: Path) -> dict[str, str]:
    """Returns the files among the records that are none, by path under the results folder, and what is wrong.

    Damaged and foreign files alike; hidden ones, as an interrupted write leaves, are nobody's.
    """
    damaged = {}
    places = set(_record_files(results))
    for path in sorted(places | {path for path in (results / "records").rglob("*") if path.is_file()}):
        if any(part.startswith(".") for part in path.relative_to(results).parts):
            continue
        try:
            if path not in places:
                raise ValueError("not MEASUREMENT/NAME.json, which records are")
            read_record(path)
        except ValueError as error:
            damaged[path.relative_to(results).as_posix()] = str(error)
    return damaged


def _record_files(results: Path) -> list[Path]:
    return sorted((results / "records").glob("*/*.json"))


def load_records(
    results: Path | str, measurement: str | Iterable[str] | None = None, **filters: object
) -> pd.DataFrame:
    """Returns the finished records as a tidy frame, one row a record, sorted by names and conditions.

    `describe_columns` says what each column means, in which unit. Only columns that the chosen records have are there;
    no records make an empty frame with the names' columns. Whole numbers are int64, Int64 where some rows have none;
    truths are bool or boolean alike; names are plain text, not categories, and rows stand in the names' own order.

    A filter is a column's name with a value or several: `load_records(path, "accuracy", arm=["v1", "v1+ope"], seed=0)`.
    Sizes may be given as numbers, and None stands for rows without a value, as models that are no arm have no `arm`.
    Raises InputError for a column that there is not, and for a value that none of the measurement's records has, which
    is more often misspelt than missing; values that exist and never occur together make an empty frame.
    """
    wanted = {name: _values_of_filter(name, value) for name, value in filters.items()}
    measurements = [*CONDITIONS_OF] if measurement is None else _listed(measurement)
    for each in measurements:
        pick("measurement", each, CONDITIONS_OF)
    records = [
        record
        for record in iterate_records(Path(results))
        if record["status"] == "done" and record["measurement"] in measurements
    ]
    rows = [_row(record) for record in _newest_of_files(records)]
    for name, values in wanted.items():
        _check_filter(name, values, rows)
    rows = [row for row in rows if all(row.get(name) in values for name, values in wanted.items())]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["measurement", "model", "variant", "arm", "frame"])
    for name in frame.columns:
        frame[name] = _typed(frame[name], [row.get(name) for row in rows])
    return frame.sort_values([name for name in _SORTED_BY if name in frame], key=_rank, ignore_index=True)


def _listed(value: object) -> list[Any]:
    """Returns several values as a list; a text is one."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _values_of_filter(name: str, value: object) -> list[Any]:
    """Returns the values that a filter lets through; raises InputError for a column that cannot be filtered by."""
    kinds = {known: column.kind for known, column in _all_columns().items() if column.kind != "object"}
    pick("column", name, kinds)
    values = [None if pd.api.types.is_scalar(each) and pd.isna(each) else each for each in _listed(value)]
    return [str(each) if kinds[name] == "text" and each is not None else each for each in values]


def _check_filter(name: str, values: list[Any], rows: list[dict[str, Any]]) -> None:
    """Raises InputError for a value that no row has, if there are rows."""
    known = list(dict.fromkeys(row.get(name) for row in rows))
    for value in values:
        if known and value not in known:
            some = f": {', '.join(sorted(map(str, known)))}" if len(known) <= FEW else ""
            raise refuse(name, value, f"a value that some of these records have{some}")


def _typed(column: pd.Series, values: list[Any]) -> pd.Series:
    """Returns a column in the type of its kind; one that is not described, in that of its values."""
    described = _all_columns().get(str(column.name))
    found = {type(value) for value in values if value is not None}
    inferred = "integer" if found == {int} else "boolean" if found == {bool} else None
    kind = described.kind if described else inferred
    has_gaps = bool(column.isna().any())
    match kind:
        case "integer":
            return column.astype("Int64" if has_gaps else "int64")
        case "boolean":
            return column.astype("boolean" if has_gaps else "bool")
        case "number":
            return column.astype("float64")
    return column


def describe_columns() -> pd.DataFrame:
    """Returns what `load_records` gives: a row for each column, with its `meaning`, `unit` and `kind`.

    Shares, ratios and probabilities have no unit. Columns of kind object hold lists or tables of one record.
    """
    rows = [vars(column) for column in _all_columns().values()]
    return pd.DataFrame(rows, index=pd.Index(_all_columns(), name="column"))


@cache
def _all_columns() -> dict[str, RecordColumn]:
    """Returns the columns in their order: names, fields of the config and of conditions, results, environment."""
    of_fields: dict[str, RecordColumn] = {}
    for owner in (PVTConfig, *CONDITIONS_OF.values()):
        meanings = field_docstrings(owner)
        for field in fields(owner):
            if owner is not PVTConfig or field.name in _CONFIG_COLUMNS:
                kind = _FIELD_KINDS.get(_type_name(field.type), "text")
                described = RecordColumn(meanings.get(field.name, ""), _FIELD_UNITS.get(field.name, ""), kind)
                of_fields.setdefault(field.name, described)
    names = [*COLUMNS]
    place = names.index("num_classes")
    return {name: COLUMNS.get(name) or of_fields[name] for name in (*names[:place], *of_fields, *names[place:])}


_FIELD_KINDS: dict[str, Kind] = {"int": "integer", "float": "number", "bool": "boolean"}


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


def _newest_of_files(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out records of what a user's file held before it was changed."""
    newest = {
        record["model"]: record["file_sha256"]
        for record in sorted(records, key=lambda record: record["started"])
        if "file_sha256" in record
    }
    return [record for record in records if record.get("file_sha256") == newest.get(record.get("model", ""))]


def _rank(column: pd.Series) -> pd.Series:
    """Puts variants, frames and arms in their own order, and names that are no longer known behind them."""
    order = _ORDERS.get(str(column.name))
    return column.map({name: rank for rank, name in enumerate(order)}) if order else column


def _defaults(kind: type) -> dict[str, Any]:
    return {field.name: field.default for field in fields(kind) if field.default is not MISSING}


def _row(record: dict[str, Any]) -> dict[str, Any]:
    # An older record lacks the fields that came after it; their defaults are what it was measured with.
    conditions = _defaults(CONDITIONS_OF[record["measurement"]]) | record["conditions"]
    environment = record["environment"]
    resolution = conditions.pop("resolution")
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    if conditions.get("method") == "predicted":
        environment = environment | {"device_name": None, "threads": None}  # which machine predicts makes no difference
    return {
        "measurement": record["measurement"],
        **_model_columns(record),
        "resolution": str(height) if height == width else f"{height}x{width}",
        "pixels": height * width,
        **conditions,
        **record["result"],
        **{name: environment.get(name) for name in ("device_name", "torch", "threads", "commit")},
        **{name: record[name] for name in ("study", "key", "duration_s")},
    }


def _model_columns(record: dict[str, Any]) -> dict[str, Any]:
    if "model" in record:
        return {"model": record["model"], "variant": None, "arm": None, "frame": None}
    config = _defaults(PVTConfig) | record["config"]
    names = {name: record[name] for name in ("variant", "arm", "frame")}
    return {"model": "pvt:" + "/".join(names.values()), **names, **{name: config[name] for name in _CONFIG_COLUMNS}}
