"""The tables of speed: arms beside v1, our models beside libraries', and where the time of a step goes."""

from collections.abc import Callable
from functools import partial

import pandas as pd

from ablations.analysis.grouping import CONDITIONS
from ablations.records import METRICS
from ablations.report.library_values import LIBRARY_CONDITIONS, geometric_mean, library_values
from ablations.report.operator_values import BETWEEN, KIND_COLOURS, OURS, column_of, operator_time_values
from ablations.report.tables import (
    ARM,
    MODE_WORDS,
    NOTHING,
    Column,
    Table,
    range_text,
    show_metric,
    show_plain,
    unless_reference,
)
from ablations.report.values import speed_values


def _speed_note(values: pd.DataFrame) -> str:
    noisy = ", ".join(values.loc[values["noisy"].astype(bool), "arm"])
    repeats = f"n = {values['repeats'].iloc[0]} timed steps of each arm."
    return f"{MODE_WORDS[values['mode'].iloc[0]]} {repeats} Noisy: {noisy or 'none'}."


def _speed_interval(row: pd.Series) -> str:
    text = range_text(row, "relative_speed", ".3f")
    return f"{text}, unresolved" if row["relative_speed_low"] <= 1 <= row["relative_speed_high"] else text


def _relative_time(row: pd.Series) -> str:
    if row["implementation"] == OURS:
        return NOTHING
    return f"{row['relative_time']:.2f} ({range_text(row, 'relative_time', '.2f')})"


def _library_ratio(name: str) -> Callable[[pd.Series], str]:
    def show(row: pd.Series) -> str:
        if pd.isna(row.get(f"{name}_ratio")):
            return NOTHING
        return f"{row[f'{name}_ratio']:.2f} ({range_text(row, f'{name}_ratio', '.2f')})"

    return show


def _mean_of(values: pd.DataFrame) -> str:
    return f"Geometric mean of {len(values)} rows" if len(values) > 1 else "One row"


def _library_note(values: pd.DataFrame) -> str:
    default, strictest = (geometric_mean(values[name]) for name in ("ratio", "strictest_ratio"))
    return (
        f"{MODE_WORDS[values['mode'].iloc[0]]} {_mean_of(values)}: {default:.2f} times as fast as the faster library "
        f"in the default layout (least {values['ratio'].min():.2f}), {strictest:.2f} times as fast as the fastest in either "
        f"layout (least {values['strictest_ratio'].min():.2f})."
    )


def _show_share(kind: str) -> Callable[[pd.Series], str]:
    return lambda row: f"{100 * share:.1f}" if (share := row[column_of(kind, "share")]) else NOTHING


def _operator_note(values: pd.DataFrame) -> str:
    ours = values[values["implementation"] == OURS]
    uncounted = ", ".join(f"`{name}`" for name in dict.fromkeys(filter(None, ours["uncounted"])))
    without = f" MACs that nobody counted may be in {uncounted}." if uncounted else ""
    mode, profiled = (ours[name].iloc[0] for name in ("mode", "profiled_steps"))
    return (
        f"{MODE_WORDS[mode]} {profiled} profiled steps of each model. {_mean_of(ours)} of ours: "
        f"{geometric_mean(ours['over_bound']):.2f} times the roofline bound.{without}"
    )


_BesideLibraries = partial(
    Table, measurement="speed", conditions=LIBRARY_CONDITIONS, titled_by=("mode", "device", "precision")
)
_CASE = Column("Model", lambda row: row["case"])
_N = Column("n", show_plain("repeats", "d"))
_LATENCY = Column(METRICS["latency_s"].title, show_metric("latency_s"))
_PEAK = Column("Peak, GMAC/s", show_plain("peak_macs_per_s", ".0f", 1e9))
_OF_THE_PEAK = Column("Of the peak, %", show_plain("share_of_peak", ".1f", 0.01))
_NOISY = Column("Noisy", lambda row: "noisy" if row["noisy"] else "")

SPEED_TABLES = (
    Table(
        name="speed",
        measurement="speed",
        title="Speed",
        values=speed_values,
        conditions=CONDITIONS["speed"],
        titled_by=("variant", "base", "mode", "resolution", "device"),
        columns=(
            ARM,
            Column(METRICS["latency_s"].title, show_metric("latency_s"), best="min"),
            Column("IQR, ms", show_metric("latency_s", "latency_iqr_s")),
            Column(METRICS["throughput_img_per_s"].title, show_metric("throughput_img_per_s"), best="max"),
            Column(METRICS["relative_speed"].label, unless_reference(show_plain("relative_speed", ".3f")), best="max"),
            Column("95 % interval", unless_reference(_speed_interval)),
            _OF_THE_PEAK,
            _NOISY,
        ),
        about=(
            "Median and interquartile range (IQR) of step times. Speed relative to v1 is the median ratio to v1's "
            "steps, timed interleaved in one process, with its 95 % interval, unresolved where that holds 1; the "
            "latencies of two rows were taken at different moments and compare less well. A row is noisy where its "
            "IQR is over 10 % of its median. The peak is the MACs a second of large matrix products, measured "
            "in the same process; training counts three times the MACs of inference. All of it holds for one "
            "machine, batch and size."
        ),
        note=_speed_note,
    ),
    _BesideLibraries(
        name="speed_libraries",
        title="Speed beside timm and transformers",
        values=library_values,
        rows_by="case",
        columns=(
            _CASE,
            _N,
            _LATENCY,
            _PEAK,
            _OF_THE_PEAK,
            *(
                Column(title, _library_ratio(name))
                for title, name in (
                    ("timm = 1", "timm"),
                    ("timm, channels-last = 1", "timm_channels_last"),
                    ("transformers = 1", "transformers"),
                    ("transformers, channels-last = 1", "transformers_channels_last"),
                )
            ),
            _NOISY,
        ),
        about=(
            "How fast our models are as a multiple of the same models of libraries, with equal weights and outputs "
            "that were compared first: the library's time over ours, median and 95 % interval, n steps of each in "
            "turn in one process whose allocator keeps freed memory. Libraries' models are timed in the default layout and "
            "with images and weights channels-last. timm's attend with the fused kernel, transformers' explicitly. "
            "A row is noisy where an IQR is over 10 % of its median."
        ),
        note=_library_note,
    ),
    _BesideLibraries(
        name="speed_operators",
        title="Where the time of a step goes",
        values=operator_time_values,
        rows_by="row",
        columns=(
            _CASE,
            Column("Implementation", lambda row: row["implementation"]),
            _N,
            _LATENCY,
            Column("Time, ours = 1", _relative_time),
            _NOISY,
            *(Column(f"{kind.capitalize()}, %", _show_share(kind)) for kind in (*KIND_COLOURS, BETWEEN)),
            Column("Profiled over timed", show_plain("profiled_over_timed", ".2f")),
            Column("Roofline bound, ms", show_metric("latency_s", "bound_s")),
            Column("Latency over roofline bound", show_plain("over_bound", ".2f")),
            _PEAK,
            _OF_THE_PEAK,
            Column("Of the peak at the roofline bound, %", show_plain("share_of_peak_at_bound", ".1f", 0.01)),
        ),
        about=(
            "Time is the library's over ours, the median of n steps interleaved with its 95 % interval; latencies of two "
            "rows compare less well. Shares are of a profiled step: the medians of all operators of a kind, over the "
            "sum of all and of the median rest. Libraries' models are in the default layout, and all are profiled interleaved. "
            "Between operators is that rest: Python, autograd, dispatch, launches and the profiler's own time, some "
            "of which is in other too and weighs in small models. Profiled over timed is this sum as a multiple of "
            "the latency; the machine's drift between the two is in it. Attention is the fused kernel, or the softmax "
            "of explicit attention, whose products are matrix products; other are views, allocation, scaling and the "
            "loss. The roofline bound is how long the operators that our step is made of would take at the machine's rates, "
            "each by itself: its MACs at the rate of large matrix products (the peak), or the bytes of its "
            "tensors at the rate of a copy of as many, in a cache where they fit, whichever is longer. Both rates are "
            "measured once in a process, so that the machine's drift since is in what rests on them. It is no bound "
            "of what the model could take: other operators for the same numbers have another roofline bound, as a bias that is "
            "added within a product takes no pass over memory, and operators that write where they have read (the "
            "optimizer, the addition of biases) may be up to half as fast again as a copy. Of the peak is the share "
            "of it that the step reaches, and would reach with every operator at its roofline bound; MACs of training "
            "count as three forward passes in both."
        ),
        note=_operator_note,
    ),
)
