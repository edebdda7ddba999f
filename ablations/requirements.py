"""What cells need, checked before anything is measured."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from ablations.baselines.build import check_baseline
from ablations.baselines.equal import check_has_baseline
from ablations.data.loading import check_data, check_loading, load_data
from ablations.data.registry import data_directory
from ablations.design import Accuracy, AnyCell, Cell, Conditions, Cost, Evaluation, ModelCell, Speed
from ablations.errors import InputError, refuse
from ablations.measure.allocator import keep_freed_memory
from ablations.measure.environment import available_cores, check_device, describe_environment, use_full_float32
from ablations.measurements import at_any_size, meta_network
from ablations.model import build_model
from ablations.model.checkpoint import load_weights
from ablations.networks import build_network
from ablations.studies import find_study
from ablations.training.accuracy import check_shareable
from ablations.training.distributed import Ranks, count_ranks
from ablations.training.evaluation import open_images

T = TypeVar("T")

DataKey = tuple[str, str]
"""A measurement and a data set, of which it takes what it needs."""


def is_exact(cell: AnyCell) -> bool:
    """Whether a cell is computed from shapes, so that it does not matter what else the machine does."""
    return isinstance(cell.conditions, Cost) or getattr(cell.conditions, "method", "") == "predicted"


def needed_device(cell: AnyCell) -> str:
    """Returns the device that a cell needs; a prediction needs none but this one."""
    return "cpu" if is_exact(cell) else getattr(cell.conditions, "device", "cpu")


def data_key(measurement: str, conditions: Conditions) -> DataKey | None:
    data = getattr(conditions, "data", None)
    return (measurement, data) if data else None


def check_processes(missing: Sequence[AnyCell], jobs: int) -> str:
    """Returns the device that several processes train on together; raises InputError for what they cannot do."""
    if not 1 <= jobs <= available_cores():
        raise refuse("jobs", jobs, f"1 to {available_cores()}, the number of cores")
    processes = count_ranks()
    for cell in missing:
        if isinstance(cell.conditions, Accuracy):
            Ranks(count=processes).check_batch(cell.conditions.batch_size)
    devices = {needed_device(cell) for cell in missing}
    alike = len(devices) <= 1 and all(isinstance(cell.conditions, Accuracy) for cell in missing)
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


def check_needs(
    cells: Sequence[AnyCell], results: Path, data_dir: Path | None, weights: Path | None
) -> dict[str, dict[str, Any]]:
    """Returns the environment of each device that the cells need, and raises InputError for what is not there.

    The environment is taken before the first cell, while the code that runs is the code that lies there.
    """
    devices = sorted({needed_device(cell) for cell in cells})
    for device in devices:
        check_device(device)
    for cell in cells:
        if isinstance(cell, ModelCell):
            check_baseline(cell.source)
    trained = {
        (cell.source, cell.conditions.num_classes, cell.conditions.resolution, cell.conditions.drop_path_rate): cell
        for cell in cells
        if isinstance(cell, ModelCell) and isinstance(cell.conditions, Accuracy)
    }
    for cell in trained.values():
        network = build_network(cell)
        if count_ranks() > 1 and needed_device(cell) == "cpu":
            check_shareable(network, count_ranks())
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
                check_has_baseline(cell.config, library, cell.conditions.resolution)
    evaluated = {
        (cell.config, cell.conditions.data)
        for cell in cells
        if isinstance(cell, Cell) and isinstance(cell.conditions, Evaluation)
    }
    for config, data in evaluated:
        load_weights(build_model(config), cast(Path, weights))
        open_images(data_directory(data_dir) / data, config.num_classes)
    accuracies = [cell.conditions for cell in cells if isinstance(cell.conditions, Accuracy)]
    for data, classes in sorted({(conditions.data, conditions.num_classes) for conditions in accuracies}):
        check_data(data, classes, data_dir)
    for conditions in accuracies:
        check_loading(conditions)
        if conditions.train_images:
            load_data(conditions, data_dir)  # which says how many there are
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse("results", str(results), f"a folder that can be made ({error.strerror})") from error
    if not os.access(results, os.W_OK):
        raise refuse("results", str(results), "a folder that can be written to")
    settings = {"keeps_freed_memory": keep_freed_memory(), "tf32": use_full_float32()}
    return {device: describe_environment(device) | settings for device in devices}


def refuse_other_data(kept: Iterable[dict[str, Any]], digests: dict[DataKey, str | None]) -> None:
    """Raises InputError where a record is of another data set of the same name than the one that is there."""
    for record in kept:
        data = record["conditions"].get("data")
        measured, there = record["environment"].get("data_sha256"), digests.get((record["measurement"], data))
        if measured and there and measured != there:
            allowed = f"the data set that the results folder's records of {record['started']} are of; this is another"
            raise refuse("data", data, allowed)


def warn_of_other_machines(kept: Iterable[dict[str, Any]], environments: dict[str, dict[str, Any]]) -> None:
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
