"""What must be equal for records to stand in one table or plot, and how that is said."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import pandas as pd

from ablations.config import CONFOUNDERS, PAPER_TOGGLES, PVT_V1, VARIANTS, arms_of, base_confounders, build_config
from ablations.errors import InputError
from ablations.measure import MEASUREMENTS, Cost, Measurement

REFERENCE = PVT_V1
"""The arm that the others are compared with."""

AXES = {name: kind.axes for name, kind in MEASUREMENTS.items()}
"""What the records of one group differ in; two that differ in nothing of it are never taken together."""

CHANGEABLE = ("stem_stride", *CONFOUNDERS, "img_size")
"""The fields of a model that the column `changed` names where they are unlike its variant's and base's."""

_SET_IMG_SIZE = [name for name, kind in MEASUREMENTS.items() if "img_size" in kind().config_fields]  # type: ignore[call-arg]
"""The measurements whose conditions decide it, so that it is no change of the model."""

_OF_ARMS = ("variant", "base", "changed", "attention", "pool_size")
MODEL_CONDITIONS = (*_OF_ARMS, "num_classes")
"""What makes a model, beside the arm."""


def _machine(kind: type[Measurement]) -> tuple[str, ...]:
    """Returns what keeps records apart, or is said, of the machine: nothing of counts, which are the same everywhere.

    Seeds and weights decide an accuracy, so records of all machines stand together, and `machines` names these.
    """
    if kind().is_computed:  # type: ignore[call-arg]
        return ()
    return ("machines",) if kind.pools_machines else ("device_name", "torch", "threads")


CONDITIONS = {
    measurement: tuple(
        name
        for name in dict.fromkeys(
            [
                *MODEL_CONDITIONS,
                *(field.name for field in fields(kind)),
                *kind.split_by,
                *_machine(kind),
            ]
        )
        if name not in kind.axes
    )
    for measurement, kind in MEASUREMENTS.items()
}
"""For each measurement, the columns that are equal within a group: the model, the fields of its conditions, and what
it found out."""

_PHRASES = {
    **dict.fromkeys(("variant", "data", "mode", "precision", "device", "memory_method", "device_name"), "{}"),
    "head": "{}",
    "method": "{}",
    "base": "base {}",
    "changed": "{}",
    "trained_at": "trained at {} px",
    "toggles": "toggles {}",
    "against": "against {}",
    "attention": "{} attention",
    "pool_size": "P = {}",
    "num_classes": "{} classes",
    "resolution": "{} px",
    "sizes": "{} px",
    "stage": "stage {}",
    "batch_size": "batch {}",
    "repeats": "{} repeats",
    "epochs": "{} epochs",
    "n_train_images": "{} training images",
    "n_eval_images": "{} validation images",
    "n_images": "{} images",
    "classes": "{}",
    "protocol": "protocol {}",
    "img_size": "position embeddings made for {} px",
    "skip_unreadable": "images that cannot be read left out",
    "base_lr": "learning rate {}",
    "weight_decay": "weight decay {}",
    "warmup_epochs": "{} warm-up epochs",
    "label_smoothing": "label smoothing {}",
    "drop_path_rate": "drop path {}",
    "threads": "{} threads",
    "machines": "{}",
    "initial_weights": "initial weights {}",
    "eval_resolutions": "tested at {} px too",
    "tuning_images": "validated on {} training images",
    "torch": "torch {}",
    "way": "{}",
    "channels_last": "channels-first",  # said where it is not so
    "checkpointing": "stages {} checkpointed",
    "reference": "beside {}",
    "compiled": "compiled",
    "measured_as": "cost: {}",
    "shown": "{}",
    "stem_stride": "stem stride {}",
    "recipe": "trained with {}",
    "counted_at": "counted at {}",
    "large_at": "and at {}",
    "memory_at": "memory at {}",
    "speed_at": "speed at {}",
}
_UNSAID = {"train_images", "last_sizes", "missing"}  # n_train_images says how many there were
_USUAL = {
    "num_classes": 0,
    "reference": "v1",
    "compiled": False,
    "skip_unreadable": False,
    "channels_last": True,
    "checkpointing": "none",
    "initial_weights": "by_name",
    "tuning_images": 0,
}
"""What goes without saying, as does a field of conditions without a phrase that is its default."""

_DEFAULTS = {
    field.name: field.default
    for kind in MEASUREMENTS.values()
    for field in fields(kind)
    if field.name not in _PHRASES and field.name not in _UNSAID
}


@dataclass(frozen=True)
class Group:
    """Records under the same conditions, one for each place on the measurement's axes."""

    conditions: dict[str, Any]
    rows: pd.DataFrame


def group_by(table: pd.DataFrame, names: Iterable[str]) -> list[Group]:
    """Returns the rows in groups of equal values in those of the columns `names` that there are, in their order."""
    present = [name for name in names if name in table]
    if not present:
        return []
    parts = table.groupby(present, sort=False, dropna=False)
    return [Group(dict(zip(present, values, strict=True)), rows) for values, rows in parts]


def name_changes(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the records with a column `changed`: the fields of CHANGEABLE that are unlike what the model's names say,
    as `stage_norm=every`, or None."""
    columns = records.reindex(columns=["variant", "base", "arm", "head", *CHANGEABLE]).astype(object)
    columns.loc[records["measurement"].isin(_SET_IMG_SIZE), "img_size"] = None
    rows = columns.where(columns.notna(), None).itertuples(index=False, name=None)
    return records.assign(changed=pd.Series([_changes(*row) for row in rows], index=records.index, dtype=object))


@cache
def _changes(variant: str | None, base: str | None, arm: str | None, head: Any, *values: Any) -> str | None:
    """Returns which of CHANGEABLE, whose values follow the names, are unlike what a model's names say."""
    usual = {} if arm is None or base is None else base_confounders(base, arm)
    if arm is not None and variant in VARIANTS:
        usual |= {name: getattr(build_config(variant), name) for name in ("stem_stride", "img_size")}
    if head is not None:
        usual |= {name: value for name, value in Cost(head=head).config_fields.items() if name in usual}
    given = {name: value for name, value in zip(CHANGEABLE, values, strict=True) if value is not None}
    changed = [name for name in given if name in usual and given[name] != usual[name]]
    return ", ".join(f"{name}={given[name]}" for name in changed) or None


def split_by_conditions(records: pd.DataFrame, measurement: str) -> list[Group]:
    """Returns the records of arms in groups of equal conditions, in their order.

    Raises InputError if two records of a group stand in the same place, as when a variant's sizes were changed.
    """
    of_arms = (records["measurement"] == measurement) & records["arm"].notna()
    chosen = name_changes(records[of_arms]).dropna(axis="columns", how="all")
    groups = [_name_machines(group, measurement) for group in group_by(chosen, CONDITIONS[measurement])]
    # In the order of the paper's arms among them, so that records of later toggles move no group.
    arms = records.loc[of_arms, "arm"]
    first = {label: number for number, label in enumerate(arms.index[arms.isin(arms_of(PAPER_TOGGLES))])}
    groups.sort(key=lambda group: min((first.get(label, len(first)) for label in group.rows.index), default=0))
    place = list(AXES[measurement])
    for group in groups:
        for _, same in group.rows[group.rows.duplicated(place, keep=False)].groupby(place):
            keys = " and ".join(same["key"])
            raise InputError(f"records {keys} are of different models under one name; remove what is out of date")
    return groups


def _name_machines(group: Group, measurement: str) -> Group:
    """Returns the group; where the measurement pools machines, its conditions name those."""
    if "machines" not in CONDITIONS[measurement]:
        return group
    named = {"device_name": "{}", "torch": "torch {}", "threads": "{} threads", "processes": "{} processes"}
    words = []
    for name, phrase in named.items():
        values = sorted(group.rows[name].dropna().unique()) if name in group.rows else []
        if values:
            plural = phrase.removesuffix("es" if name == "processes" else "s") if values == [1] else phrase
            words.append(plural.format(" or ".join(map(str, values))))
    return Group(group.conditions | {"machines": ", ".join(words)}, group.rows)


def split_with_models(records: pd.DataFrame, measurement: str) -> list[Group]:
    """Returns the same groups, each with the models that are no arms and were measured under its other conditions.

    Those without arms beside them make groups of their own.
    """
    arms = split_by_conditions(records, measurement)
    models = records[(records["measurement"] == measurement) & records["arm"].isna()]
    names = [name for name in CONDITIONS[measurement] if name not in (*_OF_ARMS, "initial_weights", "machines")]
    beside = {
        _key(group.conditions, names): group for group in group_by(models.dropna(axis="columns", how="all"), names)
    }
    groups = []
    for group in arms:
        # Models stand beside arms as their base has them.
        own = beside.get(_key(group.conditions, names)) if pd.isna(group.conditions.get("changed")) else None
        labels = [*group.rows.index, *(own.rows.index if own else ())]
        groups.append(_name_machines(Group(group.conditions, records.loc[labels]), measurement))
    with_arms = {_key(group.conditions, names) for group in arms if pd.isna(group.conditions.get("changed"))}
    alone = [group for key, group in beside.items() if key not in with_arms]
    own_rows = (Group(group.conditions, records.loc[group.rows.index]) for group in alone)
    return [*groups, *(_name_machines(group, measurement) for group in own_rows)]


def _key(conditions: dict[str, Any], names: Iterable[str]) -> tuple[Any, ...]:
    """Returns the values of conditions; what nobody recorded is equal to itself."""
    values = [conditions.get(name) for name in names]
    return tuple(None if pd.isna(value) else value for value in values)


def refuse_mixed(rows: pd.DataFrame, names: Iterable[str]) -> None:
    """Raises InputError, naming the condition, if rows differ in one of the columns `names` that there are.

    For what takes the rows of one group: they are then no one thing, to be averaged or joined by a line.
    """
    for name in names:
        if name in rows and len(values := rows[name].drop_duplicates()) > 1:
            mixed = ", ".join(sorted(map(str, values)))
            raise InputError(f"{name} is mixed, {mixed}; allowed: rows of one, as split_by_conditions gives them")


def varying(conditions: Iterable[dict[str, Any]]) -> list[str]:
    """Returns the names of the conditions that are not the same in all."""
    table = pd.DataFrame(list(conditions))
    return [str(name) for name in table if len(table[name].drop_duplicates()) > 1]


def describe(conditions: dict[str, Any], names: Iterable[str] | None = None) -> str:
    """Returns the conditions, or those of `names`, as one line for people, less what goes without saying."""
    chosen = conditions if names is None else names
    return _said(conditions, [name for name in chosen if not _is_default(name, conditions.get(name))])


def tell_apart(conditions: dict[str, Any], names: Iterable[str]) -> str:
    """Returns those of `names`, in which conditions differ: a default is said too, unless its being so is usual."""
    return _said(conditions, [name for name in names if name != "machines"])


def list_changed(conditions: dict[str, Any]) -> list[str]:
    """Returns the names of those that have no phrase and are not what goes without saying."""
    return [name for name, value in conditions.items() if name in _DEFAULTS and not _is_default(name, value)]


def _is_default(name: str, value: object) -> bool:
    return name in _DEFAULTS and value == _DEFAULTS[name]


def _said(conditions: dict[str, Any], names: Iterable[str]) -> str:
    words = []
    for name in names:
        value = conditions.get(name)
        if isinstance(value, tuple):
            value = ", ".join(map(str, value)) or None
        if name in _UNSAID or pd.isna(value) or value == _USUAL.get(name):
            continue
        plain = name.replace("_", " ")
        if name in _PHRASES:
            phrase = _PHRASES[name]
        elif pd.api.types.is_bool(value):
            phrase = plain if value else f"no {plain}"
        else:
            phrase = f"{plain} {{}}" if value != "" else f"no {plain}"
        is_fraction = isinstance(value, float) and not value.is_integer()
        text = value if isinstance(value, str) else f"{value:g}" if is_fraction else f"{int(value):,}"
        if text == "1" and phrase.startswith("{} "):
            phrase = phrase.removesuffix("s")
        words.append(phrase.format(text))
    return ", ".join(words)


def compare_with_reference(rows: pd.DataFrame, metrics: list[str], others: list[str]) -> pd.DataFrame:
    """Returns columns by resolution and arm; each metric's change is against REFERENCE at the same resolution."""
    # Among the rows is no column without any value, as the MACs are where all are of Mask R-CNN.
    table = rows.reindex(columns=["resolution", "pixels", "arm", *metrics, *others]).reset_index(drop=True)
    for metric in metrics:
        reference = table[table["arm"] == REFERENCE].set_index("resolution")[metric]
        change = 100 * (table[metric] / table["resolution"].map(reference) - 1)
        table.insert(list(table).index(metric) + 1, f"{metric}_change_percent", change)
    return table


def join_rows(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Returns rows as a table, its columns in the order of the row that has most: one that lacks some changes none."""
    order = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    return pd.DataFrame(list(rows), columns=order or None)


def join_groups(tables: Iterable[tuple[Group, pd.DataFrame]]) -> pd.DataFrame:
    """Returns the tables below one another, each behind its group's conditions.

    Columns stand as in the table that has most of them, so that a group that lacks some changes no order.
    """
    parts = [
        pd.concat([pd.DataFrame([group.conditions] * len(table)), table.reset_index(drop=True)], axis="columns")
        for group, table in tables
    ]
    fullest_first = sorted(parts, key=lambda part: -len(part.columns))
    order = list(dict.fromkeys(name for part in fullest_first for name in part.columns))
    return pd.concat(parts, ignore_index=True)[order] if parts else pd.DataFrame()
