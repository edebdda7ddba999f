"""Records: what came of each measured cell, written whole or not at all, and read as a table. Needs no torch.

A record describes itself: names, config, conditions, outcome, result with raw samples, environment, time taken. Its key
is the address of its cell, so a cell is measured once; its digest covers all that it says. A run writes one JSON file a
record, `records/MEASUREMENT/NAME_KEY.json`. `pack_records` puts them into one file a measurement,
`records/MEASUREMENT.jsonl`: first the environments, then a record a line, by key. Both forms are read, mixed; a file
of its own counts more than a packed line of the same key.
"""

import base64
import gc
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from functools import cache, lru_cache
from math import prod
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from filelock import FileLock

from ablations.cells import Cell, file_name
from ablations.conditions import field_docstrings
from ablations.config import (
    BASES,
    CONFOUNDERS,
    TOGGLES,
    VARIANTS,
    AttentionKernel,
    PVTConfig,
    arm_name,
    as_pair,
    is_int,
    size_text,
)
from ablations.errors import FEW, InputError, as_text, pick, refuse, without_folders
from ablations.files import opened_regular, write_new, write_text
from ablations.measure import MEASUREMENTS
from ablations.measure.cost import HEADS
from ablations.measure.measurement import Column, Kind, integer
from ablations.schema import LONGEST_TEXT, RUN, SCHEMA, check_record, record_digest, value_digest
from ablations.studies import find_study, list_studies
from ablations.toggle_files import register_recorded

LARGEST_RECORD, LARGEST_PACK = 2**24, 2**32
"""Bytes of a record, and of a file of packed ones."""

RECORDS = "records"
"""The folder of records below a results folder."""


def record_path(results: Path, cell: Cell) -> Path:
    """Returns where the record of a cell is written below the results folder."""
    return results / RECORDS / cell.measurement / f"{cell.file_name}.json"


def _own_path(results: Path, record: dict[str, Any]) -> Path:
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
    if is_first:
        return _write_first(results, record)
    return _write_own(results, record)


def _write_first(results: Path, record: dict[str, Any]) -> Path | None:
    """Writes a record unless a finished one stands there; one that failed or is damaged makes way."""
    path = _own_path(results, record)
    try:
        while not write_new(path, json.dumps(record, indent=1) + "\n"):
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
    except OSError as error:
        raise refuse("record", str(path), f"a file that can be written ({error.strerror})") from error
    return path


def _is_finished(path: Path) -> bool:
    try:
        with opened_regular(path, LARGEST_RECORD) as file:
            record = _parse(file.read())
        check_record(record)
    except (OSError, ValueError):
        return False
    return bool(record["status"] == "done")


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


def _write_own(results: Path, record: dict[str, Any]) -> Path:
    path = _own_path(results, record)
    _write(path, json.dumps(record, indent=1) + "\n")
    return path


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise refuse("record", str(path), f"a file that can be written ({error.strerror})") from error


def pack_bits(values: Sequence[bool]) -> str:
    """Returns truths as text: a bit each, most significant first, in base64."""
    return base64.b64encode(np.packbits(np.asarray(values, dtype=bool)).tobytes()).decode()


def unpack_bits(text: str, count: int) -> np.ndarray:
    """Returns the first `count` truths (count,) of what `pack_bits` wrote."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8), count=count).astype(bool)


# Reading -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What was found in a results folder: the records, and what is wrong with that which is none, by its place."""

    records: list[dict[str, Any]]
    damaged: dict[str, str]

    def damaged_of(self, measurement: str) -> dict[str, str]:
        """Returns the damaged files and lines among the records of a measurement."""
        own = re.compile(rf"{RECORDS}/{re.escape(measurement)}(/|[.]jsonl)")
        return {place: why for place, why in self.damaged.items() if own.match(place)}


def read_records(results: Path) -> Found:
    """Returns every record under a results folder, measurement by measurement, and what is damaged or foreign.

    Hidden files, as an interrupted write leaves, are nobody's. Raises InputError for a folder that cannot be listed.
    """
    root = results / RECORDS
    packs = {_packed_path(results, measurement).name for measurement in MEASUREMENTS}
    records: list[dict[str, Any]] = []
    damaged: dict[Path, str] = {}
    with _no_collection():
        for measurement in sorted(MEASUREMENTS):
            found, wrong = _read_measurement(results, measurement)
            records += found.values()
            damaged |= wrong
    for entry in _list_folder(root):
        if entry.name not in MEASUREMENTS and entry.name not in packs:
            damaged |= dict.fromkeys(_files_below(entry), MISPLACED)
    return Found(records, {as_text(path.relative_to(results).as_posix()): why for path, why in sorted(damaged.items())})


@contextmanager
def _no_collection() -> Iterator[None]:
    """Has Python not look for garbage: it would look through all records again and again, and find none."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


MISPLACED = "neither MEASUREMENT/NAME.json nor MEASUREMENT.jsonl, which records are"


def _list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what a folder holds, by name, without hidden entries; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted((each for each in entries if not each.name.startswith(".")), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise refuse("records", str(folder), f"a folder that can be listed ({error.strerror})") from error


def _read_measurement(results: Path, measurement: str) -> tuple[dict[str, dict[str, Any]], dict[Path, str]]:
    """Returns the records of a measurement by key, and what is wrong with other files and lines."""
    own, wrong = _read_folder(results, measurement)
    # After them, for what is packed in between is in the packed file then.
    packed, lines = _read_packed(_packed_path(results, measurement))
    records = dict(packed)
    for record in own.values():
        records[record["key"]] = _choose(record, packed.get(record["key"])) or record
    return records, wrong | lines


def _read_folder(results: Path, measurement: str) -> tuple[dict[Path, dict[str, Any]], dict[Path, str]]:
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


def _files_below(entry: os.DirEntry[str]) -> Iterator[Path]:
    """Yields an entry that is no folder, or the files in one; links to folders are not followed."""
    if entry.is_dir(follow_symlinks=False):
        for each in _list_folder(Path(entry.path)):
            yield from _files_below(each)
    elif not entry.is_dir():
        yield Path(entry.path)


def read_record(path: Path) -> dict[str, Any]:
    """Returns one record; raises ValueError, saying why, if the file is none or not the one that its name says."""
    try:
        with opened_regular(path, LARGEST_RECORD) as file:
            record = _parse(file.read())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    check_record(record)
    if not path.stem.endswith(f"_{record['key']}") or path.parent.name != record["measurement"]:
        raise ValueError("it lies under another record's name")
    return record


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error


def find_record(results: Path, cell: Cell) -> dict[str, Any] | None:
    """Returns the record of a cell, or None where there is none that can be read."""
    own = _try_read(record_path(results, cell))
    # In this order, for what is packed in between is in the packed file then.
    return _choose(own, _read_packed(_packed_path(results, cell.measurement))[0].get(cell.key))


def _try_read(path: Path) -> dict[str, Any] | None:
    try:
        return read_record(path)
    except ValueError:
        return None


def _choose(own: dict[str, Any] | None, packed: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns which of two records of one key counts: a finished one before a failed one, then one of its own file."""
    if own is None or packed is None:
        return own or packed
    return packed if own["status"] == "failed" and packed["status"] == "done" else own


def iterate_records(results: Path) -> Iterator[dict[str, Any]]:
    """Yields every record under the results folder, measurement by measurement; damaged ones are left out."""
    yield from read_records(results).records


def find_damaged(results: Path) -> dict[str, str]:
    """Returns the files and packed lines among the records that are none, by place, and what is wrong."""
    return read_records(results).damaged


# Packing -------------------------------------------------------------------------------------------------------------


def _packed_path(results: Path, measurement: str) -> Path:
    return results / RECORDS / f"{measurement}.jsonl"


def _read_packed(path: Path) -> tuple[dict[str, dict[str, Any]], dict[Path, str]]:
    """Returns the packed records of a file by key, and what is wrong with it or its lines, by place.

    There are none where there is no such file; it is read anew when it has changed.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        return {}, {}
    except OSError as error:
        return {}, {path: f"cannot be read: {error.strerror}"}
    try:
        return _parse_packed(path, state.st_ino, state.st_mtime_ns, state.st_ctime_ns, state.st_size)
    except OSError as error:
        return {}, {path: f"cannot be read: {error.strerror}"}
    except ValueError as error:
        return {}, {path: str(error)}


@lru_cache(maxsize=2 * len(MEASUREMENTS))
def _parse_packed(path: Path, *state: int) -> tuple[dict[str, dict[str, Any]], dict[Path, str]]:
    records: dict[str, dict[str, Any]] = {}
    damaged: dict[Path, str] = {}
    with opened_regular(path, LARGEST_PACK) as file:
        header = _parse(file.readline(LARGEST_RECORD))
        environments = header.get("environments") if isinstance(header, dict) else None
        if not isinstance(environments, dict) or header.get("schema") != SCHEMA:
            raise ValueError(f"its first line has no environments of schema {SCHEMA}")
        changed = {name for name, each in environments.items() if name != _environment_name(each)}
        for place, line in enumerate(iter(lambda: file.readline(LARGEST_RECORD), b""), start=2):
            try:
                record = _parse(line)
                name = record.get("environment") if isinstance(record, dict) else None
                if not isinstance(name, str) or name not in environments:
                    raise ValueError("its environment is not in the first line")
                record["environment"] = environments[name]
                is_as_written = record.pop(LINE_DIGEST, None) == _line_digest(line) and name not in changed
                check_record(record, is_as_written=is_as_written)
                if record["measurement"] != path.stem:
                    raise ValueError(f"it is a record of {record['measurement']}")
            except ValueError as error:
                damaged[path.with_name(f"{path.name}, line {place}")] = str(error)
            else:
                records[record["key"]] = record
    return records, damaged


LINE_DIGEST = "line"
"""What a packed line begins with: the SHA-256 of its other bytes, which takes less time to check than a record's."""

_PREFIX = len(f'{{"{LINE_DIGEST}": "{"0" * 64}", ')


def _packed_line(record: dict[str, Any]) -> str:
    said = json.dumps(record | {"environment": _environment_name(record["environment"])})
    return f'{{"{LINE_DIGEST}": "{hashlib.sha256(said.encode()).hexdigest()}", {said[1:]}'


def _line_digest(line: bytes) -> str:
    return hashlib.sha256(b"{" + line[_PREFIX:].rstrip(b"\n")).hexdigest()


@contextmanager
def _rearranging(results: Path) -> Iterator[None]:
    """Keeps other processes from packing, unpacking or moving the same records; refuses damaged and doubtful ones.

    Raises InputError, before anything is written, where a record is damaged, or where two finished results differ under
    one key.
    """
    with FileLock(results / RECORDS / ".lock"):
        _refuse_damaged(results, read_records(results))
        for measurement in MEASUREMENTS:
            packed, _ = _read_packed(_packed_path(results, measurement))
            for path, own in _read_folder(results, measurement)[0].items():
                other = packed.get(own["key"])
                if other and own["status"] == other["status"] == "done" and own["result"] != other["result"]:
                    raise InputError(
                        f"{path.name} and the packed record of its key have different results: keep one of them, and "
                        "move the other away"
                    )
        yield


def pack_records(results: Path) -> dict[str, int]:
    """Puts all records into one file a measurement and removes the files of their own; returns how many each has.

    A file that a run replaces meanwhile stays. Raises InputError as `_rearranging` does.
    """
    counts = {}
    with _rearranging(results):
        for measurement in MEASUREMENTS:
            texts = {path: path.read_bytes() for path in _read_folder(results, measurement)[0]}
            records, _ = _read_measurement(results, measurement)
            if not records:
                continue
            environments = {_environment_name(each["environment"]): each["environment"] for each in records.values()}
            header = {"schema": SCHEMA, "environments": environments}
            lines = [
                json.dumps(header, sort_keys=True),
                *(_packed_line(record) for _, record in sorted(records.items())),
            ]
            _write(_packed_path(results, measurement), "\n".join(lines) + "\n")
            for path, text in texts.items():
                if path.is_file() and path.read_bytes() == text:
                    path.unlink()
            counts[measurement] = len(records)
    return counts


def _environment_name(environment: dict[str, Any]) -> str:
    return value_digest(environment)[:12]


def unpack_records(results: Path) -> dict[str, int]:
    """Writes each packed record to a file of its own and removes the packed files; returns how many each had.

    Raises InputError as `_rearranging` does.
    """
    with _rearranging(results):
        return {name: count for name in MEASUREMENTS if (count := _unpack_measurement(results, name))}


def _unpack_measurement(results: Path, measurement: str) -> int:
    packed, _ = _read_packed(_packed_path(results, measurement))
    for record in packed.values():
        own = _try_read(_own_path(results, record))
        if _choose(own, record) is not own:
            _write_own(results, record)
    if packed:
        _packed_path(results, measurement).unlink()
    return len(packed)


def merge_records(results: Path, others: Iterable[Path]) -> int:
    """Copies the records of other results folders that `results` lacks, and returns how many.

    Raises InputError, before anything is written, where two finished records of one key differ, and names both; a
    finished one replaces a failed one.
    """
    known = {record["key"]: (results, record) for record in iterate_records(results)}
    added: dict[str, dict[str, Any]] = {}
    for other in others:
        if not (other / RECORDS).is_dir():
            raise refuse("folder", str(other), "a results folder, which has records")
        found = read_records(other)
        _refuse_damaged(other, found)
        for record in found.records:
            place, mine = known.get(record["key"], (other, None))
            if mine is None or (mine["status"] != "done" and record["status"] == "done"):
                known[record["key"]] = (other, record)
                added[record["key"]] = record
            elif mine["status"] == record["status"] == "done" and mine["result"] != record["result"]:
                name = file_name(record, record["key"])
                raise InputError(
                    f"{name} differs between {place} and {other}: keep one of them, or move one aside with "
                    "`records drop`"
                )
    for record in added.values():
        _write_own(results, record)
    return len(added)


def drop_records(results: Path, wanted: Callable[[dict[str, Any]], bool]) -> Path | None:
    """Moves the records that are `wanted` out of a results folder, to a folder beside its records, which it returns.

    It is a results folder itself, so that `merge_records` brings them back. None where no record is wanted.
    """
    with _rearranging(results):
        dropped = [record for record in iterate_records(results) if wanted(record)]
        if not dropped:
            return None
        aside = results / "dropped" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        for record in dropped:
            _write_own(aside, record)
        for measurement in {record["measurement"] for record in dropped}:
            _unpack_measurement(results, measurement)
        for record in dropped:
            _own_path(results, record).unlink()
    return aside


def _refuse_damaged(results: Path, found: Found) -> None:
    if found.damaged:
        place, why = next(iter(found.damaged.items()))
        raise InputError(f"{results}: {place}: {why}; mend or remove it first ({len(found.damaged)} damaged)")


# Tables --------------------------------------------------------------------------------------------------------------

_NAMES = {
    "measurement": Column("What was measured: " + ", ".join(MEASUREMENTS) + "."),
    "model": Column("The model by its name; an arm is pvt:VARIANT/ARM/BASE."),
    "variant": Column("The arm's size; without value for a model that is no arm, as are the next two."),
    "arm": Column("The toggles that are on."),
    "base": Column("What the toggles are added to: it sets the confounders."),
}
_SIZES = {
    "resolution": Column("The input, as text such as 224 or 800x1280 (height x width).", "px"),
    "pixels": integer("Height times width of the input.", "px"),
    "img_size": integer("The side that learned position embeddings are made for; as text where not square.", "px"),
}

CONFIG_COLUMNS = ("attention", "pool_size", "stem_stride", "num_classes", *CONFOUNDERS, "img_size")
"""The fields of an arm's config that are columns."""

_FIRST = (
    *("measurement", "data", "head", "variant", "base", "attention", "pool_size", "device", "device_name", "torch"),
    *("mode", "precision", "batch_size", "reference", "channels_last", "checkpointing", "compiled"),
    *("train_images", "epochs"),
)
_LAST = ("pixels", "resolution", "arm", "model", "seed", "key")
_CONDITIONS = list(dict.fromkeys(field.name for kind in MEASUREMENTS.values() for field in fields(kind)))
_SORTED_BY = (*_FIRST, *(name for name in _CONDITIONS if name not in (*_FIRST, *_LAST)), *_LAST)
_ORDERS: dict[str, list[Any]] = {
    "variant": list(VARIANTS),
    "base": list(BASES),
    "attention": list(get_args(AttentionKernel)),
    "head": list(HEADS),
    "checkpointing": ["none"],
    "channels_last": [True, False],
}


def describe_columns() -> pd.DataFrame:
    """Returns what `load_records` gives: a row for each column, with its `meaning`, `unit` and `kind`.

    Shares, ratios and probabilities have no unit. Columns of kind object hold lists or tables of one record.
    """
    rows = [{name: getattr(column, name) for name in ("meaning", "unit", "kind")} for column in list_columns().values()]
    return pd.DataFrame(rows, index=pd.Index(list_columns(), name="column"))


@cache
def list_columns() -> dict[str, Column]:
    """Returns the columns in their order: names, fields of the config, conditions, results, run."""
    columns = dict(_NAMES)
    owners = [(PVTConfig, CONFIG_COLUMNS), *((kind, None) for kind in MEASUREMENTS.values())]
    for owner, chosen in owners:
        meanings = field_docstrings(owner)
        for field in fields(owner):
            if chosen is None or field.name in chosen:
                kind = _FIELD_KINDS.get(re.split(r"[ \[]", _type_name(field.type))[0], "text")
                columns.setdefault(
                    field.name, Column(meanings.get(field.name, ""), field.metadata.get("unit", ""), kind)
                )
    columns |= _SIZES
    for measurement in MEASUREMENTS.values():
        for name, column in measurement.columns.items():
            columns.setdefault(name, column)
    return columns | RUN


_FIELD_KINDS: dict[str, Kind] = {"int": "integer", "float": "number", "bool": "boolean", "tuple": "object"}


def _type_name(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def load_records(
    results: Path | str, measurement: str | Iterable[str] | None = None, **filters: object
) -> pd.DataFrame:
    """Returns the finished records as a tidy DataFrame, one row a record, sorted by names and conditions.

    `describe_columns` says what each column means, in which unit. Only columns that the chosen records have are there;
    no records make an empty DataFrame with the names' columns. Whole numbers are int64, Int64 where some rows have
    none; truths are bool or boolean alike; names are plain text, not categories, and rows stand in the names' order.

    A filter is a column's name with a value or several: `load_records(path, "accuracy", arm=["v1", "v1+ope"], seed=0)`.
    Sizes may be given as numbers, and None stands for rows without a value, as models that are no arm have no `arm`.
    Raises InputError for a column that there is not, and for a value that none of the measurement's records has, which
    is more often misspelt than missing; values that exist and never occur together make an empty DataFrame.
    """
    return tabulate(read_records(Path(results)).records, measurement, **filters)


def tabulate(
    records: Iterable[dict[str, Any]], measurement: str | Iterable[str] | None = None, **filters: object
) -> pd.DataFrame:
    """Returns finished records as `load_records` does, which reads them."""
    wanted = {name: _values_of_filter(name, value) for name, value in filters.items()}
    measurements = [*MEASUREMENTS] if measurement is None else _as_list(measurement)
    for each in measurements:
        pick("measurement", each, MEASUREMENTS)
    chosen = [each for each in records if each["status"] == "done" and each["measurement"] in measurements]
    with _no_collection():
        rows = [_row(record) for record in _newest_of_files(chosen)]
    for name, values in wanted.items():
        _check_filter(name, values, rows)
    rows = [row for row in rows if all(row.get(name) in values for name, values in wanted.items())]
    if not rows:
        return pd.DataFrame(columns=[*_NAMES])
    # Column by column: pandas takes five times as long for a table of many rows.
    with _no_collection():
        columns = _columns_of(rows)
        table = pd.DataFrame({name: _as_kind(pd.Series(each, name=name), each) for name, each in columns.items()})
    order = [name for name in _SORTED_BY if name in table and len(set(columns[name])) > 1]  # the others take long too
    return table.sort_values(order, key=_rank, ignore_index=True) if order else table


def _columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Returns the values of each column, nan where a row has none; rows that have the same columns stand together."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(row)
    columns: dict[str, list[Any]] = {name: [] for names in groups for name in names}
    for names, group in groups.items():
        for name, values in zip(names, zip(*(row.values() for row in group), strict=True), strict=True):
            columns[name] += values
        for name in columns.keys() - {*names}:
            columns[name] += [math.nan] * len(group)
    return columns


def _as_list(value: object) -> list[Any]:
    """Returns several values as a list; a text is one."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _values_of_filter(name: str, value: object) -> list[Any]:
    """Returns the values that a filter lets through; raises InputError for a column that cannot be filtered by."""
    kinds = {known: column.kind for known, column in list_columns().items() if column.kind != "object"}
    pick("column", name, kinds)
    values = [None if pd.api.types.is_scalar(each) and pd.isna(each) else each for each in _as_list(value)]
    return [str(each) if kinds[name] == "text" and each is not None else each for each in values]


def _check_filter(name: str, values: list[Any], rows: list[dict[str, Any]]) -> None:
    """Raises InputError for a value that no row has, if there are rows."""
    known = list(dict.fromkeys(row.get(name) for row in rows))
    for value in values:
        if known and value not in known:
            some = f": {', '.join(sorted(map(str, known)))}" if len(known) <= FEW else ""
            raise refuse(name, value, f"a value that some of these records have{some}")


def _as_kind(column: pd.Series, values: list[Any]) -> pd.Series:
    """Returns a column in the type of its kind; one that is not described, in that of its values."""
    described = list_columns().get(str(column.name))
    if described and str not in set(map(type, values)):
        kind: Kind | None = described.kind
    else:
        found = {type(value) for value in values if value is not None and value is not math.nan}
        kind = "integer" if found == {int} else "boolean" if found == {bool} else None
    has_gaps = bool(column.isna().any())
    match kind:
        case "integer":
            return column.astype("Int64" if has_gaps else "int64")
        case "boolean":
            return column.astype("boolean" if has_gaps else "bool")
        case "number":
            return column.astype("float64")
    return column


def _newest_of_files(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out records of what a user's file held before it was changed.

    An arm whose toggle's file has changed keeps its records, under the toggle's name and the digest's beginning.
    """
    newest: dict[str, Any] = {}
    for record in sorted(records, key=lambda record: record["started"]):
        newest |= {record["model"]: record["file_sha256"]} if "file_sha256" in record else {}
        newest |= {name: entry["sha256"] for name, entry in record.get("toggle_files", {}).items()}
    newest |= {name: dict(toggle.digests) for name, toggle in TOGGLES.items() if toggle.path}
    return [
        record if "toggle_files" not in record else _with_earlier_files(record, newest)
        for record in records
        if record.get("file_sha256") == newest.get(record.get("model", ""))
    ]


def _with_earlier_files(record: dict[str, Any], newest: dict[str, Any]) -> dict[str, Any]:
    """Returns a record whose toggles of files that have changed since are named with the digests of those."""
    arm = record["arm"]
    for name, entry in record["toggle_files"].items():
        if entry["sha256"] != newest[name]:
            earlier = f"{name}@{value_digest(entry['sha256'])[:6]}"
            register_recorded({earlier: entry | {"excludes": [*entry["excludes"], name]}})
            arm = "+".join(earlier if part == name else part for part in arm.split("+"))
    known = [part for part in TOGGLES if part in arm.split("+")]
    return record | {"arm": arm_name(known)}


def _rank(column: pd.Series) -> pd.Series:
    """Puts variants, bases and arms in their own order, and names that are no longer known behind them."""
    if column.name == "arm":
        return column.map(_arm_rank, na_action="ignore")
    order = _ORDERS.get(str(column.name))
    return column.map({name: rank for rank, name in enumerate(order)}) if order else column


def _arm_rank(arm: str) -> str:
    """Sorts arms as `arms_of` lists them: fewest toggles first, then by the toggles' order."""
    order = list(TOGGLES)
    places = [order.index(name) if name in order else len(order) for name in arm.split("+")[1:]]
    return "".join(f"{place:03}" for place in (len(places), *places))


@cache
def _defaults(kind: Any) -> dict[str, Any]:
    return {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in fields(kind)
        if field.default is not MISSING
    }


def conditions_of(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record's conditions; an older one lacks fields that came later: their defaults are what it had."""
    kind: Any = MEASUREMENTS[record["measurement"]]
    return _defaults(kind) | record["conditions"]


def record_values(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a finished record's values by column, as `load_records` has them."""
    return _row(record | {"result": record["result"] or {}})


def _row(record: dict[str, Any]) -> dict[str, Any]:
    conditions = conditions_of(record)
    environment = record["environment"]
    resolution = conditions.pop("resolution")
    conditions |= {name: tuple(value) for name, value in conditions.items() if isinstance(value, list)}
    if conditions.get("method") == "predicted":
        environment = environment | {"device_name": None, "threads": None}  # which machine predicts makes no difference
    return {
        "measurement": record["measurement"],
        **_model_columns(record),
        "resolution": size_text(resolution),
        "pixels": prod(as_pair(resolution)),
        **conditions,
        **record["result"],
        **{name: environment.get(name) for name in ("device_name", "torch", "threads", "commit")},
        **(_of_training(record) if MEASUREMENTS[record["measurement"]].trains else {}),
        **{name: record[name] for name in ("study", "key", "duration_s")},
    }


def _of_training(record: dict[str, Any]) -> dict[str, Any]:
    declared = record["declared_seeds"] if "declared_seeds" in record else _declared_seeds(record["study"])
    return {"processes": record["environment"].get("processes", 1), "declared_seeds": declared}


@cache
def _declared_seeds(study: str) -> int | None:
    """Returns how many seeds a study of the package declares, for records that do not say it; None for another."""
    return find_study(study).seeds() if study in list_studies() else None


def _model_columns(record: dict[str, Any]) -> dict[str, Any]:
    if "model" in record:
        return {"model": record["model"], "variant": None, "arm": None, "base": None}
    config = _defaults(PVTConfig) | record["config"]
    config["img_size"] = config["img_size"] if is_int(config["img_size"]) else size_text(config["img_size"])
    names = {name: record[name] for name in ("variant", "arm", "base")}
    return {"model": "pvt:" + "/".join(names.values()), **names, **{name: config[name] for name in CONFIG_COLUMNS}}
