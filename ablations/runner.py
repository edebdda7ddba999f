"""From cells to records: measures what is missing, one cell at a time, and leaves cleanly.

A cell's record is written when the cell is finished, so a kill loses the cell in progress and no other.
"""

import gc
import json
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ablations import cost
from ablations.config import as_pair
from ablations.design import Accuracy, Cell, Cost, Memory, Speed
from ablations.errors import InputError
from ablations.measure.allocator import keep_freed_memory
from ablations.measure.environment import check_device, describe_environment
from ablations.measure.macs import trace_macs
from ablations.measure.memory import measure_peak_memory
from ablations.measure.samples import paired_ratio, summarise_times
from ablations.measure.speed import time_in_turn
from ablations.measure.step import build_step
from ablations.model import PVT, build_model
from ablations.records import find_record, iterate_records, write_record
from ablations.training.data import check_data
from ablations.training.loop import measure_accuracy

Tell = Callable[[str], None]
"""Takes a few words on how far a cell is."""


@dataclass
class Summary:
    """What came of a run: how many cells were measured, were there already, failed (with reasons), or are left."""

    measured: int = 0
    kept: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    left: int = 0


def run_cells(
    cells: Sequence[Cell],
    *,
    study: str,
    results: Path,
    data_dir: Path | None = None,
    time_budget_s: float = float("inf"),
    debug: bool = False,
) -> Summary:
    """Measures the cells that have no finished record under `results`, with a progress bar for each measurement.

    A cell that fails is recorded with its reason and the others go on; a failed cell counts as missing the next time.
    No cell is started that by the records of its like will not be finished within the budget. Raises InputError,
    before anything is measured, if a device or a data set that a missing cell needs is not there.
    """
    deadline = time.monotonic() + time_budget_s
    missing = [cell for cell in cells if not _is_done(find_record(results, cell))]
    summary = Summary(kept=len(cells) - len(missing))
    _check_needs(missing, data_dir)
    keep_freed_memory()
    expected_s = _durations(results)
    for measurement, group in groupby(missing, key=lambda cell: cell.measurement):
        batch = list(group)
        with tqdm(batch, desc=f"{measurement:8}", unit="cell", dynamic_ncols=True) as bar:
            for cell in bar:
                if time.monotonic() + expected_s.get(_workload(cell.describe()), 0.0) > deadline:
                    summary.left += 1
                    continue
                bar.set_postfix_str(f"{cell.variant} {cell.arm}")
                seconds, failure = _run_cell(cell, study, results, data_dir, bar.set_postfix_str, debug)
                summary.measured += failure is None
                if failure:
                    summary.failed.append((cell.label, failure))
                else:
                    workload = _workload(cell.describe())
                    expected_s[workload] = max(seconds, expected_s.get(workload, 0.0))
    return summary


def _run_cell(
    cell: Cell, study: str, results: Path, data_dir: Path | None, tell: Tell, debug: bool
) -> tuple[float, str | None]:
    """Measures a cell and writes its record; returns the seconds it took and, where it failed, why."""
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    result, failure = None, None
    try:
        result = measure_cell(cell, data_dir, tell)
    except InputError:
        raise
    except Exception as error:  # whatever one cell does, the others go on
        failure = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        if debug:
            traceback.print_exc()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    seconds = time.monotonic() - clock
    write_record(
        results,
        cell,
        study=study,
        result=result,
        failure=failure,
        environment=describe_environment(getattr(cell.conditions, "device", "cpu"))
        | {"keeps_freed_memory": keep_freed_memory()},
        started=started,
        duration_s=round(seconds, 3),
    )
    return seconds, failure


def measure_cell(cell: Cell, data_dir: Path | None = None, tell: Tell = lambda words: None) -> dict[str, Any]:
    """Returns the result of one cell: its metrics, and the raw samples they come from. Writes nothing."""
    match cell.conditions:
        case Cost():
            return _measure_cost(cell)
        case Memory():
            return _measure_memory(cell, cell.conditions)
        case Speed():
            return _measure_speed(cell, cell.conditions)
        case Accuracy():
            return _measure_accuracy(cell, cell.conditions, data_dir, tell)


def _measure_cost(cell: Cell) -> dict[str, Any]:
    resolution = cell.conditions.resolution
    with torch.device("meta"):
        model = build_model(cell.config)
    traced = trace_macs(model, _input_shape(cell)).total
    counted = cost.count_macs(cell.config, resolution)
    if traced != counted:
        raise RuntimeError(f"the closed form counts {counted} multiply-adds and the trace {traced}")
    parts = cost.part_costs(cell.config, resolution).values()
    return {
        "params": cost.count_params(cell.config),
        "macs": counted,
        "macs_traced": traced,
        "breakdown": {part.name: {"params": part.params, "macs": part.macs} for part in parts},
    }


def _measure_memory(cell: Cell, conditions: Memory) -> dict[str, Any]:
    model = _build(cell, conditions.device)
    shape = _input_shape(cell, conditions.batch_size)
    return measure_peak_memory(
        model, shape, mode=conditions.mode, precision=conditions.precision, device=conditions.device
    )


def _measure_speed(cell: Cell, conditions: Speed) -> dict[str, Any]:
    shape = _input_shape(cell, conditions.batch_size)
    cells = {"own": cell, "reference": replace(cell, arm="v1")} if cell.arm != "v1" else {"own": cell}
    steps = {
        name: build_step(
            _build(each, conditions.device),
            shape,
            mode=conditions.mode,
            precision=conditions.precision,
            device=conditions.device,
        )
        for name, each in cells.items()
    }
    samples = time_in_turn(steps, repeats=conditions.repeats, device=conditions.device)
    own, reference = samples["own"], samples.get("reference", samples["own"])
    summary = summarise_times(own)
    ratio, low, high = paired_ratio(reference, own)
    return {
        "latency_s": summary["median"],
        "throughput_img_per_s": conditions.batch_size / summary["median"],
        "iqr_over_median": summary["iqr_over_median"],
        "noisy": summary["noisy"],
        "relative_speed": ratio,
        "relative_speed_low": low,
        "relative_speed_high": high,
        "samples": own,
        "reference_samples": reference,
    }


def _measure_accuracy(cell: Cell, conditions: Accuracy, data_dir: Path | None, tell: Tell) -> dict[str, Any]:
    def progress(epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        tell(f"{cell.variant} {cell.arm} epoch {epoch}/{epochs} loss {metrics['loss']:.3f}")

    return measure_accuracy(lambda: build_model(cell.config), conditions, data_dir, progress=progress)


def _build(cell: Cell, device: str) -> PVT:
    torch.manual_seed(0)
    with torch.device(device):
        return build_model(cell.config)


def _input_shape(cell: Cell, batch_size: int = 1) -> tuple[int, int, int, int]:
    return (batch_size, cell.config.in_chans, *as_pair(cell.conditions.resolution))


def _check_needs(cells: Iterable[Cell], data_dir: Path | None) -> None:
    for device in sorted({getattr(cell.conditions, "device", "cpu") for cell in cells}):
        check_device(device)
    accuracies = [cell.conditions for cell in cells if isinstance(cell.conditions, Accuracy)]
    for data in sorted({conditions.data for conditions in accuracies}):
        check_data(data, data_dir)


def _is_done(record: dict[str, Any] | None) -> bool:
    return record is not None and record["status"] == "done"


def _workload(description: dict[str, Any]) -> str:
    """Returns what cells share that take about the same time: all but arm, frame and seed."""
    conditions = {name: value for name, value in description["conditions"].items() if name != "seed"}
    return json.dumps(
        [description["measurement"], description["variant"], description["config"]["attention"], conditions]
    )


def _durations(results: Path) -> dict[str, float]:
    """Returns the longest time that each workload took by the records, in seconds."""
    longest: dict[str, float] = {}
    for record in iterate_records(results):
        if _is_done(record):
            workload = _workload(record)
            longest[workload] = max(record["duration_s"], longest.get(workload, 0.0))
    return longest
