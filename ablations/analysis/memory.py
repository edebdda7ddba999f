"""Peak memory: of arms and of models, how it grows, what it is made of, and what predictions of it are worth.

Memory is in bytes; a resolution is text, as in the records.
"""

from dataclasses import fields
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pandas as pd

from ablations.analysis.cost import NAMES, USUAL_POOLS, at_both_ends, last_exponent
from ablations.analysis.grouping import (
    CONDITIONS,
    MODEL_CONDITIONS,
    cached_for_records,
    compare_with_reference,
    describe,
    name_changes,
    split_by_conditions,
    squares,
    without,
)
from ablations.baselines.registry import EQUAL_MODELS
from ablations.config import NUM_STAGES, PVT_V1, PVT_V2, PVT_V2_LI, TOGGLES, AttentionKernel, arm_name, arms_of
from ablations.measure import Memory
from ablations.measure.kinds import FIXED_KINDS

GROWTH_CONDITIONS = (*CONDITIONS["memory"], "sizes")
PARTS_CONDITIONS = (*CONDITIONS["memory"], "resolution")

MODEL_MEMORY_CONDITIONS = without(CONDITIONS["memory"], *MODEL_CONDITIONS)
"""What is equal within one table of several models: the step, how its memory was found, and the machine."""

LIBRARY_MEMORY_CONDITIONS = without(MODEL_MEMORY_CONDITIONS, "channels_last")
"""The same beside libraries, whose models stand there in both layouts."""

_STEP = without((field.name for field in fields(Memory)), "method")
_MACHINE = without(MODEL_MEMORY_CONDITIONS, *_STEP, "method", "memory_method")

PAIRED_BY = ("model", "attention", "pool_size", *_STEP)
"""What a predicted and a measured record have in common where they are compared."""

VALIDATION_CONDITIONS = ("way", "attention", "changed", *_STEP, *_MACHINE)
"""What is equal within one table that compares predictions with measurements, cell by cell."""

SUMMARY_CONDITIONS = ("device", *_MACHINE)
"""The same of the summary of those tables."""

ALLOWED_PERCENT = {
    ("tracked", "inference"): 0.0,
    ("tracked", "training"): 0.0,
    ("resident", "inference"): 0.5,
    ("resident", "training"): 4.0,
    ("allocated", "inference"): 3.0,
    ("allocated", "training"): 3.0,
}
"""How far in percent a prediction may lie from a measurement, by the way that memory was measured and by mode."""

LAYOUTS = {"": False, "_channels_last": True}
"""The ending of a library's columns, and whether its model lies channels-last in memory."""

KINDS = {"": "peak_memory_bytes", "resident_": "resident_peak_bytes"}
"""What stands before `bytes` in a library's columns, and the column of a record that they hold."""


@cached_for_records
def memory_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the peak memory of each arm and resolution, its change against v1 in percent, and what goes with it.

    Where memory ran out there is no peak, and `out_of_memory` says what was asked for and what was free.
    """
    parts = ["parameter_bytes", "input_bytes", "resident_peak_bytes", "out_of_memory"]
    return compare_with_reference(records, "memory", ["peak_memory_bytes"], parts)


def attention_savings(values: pd.DataFrame) -> pd.DataFrame:
    """Returns by how many percent v1's peak exceeds that of v1 with each toggle of attention.

    `values` are rows of `memory_values` under equal conditions. The rows are resolutions, the columns arms.
    """
    peaks = values.pivot_table(index=["pixels", "resolution"], columns="arm", values="peak_memory_bytes").sort_index()
    arms = [arm_name([name]) for name, toggle in TOGGLES.items() if toggle.slot == "attn"]
    own = peaks.reindex(columns=[PVT_V1, *arms]).astype(float).droplevel("pixels")
    return (100 * (own[arms].rdiv(own[PVT_V1], axis="index") - 1)).dropna(axis="columns", how="all")


@cached_for_records
def growth_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns how predicted memory grows in pixels between the two largest squares of each arm, and what of it grows.

    `exponent` is the slope of log(peak) against log(pixels), `growing_exponent` that of the peak without FIXED_KINDS.
    `scores_overtake_px` is the side from which what grows with explicit attention is at least twice what grows with the
    fused kernel, so that score matrices outweigh all else. It lies between two predicted sizes, on a line through
    logarithms, and never below the smallest. It is empty where there is no such side, and for fused attention.
    """
    rows: list[dict[str, Any]] = []
    curves: dict[tuple[str, ...], pd.Series] = {}
    for group in split_by_conditions(_predicted(records), "memory"):
        others = [str(value) for name, value in group.conditions.items() if name != "attention"]
        for arm, own in group.rows.groupby("arm", sort=False):
            if len(curve := _curve(own)) > 1:
                curves[(group.conditions["attention"], str(arm), *others)] = growing = _growing(curve)
                names = group.conditions | {"arm": arm, "sizes": " to ".join(curve["resolution"].iloc[-2:])}
                exponents = (last_exponent(curve["pixels"], each) for each in (curve["peak_memory_bytes"], growing))
                rows.append(names | dict(zip(("exponent", "growing_exponent"), exponents, strict=True)))
    for row, ((_, *place), explicit) in zip(rows, curves.items(), strict=True):
        fused = curves.get(("fused", *place))
        row["scores_overtake_px"] = np.nan if fused is None else overtaking_side(explicit, fused)  # fused: never
    return _in_order(pd.DataFrame(rows))


def _in_order(values: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with the kernels of equal other conditions side by side, fused first, and the arms in order."""
    if values.empty:
        return values
    others = [name for name in (*CONDITIONS["memory"], "sizes") if name in values and name != "attention"]
    keys = pd.DataFrame({"place": values.groupby(others, sort=False, dropna=False).ngroup()})
    for name, known in (("attention", get_args(AttentionKernel)), ("arm", arms_of(TOGGLES))):
        keys[name] = values[name].map({value: place for place, value in enumerate(known)})
    return values.loc[keys.sort_values(keys.columns.tolist()).index].reset_index(drop=True)


def overtaking_side(explicit: pd.Series, fused: pd.Series) -> float:
    """Returns the side in pixels from which `explicit` is at least twice `fused`, both by pixels; nan for never."""
    excess = (explicit / fused).dropna().map(np.log2) - 1
    sides = np.sqrt(excess.index.to_numpy(dtype=float)).tolist()
    if len(excess) and excess.iloc[0] >= 0:
        return sides[0]
    for (small, before), (large, after) in pairwise(zip(sides, excess.tolist(), strict=True)):
        if after >= 0:
            return small * (large / small) ** (before / (before - after))
    return np.nan


def peak_parts(records: pd.DataFrame) -> pd.DataFrame:
    """Returns what the predicted peak of each arm is made of, at the smallest and the largest square of each variant.

    `NAME_bytes` is for each kind of `bytes_at_peak`, and they sum to the peak. `stage_N_bytes` are the activations that
    a stage made. `peak_operator` and `peak_phase` say what reached the peak.
    """
    predicted = _predicted(records)
    columns = ["arm", "resolution", "pixels", "peak_memory_bytes", "peak_operator", "peak_phase"]
    rows = []
    for group in split_by_conditions(squares(predicted[predicted["checkpointing"] == "none"]), "memory"):
        for record in at_both_ends(group.rows).to_dict("records"):
            kinds = {f"{kind}_bytes": count for kind, count in record["bytes_at_peak"].items()}
            made_by = record["activations_by_stage"]
            stages = {f"stage_{stage + 1}_bytes": made_by.get(f"stages.{stage}", 0) for stage in range(NUM_STAGES)}
            rows.append({**group.conditions, **{name: record[name] for name in columns}, **kinds, **stages})
    return pd.DataFrame(rows)


@cached_for_records
def model_memory_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the peak memory of each model that is no arm by conditions and resolution, with published arms beside.

    Libraries' models that are equal to an arm are left out: `library_memory_values` has them. The arms are those of b2
    in base v2 with fused attention, where they have records of the same conditions. `growing_exponent` is that of
    `growth_values` where two squares or more were predicted.
    """
    memory = _of_memory(records, "attention", "out_of_memory", "refused", *MODEL_MEMORY_CONDITIONS)
    equals = {model for models in EQUAL_MODELS.values() for model in models.values()}
    models = memory[memory["variant"].isna() & ~memory["model"].isin(equals)]
    own = memory[(memory["variant"] == "b2") & (memory["base"] == "v2") & (memory["attention"] == "fused")]
    own = own[name_changes(own)["changed"].isna()]
    places = models[[*MODEL_MEMORY_CONDITIONS, "resolution"]].drop_duplicates()
    beside = own[own["arm"].isin([PVT_V1, PVT_V2, PVT_V2_LI])].merge(places)
    columns = ["model", "arm", "resolution", "pixels", "peak_memory_bytes", "out_of_memory", "refused"]
    tables = []
    rows = pd.concat([beside, models], ignore_index=True)
    for _, each in rows.groupby([*MODEL_MEMORY_CONDITIONS, "model"], sort=False, dropna=False):
        first, curve = each.iloc[0], _curve(each)
        is_predicted = len(curve) > 1 and first["method"] == "predicted"
        exponent = last_exponent(curve["pixels"], _growing(curve)) if is_predicted else np.nan
        table = each[[*MODEL_MEMORY_CONDITIONS, *columns]].sort_values("pixels")
        name = NAMES.get(first["model"], first["model"]) if pd.isna(first["arm"]) else f"b2 {first['arm']}"
        tables.append(table.assign(name=name, growing_exponent=exponent))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def library_memory_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns our peak memory beside each library's model, under equal conditions and at equal sizes.

    Ours are the arms as published with fused attention, channels-last. `NAME_bytes` is the peak of a library's model
    and `NAME_change_percent` how much more ours is; NAME is `timm` or `transformers`, and either with `_channels_last`.
    `NAME_resident_bytes` and `NAME_resident_change_percent` are the same of resident memory, where it was measured. A
    library's model that refused the size or ran out of memory has no value, and an arm without any has no row. `above`
    says whether ours needs more than the best of timm's, or of transformers' where timm has no such model.
    """
    memory = _of_memory(records, "attention", "pool_size", *LIBRARY_MEMORY_CONDITIONS, *KINDS.values())
    memory = memory[memory["peak_memory_bytes"].notna()]
    model = ["variant", "arm"]
    place = [*LIBRARY_MEMORY_CONDITIONS, "resolution", *model]
    is_usual = (memory["attention"] == "fused") & memory["channels_last"] & (memory["checkpointing"] == "none")
    is_published = (memory["base"] == "published") & (memory["pool_size"] == memory["variant"].map(USUAL_POOLS))
    is_published &= name_changes(memory)["changed"].isna()
    values = memory.loc[(is_usual & is_published).fillna(False).astype(bool), [*place, "pixels", *KINDS.values()]]
    for library, models in EQUAL_MODELS.items():
        named = pd.DataFrame([(*arm, name) for arm, name in models.items()], columns=[*model, "model"])
        theirs = named.merge(memory.drop(columns=model), on="model")
        for ending, channels_last in LAYOUTS.items():
            prefix = f"{library}{ending}_"
            columns = {column: f"{prefix}{kind}bytes" for kind, column in KINDS.items()}
            peaks = theirs.loc[theirs["channels_last"] == channels_last, [*place, *columns]].rename(columns=columns)
            values = values.merge(peaks, how="left", on=place)
            for kind, column in KINDS.items():
                change = 100 * (values[column] / values[f"{prefix}{kind}bytes"] - 1)
                values[f"{prefix}{kind}change_percent"] = change.astype(float)
    least = {
        library: values[[f"{library}{ending}_bytes" for ending in LAYOUTS]].min(axis="columns")
        for library in EQUAL_MODELS
    }
    goal = least["timm"].fillna(least["transformers"])
    values = values.assign(
        above=values["peak_memory_bytes"] > goal,
        case=values["variant"] + " " + values["arm"] + ", " + values["resolution"] + " px",
    )[goal.notna()]
    order = ["device", "method", "mode", "precision", "variant", "arm", "pixels"]
    return values.sort_values(order, kind="stable", ignore_index=True)


@cached_for_records
def validation_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns every prediction that was measured too: what was measured in each way, and how far it lies off.

    `way` is `tracked` for live storages, `allocated` for the CUDA allocator, and `resident` for the resident memory of
    a fresh process on the CPU. `difference_percent` is predicted against measured; `beyond_goal` says whether it is
    more than ALLOWED_PERCENT.
    """
    paired_by = [*PAIRED_BY, "changed"]
    memory = name_changes(_of_memory(records, "memory_method", "resident_peak_bytes", *_MACHINE, *PAIRED_BY))
    predicted = memory.loc[memory["method"] == "predicted", [*paired_by, "peak_memory_bytes"]]
    measured = memory[memory["method"] == "measured"].drop(columns="peak_memory_bytes")
    measured["resident"] = memory["resident_peak_bytes"]
    for way, method in (("tracked", "tracked_storages"), ("allocated", "max_memory_allocated")):
        measured[way] = memory["peak_memory_bytes"].where(memory["memory_method"] == method)
    pairs = predicted.merge(measured, on=paired_by).rename(columns={"peak_memory_bytes": "predicted_bytes"})
    columns = [*paired_by, "arm", "pixels", *_MACHINE, "predicted_bytes"]
    ways = dict.fromkeys(way for way, _ in ALLOWED_PERCENT)
    rows = pairs.melt(columns, list(ways), "way", "measured_bytes").dropna(subset="measured_bytes")
    if rows.empty:
        return pd.DataFrame()
    rows = rows.astype({"measured_bytes": "int64"}).reset_index(drop=True)
    rows = rows if rows["changed"].notna().any() else rows.drop(columns="changed")
    difference = rows["predicted_bytes"] - rows["measured_bytes"]
    percent = 100 * difference / rows["measured_bytes"]
    allowed = pd.Series([ALLOWED_PERCENT[case] for case in zip(rows["way"], rows["mode"], strict=True)])
    return rows.assign(
        name=rows["arm"].fillna(rows["model"].map(lambda model: NAMES.get(model, model))),
        difference_bytes=difference,
        difference_percent=percent.astype(float),
        beyond_goal=percent.abs() > allowed,
    )


def validation_summary(records: pd.DataFrame) -> pd.DataFrame:
    """Returns how far predictions lie from measurements, by SUMMARY_CONDITIONS and by way, mode and precision.

    `batch_sizes` are those of the cells. The `worst_` columns are of the cell that lies furthest off.
    """
    values = validation_values(records)
    if values.empty:
        return values
    rows = []
    case = ["way", "mode", "precision"]
    for place, own in values.groupby([*SUMMARY_CONDITIONS, *case], sort=False, dropna=False):
        distances = own["difference_percent"].abs()
        worst = own.iloc[int(distances.to_numpy().argmax())]
        where = describe({name: worst[name] for name in ("attention", "resolution", "channels_last", "checkpointing")})
        row = dict(zip([*SUMMARY_CONDITIONS, *case], place, strict=True))
        row |= {
            "case": ", ".join(str(row[name]) for name in case),
            "batch_sizes": ", ".join(map(str, sorted(own["batch_size"].unique()))),
            "n": len(own),
            "n_equal": int((own["difference_bytes"] == 0).sum()),
            "median_percent": distances.median(),
            "largest_percent": distances.max(),
            "goal_percent": ALLOWED_PERCENT[str(row["way"]), str(row["mode"])],
            "n_beyond_goal": int(own["beyond_goal"].sum()),
            "worst": f"`{worst['model']}`, {where}",
            "worst_bytes": worst["difference_bytes"],
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _of_memory(records: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Returns the memory records, with these columns even where no record has a value of them."""
    memory = records[records["measurement"] == "memory"]
    always = ("resolution", "pixels", "method", "peak_memory_bytes", "channels_last", "checkpointing")
    return memory.reindex(columns=list(dict.fromkeys([*memory, *always, *columns]))).astype({"resolution": "str"})


def _predicted(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the predictions that say what their peak is made of: those that did not refuse the size."""
    memory = _of_memory(records, "bytes_at_peak", "activations_by_stage", "peak_operator", "peak_phase")
    return memory[(memory["method"] == "predicted") & memory["bytes_at_peak"].notna()]


def _curve(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of square inputs that have a peak, the smallest input first."""
    return squares(rows).dropna(subset="peak_memory_bytes").sort_values("pixels")


def _growing(curve: pd.DataFrame) -> pd.Series:
    """Returns the bytes of the peak that grow, by pixels."""
    fixed = curve["bytes_at_peak"].map(lambda kinds: sum(kinds.get(kind, 0) for kind in FIXED_KINDS))
    return (curve["peak_memory_bytes"] - fixed).astype(float).set_axis(curve["pixels"])
