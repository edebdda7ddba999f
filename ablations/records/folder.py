"""The records of a results folder, packed or each in a file of its own."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.cells import Cell
from ablations.errors import as_text, refuse
from ablations.measure import MEASUREMENTS
from ablations.records.packed import packed_path, read_packed
from ablations.records.record_file import RECORDS, find_own, read_record, record_path

MISPLACED = "neither MEASUREMENT/NAME.json nor MEASUREMENT.jsonl, which records are"


@dataclass(frozen=True)
class Found:
    """What was found in a results folder: the records, and what is wrong with that which is none, by its place."""

    records: list[dict[str, Any]]
    damaged: dict[str, str]


@contextmanager
def no_collection() -> Iterator[None]:
    """Has Python not look for garbage: it would look through all records again and again, and find none."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@no_collection()
def read_records(results: Path) -> Found:
    """Returns every record under a results folder, measurement by measurement, and what is damaged or foreign.

    Hidden files, as an interrupted write leaves, are nobody's. Raises InputError for a folder that cannot be listed.
    """
    packs = {packed_path(results, measurement).name for measurement in MEASUREMENTS}
    records: list[dict[str, Any]] = []
    damaged: dict[Path, str] = {}
    for measurement in sorted(MEASUREMENTS):
        found, wrong = read_measurement(results, measurement)
        records += found.values()
        damaged |= wrong
    for entry in _list_folder(results / RECORDS):
        if entry.name not in MEASUREMENTS and entry.name not in packs:
            damaged |= dict.fromkeys(_files_below(entry), MISPLACED)
    return Found(records, {as_text(path.relative_to(results).as_posix()): why for path, why in sorted(damaged.items())})


def find_record(results: Path, cell: Cell) -> dict[str, Any] | None:
    """Returns the record of a cell, or None where there is none that can be read."""
    own = find_own(record_path(results, cell))
    # In this order, for what is packed in between is in the packed file then.
    packed = read_packed(packed_path(results, cell.measurement))[0].get(cell.key)
    return choose(own, packed) if own else packed


def read_measurement(results: Path, measurement: str) -> tuple[dict[str, dict[str, Any]], dict[Path, str]]:
    """Returns the records of a measurement by key, and what is wrong with other files and lines."""
    own, wrong = read_own(results, measurement)
    # After them, for what is packed in between is in the packed file then.
    packed, lines = read_packed(packed_path(results, measurement))
    chosen = {record["key"]: choose(record, packed.get(record["key"])) for record in own.values()}
    return packed | chosen, wrong | lines


def read_own(results: Path, measurement: str) -> tuple[dict[Path, dict[str, Any]], dict[Path, str]]:
    """Returns the records of a measurement that have files of their own, and what is wrong with the others."""
    records: dict[Path, dict[str, Any]] = {}
    damaged: dict[Path, str] = {}
    for entry in _list_folder(results / RECORDS / measurement):
        path = Path(entry.path)
        if path.suffix != ".json":
            damaged |= dict.fromkeys(_files_below(entry), MISPLACED)
            continue
        try:
            records[path] = read_record(path)
        except ValueError as error:
            damaged[path] = str(error)
    return records, damaged


def choose(own: dict[str, Any], packed: dict[str, Any] | None) -> dict[str, Any]:
    """Returns which record of a key counts: a finished one before a failed one, then the one of its own file."""
    return packed if packed and own["status"] == "failed" and packed["status"] == "done" else own


def _list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what a folder holds, by name, without hidden entries; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted((each for each in entries if not each.name.startswith(".")), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise refuse("records", str(folder), f"a folder that can be listed ({error.strerror})") from error


def _files_below(entry: os.DirEntry[str]) -> Iterator[Path]:
    """Yields an entry that is no folder, or the files in one; links to folders are not followed."""
    if entry.is_dir(follow_symlinks=False):
        for each in _list_folder(Path(entry.path)):
            yield from _files_below(each)
    elif not entry.is_dir():
        yield Path(entry.path)
