"""What must be equal for records to stand in one table or plot, and how that is said."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from ablations.design import CONDITIONS_OF
from ablations.errors import InputError

AXES = {
    "cost": ("resolution", "arm"),
    "memory": ("resolution", "arm"),
    "speed": ("arm",),
    "accuracy": ("arm", "seed"),
    "evaluation": ("resolution", "arm", "checkpoint"),
}
"""What the records of one group differ in; two that differ in nothing of it are never taken together."""

_MODEL = ("variant", "frame", "attention", "pool_size", "num_classes")
_FOUND = {
    "memory": ("memory_method",),
    "speed": ("threads",),
    "accuracy": ("n_train_images", "n_eval_images"),
    "evaluation": ("n_images", "classes"),
}
_MACHINE = ("device_name", "torch")

CONDITIONS = {
    measurement: tuple(
        name
        for name in dict.fromkeys(
            [
                *_MODEL,
                *(field.name for field in fields(kind)),
                *_FOUND.get(measurement, ()),
                *(_MACHINE if measurement != "cost" else ()),  # a count is the same on every machine
            ]
        )
        if name not in AXES[measurement]
    )
    for measurement, kind in CONDITIONS_OF.items()
}
"""For each measurement, the columns that are equal within a group: model, conditions, machine."""

_PHRASES = {
    **dict.fromkeys(("variant", "data", "mode", "precision", "device", "memory_method", "device_name"), "{}"),
    "head": "{}",
    "method": "{}",
    "frame": "frame {}",
    "attention": "{} attention",
    "pool_size": "P = {}",
    "num_classes": "{} classes",
    "resolution": "{} px",
    "sizes": "{} px",
    "stage": "stage {}",
    "batch_size": "batch {}",
    "repeats": "{} repeats",
    "epochs": "{} epochs",
    "n_train_images": "{} training pictures",
    "n_eval_images": "{} held-out pictures",
    "n_images": "{} pictures",
    "classes": "{}",
    "protocol": "protocol {}",
    "img_size": "position embeddings made for {} px",
    "skip_unreadable": "pictures that cannot be read left out",
    "base_lr": "learning rate {}",
    "weight_decay": "weight decay {}",
    "warmup_epochs": "{} warm-up epochs",
    "label_smoothing": "label smoothing {}",
    "drop_path_rate": "drop path {}",
    "threads": "{} threads",
    "torch": "torch {}",
    "way": "{}",
    "channels_last": "channel by channel",  # said where it is not so
    "checkpointing": "stages {} checkpointed",
    "reference": "beside {}",
    "compiled": "compiled",
    "measured_as": "cost: {}",
    "shown": "{}",
}
_UNSAID = {"train_images", "last_sizes"}  # n_train_images says how many there were
_USUAL = {
    "num_classes": 0,
    "reference": "v1",
    "compiled": False,
    "skip_unreadable": False,
    "channels_last": True,
    "checkpointing": "none",
}
"""What goes without saying."""


@dataclass(frozen=True)
class Group:
    """Records under the same conditions, one for each place on the measurement's axes."""

    conditions: dict[str, Any]
    rows: pd.DataFrame


def group_by(frame: pd.DataFrame, names: Iterable[str]) -> list[Group]:
    """Returns the rows in groups of equal values in those of the columns `names` that there are, in their order."""
    present = [name for name in names if name in frame]
    if not present:
        return []
    parts = frame.groupby(present, sort=False, dropna=False)
    return [Group(dict(zip(present, values, strict=True)), rows) for values, rows in parts]


def split_by_conditions(records: pd.DataFrame, measurement: str) -> list[Group]:
    """Returns the records of arms in groups of equal conditions, in their order.

    Raises InputError if two records of a group stand in the same place, as when a variant's sizes were changed.
    """
    of_arms = (records["measurement"] == measurement) & records["arm"].notna()
    chosen = records[of_arms].dropna(axis="columns", how="all")
    groups = group_by(chosen, CONDITIONS[measurement])
    place = list(AXES[measurement])
    for group in groups:
        for _, same in group.rows[group.rows.duplicated(place, keep=False)].groupby(place):
            keys = " and ".join(same["key"])
            raise InputError(f"records {keys} are of different models under one name; remove what is out of date")
    return groups


def varying(conditions: Iterable[dict[str, Any]]) -> list[str]:
    """Returns the names of the conditions that are not the same in all."""
    table = pd.DataFrame(list(conditions))
    return [str(name) for name in table if len(table[name].drop_duplicates()) > 1]


def describe(conditions: dict[str, Any], names: Sequence[str] | None = None) -> str:
    """Returns the conditions, or those of `names`, as one line for people."""
    words = []
    for name in conditions if names is None else names:
        value = conditions.get(name)
        if name in _UNSAID or pd.isna(value) or value == _USUAL.get(name):
            continue
        text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else f"{value:,}"
        words.append(_PHRASES.get(name, f"{name.replace('_', ' ')} {{}}").format(text))
    return ", ".join(words)
