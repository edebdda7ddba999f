"""Records: one JSON file for each measured cell, written whole or not at all, and read as a table.

A record describes itself: names, config, conditions, outcome, result, raw samples, environment, time taken. Its file
name ends with the cell's address, so that a cell is measured once. Nothing here needs torch.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.config import RIDERS
from ablations.design import Cell

SCHEMA = 1


@dataclass(frozen=True)
class Metric:
    """How a number of a record is shown: `label` for people, its `unit`, and what divides the stored value for it."""

    label: str
    unit: str
    divisor: float = 1.0


METRICS = {
    "params": Metric("Parameters", "M", 1e6),
    "macs": Metric("GFLOPs (MACs)", "G", 1e9),
    "peak_memory_bytes": Metric("Peak memory", "MiB", 2**20),
    "latency_s": Metric("Latency", "ms", 1e-3),
    "throughput_img_per_s": Metric("Throughput", "img/s"),
    "relative_speed": Metric("Speed, v1 = 1", "x"),
    "top1": Metric("Top-1", "%", 1e-2),
}
"""Every metric that a table or figure shows. Stored values are counts, bytes, seconds and fractions."""


def record_path(results: Path, cell: Cell) -> Path:
    """Returns where the record of a cell lies under the results folder."""
    arm = cell.arm.replace("+", "-")
    return results / "records" / cell.measurement / f"{cell.variant}_{cell.frame}_{arm}_{cell.key}.json"


def write_record(
    results: Path,
    cell: Cell,
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
    write_text(path, json.dumps(record, indent=1) + "\n")
    return path


def write_text(path: Path, text: str) -> None:
    """Writes a file whole: a kill at any moment leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_record(path: Path) -> dict[str, Any]:
    """Returns one record; raises ValueError if the file is none of this schema."""
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or "key" not in record:
        raise ValueError(f"{path.name} is not a record of schema {SCHEMA}")
    return record


def find_record(results: Path, cell: Cell) -> dict[str, Any] | None:
    """Returns the record of a cell, or None where there is none that can be read."""
    try:
        return read_record(record_path(results, cell))
    except (OSError, ValueError):
        return None


def iterate_records(results: Path) -> Iterator[dict[str, Any]]:
    """Yields every record under the results folder, in order of file name; a damaged file is left out."""
    for path in sorted((results / "records").glob("*/*.json")):
        try:
            yield read_record(path)
        except ValueError:
            continue


def load_records(results: Path, measurement: str | None = None) -> pd.DataFrame:
    """Returns the finished records as a tidy frame, one row a record, sorted by names and conditions.

    Columns: `measurement, variant, arm, frame, attention, pool_size`, the riders, the conditions (`resolution` as
    text such as `224` or `800x1280`, and `pixels`), `seed`, the metrics in their stored units (METRICS), `samples`
    and other raw lists as objects, `device_name`, `torch`, `commit`, `study`, `key`, `duration_s`.
    """
    rows = [_row(record) for record in iterate_records(results) if record["status"] == "done"]
    frame = pd.DataFrame(rows)
    if measurement is not None and not frame.empty:
        frame = frame[frame["measurement"] == measurement].dropna(axis="columns", how="all").reset_index(drop=True)
    return frame


def _row(record: dict[str, Any]) -> dict[str, Any]:
    config, conditions, environment = record["config"], dict(record["conditions"]), record["environment"]
    resolution = conditions.pop("resolution")
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    return {
        **{name: record[name] for name in ("measurement", "variant", "arm", "frame")},
        **{name: config[name] for name in ("attention", "pool_size", *RIDERS)},
        "resolution": str(height) if height == width else f"{height}x{width}",
        "pixels": height * width,
        **conditions,
        **record["result"],
        **{name: environment.get(name) for name in ("device_name", "torch", "commit")},
        **{name: record[name] for name in ("study", "key", "duration_s")},
    }
