"""From cells to records: measures what is missing, one cell at a time, and leaves cleanly.

A cell's record is written when the cell is finished, so a kill loses the cell in progress and no other.
"""

import gc
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeGuard

import torch
from tqdm import tqdm

from ablations.cells import Cell, split_file_model
from ablations.errors import first_line
from ablations.measure.allocator import keep_freed_memory
from ablations.measure.environment import available_cores, use_full_float32
from ablations.measure.measurement import Setting, tell_nobody
from ablations.measure.network import at_any_size
from ablations.measure.process import follow_parent
from ablations.records import find_record, write_record
from ablations.runner.forecast import Forecast
from ablations.runner.needs import (
    check_needs,
    check_processes,
    check_together,
    refuse_other_data,
    warn_of_other_machines,
)
from ablations.training.accuracy import Files
from ablations.training.distributed import Ranks, count_local_ranks, joined
from ablations.training.loop import Diverged
from ablations.training.resume import OutOfTime, Stopped, training_code_digest

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
    declared_seeds: int | None
    debug: bool

    @property
    def ranks(self) -> Ranks:
        return self.setting.ranks or Ranks()


@dataclass(frozen=True)
class Outcome:
    """What came of one cell: the seconds it took where it was measured, and why where it failed."""

    state: Literal["measured", "failed", "kept", "left"]
    seconds: float = 0.0
    failure: str = ""


def run_cells(
    cells: Sequence[Cell],
    *,
    study: str,
    results: Path,
    data_dir: Path | None = None,
    weights: Path | None = None,
    time_budget_s: float = float("inf"),
    jobs: int = 1,
    keep: Keep | None = None,
    force: bool = False,
    declared_seeds: int | None = None,
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
    device = check_processes(missing, jobs)
    with joined(device) as ranks:
        missing, summary = ranks.tell_all((missing, Summary(kept=len(cells) - len(missing))))
        setting = Setting(
            data_dir=data_dir,
            weights=weights,
            force=force,
            ranks=ranks,
            workers=max(available_cores() // max(count_local_ranks(), jobs), 1),
            deadline=start + time_budget_s,
        )
        environments = check_together(ranks, partial(check_needs, missing, results, setting))
        refuse_other_data(cells, kept, data_dir)
        begin()
        gc.collect()
        gc.freeze()  # what is imported stays; the collections between cells need not look through it
        job = Job(
            study=study,
            results=results,
            setting=setting,
            keep=keep or Keep(),
            environments=environments,
            declared_seeds=declared_seeds,
            debug=debug,
        )
        if ranks.is_first:
            warn_of_other_machines(kept.values(), environments)
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


def _run_missing(missing: list[Cell], job: Job, jobs: int, bar: tqdm) -> Iterator[tuple[Cell, Outcome]]:
    """Yields every cell when it is finished: the exact ones first, side by side if that pays, then the others."""
    forecast = Forecast(job.results)
    exact = [cell for cell in missing if cell.conditions.is_computed]
    workers = min(available_cores(), len(exact) // CELLS_PER_WORKER)
    if workers > 1:
        bar.set_description_str(f"{exact[0].measurement:8}")
        yield from _run_side_by_side(_of_one_network(exact), job, workers)
        missing = [cell for cell in missing if not cell.conditions.is_computed]
    trained = [cell for cell in missing if cell.conditions.trains and cell.conditions.needed_device == "cpu"]
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


def _of_one_network(cells: list[Cell]) -> list[list[Cell]]:
    """Returns the cells in groups that share a network, which is built once then."""
    networks: dict[Cell, list[Cell]] = {}
    for cell in cells:
        networks.setdefault(at_any_size(cell), []).append(cell)
    return list(networks.values())


def _run_side_by_side(
    groups: list[list[Cell]], job: Job, workers: int, threads: int = 0
) -> Iterator[tuple[Cell, Outcome]]:
    """Yields every cell when one of the worker processes has done it; the cells of a group go to one worker.

    A worker has its share of the cores unless it is told a number of threads. Where one is killed, by the system for
    want of memory, say, the groups that are not done run one by one, with as many threads, for a training goes on with
    no other number: the one at fault is found, and the others are measured.
    """
    context = multiprocessing.get_context("spawn")
    threads = threads or max(available_cores() // workers, 1)
    broken: list[list[Cell]] = []
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(threads,)) as pool:
        waiting = {pool.submit(_run_in_worker, own, job): own for own in groups}
        try:
            for finished in as_completed(waiting):
                own = waiting[finished]
                try:
                    outcomes = finished.result()
                except BrokenProcessPool:
                    if len(groups) > 1:
                        broken.append(own)
                        continue
                    outcomes = [Outcome("failed", failure="the process that computed it was killed") for _ in own]
                yield from zip(own, outcomes, strict=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()  # what it has written is whole, and a training writes a checkpoint
            raise
    for own in broken:
        yield from _run_side_by_side([own], job, 1, threads)


def _begin_worker(threads: int) -> None:
    follow_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent then tells its workers
    torch.set_num_threads(threads)
    keep_freed_memory()
    use_full_float32()


def _run_in_worker(cells: list[Cell], job: Job) -> list[Outcome]:
    gc.freeze()  # as in the parent
    try:
        return [_run_cell(cell, job, expected_s=0.0) for cell in cells]
    except Stopped:
        os._exit(1)  # else the pool would give it the next cell


def _run_cell(cell: Cell, job: Job, expected_s: float, tell: Callable[[str], None] = tell_nobody) -> Outcome:
    """Measures a cell and writes its record, unless another process did or the budget is spent."""
    ranks = job.ranks
    if state := ranks.tell_all(_skip(cell, job, expected_s)):
        return Outcome(state)
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    result, failure, is_final = None, None, True
    files = _training_files(cell, job)
    own_environment = cell.conditions.environment(job.setting)  # before the cell: its data are what it begins with
    try:
        result = cell.conditions.run(cell, replace(job.setting, files=files, tell=tell))
    except OutOfTime:
        return Outcome("left")
    except Exception as error:  # whatever one cell does, the others go on
        if ranks.count > 1 and not isinstance(error, Diverged):
            raise  # what not all processes have met would leave the others waiting
        failure, is_final = first_line(error), isinstance(error, Diverged)
        if job.debug:
            traceback.print_exc()
    if not cell.conditions.is_computed:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    seconds = time.monotonic() - clock
    if ranks.is_first and not (failure and _is_done(find_record(job.results, cell))):  # another process may be done
        write_record(
            job.results,
            cell,
            study=job.study,
            result=result,
            failure=failure,
            environment=job.environments[cell.conditions.needed_device] | own_environment,
            started=started,
            duration_s=round(seconds, 3),
            declared_seeds=job.declared_seeds if cell.conditions.trains else None,
        )
        if is_final:  # what failed for want of memory, say, may go on
            for path in (files.checkpoint, *files.checkpoint.parent.glob(f".{files.checkpoint.name}.*")):
                path.unlink(missing_ok=True)  # with what a kill amid writing left
    return Outcome("failed", seconds, failure) if failure else Outcome("measured", seconds)


def _skip(cell: Cell, job: Job, expected_s: float) -> Literal["kept", "left"] | None:
    """Returns the outcome of a cell that is not measured."""
    if not cell.is_from_file and _is_done(find_record(job.results, cell), job.setting.force):
        return "kept"
    needed_s = 0.0 if cell.conditions.trains else expected_s
    return "left" if time.monotonic() + needed_s > job.setting.deadline else None


def _training_files(cell: Cell, job: Job) -> Files:
    environment = job.environments[cell.conditions.needed_device]
    return Files(
        checkpoint=job.results / "checkpoints" / f"{cell.file_name}.pt",
        log=job.results / "logs" / f"{cell.file_name}.jsonl",
        tensorboard=job.results / "tensorboard" / cell.file_name if job.keep.tensorboard else None,
        weights=job.results / "weights" / f"{cell.file_name}.safetensors" if job.keep.weights else None,
        made_by={
            **{name: environment[name] for name in ("device_name", "torch", "torchvision", "timm")},
            "threads": torch.get_num_threads() if cell.conditions.needed_device == "cpu" else None,
            "processes": job.ranks.count,
            "code": training_code_digest(_source_folder(cell), baselines=cell.config is None),
            "data": cell.conditions.data_digest(job.setting.data_dir) if cell.conditions.trains else None,
        },
    )


def _source_folder(cell: Cell) -> Path | None:
    """Returns where a user's model is, which may import its neighbours."""
    file = split_file_model(cell.source)
    return file[0].parent if file else None


def _is_done(record: dict[str, Any] | None, force: bool = False) -> TypeGuard[dict[str, Any]]:
    if record is None or record["status"] != "done":
        return False
    return not (force and "out_of_memory" in record["result"])


def _tell(bar: tqdm, left: str, words: str) -> None:
    """Shows what is being done beside the time left."""
    bar.set_postfix_str(f"{left}, {words}")
