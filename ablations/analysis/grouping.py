"""What must be equal for records to stand in one table or plot, and how that is said."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import pandas as pd

from ablations.config import CONFOUNDERS, PAPER_TOGGLES, PVT_V1, VARIANTS, arms_of, base_confounders, build_config
from ablations.errors import InputError
from ablations.measure import MEASUREMENTS, Cost, Measurement

P = ParamSpec("P")
R = TypeVar("R", bound=pd.DataFrame | list)

_cached: dict[int, dict[Any, Any]] = {}
"""What the functions that are `cached_for_records` have returned, by the records that are not changed meanwhile."""


@contextmanager
def caching(records: pd.DataFrame) -> Iterator[None]:
    """Has every function that is `cached_for_records` compute once for these records, which nothing changes meanwhile.

    A table and a figure of one thing then share their values.
    """
    _cached[id(records)] = {}
    try:
        yield
    finally:
        del _cached[id(records)]


def cached_for_records(compute: Callable[P, R]) -> Callable[P, R]:
    """Makes a function of all records return what it did before, during `caching` of these."""

    @wraps(compute)
    def once(*args: P.args, **kwargs: P.kwargs) -> R:
        kept = _cached.get(id(args[0])) if args else None
        if kept is None:
            return compute(*args, **kwargs)
        call = (compute, args[1:], tuple(sorted(kwargs.items())))
        if call not in kept:
            kept[call] = compute(*args, **kwargs)
        return kept[call].copy()  # a column that a caller adds is its own

    return once


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


def without(names: Iterable[str], *others: str) -> tuple[str, ...]:
    """Returns the names that are none of the others."""
    return tuple(name for name in names if name not in others)


def _conditions(kind: type[Measurement]) -> tuple[str, ...]:
    """Returns what keeps a measurement's records apart. Of the machine it is nothing for counts, which are the same
    everywhere, and for accuracies, which seeds and weights decide: `machines` names theirs."""
    machine: tuple[str, ...] = ("machines",) if kind.pools_machines else ("device_name", "torch", "threads")
    if kind().is_computed:  # type: ignore[call-arg]
        machine = ()
    names = (*MODEL_CONDITIONS, *(field.name for field in fields(kind)), *kind.split_by, *machine)
    return without(dict.fromkeys(names), *kind.axes)


CONDITIONS = {name: _conditions(kind) for name, kind in MEASUREMENTS.items()}
"""For each measurement, the columns that are equal within a group: the model, the fields of its conditions, and what
it found out."""

_PHRASES = {
    **dict.fromkeys(("variant", "data", "mode", "precision", "device", "memory_method", "device_name"), "{}"),
    **dict.fromkeys(("head", "method", "changed", "classes", "machines", "way", "shown"), "{}"),
    **dict.fromkeys(("resolution", "sizes"), "{} px"),
    "base": "base {}",
    "trained_at": "trained at {} px",
    "toggles": "toggles {}",
    "against": "against {}",
    "attention": "{} attention",
    "pool_size": "P = {}",
    "num_classes": "{} classes",
    "stage": "stage {}",
    "batch_size": "batch {}",
    "repeats": "{} repeats",
    "epochs": "{} epochs",
    "n_train_images": "{} training images",
    "n_eval_images": "{} validation images",
    "n_images": "{} images",
    "protocol": "protocol {}",
    "img_size": "position embeddings made for {} px",
    "skip_unreadable": "images that cannot be read left out",
    "base_lr": "learning rate {}",
    "weight_decay": "weight decay {}",
    "warmup_epochs": "{} warm-up epochs",
    "label_smoothing": "label smoothing {}",
    "drop_path_rate": "drop path {}",
    "threads": "{} threads",
    "processes": "{} processes",
    "initial_weights": "initial weights {}",
    "eval_resolutions": "tested at {} px too",
    "tuning_images": "validated on {} training images",
    "torch": "torch {}",
    "channels_last": "channels-first",  # said where it is not so
    "checkpointing": "stages {} checkpointed",
    "reference": "beside {}",
    "compiled": "compiled",
    "measured_as": "cost: {}",
    "stem_stride": "stem stride {}",
    "recipe": "trained with {}",
    "counted_at": "counted at {}",
    "large_at": "and at {}",
    "memory_at": "memory at {}",
    "speed_at": "speed at {}",
    "large_speed_at": "and at {}",
    "ap_of": "AP: {}",
    "miou_of": "mIoU: {}",
    "init": "weights from {:.16}",
    "pyramid_width": "pyramid of {} channels",
    "smallest_anchor": "anchors from {} px",
    "short_side": "tested at {} px",
}
# n_train_images says how many there were, and the data set which labels its masks have.
_UNSAID = {"train_images", "last_sizes", "missing", "first_label", "void_label"}
_USUAL = {
    "num_classes": 0,
    "reference": "v1",
    "compiled": False,
    "skip_unreadable": False,
    "channels_last": True,
    "checkpointing": "none",
    "initial_weights": "by_name",
    "init": "",
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


def is_plain(group: Group) -> bool:
    """Whether the group's models are what their names say."""
    changed = group.conditions.get("changed")
    return bool(pd.isna(changed) or not changed)


def squares(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of square inputs; the resolution of another is text such as 800x1280."""
    return rows[rows["resolution"].str.isdecimal()]


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


@cached_for_records
def arm_rows(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns the records of arms, with the column `changed` where a model is not what its names say.

    Raises InputError if two records of equal conditions stand in the same place, as when a variant's sizes were
    changed.
    """
    of_arms = (records["measurement"] == measurement) & records["arm"].notna()
    rows = name_changes(records[of_arms]).dropna(axis="columns", how="all")
    place = [name for name in (*CONDITIONS[measurement], *AXES[measurement]) if name in rows]
    twice = rows[rows.duplicated(place, keep=False)]
    for _, same in twice.groupby(place, sort=False, dropna=False):
        keys = " and ".join(same["key"])
        raise InputError(f"records {keys} are of different models under one name; remove what is out of date")
    return rows


def split_by_conditions(records: pd.DataFrame, measurement: str) -> list[Group]:
    """Returns the rows of `arm_rows` in groups of equal conditions, in their order."""
    return [_name_machines(group, measurement) for group in group_arms(records, measurement, CONDITIONS[measurement])]


def group_arms(records: pd.DataFrame, measurement: str, names: Iterable[str]) -> list[Group]:
    """Returns the rows of `arm_rows` in groups of equal values in the columns `names`.

    The groups stand in the order of the paper's arms among them, so that records of later toggles move none.
    """
    rows = arm_rows(records, measurement)
    papers = rows.index[rows["arm"].isin(arms_of(PAPER_TOGGLES))] if len(rows) else rows.index
    first = {label: number for number, label in enumerate(papers)}
    groups = group_by(rows, names)
    return sorted(groups, key=lambda group: min(first.get(label, len(first)) for label in group.rows.index))


def _name_machines(group: Group, measurement: str) -> Group:
    """Returns the group; where the measurement pools machines, its conditions name those."""
    if "machines" not in CONDITIONS[measurement]:
        return group
    values = {
        name: sorted(group.rows[name].dropna().unique())
        for name in ("device_name", "torch", "threads", "processes")
        if name in group.rows
    }
    words = (_phrase(name, " or ".join(map(str, own))) for name, own in values.items() if own)
    return Group(group.conditions | {"machines": ", ".join(words)}, group.rows)


def split_with_models(records: pd.DataFrame, measurement: str) -> list[Group]:
    """Returns the same groups, each with the models that are no arms and were measured under its other conditions.

    Those without arms beside them make groups of their own. Models stand beside arms as their base has them.
    """
    names = without(CONDITIONS[measurement], *_OF_ARMS, "initial_weights", "machines")

    def place_of(group: Group) -> tuple[Any, ...]:
        values = [group.conditions.get(name) for name in names]
        return tuple(None if pd.isna(value) else value for value in values)  # what nobody recorded equals itself

    models = records[(records["measurement"] == measurement) & records["arm"].isna()]
    beside = {place_of(group): group for group in group_by(models.dropna(axis="columns", how="all"), names)}
    alone, groups = dict(beside), []
    for group in split_by_conditions(records, measurement):
        labels = list(group.rows.index)
        if is_plain(group) and (place := place_of(group)) in beside:
            labels.extend(beside[place].rows.index)
            alone.pop(place, None)
        groups.append(Group(group.conditions, records.loc[labels]))
    groups += [Group(group.conditions, records.loc[group.rows.index]) for group in alone.values()]
    return [_name_machines(group, measurement) for group in groups]


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
    return _said(conditions, without(names, "machines"))


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
        if name == "head" and value == "classifier" and "mode" in conditions:  # counts are often of several heads
            continue
        is_fraction = isinstance(value, float) and not value.is_integer()
        text = value if isinstance(value, str) else f"{value:g}" if is_fraction else f"{int(value):,}"
        plain = name.replace("_", " ")
        if name in _PHRASES:
            words.append(_phrase(name, text))
        elif pd.api.types.is_bool(value) or value == "":
            words.append(plain if value else f"no {plain}")
        else:
            words.append(f"{plain} {text}")
    return with_times(", ".join(words))


def with_times(text: str) -> str:
    """Returns text for people with the sign for times in sizes, 800×1280, but not in `img_size=64x96`."""
    return re.sub(r"(?<![=\d])(\d+)x(?=\d)", "\\1\N{MULTIPLICATION SIGN}", text)


def _phrase(name: str, text: str) -> str:
    """Returns a condition in words; of one thing in the singular."""
    phrase = _PHRASES[name]
    if text == "1" and phrase.startswith("{} "):
        phrase = phrase.removesuffix("es" if name == "processes" else "s")
    return phrase.format(text)


def compare_with_reference(
    records: pd.DataFrame, measurement: str, metrics: list[str], others: list[str]
) -> pd.DataFrame:
    """Returns columns by resolution and arm; each metric's change is against REFERENCE under equal conditions."""
    tables = []
    for group in split_by_conditions(records, measurement):
        # Among the rows is no column without any value, as the MACs are where all are of Mask R-CNN.
        table = group.rows.reindex(columns=["resolution", "pixels", "arm", *metrics, *others])
        for metric in metrics:
            reference = table[table["arm"] == REFERENCE].set_index("resolution")[metric]
            change = 100 * (table[metric] / table["resolution"].map(reference) - 1)
            table.insert(list(table).index(metric) + 1, f"{metric}_change_percent", change)
        tables.append((group, table))
    return join_groups(tables)


def join_rows(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Returns rows as a table, its columns in the order of the row that has most: one that lacks some changes none."""
    return pd.DataFrame(list(rows), columns=_fullest_first(rows) or None)


def tabulated(yield_rows: Callable[P, Iterator[dict[str, Any]]]) -> Callable[P, pd.DataFrame]:
    """Makes a function that yields rows return them as a table, as `join_rows` does."""

    @cached_for_records
    @wraps(yield_rows)
    def table(*args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
        return join_rows(list(yield_rows(*args, **kwargs)))

    return table


def join_groups(tables: Iterable[tuple[Group, pd.DataFrame]]) -> pd.DataFrame:
    """Returns the tables below one another, each behind its group's conditions, with columns as in `join_rows`."""
    parts = [
        pd.concat([pd.DataFrame([group.conditions] * len(table)), table.reset_index(drop=True)], axis="columns")
        for group, table in tables
    ]
    return pd.concat(parts, ignore_index=True)[_fullest_first(parts)] if parts else pd.DataFrame()


def _fullest_first(named: Iterable[Iterable[Any]]) -> list[Any]:
    """Returns all names, in the order of what has most of them."""
    return list(dict.fromkeys(name for names in sorted(named, key=lambda each: -len(list(each))) for name in names))
