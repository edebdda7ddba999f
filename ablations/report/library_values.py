"""How fast our models are beside the same models of libraries, from the records of `speed --versus`."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis.grouping import CONDITIONS, Group, split_by_conditions
from ablations.report.figures import GREY, legend_below, list_rows

OF_A_ROW = ("variant", "resolution", "batch_size", "reference", "repeats")

LIBRARY_CONDITIONS = tuple(name for name in CONDITIONS["speed"] if name not in OF_A_ROW)
"""What is equal within one table of models, sizes and batches."""

BY_DEFAULT = ("timm", "transformers")
"""The libraries' models in the default layout: images and weights channels-first."""


def library_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns our latency, the machine's peak and our share of it, and our speed relative to each library's model.

    `NAME_ratio`, with `NAME_ratio_low` and `NAME_ratio_high`, is the library's time over ours, interleaved in one process
    with equal weights; NAME is `timm`, `transformers`, and either in channels-last layout. `ratio` is the least of
    those of BY_DEFAULT, so against the faster library, and `strictest_ratio` the least of all.
    """
    rows: list[dict[str, Any]] = []
    for group in beside_libraries(records):
        for _, record in group.rows.iterrows():
            references: dict[str, dict[str, Any]] = record["references"]
            ratios = {name: each["relative_speed"] for name, each in references.items()}
            row = {**group.conditions, "resolution": record["resolution"], "pixels": record["pixels"]}
            row |= {
                "arm": record["arm"],
                "case": "{variant} {arm}, {resolution} px, batch {batch_size}".format(**record),
                "latency_s": record["latency_s"],
                "peak_macs_per_s": record["peak_macs_per_s"],
                "share_of_peak": record["macs_per_s"] / record["peak_macs_per_s"],
                "noisy": record["noisy"] or any(each["noisy"] for each in references.values()),
                "ratio": min(ratios[name] for name in BY_DEFAULT if name in ratios),
                "strictest_ratio": min(ratios.values()),
            }
            for name, each in references.items():
                for end in ("", "_low", "_high"):
                    row[f"{name.replace(', channels-last', '_channels_last')}_ratio{end}"] = each[
                        f"relative_speed{end}"
                    ]
            rows.append(row)
    values = pd.DataFrame(rows)
    order = [name for name in ("device", "mode", "precision", "variant", "arm", "pixels") if name in values]
    return values.sort_values(order, kind="stable", ignore_index=True) if rows else values


def beside_libraries(records: pd.DataFrame) -> list[Group]:
    """Returns the records of `speed --versus` in groups of equal conditions.

    Of a case that was timed several times, these are the records beside the most libraries, and of those that with the
    most repeats.
    """
    if "references" not in records:
        return []
    groups = split_by_conditions(records[records["references"].notna()], "speed")
    if not groups:
        return []
    timed = pd.concat([group.rows for group in groups])
    case = [name for name in ("arm", *CONDITIONS["speed"]) if name in timed and name not in ("reference", "repeats")]
    ranked = timed.assign(libraries=timed["references"].map(len)).sort_values(["libraries", "repeats"], kind="stable")
    return split_by_conditions(ranked.drop_duplicates(case, keep="last").sort_index(), "speed")


LIBRARY_STYLES = {
    "timm": ("timm", "#D55E00", "o", "full"),
    "timm_channels_last": ("timm, channels-last", "#D55E00", "o", "none"),
    "transformers": ("transformers", "#0072B2", "s", "full"),
    "transformers_channels_last": ("transformers, channels-last", "#0072B2", "s", "none"),
}
"""How each library's model is named and drawn: its words, colour, marker and filling."""


def plot_libraries(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws our speed relative to each library's model with its interval, a row a case, on a logarithmic axis.

    `values` are rows of `library_values` under the same conditions.
    """
    ax.axvline(1, color=GREY, linewidth=1)
    present = [name for name in LIBRARY_STYLES if f"{name}_ratio" in values]
    for place, name in enumerate(present):
        label, colour, marker, filling = LIBRARY_STYLES[name]
        ratio, low, high = (values[f"{name}_ratio{end}"] for end in ("", "_low", "_high"))
        heights = [row + 0.18 * (place - (len(present) - 1) / 2) for row in range(len(values))]
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "fillstyle": filling,
            "markersize": 4,
            "linewidth": 1,
        }
        ax.errorbar(ratio, heights, xerr=[ratio - low, high - ratio], linestyle="none", label=label, **style)
    ax.set_xscale("log")
    ax.set_xticks([0.75, 1, 1.5, 2, 3], ["0.75", "1", "1.5", "2", "3"])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("Speed relative to the library (over 1 is faster)")
    ax.set_ylim(-0.6, len(values) - 0.4)
    legend_below(ax)
    cases = values["case"] + ", n = " + values["repeats"].astype(str)
    list_rows(ax, [case.replace(", ", "\n", 1) for case in cases])
    ax.tick_params(axis="y", labelsize=6)
    return ax


def geometric_mean(ratios: pd.Series) -> float:
    """Returns the geometric mean, which treats twice as fast and half as fast alike."""
    return float(np.exp(np.log(ratios.astype(float)).mean()))
