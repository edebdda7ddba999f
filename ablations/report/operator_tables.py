"""The table of where the time of a step goes, and of how far it is from the machine's floor."""

from collections.abc import Callable

import pandas as pd

from ablations.records import METRICS
from ablations.report.library_values import LIBRARY_CONDITIONS, geometric_mean
from ablations.report.operator_values import BETWEEN, KIND_COLOURS, column_of, own_operator_values
from ablations.report.tables import MODE_WORDS, NOTHING, Column, Table, show_metric, show_plain


def _show_share(kind: str) -> Callable[[pd.Series], str]:
    return lambda row: f"{100 * share:.1f}" if (share := row[column_of(kind, "share")]) else NOTHING


def _note(values: pd.DataFrame) -> str:
    uncounted = ", ".join(f"`{name}`" for name in dict.fromkeys(filter(None, values["uncounted"])))
    without = f" Multiply-adds that nobody counted may be in {uncounted}." if uncounted else ""
    return (
        f"{MODE_WORDS[values['mode'].iloc[0]]} Geometric mean of {len(values)} rows: "
        f"{geometric_mean(values['over_floor']):.2f} times the floor.{without}"
    )


OPERATOR_TABLE = Table(
    name="speed_operators",
    measurement="speed",
    title="Where the time of our steps goes",
    values=own_operator_values,
    conditions=LIBRARY_CONDITIONS,
    titled_by=("mode", "device", "precision"),
    rows_by="case",
    columns=(
        Column("Model", lambda row: row["case"]),
        Column(METRICS["latency_s"].title, show_metric("latency_s")),
        *(Column(f"{kind.capitalize()}, %", _show_share(kind)) for kind in (*KIND_COLOURS, BETWEEN)),
        Column("Profiled over timed", show_plain("profiled_over_timed", ".2f")),
        Column("Floor, ms", show_metric("latency_s", "floor_s")),
        Column("Latency over floor", show_plain("over_floor", ".2f")),
        Column("Peak, GMAC/s", show_plain("peak_macs_per_s", ".0f", 1e9)),
        Column("Of the peak, %", show_plain("share_of_peak", ".1f", 0.01)),
        Column("Of the peak at the floor, %", show_plain("share_of_peak_at_floor", ".1f", 0.01)),
    ),
    about=(
        "Shares of a profiled step by kind of operator, medians of several steps. Between operators is what Python, "
        "autograd, dispatch and launches take. There and in other is the profiler's own time, which weighs in small "
        "models: profiled over timed is how long the step took with it, as a multiple of the latency; the machine's "
        "drift between the two is in it. Attention is the fused kernel, or the softmax of explicit attention, whose "
        "products are matrix products; other are views, allocation, scaling and the loss. The floor is how long our "
        "operators would take at the machine's rates, each operator by itself: its multiply-adds at the rate of large "
        "matrix products (the peak), or the bytes of its tensors at the rate of a copy of as many, in a cache where "
        "they fit, whichever is longer. Both rates were measured in the row's process: where the peak differs between "
        "rows the machine ran at another speed, and their shares of it compare less well. It is no strict bound: "
        "operators that write where they have read (the optimizer, the addition of biases) may be up to half as fast "
        "again as a copy. Of the peak is the share of it that the step reaches, and would reach with every operator at "
        "its floor; multiply-adds of training count as three forward passes in both."
    ),
    note=_note,
)
"""Our own rows; those of libraries are in the figure."""
