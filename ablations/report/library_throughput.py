"""How many pixels a second our models take, and the same models of libraries, against the size of the input."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis.grouping import refuse_mixed
from ablations.report.figures import legend_below, log_ticks, resolution_axis, side
from ablations.report.library_values import LIBRARY_CONDITIONS, LIBRARY_STYLES, library_values

THROUGHPUT_CONDITIONS = ("variant", "arm", *LIBRARY_CONDITIONS)
"""What is equal along one line."""

OURS: dict[str, Any] = {"color": "black", "marker": "^", "markersize": 5, "linewidth": 1.6, "zorder": 3}
"""How our model's line is drawn: not in its arm's colour, which may be a library's."""

APART = 1.04
"""Ratio of the sides at which libraries timed at the same size are drawn, so that their intervals are seen."""


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
    order = [name for name in ("device", "precision", "variant", "arm", "mode", "pixels") if name in values]
    return values.sort_values(order, kind="stable", ignore_index=True)


def plot_throughput(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws pixels a second against the side of the input on logarithmic axes, of our model and each library's.

    A library's is ours over the ratio of times that were taken interleaved, with that ratio's interval; libraries stand
    side by side around the size. `values` are rows of `throughput_values` of one model and mode; squares are drawn.
    """
    refuse_mixed(values, THROUGHPUT_CONDITIONS)
    values = values[values["resolution"].str.isdecimal()]
    ours = values["pixels_per_s"] / 1e6
    ax.plot(side(values), ours, label="ours", **OURS)
    present = [name for name in LIBRARY_STYLES if f"{name}_ratio" in values and values[f"{name}_ratio"].notna().any()]
    for place, name in enumerate(present):
        label, colour, marker, filling = LIBRARY_STYLES[name]
        theirs, low, high = (ours / values[f"{name}_ratio{end}"] for end in ("", "_high", "_low"))
        look: dict[str, Any] = {"color": colour, "marker": marker, "fillstyle": filling, "markersize": 4}
        sides = side(values) * APART ** (place - (len(present) - 1) / 2)
        ax.errorbar(sides, theirs, yerr=[theirs - low, high - theirs], label=label, linewidth=1, **look)
    log_ticks(ax)
    ax.set_ylabel("Throughput, million px/s")
    resolution_axis(ax, values)
    sizes, batches = values["resolution"], values["batch_size"]
    ax.set_xticks(side(values), [f"{size}\nbatch {batch}" for size, batch in zip(sizes, batches, strict=True)])
    legend_below(ax)
    return ax
