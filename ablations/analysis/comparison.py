"""The comparison: the arms of one model side by side in parameters, MACs, memory, speed and accuracy.

One model is a variant in a base, with its stem stride and its P; nothing of another model stands in its table. What was
not measured of it has no column and is named in `missing`.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablations.analysis.accuracy import (
    accuracy_values,
    declared_seeds,
    difference_rows,
    is_paired,
    split_studies,
    top1_by_arm,
    trained_costs,
)
from ablations.analysis.effects import effect_values
from ablations.analysis.grouping import REFERENCE, Group, describe, join_rows, split_by_conditions
from ablations.analysis.paper import paper_cumulative
from ablations.analysis.speed import speed_values
from ablations.analysis.statistics import FEWEST_TO_CLAIM, Estimate, estimate_difference
from ablations.config import TOGGLES, VARIANTS, arm_name, arms_of, base_confounders, build_config

PLACE = ("variant", "base", "pool_size")
MODEL = ("stem_stride", *PLACE)
"""What all columns of one comparison have in common."""

TRAINED_ON = ("data", "epochs", "n_train_images")
"""What is told of a training by itself; `recipe` has its other conditions in words."""

COMPARISON_CONDITIONS = (
    *("variant", "base", "stem_stride", "pool_size", "num_classes", "data", "epochs", "n_train_images", "recipe"),
    *("counted_at", "large_at", "memory_at", "speed_at", "missing"),
)
"""The columns that are equal within one comparison."""

MEMORY_STEPS = tuple((mode, attention) for mode in ("inference", "training") for attention in ("fused", "explicit"))
"""The four columns of memory: `memory_MODE_ATTENTION_bytes`."""

SPEED_MODES = ("inference", "training")

REPORTED = ("reported_params_m", "reported_gflops", "reported_top1_percent")
"""What the paper has of some arms of b2."""

LARGE_SIDE = 1024
"""Pixels: the largest image that a comparison shows MACs of, about as many as detectors take."""

ACCURACY, MEMORY, SPEED = "accuracy", "memory", "speed"


@dataclass(frozen=True)
class _Model:
    """The records of one model, by measurement: groups of equal conditions."""

    names: dict[str, Any]
    costs: list[Group]
    memory: list[Group]
    speed: list[Group]


def comparison_values(records: pd.DataFrame, keys: Collection[str] | None = None) -> pd.DataFrame:
    """Returns a row for each arm of each comparison: one for every accuracy study, and for every model without one.

    With `keys`, only comparisons whose accuracies, or counts where there are none, are among these records.

    `params` and `macs` are of the model that was trained, with its number of classes, at the training's resolution;
    without a training, of the smallest size that was counted. `macs_large` is of the largest up to LARGE_SIDE.
    `memory_MODE_ATTENTION_bytes` are peaks, `relative_speed_MODE` v1's time over the arm's with its interval, and
    accuracies as `accuracy_values` has them; the row of an arm with one toggle has that toggle's main effect too, as
    `top1_effect_mean` and so on. `_change_percent` is against v1. `counted_at`, `memory_at` and `speed_at`
    say under which conditions. All is of one number of classes.
    """
    if records.empty:
        return pd.DataFrame()
    measured = {name: split_by_conditions(records, name) for name in ("cost", "memory", "speed")}
    asked = [group for group in measured["cost"] if _is_plain(group) and _is_among(group, keys)]
    studies = [
        group
        for group in split_studies(records)
        if _is_plain(group)
        and (_is_among(group, keys) or any(_is_same(cost, group.conditions, PLACE) for cost in asked))
    ]
    rows: list[dict[str, Any]] = []
    compared = set()
    for study in studies:
        model = _model_of(study.conditions, measured)
        compared.add(tuple(model.names.values()))
        rows += _rows_of(records, model, study)
    for group in measured["cost"]:
        if _is_plain(group) and group.conditions["head"] == "classifier" and _is_among(group, keys):
            model = _model_of(group.conditions, measured)
            if not compared & {names := tuple(model.names.values()), (*names, group.conditions["num_classes"])}:
                compared.add((*names, group.conditions["num_classes"]))
                rows += _rows_of(records, model, None)
    return join_rows(rows)


def _is_plain(group: Group) -> bool:
    """Whether the group's arms are what their variant and base say."""
    conditions = group.conditions
    return conditions["variant"] in VARIANTS and not _given(conditions.get("changed"))


def _is_same(group: Group, conditions: dict[str, Any], names: Iterable[str]) -> bool:
    return all(group.conditions[name] == conditions[name] for name in names)


def _is_among(group: Group, keys: Collection[str] | None) -> bool:
    return keys is None or bool(group.rows["key"].isin(keys).any())


def _given(value: Any) -> bool:
    return not pd.isna(value) and value != ""


def _model_of(conditions: dict[str, Any], measured: dict[str, list[Group]]) -> _Model:
    """Returns the groups of the same variant, base, P and classes that were measured as they usually are."""
    names_of_model = (*PLACE, "num_classes")
    own = {
        name: [group for group in groups if _is_plain(group) and _is_same(group, conditions, names_of_model)]
        for name, groups in measured.items()
    }
    names = {
        "variant": conditions["variant"],
        "base": conditions["base"],
        "stem_stride": build_config(conditions["variant"]).stem_stride,
        "pool_size": int(conditions["pool_size"]),
    }
    costs = [group for group in own["cost"] if group.conditions["head"] == "classifier"]
    usual = {"precision": "float32", "channels_last": True, "checkpointing": "none", "compiled": False}
    memory, speed = (
        [
            group
            for group in own[name]
            if all(group.conditions.get(each, value) == value for each, value in usual.items())
        ]
        for name in ("memory", "speed")
    )
    return _Model(names, costs, memory, [group for group in speed if group.conditions["reference"] == REFERENCE])


def _rows_of(records: pd.DataFrame, model: _Model, study: Group | None) -> list[dict[str, Any]]:
    """Returns the rows of one comparison, which has two arms or more."""
    counts = pd.concat([group.rows for group in model.costs]) if model.costs else pd.DataFrame()
    parts = [_memory_columns(model.memory), _speed_columns(model.speed, study)]
    conditions = dict(model.names)
    if study:
        columns = accuracy_values(study.rows).set_index("arm")
        arms = list(columns.index)
        side = str(study.conditions["resolution"])
        own = pd.DataFrame({arm: trained_costs(records, study.conditions, arm) for arm in arms}).T
        conditions |= {name: study.conditions[name] for name in TRAINED_ON}
        others = [name for name in study.conditions if name not in (*MODEL, *TRAINED_ON, "changed")]
        conditions["recipe"] = describe(study.conditions, others)
        kept = [name for name in columns if str(name).startswith(("n_seeds", "declared_seeds", "top1_"))]
        accuracy = columns[kept].assign(at_chance=_at_chance(columns, study), top1_is_best=_best_accuracies(study))
        parts += [_Columns(accuracy, ""), _Columns(_main_effects(study), "")]
    else:
        conditions["num_classes"] = int(counts["num_classes"].iloc[0])
        arms_at = counts.groupby(["pixels", "resolution"])["arm"].nunique()
        side = str(arms_at.index[int(arms_at.to_numpy().argmax())][1])  # the smallest of those with most arms
        own = counts[counts["resolution"] == side].set_index("arm")[["params", "macs"]]
        arms = list(own.index)
    if len(arms) < 2:
        return []
    known = arms_of(TOGGLES)
    arms.sort(key=lambda arm: known.index(arm) if arm in known else len(known))
    table = own.reindex(arms).astype(float)
    squares = counts[counts["resolution"].str.isdecimal()] if len(counts) else counts
    if side.isdecimal() and len(squares):
        squares = squares[squares["pixels"].between(int(side) ** 2 + 1, LARGE_SIDE**2)]
    if len(squares):
        largest = squares[squares["pixels"] == squares["pixels"].max()]
        table["macs_large"] = largest.set_index("arm")["macs"].astype(float)
        conditions["large_at"] = f"{largest['resolution'].iloc[0]} px"
    for metric in [name for name in ("params", "macs", "macs_large") if name in table]:
        table[f"{metric}_change_percent"] = _change(table[metric])
    conditions["counted_at"] = f"{side} px"
    for name, part in zip(("memory_at", "speed_at"), parts, strict=False):
        conditions[name] = part.words or None
    missing = [name for name, part in zip((MEMORY, SPEED), parts, strict=False) if part.table.empty]
    conditions["missing"] = ", ".join([*missing, *(() if study else (ACCURACY,))]) or None
    for part in parts:
        table = table.join(part.table)
    marks = [str(name) for name in table if str(name).endswith("_is_best")]
    table[marks] = table[marks].eq(True)  # an arm without a speed is no best one
    table = table.join(_reported(model.names, arms))
    return [
        conditions | {"arm": str(arm)} | {str(name): value for name, value in row.items()}
        for arm, row in table.astype(object).iterrows()
    ]


@dataclass(frozen=True)
class _Columns:
    """Columns by arm, and under which conditions they were measured."""

    table: pd.DataFrame
    words: str


def _at_chance(columns: pd.DataFrame, study: Group) -> pd.Series:
    """Returns which arms are no better, within their interval over images, than always naming one class."""
    chance = 1 / int(study.conditions["num_classes"])
    if "largest_class_share" in study.rows and study.rows["largest_class_share"].notna().any():
        chance = float(study.rows["largest_class_share"].max())
    lowest = columns["top1_images_low"] if "top1_images_low" in columns else columns["top1_mean"]
    return lowest <= chance


def _best_accuracies(study: Group) -> pd.Series:
    """Returns which arms are the best or not resolved to be worse (Holm over all others); none with too few seeds."""
    top1, declared = top1_by_arm(study.rows), declared_seeds(study.rows)
    best = max(top1, key=lambda arm: top1[arm].mean())
    others = [arm for arm in top1 if arm != best]
    paired = is_paired(study.rows)
    behind: list[tuple[dict[str, Any], Estimate]] = [
        ({}, estimate_difference(top1[best], top1[arm], paired=paired)) for arm in others
    ]
    rows = difference_rows("", behind, declared)
    enough = all(row["n"] >= max(FEWEST_TO_CLAIM, declared or 0) for row in rows)
    worse = {arm: row["resolved"] for arm, row in zip(others, rows, strict=True)}
    return pd.Series({arm: enough and not worse.get(arm, False) for arm in top1})


def _main_effects(study: Group) -> pd.DataFrame:
    """Returns each toggle's main effect on the accuracy, in the row of the arm that has just this toggle."""
    effects = effect_values(study.rows, "accuracy")
    if effects.empty:
        return effects
    main = effects[effects["order"] == 1].drop_duplicates("effect")
    main = main.set_index(main["effect"].map(lambda toggle: arm_name([toggle])))
    return main[[name for name in main if str(name).startswith("top1_effect_")]]


def _change(values: pd.Series) -> pd.Series:
    """Returns by how many percent each arm's value differs from v1's."""
    return 100 * (values / values.get(REFERENCE, float("nan")) - 1)


def _memory_columns(groups: Sequence[Group]) -> _Columns:
    """Returns the four peaks of each arm, all at one size and found in one way: the largest size that has most of them,
    measured ones before predicted ones."""
    places: dict[tuple[Any, ...], dict[str, pd.Series]] = {}
    for group in groups:
        names = group.conditions
        step = (names["mode"], names["attention"])
        if step not in MEMORY_STEPS or names["batch_size"] != 1:
            continue
        for resolution, rows in group.rows.groupby("resolution"):
            machine = tuple(str(names.get(each)) for each in ("device_name", "torch", "threads", "memory_method"))
            size = (int(rows["pixels"].iloc[0]), str(resolution), names["device"])
            place = (names["method"] == "measured", *size, *machine)
            peaks = rows.set_index("arm")["peak_memory_bytes"].dropna().astype(float)
            if len(peaks):
                places.setdefault(place, {})[f"memory_{step[0]}_{step[1]}_bytes"] = peaks
    if not places:
        return _Columns(pd.DataFrame(), "")
    best = max(places, key=lambda place: (sum(map(len, places[place].values())), place[:2]))
    is_measured, _, resolution, device = best[:4]
    values = pd.DataFrame(places[best])
    for name in list(values):
        values[str(name).replace("_bytes", "_change_percent")] = _change(values[name])
    way = "measured" if is_measured else "predicted"
    return _Columns(values, f"{resolution} px, one image, float32, {device}, {way}")


def _speed_columns(groups: Sequence[Group], study: Group | None) -> _Columns:
    """Returns each arm's speed beside v1's in both modes, all of one size, batch and machine: the size of the training
    before others, then the largest."""
    side = str(study.conditions["resolution"]) if study else ""
    places: dict[tuple[Any, ...], pd.DataFrame] = {}
    for group in groups:
        names = group.conditions
        if names["attention"] != "fused":
            continue
        pixels = int(group.rows["pixels"].iloc[0])
        machine = tuple(str(names.get(each)) for each in ("device", "device_name", "threads", "torch"))
        size = (str(names["resolution"]) == side, pixels, names["resolution"], names["batch_size"])
        place = (*size, *machine, names["repeats"])
        rows = speed_values(group.rows).set_index("arm")
        columns = {f"relative_speed{end}": f"relative_speed_{names['mode']}{end}" for end in ("", "_low", "_high")}
        values = rows[list(columns)].rename(columns=columns)
        places[place] = places[place].join(values, how="outer") if place in places else values
    if not places:
        return _Columns(pd.DataFrame(), "")
    best = max(places, key=lambda place: (place[0], places[place].size, place[1]))
    resolution, batch_size, device, device_name, threads, _, repeats = best[2:]
    values = places[best]
    for mode in SPEED_MODES:
        name = f"relative_speed_{mode}"
        if name in values:
            fastest = values[f"{name}_low"].iloc[int(values[name].fillna(0).to_numpy().argmax())]
            values[f"{name}_is_best"] = values[f"{name}_high"] >= fastest
    machine_words = f"{device}, {device_name}, {threads} thread{'s' * (threads != '1')}"
    words = f"{resolution} px, batch {batch_size}, float32, fused attention, {repeats} repeats, {machine_words}"
    return _Columns(values, words)


def _reported(names: dict[str, Any], arms: Iterable[str]) -> pd.DataFrame:
    """Returns what the paper reports of b2's arms, where this base gives them the published confounders."""
    if names["variant"] != "b2" or names["pool_size"] != build_config("b2").pool_size:
        return pd.DataFrame()
    counted = ("position_embedding", "pooling", "stage_norm")
    same = [
        arm
        for arm in arms
        if all(
            base_confounders(names["base"], arm)[each] == base_confounders("published", arm)[each] for each in counted
        )
    ]
    return paper_cumulative().reindex(same)[list(REPORTED)].dropna(how="all")
