"""Records: one JSON file for each measured cell, written whole or not at all, and read as a table.

A record describes itself: names, config, conditions, outcome, result, raw samples, environment, time taken. Its file
name ends with the cell's address, so that a cell is measured once. Nothing here needs torch.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from ablations.columns import CONFIG_COLUMNS, is_of_kind, list_columns
from ablations.config import ARMS, BASES, VARIANTS, AttentionKernel, PVTConfig
from ablations.design import CONDITIONS_OF, AnyCell, Head, address
from ablations.errors import FEW, pick, refuse
from ablations.files import write_text

SCHEMA = 2

_OF_ARM = ("measurement", "variant", "arm", "base", "config", "conditions")
_OF_MODEL = ("measurement", "model", "conditions")
_OUTCOME = ("key", "study", "status", "failure", "result", "environment", "started", "duration_s", "digest")

_FIRST = (
    *("measurement", "data", "head", "variant", "base", "attention", "pool_size", "device", "device_name", "torch"),
    *("mode", "precision", "batch_size", "reference", "channels_last", "checkpointing", "compiled"),
    *("train_images", "epochs"),
)
_LAST = ("pixels", "resolution", "arm", "model", "seed", "key")
_CONDITION_FIELDS = {field.name: field for kind in CONDITIONS_OF.values() for field in fields(kind)}
_SORTED_BY = (*_FIRST, *(name for name in _CONDITION_FIELDS if name not in (*_FIRST, *_LAST)), *_LAST)
_ORDERS: dict[str, list[Any]] = {
    "variant": list(VARIANTS),
    "base": list(BASES),
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
    "macs": Metric("MACs", "G", 1e9),
    "peak_memory_bytes": Metric("Peak memory", "MiB", 2**20),
    "latency_s": Metric("Latency", "ms", 1e-3),
    "throughput_img_per_s": Metric("Throughput", "img/s"),
    "relative_speed": Metric("Speed, v1 = 1", "x"),
    "top1": Metric("Top-1", "%", 1e-2),
    "top5": Metric("Top-5", "%", 1e-2),
    "ece": Metric("Calibration error", "%", 1e-2),
}
"""Every metric that a table or figure shows. Stored values are counts, bytes, seconds and fractions."""

MAIN_METRICS = {
    "cost": "params",
    "memory": "peak_memory_bytes",
    "speed": "latency_s",
    "accuracy": "top1",
    "evaluation": "top1",
}
"""What a finished record of each measurement has; peak memory is None where a step did not fit or was refused."""


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
    record["digest"] = record_digest(record)
    path = record_path(results, cell)
    try:
        write_text(path, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise refuse("record", str(path), f"a file that can be written ({error.strerror})") from error
    return path


def record_digest(record: dict[str, Any]) -> str:
    """Returns the SHA-256 of all that a record says, its own digest aside: it shows accidents, not intent."""
    said = {name: value for name, value in record.items() if name != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def pack_bits(values: Sequence[bool]) -> str:
    """Returns truths as text: a bit each, most significant first, in base64."""
    return base64.b64encode(np.packbits(np.asarray(values, dtype=bool)).tobytes()).decode()


def unpack_bits(text: str, count: int) -> np.ndarray:
    """Returns the first `count` truths (count,) of what `pack_bits` wrote."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8), count=count).astype(bool)


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
    if record["digest"] != record_digest(record):
        raise ValueError("it was changed after it was measured")
    if not path.stem.endswith(f"_{record['key']}") or path.parent.name != record["measurement"]:
        raise ValueError("it lies under another record's name")
    _check_values(record)
    return record


def _check_values(record: dict[str, Any]) -> None:
    """Raises ValueError for a value that is not of its column's kind, and for a result without its main metric."""
    result = record["result"] or {}
    main = MAIN_METRICS[record["measurement"]]
    may_lack = record["status"] == "failed" or (record["measurement"] == "memory" and main in result)
    if result.get(main) is None and not may_lack:
        raise ValueError(f"its result has no {main}")
    resolution = record["conditions"].get("resolution", 0)
    sizes = resolution if isinstance(resolution, list) and len(resolution) == 2 else [resolution]
    values = record | record["environment"] | record["conditions"] | result | {"resolution": ""}
    columns = list_columns()
    wrong = [name for name in ("started", "failure", "file_sha256") if not is_of_kind(record.get(name), "text")]
    wrong += [name for name, value in values.items() if name in columns and not is_of_kind(value, columns[name].kind)]
    wrong += [] if all(is_of_kind(size, "integer") for size in sizes) else ["resolution"]
    if wrong:
        raise ValueError(f"it has no {wrong[0]} of the kind that it should be")


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
    """Returns the finished records as a tidy DataFrame, one row a record, sorted by names and conditions.

    `describe_columns` says what each column means, in which unit. Only columns that the chosen records have are there;
    no records make an empty DataFrame with the names' columns. Whole numbers are int64, Int64 where some rows have none;
    truths are bool or boolean alike; names are plain text, not categories, and rows stand in the names' own order.

    A filter is a column's name with a value or several: `load_records(path, "accuracy", arm=["v1", "v1+ope"], seed=0)`.
    Sizes may be given as numbers, and None stands for rows without a value, as models that are no arm have no `arm`.
    Raises InputError for a column that there is not, and for a value that none of the measurement's records has, which
    is more often misspelt than missing; values that exist and never occur together make an empty rows_table.
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
    rows_table = (
        pd.DataFrame(rows) if rows else pd.DataFrame(columns=["measurement", "model", "variant", "arm", "base"])
    )
    for name in rows_table.columns:
        rows_table[name] = _typed(rows_table[name], [row.get(name) for row in rows])
    return rows_table.sort_values([name for name in _SORTED_BY if name in rows_table], key=_rank, ignore_index=True)


def _listed(value: object) -> list[Any]:
    """Returns several values as a list; a text is one."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _values_of_filter(name: str, value: object) -> list[Any]:
    """Returns the values that a filter lets through; raises InputError for a column that cannot be filtered by."""
    kinds = {known: column.kind for known, column in list_columns().items() if column.kind != "object"}
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
    described = list_columns().get(str(column.name))
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


def _newest_of_files(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out records of what a user's file held before it was changed."""
    newest = {
        record["model"]: record["file_sha256"]
        for record in sorted(records, key=lambda record: record["started"])
        if "file_sha256" in record
    }
    return [record for record in records if record.get("file_sha256") == newest.get(record.get("model", ""))]


def _rank(column: pd.Series) -> pd.Series:
    """Puts variants, bases and arms in their own order, and names that are no longer known behind them."""
    order = _ORDERS.get(str(column.name))
    return column.map({name: rank for rank, name in enumerate(order)}) if order else column


def _defaults(kind: type) -> dict[str, Any]:
    return {field.name: field.default for field in fields(kind) if field.default is not MISSING}


def _row(record: dict[str, Any]) -> dict[str, Any]:
    # An older record lacks the fields that came after it; their defaults are what it was measured with.
    conditions = _defaults(CONDITIONS_OF[record["measurement"]]) | record["conditions"]
    environment = record["environment"]
    resolution = conditions.pop("resolution")
    conditions = {name: tuple(value) if isinstance(value, list) else value for name, value in conditions.items()}
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
        **({"processes": environment.get("processes", 1)} if record["measurement"] == "accuracy" else {}),
        **{name: record[name] for name in ("study", "key", "duration_s")},
    }


def _model_columns(record: dict[str, Any]) -> dict[str, Any]:
    if "model" in record:
        return {"model": record["model"], "variant": None, "arm": None, "base": None}
    config = _defaults(PVTConfig) | record["config"]
    names = {name: record[name] for name in ("variant", "arm", "base")}
    return {"model": "pvt:" + "/".join(names.values()), **names, **{name: config[name] for name in CONFIG_COLUMNS}}
