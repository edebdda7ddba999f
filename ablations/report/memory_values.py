"""Numbers about peak memory beyond one table of it: how it grows, and how good the predictions are."""

from typing import Any

import numpy as np
import pandas as pd

from ablations.report.conditions import CONDITIONS, split_by_conditions

FIXED_KINDS = ("parameters", "gradients", "optimizer", "input")
"""What takes as many bytes at every resolution, or is given; the rest of the peak grows."""

PAIRED_BY = ("variant", "frame", "arm", "attention", "pool_size", "mode", "precision", "batch_size", "resolution")
"""What a predicted and a measured record must have in common to be compared, on the CPU."""


def growth_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns how predicted memory grows in pixels between the two largest squares of each arm, and what of it grows.

    `exponent` is the slope of log(peak) against log(pixels), `growing_exponent` that of the peak without FIXED_KINDS.
    `scores_overtake_px` is the first size that was predicted at which explicit attention takes twice the fused kernel's
    peak or more, so that its score matrices outweigh all else; empty where it never does, and for fused attention.
    """
    rows: list[dict[str, Any]] = []
    peaks: dict[tuple, dict[int, int]] = {}
    if "bytes_at_peak" not in records:
        return pd.DataFrame()
    predicted = records[(records["method"] == "predicted") & records["arm"].notna()]
    for group in split_by_conditions(predicted, "memory"):
        for arm, own in group.rows.groupby("arm", sort=False):
            squares = own[own["resolution"].str.isdecimal()].sort_values("pixels")
            if len(squares) < 2:
                continue
            fixed = squares["bytes_at_peak"].map(lambda kinds: sum(kinds.get(kind, 0) for kind in FIXED_KINDS))
            pixels = np.log(squares["pixels"].to_numpy(dtype=float)[-2:])
            total = squares["peak_memory_bytes"].to_numpy(dtype=float)[-2:]
            growing = total - fixed.to_numpy(dtype=float)[-2:]
            key = (*(str(value) for name, value in group.conditions.items() if name != "attention"), str(arm))
            sides = squares["resolution"].astype(int)
            peaks[(group.conditions["attention"], *key)] = dict(zip(sides, squares["peak_memory_bytes"], strict=True))
            rows.append(
                {
                    **group.conditions,
                    "arm": arm,
                    "sizes": f"{squares['resolution'].iloc[-2]} to {squares['resolution'].iloc[-1]}",
                    "exponent": np.diff(np.log(total))[0] / np.diff(pixels)[0],
                    "growing_exponent": np.diff(np.log(growing))[0] / np.diff(pixels)[0],
                    "key": key,
                }
            )
    for row in rows:
        key = row.pop("key")
        explicit, fused = peaks.get(("explicit", *key), {}), peaks.get(("fused", *key), {})
        overtaken = [side for side in explicit if side in fused and explicit[side] >= 2 * fused[side]]
        row["scores_overtake_px"] = min(overtaken, default=None) if row["attention"] == "explicit" else None
    return pd.DataFrame(rows).astype({"scores_overtake_px": "Int64"}) if rows else pd.DataFrame()


def validation_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns predictions for the CPU beside what was tracked there on real tensors, and the difference in bytes."""
    if "method" not in records:
        return pd.DataFrame()
    memory = records[(records["measurement"] == "memory") & (records["device"] == "cpu") & records["arm"].notna()]
    columns = [*PAIRED_BY, "pixels", "peak_memory_bytes"]
    predicted = memory.loc[memory["method"] == "predicted", columns]
    tracked = memory.loc[memory["memory_method"] == "tracked_storages", [*columns, "torch"]]
    pairs = predicted.merge(tracked, on=[*PAIRED_BY, "pixels"], suffixes=("_predicted", "_tracked"))
    if pairs.empty:
        return pd.DataFrame()
    difference = pairs["peak_memory_bytes_predicted"] - pairs["peak_memory_bytes_tracked"]
    return pairs.assign(
        difference_bytes=difference, difference_percent=100 * difference / pairs["peak_memory_bytes_tracked"]
    )


GROWTH_CONDITIONS = (*CONDITIONS["memory"], "sizes")
