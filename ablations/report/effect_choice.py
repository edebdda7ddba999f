"""Which effects are worth a table: those of a clean design, without zeros, and of bases that stand beside another."""

from collections.abc import Callable

import pandas as pd

from ablations.analysis.grouping import AXES, CONDITIONS
from ablations.config import BASES
from ablations.report.effect_values import RESPONSES, confounder_values, effect_values, shapley_values

CLEAN_BASES = tuple(base for base in BASES if base != "published")
"""Those in which arms differ in nothing but the three changes."""


def in_clean_bases(
    values: Callable[[pd.DataFrame, str], pd.DataFrame], measurement: str
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Returns what gives `values` of a measurement, from the records of CLEAN_BASES alone."""
    return lambda records: values(narrow(records[records["base"].isin(CLEAN_BASES)], measurement), measurement)


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


def bases_beside(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns `confounder_values` of the sizes that were measured in two bases or more; the others have none."""
    own = narrow(records, measurement)
    if own.empty:
        return own
    bases = own.groupby(["variant", "resolution"])["base"].transform("nunique")
    return confounder_values(own[bases > 1], measurement)
