"""Where the time of our steps and of libraries' goes, by kind of operator, from the records of `speed --versus`."""

from collections import Counter
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis.grouping import refuse_mixed
from ablations.report.figures import legend_below
from ablations.report.library_values import BY_DEFAULT, LIBRARY_CONDITIONS, beside_libraries

OPERATOR_SHEET_CONDITIONS = ("variant", *LIBRARY_CONDITIONS)
"""What is equal within one panel of bars."""

KIND_COLOURS = {
    "matrix products": "#0072B2",
    "convolutions": "#009E73",
    "depth-wise convolutions": "#9ADBC0",
    "attention": "#D55E00",
    "normalisation": "#E69F00",
    "activations": "#F0E442",
    "additions and sums": "#CC79A7",
    "copies": "#882255",
    "optimizer": "#56B4E9",
    "other": "0.55",
}
"""The kinds of operators, in their order, and the colour of each."""

BETWEEN = "between operators"
"""The part of a step that no operator takes: Python, autograd, dispatch, launches and the profiler."""

_COLOURS = KIND_COLOURS | {BETWEEN: "0.85"}

OURS = "ours"


def column_of(kind: str, metric: str) -> str:
    """Returns the column of a kind's metric: `s`, `share` or `bound_s`."""
    return f"{kind.replace(' ', '_').replace('-', '_')}_{metric}"


def operator_time_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the time of a profiled step by kind of operator: a row for each case and model, ours and libraries'.

    `implementation` is `ours` or a library, whose models are in the default layout; `row` names it and the case. `KIND_s` are
    the seconds of a kind, the sum of its operators' medians over `profiled_steps` steps, `operators_s` those of all and
    `between_operators_s` the median rest of a step; `KIND_share` are shares of their sum, `profiled_over_timed` times
    the latency: the profiler takes time too. `relative_time`, with its interval's ends, is the model's time over ours
    without a profiler, steps interleaved. Our rows alone have `KIND_floor_s` and `bound_s`, the time on the machine of
    every operator at the rate of products or copies, `over_bound`, our latency over it, `share_of_peak` of
    `peak_macs_per_s`, `share_of_peak_at_bound`, which operators at their roofline would reach, and `uncounted`, the names
    of those that may do more than the roofline bound knows. Records from before steps were profiled interleaved are left out.
    """
    rows = []
    for group in beside_libraries(records):
        for _, record in group.rows.iterrows():
            if not isinstance(record.get("step_overhead_samples"), list):
                continue
            case = {**group.conditions, "resolution": record["resolution"], "pixels": record["pixels"]}
            case |= {"variant": record["variant"], "arm": record["arm"]}
            case["case"] = "{variant} {arm}, {resolution} px, batch {batch_size}".format(**record)
            rows.append(_row(case, OURS, record) | _floors(record))
            for library in BY_DEFAULT:
                reference = record["references"].get(library, {})
                if "operators" in reference:
                    rows.append(_row(case, library, reference))
    values = pd.DataFrame(rows)
    order = [name for name in ("device", "mode", "precision", "variant", "arm", "pixels") if name in values]
    return values.sort_values(order, kind="stable", ignore_index=True) if rows else values


def _row(case: dict[str, Any], implementation: str, timed: Any) -> dict[str, Any]:
    names = {"implementation": implementation, "row": f"{case['case']}, {implementation}"}
    ends = ("", "_low", "_high")
    relative = {f"relative_time{end}": 1.0 if implementation == OURS else timed[f"relative_speed{end}"] for end in ends}
    return {**case, **names, **relative, "noisy": timed["noisy"], **_shares(timed)}


def _shares(timed: Any) -> dict[str, Any]:
    """Returns the times and shares of a model, from our record or from what it has of a library."""
    seconds: Counter[str] = Counter()
    for row in timed["operators"]:
        seconds[row["kind"]] += row["seconds"]
    operators_s = seconds.total()
    seconds[BETWEEN] = timed["step_overhead_s"]
    return {
        "latency_s": timed["latency_s"],
        **{column_of(kind, "s"): seconds[kind] for kind in _COLOURS},
        "operators_s": operators_s,
        "profiled_steps": len(timed["step_overhead_samples"]),
        "profiled_over_timed": seconds.total() / timed["latency_s"],
        **{column_of(kind, "share"): seconds[kind] / seconds.total() for kind in _COLOURS},
    }


def _floors(record: pd.Series) -> dict[str, Any]:
    roofline = {row["kind"]: row["bound_s"] for row in record["roofline"]}
    bound_s = sum(roofline.values())
    share_of_peak = record["macs_per_s"] / record["peak_macs_per_s"]
    return {
        **{column_of(kind, "bound_s"): roofline.get(kind, 0.0) for kind in KIND_COLOURS},
        "bound_s": bound_s,
        "over_bound": record["latency_s"] / bound_s,
        "peak_macs_per_s": record["peak_macs_per_s"],
        "share_of_peak": share_of_peak,
        "share_of_peak_at_bound": share_of_peak * record["latency_s"] / bound_s,
        "uncounted": ", ".join(record["uncounted"]),
    }


HEADING = 1.2
GAP = 0.5
"""How high a case's heading is and how far cases are apart, in bars."""


def height_in_bars(values: pd.DataFrame) -> float:
    """Returns how high `plot_operator_times` draws these values, in bars."""
    return len(values) + values["case"].nunique() * (1 + HEADING + GAP)


def plot_operator_times(ax: Axes, values: pd.DataFrame, longest: float = 0.0) -> Axes:
    """Draws each model's time as a bar by kind of operator, ours = 1, and the roofline bound of our operators as a hollow bar.

    A bar is as long as the time without a profiler, and is divided as the profiled step was. `values` are rows of
    `operator_time_values` under the same conditions; the axis has room for `longest` at least.
    """
    refuse_mixed(values, OPERATOR_SHEET_CONDITIONS)
    places: list[float] = []
    roofline: dict[float, float] = {}
    labels: dict[float, str] = {}
    place = 0.0
    for case, rows in values.groupby("case", sort=False):
        ax.annotate(str(case), (0, place), (1, 0), textcoords="offset points", va="center", fontsize=6)
        place += HEADING
        for implementation in rows["implementation"]:
            places.append(place)
            labels[place] = implementation
            place += 1
        ours = rows[rows["implementation"] == OURS].iloc[0]
        roofline[place] = 1 / ours["over_bound"]
        labels[place] = "roofline bound"
        place += 1 + GAP
    start = pd.Series(0.0, index=values.index)
    for kind, colour in _COLOURS.items():
        width = values[column_of(kind, "share")] * values["relative_time"]
        ax.barh(places, width, left=start, height=0.8, color=colour, label=kind)
        start = start + width
    outline: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.7}
    ax.barh(list(roofline), list(roofline.values()), height=0.7, label="roofline bound of our operators", **outline)
    ax.set_xlim(0, 1.05 * max(longest, 1.0, values["relative_time"].max()))
    ax.set_ylim(-HEADING, place - GAP)
    ax.set_xlabel("Time of a step, ours = 1")
    legend_below(ax, ncols=2)
    ax.set_yticks(list(labels), list(labels.values()))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0, labelsize=5)
    return ax
