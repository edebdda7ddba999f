"""The comparison: the arms of one model side by side in parameters, MACs, memory, speed and accuracy.

One model is a variant in a base, with its stem stride and its P; nothing of another model stands in its table. What was
not measured of it has no column and is named in `missing`.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import product
from typing import Any, get_args

import pandas as pd

from ablations.analysis.accuracy import (
    Study,
    accuracy_values,
    difference_rows,
    has_chosen_rate,
    split_studies,
    trained_costs,
)
from ablations.analysis.cost import USUAL_POOLS
from ablations.analysis.dense import dense_columns
from ablations.analysis.effects import effect_values, lead_values, overlap_values
from ablations.analysis.grouping import (
    REFERENCE,
    Group,
    arm_rows,
    describe,
    group_by,
    is_plain,
    split_by_conditions,
    squares,
    tabulated,
    without,
)
from ablations.analysis.paper import paper_cumulative
from ablations.analysis.statistics import FEWEST_TO_CLAIM
from ablations.config import TOGGLES, VARIANTS, AttentionKernel, arm_name, arms_of, base_confounders, build_config
from ablations.measure import Accuracy
from ablations.measure.measurement import MODES

PLACE = ("variant", "base", "pool_size")
"""What makes the model of a comparison, with the stem stride of its variant."""

TRAINED_ON = ("data", "epochs", "n_train_images", "base_lr")
"""What is told of a training by itself; `recipe` has its other conditions in words."""

COMPARISON_CONDITIONS = (
    *("variant", "base", "stem_stride", "pool_size", "num_classes", *TRAINED_ON, "recipe"),
    *("counted_at", "large_at", "memory_at", "speed_at", "large_speed_at", "ap_of", "miou_of", "missing"),
)
"""The columns that are equal within one comparison."""

MEMORY_STEPS = tuple(product(MODES, get_args(AttentionKernel)))
"""The four columns of memory: `memory_MODE_ATTENTION_bytes`."""

REPORTED = ("reported_params_m", "reported_gflops", "reported_top1_percent")
"""What the paper has of some arms of b2."""

LARGE_SIDE = 1024
"""Pixels: the largest image that a comparison shows MACs of, about as many as detectors take."""

USUAL = {"precision": "float32", "channels_last": True, "checkpointing": "none", "compiled": False}
"""How memory and speed are measured that stand in a comparison."""


@tabulated
def comparison_values(records: pd.DataFrame, keys: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """Returns a row for each arm of each comparison: one for every accuracy study, and for every model without one.

    With `keys`, only comparisons whose accuracies, or counts where there are none, are among these records.

    `params` and `macs` are of the model that was trained, with its number of classes, at the training's resolution;
    without a training, of the smallest size that was counted. `macs_large` is of the largest up to LARGE_SIDE.
    `memory_MODE_ATTENTION_bytes` are peaks, `relative_speed_MODE` v1's time over the arm's with its interval,
    `relative_speed_large_MODE` the same at the size of `macs_large`, and accuracies as `accuracy_values` has them. The
    row of an arm with one toggle has its main effect too, as `top1_effect_mean` and so on, whether it is the largest
    resolved one, `top1_leads`, and how far it is behind that, `top1_behind_mean` and so on; that of an arm with two
    what their interaction means, where it is the strongest resolved one: what `overlap_of` adds without and with
    `overlap_with`, `top1_without_mean` and `top1_with_mean`. `has_chosen_rate` says whether trials on images set aside
    chose the learning rate. `_change_percent` is against v1. `counted_at`, `memory_at`, `speed_at` and `large_speed_at`
    say under which conditions. All is of one number of classes, but `ap_mean` and `miou_mean`: of a detector and of a
    segmentation network on these backbones, trained under `ap_of` and `miou_of`.
    """
    if records.empty:
        return
    measured = {name: arm_rows(records, name) for name in ("cost", "memory", "speed")}
    plain = [group for group in split_by_conditions(records, "cost") if _is_known(group)]
    asked = [group for group in plain if _is_among(group, keys)]
    compared = set()
    for study in split_studies(records):
        of_asked = any(_agree(group.conditions, study.conditions, PLACE) for group in asked)
        if _is_known(study) and (of_asked or _is_among(study, keys)):
            compared.add(tuple(study.conditions[name] for name in PLACE))
            yield from _compare(records, measured, study.conditions, study)
    for group in asked:
        place = tuple(group.conditions[name] for name in PLACE)
        with_classes = (*place, group.conditions["num_classes"])
        if group.conditions["head"] == "classifier" and not compared & {place, with_classes}:
            compared.add(with_classes)
            yield from _compare(records, measured, group.conditions, None)


def _is_known(group: Group) -> bool:
    """Whether the group's arms are what their names say, of a variant that there is."""
    return group.conditions["variant"] in VARIANTS and is_plain(group)


def _is_among(group: Group, keys: Collection[str] | None) -> bool:
    return keys is None or bool(group.rows["key"].isin(keys).any())


def _agree(conditions: dict[str, Any], others: dict[str, Any], names: Iterable[str]) -> bool:
    return all(conditions[name] == others[name] for name in names)


def _of_model(rows: pd.DataFrame, names: dict[str, Any]) -> pd.DataFrame:
    """Returns the rows that have these values in the columns that there are, of models that are what they are named."""
    chosen = pd.Series(True, index=rows.index)
    for name, value in names.items():
        chosen &= rows[name].eq(value).fillna(False) if name in rows else True
    return rows[chosen & rows["changed"].isna()] if "changed" in rows else rows[chosen]


def _compare(
    records: pd.DataFrame, measured: dict[str, pd.DataFrame], names: dict[str, Any], study: Study | None
) -> Iterator[dict[str, Any]]:
    """Yields the rows of one comparison, which has two arms or more."""
    model = {name: names[name] for name in (*PLACE, "num_classes")}
    counts = _of_model(measured["cost"], model | {"head": "classifier"})
    conditions = {
        "variant": names["variant"],
        "base": names["base"],
        "stem_stride": build_config(names["variant"]).stem_stride,
        "pool_size": int(names["pool_size"]),
    }
    parts = []
    if study:
        columns = accuracy_values(study.rows).set_index("arm")
        side = str(study.conditions["resolution"])
        own = pd.DataFrame({arm: trained_costs(records, study.conditions, arm) for arm in columns.index}).T
        conditions |= {name: study.conditions[name] for name in TRAINED_ON}
        conditions["recipe"] = describe(study.conditions, without(study.conditions, *conditions, "changed"))
        kept = [name for name in columns if str(name).startswith(("n_seeds", "declared_seeds", "top1_"))]
        accuracy = columns[kept].assign(
            at_chance=_at_chance(columns, study),
            top1_is_best=_best_accuracies(study),
            has_chosen_rate=has_chosen_rate(records, study.conditions),
            n_eval_images=study.conditions["n_eval_images"],
        )
        parts = [accuracy, _effects(study)]
    else:
        conditions["num_classes"] = int(counts["num_classes"].iloc[0])
        arms_at = counts.groupby(["pixels", "resolution"])["arm"].nunique()
        side = str(arms_at.index[int(arms_at.to_numpy().argmax())][1])  # the smallest of those with most arms
        own = counts[counts["resolution"] == side].drop_duplicates("arm").set_index("arm")[["params", "macs"]]
    if len(own) < 2:
        return
    known = arms_of(TOGGLES)
    table = own.loc[sorted(own.index, key=lambda arm: known.index(arm) if arm in known else len(known))].astype(float)
    larger = squares(counts) if len(counts) else counts
    if side.isdecimal() and len(larger):
        larger = larger[larger["pixels"].between(int(side) ** 2 + 1, LARGE_SIDE**2)]
    if len(larger):
        largest = larger[larger["pixels"] == larger["pixels"].max()].drop_duplicates("arm")
        table["macs_large"] = largest.set_index("arm")["macs"].astype(float)
        conditions["large_at"] = f"{largest['resolution'].iloc[0]} px"
    for metric in list(table):
        table[f"{metric}_change_percent"] = _change(table[metric])
    conditions["counted_at"] = f"{side} px"
    memory, conditions["memory_at"] = _memory_columns(_of_model(measured["memory"], model | USUAL))
    usual_speed = model | USUAL | {"reference": REFERENCE, "attention": "fused"}
    large = str(conditions.get("large_at", "")).removesuffix(" px")
    speed, words = _speed_columns(_of_model(measured["speed"], usual_speed), side, large)
    conditions |= words
    missing = {"memory": memory.empty, "speed": speed.empty, "accuracy": study is None}
    conditions["missing"] = ", ".join(name for name, is_missing in missing.items() if is_missing) or None
    dense, words = dense_columns(records, {name: conditions[name] for name in PLACE})
    conditions |= words
    for part in (memory, speed, *parts, dense):
        table = table.join(part)
    marks = [str(name) for name in table if str(name).endswith(("_is_best", "_noisy", "_leads"))]
    table[marks] = table[marks].eq(True)  # an arm without a speed is no best one
    table = table.join(_reported(conditions, list(table.index))).rename_axis("arm").reset_index()
    yield from ({**conditions, **row} for row in table.astype(object).to_dict("records"))


def _at_chance(columns: pd.DataFrame, study: Study) -> pd.Series:
    """Returns which arms are no better, within their interval over images, than always naming the largest class."""
    names = study.conditions
    trained = Accuracy(data=names["data"], num_classes=int(names["num_classes"]))
    recorded = study.rows["largest_class_share"].max() if "largest_class_share" in study.rows else None
    lowest = columns["top1_images_low"] if "top1_images_low" in columns else columns["top1_mean"]
    return lowest <= (trained.chance_level(int(names["n_eval_images"])) if pd.isna(recorded) else recorded)


def _best_accuracies(study: Study) -> pd.Series:
    """Returns which arms are the best or not resolved to be worse (Holm over all others); none with too few seeds."""
    best = max(study.top1, key=lambda arm: study.top1[arm].mean())
    others = [arm for arm in study.top1 if arm != best]
    rows = difference_rows("", [({}, study.difference(best, arm)) for arm in others], study.declared)
    enough = all(row["n"] >= max(FEWEST_TO_CLAIM, study.declared or 0) for row in rows)
    worse = {arm for arm, row in zip(others, rows, strict=True) if row["resolved"]}
    return pd.Series({arm: enough and arm not in worse for arm in study.top1})


def _effects(study: Study) -> pd.DataFrame:
    """Returns what toggles do to the accuracy in the widest factorial of a study, and of those that are in no such one.

    In the row of the arm with one toggle, its main effect; which has the largest resolved one, as `top1_leads`; and how
    far others are behind that. In the row of the arm with two, what their interaction means, if it is the strongest.
    """
    effects = effect_values(study.rows, "accuracy")
    if effects.empty:
        return effects
    widest = max(effects["toggles"].unique(), key=lambda toggles: len(toggles.split(", ")))
    in_widest = effects["toggles"] == widest
    main = pd.concat([effects[in_widest], effects[~in_widest]]).query("order == 1")
    main = main.drop_duplicates("effect").set_index("effect")
    resolved = main[main["top1_effect_resolved"].astype(bool) & (main["toggles"] == widest)]
    leader = resolved["top1_effect_mean"].abs().idxmax() if len(resolved) else None
    table = main[_named(main, "top1_effect_")].assign(top1_leads=main.index == leader)
    leads = lead_values(study.rows)
    if len(leads):
        behind = leads[(leads["toggles"] == widest) & (leads["larger"] == leader)].set_index("effect")
        table = table.join(behind[_named(behind, "top1_behind_")])
    table.index = table.index.map(lambda toggle: arm_name([toggle]))
    overlaps = overlap_values(study.rows)
    if len(overlaps):
        own = overlaps[overlaps["toggles"] == widest]
        arms = [arm_name([row["toggle"], row["other"]]) for _, row in own.iterrows()]
        own = own.rename(columns={"toggle": "overlap_of", "other": "overlap_with"}).set_axis(arms)
        kept = ["overlap_of", "overlap_with", *_named(own, "top1_with")]
        table = table.join(own[kept], how="outer")
    return table


def _named(table: pd.DataFrame, start: str) -> list[str]:
    return [name for name in map(str, table) if name.startswith(start)]


def _change(values: pd.Series) -> pd.Series:
    """Returns by how many percent each arm's value differs from v1's."""
    return 100 * (values / values.get(REFERENCE, float("nan")) - 1)


def _memory_columns(rows: pd.DataFrame) -> tuple[pd.DataFrame, str | None]:
    """Returns the four peaks of each arm, all at one size and found in one way, and that in words.

    It is the largest size that has most of them, measured ones before predicted ones.
    """
    rows = rows[(rows["batch_size"] == 1) & rows["peak_memory_bytes"].notna()] if len(rows) else rows
    if rows.empty:
        return pd.DataFrame(), None
    place = ("method", "pixels", "resolution", "device", "device_name", "torch", "threads", "memory_method")

    def rank(group: Group) -> tuple[int, bool, int]:
        return len(group.rows), group.conditions["method"] == "measured", group.conditions["pixels"]

    best = max(group_by(rows, place), key=rank)
    step = "memory_" + best.rows["mode"] + "_" + best.rows["attention"] + "_bytes"
    values = best.rows.pivot_table(
        index="arm", columns=step, values="peak_memory_bytes", aggfunc="last", sort=False
    ).astype(float)
    for name in list(values):
        values[str(name).replace("_bytes", "_change_percent")] = _change(values[name])
    return values, "{resolution} px, {device}, one image, float32, {method}".format(**best.conditions)


_MACHINE = ("device", "device_name", "threads", "torch")


def _speed_columns(rows: pd.DataFrame, side: str, large: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Returns each arm's speed beside v1's in both modes, and in words how it was timed: `speed_at`, `large_speed_at`.

    It is of one size, batch and machine, that of most arms, among these the size `side`, then the largest; and, as
    `relative_speed_large_MODE`, of the size `large` on the same machine.
    """
    if rows.empty:
        return pd.DataFrame(), {}
    timed = group_by(rows, ("pixels", "resolution", "batch_size", "repeats", *_MACHINE))

    def rank(group: Group) -> tuple[int, bool, int]:
        size = group.rows["arm"].nunique() * group.rows["mode"].nunique()
        return size, str(group.conditions["resolution"]) == side, group.conditions["pixels"]

    best = max(timed, key=rank)
    same = [each for each in timed if each is not best and _agree(each.conditions, best.conditions, _MACHINE)]
    at_large = max((each for each in same if str(each.conditions["resolution"]) == large), key=rank, default=None)
    table, words = _relative_speeds(best, "relative_speed"), {"speed_at": _timed_words(best)}
    if at_large:
        table = table.join(_relative_speeds(at_large, "relative_speed_large"), how="outer")
        words["large_speed_at"] = _timed_words(at_large)
    return table, words


def _relative_speeds(timed: Group, prefix: str) -> pd.DataFrame:
    table = pd.DataFrame()
    for mode, own in timed.rows.groupby("mode", sort=False):
        own, name = own.set_index("arm"), f"{prefix}_{mode}"
        fastest = own["relative_speed_low"].iloc[int(own["relative_speed"].to_numpy().argmax())]
        columns = {f"{name}{end}": own[f"relative_speed{end}"] for end in ("", "_low", "_high")}
        marks = {f"{name}_is_best": own["relative_speed_high"].ge(fastest), f"{name}_noisy": own["noisy"].astype(bool)}
        table = table.join(pd.DataFrame(columns | marks), how="outer")
    return table


def _timed_words(timed: Group) -> str:
    words = "{resolution} px, {device}, batch {batch_size}, float32, fused attention, {repeats} repeats, {device_name}"
    threads = timed.conditions["threads"]
    return f"{words.format(**timed.conditions)}, {threads} thread{'s' * (threads != 1)}"


def _reported(names: dict[str, Any], arms: Iterable[str]) -> pd.DataFrame:
    """Returns what the paper reports of b2's arms, where this base gives them the published confounders."""
    if names["variant"] != "b2" or names["pool_size"] != USUAL_POOLS["b2"]:
        return pd.DataFrame()
    counted = ("position_embedding", "pooling", "stage_norm")
    same = [
        arm for arm in arms if _agree(base_confounders(names["base"], arm), base_confounders("published", arm), counted)
    ]
    return paper_cumulative().reindex(same)[list(REPORTED)].dropna(how="all")
