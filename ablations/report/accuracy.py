"""Accuracy after training and of finished weights: tables and figures."""

import math
from functools import partial
from itertools import cycle
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ablations.analysis.accuracy import (
    STUDY_CONDITIONS,
    TRANSFER_CONDITIONS,
    TRIAL_CONDITIONS,
    accuracy_curve,
    accuracy_values,
    cumulative_accuracy_values,
    difference_by_epoch_values,
    evaluation_values,
    resolution_transfer_values,
    split_studies,
    trial_values,
)
from ablations.analysis.grouping import CONDITIONS, REFERENCE, Group, group_by, refuse_mixed
from ablations.analysis.statistics import FEWEST_FOR_INTERVAL, FEWEST_TO_CLAIM
from ablations.measure.metrics import METRICS
from ablations.report.figures import (
    GREY,
    FigureSpec,
    Panel,
    arm_line,
    count_labels,
    group_panels,
    has_sizes,
    legend_below,
    list_rows,
    resolution_axis,
    side,
)
from ablations.report.tables import (
    ARM,
    NOTHING,
    POINTS,
    Column,
    Show,
    Table,
    points_text,
    show_metric,
    show_plain,
)

OF_DESIGN = ("data", "variant", "base")
"""The conditions that head what is said of a study."""

SEEDS = (
    "Intervals are 95 % and over seeds: they say what other seeds would give, not other images, recipes, sizes or data "
    f"sets. Fewer than {FEWEST_FOR_INTERVAL} seeds have no interval, and their values are shown."
)
"""What an interval over seeds holds."""

CLAIMS = (
    "A difference is resolved where its p, corrected by Holm for all comparisons of its group in this table, is below "
    f"0.05, and else unresolved. With fewer than {FEWEST_TO_CLAIM} seeds, or than the study declared, it is "
    "exploratory and nothing is claimed. The sign-flip p is exact and not corrected."
)
"""What a table claims."""

COMPARED = (
    "Arms are compared seed by seed where equal seeds gave equal initial weights, order of images and augmentation, "
    "and else unpaired (Welch)."
)
"""How two accuracies are compared."""


def seeds_text(row: pd.Series) -> str:
    """Returns the number of seeds: `3 of 6` where the study declared how many."""
    declared = row.get("declared_seeds")
    n = f"{row['n_seeds']:.0f}"
    return n if pd.isna(declared) or row["n_seeds"] == declared else f"{n} of {declared:.0f}"


def raw_text(row: pd.Series, name: str, form: str = "+z.2f") -> str:
    """Returns values that are too few for an interval, in points or percent."""
    return ", ".join(f"{value / POINTS:{form}}" for value in row[f"{name}_raw"] or ())


def ends_text(row: pd.Series, name: str, form: str = "+z.2f") -> str:
    """Returns the interval of an accuracy or a difference in points; of too few values, these."""
    if pd.isna(row[f"{name}_low"]):
        values = row.get(f"{name}_raw")
        return f"values: {raw_text(row, name, form)}" if isinstance(values, tuple) else NOTHING
    if row[f"{name}_low"] == row[f"{name}_high"]:
        return "the same in all seeds"
    return f"{row[f'{name}_low'] / POINTS:{form}} to {row[f'{name}_high'] / POINTS:{form}}"


def claim_text(row: pd.Series, name: str) -> str:
    """Returns whether a difference is claimed: resolved, unresolved or exploratory; nothing where there is none."""
    if pd.isna(row[f"{name}_mean"]):
        return NOTHING
    declared = row.get("declared_seeds")
    fewest = FEWEST_TO_CLAIM if pd.isna(declared) else max(FEWEST_TO_CLAIM, declared)
    if row[f"{name}_n"] < fewest:
        return "exploratory"
    return "resolved" if row[f"{name}_resolved"] else "unresolved"


def difference_text(row: pd.Series, name: str) -> str:
    """Returns a difference in points with its interval in brackets, and whether it is unresolved or exploratory."""
    if pd.isna(row[f"{name}_mean"]):
        return NOTHING
    claim = claim_text(row, name)
    words = ends_text(row, name) if claim == "resolved" else f"{ends_text(row, name)}; {claim}"
    return f"{points_text(row[f'{name}_mean'])} ({words})"


def p_text(p: float) -> str:
    """Returns a p-value with three decimals."""
    return NOTHING if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def show_p(column: str) -> Show:
    """Shows a p-value."""
    return lambda row: p_text(row[column])


def show_mean_points(name: str) -> Show:
    """Shows a difference in points, and over how many seeds where that is not all of them."""

    def show(row: pd.Series) -> str:
        n = "" if row[f"{name}_n"] in (0, row.get("n_seeds", row[f"{name}_n"])) else f" (n = {row[f'{name}_n']})"
        return points_text(row[f"{name}_mean"]) + n

    return show


def claim_columns(name: str, heading: str = "Points of top-1") -> tuple[Column, ...]:
    """Returns the columns that a difference has in a table: what it is, how sure, and whether it is claimed."""
    return (
        Column(heading, show_mean_points(name)),
        Column("95 % interval, seeds", lambda row: ends_text(row, name)),
        Column("p", show_p(f"{name}_p")),
        Column("p by Holm", show_p(f"{name}_p_holm")),
        Column("p by sign flips", show_p(f"{name}_sign_flip_p")),
        Column("Claim", lambda row: claim_text(row, name)),
    )


def _image_text(row: pd.Series) -> str:
    low, high = (float(row.get(f"top1_images_{end}", math.nan)) for end in ("low", "high"))
    return NOTHING if pd.isna(low) else f"{low / POINTS:.2f} to {high / POINTS:.2f}"


def _is_unpaired(values: pd.DataFrame, name: str) -> bool:
    return bool((~values[f"{name}_paired"].astype(bool) & (values[f"{name}_n"] > 0)).any())


def pairing_note(values: pd.DataFrame, name: str) -> str:
    """Says so where differences are not paired by seed."""
    return "Some differences are unpaired (Welch): no initial weights in common." if _is_unpaired(values, name) else ""


def _rates_text(row: pd.Series) -> str:
    return ", ".join(f"{rate}: {top1 / POINTS:.2f}" for rate, top1 in row["top1_by_rate"].items())


TABLES: tuple[Table, ...] = (
    Table(
        name="accuracy",
        measurement="accuracy",
        title="How accurate is each arm?",
        values=accuracy_values,
        conditions=STUDY_CONDITIONS,
        titled_by=(*OF_DESIGN, "changed"),
        columns=(
            Column("Arm or model", ARM.show),
            Column("n", seeds_text),
            Column(METRICS["top1"].title, show_metric("top1", "top1_mean"), best="max"),
            Column("95 % interval, seeds", lambda row: ends_text(row, "top1", ".2f")),
            Column("95 % interval, images", _image_text),
            *claim_columns("top1_difference", "Against v1, points"),
        ),
        about=(
            "Top-1 on validation images after training from scratch, the mean over n seeds. "
            f"{SEEDS} The interval over images, from each image's share of right answers (Wilson's for one seed), says "
            "what other validation images would give these very models. "
            f"{COMPARED} {CLAIMS} Behind the arms stand, by their names, other models that were trained under the same "
            "conditions; size, base, attention and P are the arms' alone."
        ),
        note=lambda values: pairing_note(values, "top1_difference"),
    ),
    Table(
        name="cumulative_accuracy",
        measurement="accuracy",
        title="What does each step of the paper's cumulative ablation add in our own training?",
        values=cumulative_accuracy_values,
        conditions=STUDY_CONDITIONS,
        titled_by=(*OF_DESIGN, "changed"),
        columns=(
            ARM,
            Column("n", seeds_text),
            Column(METRICS["params"].title, show_metric("params")),
            Column(METRICS["macs"].title, show_metric("macs")),
            Column(METRICS["top1"].title, show_metric("top1", "top1_mean"), best="max"),
            Column("95 % interval, seeds", lambda row: ends_text(row, "top1", ".2f")),
            Column("Step from", lambda row: NOTHING if pd.isna(row["step_from"]) else row["step_from"]),
            *claim_columns("top1_step", "Step, points"),
            Column("Reported step, points", show_plain("reported_top1_step_points", "+.1f")),
        ),
        about=(
            "The paper's path through the arms, with our own accuracies; a step is the difference to the arm that it "
            f"starts from. {SEEDS} {COMPARED} {CLAIMS} The reported steps are of b2 on ImageNet at 224 px, one run a "
            "row, spread unknown, between the same two arms. In base published the first step holds the change of the "
            "base too (confounders_accuracy)."
        ),
        note=lambda values: pairing_note(values, "top1_step"),
    ),
    Table(
        name="resolution_transfer",
        measurement="accuracy",
        title="Does v2 stand other test resolutions better than v1?",
        values=resolution_transfer_values,
        conditions=TRANSFER_CONDITIONS,
        titled_by=(*OF_DESIGN, "trained_at", "changed"),
        columns=(ARM, Column("n", seeds_text)),
        spread=(
            Column("{} px: " + METRICS["top1"].title, show_metric("top1", "top1_mean"), best="max"),
            Column("ahead of v1, points", lambda row: difference_text(row, "top1_difference")),
            Column("lead gained or lost", lambda row: difference_text(row, "top1_fall")),
        ),
        about=(
            "Top-1 of the trained models on validation images of other sizes, without further training; v1's learned "
            "position embeddings are resized. `ahead of v1` is the published v2 models' lead at that resolution. `lead "
            "gained or lost` is that lead minus the lead at the training's own size: below 0, v2 falls more than v1. "
            f"{SEEDS} {COMPARED} {CLAIMS} Leads, and leads gained or lost, are a family each."
        ),
    ),
    Table(
        name="learning_rates",
        measurement="accuracy",
        title="How much does an arm lose by the learning rate that all share?",
        values=trial_values,
        conditions=TRIAL_CONDITIONS,
        titled_by=OF_DESIGN,
        columns=(
            ARM,
            Column("Trials", show_plain("n_trials", "d")),
            Column("Top-1 by rate, %", _rates_text),
            Column("Best rate", show_plain("best_rate", "g")),
            Column("Shared rate", show_plain("shared_rate", "g")),
            Column("Lost by sharing, points", lambda row: points_text(-row["top1_lost"])),
        ),
        about=(
            "Trials that choose a recipe: trained without, and scored on, images that are set aside from the training "
            "images, by seeds that no study uses. The shared rate is the best in the mean of all arms. Exploratory: "
            "few trials a rate, and the best of several is the best by chance too. No other table holds these."
        ),
    ),
    Table(
        name="evaluation",
        measurement="evaluation",
        title="How accurate are finished weights at each test resolution?",
        values=evaluation_values,
        conditions=CONDITIONS["evaluation"],
        titled_by=(*OF_DESIGN, "protocol"),
        rows_by="weights",
        columns=(Column("Weights", lambda row: f"`{row['weights']}`"),),
        spread=(
            Column("{} px: " + METRICS["top1"].title, show_metric("top1"), best="max"),
            Column(METRICS["top5"].title, show_metric("top5"), best="max"),
            Column(METRICS["ece"].title, show_metric("ece"), best="min"),
            Column("Released weights' top-1, %", show_metric("top1", "expected_top1")),
        ),
        about=(
            "Accuracy of weights as they are, each image once. The digits begin the SHA-256 of the file of "
            "weights. The calibration error is the expected one over 15 bins of equal width. What the released weights "
            "of such a model reach, by timm's own evaluation or in the paper, stands beside where the images are all "
            "of ImageNet's. One file of weights is one training: a difference between two says nothing of seeds."
        ),
    ),
)
"""Every table of accuracy, in the report's order."""


def plain_studies(records: pd.DataFrame, *, with_models: bool = False) -> list[Group]:
    """Returns the studies in which all confounders are the base's: single ones have a figure of their own."""
    return [group for group in split_studies(records, with_models=with_models) if not group.conditions.get("changed")]


def _accuracy(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Top-1 after training from scratch: mean with its 95 % interval over seeds, and each seed as a dot. "
        "Overlapping intervals do not settle whether two arms differ: the table has the differences."
    )
    studies = plain_studies(records, with_models=True)
    panels = [
        Panel(group.conditions, partial(plot_accuracy, values=accuracy_values(group.rows), records=group.rows))
        for group in studies
    ]
    height = 0.75 + 0.19 * max((group.rows["model"].nunique() for group in studies), default=0)
    return group_panels("accuracy", "How accurate is each arm?", OF_DESIGN, panels, height, caption)


def _cumulative_accuracy(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "The paper's path through the arms in our own training: mean top-1 with its 95 % interval over seeds, in "
        "brackets the step from the arm above, and each arm's parameters and MACs. A step is claimed only where "
        "neither unresolved nor exploratory stands beside it."
    )
    panels = [
        Panel(group.conditions, partial(plot_cumulative_accuracy, values=group.rows))
        for group in group_by(cumulative_accuracy_values(records), STUDY_CONDITIONS)
        if pd.isna(group.conditions.get("changed"))
    ]
    title = "What does each step of the cumulative ablation add?"
    return group_panels("cumulative_accuracy", title, OF_DESIGN, panels, 2.9, caption)


def _resolution_transfer(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Left, top-1 of trained models at other sizes of the validation images: mean with its 95 % interval over "
        "seeds; the grey line is the size of the training. Right, the lead of the published v2 models over v1 at each "
        "size: where it falls from the grey line on, v2 loses more than v1."
    )
    panels = []
    for group in group_by(resolution_transfer_values(records), TRANSFER_CONDITIONS):
        if len(set(group.rows["resolution"])) > 1 and pd.isna(group.conditions.get("changed")):
            shown = ((plot_transfer, "accuracy"), (plot_transfer_lead, "lead over v1"))
            panels += [
                Panel(group.conditions | {"shown": words}, partial(plot, values=group.rows)) for plot, words in shown
            ]
    title = "Does v2 stand other test resolutions better than v1?"
    return group_panels("resolution_transfer", title, OF_DESIGN, panels, 3.6, caption)


def _difference_by_epoch(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Each arm's lead over v1 on validation images by epoch: mean difference, with its 95 % interval over seeds "
        "as a band. Curves that cross late, or have not levelled off, would rank otherwise after longer training. "
        "Exploratory: nothing is corrected for the number of epochs."
    )
    panels = [
        Panel(group.conditions, partial(plot_difference_by_epoch, records=group.rows))
        for group in plain_studies(records)
        if {REFERENCE} < set(group.rows["arm"]) and "history" in group.rows and group.rows["history"].notna().all()
        if all(len(accuracy_curve(record)) > 1 for _, record in group.rows.iterrows())
    ]
    title = "Does the ranking of the arms settle?"
    return group_panels("difference_by_epoch", title, OF_DESIGN, panels, 3.6, caption)


def _evaluation(records: pd.DataFrame) -> list[FigureSpec]:
    caption = (
        "Top-1 of finished weights against the test resolution; one file of weights is one training. The grey line is "
        "the size of images that the models are made for, to whose grid learned position embeddings belong; at any "
        "other they are resized."
    )
    panels = [
        Panel(group.conditions, partial(plot_evaluation, values=group.rows))
        for group in group_by(evaluation_values(records), CONDITIONS["evaluation"])
        if has_sizes(group)
    ]
    title = "How do finished weights fare at other resolutions?"
    return group_panels("evaluation", title, OF_DESIGN, panels, 3.0, caption)


def plot_accuracy(ax: Axes, values: pd.DataFrame, records: pd.DataFrame) -> Axes:
    """Draws each arm's and other model's mean top-1 with its interval over seeds, and its seeds as small dots.

    `values` are rows of `accuracy_values` under the same conditions, `records` the rows that they come from; others
    raise InputError.
    """
    refuse_mixed(values, STUDY_CONDITIONS)
    for rows in (records[records["arm"].notna()], records[records["arm"].isna()]):
        refuse_mixed(rows, STUDY_CONDITIONS)
    names = records["arm"].fillna(records["model"])
    labels = [str(row["model"] if pd.isna(row["arm"]) else row["arm"]) for _, row in values.iterrows()]
    for place, (_, row) in enumerate(values.iterrows()):
        seeds = records.loc[names == labels[place], "top1"] / POINTS
        ax.plot(seeds, [place + 0.28] * len(seeds), ".", color=GREY, markersize=3)
        plot_mean(ax, row["top1_mean"], place, row["top1_low"], row["top1_high"], str(row["arm"]), along="x")
    ax.set_xlabel(f"{METRICS['top1'].title}: mean, 95 % interval, seeds")
    ax.set_ylim(-0.6, len(labels) - 0.4)
    return list_rows(ax, labels)


def plot_mean(
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


def plot_cumulative_accuracy(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the cumulative ablation's mean top-1 with its interval over seeds, and beside each step what it adds.

    `values` are rows of `cumulative_accuracy_values` under the same conditions.
    """
    refuse_mixed(values, STUDY_CONDITIONS)
    means = values["top1_mean"] / POINTS
    ax.plot(means, range(len(values)), color=GREY, linewidth=1)
    labels = []
    for place, (_, row) in enumerate(values.iterrows()):
        plot_mean(ax, row["top1_mean"], place, row["top1_low"], row["top1_high"], row["arm"], along="x")
        ax.annotate(
            _gain_text(row),
            (means.iloc[place], place),
            (0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # covers the line
        )
        labels.append("\n".join([row["arm"], *count_labels(values, row)]))
    ax.margins(x=0.45)  # room for the words
    ax.set_ylim(-0.6, len(values) - 0.5)
    ax.set_xlabel(f"{METRICS['top1'].title}: mean, 95 % interval over seeds\nIn brackets the step, points")
    return list_rows(ax, labels)


def _gain_text(row: pd.Series) -> str:
    """Returns a row's accuracy and, if it has one, its step."""
    level = f"{row['top1_mean'] / POINTS:.2f}"
    if pd.isna(row["top1_step_mean"]):
        return level
    claim = claim_text(row, "top1_step")
    return f"{level} ({points_text(row['top1_step_mean'])}{'' if claim == 'resolved' else f', {claim}'})"


def plot_transfer(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws each arm's mean top-1 with its interval against the test resolution.

    `values` are rows of `resolution_transfer_values` under the same conditions.
    """
    _plot_by_resolution(ax, values, "top1")
    ax.set_ylabel(f"{METRICS['top1'].title}: mean, 95 % interval")
    return ax


def plot_transfer_lead(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the published v2 models' lead over v1 with its interval against the test resolution."""
    ax.axhline(0, color=GREY, linewidth=1)
    _plot_by_resolution(ax, values.dropna(subset="top1_difference_mean"), "top1_difference")
    ax.set_ylabel("Lead over v1, points: mean, 95 % interval")
    return ax


def _plot_by_resolution(ax: Axes, values: pd.DataFrame, name: str) -> None:
    refuse_mixed(values, TRANSFER_CONDITIONS)
    ax.axvline(values["trained_at"].iloc[0], color=GREY, linewidth=1, linestyle="--")
    for arm, rows in values.groupby("arm", sort=False):
        rows = rows.sort_values("pixels")
        mean, low, high = (rows[f"{name}_{end}"] / POINTS for end in ("mean", "low", "high"))
        style = arm_line(str(arm), markersize=4, label=arm)
        ax.errorbar(side(rows), mean, yerr=[(mean - low).fillna(0), (high - mean).fillna(0)], capsize=2, **style)
    resolution_axis(ax, values)
    ax.set_xlabel("Side of the test images, px")
    arms = values["arm"].unique()
    legend_below(ax, ncols=2, handles=[Line2D([], [], **arm_line(str(arm), markersize=4, label=arm)) for arm in arms])


def _epoch_axis(ax: Axes) -> Axes:
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("Epoch")
    legend_below(ax, ncols=2)
    return ax


def plot_difference_by_epoch(ax: Axes, records: pd.DataFrame) -> Axes:
    """Draws each arm's lead over v1 by epoch, with its interval over seeds as a band where there is one.

    `records` are those of one group of accuracy that were evaluated on the way.
    """
    refuse_mixed(records, STUDY_CONDITIONS)
    ax.axhline(0, color=GREY, linewidth=1)
    for arm, rows in difference_by_epoch_values(records).groupby("arm", sort=False):
        style = arm_line(str(arm), markersize=3, label=arm)
        ax.plot(rows["epoch"], rows["mean"] / POINTS, **style)
        if rows["low"].notna().all():
            ax.fill_between(
                rows["epoch"],
                rows["low"] / POINTS,
                rows["high"] / POINTS,
                color=style["color"],
                alpha=0.12,
                linewidth=0,
            )
    ax.set_ylabel("Lead over v1, points: mean, 95 % interval")
    return _epoch_axis(ax)


LINE_STYLES = ("-", "--", ":", "-.")
"""Of the checkpoints of one arm, which have its colour and marker."""


def plot_evaluation(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the top-1 of finished weights against the test resolution, and where the size is that they are made for.

    `values` are rows of `evaluation_values` under the same conditions; others raise InputError.
    """
    refuse_mixed(values, CONDITIONS["evaluation"])
    own_size = values["img_size"].iloc[0]
    ax.axvline(own_size, color=GREY, linewidth=1, label=f"made for {own_size} px")
    styles = {arm: cycle(LINE_STYLES) for arm in values["arm"]}
    for (arm, weights), rows in values.groupby(["arm", "weights"], sort=False):
        curve = rows.sort_values("pixels")
        top1 = curve["top1"] / POINTS
        ax.plot(side(curve), top1, **arm_line(str(arm), label=str(weights), linestyle=next(styles[arm])))
    resolution_axis(ax, values)
    ax.set_ylabel(METRICS["top1"].title)
    legend_below(ax)
    return ax


FIGURES = {
    "accuracy": _accuracy,
    "cumulative_accuracy": _cumulative_accuracy,
    "resolution_transfer": _resolution_transfer,
    "difference_by_epoch": _difference_by_epoch,
    "evaluation": _evaluation,
}
"""Each kind of figure, and what returns those that the records give."""
