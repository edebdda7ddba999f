"""From cells to records: measures what is missing, one cell at a time, and leaves cleanly.

A cell's record is written when the cell is finished, so a kill loses the cell in progress and no other.
"""

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from ablations import cost
from ablations.config import as_pair
from ablations.design import Accuracy, Cell, Cost, Memory, Speed
from ablations.errors import refuse
from ablations.measure.allocator import keep_freed_memory
from ablations.measure.environment import check_device, describe_environment, use_full_float32
from ablations.measure.macs import trace_macs
from ablations.measure.memory import measure_peak_memory
from ablations.measure.samples import paired_ratio, summarise_times
from ablations.measure.speed import time_in_turn
from ablations.measure.step import build_step
from ablations.model import PVT, build_model
from ablations.records import find_record, iterate_records, write_record
from ablations.training.data import check_data
from ablations.training.loop import measure_accuracy

BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"

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
    """Measures the cells that have no finished record under `results`, with a progress bar.

    A cell that fails is recorded with its reason and the others go on; a failed cell counts as missing the next time.
    No cell is started that by the records of its like will not be finished within the budget. Several processes may
    share a folder. Raises InputError, before anything is measured, if the folder, a device or a data set that a missing
    cell needs is not there.
    """
    deadline = time.monotonic() + time_budget_s
    records = {cell.key: find_record(results, cell) for cell in cells}
    kept = {key: record for key, record in records.items() if record and _is_done(record)}
    missing = [cell for cell in cells if cell.key not in kept]
    summary = Summary(kept=len(kept))
    environments = _check_needs(missing, results, data_dir)
    _warn_of_other_machines(kept.values(), environments)
    forecast = Forecast(results)
    gc.collect()
    gc.freeze()  # what is imported stays; the collections between cells need not look through it
    with tqdm(total=len(missing), unit="cell", dynamic_ncols=True, bar_format=BAR) as bar:
        for number, cell in enumerate(missing):
            bar.set_description_str(f"{cell.measurement:8}")
            tell = partial(_tell, bar, forecast.left(missing[number:]))
            if _is_done(find_record(results, cell)):  # another process was quicker
                summary.kept += 1
            elif time.monotonic() + forecast.of_like(cell) > deadline:
                summary.left += 1
            else:
                tell(f"{cell.variant} {cell.arm}")
                seconds, failure = _run_cell(cell, study, results, data_dir, environments, tell, debug)
                forecast.learn(cell.describe(), seconds)
                summary.measured += failure is None
                if failure:
                    summary.failed.append((cell.label, failure))
            bar.update()
    return summary


def _run_cell(
    cell: Cell,
    study: str,
    results: Path,
    data_dir: Path | None,
    environments: dict[str, dict[str, Any]],
    tell: Tell,
    debug: bool,
) -> tuple[float, str | None]:
    """Measures a cell and writes its record; returns the seconds it took and, where it failed, why."""
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    result, failure = None, None
    try:
        result = measure_cell(cell, data_dir, tell)
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
        environment=environments[_device(cell)],
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


def _device(cell: Cell) -> str:
    return getattr(cell.conditions, "device", "cpu")


def _check_needs(cells: Sequence[Cell], results: Path, data_dir: Path | None) -> dict[str, dict[str, Any]]:
    """Returns the environment of each device that the cells need, and raises InputError for what is not there.

    The environment is taken before the first cell, while the code that runs is the code that lies there.
    """
    devices = sorted({_device(cell) for cell in cells})
    for device in devices:
        check_device(device)
    accuracies = [cell.conditions for cell in cells if isinstance(cell.conditions, Accuracy)]
    for data, classes in sorted({(conditions.data, conditions.num_classes) for conditions in accuracies}):
        check_data(data, classes, data_dir)
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse("results", str(results), f"a folder that can be made ({error.strerror})") from error
    if not os.access(results, os.W_OK):
        raise refuse("results", str(results), "a folder that can be written to")
    settings = {"keeps_freed_memory": keep_freed_memory(), "tf32": use_full_float32()}
    return {device: describe_environment(device) | settings for device in devices}


def _warn_of_other_machines(kept: Iterable[dict[str, Any]], environments: dict[str, dict[str, Any]]) -> None:
    """Says so if records of the same device kind were measured on another machine or with another torch."""
    others = set()
    for record in kept:
        there = record["environment"]
        here = environments.get(record["conditions"].get("device", ""))
        if here and any(there.get(name) != here[name] for name in ("device_name", "torch")):
            others.add(f"{there.get('device_name')}, torch {there.get('torch')}")
    if others:
        print(
            f"warning: the folder holds records of {' and '.join(sorted(others))}, which are kept; tables split by "
            "machine, so measure into a folder of your own to compare all arms on this one",
            file=sys.stderr,
        )


def _is_done(record: dict[str, Any] | None) -> bool:
    return record is not None and record["status"] == "done"


def _workload(description: dict[str, Any]) -> str:
    """Returns what cells share that take about the same time: all but arm, frame and seed."""
    conditions = {name: value for name, value in description["conditions"].items() if name != "seed"}
    return json.dumps(
        [description["measurement"], description["variant"], description["config"]["attention"], conditions]
    )


class Forecast:
    """How long cells take, by the records of their like; all times in seconds."""

    def __init__(self, results: Path) -> None:
        self._longest: dict[str, float] = {}
        self._seen: dict[str, list[float]] = {}
        for record in iterate_records(results):
            if _is_done(record):
                self.learn(record, record["duration_s"])

    def learn(self, description: dict[str, Any], seconds: float) -> None:
        workload = _workload(description)
        self._longest[workload] = max(seconds, self._longest.get(workload, 0.0))
        self._seen.setdefault(description["measurement"], []).append(seconds)

    def of_like(self, cell: Cell) -> float:
        """Returns the longest time of a cell of the same workload; 0 where there was none."""
        return self._longest.get(_workload(cell.describe()), 0.0)

    def left(self, cells: Sequence[Cell]) -> str:
        """Returns in words about how long the cells will take, as far as their measurements were seen before."""
        known = [cell for cell in cells if cell.measurement in self._seen]
        seconds = sum(self.of_like(cell) or median(self._seen[cell.measurement]) for cell in known)
        return f"{'' if len(known) == len(cells) else 'over '}{timedelta(seconds=round(seconds))} left"


def _tell(bar: tqdm, left: str, words: str) -> None:
    """Shows what is being done beside the time left."""
    bar.set_postfix_str(f"{left}, {words}")
