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
        Column("Of the peak, %", show_plain("share_of_peak", ".1f", 0.01)),
        Column("Of the peak at the floor, %", show_plain("share_of_peak_at_floor", ".1f", 0.01)),
    ),
    about=(
        "Shares of a profiled step by kind of operator, medians of several steps. What is between operators is Python, "
        "autograd, dispatch and launches; there and in other, the profiler's own time is too, which weighs in small "
        "models: the profiled step's time over the timed one's stands beside the shares. Attention is the fused "
        "kernel, or the softmax of explicit attention, whose products are matrix products; other are views, "
        "allocation, scaling and the loss. The floor is the time of our operators, each run by itself at the "
        "machine's rates: the larger of its multiply-adds at the peak of large matrix products and the bytes of its "
        "tensors at the rate of a copy that moves as many, in a cache where they fit, both measured in the same "
        "process. Operators that write where they have read (the optimizer, the addition of biases) may be up to half "
        "as fast again as a copy, and so be below their floor. Of the peak is the share of that first peak that a step "
        "reaches, and would reach with every operator at its floor: past that only fewer or fused operators lead. "
        "Training counts as three forward passes there."
    ),
    note=_note,
)
"""Our own rows; those of libraries are in the figure."""
