"""Speed: arms beside v1, our models beside libraries', and where the time of a step goes.

A ratio of speeds is over 1 where ours is faster. It is unresolved where its 95 % interval holds 1.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablations.analysis.grouping import (
    CONDITIONS,
    Group,
    cached_for_records,
    group_by,
    join_groups,
    name_changes,
    split_by_conditions,
    tabulated,
    without,
)
from ablations.measure.kinds import OPERATOR_KINDS

DRIFT = 0.1
"""The share by which v1's own latency may differ between the rows of a table before the table says so."""

LIBRARY_CONDITIONS = without(CONDITIONS["speed"], "variant", "resolution", "batch_size", "reference", "repeats")
"""What is equal within one table of models, sizes and batches beside libraries."""

THROUGHPUT_CONDITIONS = ("variant", "arm", *LIBRARY_CONDITIONS)
"""What is equal along one line of throughput against resolution."""

OPERATOR_CONDITIONS = ("variant", *LIBRARY_CONDITIONS)
"""What is equal within one panel of operators' times."""

LIBRARIES = ("timm", "timm, channels-last", "transformers", "transformers, channels-last")
"""The libraries' models that ours are timed beside; without a word of it, in the default layout."""

DEFAULT_LAYOUT = ("timm", "transformers")

FASTER_IN_DEFAULT, FASTEST = "the faster library in the default layout", "the fastest library in either layout"

OURS = "ours"

BETWEEN = "between operators"
"""The part of a step that no operator takes: Python, autograd, dispatch, launches and the profiler."""

STEP_PARTS = (*OPERATOR_KINDS, BETWEEN)

RESAMPLES = 2000
SEED = 0
"""Of the bootstrap: the same records give the same interval."""

_ENDS = ("", "_low", "_high")
_ORDER = ("device", "mode", "precision", "variant", "arm", "pixels")


def holds_one(low: float, high: float) -> bool:
    """Whether a ratio of speeds with this 95 % interval is unresolved: it may be 1."""
    return bool(low <= 1 <= high)


def geometric_mean(ratios: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Returns the geometric mean of the medians of rows, each a row's ratios step by step, and its 95 % interval.

    Twice as fast and half as fast weigh alike in it. The interval is between percentiles of a bootstrap, which draws
    each row's steps anew with replacement and keeps the rows: it holds the noise of timing, not the choice of models.
    It is rather too wide than too narrow: simulated, it covers 99 % at 9 and at 20 steps a row.
    """
    draws = np.random.default_rng(SEED)
    logs = [np.log(np.asarray(row, dtype=float)) for row in ratios]
    drawn = [np.median(row[draws.integers(len(row), size=(RESAMPLES, len(row)))], axis=1) for row in logs]
    low, high = np.exp(np.quantile(np.mean(drawn, axis=0), (0.025, 0.975)))
    return float(np.exp(np.mean([np.median(row) for row in logs]))), float(low), float(high)


@cached_for_records
def speed_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the latency and the speed of each arm beside v1.

    `relative_speed` is v1's time over the arm's, interleaved step by step: the median and its interval.
    `reference_latency_s` is the latency of v1 in the arm's own process, and `reference_drift` by which share the
    largest of a group is over the smallest. `normalised_latency_s` and `normalised_throughput_img_per_s` are what the
    arm reaches where v1 takes as long as beside the group's first arm, so that rows compare.
    """
    columns = ["relative_speed", "relative_speed_low", "relative_speed_high"]
    tables = []
    for group in split_by_conditions(_machine_peaks(records).query("reference == 'v1'"), "speed"):
        rows = group.rows
        reference = rows["reference_samples"].map(np.median)
        common = reference.iloc[0]
        table = rows[["arm", "latency_s"]].assign(
            latency_iqr_s=rows["latency_s"] * rows["iqr_over_median"],
            noisy=rows["noisy"],
            throughput_img_per_s=rows["throughput_img_per_s"],
            **{name: rows[name] for name in columns},
            share_of_peak=rows["macs_per_s"] / rows["peak_macs_per_s"],
            **_share_range(rows),
            reference_latency_s=reference,
            reference_drift=reference.max() / reference.min() - 1,
            normalised_latency_s=common / rows["relative_speed"],
            normalised_throughput_img_per_s=rows["batch_size"] * rows["relative_speed"] / common,
        )
        tables.append((group, table))
    return join_groups(tables)


@cached_for_records
def library_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns our latency, the machine's peak and our share of it, and our speed relative to each library's model.

    `NAME_ratio`, with `NAME_ratio_low` and `NAME_ratio_high`, is the library's time over ours, interleaved in one
    process with equal weights; NAME is `timm` or `transformers`, and either with `_channels_last`. `ratio` is the least
    of those in the default layout, so against the faster library, and `strictest_ratio` the least of all.
    """
    rows: list[dict[str, Any]] = []
    for case, record in _cases(records):
        references = record["references"]
        ratios = {name: each["relative_speed"] for name, each in references.items()}
        row = case | {
            "latency_s": record["latency_s"],
            "peak_macs_per_s": record["peak_macs_per_s"],
            "share_of_peak": record["macs_per_s"] / record["peak_macs_per_s"],
            "noisy": record["noisy"] or any(each["noisy"] for each in references.values()),
            "ratio": min(ratios[name] for name in DEFAULT_LAYOUT if name in ratios),
            "strictest_ratio": min(ratios.values()),
        }
        for name, each in references.items():
            row |= {f"{column_of(name)}_ratio{end}": each[f"relative_speed{end}"] for end in _ENDS}
        rows.append(row | _share_range(record) | {name: record[name] for name in _PEAKS})
    return pd.DataFrame(rows)


@tabulated
def library_means(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Returns the geometric mean over all rows of `library_values` of our speed relative to each library.

    `beside` is a library's model in one layout, or in each row the one that was fastest there. `ratio` is of all rows,
    `ratio_batch_1` and `ratio_larger_batches` of those of one image and of more, each with `_low` and `_high` and with
    its number of rows `n_`. `least_ratio` is the least of a row. Of all rows `n_above` have an interval above 1,
    `n_below` one below it, and the others are unresolved.
    """
    timed = [group.rows for group in beside_libraries(records)]
    for group in group_by(pd.concat(timed), LIBRARY_CONDITIONS) if timed else ():
        for beside in (*LIBRARIES, FASTER_IN_DEFAULT, FASTEST):
            chosen = [(record, _reference(record["references"], beside)) for _, record in group.rows.iterrows()]
            pairs = [(record, reference) for record, reference in chosen if reference]
            if not pairs:
                continue
            row = {**group.conditions, "beside": beside}
            batches = {
                "": pairs,
                "_batch_1": [pair for pair in pairs if pair[0]["batch_size"] == 1],
                "_larger_batches": [pair for pair in pairs if pair[0]["batch_size"] != 1],
            }
            for name, own in batches.items():
                steps = [np.divide(reference["samples"], record["samples"]) for record, reference in own]
                row[f"n_rows{name}"] = len(own)
                ratios = geometric_mean(steps) if own else (np.nan, np.nan, np.nan)
                row |= {f"ratio{name}{end}": value for end, value in zip(_ENDS, ratios, strict=True)}
            references = [reference for _, reference in pairs]
            row["least_ratio"] = min(reference["relative_speed"] for reference in references)
            row["n_above"] = sum(reference["relative_speed_low"] > 1 for reference in references)
            row["n_below"] = sum(reference["relative_speed_high"] < 1 for reference in references)
            yield row


def _reference(references: dict[str, dict[str, Any]], beside: str) -> dict[str, Any] | None:
    """Returns what a record has of a library's model, or of the one that was fastest in it; None where it has none."""
    if beside in LIBRARIES:
        return references.get(beside)
    names = DEFAULT_LAYOUT if beside == FASTER_IN_DEFAULT else LIBRARIES
    return min((references[name] for name in names if name in references), key=lambda each: each["relative_speed"])


@cached_for_records
def throughput_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of `library_values` with `pixels_per_s`, what our model takes in its median time.

    Each size of a model has one row: of several, that of the largest batch. The modes of a model follow on each other.
    """
    values = library_values(records)
    if values.empty:
        return values
    values = values.assign(pixels_per_s=values["pixels"] * values["batch_size"] / values["latency_s"])
    place = [name for name in (*THROUGHPUT_CONDITIONS, "pixels", "resolution") if name in values]
    values = values.sort_values("batch_size", kind="stable").drop_duplicates(place, keep="last")
    order = ["device", "precision", "variant", "arm", "mode", "pixels"]
    return values.sort_values(order, kind="stable", ignore_index=True)


@cached_for_records
def operator_time_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the time of a profiled step by kind of operator: a row for each case and model, ours and libraries'.

    `implementation` is `ours` or a library, whose model is in the default layout; `row` names it and the case. `KIND_s`
    are the seconds of a kind, the sum of its operators' medians over `profiled_steps` steps, `operators_s` those of all
    and `between_operators_s` the median rest of a step; `KIND_share` are shares of their sum, `profiled_over_timed`
    times the latency: the profiler takes time too. `relative_time`, with its interval's ends, is the model's time over
    ours without a profiler, steps interleaved. Our rows alone have the following. `KIND_bound_s` and their sum
    `bound_s` are the roofline bound: the time on the machine of every operator at the rate of products or copies.
    `over_bound` is our latency over it. `share_of_peak` is of `peak_macs_per_s`, and
    `share_of_peak_at_bound` what operators at their roofline bound would reach. `uncounted` names operators that may do
    more than the bound knows. Compiled models have no operators, and no row.
    """
    rows = []
    for case, record in _cases(records):
        if isinstance(record.get("operators"), list):
            rows.append(_times(case, OURS, record) | _bounds(record))
            libraries = [name for name in DEFAULT_LAYOUT if name in record["references"]]
            rows += [_times(case, name, record["references"][name]) for name in libraries]
    return pd.DataFrame(rows)


def beside_libraries(records: pd.DataFrame) -> list[Group]:
    """Returns the records of `speed --versus` in groups of equal conditions.

    Of a case that was timed several times, these are the records beside the most libraries, and of those that with the
    most repeats.
    """
    speeds = _machine_peaks(records)
    timed = name_changes(speeds[speeds["references"].notna()])
    case = [name for name in ("arm", *without(CONDITIONS["speed"], "reference", "repeats")) if name in timed]
    ranked = timed.assign(libraries=timed["references"].map(len)).sort_values(["libraries", "repeats"], kind="stable")
    best = ranked.drop_duplicates(case, keep="last").drop(columns="libraries").sort_index()
    return split_by_conditions(best, "speed")


_PEAKS = ("slowest_peak_macs_per_s", "fastest_peak_macs_per_s")


def _machine_peaks(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the records of speed with the least and the greatest peak that was measured on their machine.

    A measured peak drifts with the machine, so that a share of it is a range.
    """
    columns = ("references", "reference", "reference_samples", "macs_per_s", "peak_macs_per_s")
    speeds = records[records["measurement"] == "speed"]
    speeds = speeds.reindex(columns=list(dict.fromkeys([*speeds, *CONDITIONS["speed"], *columns])))
    machine = ["device", "device_name", "torch", "threads", "precision"]
    peaks = speeds.groupby(machine, dropna=False)["peak_macs_per_s"]
    return speeds.assign(**dict(zip(_PEAKS, (peaks.transform("min"), peaks.transform("max")), strict=True)))


def _share_range(rows: Any) -> dict[str, Any]:
    slowest, fastest = (rows[name] for name in _PEAKS)
    return {"share_of_peak_low": rows["macs_per_s"] / fastest, "share_of_peak_high": rows["macs_per_s"] / slowest}


def column_of(name: str, metric: str = "") -> str:
    """Returns the words of a name as those of a column, before a metric: `s`, `share` or `bound_s`."""
    return "_".join(re.findall(r"\w+", f"{name} {metric}"))


def _cases(records: pd.DataFrame) -> list[tuple[dict[str, Any], pd.Series]]:
    """Returns the conditions and place of each record of `beside_libraries`, and the record, sorted."""
    cases = []
    for group in beside_libraries(records):
        for _, record in group.rows.iterrows():
            place = {name: record[name] for name in ("resolution", "pixels", "variant", "arm")}
            case = "{variant} {arm}, {resolution} px, batch {batch_size}".format(**record)
            cases.append(({**group.conditions, **place, "case": case}, record))
    return sorted(cases, key=lambda each: [each[0][name] for name in _ORDER])


def _times(case: dict[str, Any], implementation: str, timed: Any) -> dict[str, Any]:
    """Returns the times and shares of a model, from our record or from what it has of a library."""
    seconds: Counter[str] = Counter()
    for operator in timed["operators"]:
        seconds[operator["kind"]] += operator["seconds"]
    operators_s = seconds.total()
    seconds[BETWEEN] = timed["step_overhead_s"]
    is_ours = implementation == OURS
    return {
        **case,
        "implementation": implementation,
        "row": f"{case['case']}, {implementation}",
        **{f"relative_time{end}": 1.0 if is_ours else timed[f"relative_speed{end}"] for end in _ENDS},
        "noisy": timed["noisy"],
        "latency_s": timed["latency_s"],
        **{column_of(part, "s"): seconds[part] for part in STEP_PARTS},
        "operators_s": operators_s,
        "profiled_steps": len(timed["step_overhead_samples"]),
        "profiled_over_timed": seconds.total() / timed["latency_s"],
        **{column_of(part, "share"): seconds[part] / seconds.total() for part in STEP_PARTS},
    }


def _bounds(record: pd.Series) -> dict[str, Any]:
    roofline = {row["kind"]: row["bound_s"] for row in record["roofline"]}
    bound_s = sum(roofline.values())
    share_of_peak = record["macs_per_s"] / record["peak_macs_per_s"]
    return {
        **{column_of(kind, "bound_s"): roofline.get(kind, 0.0) for kind in OPERATOR_KINDS},
        "bound_s": bound_s,
        "over_bound": record["latency_s"] / bound_s,
        "peak_macs_per_s": record["peak_macs_per_s"],
        "share_of_peak": share_of_peak,
        "share_of_peak_at_bound": share_of_peak * record["latency_s"] / bound_s,
        "uncounted": ", ".join(record["uncounted"]),
        **_share_range(record),
        **{name: record[name] for name in _PEAKS},
    }
