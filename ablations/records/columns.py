"""The columns of the table of records: meaning, unit and kind of each, and how rows are sorted by them."""

import re
from dataclasses import fields
from functools import cache
from typing import Any, get_args

import pandas as pd

from ablations.conditions import field_docstrings
from ablations.config import BASES, CONFOUNDERS, TOGGLES, VARIANTS, AttentionKernel, PVTConfig
from ablations.measure import MEASUREMENTS
from ablations.measure.cost import HEADS
from ablations.measure.measurement import Column, Kind, integer
from ablations.schema import RUN

NAMES = {
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


def describe_columns() -> pd.DataFrame:
    """Returns what `load_records` gives: a row for each column, with its `meaning`, `unit` and `kind`.

    Shares, ratios and probabilities have no unit. Columns of kind object hold lists or tables of one record.
    """
    rows = [{name: getattr(column, name) for name in ("meaning", "unit", "kind")} for column in list_columns().values()]
    return pd.DataFrame(rows, index=pd.Index(list_columns(), name="column"))


@cache
def list_columns() -> dict[str, Column]:
    """Returns the columns in their order: names, fields of the config, conditions, results, run."""
    columns = dict(NAMES)
    owners: list[type] = [PVTConfig, *MEASUREMENTS.values()]
    for owner in owners:
        meanings = field_docstrings(owner)
        for field in fields(owner):
            if owner is not PVTConfig or field.name in CONFIG_COLUMNS:
                unit = field.metadata.get("unit", "")
                columns.setdefault(field.name, Column(meanings.get(field.name, ""), unit, _kind_of(field.type)))
    columns |= _SIZES
    for measurement in MEASUREMENTS.values():
        for name, column in measurement.columns.items():
            columns.setdefault(name, column)
    return columns | RUN


_FIELD_KINDS: dict[str, Kind] = {"int": "integer", "float": "number", "bool": "boolean", "tuple": "object"}


def _kind_of(annotation: Any) -> Kind:
    """Returns the kind of a field's values by its type, which may be given as text."""
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return _FIELD_KINDS.get(re.split(r"[ \[]", name)[0], "text")


# The order of rows ---------------------------------------------------------------------------------------------------

_FIRST = tuple(
    """
    measurement data head variant base attention pool_size device device_name torch
    mode precision batch_size reference channels_last checkpointing compiled
    train_images epochs
    """.split()
)
_LAST = ("pixels", "resolution", "arm", "model", "seed", "key")
_CONDITIONS = dict.fromkeys(field.name for kind in MEASUREMENTS.values() for field in fields(kind))

SORTED_BY = (*_FIRST, *(name for name in _CONDITIONS if name not in (*_FIRST, *_LAST)), *_LAST)
"""The columns that rows are sorted by, the first one first."""

_ORDERS: dict[str, list[Any]] = {
    "variant": list(VARIANTS),
    "base": list(BASES),
    "attention": list(get_args(AttentionKernel)),
    "head": list(HEADS),
    "checkpointing": ["none"],
    "channels_last": [True, False],
}


def rank(column: pd.Series) -> pd.Series:
    """Returns the values that a column is sorted by.

    Variants, bases and arms stand in their own order, and names that are no longer known behind them.
    """
    if column.name == "arm":
        return column.map(_arm_rank, na_action="ignore")
    order = _ORDERS.get(str(column.name))
    return column.map({name: place for place, name in enumerate(order)}) if order else column


def _arm_rank(arm: str) -> str:
    """Sorts arms as `arms_of` lists them: fewest toggles first, then by the toggles' order."""
    order = list(TOGGLES)
    places = [order.index(name) if name in order else len(order) for name in arm.split("+")[1:]]
    return "".join(f"{place:03}" for place in (len(places), *places))
