"""Records: one JSON file for each measured cell, written whole or not at all, and read as a table.

A record describes itself: names, config, conditions, outcome, result, raw samples, environment, time taken. Its file
name ends with the cell's address, so that a cell is measured once. Nothing here needs torch.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from ablations.config import ARMS, FRAMES, RIDERS, VARIANTS, AttentionKernel, PVTConfig
from ablations.design import CONDITIONS_OF, AnyCell, Head, address
from ablations.errors import refuse

SCHEMA = 1

_OF_ARM = ("measurement", "variant", "arm", "frame", "config", "conditions")
_OF_MODEL = ("measurement", "model", "conditions")
_OUTCOME = ("key", "study", "status", "failure", "result", "environment", "started", "duration_s")

_SORTED_BY = (
    *("measurement", "data", "head", "variant", "frame", "attention", "pool_size", "device", "device_name", "torch"),
    *(
        "mode",
        "precision",
        "batch_size",
        "reference",
        "channels_last",
        "checkpointing",
        "compiled",
        "train_images",
        "epochs",
        "pixels",
        "resolution",
        "arm",
        "model",
        "seed",
    ),
    "key",
)
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


def write_text(path: Path, text: str) -> None:
    """Writes a file whole, in UTF-8: a kill at any moment leaves the old one or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole: a kill at any moment leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_record(path: Path) -> dict[str, Any]:
    """Returns one record; raises ValueError, saying why, if the file is none or not the one that its name says."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError("not JSON") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"not a record of schema {SCHEMA}")
    description = _OF_MODEL if "model" in record else _OF_ARM
    missing = [name for name in (*description, *_OUTCOME) if name not in record]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    if (record["status"], type(record["result"])) not in (("done", dict), ("failed", type(None))):
        raise ValueError("its result and its status contradict each other")
    if record["measurement"] not in CONDITIONS_OF or not all(
        isinstance(record.get(name, {}), dict) for name in ("config", "conditions", "environment")
    ):
        raise ValueError("its measurement is unknown, or its config, conditions or environment is no object")
    if record["key"] != address({name: record[name] for name in (*description, "file_sha256") if name in record}):
        raise ValueError("its description was changed after it was measured")
    if not path.stem.endswith(f"_{record['key']}") or path.parent.name != record["measurement"]:
        raise ValueError("it lies under another record's name")
    return record


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
    """Returns the files among the records that are none, by path under the results folder, and what is wrong."""
    damaged = {}
    for path in _record_files(results):
        try:
            read_record(path)
        except ValueError as error:
            damaged[path.relative_to(results).as_posix()] = str(error)
    return damaged


def _record_files(results: Path) -> list[Path]:
    return sorted((results / "records").glob("*/*.json"))


def load_records(results: Path, measurement: str | None = None) -> pd.DataFrame:
    """Returns the finished records as a tidy frame, one row a record, sorted by names and conditions.

    Columns: `measurement, model, variant, arm, frame, attention, pool_size, num_classes`, the riders (all but the first
    two without value for a model that is no arm), the conditions (`resolution` as text such as `224` or `800x1280`, and
    `pixels`), `seed`, the metrics in their stored units
    (METRICS), `samples` and other raw lists as objects, `device_name`, `torch`, `threads`, `commit`, `study`,
    `key`, `duration_s`. With a `measurement`, only its records and only the columns that these have. No records make an
    empty frame with the names' columns.
    """
    records = [
        record
        for record in iterate_records(results)
        if record["status"] == "done" and measurement in (None, record["measurement"])
    ]
    rows = [_row(record) for record in _newest_of_files(records)]
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["measurement", "model", "variant", "arm", "frame"])
    for name in frame.columns[frame.isna().any()]:
        if all(type(row[name]) is int for row in rows if row.get(name) is not None):
            frame[name] = frame[name].astype("Int64")  # else gaps would make whole numbers floats
    return frame.sort_values([name for name in _SORTED_BY if name in frame], key=_rank, ignore_index=True)


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
    fields = ("attention", "pool_size", "num_classes", *RIDERS)
    return {"model": "pvt:" + "/".join(names.values()), **names, **{name: config[name] for name in fields}}
