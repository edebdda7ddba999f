"""From cells to records: measures what is missing, and leaves cleanly.

A cell's record is written when the cell is finished, so a kill loses the cells in progress and no other.
"""

import gc
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeGuard

import torch

from ablations.baselines.guest import state_kept
from ablations.cells import Cell, as_plain, split_file_model
from ablations.errors import first_line
from ablations.measure.allocator import is_out_of_memory, keep_freed_memory
from ablations.measure.environment import available_cores, use_full_float32
from ablations.measure.measurement import Setting
from ablations.measure.network import at_any_size
from ablations.measure.process import fresh_process_context, worker_processes
from ablations.records import write_record
from ablations.records.folder import find_record
from ablations.records.record_file import record_path
from ablations.runner.claims import Claim, Lost, claimed
from ablations.runner.classifiers import WEIGHTS, begins_from_study, classifier_of
from ablations.runner.forecast import Forecast
from ablations.runner.needs import (
    check_needs,
    check_processes,
    check_together,
    folder_identity,
    gone,
    refuse_different_data,
    refuse_other_data,
    warn_of_other_machines,
)
from ablations.runner.progress import REFRESH_S, Progress, State
from ablations.schema import check_has_main_metric, check_result
from ablations.training.distributed import Ranks, count_local_ranks, joined
from ablations.training.loop import Diverged
from ablations.training.resume import OutOfTime, Stopped, training_code_digest
from ablations.training.train import Files

LOOK_AGAIN_S = 1.0
"""How often cells that other processes have claimed are looked at, where nothing else is left."""

CELLS_PER_WORKER = 20
"""How many exact cells there must be for each process: starting one takes as long as counting some tens of them."""


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
class Job:
    """What all cells of a run have in common."""

    study: str
    results: Path
    setting: Setting
    tensorboard: bool
    """Whether TensorBoard's events are kept of a training beside its record and its log."""
    save_weights: bool
    """Whether the trained weights are kept too."""
    environments: dict[str, dict[str, Any]]
    declared_seeds: int | None
    debug: bool
    folder: tuple[int, int] | None
    """The results folder's identity when the run began."""
    since: str | None
    """When the launch began that this process is a worker of, an ISO 8601 time in UTC."""
    patience_s: float
    """How long it waits for cells that other processes have claimed."""

    @property
    def ranks(self) -> Ranks:
        return self.setting.ranks or Ranks()


@dataclass(frozen=True)
class Phase:
    """Cells that are measured one after the other, or by several processes side by side."""

    groups: list[list[Cell]]
    """The cells of a group go to one process."""
    processes: int = 1
    threads: int = 1
    """Of each of several processes."""

    @property
    def cells(self) -> list[Cell]:
        return [cell for group in self.groups for cell in group]


@dataclass(frozen=True)
class Outcome:
    """What came of one cell: the seconds it took where it was measured, and why where it failed.

    A cell that another process has claimed is `held`.
    """

    state: State | Literal["held"]
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
    tensorboard: bool = False,
    save_weights: bool = False,
    force: bool = False,
    declared_seeds: int | None = None,
    debug: bool = False,
    since: str | None = None,
    patience_s: float = float("inf"),
    begin: Callable[[], None] = lambda: None,
) -> Summary:
    """Measures the cells that have no finished record under `results`, and shows the progress.

    Costs and predictions, which do not depend on what else the machine does, are computed on all cores; so many `jobs`
    as are given train side by side on the CPU, one thread each; all else is measured one by one. Where `torchrun`
    started several processes, all of them train each cell together, and the first one writes.
    A cell that fails is recorded with its reason and the others go on; a failed cell counts as missing the next time,
    and so does a model from a user's file, and with `force` a cell for which there was not enough memory.
    No cell is started that by the records of its like will not be finished within the budget, but trainings, which are
    left with a checkpoint when it is spent. Several processes may share a folder: each cell is claimed by one of them
    (`ablations.runner.claims`), and those of others are waited for at the end, up to `patience_s` in which nothing
    comes of them. In a worker of a launch that began at `since`, what has failed or was measured anew since then is not
    tried again. `weights` is the file that evaluations take. Raises InputError, before anything is measured, if the
    folder, a device, a model, a data set or weights that a missing cell needs are not there, or what is missing cannot
    be measured in so many processes. `begin` is called after that.
    """
    start = time.monotonic()
    records = {cell.key: find_record(results, cell) for cell in cells if not cell.is_from_file}
    kept = {key: record for key, record in records.items() if _is_done(record, force)}
    missing = [cell for cell in cells if cell.key not in kept]
    trainings = sum(map(_trains_on_cpu, missing))
    device = check_processes(missing, jobs)
    with joined(device) as ranks:
        missing, summary = ranks.tell_all((missing, Summary(kept=len(cells) - len(missing))))
        setting = Setting(
            data_dir=data_dir,
            weights=weights,
            force=force,
            ranks=ranks,
            workers=max(available_cores() // max(count_local_ranks(), min(jobs, trainings), 1), 1),
            deadline=start + time_budget_s,
        )
        for cell in filter(begins_from_study, missing):
            classifier_of(cell)  # raises where the study has none
        environments = check_together(ranks, partial(check_needs, missing, results, setting))
        refuse_other_data(cells, kept, data_dir)
        refuse_different_data(ranks, missing, data_dir)
        begin()
        gc.collect()
        gc.freeze()  # what is imported stays; the collections between cells need not look through it
        job = Job(
            study=study,
            results=results,
            setting=setting,
            tensorboard=tensorboard,
            save_weights=save_weights,
            environments=environments,
            declared_seeds=declared_seeds,
            debug=debug,
            folder=folder_identity(results),
            since=since,
            patience_s=patience_s,
        )
        measured = []
        if ranks.is_first:
            warn_of_other_machines(kept.values(), environments)
        for cell, outcome in _run_missing(missing, job, jobs):
            summary.measured += outcome.state == "measured"
            measured += [cell] if outcome.state == "measured" else []
            summary.kept += outcome.state == "kept"
            summary.left += outcome.state == "left"
            if outcome.state == "failed":
                summary.failed.append((cell.label, outcome.failure))
        lost = [
            cell for cell in measured if not record_path(results, cell).is_file() and not find_record(results, cell)
        ]
        if lost and ranks.is_first:
            raise gone(results, f"{len(lost)} records of this run are")
    summary.seconds = time.monotonic() - start
    return summary


def _run_missing(missing: list[Cell], job: Job, jobs: int) -> Iterator[tuple[Cell, Outcome]]:
    """Yields every cell when it is finished, and shows the progress."""
    phases = _plan(missing, jobs)
    forecast = Forecast(job.results)
    shared = [(phase.cells, phase.processes) for phase in phases]
    with closing(Progress(shared, forecast, is_shown=job.ranks.is_first)) as progress:
        held: list[Cell] = []
        for phase in phases:
            if phase.processes > 1:
                outcomes = _run_side_by_side(phase, job, progress)
            else:
                outcomes = _run_one_by_one(phase.cells, job, progress, forecast)
            for cell, outcome in outcomes:
                if outcome.state == "held":
                    held.append(cell)
                    continue
                progress.finish(cell, outcome.state, outcome.seconds)
                yield cell, outcome
        quiet_since = time.monotonic()
        while held:
            time.sleep(LOOK_AGAIN_S)
            is_over = job.ranks.tell_all(time.monotonic() - quiet_since > job.patience_s)
            waiting, held = held, []
            for cell, outcome in _run_one_by_one(waiting, job, progress, forecast):
                if outcome.state == "held" and not is_over:
                    held.append(cell)
                    continue
                state: State = "left" if outcome.state == "held" else outcome.state
                quiet_since = quiet_since if state == "left" else time.monotonic()
                progress.finish(cell, state, outcome.seconds)
                yield cell, replace(outcome, state=state)


def _plan(missing: list[Cell], jobs: int) -> list[Phase]:
    """Returns the exact cells first, then trainings that go side by side, and then the others."""
    phases = []
    exact = [cell for cell in missing if cell.conditions.is_computed]
    processes = min(available_cores(), len(exact) // CELLS_PER_WORKER)
    if processes > 1:
        phases.append(Phase(_of_one_network(exact), processes, max(available_cores() // processes, 1)))
        missing = [cell for cell in missing if not cell.conditions.is_computed]
    trained = [cell for cell in missing if _trains_on_cpu(cell)]
    if min(jobs, len(trained)) > 1:
        phases.append(Phase([[cell] for cell in trained], min(jobs, len(trained))))
        missing = [cell for cell in missing if not _trains_on_cpu(cell)]
    return [*phases, Phase([[cell] for cell in missing])]


def _of_one_network(cells: list[Cell]) -> list[list[Cell]]:
    """Returns the cells in groups that share a network, which is built once then."""
    networks: dict[Cell, list[Cell]] = {}
    for cell in cells:
        networks.setdefault(at_any_size(cell), []).append(cell)
    return list(networks.values())


def _trains_on_cpu(cell: Cell) -> bool:
    return cell.conditions.trains and cell.conditions.needed_device == "cpu"


def _run_one_by_one(
    cells: list[Cell], job: Job, progress: Progress, forecast: Forecast
) -> Iterator[tuple[Cell, Outcome]]:
    """Yields every cell when this process has done it, or has found that another has claimed it."""
    for cell in cells:
        with _one_thread() if _trains_on_cpu(cell) and job.ranks.count == 1 else nullcontext():
            outcome = _run_cell(cell, job, forecast.longest_of_like(cell), partial(progress.tell, cell))
        yield cell, outcome


@contextmanager
def _one_thread() -> Iterator[None]:
    """Gives torch one thread: so a training's numbers depend neither on cores nor on `jobs`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run_side_by_side(phase: Phase, job: Job, progress: Progress) -> Iterator[tuple[Cell, Outcome]]:
    """Yields every cell when one of the worker processes has done it.

    Where one is killed, by the system for want of memory, say, the groups that are not done run
    one by one, with as many threads, for a training goes on with no other number: the one at fault
    is found, and the others are measured.
    """
    # Below 0 is not begun. There is no lock, which a kill might leave taken.
    shares = fresh_process_context([__name__]).RawArray("d", [-1.0] * len(phase.cells))
    broken: list[list[Cell]] = []
    waiting: dict[Future, dict[int, Cell]] = {}
    # Where an error ends a worker, what it has written is whole, and a training writes a checkpoint.
    with worker_processes(phase.processes, _begin_worker, phase.threads, shares, imports=[__name__]) as pool:
        places = iter(range(len(shares)))
        for group in phase.groups:
            own = dict(zip(islice(places, len(group)), group, strict=True))
            waiting[pool.submit(_run_in_worker, own, job)] = own
        while waiting:
            finished, _ = wait(waiting, REFRESH_S, FIRST_COMPLETED)
            for own in waiting.values():
                for place, cell in own.items():
                    if shares[place] >= 0:
                        progress.tell(cell, shares[place])
            for future in finished:
                group = list(waiting.pop(future).values())
                try:
                    outcomes = future.result()
                except BrokenProcessPool:
                    if len(phase.groups) > 1:
                        broken.append(group)
                        continue
                    why = "the process that computed it was killed"
                    outcomes = [Outcome("failed", failure=why) for _ in group]
                yield from zip(group, outcomes, strict=True)
    for group in broken:
        for cell, outcome in _run_side_by_side(Phase([group], threads=phase.threads), job, progress):
            # What is recorded by now was measured before the pool broke, and its outcome was lost.
            yield cell, replace(outcome, state="measured") if outcome.state == "kept" else outcome


_shares: Any = None
"""In a worker: which share of each of the phase's cells is done, for the parent to see."""


def _begin_worker(threads: int, shares: Any) -> None:
    global _shares
    _shares = shares
    torch.set_num_threads(threads)
    keep_freed_memory()
    use_full_float32()


def _run_in_worker(cells: dict[int, Cell], job: Job) -> list[Outcome]:
    gc.freeze()  # as in the parent
    outcomes = []
    for place, cell in cells.items():
        try:
            outcomes.append(_run_cell(cell, job, expected_s=0.0, tell=partial(_note_share, place)))
        except Stopped:
            os._exit(1)  # else the pool would give it the next cell
        if outcomes[-1].state != "held":
            _shares[place] = 1.0
    return outcomes


def _note_share(place: int, share: float, words: str = "") -> None:
    _shares[place] = share


def _run_cell(cell: Cell, job: Job, expected_s: float, tell: Callable[[float, str], None]) -> Outcome:
    """Measures a cell and writes its record, unless another process does or did, or the budget is spent."""
    ranks = job.ranks
    if outcome := ranks.tell_all(_skip(cell, job, expected_s)):
        return outcome
    with claimed(job.results, cell) if ranks.is_first else nullcontext() as claim:
        # Again, for another process may have finished it before it was claimed.
        outcome = ranks.tell_all(_skip(cell, job, expected_s) if claim else Outcome("held"))
        return outcome or _run_claimed(cell, job, claim, tell)


def _run_claimed(cell: Cell, job: Job, claim: Claim | None, tell: Callable[[float, str], None]) -> Outcome:
    """Measures a cell and writes its record; the first of the processes that train together has the claim."""
    ranks = job.ranks
    tell(0.0, "")
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    result, failure, is_final = None, None, True
    files = _training_files(cell, job)
    own_environment = cell.conditions.environment(job.setting)  # before the cell: its data are what it begins with
    told = _checking(claim, tell, ranks)
    try:
        setting = replace(job.setting, weights=_initial_weights(cell, job, told), files=files, tell=told)
        with state_kept() if cell.is_from_file else nullcontext():
            result = cell.conditions.run(cell, setting)
        check_result(cell.measurement, json.loads(json.dumps(result)))
        check_has_main_metric(cell.measurement, result, as_plain(cell.conditions))
    except OutOfTime:
        return Outcome("left")
    except Lost:
        return Outcome("held")
    except Exception as error:  # whatever one cell does, the others go on
        if ranks.count > 1 and not isinstance(error, Diverged):
            raise ranks.fault(error) from error  # what not all have met would leave the others waiting
        result, failure, is_final = None, first_line(error), isinstance(error, Diverged)
        if is_out_of_memory(error):
            words = f"out of memory on {cell.conditions.needed_device}: a smaller batch or smaller images take less"
            failure = f"{words} ({failure})"
        if job.debug:
            traceback.print_exc()
    if not cell.conditions.is_computed:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    seconds = time.monotonic() - clock
    if ranks.is_first and folder_identity(job.results) != job.folder:
        raise gone(job.results, "it is")
    if ranks.tell_all(claim is not None and not claim.is_held()):
        return Outcome("held")
    if ranks.is_first:
        path = write_record(
            job.results,
            cell,
            study=job.study,
            result=result,
            failure=failure,
            environment=job.environments[cell.conditions.needed_device] | own_environment,
            started=started,
            duration_s=round(seconds, 3),
            declared_seeds=job.declared_seeds if cell.conditions.trains else None,
            # What is measured anew replaces what it was.
            is_first=bool(failure) or not (cell.is_from_file or job.setting.force),
        )
        if path is None and not failure:
            return Outcome("kept")
        if path and is_final:  # what failed for want of memory, say, may go on
            for path in (files.checkpoint, *files.checkpoint.parent.glob(f".{files.checkpoint.name}.*")):
                path.unlink(missing_ok=True)  # with what a kill amid writing left
    return Outcome("failed", seconds, failure) if failure else Outcome("measured", seconds)


def _checking(claim: Claim | None, tell: Callable[[float, str], None], ranks: Ranks) -> Callable[[float, str], None]:
    """Returns what tells how far a cell is, and raises Lost where another process works on it by now.

    But processes that train together would wait for one that leaves amid the training.
    """
    if claim is None or ranks.count > 1:
        return tell

    def told(share: float, words: str) -> None:
        tell(share, words)
        claim.check()

    return told


def _skip(cell: Cell, job: Job, expected_s: float) -> Outcome | None:
    """Returns the outcome of a cell that is not measured."""
    record = find_record(job.results, cell)
    is_of_launch = record is not None and job.since is not None and record["started"] >= job.since
    if is_of_launch or not cell.is_from_file:
        if _is_done(record, job.setting.force and not is_of_launch):
            return Outcome("kept")
        if is_of_launch and record is not None:
            return Outcome("failed", failure=record["failure"])
    needed_s = 0.0 if cell.conditions.trains else expected_s
    return Outcome("left") if time.monotonic() + needed_s > job.setting.deadline else None


def _training_files(cell: Cell, job: Job) -> Files:
    environment = job.environments[cell.conditions.needed_device]
    model_file = split_file_model(cell.source)  # which may import its neighbours
    return Files(
        checkpoint=job.results / "checkpoints" / f"{cell.file_name}.pt",
        log=job.results / "logs" / f"{cell.file_name}.jsonl",
        tensorboard=job.results / "tensorboard" / cell.file_name if job.tensorboard else None,
        weights=job.results / WEIGHTS / f"{cell.file_name}.safetensors" if job.save_weights else None,
        examples=job.results / "examples" / f"{cell.file_name}.png",
        made_by={
            **{name: environment[name] for name in ("device_name", "torch", "torchvision", "timm")},
            "threads": torch.get_num_threads() if cell.conditions.needed_device == "cpu" else None,
            "processes": job.ranks.count,
            "code": training_code_digest(
                getattr(cell.conditions, "data", ""), model_file and model_file[0].parent, baselines=cell.config is None
            ),
            "data": cell.conditions.data_digest(job.setting.data_dir) if cell.conditions.trains else None,
        },
    )


def _initial_weights(cell: Cell, job: Job, tell: Callable[[float, str], None]) -> Path | None:
    """Returns the file of weights that a cell takes; a classifier's of a study is trained first where it is gone.

    Where another process trains it, that one's are waited for.
    """
    if not begins_from_study(cell):
        return job.setting.weights
    classifier, ranks = classifier_of(cell), job.ranks
    files = _training_files(classifier, replace(job, save_weights=True))
    assert files.weights is not None
    while not ranks.tell_all(files.weights.is_file()):
        with claimed(job.results, classifier) if ranks.is_first else nullcontext() as claim:
            if ranks.tell_all(claim is not None):
                told = _checking(claim, tell, ranks)
                if not ranks.tell_all(files.weights.is_file()):
                    classifier.conditions.run(classifier, replace(job.setting, weights=None, files=files, tell=told))
                files.checkpoint.unlink(missing_ok=True)
                break
        if ranks.tell_all(time.monotonic() > job.setting.deadline):
            raise OutOfTime("the time was over before another process had trained the classifier")
        tell(0.0, "")
        time.sleep(LOOK_AGAIN_S)
    return files.weights


def _is_done(record: dict[str, Any] | None, force: bool = False) -> TypeGuard[dict[str, Any]]:
    if record is None or record["status"] != "done":
        return False
    return not (force and "out_of_memory" in record["result"])
