"""Detection and segmentation over seeds: means, intervals, and differences to v1. All scores are fractions.

Functions take `load_records`. Trials that choose a recipe (`tuning_images` above 0) are left out. Arms are compared as
accuracies are (`ablations.analysis.accuracy`): seed by seed where initial weights were drawn by name.
"""

from typing import Any

import pandas as pd

from ablations.analysis.accuracy import NO_SEEDS, Study, difference_rows
from ablations.analysis.grouping import CONDITIONS, REFERENCE, describe, join_groups, split_with_models
from ablations.analysis.statistics import Estimate, estimate_difference, estimate_share
from ablations.measure import MEASUREMENTS

MORE_SCORES = {
    "detection": ("ap50", "ap75", "ap_small", "ap_medium", "ap_large", "mask_ap", "constant_ap50"),
    "segmentation": ("pixel_accuracy", "constant_miou", "constant_pixel_accuracy"),
}
"""The scores whose mean over seeds stands beside the main one's."""

DENSE_CONDITIONS = {name: tuple(each for each in CONDITIONS[name] if each != "tuning_images") for name in MORE_SCORES}
"""The columns that are equal within the scores that are compared."""


def split_dense(records: pd.DataFrame, measurement: str) -> list[Study]:
    """Returns the finished trainings of a measurement in groups of equal conditions, trials left out; with models that
    are no arms."""
    chosen = records[records["measurement"] == measurement]
    if chosen.empty:
        return []
    groups = split_with_models(chosen[chosen["tuning_images"] == 0], measurement)
    return [Study(group.conditions, group.rows) for group in groups]


def dense_values(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns each arm's main score with its interval over seeds, the means of the others, and its difference to v1.

    The main score is `ap` or `miou`: as `NAME_mean`, `NAME_low`, `NAME_high`, `NAME_raw`, and its difference as
    `NAME_difference_mean` and so on. The others are under their names. One family of Holm's is a group's differences.
    """
    main = MEASUREMENTS[measurement].main_metric
    tables = []
    for group in split_dense(records, measurement):
        names = group.rows["arm"].fillna(group.rows["model"])
        scores = _by_name(group.rows, main)
        arms = set(group.rows["arm"].dropna())
        family: list[tuple[dict[str, Any], Estimate]] = []
        for name, values in scores.items():
            own = group.rows[names == name]
            reference = NO_SEEDS if name == REFERENCE else scores.get(REFERENCE, NO_SEEDS)
            columns: dict[str, Any] = {"arm": name if name in arms else None, "model": None if name in arms else name}
            columns |= score_columns(values, main)
            columns |= {each: float(own[each].mean()) for each in MORE_SCORES[measurement] if each in own}
            family.append((columns, estimate_difference(values, reference, paired=group.paired)))
        table = pd.DataFrame(difference_rows(f"{main}_difference", family, group.declared))
        tables.append((group, table.drop(columns="model") if len(arms) == len(scores) else table))
    return join_groups(tables)


def detection_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns `dense_values` of detection."""
    return dense_values(records, "detection")


def segmentation_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns `dense_values` of segmentation."""
    return dense_values(records, "segmentation")


def score_columns(values: pd.Series, name: str) -> dict[str, Any]:
    """Returns a mean score over seeds and its interval, as `n_seeds`, `NAME_mean`, `NAME_low` and `NAME_high`."""
    mean = estimate_share(values)
    return {
        "n_seeds": mean.n,
        f"{name}_mean": mean.mean,
        f"{name}_low": mean.low,
        f"{name}_high": mean.high,
        f"{name}_raw": mean.raw or None,
    }


def _by_name(rows: pd.DataFrame, metric: str) -> dict[str, pd.Series]:
    """Returns a score by seed of each arm or other model, by name."""
    names = rows["arm"].fillna(rows["model"])
    return {str(name): own.set_index("seed")[metric].astype(float) for name, own in rows.groupby(names, sort=False)}


def dense_columns(records: pd.DataFrame, names: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Returns AP and mIoU of a model's arms, for its comparison, and under which conditions in words.

    `names` are its variant, base and P. Of several studies the one with most records counts. Columns are `ap_n`, the
    seeds, `ap_mean`, `ap_low`, `ap_high` and `ap_raw`, the same of `miou`, and those that say how: `ap_of` and
    `miou_of`.
    """
    columns: dict[str, dict[str, Any]] = {}
    words = {}
    for measurement in MORE_SCORES:
        groups = [
            group
            for group in split_dense(records, measurement)
            if all(group.conditions.get(name) == names[name] for name in ("variant", "base", "pool_size"))
            and pd.isna(group.conditions.get("changed"))
            and group.rows["arm"].notna().any()
        ]
        if not groups:
            continue
        group, main = max(groups, key=lambda each: len(each.rows)), MEASUREMENTS[measurement].main_metric
        for arm, values in _by_name(group.rows.dropna(subset="arm"), main).items():
            score = score_columns(values, main)
            columns.setdefault(arm, {}).update({f"{main}_n": score.pop("n_seeds"), **score})
        others = [name for name in group.conditions if name not in ("variant", "base", "pool_size", "changed")]
        words[f"{main}_of"] = f"{measurement}, {describe(group.conditions, others)}"
    return pd.DataFrame.from_dict(columns, orient="index"), words
