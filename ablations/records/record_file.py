"""The file of one record: `records/MEASUREMENT/NAME_KEY.json` below a results folder."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ablations.cells import Cell, file_name
from ablations.errors import as_text, refuse, without_folders
from ablations.files import opened_regular, write_new, write_text
from ablations.schema import LONGEST_TEXT, SCHEMA, check_record, record_digest

LARGEST_RECORD = 2**24
"""Bytes."""

RECORDS = "records"
"""The folder of records below a results folder."""


def record_path(results: Path, cell: Cell) -> Path:
    """Returns where the record of a cell is written below the results folder."""
    return results / RECORDS / cell.measurement / f"{cell.file_name}.json"


def own_path(results: Path, record: dict[str, Any]) -> Path:
    """Returns where a record has its own file below the results folder."""
    return results / RECORDS / record["measurement"] / f"{file_name(record, record['key'])}.json"


def write_record(
    results: Path,
    cell: Cell,
    *,
    study: str,
    result: dict[str, Any] | None,
    failure: str | None,
    environment: dict[str, Any],
    started: str,
    duration_s: float,
    declared_seeds: int | None = None,
    is_first: bool = False,
) -> Path | None:
    """Writes the record of a cell, replacing an older one, and returns its path.

    With `is_first` a finished record that stands there is kept, and None returned: of several processes that write
    one cell's, the first whole one stands.

    `result` holds metrics and raw samples, or is None where the cell failed and `failure` says why; `started` is an
    ISO 8601 time in UTC; `declared_seeds` is how many seeds the study declared for its trainings. Raises InputError
    where the file cannot be written.
    """
    record = {
        "schema": SCHEMA,
        "key": cell.key,
        "study": study,
        **cell.describe(),
        "status": "failed" if failure else "done",
        "failure": failure and as_text(without_folders(failure))[:LONGEST_TEXT],
        "result": _printable(result),
        "environment": _printable(environment),
        "started": started,
        "duration_s": duration_s,
    }
    if declared_seeds:
        record["declared_seeds"] = declared_seeds
    record["digest"] = record_digest(record)
    return _write_first(results, record) if is_first else write_own(results, record)


def write_own(results: Path, record: dict[str, Any]) -> Path:
    """Writes a record to a file of its own, replacing an older one, and returns its path."""
    path = own_path(results, record)
    with refusing_unwritable(path):
        write_text(path, _record_text(record))
    return path


def _write_first(results: Path, record: dict[str, Any]) -> Path | None:
    """Writes a record unless a finished one stands there; one that failed or is damaged makes way."""
    path = own_path(results, record)
    with refusing_unwritable(path):
        while not write_new(path, _record_text(record)):
            if _is_finished(path):
                return None
            # Looked at again once it is moved, for another process may have written a finished one in between.
            aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            with suppress(FileNotFoundError):
                path.replace(aside)
                if _is_finished(aside):
                    with suppress(FileExistsError):
                        os.link(aside, path)
                    aside.unlink()
                    return None
                aside.unlink()
    return path


def _record_text(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=1) + "\n"


@contextmanager
def refusing_unwritable(path: Path) -> Iterator[None]:
    """Raises InputError in place of OSError where a file of records cannot be written."""
    try:
        yield
    except OSError as error:
        raise refuse("record", str(path), f"a file that can be written ({error.strerror})") from error


def _printable(value: Any) -> Any:
    """Returns plain values whose texts can be written and shown, names of a user's modules and images among them."""
    match value:
        case str():
            return as_text(value)
        case dict():
            return {as_text(name): _printable(each) for name, each in value.items()}
        case list():
            return list(map(_printable, value))
    return value


def read_record(path: Path) -> dict[str, Any]:
    """Returns one record; raises ValueError, saying why, if the file is none or not the one that its name says."""
    record = _read_under_any_name(path)
    if not path.stem.endswith(f"_{record['key']}") or path.parent.name != record["measurement"]:
        raise ValueError("it lies under another record's name")
    return record


def find_own(path: Path) -> dict[str, Any] | None:
    """Returns the record of a file, or None where there is none that can be read."""
    try:
        return read_record(path)
    except ValueError:
        return None


def _is_finished(path: Path) -> bool:
    """Whether a file, under any name, holds a finished record."""
    try:
        return bool(_read_under_any_name(path)["status"] == "done")
    except ValueError:
        return False


def _read_under_any_name(path: Path) -> dict[str, Any]:
    """Returns the record in a file of any name; raises ValueError, saying why, if it holds none."""
    try:
        with opened_regular(path, LARGEST_RECORD) as file:
            record = parse_json(file.read())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    check_record(record)
    return record


def parse_json(text: bytes) -> Any:
    """Returns what a JSON text says; raises ValueError where it is none."""
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
