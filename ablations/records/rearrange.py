"""Packing, unpacking, merging and dropping the records of results folders."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from ablations.cells import file_name
from ablations.errors import InputError, refuse
from ablations.files import write_text
from ablations.measure import MEASUREMENTS
from ablations.records.folder import Found, choose, read_measurement, read_own, read_records
from ablations.records.packed import packed_path, packed_text, read_packed
from ablations.records.record_file import RECORDS, find_own, own_path, refusing_unwritable, write_own


@contextmanager
def _rearranging(results: Path) -> Iterator[Found]:
    """Gives the records, and keeps other processes from packing, unpacking or moving them.

    Raises InputError, before anything is written, where a record is damaged, or where two finished results differ under
    one key.
    """
    with FileLock(results / RECORDS / ".lock"):
        found = _read_whole(results)
        for measurement in MEASUREMENTS:
            packed, _ = read_packed(packed_path(results, measurement))
            for path, own in read_own(results, measurement)[0].items():
                if own["key"] in packed and _contradict(own, packed[own["key"]]):
                    raise InputError(
                        f"{path.name} and the packed record of its key have different results: keep one of them, and "
                        "move the other away"
                    )
        yield found


def _read_whole(results: Path) -> Found:
    """Returns the records of a folder; raises InputError where one is damaged."""
    found = read_records(results)
    if found.damaged:
        place, why = next(iter(found.damaged.items()))
        raise InputError(f"{results}: {place}: {why}; mend or remove it first ({len(found.damaged)} damaged)")
    return found


def _contradict(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["status"] == other["status"] == "done" and one["result"] != other["result"]


def pack_records(results: Path) -> dict[str, int]:
    """Puts all records into one file a measurement and removes the files of their own; returns how many each has.

    A file that a run replaces meanwhile stays. Raises InputError as `_rearranging` does.
    """
    counts = {}
    with _rearranging(results):
        for measurement in MEASUREMENTS:
            texts = {path: path.read_bytes() for path in read_own(results, measurement)[0]}
            records, _ = read_measurement(results, measurement)
            if not records:
                continue
            path = packed_path(results, measurement)
            with refusing_unwritable(path):
                write_text(path, packed_text(records.values()))
            for own, text in texts.items():
                if own.is_file() and own.read_bytes() == text:
                    own.unlink()
            counts[measurement] = len(records)
    return counts


def unpack_records(results: Path) -> dict[str, int]:
    """Writes each packed record to a file of its own and removes the packed files; returns how many each had.

    Raises InputError as `_rearranging` does.
    """
    with _rearranging(results):
        return {name: count for name in MEASUREMENTS if (count := _unpack_measurement(results, name))}


def _unpack_measurement(results: Path, measurement: str) -> int:
    packed, _ = read_packed(packed_path(results, measurement))
    for record in packed.values():
        own = find_own(own_path(results, record))
        if own is None or choose(own, record) is record:
            write_own(results, record)
    if packed:
        packed_path(results, measurement).unlink()
    return len(packed)


def merge_records(results: Path, others: Iterable[Path]) -> int:
    """Copies the records of other results folders that `results` lacks, and returns how many.

    Raises InputError, before anything is written, where two finished records of one key differ, and names both; a
    finished one replaces a failed one.
    """
    known = {record["key"]: (results, record) for record in read_records(results).records}
    added: dict[str, dict[str, Any]] = {}
    for other in others:
        if not (other / RECORDS).is_dir():
            raise refuse("folder", str(other), "a results folder, which has records")
        for record in _read_whole(other).records:
            key = record["key"]
            place, mine = known.get(key, (other, None))
            if mine is None or (mine["status"] != "done" and record["status"] == "done"):
                known[key] = (other, record)
                added[key] = record
            elif _contradict(mine, record):
                raise InputError(
                    f"{file_name(record, key)} differs between {place} and {other}: keep one of them, or move one "
                    "aside with `records drop`"
                )
    for record in added.values():
        write_own(results, record)
    return len(added)


def drop_records(results: Path, wanted: Callable[[dict[str, Any]], bool]) -> Path | None:
    """Moves the records that are `wanted` out of a results folder, to a folder beside its records, which it returns.

    It is a results folder itself, so that `merge_records` brings them back. None where no record is wanted. Raises
    InputError as `_rearranging` does.
    """
    with _rearranging(results) as found:
        dropped = [record for record in found.records if wanted(record)]
        if not dropped:
            return None
        aside = results / "dropped" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        for record in dropped:
            write_own(aside, record)
        for measurement in {record["measurement"] for record in dropped}:
            _unpack_measurement(results, measurement)
        for record in dropped:
            own_path(results, record).unlink()
    return aside
