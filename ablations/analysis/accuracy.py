"""Accuracy over seeds: means, differences, learning curves, test resolutions, trials, finished weights.

Accuracies and their differences are fractions. Trials that choose a recipe (`tuning_images` above 0) are in
`trial_values` alone.

Arms are compared seed by seed where their initial weights were drawn by name, so that arms share them; all else, models
that are no arms among it, is compared unpaired. `NAME_mean`, `NAME_low`, `NAME_high` are a difference and its interval
over seeds, `NAME_n` their number, `NAME_p` the t test's p, `NAME_p_holm` that corrected within the family,
`NAME_sign_flip_p` exact and not corrected, `NAME_resolved` whether it is claimed, and `NAME_raw` the values where
they are too few for an interval.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ablations.analysis.grouping import (
    CONDITIONS,
    REFERENCE,
    Group,
    cached_for_records,
    group_by,
    is_plain,
    join_groups,
    join_rows,
    name_changes,
    split_by_conditions,
    split_with_models,
    without,
)
from ablations.analysis.paper import paper_cumulative
from ablations.analysis.statistics import (
    Estimate,
    correct_by_holm,
    estimate_difference,
    estimate_share,
    image_interval,
    is_resolved,
)
from ablations.cells import arm_cell
from ablations.config import CUMULATIVE, PVT_V1, PVT_V2, PVT_V2_LI, VARIANTS
from ablations.cost import count_macs, count_params, has_closed_form
from ablations.measure import Cost
from ablations.records.bits import unpack_bits

STUDY_CONDITIONS = without(CONDITIONS["accuracy"], "tuning_images", "eval_resolutions")
"""The columns that are equal within the accuracies that are compared."""

TRIAL_CONDITIONS = without(CONDITIONS["accuracy"], "base_lr", "eval_resolutions")


@dataclass(frozen=True)
class Study(Group):
    """Trainings that are compared: records of one measurement under the same conditions."""

    @cached_property
    def names(self) -> pd.Series:
        """The arm of each row, or the name of a model that is none."""
        return self.rows["arm"].fillna(self.rows["model"])

    def scores(self, metric: str) -> dict[str, pd.Series]:
        """Returns a score by seed of each arm or other model, by name."""
        by_name = self.rows.groupby(self.names, sort=False)
        return {str(name): own.set_index("seed")[metric].astype(float) for name, own in by_name}

    @cached_property
    def top1(self) -> dict[str, pd.Series]:
        return self.scores("top1")

    @cached_property
    def paired(self) -> bool:
        """Whether equal seeds gave equal initial weights wherever parameters have one name and shape."""
        return bool((self.rows["initial_weights"] == "by_name").all())

    @cached_property
    def declared(self) -> int | None:
        """How many seeds the study declared before its data, where a column of the records says so."""
        declared = self.rows["declared_seeds"].max() if "declared_seeds" in self.rows else None
        return None if pd.isna(declared) else int(declared)

    def difference(self, arm: str, reference: str | None) -> Estimate:
        """Returns how much more accurate an arm is than a reference; n is 0 where there is no other arm to compare."""
        top1 = NO_SEEDS if arm == reference else self.top1[arm]
        return estimate_difference(top1, self.top1.get(str(reference), NO_SEEDS), paired=self.paired)


NO_SEEDS = pd.Series(dtype=float)


@cached_for_records
def split_studies(records: pd.DataFrame, *, with_models: bool = False) -> list[Study]:
    """Returns the finished trainings of arms in groups of equal STUDY_CONDITIONS; trials are left out.

    Rows have a column `changed`, empty where the model is what its names say; such groups come first. What a model was
    evaluated on beside its own size makes no other training. With `with_models` the groups hold the models that are no
    arms and were trained alike, and those without arms beside them make groups of their own. Raises InputError if two
    records of a group stand in one place.
    """
    chosen = records[records["measurement"] == "accuracy"]
    if chosen.empty:
        return []
    chosen = chosen[chosen["tuning_images"] == 0].drop(columns="eval_resolutions", errors="ignore")
    split = split_with_models if with_models else split_by_conditions
    studies = []
    for group in split(chosen, "accuracy"):
        changed = None if is_plain(group) else group.conditions["changed"]
        conditions = {"changed": None} | group.conditions | {"changed": changed}
        studies.append(Study(conditions, group.rows.assign(changed=changed or "")))
    return sorted(studies, key=is_plain, reverse=True)


def difference_rows(
    name: str, family: Sequence[tuple[dict[str, Any], Estimate]], declared: int | None = None
) -> list[dict[str, Any]]:
    """Returns a row for each member of a family of comparisons: its own columns and its difference, corrected by Holm,
    as `NAME_mean` and so on; without a name they are `mean` and so on.

    A member without seeds is no comparison. With `declared` seeds, a column `declared_seeds` then, nothing is claimed
    before as many are there.
    """
    declares = {"declared_seeds": declared} if declared else {}
    corrected = iter(correct_by_holm([estimate.p for _, estimate in family if estimate.n > 0]))
    rows = []
    for columns, estimate in family:
        p_holm = float(next(corrected)) if estimate.n > 0 else np.nan
        difference = {
            "n": estimate.n,
            **{each: getattr(estimate, each) for each in ("mean", "low", "high", "p")},
            "p_holm": p_holm,
            "sign_flip_p": estimate.sign_flip_p,
            "resolved": is_resolved(estimate.n, p_holm, declared),
            "paired": estimate.paired,
            "raw": estimate.raw or None,
        }
        prefix = f"{name}_" if name else ""
        rows.append(columns | declares | {f"{prefix}{each}": value for each, value in difference.items()})
    return rows


@cached_for_records
def accuracy_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns each arm's mean top-1 with two 95 % intervals, over seeds and over images, and its difference to v1.

    Behind the arms stand other models that were trained under the same conditions: they have no `arm`, but a `model`.
    `top1_images_low` and `top1_images_high` are of other validation images of the same kind, where records say which
    were right. One family of Holm's is a group's differences to v1.
    """
    return compare_with_v1(split_studies(records, with_models=True), "top1", image_columns)


def compare_with_v1(
    studies: Iterable[Study], metric: str, more: Callable[[pd.DataFrame], dict[str, float]]
) -> pd.DataFrame:
    """Returns the `level_columns` of each arm and other model, what `more` says of its rows, and its difference to v1.

    Differences are `METRIC_difference_mean` and so on; one family of Holm's is a study's. Seeds are paired where those
    of v1 and of this model can be.
    """
    tables = []
    for study in studies:
        scores, arms, family = study.scores(metric), set(study.rows["arm"]), []
        for name, values in scores.items():
            columns = {"arm": name} if name in arms else {"arm": None, "model": name}
            columns |= level_columns(values, metric) | more(study.rows[study.names == name])
            reference = NO_SEEDS if name == REFERENCE else scores.get(REFERENCE, NO_SEEDS)
            both = Study(study.conditions, study.rows[study.names.isin((name, REFERENCE))])
            family.append((columns, estimate_difference(values, reference, paired=both.paired)))
        tables.append((study, join_rows(difference_rows(f"{metric}_difference", family, study.declared))))
    return join_groups(tables)


def level_columns(values: pd.Series, metric: str = "top1") -> dict[str, Any]:
    """Returns a mean score over seeds and its interval: `n_seeds`, `METRIC_mean`, `METRIC_low`, `METRIC_high` and, of
    too few values for one, `METRIC_raw`."""
    share = estimate_share(values)
    ends = {f"{metric}_{each}": getattr(share, each) for each in ("mean", "low", "high")}
    return {"n_seeds": share.n, **ends, f"{metric}_raw": share.raw or None}


def image_columns(rows: pd.DataFrame) -> dict[str, float]:
    """Returns the interval over images of a model's accuracy, where every seed's record says which were right."""
    if "correct" not in rows or rows["correct"].isna().any():
        return {}
    bits = zip(rows["correct"], rows["n_eval_images"], strict=True)
    low, high = image_interval(np.array([unpack_bits(text, int(count)) for text, count in bits]))
    return {"top1_images_low": low, "top1_images_high": high}


def trained_costs(records: pd.DataFrame, conditions: dict[str, Any], arm: str) -> dict[str, int | None]:
    """Returns `params` and `macs` of the arm that was trained under these conditions.

    Those of an arm without a closed form are from the traced record of the same model, or of one whose classifier alone
    has the default's number of classes. Without such a record, and of a variant that is not known, they are None.
    """
    unknown: dict[str, int | None] = {"params": None, "macs": None}
    if conditions["variant"] not in VARIANTS:
        return unknown
    names = {name: conditions[name] for name in ("attention", "pool_size")}
    for name, value in re.findall(r"(\w+)=([^,]+)", conditions["changed"] or ""):
        names[name] = _PARSERS.get(name, str)(value)
    size = int(conditions["resolution"])
    place = (conditions["variant"], arm, conditions["base"], Cost(resolution=size))
    counted = arm_cell(*place, **names)
    config = replace(counted.arm_config, img_size=size, num_classes=int(conditions["num_classes"]))
    if has_closed_form(config):
        return {"params": count_params(config), "macs": count_macs(config, size)}
    own_classes = arm_cell(*place, **names, num_classes=config.num_classes)
    for cell in (own_classes, counted):
        traced = records[records["key"] == cell.key]
        if not traced.empty and cell.arm_config.img_size == size:
            classes, channels = config.num_classes - cell.arm_config.num_classes, config.embed_dims[-1]
            added = {"params": classes * (channels + 1), "macs": classes * channels}
            return {metric: int(traced[metric].iloc[0]) + more for metric, more in added.items()}
    return unknown


_PARSERS: dict[str, Callable[[str], Any]] = {"stem_stride": int, "ffn_relu": "True".__eq__}
"""What reads a value of `changed` that is no text."""


@cached_for_records
def cumulative_accuracy_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the accuracy and counts of the paper's path through the arms, and each step from the arm before it.

    `params` and `macs` are `trained_costs`. `reported_top1_step_points` is the paper's for just this step, in points
    (b2 on ImageNet at 224 px); it is missing where the paper has no such step, as when a study leaves an arm out. A
    group's steps are one family of Holm's.
    """
    paper = paper_cumulative()["reported_top1_percent"]
    tables = []
    for study in split_studies(records):
        path = [arm for arm in CUMULATIVE if arm in study.top1]
        if len(path) < 2:
            continue
        family = []
        for arm, before in zip(path, (None, *path), strict=False):
            columns = {"arm": arm, **level_columns(study.top1[arm]), "step_from": before}
            columns |= trained_costs(records, study.conditions, arm)
            columns["reported_top1_step_points"] = paper[arm] - paper[before] if before else np.nan
            family.append((columns, study.difference(arm, before)))
        table = pd.DataFrame(difference_rows("top1_step", family, study.declared))
        tables.append((study, table.astype({"params": "Int64", "macs": "Int64"})))
    return join_groups(tables)


TRANSFER_CONDITIONS = (*without(STUDY_CONDITIONS, "resolution"), "trained_at")


@cached_for_records
def resolution_transfer_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the accuracy of trained arms at each test `resolution`, and what the published v2 models are ahead of v1.

    `trained_at` is the side of the training. `top1_difference` is arm minus v1 at that resolution, of the published
    arms; `top1_fall` is how much that is more, or less, than at the training's own resolution, so that below 0 the arm
    loses more than v1 does. Both are families of Holm's of their own, over arms and resolutions.
    """
    tables = []
    for study in split_studies(records):
        if "top1_by_resolution" not in study.rows or study.rows["top1_by_resolution"].isna().all():
            continue
        own_side = str(study.conditions["resolution"])
        curves = curves_by_arm(study.rows, resolution_curve)
        if all(len(curve.columns) < 2 for curve in curves.values()):
            continue
        v1 = curves.get(PVT_V1, pd.DataFrame())
        leads: list[tuple[dict[str, Any], Estimate]] = []
        falls: list[tuple[dict[str, Any], Estimate]] = []
        for arm, curve in curves.items():
            for side in sorted(map(str, curve), key=int):
                lead = fall = (NO_SEEDS, NO_SEEDS)
                if arm in (PVT_V2, PVT_V2_LI) and side in v1:
                    lead = (curve[side], v1[side])
                    fall = fall if side == own_side else (curve[side] - curve[own_side], v1[side] - v1[own_side])
                columns: dict[str, Any] = {"arm": arm, "resolution": side, "pixels": int(side) ** 2}
                columns |= level_columns(curve[side].dropna())
                leads.append((columns, estimate_difference(*lead, paired=study.paired)))
                falls.append(({}, estimate_difference(*fall, paired=study.paired)))
        lead_rows, fall_rows = (
            difference_rows(f"top1_{name}", family, study.declared)
            for name, family in (("difference", leads), ("fall", falls))
        )
        rows = map(dict.__or__, lead_rows, fall_rows)
        conditions = {name: value for name, value in study.conditions.items() if name != "resolution"}
        tables.append((Group(conditions | {"trained_at": int(own_side)}, study.rows), pd.DataFrame(rows)))
    return join_groups(tables)


def curves_by_arm(rows: pd.DataFrame, curve: Callable[[pd.Series], pd.Series]) -> dict[str, pd.DataFrame]:
    """Returns the curve of each record, a row a seed, by arm."""
    return {
        str(arm): pd.DataFrame({row["seed"]: curve(row) for _, row in own.iterrows()}).T
        for arm, own in rows.groupby("arm", sort=False)
    }


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
    curves = curves_by_arm(rows, accuracy_curve)
    if REFERENCE not in curves:
        return pd.DataFrame()
    reference, paired = curves.pop(REFERENCE), Study({}, rows).paired
    table = []
    for arm, curve in curves.items():
        for epoch in curve.columns.intersection(reference.columns):
            difference = estimate_difference(curve[epoch], reference[epoch], paired=paired)
            columns = {each: getattr(difference, each) for each in ("n", "mean", "low", "high")}
            table.append({"epoch": epoch, "arm": arm} | columns)
    return pd.DataFrame(table)


@cached_for_records
def trial_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the trials that choose a learning rate, scored on images set aside from the training images.

    A row is an arm: `top1_by_rate`, its mean top-1 by learning rate; `best_rate` and `top1_best`; `shared_rate`, the
    rate with the highest mean over the arms that were tried at all rates, and `top1_shared`; `top1_lost`, what the arm
    loses by the shared rate; `study_rate`, at which such models were trained otherwise (of several the shared one), and
    `top1_lost_in_study`. Differences are of means, without interval.
    """
    trained = records[(records["measurement"] == "accuracy") & records["arm"].notna()]
    chosen = trained[trained["tuning_images"] > 0] if len(trained) else trained
    tables = []
    for group in group_by(name_changes(chosen), TRIAL_CONDITIONS):
        rates = group.rows.pivot_table(index="arm", columns="base_lr", values="top1", sort=False).sort_index(axis=1)
        means = rates.dropna().mean().dropna()
        shared = float(means.index[int(means.argmax())]) if len(means) else np.nan
        table = pd.DataFrame({"n_trials": group.rows.groupby("arm", sort=False).size()}).rename_axis("arm")
        table["top1_by_rate"] = pd.Series(
            {arm: {f"{rate:g}": float(top1) for rate, top1 in own.dropna().items()} for arm, own in rates.iterrows()}
        )
        table["best_rate"], table["top1_best"] = rates.idxmax(axis="columns"), rates.max(axis="columns")
        table["shared_rate"], table["top1_shared"] = shared, rates[shared] if len(means) else np.nan
        table["top1_lost"] = table["top1_best"] - table["top1_shared"]
        studied = trained[(trained["tuning_images"] == 0) & _are_alike(trained, group.conditions)]["base_lr"].unique()
        used = shared if shared in studied else float(studied[0]) if len(studied) == 1 else np.nan
        table["study_rate"] = used
        table["top1_lost_in_study"] = table["top1_best"] - rates[used] if used in rates else np.nan
        tables.append((group, table.reset_index()))
    return join_groups(tables)


TRIED_ALIKE = ("variant", "base", "pool_size", "data", "resolution", "epochs", "batch_size")
"""What trials of a learning rate have in common with the trainings that they choose it for."""


def has_chosen_rate(records: pd.DataFrame, conditions: dict[str, Any]) -> bool:
    """Whether trials on images set aside chose the learning rate of trainings under these conditions."""
    trials = trial_values(records)
    if trials.empty:
        return False
    return bool((trials.loc[_are_alike(trials, conditions), "shared_rate"] == conditions["base_lr"]).any())


def _are_alike(rows: pd.DataFrame, conditions: dict[str, Any]) -> pd.Series:
    """Returns which rows are of such trainings as the conditions, but for the learning rate."""
    wanted = pd.Series({name: conditions[name] for name in TRIED_ALIKE})
    return (rows[[*TRIED_ALIKE]] == wanted).all(axis="columns")


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
