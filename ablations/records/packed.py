"""Packed records: `records/MEASUREMENT.jsonl`, first the environments, then a record a line, by key."""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablations.files import opened_regular, value_digest
from ablations.measure import MEASUREMENTS
from ablations.records.record_file import LARGEST_RECORD, RECORDS, parse_json
from ablations.schema import SCHEMA, check_record

LARGEST_PACK = 2**32
"""Bytes of a file."""

LINE_DIGEST = "line"
"""What a packed line begins with: the SHA-256 of its other bytes, which takes less time to check than a record's."""

_PREFIX = len(f'{{"{LINE_DIGEST}": "{"0" * 64}", ')


def packed_path(results: Path, measurement: str) -> Path:
    """Returns where the packed records of a measurement are below the results folder."""
    return results / RECORDS / f"{measurement}.jsonl"


def read_packed(path: Path) -> tuple[dict[str, dict[str, Any]], dict[Path, str]]:
    """Returns the packed records of a file by key, and what is wrong with it or its lines, by place.

    There are none where there is no such file; it is read anew when it has changed.
    """
    try:
        state = path.stat()
        return _parse_packed(path, state.st_ino, state.st_mtime_ns, state.st_ctime_ns, state.st_size)
    except FileNotFoundError:
        return {}, {}
    except OSError as error:
        return {}, {path: f"cannot be read: {error.strerror}"}
    except ValueError as error:
        return {}, {path: str(error)}


@lru_cache(maxsize=2 * len(MEASUREMENTS))
def _parse_packed(path: Path, *state: int) -> tuple[dict[str, dict[str, Any]], dict[Path, str]]:
    records: dict[str, dict[str, Any]] = {}
    damaged: dict[Path, str] = {}
    with opened_regular(path, LARGEST_PACK) as file:
        header = parse_json(file.readline(LARGEST_RECORD))
        environments = header.get("environments") if isinstance(header, dict) else None
        if not isinstance(environments, dict) or header.get("schema") != SCHEMA:
            raise ValueError(f"its first line has no environments of schema {SCHEMA}")
        changed = {name for name, each in environments.items() if name != _environment_name(each)}
        for place, line in enumerate(iter(lambda: file.readline(LARGEST_RECORD), b""), start=2):
            try:
                record = parse_json(line)
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


def packed_text(records: Iterable[dict[str, Any]]) -> str:
    """Returns what the packed file of a measurement's records says."""
    by_key = sorted(records, key=lambda record: record["key"])
    environments = {_environment_name(each["environment"]): each["environment"] for each in by_key}
    header = json.dumps({"schema": SCHEMA, "environments": environments}, sort_keys=True)
    return "\n".join([header, *map(_packed_line, by_key)]) + "\n"


def _packed_line(record: dict[str, Any]) -> str:
    said = json.dumps(record | {"environment": _environment_name(record["environment"])})
    return f'{{"{LINE_DIGEST}": "{hashlib.sha256(said.encode()).hexdigest()}", {said[1:]}'


def _line_digest(line: bytes) -> str:
    return hashlib.sha256(b"{" + line[_PREFIX:].rstrip(b"\n")).hexdigest()


def _environment_name(environment: dict[str, Any]) -> str:
    return value_digest(environment)[:12]
