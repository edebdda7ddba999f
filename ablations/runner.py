"""From cells to records: measures what is missing, one cell at a time, and leaves cleanly.

A cell's record is written when the cell is finished, so a kill loses the cell in progress and no other.
"""

import gc
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeGuard, cast

import torch
from tqdm import tqdm

from ablations.design import (
    CONDITIONS_OF,
    Accuracy,
    AnyCell,
    Cell,
    Cost,
    Evaluation,
    Memory,
    ModelCell,
    Speed,
    without_defaults,
)
from ablations.errors import InputError, first_line, refuse
from ablations.measure.allocator import keep_freed_memory
from ablations.measure.environment import available_cores, check_device, describe_environment, use_full_float32
from ablations.measure.process import follow_parent
from ablations.measurements import Setting, Tell, at_any_size, measure_cell, meta_network
from ablations.model import build_model
from ablations.model.checkpoint import load_weights
from ablations.networks import build_network
from ablations.peers.build import check_peer
from ablations.peers.equal import check_has_peer
from ablations.records import find_record, iterate_records, write_record
from ablations.studies import find_study
from ablations.training.accuracy import Files
from ablations.training.data import check_data, check_loading, data_directory
from ablations.training.distributed import Ranks, count_ranks, joined
from ablations.training.evaluation import open_pictures
from ablations.training.loop import Diverged, OutOfTime, Stopped

BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"

CELLS_PER_WORKER = 20
"""How many cells there must be for each process: starting one takes as long as counting some tens of cells."""


@dataclass
class Summary:
    """What came of a run: how many cells were measured, were there already, failed (with reasons), or are left.

    `seconds` is what the run took.
    """

    measured: int = 0
    kept: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    left: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What is kept of a training beside its record and its log."""

    tensorboard: bool = False
    """TensorBoard's events."""
    weights: bool = False
    """The trained weights."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all cells of a run have in common."""

    study: str
    results: Path
    setting: Setting
    keep: Keep
    environments: dict[str, dict[str, Any]]
    debug: bool


@dataclass(frozen=True)
class Outcome:
    """What came of one cell: the seconds it took where it was measured, and why where it failed."""

    state: Literal["measured", "failed", "kept", "left"]
    seconds: float = 0.0
    failure: str = ""


def run_cells(
    cells: Sequence[AnyCell],
    *,
    study: str,
    results: Path,
    data_dir: Path | None = None,
    weights: Path | None = None,
    time_budget_s: float = float("inf"),
    jobs: int = 1,
    keep: Keep | None = None,
    force: bool = False,
    debug: bool = False,
    begin: Callable[[], None] = lambda: None,
) -> Summary:
    """Measures the cells that have no finished record under `results`, with a progress bar.

    Costs and predictions, which do not depend on what else the machine does, are computed on all cores; so many `jobs`
    as are given train side by side on the CPU; all else is measured one by one. Where `torchrun` started several
    processes, all of them train each cell together, and the first one writes.
    A cell that fails is recorded with its reason and the others go on; a failed cell counts as missing the next time,
    and so does a model from a user's file, and with `force` a cell for which there was not enough memory.
    No cell is started that by the records of its like will not be finished within the budget, but trainings, which are
    left with a checkpoint when it is spent. Several processes may share a folder. `weights` is the file that
    evaluations take. Raises InputError, before anything is measured, if the folder, a device, a model, a data set or
    weights that a missing cell needs are not there, or what is missing cannot be measured in so many processes. `begin`
    is called after that.
    """
    start = time.monotonic()
    records = {cell.key: find_record(results, cell) for cell in cells if not cell.is_from_file}
    kept = {key: record for key, record in records.items() if _is_done(record, force)}
    missing = [cell for cell in cells if cell.key not in kept]
    device = _check_processes(missing, jobs)
    environments = _check_needs(missing, results, data_dir, weights)
    begin()
    gc.collect()
    gc.freeze()  # what is imported stays; the collections between cells need not look through it
    with joined(device) as ranks:
        missing, summary = ranks.tell_all((missing, Summary(kept=len(cells) - len(missing))))
        setting = Setting(data_dir=data_dir, weights=weights, force=force, ranks=ranks, deadline=start + time_budget_s)
        job = Job(
            study=study,
            results=results,
            setting=setting,
            keep=keep or Keep(),
            environments=environments,
            debug=debug,
        )
        if ranks.is_first:
            _warn_of_other_machines(kept.values(), environments)
        with tqdm(
            total=len(missing), unit="cell", dynamic_ncols=True, bar_format=BAR, disable=not ranks.is_first
        ) as bar:
            for cell, outcome in _run_missing(missing, job, jobs, bar):
                summary.measured += outcome.state == "measured"
                summary.kept += outcome.state == "kept"
                summary.left += outcome.state == "left"
                if outcome.state == "failed":
                    summary.failed.append((cell.label, outcome.failure))
                bar.update()
    summary.seconds = time.monotonic() - start
    return summary


def _check_processes(missing: Sequence[AnyCell], jobs: int) -> str:
    """Returns the device that several processes train on together; raises InputError for what they cannot do."""
    if not 1 <= jobs <= available_cores():
        raise refuse("jobs", jobs, f"1 to {available_cores()}, the number of cores")
    processes = count_ranks()
    for cell in missing:
        if isinstance(cell.conditions, Accuracy):
            Ranks(count=processes).check_batch(cell.conditions.batch_size)
    devices = {_device(cell) for cell in missing}
    alike = len(devices) <= 1 and all(isinstance(cell.conditions, Accuracy) for cell in missing)
    if processes > 1 and (jobs > 1 or not alike):
        raise refuse("processes", processes, "1, but for trainings on one device, without --jobs")
    return min(devices, default="cpu")


def _run_missing(missing: list[AnyCell], job: Job, jobs: int, bar: tqdm) -> Iterator[tuple[AnyCell, Outcome]]:
    """Yields every cell when it is finished: the exact ones first, side by side if that pays, then the others."""
    forecast = Forecast(job.results)
    exact = [cell for cell in missing if _is_exact(cell)]
    workers = min(available_cores(), len(exact) // CELLS_PER_WORKER)
    if workers > 1:
        bar.set_description_str(f"{exact[0].measurement:8}")
        yield from _run_side_by_side(_of_one_network(exact), job, workers)
        missing = [cell for cell in missing if not _is_exact(cell)]
    trained = [cell for cell in missing if isinstance(cell.conditions, Accuracy) and _device(cell) == "cpu"]
    if jobs > 1 and len(trained) > 1:
        bar.set_description_str("accuracy")
        bar.set_postfix_str(f"{forecast.left(trained)} over {jobs}, each epoch is in {job.results / 'logs'}")
        yield from _run_side_by_side([[cell] for cell in trained], job, jobs)
        missing = [cell for cell in missing if cell not in trained]
    for number, cell in enumerate(missing):
        bar.set_description_str(f"{cell.measurement:8}")
        tell = partial(_tell, bar, forecast.left(missing[number:]))
        tell(cell.name)
        outcome = _run_cell(cell, job, forecast.of_like(cell), tell)
        if outcome.state in ("measured", "failed"):
            forecast.learn(cell.describe(), outcome.seconds)
        yield cell, outcome


def _of_one_network(cells: list[AnyCell]) -> list[list[AnyCell]]:
    """Returns the cells in groups that share a network, which is built once then."""
    networks: dict[AnyCell, list[AnyCell]] = {}
    for cell in cells:
        networks.setdefault(at_any_size(cell), []).append(cell)
    return list(networks.values())


def _run_side_by_side(groups: list[list[AnyCell]], job: Job, workers: int) -> Iterator[tuple[AnyCell, Outcome]]:
    """Yields every cell when one of the worker processes has done it; the cells of a group go to one worker."""
    context = multiprocessing.get_context("spawn")
    threads = max(available_cores() // workers, 1)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(threads,)) as pool:
        waiting = {pool.submit(_run_in_worker, own, job): own for own in groups}
        try:
            for finished in as_completed(waiting):
                own = waiting[finished]
                try:
                    outcomes = finished.result()
                except BrokenProcessPool:
                    outcomes = [Outcome("failed", failure="the process that computed it was killed") for _ in own]
                yield from zip(own, outcomes, strict=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()  # what it has written is whole, and a training writes a checkpoint
            raise


def _begin_worker(threads: int) -> None:
    follow_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent then tells its workers
    torch.set_num_threads(threads)
    keep_freed_memory()
    use_full_float32()


def _run_in_worker(cells: list[AnyCell], job: Job) -> list[Outcome]:
    gc.freeze()  # as in the parent
    try:
        return [_run_cell(cell, job, expected_s=0.0) for cell in cells]
    except Stopped:
        os._exit(1)  # else the pool would give it the next cell


def _run_cell(cell: AnyCell, job: Job, expected_s: float, tell: Tell = lambda words: None) -> Outcome:
    """Measures a cell and writes its record, unless another process did or the budget is spent."""
    ranks = job.setting.ranks
    if state := ranks.tell_all(_skip(cell, job, expected_s)):
        return Outcome(state)
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    result, failure, is_final = None, None, True
    files = _training_files(cell, job)
    try:
        result = measure_cell(cell, job.setting, files=files, tell=tell)
    except OutOfTime:
        return Outcome("left")
    except Exception as error:  # whatever one cell does, the others go on
        if ranks.count > 1 and not isinstance(error, InputError | Diverged):
            raise  # what not all processes have met would leave the others waiting
        failure, is_final = first_line(error), isinstance(error, Diverged)
        if job.debug:
            traceback.print_exc()
    if not _is_exact(cell):
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    seconds = time.monotonic() - clock
    if ranks.is_first:
        write_record(
            job.results,
            cell,
            study=job.study,
            result=result,
            failure=failure,
            environment=job.environments[_device(cell)] | _own_process(cell, ranks),
            started=started,
            duration_s=round(seconds, 3),
        )
        if is_final:  # what failed for want of memory, say, may go on
            for path in (files.checkpoint, *files.checkpoint.parent.glob(f".{files.checkpoint.name}.*")):
                path.unlink(missing_ok=True)  # with what a kill amid writing left
    return Outcome("failed", seconds, failure) if failure else Outcome("measured", seconds)


def _skip(cell: AnyCell, job: Job, expected_s: float) -> Literal["kept", "left"] | None:
    """Returns the outcome of a cell that is not measured."""
    if not cell.is_from_file and _is_done(find_record(job.results, cell), job.setting.force):
        return "kept"
    needed_s = 0.0 if isinstance(cell.conditions, Accuracy) else expected_s
    return "left" if time.monotonic() + needed_s > job.setting.deadline else None


def _training_files(cell: AnyCell, job: Job) -> Files:
    environment = job.environments[_device(cell)]
    return Files(
        checkpoint=job.results / "checkpoints" / f"{cell.file_name}.pt",
        log=job.results / "logs" / f"{cell.file_name}.jsonl",
        tensorboard=job.results / "tensorboard" / cell.file_name if job.keep.tensorboard else None,
        weights=job.results / "weights" / f"{cell.file_name}.safetensors" if job.keep.weights else None,
        made_by={name: environment[name] for name in ("commit", "torch", "device_name")},
    )


def _device(cell: AnyCell) -> str:
    """Returns the device that a cell needs; a prediction needs none but this one."""
    return "cpu" if _is_exact(cell) else getattr(cell.conditions, "device", "cpu")


def _own_process(cell: AnyCell, ranks: Ranks) -> dict[str, Any]:
    """Returns what is otherwise where a cell is measured in processes of its own, or by several together."""
    if isinstance(cell.conditions, Accuracy):
        return {"threads": torch.get_num_threads(), "processes": ranks.count}
    return {"keeps_freed_memory": False} if isinstance(cell.conditions, Memory) and not _is_exact(cell) else {}


def _is_exact(cell: AnyCell) -> bool:
    """Whether a cell is computed from shapes, so that it does not matter what else the machine does."""
    return isinstance(cell.conditions, Cost) or getattr(cell.conditions, "method", "") == "predicted"


def _check_needs(
    cells: Sequence[AnyCell], results: Path, data_dir: Path | None, weights: Path | None
) -> dict[str, dict[str, Any]]:
    """Returns the environment of each device that the cells need, and raises InputError for what is not there.

    The environment is taken before the first cell, while the code that runs is the code that lies there.
    """
    devices = sorted({_device(cell) for cell in cells})
    for device in devices:
        check_device(device)
    for cell in cells:
        if isinstance(cell, ModelCell):
            check_peer(cell.model)
    trained = {
        (cell.model, cell.conditions.num_classes, cell.conditions.resolution, cell.conditions.drop_path_rate): cell
        for cell in cells
        if isinstance(cell, ModelCell) and isinstance(cell.conditions, Accuracy)
    }
    for cell in trained.values():
        build_network(cell)
    strange = {
        at_any_size(cell) for cell in cells if isinstance(cell, ModelCell) and not isinstance(cell.conditions, Accuracy)
    }
    strange -= {at_any_size(cell) for cell in find_study("paper").cells()}
    meta_network.cache_clear()  # a file may hold another model by now
    for cell in strange:
        meta_network(cell)
    for cell in cells:
        if isinstance(cell, Cell) and isinstance(cell.conditions, Speed) and cell.conditions.reference != "v1":
            for library in cell.conditions.reference.split("+"):
                check_has_peer(cell.config, library, cell.conditions.resolution)
    evaluated = {
        (cell.config, cell.conditions.data)
        for cell in cells
        if isinstance(cell, Cell) and isinstance(cell.conditions, Evaluation)
    }
    for config, data in evaluated:
        load_weights(build_model(config), cast(Path, weights))
        open_pictures(data_directory(data_dir) / data, config.num_classes)
    accuracies = [cell.conditions for cell in cells if isinstance(cell.conditions, Accuracy)]
    for data, classes in sorted({(conditions.data, conditions.num_classes) for conditions in accuracies}):
        check_data(data, classes, data_dir)
    for conditions in accuracies:
        check_loading(conditions)
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
        if record["conditions"].get("method") == "predicted":
            continue  # the same on every machine
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


def _is_done(record: dict[str, Any] | None, force: bool = False) -> TypeGuard[dict[str, Any]]:
    if record is None or record["status"] != "done":
        return False
    return not (force and "out_of_memory" in record["result"])


def _workload(description: dict[str, Any]) -> str:
    """Returns what cells share that take about the same time: all but arm, frame and seed."""
    conditions = without_defaults(description["conditions"], CONDITIONS_OF[description["measurement"]])
    conditions.pop("seed", None)
    model = description.get("model") or [description["variant"], description["config"]["attention"]]
    return json.dumps([description["measurement"], model, conditions])


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

    def of_like(self, cell: AnyCell) -> float:
        """Returns the longest time of a cell of the same workload; 0 where there was none."""
        return self._longest.get(_workload(cell.describe()), 0.0)

    def left(self, cells: Sequence[AnyCell]) -> str:
        """Returns in words about how long the cells will take, as far as their measurements were seen before."""
        known = [cell for cell in cells if cell.measurement in self._seen]
        seconds = sum(self.of_like(cell) or median(self._seen[cell.measurement]) for cell in known)
        return f"{'' if len(known) == len(cells) else 'over '}{timedelta(seconds=round(seconds))} left"


def _tell(bar: tqdm, left: str, words: str) -> None:
    """Shows what is being done beside the time left."""
    bar.set_postfix_str(f"{left}, {words}")
