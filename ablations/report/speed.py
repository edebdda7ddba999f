"""Speed: its tables and figures."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis import speed as analysis
from ablations.analysis.grouping import CONDITIONS, REFERENCE, group_by, refuse_mixed, squares
from ablations.analysis.speed import LIBRARIES, LIBRARY_CONDITIONS, OURS, column_of, holds_one
from ablations.measure.kinds import OPERATOR_KINDS
from ablations.measure.metrics import METRICS
from ablations.report import figures
from ablations.report.figures import GREY, FigureKind, Panel, panels_of, side
from ablations.report.tables import ARM, NOTHING, Show, Table, TableColumn, metric_column, metric_text, mode_note


def _ratio_text(row: pd.Series, name: str, form: str = ".2f") -> str:
    """Returns a ratio with its 95 % interval, and whether it is unresolved."""
    if pd.isna(row.get(name)):
        return NOTHING
    ratio, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{ratio:{form}} ({low:{form}} to {high:{form}}){', unresolved' if holds_one(low, high) else ''}"


def _show_between(low: str, high: str, form: str, divisor: float) -> Show:
    """Shows two ends as a range, or as one number where they are shown alike."""

    def show(row: pd.Series) -> str:
        if pd.isna(row[low]):
            return NOTHING
        return " to ".join(dict.fromkeys(f"{row[end] / divisor:{form}}" for end in (low, high)))

    return show


def _speed_interval(row: pd.Series) -> str:
    low, high = row["relative_speed_low"], row["relative_speed_high"]
    return f"{low:.3f} to {high:.3f}{', unresolved' if holds_one(low, high) else ''}" if pd.notna(low) else NOTHING


def _speed_note(values: pd.DataFrame) -> str:
    noisy = ", ".join(values.loc[values["noisy"].astype(bool), "arm"])
    reference, drift = values["reference_latency_s"], values["reference_drift"].iloc[0]
    least, most = (metric_text("latency_s", latency) for latency in (reference.min(), reference.max()))
    drifted = f"v1 drifted: its own latency was {least} to {most} ms from row to row, {100 * drift:.0f} % apart."
    steady = f"v1's own latency was {least} to {most} ms from row to row."
    return (
        f"{mode_note(values)} n = {values['repeats'].iloc[0]} timed steps of each arm. "
        f"{drifted if drift > analysis.DRIFT else steady} Noisy: {noisy or 'none'}."
    )


def _resolved_text(row: pd.Series) -> str:
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
        f"{mode_note(ours)} {ours['profiled_steps'].iloc[0]} profiled steps of each model. Ours take "
        f"{' to '.join(bounds)} times the roofline bound.{without}"
    )


_BesideLibraries = partial(
    Table, measurement="speed", conditions=LIBRARY_CONDITIONS, titled_by=("mode", "device", "precision")
)
_CASE = TableColumn("Model", "case")
_N = TableColumn("n", "repeats", "d")
_LATENCY = metric_column("latency_s")
_PEAK = TableColumn("Peak, GMAC/s", _show_between("slowest_peak_macs_per_s", "fastest_peak_macs_per_s", ".0f", 1e9))
_OF_THE_PEAK = TableColumn("Of the peak, %", _show_between("share_of_peak_low", "share_of_peak_high", ".1f", 0.01))
_NOISY = TableColumn("Noisy", lambda row: "noisy" if row["noisy"] else "")

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
        values=analysis.speed_values,
        conditions=CONDITIONS["speed"],
        titled_by=("variant", "base", "mode", "resolution", "device"),
        columns=(
            ARM,
            TableColumn(METRICS["relative_speed"].label, "relative_speed", ".3f", beside_v1=True),
            TableColumn("95 % interval", _speed_interval, beside_v1=True),
            *(
                metric_column(metric, f"normalised_{metric}", f"{METRICS[metric].title}, v1-normalised")
                for metric in ("latency_s", "throughput_img_per_s")
            ),
            metric_column("latency_s", "reference_latency_s", "v1 beside it, ms"),
            TableColumn("IQR, %", lambda row: f"{100 * row['latency_iqr_s'] / row['latency_s']:.1f}"),
            _OF_THE_PEAK,
            _NOISY,
        ),
        about=(
            "Speed relative to v1 is the median ratio of v1's step times to the arm's, timed interleaved in one "
            f"process, with its 95 % interval. {_UNRESOLVED_WORDS} Rows were timed one after another while the machine "
            "drifts, so latency and throughput are v1-normalised: what the ratio makes of the latency that v1 has in "
            "the first row. The latency of v1 beside each arm shows the drift; the note says where it is over "
            f"{100 * analysis.DRIFT:.0f} %. The CSV has each arm's own latency. IQR is the interquartile range of its "
            f"times in percent of their median. {_NOISY_WORDS} {_PEAK_WORDS} All of it holds for one machine, batch "
            "and size."
        ),
        note=_speed_note,
    ),
    _BesideLibraries(
        name="speed_libraries",
        title="Speed beside timm and transformers",
        values=analysis.library_values,
        rows_by="case",
        columns=(
            _CASE,
            _N,
            _LATENCY,
            _PEAK,
            _OF_THE_PEAK,
            *(TableColumn(f"{each} = 1", partial(_ratio_text, name=f"{column_of(each)}_ratio")) for each in LIBRARIES),
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
        note=lambda values: f"{mode_note(values)} Means over the rows stand in speed_libraries_mean.",
    ),
    _BesideLibraries(
        name="speed_libraries_mean",
        title="Speed beside timm and transformers, mean over models and sizes",
        values=analysis.library_means,
        rows_by="beside",
        columns=(
            TableColumn("Beside", "beside"),
            TableColumn("Rows", "n_rows", "d"),
            TableColumn("All rows", partial(_ratio_text, name="ratio", form=".3f")),
            TableColumn("Batch 1", partial(_ratio_text, name="ratio_batch_1", form=".3f")),
            TableColumn("Larger batches", partial(_ratio_text, name="ratio_larger_batches", form=".3f")),
            TableColumn("Least row", "least_ratio", ".2f"),
            TableColumn("Rows faster / unresolved / slower", _resolved_text),
        ),
        about=(
            "Our speed relative to each library: the geometric mean over the rows of speed_libraries, with its 95 % "
            f"interval by a bootstrap over steps ({analysis.RESAMPLES:,} times, each row's interleaved steps drawn "
            f"anew, seed {analysis.SEED}). The rows stay the same: the interval holds the noise of timing, not the "
            f"choice of models, sizes and machine. {_UNRESOLVED_WORDS} In the default layout libraries' models copy "
            "between layouts (speed_operators has the time), which weighs most in large images at batch 1."
        ),
        note=mode_note,
    ),
    _BesideLibraries(
        name="speed_operators",
        title="Where the time of a step goes",
        values=analysis.operator_time_values,
        rows_by="row",
        columns=(
            _CASE,
            TableColumn("Implementation", "implementation"),
            _N,
            _LATENCY,
            TableColumn("Time, ours = 1", _relative_time),
            _NOISY,
            *(TableColumn(f"{part.capitalize()}, %", _show_share(part)) for part in analysis.STEP_PARTS),
            TableColumn("Profiled over timed", "profiled_over_timed", ".2f"),
            metric_column("latency_s", "bound_s", "Roofline bound, ms"),
            TableColumn("Latency over roofline bound", "over_bound", ".2f"),
            _PEAK,
            _OF_THE_PEAK,
            TableColumn("Of the peak at the roofline bound, %", "share_of_peak_at_bound", ".1f", 0.01),
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
    name: {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1}
    for name, colour, marker in zip(LIBRARIES, ("#D55E00", "#D55E00", "#0072B2", "#0072B2"), "oxs+", strict=True)
}
"""How each library's model is drawn: a cross is channels-last."""

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


def _ratios(values: pd.DataFrame) -> Iterator[tuple[str, float, list[pd.Series]]]:
    """Yields each library that some row has a ratio to: its name, how far from the middle of all it is drawn, and the
    ratio with the ends of its interval."""
    columns = {name: f"{column_of(name)}_ratio" for name in LIBRARIES}
    present = [name for name in LIBRARIES if columns[name] in values and values[columns[name]].notna().any()]
    for place, name in enumerate(present):
        ends = [values[f"{columns[name]}{end}"] for end in ("", "_low", "_high")]
        yield name, place - (len(present) - 1) / 2, ends


def plot_speed(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws each arm's speed relative to v1 with its interval; a noisy row is named so.

    `values` are rows of `speed_values` under the same conditions.
    """
    refuse_mixed(values, CONDITIONS["speed"])
    ax.axvline(1, color=GREY, linewidth=1)
    for place, (_, row) in enumerate(values.iterrows()):
        ends = row["relative_speed_low"], row["relative_speed_high"]
        is_claimed = row["arm"] == REFERENCE or not holds_one(*ends)
        figures.plot_interval(ax, place, row, "relative_speed", row["arm"], claimed=is_claimed)
    ax.set_xlabel("Speed relative to v1 (over 1 is faster)")
    figures.explain_hollow(ax)
    return figures.list_rows(ax, values["arm"] + values["noisy"].map({True: ", noisy", False: ""}))


def plot_speed_libraries(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws our speed relative to each library's model with its interval, a row a case, on a logarithmic axis.

    `values` are rows of `library_values` under the same conditions.
    """
    refuse_mixed(values, LIBRARY_CONDITIONS)
    ax.axvline(1, color=GREY, linewidth=1)
    for name, apart, (ratio, low, high) in _ratios(values):
        heights = [row + 0.18 * apart for row in range(len(values))]
        whiskers = [ratio - low, high - ratio]
        ax.errorbar(ratio, heights, xerr=whiskers, linestyle="none", label=name, **LIBRARY_STYLES[name])
    ax.set_xscale("log")
    ax.set_xticks([0.75, 1, 1.5, 2, 3], ["0.75", "1", "1.5", "2", "3"])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("Speed relative to the library (over 1 is faster)")
    figures.legend_below(ax)
    cases = values["case"] + ", n = " + values["repeats"].astype(str)
    figures.list_rows(ax, [case.replace(", ", "\n", 1) for case in cases])
    ax.tick_params(axis="y", labelsize=6)
    return ax


def plot_speed_operators(ax: Axes, values: pd.DataFrame, longest: float = 0.0) -> Axes:
    """Draws each model's time as a bar by kind of operator, ours = 1, and our roofline bound as an outlined bar.

    A bar is as long as the time without a profiler, and is divided as the profiled step was. `values` are rows of
    `operator_time_values` under the same conditions; the axis has room for `longest` at least.
    """
    refuse_mixed(values, analysis.OPERATOR_CONDITIONS)
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
    for part, colour in {**KIND_COLOURS, analysis.BETWEEN: "0.85"}.items():
        width = values[column_of(part, "share")] * values["relative_time"]
        ax.barh(places, width, left=start, height=0.8, color=colour, label=part)
        start = start + width
    outline: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.7}
    ax.barh(list(bounds), list(bounds.values()), height=0.7, label="roofline bound of our operators", **outline)
    ax.set_xlim(0, 1.05 * max(longest, 1.0, values["relative_time"].max()))
    ax.set_xlabel("Time of a step, ours = 1")
    figures.legend_below(ax, ncols=2)
    ax.set_yticks(list(labels), list(labels.values()))
    ax.set_ylim(place - GAP, -HEADING)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0, labelsize=5)
    return ax


def plot_throughput(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws pixels a second against the side of the input on logarithmic axes, of our model and each library's.

    A library's is ours over the ratio of interleaved times, with that ratio's interval; libraries stand side by side
    around the size. `values` are rows of `throughput_values` of one model and mode; squares are drawn.
    """
    refuse_mixed(values, analysis.THROUGHPUT_CONDITIONS)
    values = squares(values)
    ours = values["pixels_per_s"] / 1e3
    ax.plot(side(values), ours, label=OURS, **OURS_STYLE)
    for name, apart, ratios in _ratios(values):
        theirs, high, low = (ours / ratio for ratio in ratios)
        sides = side(values) * APART**apart
        ax.errorbar(sides, theirs, yerr=[theirs - low, high - theirs], label=name, **LIBRARY_STYLES[name])
    figures.log_ticks(ax)
    figures.label_sizes(ax, values, "Throughput, thousand px/s")
    sizes, batches = values["resolution"], values["batch_size"]
    ax.set_xticks(side(values), [f"{size}\nbatch {batch}" for size, batch in zip(sizes, batches, strict=True)])
    return ax


_LAYOUT_WORDS = (
    "Circles and squares: the library's model in the default layout; crosses: with images and weights channels-last, "
    "which ours always has."
)


def _panels_of_operators(records: pd.DataFrame) -> Iterator[Panel]:
    for variant in group_by(analysis.operator_time_values(records), ("variant",)):
        draw = partial(plot_speed_operators, longest=variant.rows["relative_time"].max())
        for group in group_by(variant.rows, analysis.OPERATOR_CONDITIONS):
            bars = len(group.rows) + group.rows["case"].nunique() * (1 + HEADING + GAP)
            yield Panel(group.conditions, partial(draw, values=group.rows), group.rows, height=1.9 + 0.1 * bars)


FIGURES = (
    FigureKind(
        name="speed",
        title="How fast is each arm beside v1?",
        named_by=("variant", "base", "device"),
        panels=panels_of(analysis.speed_values, CONDITIONS["speed"], plot_speed),
        height=2.3,
        caption=(
            "Speed relative to v1, timed interleaved in one process: median ratio and its 95 % interval, unresolved "
            "where that holds 1. Rows are named noisy where their times' interquartile range is over 10 % of the "
            "median. It holds for this machine, batch and size."
        ),
    ),
    FigureKind(
        name="speed_libraries",
        title="How fast are libraries' models beside ours?",
        named_by=("device", "precision"),
        panels=panels_of(
            analysis.library_values,
            LIBRARY_CONDITIONS,
            plot_speed_libraries,
            lambda group: len(group.rows) >= figures.FEWEST_ARMS,
        ),
        height=5.4,
        caption=(
            "Speed of our models relative to the same models of libraries with equal weights, timed interleaved in one "
            f"process: median ratio and its 95 % interval, unresolved where that holds 1. {_LAYOUT_WORDS} It holds for "
            "this machine, these batches and sizes."
        ),
    ),
    FigureKind(
        name="speed_operators",
        title="Where does the time of a step go?",
        named_by=("variant", "device", "precision"),
        panels=_panels_of_operators,
        caption=(
            "Where the time of our steps and of libraries' goes, our time = 1. A bar is as long as the median ratio of "
            "interleaved times and is divided as a profiled step was, the profiler's own time with it. Libraries' "
            "models are in the default layout. Outlined: our operators at their roofline bound, each run by itself: "
            "its MACs at the machine's peak, or its bytes at the rate of a copy of as many."
        ),
    ),
    FigureKind(
        name="throughput",
        title="How does throughput fall with the input?",
        named_by=("device", "precision"),
        panels=panels_of(
            analysis.throughput_values, analysis.THROUGHPUT_CONDITIONS, plot_throughput, figures.has_sizes
        ),
        height=3.2,
        caption=(
            "Pixels a second of our models and of the same models of libraries, both axes logarithmic; a flat line is "
            "a time linear in pixels. Divided by the pixels of an image it is images a second. Ours is from the median "
            "time; a library's is ours over the median ratio of interleaved times, with the ratio's 95 % interval. "
            f"{_LAYOUT_WORDS} Where the batch differs between sizes, part of a slope may be the batch's. It holds for "
            "this machine."
        ),
    ),
)
"""The kinds of figures of speed."""
