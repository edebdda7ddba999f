"""Fixtures for tests of records: one cell, and records of it and its like."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.cells import Cell, arm_cell
from ablations.config import ARMS
from ablations.measure import Cost, Memory
from ablations.records import write_record
from ablations.schema import record_digest

CELL = arm_cell(variant="pico", arm="v1+ope", base="v2", conditions=Cost(resolution=64))


@pytest.fixture(scope="session")
def pico() -> Cell:
    """The cell that a record is of where no other is named: the cost of pico, arm v1+ope, base v2, at 64 pixels."""
    return CELL


def write_made_up(
    results: Path, cell: Cell = CELL, result: dict[str, Any] | None = None, failure: str | None = None
) -> Path:
    return write_record(
        results,
        cell,
        study="quick",
        result=None if failure else result or {"params": 10, "macs": 20, "macs_traced": 20, "breakdown": {}},
        failure=failure,
        environment={"device_name": "Imaginary CPU", "torch": "2.8.0", "threads": 2, "commit": None},
        started="2026-01-02T03:04:05+00:00",
        duration_s=0.5,
    )


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """`write(results, cell=pico, result=None, failure=None)` writes a record, with a made-up result by default."""
    return write_made_up


def edit_record(path: Path, **changes: object) -> None:
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(record | {"digest": record_digest(record)}))


@pytest.fixture(scope="session")
def edit() -> Callable[..., None]:
    """`edit(path, **changes)` changes a record and its digest, as another version of this code would."""
    return edit_record


@pytest.fixture(scope="session")
def write_some() -> Callable[[Path], list[Path]]:
    """`write_some(folder)` writes cost of each arm and memory of one, from two machines, and one failed cell."""

    def write_all(folder: Path) -> list[Path]:
        paths = [write_made_up(folder, CELL.of(arm=arm)) for arm in ARMS]
        memory = {"peak_memory_bytes": 7, "memory_method": "tracked_storages"}
        paths.append(write_made_up(folder, replace(CELL, conditions=Memory()), result=memory))
        paths.append(
            write_made_up(folder, replace(CELL, conditions=Memory(mode="training")), failure="RuntimeError: no")
        )
        edit_record(paths[0], environment={"device_name": "Another", "torch": "2.9.0", "threads": 1, "commit": "abc"})
        return paths

    return write_all
