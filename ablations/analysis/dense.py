"""Detection and segmentation over seeds: means, intervals, and differences to v1. All scores are fractions.

Trials that choose a recipe (`tuning_images` above 0) are left out. Arms are compared as accuracies are
(`ablations.analysis.accuracy`): seed by seed where initial weights were drawn by name.
"""

from typing import Any

import pandas as pd

from ablations.analysis.accuracy import Study, compare_with_v1, level_columns
from ablations.analysis.grouping import CONDITIONS, describe, is_plain, split_with_models, without
from ablations.measure import MEASUREMENTS

MORE_SCORES = {
    "detection": ("ap50", "ap75", "ap_small", "ap_medium", "ap_large", "mask_ap", "constant_ap50"),
    "segmentation": ("pixel_accuracy", "constant_miou", "constant_pixel_accuracy"),
}
"""The scores whose mean over seeds stands beside the main one's."""

DENSE_CONDITIONS = {name: without(CONDITIONS[name], "tuning_images") for name in MORE_SCORES}
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
    """Returns each arm's main score, `ap` or `miou`, and its difference to v1 as `compare_with_v1` has them, and the
    means of the other scores under their names."""
    return compare_with_v1(
        split_dense(records, measurement),
        MEASUREMENTS[measurement].main_metric,
        lambda own: {each: float(own[each].mean()) for each in MORE_SCORES[measurement] if each in own},
    )


def dense_columns(records: pd.DataFrame, names: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Returns AP and mIoU of a model's arms, for its comparison, and under which conditions in words.

    `names` are its variant, base and P, by column. Of several studies the one with most records counts. Columns are
    `ap_n`, the seeds, `ap_mean`, `ap_low`, `ap_high` and `ap_raw`, the same of `miou`, and those that say how: `ap_of`
    and `miou_of`.
    """
    columns: dict[str, dict[str, Any]] = {}
    words = {}
    for measurement in MORE_SCORES:
        groups = [
            group
            for group in split_dense(records, measurement)
            if all(group.conditions.get(name) == value for name, value in names.items())
            and is_plain(group)
            and group.rows["arm"].notna().any()
        ]
        if not groups:
            continue
        group, main = max(groups, key=lambda each: len(each.rows)), MEASUREMENTS[measurement].main_metric
        for arm, values in Study(group.conditions, group.rows.dropna(subset="arm")).scores(main).items():
            score = level_columns(values, main)
            columns.setdefault(arm, {}).update({f"{main}_n": score.pop("n_seeds"), **score})
        others = describe(group.conditions, without(group.conditions, *names, "changed"))
        words[f"{main}_of"] = f"{measurement}, {others}"
    return pd.DataFrame.from_dict(columns, orient="index"), words
