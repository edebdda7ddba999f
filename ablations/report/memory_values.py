"""Numbers about peak memory beyond one table of it: how it grows, and how good the predictions are."""

from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ablations.analysis.cost import NAMES
from ablations.analysis.grouping import CONDITIONS, MODEL_CONDITIONS, describe, split_by_conditions
from ablations.catalogue import EQUAL_MODELS
from ablations.config import NUM_STAGES
from ablations.design import Memory

FIXED_KINDS = ("parameters", "gradients", "optimizer", "input")
"""What takes as many bytes at every resolution, or is given; the rest of the peak grows."""

_STEP = tuple(field.name for field in fields(Memory) if field.name != "method")

PAIRED_BY = ("model", "attention", "pool_size", *_STEP)
"""What a predicted and a measured record must have in common to be compared."""

GROWTH_CONDITIONS = (*CONDITIONS["memory"], "sizes")

MODEL_MEMORY_CONDITIONS = tuple(name for name in CONDITIONS["memory"] if name not in MODEL_CONDITIONS)
"""What is equal within one table of several models: the step, how its memory was found, and the machine."""

_MEASURED_ON = tuple(name for name in MODEL_MEMORY_CONDITIONS if name not in (*_STEP, "method", "memory_method"))

SUMMARY_CONDITIONS = ("device", *_MEASURED_ON)
"""What is equal within one table of how far predictions lie from measurements."""

VALIDATION_CONDITIONS = ("way", "attention", *_STEP, *_MEASURED_ON)
"""The same, cell by cell."""

BESIDE_MODELS = ("v1", "v1+ope+cffn", "v1+ope+cffn+lsra")
"""The arms of b2 in base v2, with fused attention, that stand among models that are no arms."""

EQUALS = {model for models in EQUAL_MODELS.values() for model in models.values()}
"""The models of libraries that are equal to an arm."""

GOALS = {
    ("tracked", "inference"): 0.0,
    ("tracked", "training"): 0.0,
    ("in-memory", "inference"): 0.5,
    ("in-memory", "training"): 4.0,
    ("allocated", "inference"): 3.0,
    ("allocated", "training"): 3.0,
}
"""How far in percent a prediction may lie from what is measured in one of three ways, by mode."""


def growth_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns how predicted memory grows in pixels between the two largest squares of each arm, and what of it grows.

    `exponent` is the slope of log(peak) against log(pixels), `growing_exponent` that of the peak without FIXED_KINDS.
    `scores_overtake_px` is the side at which what grows with explicit attention is twice what grows with the fused
    kernel, so that its score matrices outweigh all else: between two predicted sizes by a line through logarithms, and
    never below the smallest; empty where they never do, and for fused attention.
    """
    rows: list[dict[str, Any]] = []
    growing: dict[tuple, pd.Series] = {}
    if "bytes_at_peak" not in records:
        return pd.DataFrame()
    predicted = records[records["method"] == "predicted"]
    for group in split_by_conditions(predicted, "memory"):
        for arm, own in group.rows.groupby("arm", sort=False):
            squares = own[own["resolution"].str.isdecimal() & own["peak_memory_bytes"].notna()].sort_values("pixels")
            if len(squares) < 2:
                continue
            exponent, growing_exponent = _last_exponents(squares)
            key = (*(str(value) for name, value in group.conditions.items() if name != "attention"), str(arm))
            growing[(group.conditions["attention"], *key)] = _growing(squares)
            rows.append(
                {
                    **group.conditions,
                    "arm": arm,
                    "sizes": f"{squares['resolution'].iloc[-2]} to {squares['resolution'].iloc[-1]}",
                    "exponent": exponent,
                    "growing_exponent": growing_exponent,
                    "key": key,
                }
            )
    for row in rows:
        key = row.pop("key")
        curves = (growing.get((kernel, *key), pd.Series(dtype=float)) for kernel in ("explicit", "fused"))
        row["scores_overtake_px"] = _overtaking_side(*curves) if row["attention"] == "explicit" else np.nan
    return pd.DataFrame(rows)


def peak_parts(records: pd.DataFrame) -> pd.DataFrame:
    """Returns what the predicted peak of each arm is made of, at the smallest and the largest square of each variant.

    `NAME_bytes` for each kind of `bytes_at_peak`, which sum to the peak; `stage_1_bytes` to `stage_4_bytes` are those
    of the activations that a stage made; `peak_operator` and `peak_phase` say what reached the peak.
    """
    if "bytes_at_peak" not in records:
        return pd.DataFrame()
    usual = (records["method"] == "predicted") & records["bytes_at_peak"].notna() & (records["checkpointing"] == "none")
    chosen = records[usual & records["resolution"].str.isdecimal()]
    tables = []
    for group in split_by_conditions(chosen, "memory"):
        ends = group.rows["pixels"].isin([group.rows["pixels"].min(), group.rows["pixels"].max()])
        for _, record in group.rows[ends].iterrows():
            columns = ("arm", "resolution", "pixels", "peak_memory_bytes", "peak_operator", "peak_phase")
            row = {**group.conditions, **{name: record[name] for name in columns}}
            row |= {f"{kind}_bytes": count for kind, count in record["bytes_at_peak"].items()}
            stages = record["activations_by_stage"]
            row |= {f"stage_{stage + 1}_bytes": stages.get(f"stages.{stage}", 0) for stage in range(NUM_STAGES)}
            tables.append(row)
    return pd.DataFrame(tables)


def _growing(squares: pd.DataFrame) -> pd.Series:
    """Returns the bytes of the peak that grow, by pixels."""
    fixed = squares["bytes_at_peak"].map(lambda kinds: sum(kinds.get(kind, 0) for kind in FIXED_KINDS))
    return (squares["peak_memory_bytes"] - fixed).astype(float).set_axis(squares["pixels"])


def _last_exponents(squares: pd.DataFrame) -> tuple[float, float]:
    """Returns the exponents in pixels of the peak and of what grows of it, between the two largest sizes."""
    pixels = np.log(squares["pixels"].to_numpy(dtype=float)[-2:])
    peaks = (squares["peak_memory_bytes"].to_numpy(dtype=float), _growing(squares).to_numpy())
    total, growing = (float(np.diff(np.log(peak[-2:]))[0] / np.diff(pixels)[0]) for peak in peaks)
    return total, growing


def _overtaking_side(explicit: pd.Series, fused: pd.Series) -> float:
    """Returns the side in pixels from which `explicit` is at least twice `fused`, both by pixels; nan for never."""
    excess = (explicit / fused).dropna().map(np.log2) - 1
    if excess.empty:
        return np.nan
    if excess.iloc[0] >= 0:
        return float(np.sqrt(excess.index.to_numpy(dtype=float)[0]))
    sides = np.sqrt(excess.index.to_numpy(dtype=float)).tolist()
    for (small, before), (large, after) in pairwise(zip(sides, excess.tolist(), strict=True)):
        if after >= 0:
            return float(small * (large / small) ** (before / (before - after)))
    return np.nan


def model_memory_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the peak memory of each model that is no arm by conditions and resolution, with some arms beside them.

    Libraries' models that are equal to an arm are left out: `library_memory_values` has them. The arms are
    BESIDE_MODELS where they have records of the same conditions. `growing_exponent` is that of `growth_values` where
    there are predictions of two squares or more.
    """
    if "memory_method" not in records:
        return pd.DataFrame()
    memory = records[records["measurement"] == "memory"]
    models = memory[memory["variant"].isna() & ~memory["model"].isin(EQUALS)]
    conditions = [*MODEL_MEMORY_CONDITIONS]
    own = memory[(memory["variant"] == "b2") & (memory["base"] == "v2") & (memory.get("attention") == "fused")]
    own = own[own["arm"].isin(BESIDE_MODELS)].merge(models[[*conditions, "resolution"]].drop_duplicates())
    rows = pd.concat([own, models], ignore_index=True)
    tables = []
    for _, each in rows.groupby([*conditions, "model"], sort=False, dropna=False):
        squares = each[each["resolution"].str.isdecimal() & each["peak_memory_bytes"].notna()].sort_values("pixels")
        predicted = len(squares) > 1 and squares["method"].iloc[0] == "predicted"
        model = str(each["model"].iloc[0])
        exponent = _last_exponents(squares)[1] if predicted else np.nan
        columns = [*conditions, "model", "arm", "resolution", "pixels", "peak_memory_bytes", "out_of_memory", "refused"]
        arm = each["arm"].iloc[0]
        name = NAMES.get(model, model) if pd.isna(arm) else f"b2 {arm}"
        named = each.reindex(columns=columns).assign(name=name, growing_exponent=exponent)
        tables.append(named.sort_values("pixels"))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def validation_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns every prediction that was measured too: what was measured in each way, and how far it lies off.

    One row for each way: `tracked` storages and, of a process of its own, `in-memory` memory on the CPU, `allocated` on
    CUDA. `difference_percent` is predicted against measured; `beyond_goal` says whether it is more than GOALS allows.
    """
    if "method" not in records:
        return pd.DataFrame()
    memory = records[records["measurement"] == "memory"].reindex(
        columns=list(dict.fromkeys([*records.columns, "resident_peak_bytes", *PAIRED_BY]))
    )
    predicted = memory.loc[memory["method"] == "predicted", [*PAIRED_BY, "peak_memory_bytes"]]
    measured = memory.loc[
        memory["method"] == "measured",
        [*PAIRED_BY, "arm", "pixels", *_MEASURED_ON, "memory_method", "peak_memory_bytes", "resident_peak_bytes"],
    ]
    pairs = predicted.merge(measured, on=list(PAIRED_BY), suffixes=("_predicted", "_measured"))
    tables = []
    for way, column in (("peak", "peak_memory_bytes_measured"), ("in-memory", "resident_peak_bytes")):
        own = pairs[pairs[column].notna()]
        ways = own["memory_method"].map({"tracked_storages": "tracked", "max_memory_allocated": "allocated"})
        tables.append(own.assign(way=way if way == "in-memory" else ways, measured_bytes=own[column].astype("int64")))
    rows = pd.concat(tables, ignore_index=True)
    if rows.empty:
        return pd.DataFrame()
    difference = rows["peak_memory_bytes_predicted"] - rows["measured_bytes"]
    percent = 100 * difference / rows["measured_bytes"]
    goals = pd.Series([GOALS[way, mode] for way, mode in zip(rows["way"], rows["mode"], strict=True)])
    columns = [*PAIRED_BY, "arm", "pixels", *_MEASURED_ON, "way", "measured_bytes"]
    return rows[columns].assign(
        name=rows["arm"].fillna(rows["model"].map(lambda model: NAMES.get(model, model))),
        predicted_bytes=rows["peak_memory_bytes_predicted"],
        difference_bytes=difference,
        difference_percent=percent.astype(float),
        beyond_goal=percent.abs() > goals,
    )


def _describe_cell(row: pd.Series) -> str:
    conditions = {name: row[name] for name in ("attention", "resolution", "channels_last", "checkpointing")}
    return f"`{row['model']}`, {describe(conditions)}"


def validation_summary(records: pd.DataFrame) -> pd.DataFrame:
    """Returns how far predictions lie from measurements, by SUMMARY_CONDITIONS and by way, mode and precision."""
    values = validation_values(records)
    if values.empty:
        return values
    rows = []
    case = ["way", "mode", "precision"]
    for (*place, way, mode, precision), own in values.groupby([*SUMMARY_CONDITIONS, *case], sort=False, dropna=False):
        distances = own["difference_percent"].abs()
        worst = own.iloc[int(distances.to_numpy().argmax())]
        rows.append(
            {
                **dict(zip(SUMMARY_CONDITIONS, place, strict=True)),
                "case": f"{way}, {mode}, {precision}",
                "n": len(own),
                "n_equal": int((own["difference_bytes"] == 0).sum()),
                "median_percent": distances.median(),
                "largest_percent": distances.max(),
                "goal_percent": GOALS[str(way), str(mode)],
                "n_beyond_goal": int(own["beyond_goal"].sum()),
                "worst": _describe_cell(worst),
                "worst_bytes": worst["difference_bytes"],
            }
        )
    return pd.DataFrame(rows)
