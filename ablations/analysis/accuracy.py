"""Accuracy over seeds: means, differences, learning curves, test resolutions, trials, finished weights.

Accuracies and their differences are fractions. Functions take `load_records` and return one row for each row of a
table, behind the conditions that it was trained under. Trials that choose a recipe (`tuning_images` above 0) are in
`trial_values` alone.

Arms are compared seed by seed where their initial weights were drawn by name, so that arms share them; all else, models
that are no arms among it, is compared unpaired. `NAME_mean`, `NAME_low`, `NAME_high` are a difference and its interval
over seeds, `NAME_n` their number, `NAME_p` the t test's p, `NAME_p_holm` that corrected within the family,
`NAME_sign_flip_p` exact and not corrected, `NAME_resolved` whether it is claimed, and `NAME_raw` the values where
they are too few for an interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ablations.analysis.grouping import (
    CONDITIONS,
    REFERENCE,
    Group,
    group_by,
    join_groups,
    name_changes,
    split_by_conditions,
    split_with_models,
)
from ablations.analysis.paper import CUMULATIVE, paper_cumulative
from ablations.analysis.statistics import (
    Estimate,
    correct_by_holm,
    estimate_difference,
    estimate_share,
    image_interval,
    is_resolved,
)
from ablations.cells import arm_cell
from ablations.config import PVT_V1, PVT_V2, PVT_V2_LI, VARIANTS
from ablations.cost import count_macs, count_params, has_closed_form
from ablations.measure import Cost
from ablations.records import unpack_bits

STUDY_CONDITIONS = tuple(name for name in CONDITIONS["accuracy"] if name not in ("tuning_images", "eval_resolutions"))
"""The columns that are equal within the accuracies that are compared."""

TRIAL_CONDITIONS = tuple(name for name in CONDITIONS["accuracy"] if name not in ("base_lr", "eval_resolutions"))


def split_studies(records: pd.DataFrame, *, with_models: bool = False) -> list[Group]:
    """Returns the finished trainings of arms in groups of equal STUDY_CONDITIONS; trials are left out.

    Rows have a column `changed`, empty where the model is what its names say. What a model was evaluated on beside its
    own size makes no other training. With `with_models` the groups hold the models that are no arms and were trained
    alike, and those without arms beside them make groups of their own. Raises InputError if two records of a group
    stand in one place.
    """
    chosen = records[records["measurement"] == "accuracy"]
    if chosen.empty:
        return []
    chosen = chosen[chosen["tuning_images"] == 0].drop(columns="eval_resolutions", errors="ignore")
    changes = name_changes(chosen)["changed"].fillna("")
    split = split_with_models if with_models else split_by_conditions
    groups = [
        Group({"changed": None} | group.conditions, group.rows.assign(changed=changes[group.rows.index]))
        for group in split(chosen, "accuracy")
    ]
    unchanged = [
        Group(group.conditions | {"changed": None}, group.rows)
        for group in groups
        if pd.isna(group.conditions["changed"])
    ]
    return [*unchanged, *(group for group in groups if pd.notna(group.conditions["changed"]))]


def is_paired(rows: pd.DataFrame) -> bool:
    """Whether equal seeds gave equal initial weights wherever parameters have one name and shape."""
    return bool((rows["initial_weights"] == "by_name").all())


def declared_seeds(rows: pd.DataFrame) -> int | None:
    """Returns how many seeds the study declared before its data, where a column of the records says so."""
    declared = rows["declared_seeds"].dropna() if "declared_seeds" in rows else NO_SEEDS
    return int(declared.max()) if len(declared) else None


def difference_columns(name: str, estimate: Estimate, p_holm: float, declared: int | None = None) -> dict[str, Any]:
    """Returns a difference as columns `NAME_mean` and so on; without a name they are `mean` and so on."""
    columns = {
        "n": estimate.n,
        **{each: getattr(estimate, each) for each in ("mean", "low", "high", "p")},
        "p_holm": p_holm,
        "sign_flip_p": estimate.sign_flip_p,
        "resolved": is_resolved(estimate.n, p_holm, declared),
        "paired": estimate.paired,
        "raw": estimate.raw or None,
    }
    return {f"{name}_{each}" if name else each: value for each, value in columns.items()}


def difference_rows(
    name: str, family: Sequence[tuple[dict[str, Any], Estimate]], declared: int | None = None
) -> list[dict[str, Any]]:
    """Returns a row for each member of a family of comparisons: its own columns and its difference, corrected by Holm.

    A member without seeds is no comparison. With `declared` seeds, a column `declared_seeds` then, nothing is claimed
    before as many are there.
    """
    declares = {"declared_seeds": declared} if declared else {}
    compared = [estimate.n > 0 for _, estimate in family]
    p_holm = np.full(len(family), np.nan)
    if any(compared):
        p_holm[compared] = correct_by_holm([estimate.p for _, estimate in family if estimate.n > 0])
    return [
        columns | declares | difference_columns(name, estimate, float(p), declared)
        for (columns, estimate), p in zip(family, p_holm, strict=True)
    ]


NO_SEEDS = pd.Series(dtype=float)


def top1_by_arm(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Returns the accuracy by seed of each arm or other model, by name."""
    names = rows["arm"].fillna(rows["model"])
    return {str(name): own.set_index("seed")["top1"].astype(float) for name, own in rows.groupby(names, sort=False)}


def accuracy_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns each arm's mean top-1 with two 95 % intervals, over seeds and over images, and its difference to v1.

    Behind the arms stand other models that were trained under the same conditions: they have no `arm`, but a `model`.
    `top1_images_low` and `top1_images_high` are of other validation images of the same kind, where records say which
    were right. One family of Holm's is a group's differences to v1.
    """
    tables = []
    for group in split_studies(records, with_models=True):
        declared = declared_seeds(group.rows)
        arms = set(group.rows["arm"].dropna())
        by_name = top1_by_arm(group.rows)
        names = group.rows["arm"].fillna(group.rows["model"])
        family = []
        for name, top1 in by_name.items():
            reference = NO_SEEDS if name == REFERENCE else by_name.get(REFERENCE, NO_SEEDS)
            both = group.rows[names.isin((name, REFERENCE))]
            columns: dict[str, Any] = {"arm": name if name in arms else None, "model": None if name in arms else name}
            columns |= level_columns(top1) | image_columns(group.rows[names == name])
            if declared:
                columns["declared_seeds"] = declared
            family.append((columns, estimate_difference(top1, reference, paired=is_paired(both))))
        table = pd.DataFrame(difference_rows("top1_difference", family, declared))
        tables.append((group, table.drop(columns="model") if len(arms) == len(by_name) else table))
    return join_groups(tables)


def level_columns(top1: pd.Series) -> dict[str, Any]:
    """Returns a mean accuracy over seeds and its interval, as `n_seeds`, `top1_mean`, `top1_low` and `top1_high`."""
    mean = estimate_share(top1)
    return {"n_seeds": mean.n, "top1_mean": mean.mean, "top1_low": mean.low, "top1_high": mean.high} | {
        "top1_raw": mean.raw or None
    }


def image_columns(rows: pd.DataFrame) -> dict[str, float]:
    """Returns the interval over images of a model's accuracy, where every seed's record says which were right."""
    if "correct" not in rows or rows["correct"].isna().any():
        return {}
    bits = zip(rows["correct"], rows["n_eval_images"], strict=True)
    low, high = image_interval(np.array([unpack_bits(text, int(count)) for text, count in bits]))
    return {"top1_images_low": low, "top1_images_high": high}


def trained_costs(records: pd.DataFrame, conditions: dict[str, Any], arm: str) -> dict[str, int | None]:
    """Returns `params` and `macs` of the arm that was trained under these conditions.

    Those of an arm without a closed form are from the traced record of the same model, whose classifier alone may have
    another number of classes. Without such a record, and of a variant that is not known, they are None.
    """
    nothing: dict[str, int | None] = {"params": None, "macs": None}
    if conditions["variant"] not in VARIANTS:
        return nothing
    names = {name: conditions[name] for name in ("attention", "pool_size")}
    for change in (conditions["changed"] or "").split(", "):
        name, _, value = change.partition("=")
        names |= {name: _PARSERS.get(name, str)(value)} if name else {}
    size = int(conditions["resolution"])
    counted = arm_cell(conditions["variant"], arm, conditions["base"], Cost(resolution=size), **names)
    config = replace(counted.arm_config, img_size=size, num_classes=int(conditions["num_classes"]))
    if has_closed_form(config):
        return {"params": count_params(config), "macs": count_macs(config, size)}
    traced = records[records["key"] == counted.key]
    if traced.empty or counted.arm_config.img_size != size:
        return nothing
    classes, channels = config.num_classes - counted.arm_config.num_classes, config.embed_dims[-1]
    added = {"params": classes * (channels + 1), "macs": classes * channels}
    return {metric: int(traced[metric].iloc[0]) + count for metric, count in added.items()}


_PARSERS: dict[str, Callable[[str], Any]] = {"stem_stride": int, "ffn_relu": "True".__eq__}
"""What reads a value of `changed` that is no text."""


def cumulative_accuracy_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the accuracy and counts of the paper's path through the arms, and each step from the arm before it.

    `params` and `macs` are `trained_costs`. `reported_top1_step_points` is the paper's for just this step, in points
    (b2 on ImageNet at 224 px); it is missing where the paper has no such step, as when a study leaves an arm out. A
    group's steps are one family of Holm's.
    """
    paper = paper_cumulative()["reported_top1_percent"]
    tables = []
    for group in split_studies(records):
        top1 = top1_by_arm(group.rows)
        path = [arm for arm in CUMULATIVE if arm in top1]
        if len(path) < 2:
            continue
        family = []
        for before, arm in pairwise((None, *path)):
            assert arm is not None
            columns = {"arm": arm, **level_columns(top1[arm]), "step_from": before}
            columns |= trained_costs(records, group.conditions, arm)
            columns |= {"reported_top1_step_points": paper[arm] - paper[before] if before else np.nan}
            step = estimate_difference(top1[arm], top1[before] if before else NO_SEEDS, paired=is_paired(group.rows))
            family.append((columns, step))
        table = pd.DataFrame(difference_rows("top1_step", family, declared_seeds(group.rows)))
        tables.append((group, table.astype({"params": "Int64", "macs": "Int64"})))
    return join_groups(tables)


TRANSFER_CONDITIONS = (*(name for name in STUDY_CONDITIONS if name != "resolution"), "trained_at")


def resolution_transfer_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the accuracy of trained arms at each test `resolution`, and what the published v2 models are ahead of v1.

    `trained_at` is the side of the training. `top1_difference` is arm minus v1 at that resolution, of the published
    arms; `top1_fall` is how much that is more, or less, than at the training's own resolution, so that below 0 the arm
    loses more than v1 does. Both are families of Holm's of their own, over arms and resolutions.
    """
    tables = []
    for group in split_studies(records):
        if "top1_by_resolution" not in group.rows or group.rows["top1_by_resolution"].isna().all():
            continue
        conditions = {name: value for name, value in group.conditions.items() if name != "resolution"}
        own_side = str(group.conditions["resolution"])
        curves = {
            str(arm): pd.DataFrame({row["seed"]: resolution_curve(row) for _, row in rows.iterrows()}).T
            for arm, rows in group.rows.groupby("arm", sort=False)
        }
        if all(len(curve.columns) < 2 for curve in curves.values()):
            continue
        paired, declared = is_paired(group.rows), declared_seeds(group.rows)
        v1 = curves.get(PVT_V1, pd.DataFrame())
        leads: list[tuple[dict[str, Any], Estimate]] = []
        falls: list[tuple[dict[str, Any], Estimate]] = []
        for arm, curve in curves.items():
            for side in sorted(curve.columns.astype(str), key=int):
                columns: dict[str, Any] = {"arm": arm, "resolution": side, "pixels": int(side) ** 2}
                compared = arm in (PVT_V2, PVT_V2_LI) and side in v1
                lead = (curve[side], v1[side]) if compared else (NO_SEEDS, NO_SEEDS)
                fall = (lead[0] - curve[own_side], lead[1] - v1[own_side]) if compared and side != own_side else None
                leads.append((columns | level_columns(curve[side].dropna()), estimate_difference(*lead, paired=paired)))
                falls.append(({}, estimate_difference(*(fall or (NO_SEEDS, NO_SEEDS)), paired=paired)))
        both = zip(
            difference_rows("top1_difference", leads, declared),
            difference_rows("top1_fall", falls, declared),
            strict=True,
        )
        table = pd.DataFrame([lead_row | fall_row for lead_row, fall_row in both])
        tables.append((Group(conditions | {"trained_at": int(own_side)}, group.rows), table))
    return join_groups(tables)


def resolution_curve(record: pd.Series) -> pd.Series:
    """Returns the top-1 of a trained model by the side of the test images, as text; its own is among them."""
    others = record["top1_by_resolution"]
    return pd.Series((others if isinstance(others, dict) else {}) | {str(record["resolution"]): record["top1"]})


def accuracy_curve(record: pd.Series) -> pd.Series:
    """Returns top-1 by the epochs after which it was evaluated; the last is the record's own."""
    on_the_way = {entry["epoch"]: entry["top1"] for entry in record["history"] if "top1" in entry}
    return pd.Series(on_the_way | {entry["epoch"]: record["top1"] for entry in record["history"][-1:]})


def difference_by_epoch_values(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns each arm's difference to v1 after each evaluated epoch, of the records of one group: exploratory.

    `epoch`, `arm`, `n`, `mean`, `low` and `high`; epochs that an arm or v1 lacks are left out.
    """
    curves = {
        str(arm): pd.DataFrame({row["seed"]: accuracy_curve(row) for _, row in own.iterrows()})
        for arm, own in rows.groupby("arm", sort=False)
    }
    if REFERENCE not in curves:
        return pd.DataFrame()
    reference, paired = curves.pop(REFERENCE), is_paired(rows)
    table = []
    for arm, curve in curves.items():
        for epoch in curve.index.intersection(reference.index):
            difference = estimate_difference(curve.loc[epoch], reference.loc[epoch], paired=paired)
            table.append(
                {"epoch": epoch, "arm": arm}
                | {each: getattr(difference, each) for each in ("n", "mean", "low", "high")}
            )
    return pd.DataFrame(table)


def trial_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the trials that choose a learning rate, scored on images set aside from the training images.

    A row is an arm: `top1_by_rate`, its mean top-1 by learning rate; `best_rate` and `top1_best`; `shared_rate`, the
    rate with the highest mean over the arms that were tried at all rates, and `top1_shared`; `top1_lost`, what the arm
    loses by the shared rate. Differences are of means, without interval.
    """
    chosen = records[(records["measurement"] == "accuracy") & records["arm"].notna()]
    if chosen.empty:
        return pd.DataFrame()
    chosen = chosen[chosen["tuning_images"] > 0]
    tables = []
    for group in group_by(name_changes(chosen), TRIAL_CONDITIONS):
        rates = group.rows.pivot_table(index="arm", columns="base_lr", values="top1", sort=False).sort_index(axis=1)
        means = rates.dropna().mean()
        shared = float(means.index[int(means.argmax())]) if len(means.dropna()) else np.nan
        rows = []
        for arm, own in rates.iterrows():
            best = float(rates.columns[int(own.argmax())])
            at_shared = own.get(shared, np.nan)
            row: dict[str, Any] = {"arm": arm, "n_trials": int((group.rows["arm"] == arm).sum())}
            row |= {"top1_by_rate": {f"{rate:g}": float(top1) for rate, top1 in own.dropna().items()}}
            row |= {"best_rate": best, "top1_best": own[best], "shared_rate": shared, "top1_shared": at_shared}
            rows.append(row | {"top1_lost": own[best] - at_shared})
        tables.append((group, pd.DataFrame(rows)))
    return join_groups(tables)


CHECKPOINT_DIGITS = 8
"""Digits of a checkpoint's SHA-256 that tell it from others."""


def evaluation_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the scores of each checkpoint at each test resolution, with the released weights' top-1 beside them.

    `weights` names arm and checkpoint. `expected_top1` is that of the released checkpoint of such a model on all of
    ImageNet, whether or not these weights are the released ones.
    """
    tables = []
    for group in split_by_conditions(records, "evaluation"):
        weights = group.rows["arm"] + ", " + group.rows["checkpoint"].str[:CHECKPOINT_DIGITS]
        columns = ["arm", "checkpoint", "resolution", "pixels", "top1", "top5", "loss", "ece", "expected_top1"]
        rows = group.rows.reindex(columns=columns).assign(weights=weights, skipped=group.rows["skipped"].map(len))
        tables.append(rows.assign(**group.conditions))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
