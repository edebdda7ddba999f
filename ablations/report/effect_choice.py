"""Which effects are worth a table: those of a clean design, without zeros, and of frames that stand beside another."""

from collections.abc import Callable

import pandas as pd

from ablations.config import FRAMES
from ablations.report.conditions import AXES, CONDITIONS
from ablations.report.effect_values import RESPONSES, effect_values, rider_values, shapley_values

CLEAN_FRAMES = tuple(frame for frame in FRAMES if frame != "published")
"""Those in which arms differ in nothing but the three changes."""


def in_clean_frames(
    values: Callable[[pd.DataFrame, str], pd.DataFrame], measurement: str
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Returns what gives `values` of a measurement, from the records of CLEAN_FRAMES alone."""
    return lambda records: values(narrow(records[records["frame"].isin(CLEAN_FRAMES)], measurement), measurement)


def narrow(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns the records of a measurement with the columns that effects need: they take a third of the time then."""
    needed = ("measurement", "key", "pixels", *CONDITIONS[measurement], *AXES[measurement], *RESPONSES[measurement])
    return records.loc[records["measurement"] == measurement, [name for name in needed if name in records]]


def effects_at_work(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns exact effects without the interactions that are 0 at every resolution under the same conditions."""
    values = effect_values(records, measurement)
    if values.empty:
        return values
    names = [name for name in (*CONDITIONS[measurement], "effect") if name in values]
    nothing = (values[[f"{metric}_effect" for metric in RESPONSES[measurement]]].fillna(0) == 0).all(axis="columns")
    nowhere = nothing.groupby([values[name] for name in names], dropna=False).transform("all")
    return values[~nowhere | (values["order"] == 1)].reset_index(drop=True)


def contributions_at_work(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns exact Shapley values where there are interactions; elsewhere they are the effects."""
    values = shapley_values(records, measurement)
    if values.empty:
        return values
    names = [name for name in CONDITIONS[measurement] if name in values]
    ends = ((values[f"{metric}_smallest"], values[f"{metric}_largest"]) for metric in RESPONSES[measurement])
    varies = pd.concat([smallest != largest for smallest, largest in ends], axis="columns").any(axis="columns")
    somewhere = varies.groupby([values[name] for name in names], dropna=False).transform("any")
    return values[somewhere].reset_index(drop=True)


def frames_beside(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns `rider_values` of the sizes that were measured in two frames or more; the others have none."""
    own = narrow(records, measurement)
    if own.empty:
        return own
    frames = own.groupby(["variant", "resolution"])["frame"].transform("nunique")
    return rider_values(own[frames > 1], measurement)
