"""The table of records: one row a record, a described column for each name, condition and result."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.errors import FEW, pick, refuse
from ablations.measure import MEASUREMENTS
from ablations.measure.measurement import Kind
from ablations.records.columns import NAMES, SORTED_BY, list_columns, rank
from ablations.records.folder import no_collection, read_records
from ablations.records.rows import of_newest_files, record_values


def load_records(
    results: Path | str, measurement: str | Iterable[str] | None = None, **filters: object
) -> pd.DataFrame:
    """Returns the finished records as a tidy DataFrame, one row a record, sorted by names and conditions.

    `describe_columns` says what each column means, in which unit. Only columns that the chosen records have are there;
    no records make an empty DataFrame with the names' columns. Whole numbers are int64, Int64 where some rows have
    none; booleans are bool or boolean alike; names are plain text, not categories, and rows stand in the names' order.

    A filter is a column's name with a value or several: `load_records(path, "accuracy", arm=["v1", "v1+ope"], seed=0)`.
    Sizes may be given as numbers, and None stands for rows without a value, as models that are no arm have no `arm`.
    Raises InputError for a column that there is not, and for a value that none of the measurement's records has, which
    is more often misspelt than missing; values that exist and never occur together make an empty DataFrame.
    """
    return tabulate(read_records(Path(results)).records, measurement, **filters)


@no_collection()
def tabulate(
    records: Iterable[dict[str, Any]], measurement: str | Iterable[str] | None = None, **filters: object
) -> pd.DataFrame:
    """Returns finished records as `load_records` does, which reads them."""
    wanted = {name: _values_of_filter(name, value) for name, value in filters.items()}
    measurements = [*MEASUREMENTS] if measurement is None else _as_list(measurement)
    for each in measurements:
        pick("measurement", each, MEASUREMENTS)
    chosen = [each for each in records if each["status"] == "done" and each["measurement"] in measurements]
    rows = [record_values(record) for record in of_newest_files(chosen)]
    for name, values in wanted.items():
        _check_filter(name, values, rows)
    rows = [row for row in rows if all(row.get(name) in values for name, values in wanted.items())]
    if not rows:
        return pd.DataFrame(columns=[*NAMES])
    # Column by column: pandas takes five times as long for a table of many rows.
    columns = _columns_of(rows)
    table = pd.DataFrame({name: _as_kind(name, values) for name, values in columns.items()})
    order = [name for name in SORTED_BY if name in table and len(set(columns[name])) > 1]  # the others take long too
    return table.sort_values(order, key=rank, ignore_index=True) if order else table


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


def _as_kind(name: str, values: list[Any]) -> pd.Series:
    """Returns a column in the type of its kind; one that is not described, in that of its values."""
    column = pd.Series(values, name=name)
    described = list_columns().get(name)
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
