"""Which figures the records give: plots of one kind side by side, a panel for each group of equal conditions."""

from collections.abc import Callable
from functools import partial

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis.effects import EFFECTS
from ablations.analysis.grouping import (
    CONDITIONS,
    group_by,
    split_by_conditions,
    split_with_models,
)
from ablations.records import METRICS
from ablations.report.cumulative_accuracy import cumulative_accuracy_values
from ablations.report.differences import effect_name
from ablations.report.effect_choice import CLEAN_BASES
from ablations.report.effect_figures import (
    accuracy_curve,
    learning_curve,
    plot_accuracy_curves,
    plot_cumulative_accuracy,
    plot_effects,
    plot_interaction,
    plot_learning_curves,
    plot_tradeoff,
)
from ablations.report.effect_values import effect_values
from ablations.report.evaluation_tables import evaluation_values, plot_resolution_transfer
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
    plot_accuracy,
    plot_memory_by_resolution,
    plot_speed,
)
from ablations.report.tradeoffs import tradeoff_values
from ablations.report.values import (
    accuracy_values,
    memory_values,
    speed_values,
)

_OF_DESIGN = ("data", "variant", "base")


def _cumulative(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "The paper's path through the arms in our own training: mean top-1 over seeds with its 95 % t interval, the "
        "step from the row above, paired by seed, and the cost of each arm. One seed has no interval and resolves no "
        "step."
    )
    groups = group_by(cumulative_accuracy_values(records), CONDITIONS["accuracy"])
    panels = [Panel(group.conditions, partial(plot_cumulative_accuracy, values=group.rows)) for group in groups]
    return group_panels("cumulative_accuracy", "The cumulative in our own training", _OF_DESIGN, panels, 2.8, caption)


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


def _accuracy(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Top-1 after training from scratch: mean over seeds with its 95 % t interval, and each seed. Overlapping "
        "intervals do not settle whether two arms differ: the table has the differences paired by seed."
    )
    panels = [
        Panel(group.conditions, partial(plot_accuracy, values=accuracy_values(group.rows), records=group.rows))
        for group in split_with_models(records, "accuracy")
    ]
    return group_panels("accuracy", "Accuracy", ("data", "variant", "base"), panels, 2.2, caption)


def _effects(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "What each change does to top-1, from the seeds with all eight arms. First the seven effects of the pooled "
        "linear model, each with its own 95 % interval, hollow where that holds 0 or one seed has none; then each pair "
        "of changes: mean "
        "top-1 over both settings of the third and over seeds, which are the small dots. Parallel lines are no "
        "interaction; each interaction is half of the difference between the lines' slopes. The table effects_accuracy "
        "says what the model assumes, and allows for seven effects."
    )
    panels = []
    for group in split_by_conditions(records[records["base"].isin(CLEAN_BASES)], "accuracy"):
        values = effect_values(group.rows, "accuracy")
        if values.empty or values["top1_effect_mean"].isna().all():
            continue
        panels.append(Panel(group.conditions | {"shown": "effects"}, partial(plot_effects, values=values)))
        for effect, changes in EFFECTS.items():
            if len(changes) == 2:
                draw = partial(
                    plot_interaction, records=group.rows, effects=values, change=changes[0], other=changes[1]
                )
                panels.append(Panel(group.conditions | {"shown": effect_name(effect)}, draw))
    return group_panels("effects", "Effects and interactions", _OF_DESIGN, panels, 3.0, caption)


def _tradeoff(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Top-1 against cost: mean over seeds with its 95 % t interval. The grey line is the Pareto front of the means; "
        "hollow arms are not on it. Whether an arm is surely beaten, the tables tradeoff_… say."
    )
    values, accuracies = tradeoff_values(records), accuracy_values(records)
    if not values.empty:
        place = [name for name in (*CONDITIONS["accuracy"], "arm") if name in values]
        values = values.merge(accuracies[[*place, "top1_low", "top1_high"]], on=place)
    panels = []
    for group in group_by(values, (*CONDITIONS["accuracy"], "cost", "measured_as")):
        if len(group.rows) >= FEWEST_ARMS:
            shown = {"shown": METRICS[group.conditions["cost"]].label.lower()}
            conditions = {name: value for name, value in group.conditions.items() if name != "cost"}
            panels.append(Panel(shown | conditions, partial(plot_tradeoff, values=group.rows)))
    return group_panels("tradeoff", "Accuracy against cost", _OF_DESIGN, panels, 3.6, caption)


def _learning(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Training loss by epoch, the mean over its steps: the mean of the seeds, and a band from the lowest seed to "
        "the highest. A lower training loss is not a higher accuracy."
    )
    panels = _curves(records, learning_curve, plot_learning_curves)
    return group_panels("learning", "Learning curves", _OF_DESIGN, panels, 3.6, caption)


def _accuracy_by_epoch(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Top-1 on validation images by epoch: the mean of the seeds, and a band from the lowest seed to the highest. "
        "The last is the accuracy that stands in the tables; no training was stopped or chosen by those before."
    )
    panels = _curves(records, accuracy_curve, plot_accuracy_curves)
    return group_panels("accuracy_by_epoch", "Accuracy by epoch", _OF_DESIGN, panels, 3.6, caption)


def _curves(
    records: pd.DataFrame, curve_of: Callable[[pd.Series], pd.Series], plot: Callable[..., Axes]
) -> list[Panel]:
    """Returns a panel for each group of accuracy in which every record has a curve of two epochs or more."""
    return [
        Panel(group.conditions, partial(plot, records=group.rows))
        for group in split_by_conditions(records, "accuracy")
        if "history" in group.rows and group.rows["history"].notna().all()
        if all(len(curve_of(record)) > 1 for _, record in group.rows.iterrows())
    ]


def _evaluation(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Top-1 of finished weights against the test resolution; one file of weights is one training. The grey line is "
        "the size of images that the models are made for, to whose grid learned position embeddings belong; at any "
        "other they are resized."
    )
    panels = [
        Panel(group.conditions, partial(plot_resolution_transfer, values=group.rows))
        for group in group_by(evaluation_values(records), CONDITIONS["evaluation"])
        if has_sizes(group)
    ]
    return group_panels("transfer", "Resolution transfer", ("data", "variant", "base"), panels, 3.0, caption)
