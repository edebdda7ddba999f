"""What cells need, checked before anything is measured."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ablations.cells import Cell
from ablations.errors import InputError, refuse
from ablations.measure import MEASUREMENTS
from ablations.measure.allocator import keep_freed_memory
from ablations.measure.environment import available_cores, check_device, describe_environment, use_full_float32
from ablations.measure.measurement import Setting
from ablations.measure.process import available_memory
from ablations.model.toggle_checks import check_toggles
from ablations.records.rows import conditions_of
from ablations.training.distributed import Ranks, count_ranks

T = TypeVar("T")

MEMORY_OF_A_TRAINING = 2 * 2**30
"""Bytes that a training on the CPU may take, its images included: more than any of our studies'."""


def default_jobs() -> int:
    """Returns how many trainings go side by side: one a core, if memory may do.

    It is one where `torchrun` started several processes.
    """
    if count_ranks() > 1:
        return 1
    return max(1, min(available_cores(), available_memory("cpu") // MEMORY_OF_A_TRAINING))


def check_processes(missing: Sequence[Cell], jobs: int) -> str:
    """Returns the device that several processes train on together; raises InputError for what they cannot do."""
    if not 1 <= jobs <= available_cores():
        raise refuse("jobs", jobs, f"1 to {available_cores()}, the number of cores")
    processes = count_ranks()
    for cell in missing:
        if cell.conditions.trains:
            Ranks(count=processes).check_batch(cell.conditions.batch_size)
    devices = {cell.conditions.needed_device for cell in missing}
    alike = len(devices) <= 1 and all(cell.conditions.trains for cell in missing)
    if processes > 1 and (jobs > 1 or not alike):
        raise refuse("processes", processes, "1, but for trainings on one device, without --jobs")
    return min(devices, default="cpu")


def check_together(ranks: Ranks, check: Callable[[], T]) -> T:
    """Returns what a check does in each process, the first before the others: it fetches what they all need."""
    answer: T | None = None
    fault: InputError | None = None
    if ranks.is_first:
        try:
            answer = check()
        except InputError as error:
            fault = error
    if fault := ranks.tell_all(fault):
        raise fault
    return check() if answer is None else answer


def check_needs(cells: Sequence[Cell], results: Path, setting: Setting) -> dict[str, dict[str, Any]]:
    """Returns the environment of each device that the cells need, and raises InputError for what is not there.

    The environment is taken before the first cell, while the code that runs is the code that lies there.
    """
    devices = sorted({cell.conditions.needed_device for cell in cells})
    for device in devices:
        check_device(device)
    check_toggles(name for cell in cells if cell.config for name in cell.config.toggles)
    for name, kind in MEASUREMENTS.items():
        if own := [cell for cell in cells if cell.measurement == name]:
            kind.check_needs(own, setting)
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse("results", str(results), f"a folder that can be made ({error.strerror})") from error
    if not os.access(results, os.W_OK):
        raise refuse("results", str(results), "a folder that can be written to")
    settings = {"keeps_freed_memory": keep_freed_memory(), "tf32": use_full_float32()}
    return {device: describe_environment(device) | settings for device in devices}


def refuse_other_data(cells: Iterable[Cell], kept: dict[str, dict[str, Any]], data_dir: Path | None) -> None:
    """Raises InputError where a record is of another data set of the same name than the one that is there."""
    there: dict[tuple[str, str | None], str | None] = {}
    for cell in cells:
        measured = kept.get(cell.key, {"environment": {}})["environment"].get("data_sha256")
        if not measured:
            continue
        place = (cell.measurement, cell.conditions.data)
        if place not in there:
            there[place] = cell.conditions.data_digest(data_dir)
        if there[place] and there[place] != measured:
            when = kept[cell.key]["started"]
            allowed = f"the data set that the results folder's records of {when} are of; this is another"
            raise refuse("data", cell.conditions.data, allowed)


def refuse_different_data(ranks: Ranks, cells: Iterable[Cell], data_dir: Path | None) -> None:
    """Raises InputError where processes that train together have other images under the same name."""
    if ranks.count == 1:
        return
    trained = {cell.conditions.data: cell.conditions for cell in cells if cell.conditions.trains}
    own = {name: conditions.data_digest(data_dir) for name, conditions in sorted(trained.items())}
    for rank, other in enumerate(ranks.gather(own)):
        for name, digest in own.items():
            if other.get(name) != digest:
                raise refuse("data", name, f"the same images in all processes; those of process {rank} are others")


def folder_identity(folder: Path) -> tuple[int, int] | None:
    """Returns what tells a folder from one that takes its place; None where there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def gone(results: Path, what: str) -> InputError:
    """The error for a results folder that does not stay while it is measured into."""
    return refuse("results", str(results), f"a folder that stays while it is measured into; {what} gone")


def warn_of_other_machines(kept: Iterable[dict[str, Any]], environments: dict[str, dict[str, Any]]) -> None:
    """Says so if records that tables split by machine were measured on another, or with another torch."""
    others = set()
    for record in kept:
        conditions = conditions_of(record)
        if MEASUREMENTS[record["measurement"]].pools_machines or conditions.get("method") == "predicted":
            continue  # the same on every machine, or pooled
        there = record["environment"]
        here = environments.get(conditions.get("device", ""))
        if here and any(there.get(name) != here[name] for name in ("device_name", "torch")):
            others.add(f"{there.get('device_name')}, torch {there.get('torch')}")
    if others:
        print(
            f"warning: the folder holds records of {' and '.join(sorted(others))}, which are kept; tables split by "
            "machine, so measure into a folder of your own to compare all arms on this one",
            file=sys.stderr,
        )
