"""The plots of accuracy: the cumulative, effects, interactions, trade-offs, learning; each draws on an `ax` and returns it.

A change has the colour and marker of the arm that has it alone; an interaction, those of the arm with its changes.
All take what belongs to one group of accuracy, and raise InputError for rows of mixed conditions.
"""

from collections.abc import Callable
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ablations.analysis.effects import CHANGES, EFFECTS, arm_with, complete_seeds
from ablations.analysis.grouping import CONDITIONS, refuse_mixed
from ablations.records import METRICS
from ablations.report.differences import effect_name
from ablations.report.figures import GREY, arm_line, legend_below, list_rows
from ablations.report.tables import POINTS, metric_text, points_text


def plot_cumulative_accuracy(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the cumulative's mean top-1 with its 95 % interval, and beside each step what it adds and what it costs.

    `values` are rows of `cumulative_accuracy_values` under the same conditions.
    """
    refuse_mixed(values, CONDITIONS["accuracy"])
    means = values["top1_mean"] / POINTS
    ax.plot(means, range(len(values)), color=GREY, linewidth=1)
    labels = []
    for place, (_, row) in enumerate(values.iterrows()):
        _plot_mean(ax, row["top1_mean"], place, row["top1_low"], row["top1_high"], row["arm"], along="x")
        ax.annotate(
            _gain_text(row),
            (means.iloc[place], place),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # covers the line
        )
        labels.append("\n".join([row["arm"], *_cost_texts(row)]))
    ax.margins(x=0.45)  # room for the words
    ax.set_ylim(-0.6, len(values) - 0.5)
    ax.set_xlabel(f"{METRICS['top1'].title}: mean, 95 % interval\nIn brackets the paired step, points")
    return list_rows(ax, labels)


def _gain_text(row: pd.Series) -> str:
    """Returns a row's accuracy and, if it has one, its step."""
    level = f"{row['top1_mean'] / POINTS:.2f}"
    if pd.isna(row["top1_step_mean"]):
        return level
    unresolved = "" if row["top1_step_resolved"] else ", unresolved"
    return f"{level} ({points_text(row['top1_step_mean'])}{unresolved})"


def _cost_texts(row: pd.Series) -> list[str]:
    return [
        f"{metric_text(metric, row[metric])} {METRICS[metric].unit} {words}"
        for metric, words in (("params", "params"), ("macs", "MACs"))
        if pd.notna(row[metric])
    ]


def plot_effects(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the seven effects on top-1 with their 95 % intervals, a hollow marker where one is unresolved.

    `values` are rows of `effect_values` of accuracy under the same conditions.
    """
    refuse_mixed(values, CONDITIONS["accuracy"])
    ax.axvline(0, color=GREY, linewidth=1)
    for place, (_, row) in enumerate(values.iterrows()):
        mean, low, high = (row[f"top1_effect_{end}"] for end in ("mean", "low", "high"))
        arm = arm_with(EFFECTS[row["effect"]])
        _plot_mean(ax, mean, place, low, high, arm, along="x", hollow=not row["top1_effect_resolved"])
    ax.set_ylim(-0.6, len(values) - 0.4)
    ax.set_xlabel("Effect on top-1, points: mean, 95 % interval")
    return list_rows(ax, [effect_name(effect) for effect in values["effect"]])


def plot_interaction(ax: Axes, records: pd.DataFrame, effects: pd.DataFrame, change: str, other: str) -> Axes:
    """Draws mean top-1 without and with a change, a line without and one with another; parallel lines do not interact.

    Means are over the two settings of the third change and over the seeds that have all eight arms; small dots are the
    seeds. `records` are those of one group of accuracy, `effects` their `effect_values`.
    """
    for rows in (records, effects):
        refuse_mixed(rows, CONDITIONS["accuracy"])
    by_arm = {arm: rows.set_index("seed")["top1"] for arm, rows in records.groupby("arm", sort=False)}
    top1 = complete_seeds(pd.DataFrame(by_arm)) / POINTS
    low, high = float(top1.to_numpy().min()), float(top1.to_numpy().max())
    margin = max(0.05 * (high - low), 0.1)
    (third,) = set(CHANGES) - {change, other}
    for beside, words in (((), "without"), ((other,), "with")):
        columns = [[arm_with([*own, *beside, *rest]) for rest in ((), (third,))] for own in ((), (change,))]
        by_seed = [top1[arms].mean(axis="columns") for arms in columns]
        style = arm_line(arm_with(beside))
        ax.plot((0, 1), [seeds.mean() for seeds in by_seed], **style, label=f"{words} {other}")
        for place, seeds in enumerate(by_seed):
            shift = 0.04 if beside else -0.04
            ax.plot([place + shift] * len(seeds), seeds, ".", color=style["color"], markersize=3)
    (effect,) = (row for _, row in effects.iterrows() if EFFECTS[row["effect"]] == (change, other))
    ax.set_xlim(-0.25, 1.25)
    ax.set_xticks((0, 1), [f"without {change}", f"with {change}"])
    ax.set_ylim(low - margin, high + margin)  # the same for all pairs
    unresolved = "" if effect["top1_effect_resolved"] else ", unresolved"
    ax.set_xlabel(f"Interaction {points_text(effect['top1_effect_mean'])} points{unresolved}")
    ax.set_ylabel(METRICS["top1"].title)
    legend_below(ax, ncols=2)
    return ax


def plot_tradeoff(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws each arm's mean top-1 against a cost, and the Pareto front of the means; hollow arms are not on it.

    `values` are rows of `tradeoff_values` of one cost, with `top1_low` and `top1_high`.
    """
    refuse_mixed(values, (*CONDITIONS["accuracy"], "cost", "measured_as"))
    metric = values["cost"].iloc[0]
    costs = values["cost_value"] / METRICS[metric].divisor
    front = values[values["on_front"]].assign(cost=costs).sort_values("cost")
    ax.plot(front["cost"], front["top1_mean"] / POINTS, color=GREY, linewidth=1, drawstyle="steps-post")
    for (_, row), cost in zip(values.iterrows(), costs, strict=True):
        ends = (row["top1_low"], row["top1_high"])
        _plot_mean(ax, row["top1_mean"], cost, *ends, row["arm"], along="y", hollow=not row["on_front"])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(METRICS[metric].title)
    ax.set_ylabel(f"{METRICS['top1'].title}: mean, 95 % interval")
    legend_below(
        ax, ncols=2, handles=[Line2D([], [], **arm_line(arm, linestyle="none", label=arm)) for arm in values["arm"]]
    )
    return ax


def plot_learning_curves(ax: Axes, records: pd.DataFrame) -> Axes:
    """Draws each arm's training loss by epoch: the mean over seeds, and a band from the lowest seed to the highest.

    `records` are those of one group of accuracy.
    """
    ax.set_ylabel("Training loss, mean of the epoch")
    return _plot_by_epoch(ax, records, learning_curve)


def plot_accuracy_curves(ax: Axes, records: pd.DataFrame) -> Axes:
    """Draws each arm's top-1 on validation images by epoch, as `plot_learning_curves` draws losses.

    `records` are those of one group of accuracy that were evaluated on the way.
    """
    ax.set_ylabel(f"{METRICS['top1'].title}, on validation images")
    return _plot_by_epoch(ax, records, lambda record: accuracy_curve(record) / POINTS)


def _plot_by_epoch(ax: Axes, records: pd.DataFrame, curve_of: Callable[[pd.Series], pd.Series]) -> Axes:
    """Draws the curve of each arm, its seeds together: their mean, and a band that holds them all."""
    refuse_mixed(records, CONDITIONS["accuracy"])
    for arm, rows in records.groupby("arm", sort=False):
        curves = pd.DataFrame({row["seed"]: curve_of(row) for _, row in rows.iterrows()})
        style = arm_line(str(arm), markersize=3, label=arm)
        ax.plot(curves.index, curves.mean(axis="columns"), **style)
        if curves.shape[1] > 1:
            ends = (curves.min(axis="columns"), curves.max(axis="columns"))
            ax.fill_between(curves.index, *ends, color=style["color"], alpha=0.15, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("Epoch")
    legend_below(ax, ncols=2)
    return ax


def learning_curve(record: pd.Series) -> pd.Series:
    """Returns the mean training loss of each epoch, by its number."""
    return pd.Series({entry["epoch"]: entry["loss"] for entry in record["history"]})


def accuracy_curve(record: pd.Series) -> pd.Series:
    """Returns top-1, a fraction, by the epochs after which it was evaluated; the last is the record's own."""
    on_the_way = {entry["epoch"]: entry["top1"] for entry in record["history"] if "top1" in entry}
    return pd.Series(on_the_way | {entry["epoch"]: record["top1"] for entry in record["history"][-1:]})


def _plot_mean(
    ax: Axes,
    mean: float,
    place: float,
    low: float,
    high: float,
    arm: str,
    *,
    along: Literal["x", "y"],
    hollow: bool = False,
) -> None:
    """Draws a mean of fractions in percent and, where it has one, its interval, along the axis `x` or `y`."""
    mean, low, high = (value / POINTS for value in (mean, low, high))
    whiskers = None if pd.isna(low) else [[mean - low], [high - mean]]
    style = arm_line(arm, linestyle="none", capsize=2, **({"markerfacecolor": "white"} if hollow else {}))
    if along == "x":
        ax.errorbar([mean], [place], xerr=whiskers, **style)
    else:
        ax.errorbar([place], [mean], yerr=whiskers, **style)
