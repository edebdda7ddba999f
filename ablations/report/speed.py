"""Speed: its tables and figures."""

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis.grouping import CONDITIONS, group_by, refuse_mixed
from ablations.analysis.speed import (
    BETWEEN,
    DRIFT,
    LIBRARIES,
    LIBRARY_CONDITIONS,
    OPERATOR_CONDITIONS,
    OPERATOR_KINDS,
    OURS,
    RESAMPLES,
    SEED,
    STEP_PARTS,
    THROUGHPUT_CONDITIONS,
    column_of,
    holds_one,
    library_means,
    library_values,
    operator_time_values,
    speed_values,
    throughput_values,
)
from ablations.measure.metrics import METRICS
from ablations.report.figures import (
    FEWEST_ARMS,
    GREY,
    FigureSpec,
    Panel,
    group_panels,
    has_sizes,
    legend_below,
    list_arms,
    list_rows,
    log_ticks,
    plot_interval,
    resolution_axis,
    side,
)
from ablations.report.tables import (
    ARM,
    MODE_WORDS,
    NOTHING,
    Column,
    Show,
    Table,
    metric_text,
    range_text,
    show_metric,
    show_plain,
    unless_reference,
)


def _ratio_text(row: pd.Series, name: str, form: str = ".2f") -> str:
    """Returns a ratio with its 95 % interval, and whether it is unresolved."""
    if pd.isna(row.get(name)):
        return NOTHING
    ratio, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{ratio:{form}} ({low:{form}} to {high:{form}}){', unresolved' if holds_one(low, high) else ''}"


def _show_ratio(name: str, form: str = ".2f") -> Show:
    return lambda row: _ratio_text(row, name, form)


def _show_between(low: str, high: str, form: str, divisor: float) -> Show:
    """Shows two ends as a range, or as one number where they are shown alike."""

    def show(row: pd.Series) -> str:
        if pd.isna(row[low]):
            return NOTHING
        return " to ".join(dict.fromkeys(f"{row[end] / divisor:{form}}" for end in (low, high)))

    return show


def _speed_interval(row: pd.Series) -> str:
    text = range_text(row, "relative_speed", ".3f")
    return f"{text}, unresolved" if holds_one(row["relative_speed_low"], row["relative_speed_high"]) else text


def _speed_note(values: pd.DataFrame) -> str:
    noisy = ", ".join(values.loc[values["noisy"].astype(bool), "arm"])
    reference, drift = values["reference_latency_s"], values["reference_drift"].iloc[0]
    least, most = (metric_text("latency_s", latency) for latency in (reference.min(), reference.max()))
    drifted = f"v1 drifted: its own latency was {least} to {most} ms from row to row, {100 * drift:.0f} % apart."
    steady = f"v1's own latency was {least} to {most} ms from row to row."
    return (
        f"{MODE_WORDS[values['mode'].iloc[0]]} n = {values['repeats'].iloc[0]} timed steps of each arm. "
        f"{drifted if drift > DRIFT else steady} Noisy: {noisy or 'none'}."
    )


def _library_note(values: pd.DataFrame) -> str:
    return f"{MODE_WORDS[values['mode'].iloc[0]]} Means over the rows stand in speed_libraries_mean."


def _mean_note(values: pd.DataFrame) -> str:
    return MODE_WORDS[values["mode"].iloc[0]]


def _show_resolved(row: pd.Series) -> str:
    return f"{row['n_above']} / {row['n_rows'] - row['n_above'] - row['n_below']} / {row['n_below']}"


def _relative_time(row: pd.Series) -> str:
    return NOTHING if row["implementation"] == OURS else _ratio_text(row, "relative_time")


def _show_share(kind: str) -> Show:
    return lambda row: f"{100 * share:.1f}" if (share := row[column_of(kind, "share")]) else NOTHING


def _operator_note(values: pd.DataFrame) -> str:
    ours = values[values["implementation"] == OURS]
    bounds = dict.fromkeys(f"{ours['over_bound'].agg(end):.2f}" for end in ("min", "max"))
    uncounted = ", ".join(f"`{name}`" for name in dict.fromkeys(filter(None, ours["uncounted"])))
    without = f" MACs that nobody counted may be in {uncounted}." if uncounted else ""
    return (
        f"{MODE_WORDS[ours['mode'].iloc[0]]} {ours['profiled_steps'].iloc[0]} profiled steps of each model. Ours take "
        f"{' to '.join(bounds)} times the roofline bound.{without}"
    )


_BesideLibraries = partial(
    Table, measurement="speed", conditions=LIBRARY_CONDITIONS, titled_by=("mode", "device", "precision")
)
_CASE = Column("Model", lambda row: row["case"])
_N = Column("n", show_plain("repeats", "d"))
_LATENCY = Column(METRICS["latency_s"].title, show_metric("latency_s"))
_PEAK = Column("Peak, GMAC/s", _show_between("slowest_peak_macs_per_s", "fastest_peak_macs_per_s", ".0f", 1e9))
_OF_THE_PEAK = Column("Of the peak, %", _show_between("share_of_peak_low", "share_of_peak_high", ".1f", 0.01))
_NOISY = Column("Noisy", lambda row: "noisy" if row["noisy"] else "")

_PEAK_WORDS = (
    "The peak is the MACs a second of large matrix products, measured once in each process. It drifts, so that it and "
    "shares of it are ranges where several processes of this machine measured it; MACs of training count as three "
    "forward passes."
)
_NOISY_WORDS = "A row is noisy where an interquartile range of its times is over 10 % of their median."
_UNRESOLVED_WORDS = "A ratio is unresolved where its 95 % interval holds 1."

TABLES = (
    Table(
        name="speed",
        measurement="speed",
        title="Speed",
        values=speed_values,
        conditions=CONDITIONS["speed"],
        titled_by=("variant", "base", "mode", "resolution", "device"),
        columns=(
            ARM,
            Column(METRICS["relative_speed"].label, unless_reference(show_plain("relative_speed", ".3f"))),
            Column("95 % interval", unless_reference(_speed_interval)),
            Column(f"{METRICS['latency_s'].title}, v1-normalised", show_metric("latency_s", "normalised_latency_s")),
            Column(
                f"{METRICS['throughput_img_per_s'].title}, v1-normalised",
                show_metric("throughput_img_per_s", "normalised_throughput_img_per_s"),
            ),
            Column("v1 beside it, ms", show_metric("latency_s", "reference_latency_s")),
            Column("IQR, %", lambda row: f"{100 * row['latency_iqr_s'] / row['latency_s']:.1f}"),
            _OF_THE_PEAK,
            _NOISY,
        ),
        about=(
            "Speed relative to v1 is the median ratio of v1's step times to the arm's, timed interleaved in one "
            f"process, with its 95 % interval. {_UNRESOLVED_WORDS} Rows were timed one after another while the machine "
            "drifts, so latency and throughput are v1-normalised: what the ratio makes of the latency that v1 has in "
            "the first row. The latency of v1 beside each arm shows the drift; the note says where it is over "
            f"{100 * DRIFT:.0f} %. The CSV has each arm's own latency. IQR is the interquartile range of its times "
            f"in percent of their median. {_NOISY_WORDS} {_PEAK_WORDS} All of it holds for one machine, batch and size."
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
            *(Column(f"{name} = 1", _show_ratio(f"{column_of(name)}_ratio")) for name in LIBRARIES),
            _NOISY,
        ),
        about=(
            "Our speed relative to the same models of libraries, with equal weights and outputs that were compared "
            "first: the library's time over ours, median and 95 % interval over n steps of each, timed interleaved in "
            f"one process whose allocator keeps freed memory. {_UNRESOLVED_WORDS} Libraries' models are timed in the "
            "default layout and with images and weights channels-last, which ours always has. timm's attend with the "
            "fused kernel, transformers' explicitly. Rows were timed one after another, and their latencies compare "
            f"less well than ratios. {_NOISY_WORDS} {_PEAK_WORDS}"
        ),
        note=_library_note,
    ),
    _BesideLibraries(
        name="speed_libraries_mean",
        title="Speed beside timm and transformers, mean over models and sizes",
        values=library_means,
        rows_by="beside",
        columns=(
            Column("Beside", lambda row: row["beside"]),
            Column("Rows", show_plain("n_rows", "d")),
            Column("All rows", _show_ratio("ratio", ".3f")),
            Column("Batch 1", _show_ratio("ratio_batch_1", ".3f")),
            Column("Larger batches", _show_ratio("ratio_larger_batches", ".3f")),
            Column("Least row", show_plain("least_ratio", ".2f")),
            Column("Rows faster / unresolved / slower", _show_resolved),
        ),
        about=(
            "Our speed relative to each library: the geometric mean over the rows of speed_libraries, with its 95 % "
            f"interval by a bootstrap over steps ({RESAMPLES:,} times, each row's interleaved steps drawn anew, seed "
            f"{SEED}). The rows stay the same: the interval holds the noise of timing, not the choice of models, sizes "
            f"and machine. {_UNRESOLVED_WORDS} In the default layout libraries' models copy between layouts "
            "(speed_operators has the time), which weighs most in large images at batch 1."
        ),
        note=_mean_note,
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
            *(Column(f"{part.capitalize()}, %", _show_share(part)) for part in STEP_PARTS),
            Column("Profiled over timed", show_plain("profiled_over_timed", ".2f")),
            Column("Roofline bound, ms", show_metric("latency_s", "bound_s")),
            Column("Latency over roofline bound", show_plain("over_bound", ".2f")),
            _PEAK,
            _OF_THE_PEAK,
            Column("Of the peak at the roofline bound, %", show_plain("share_of_peak_at_bound", ".1f", 0.01)),
        ),
        about=(
            "Time is the library's over ours, the median of n interleaved steps with its 95 % interval. "
            f"{_UNRESOLVED_WORDS} Latencies of two rows compare less well. Shares are of a profiled step: the medians "
            "of all operators of a kind, over the sum of all and of the median rest. All models are profiled "
            "interleaved, libraries' in the default layout. Between operators is that rest: Python, autograd, "
            "dispatch, launches and the profiler's own time, some of which is in other too and weighs in small models. "
            "Profiled over timed is this sum as a multiple of the latency; the machine's drift between the two is in "
            "it. Attention is the fused kernel, or the softmax of explicit attention, whose products are matrix "
            "products; other are views, allocation, scaling and the loss. The roofline bound is how long the operators "
            "of our step would take at the machine's rates, each by itself: its MACs at the peak, or the bytes of its "
            "tensors at the rate of a copy of as many, in a cache where they fit, whichever is longer. Both rates are "
            "measured once in a process, so that the machine's drift since is in the bound. It does not bound what the "
            "model could take: other operators for the same numbers have another bound (a bias added within a product "
            "takes no pass over memory), and operators that write where they have read (the optimizer, the addition of "
            "biases) may be up to half as fast again as a copy. Of the peak at the roofline bound is the share that "
            f"the step would reach with every operator at its bound, by its own process's peak. {_PEAK_WORDS}"
        ),
        note=_operator_note,
    ),
)

LIBRARY_STYLES: dict[str, dict[str, Any]] = {
    name: {"color": colour, "marker": marker, "fillstyle": filling, "markersize": 4, "linewidth": 1}
    for name, (colour, marker, filling) in zip(
        LIBRARIES,
        (("#D55E00", "o", "full"), ("#D55E00", "o", "none"), ("#0072B2", "s", "full"), ("#0072B2", "s", "none")),
        strict=True,
    )
}
"""How each library's model is drawn: hollow is channels-last."""

OURS_STYLE: dict[str, Any] = {"color": "black", "marker": "^", "markersize": 5, "linewidth": 1.6, "zorder": 3}
"""How our model's line is drawn: not in its arm's colour, which may be a library's."""

APART = 1.04
"""Ratio of the sides at which libraries timed at the same size are drawn, so that their intervals are seen."""

KIND_COLOURS = dict(
    zip(
        OPERATOR_KINDS,
        ("#0072B2", "#009E73", "#9ADBC0", "#D55E00", "#E69F00", "#F0E442", "#CC79A7", "#882255", "#56B4E9", "0.55"),
        strict=True,
    )
)
"""The colour of each kind of operator."""

HEADING = 1.2
GAP = 0.5
"""How high a case's heading is and how far cases are apart, in bars."""


def _present_libraries(values: pd.DataFrame) -> list[str]:
    """Returns the libraries that some row has a ratio to."""
    return [name for name in LIBRARIES if values.get(f"{column_of(name)}_ratio", pd.Series(dtype=float)).notna().any()]


def plot_speed(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws each arm's speed relative to v1 with its interval; a hollow marker is a noisy row.

    `values` are rows of `speed_values` under the same conditions.
    """
    refuse_mixed(values, CONDITIONS["speed"])
    ax.axvline(1, color=GREY, linewidth=1)
    for place, (_, row) in enumerate(values.iterrows()):
        face = {"markerfacecolor": "white"} if row["noisy"] else {}
        plot_interval(ax, place, row, "relative_speed", "relative_speed", **face)
    ax.set_xlabel("Speed relative to v1 (over 1 is faster)")
    return list_arms(ax, values["arm"])


def plot_speed_libraries(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws our speed relative to each library's model with its interval, a row a case, on a logarithmic axis.

    `values` are rows of `library_values` under the same conditions.
    """
    refuse_mixed(values, LIBRARY_CONDITIONS)
    ax.axvline(1, color=GREY, linewidth=1)
    present = _present_libraries(values)
    for place, name in enumerate(present):
        ratio, low, high = (values[f"{column_of(name)}_ratio{end}"] for end in ("", "_low", "_high"))
        heights = [row + 0.18 * (place - (len(present) - 1) / 2) for row in range(len(values))]
        whiskers = [ratio - low, high - ratio]
        ax.errorbar(ratio, heights, xerr=whiskers, linestyle="none", label=name, **LIBRARY_STYLES[name])
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


def plot_speed_operators(ax: Axes, values: pd.DataFrame, longest: float = 0.0) -> Axes:
    """Draws each model's time as a bar by kind of operator, ours = 1, and our roofline bound as a hollow bar.

    A bar is as long as the time without a profiler, and is divided as the profiled step was. `values` are rows of
    `operator_time_values` under the same conditions; the axis has room for `longest` at least.
    """
    refuse_mixed(values, OPERATOR_CONDITIONS)
    places: list[float] = []
    bounds: dict[float, float] = {}
    labels: dict[float, str] = {}
    place = 0.0
    for case, rows in values.groupby("case", sort=False):
        ax.annotate(str(case), (0, place), (1, 0), textcoords="offset points", va="center", fontsize=6)
        place += HEADING
        for implementation in rows["implementation"]:
            places.append(place)
            labels[place] = implementation
            place += 1
        bounds[place] = 1 / rows.loc[rows["implementation"] == OURS, "over_bound"].iloc[0]
        labels[place] = "roofline bound"
        place += 1 + GAP
    start = pd.Series(0.0, index=values.index)
    for part, colour in {**KIND_COLOURS, BETWEEN: "0.85"}.items():
        width = values[column_of(part, "share")] * values["relative_time"]
        ax.barh(places, width, left=start, height=0.8, color=colour, label=part)
        start = start + width
    outline: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.7}
    ax.barh(list(bounds), list(bounds.values()), height=0.7, label="roofline bound of our operators", **outline)
    ax.set_xlim(0, 1.05 * max(longest, 1.0, values["relative_time"].max()))
    ax.set_ylim(-HEADING, place - GAP)
    ax.set_xlabel("Time of a step, ours = 1")
    legend_below(ax, ncols=2)
    ax.set_yticks(list(labels), list(labels.values()))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0, labelsize=5)
    return ax


def plot_throughput(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws pixels a second against the side of the input on logarithmic axes, of our model and each library's.

    A library's is ours over the ratio of interleaved times, with that ratio's interval; libraries stand side by side
    around the size. `values` are rows of `throughput_values` of one model and mode; squares are drawn.
    """
    refuse_mixed(values, THROUGHPUT_CONDITIONS)
    values = values[values["resolution"].str.isdecimal()]
    ours = values["pixels_per_s"] / 1e6
    ax.plot(side(values), ours, label=OURS, **OURS_STYLE)
    present = _present_libraries(values)
    for place, name in enumerate(present):
        theirs, low, high = (ours / values[f"{column_of(name)}_ratio{end}"] for end in ("", "_high", "_low"))
        sides = side(values) * APART ** (place - (len(present) - 1) / 2)
        ax.errorbar(sides, theirs, yerr=[theirs - low, high - theirs], label=name, **LIBRARY_STYLES[name])
    log_ticks(ax)
    ax.set_ylabel("Throughput, million px/s")
    resolution_axis(ax, values)
    sizes, batches = values["resolution"], values["batch_size"]
    ax.set_xticks(side(values), [f"{size}\nbatch {batch}" for size, batch in zip(sizes, batches, strict=True)])
    legend_below(ax)
    return ax


_LAYOUT_WORDS = (
    "Filled: the library's model in the default layout; hollow: with images and weights channels-last, which ours "
    "always has."
)


def _figures_of_arms(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Speed relative to v1, timed interleaved in one process: median ratio and its 95 % interval, unresolved where "
        "that holds 1. Hollow markers are noisy: their times' interquartile range is over 10 % of the median. It holds "
        "for this machine, batch and size."
    )
    groups = group_by(speed_values(records), CONDITIONS["speed"])
    panels = [Panel(group.conditions, partial(plot_speed, values=group.rows)) for group in groups]
    return group_panels("speed", "Speed", ("variant", "base", "device"), panels, 2.0, caption)


def _figures_of_libraries(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Speed of our models relative to the same models of libraries with equal weights, timed interleaved in one "
        f"process: median ratio and its 95 % interval, unresolved where that holds 1. {_LAYOUT_WORDS} It holds for "
        "this machine, these batches and sizes."
    )
    panels = [
        Panel(group.conditions, partial(plot_speed_libraries, values=group.rows))
        for group in group_by(library_values(records), LIBRARY_CONDITIONS)
        if len(group.rows) >= FEWEST_ARMS
    ]
    return group_panels("speed_libraries", "Speed beside libraries", ("device", "precision"), panels, 5.4, caption)


def _figures_of_operators(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Where the time of our steps and of libraries' goes, our time = 1. A bar is as long as the median ratio of "
        "interleaved times and is divided as a profiled step was, the profiler's own time with it. Libraries' models "
        "are in the default layout. Hollow: our operators at their roofline bound, each run by itself: its MACs at the "
        "machine's peak, or its bytes at the rate of a copy of as many."
    )
    figures = []
    for variant in group_by(operator_time_values(records), ("variant",)):
        groups = group_by(variant.rows, OPERATOR_CONDITIONS)
        plot = partial(plot_speed_operators, longest=variant.rows["relative_time"].max())
        panels = [Panel(group.conditions, partial(plot, values=group.rows)) for group in groups]
        bars = [len(group.rows) + group.rows["case"].nunique() * (1 + HEADING + GAP) for group in groups]
        named_by, height = ("variant", "device", "precision"), 1.9 + 0.1 * max(bars)
        figures += group_panels("speed_operators", "Where the time of a step goes", named_by, panels, height, caption)
    return figures


def _figures_of_throughput(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Pixels a second of our models and of the same models of libraries, both axes logarithmic; a flat line is a "
        "time linear in pixels. Divided by the pixels of an image it is images a second. Ours is from the median time; "
        "a library's is ours over the median ratio of interleaved times, with the ratio's 95 % interval. "
        f"{_LAYOUT_WORDS} Where the batch differs between sizes, part of a slope may be the batch's. It holds for this "
        "machine."
    )
    panels = [
        Panel(group.conditions, partial(plot_throughput, values=group.rows))
        for group in group_by(throughput_values(records), THROUGHPUT_CONDITIONS)
        if has_sizes(group)
    ]
    return group_panels("throughput", "Throughput by resolution", ("device", "precision"), panels, 3.2, caption)


FIGURES = {
    "speed": _figures_of_arms,
    "speed_libraries": _figures_of_libraries,
    "speed_operators": _figures_of_operators,
    "throughput": _figures_of_throughput,
}
"""Each kind of figure, and what returns those that the records give."""
