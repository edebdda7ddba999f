"""Which figures the records give: plots of one kind side by side, a panel for each group of equal conditions."""

from functools import partial

import pandas as pd

from ablations.analysis.grouping import (
    CONDITIONS,
    group_by,
)
from ablations.report.figures import ALIKE, FEWEST_ARMS, FigureSpec, Panel, group_panels, has_sizes, plot_scaling
from ablations.report.library_throughput import THROUGHPUT_CONDITIONS, plot_throughput, throughput_values
from ablations.report.library_values import LIBRARY_CONDITIONS, library_values, plot_libraries
from ablations.report.memory_values import MODEL_MEMORY_CONDITIONS, model_memory_values
from ablations.report.operator_values import (
    OPERATOR_SHEET_CONDITIONS,
    height_in_bars,
    operator_time_values,
    plot_operator_times,
)
from ablations.report.plots import (
    plot_memory_by_resolution,
    plot_speed,
)
from ablations.report.values import (
    memory_values,
    speed_values,
)


def _memory(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Peak memory by resolution, both axes logarithmic; dashed lines store the attention matrix. Arms that are "
        f"within {ALIKE:.0%} of another's line everywhere share that line; the table has every number and says what is "
        "counted."
    )
    names = [name for name in CONDITIONS["memory"] if name != "attention"]
    panels = [
        Panel(group.conditions, partial(plot_memory_by_resolution, values=group.rows))
        for group in group_by(memory_values(records), names)
        if has_sizes(group)
    ]
    return group_panels("memory", "Peak memory", ("variant", "base", "device", "method"), panels, 4.3, caption)


def _memory_of_models(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Peak memory of models by resolution, both axes logarithmic; arms are b2 in base v2 with fused attention. The "
        "number after a name is the exponent in pixels, between the two largest sizes, of the peak without parameters, "
        f"gradients, optimiser state and input. Arms within {ALIKE:.0%} of another's line share that line."
    )
    values = model_memory_values(records)
    values = values[values["resolution"].str.isdecimal()] if not values.empty else values
    panels = [
        Panel(
            group.conditions,
            partial(plot_scaling, values=group.rows, metric="peak_memory_bytes", exponent="growing_exponent"),
        )
        for group in group_by(values, MODEL_MEMORY_CONDITIONS)
        if has_sizes(group) and group.rows["growing_exponent"].notna().all()
    ]
    return group_panels("memory_models", "Peak memory of models", ("device", "method"), panels, 4.3, caption)


def _speed(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Speed relative to v1, timed interleaved in one process: median ratio and its 95 % interval. Hollow markers are "
        "noisy: their times' interquartile range is over 10 % of the median. It holds for this machine, batch and size."
    )
    panels = [
        Panel(group.conditions, partial(plot_speed, values=group.rows))
        for group in group_by(speed_values(records), CONDITIONS["speed"])
    ]
    return group_panels("speed", "Speed", ("variant", "base", "device"), panels, 2.0, caption)


def _libraries(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Speed of our models relative to the same models of libraries with equal weights, timed interleaved in one "
        "process: median ratio and its 95 % interval. Filled: the library's model in the default layout; hollow: with images "
        "and weights channels-last, which ours always has. It holds for this machine, these batches and sizes."
    )
    panels = [
        Panel(group.conditions, partial(plot_libraries, values=group.rows))
        for group in group_by(library_values(records), LIBRARY_CONDITIONS)
        if len(group.rows) >= FEWEST_ARMS
    ]
    return group_panels("speed_libraries", "Speed beside libraries", ("device", "precision"), panels, 5.4, caption)


def _operator_times(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Where the time of our steps and of libraries' goes, our time = 1. A bar is as long as the median ratio of "
        "times taken interleaved and is divided as a profiled step was, the profiler's own time with it. Libraries' models "
        "are in the default layout. Hollow: our operators at their roofline, each run by itself: its MACs at the "
        "machine's peak, or its bytes at the rate of a copy of as many."
    )
    sheets = []
    for variant in group_by(operator_time_values(records), ("variant",)):
        groups = group_by(variant.rows, OPERATOR_SHEET_CONDITIONS)
        plot = partial(plot_operator_times, longest=variant.rows["relative_time"].max())
        panels = [Panel(group.conditions, partial(plot, values=group.rows)) for group in groups]
        height = 1.9 + 0.1 * max(height_in_bars(group.rows) for group in groups)
        named_by = ("variant", "device", "precision")
        sheets += group_panels("speed_operators", "Where the time of a step goes", named_by, panels, height, caption)
    return sheets


def _throughput(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Pixels a second of our models and of the same models of libraries, both axes logarithmic; a flat line is a "
        "time linear in pixels. Divided by the pixels of an image it is images a second. Ours is from the median "
        "time; a library's is ours over the median ratio of times taken interleaved, with the ratio's 95 % interval. "
        "Filled: the library's model in the default layout; hollow: with images and weights channels-last, which ours always "
        "has. Where the batch differs between sizes, part of a slope may be the batch's. It holds for this machine."
    )
    panels = [
        Panel(group.conditions, partial(plot_throughput, values=group.rows))
        for group in group_by(throughput_values(records), THROUGHPUT_CONDITIONS)
        if has_sizes(group)
    ]
    return group_panels("throughput", "Throughput by resolution", ("device", "precision"), panels, 3.2, caption)
