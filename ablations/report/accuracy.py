"""Accuracy after training and of finished weights: tables and figures."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ablations.analysis import accuracy as analysis
from ablations.analysis.accuracy import STUDY_CONDITIONS, TRANSFER_CONDITIONS
from ablations.analysis.grouping import CONDITIONS, REFERENCE, Group, group_by, is_plain, refuse_mixed
from ablations.analysis.statistics import FEWEST_FOR_INTERVAL, FEWEST_TO_CLAIM
from ablations.measure.metrics import METRICS
from ablations.report import figures
from ablations.report.figures import GREY, FigureKind, Panel, arm_line, has_sizes, panels_of, plot_interval
from ablations.report.tables import ARM, NOTHING, POINTS, Table, TableColumn, count_column, metric_column, points_text

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


def ends_text(row: pd.Series, name: str, form: str = "+z.2f") -> str:
    """Returns the interval of an accuracy or a difference in points; of too few values, these."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(low):
        values = row.get(f"{name}_raw")
        if not isinstance(values, tuple):
            return NOTHING
        return "values: " + ", ".join(f"{value / POINTS:{form}}" for value in values)
    return "the same in all seeds" if low == high else f"{low / POINTS:{form}} to {high / POINTS:{form}}"


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
    if pd.isna(row.get(f"{name}_mean")):
        return NOTHING
    claim = claim_text(row, name)
    words = ends_text(row, name) if claim == "resolved" else f"{ends_text(row, name)}; {claim}"
    return f"{points_text(row[f'{name}_mean'])} ({words})"


def p_text(p: float) -> str:
    """Returns a p-value with three decimals."""
    return NOTHING if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def claim_columns(name: str, heading: str = "Points of top-1") -> tuple[TableColumn, ...]:
    """Returns the columns that a difference has in a table: what it is, how sure, and whether it is claimed.

    How many seeds it is over is said where that is not all of them.
    """

    def mean_text(row: pd.Series) -> str:
        n = row[f"{name}_n"]
        return points_text(row[f"{name}_mean"]) + ("" if n in (0, row.get("n_seeds", n)) else f" (n = {n})")

    return (
        TableColumn(heading, mean_text),
        TableColumn("95 % interval, seeds", lambda row: ends_text(row, name)),
        TableColumn("p", lambda row: p_text(row[f"{name}_p"])),
        TableColumn("p by Holm", lambda row: p_text(row[f"{name}_p_holm"])),
        TableColumn("p by sign flips", lambda row: p_text(row[f"{name}_sign_flip_p"])),
        TableColumn("Claim", lambda row: claim_text(row, name)),
    )


def seed_columns(metric: str) -> tuple[TableColumn, ...]:
    """Returns the columns of a score: over how many seeds, the mean, and its interval."""
    return (
        TableColumn("n", seeds_text),
        metric_column(metric, f"{metric}_mean"),
        TableColumn("95 % interval, seeds", lambda row: ends_text(row, metric, ".2f")),
    )


SEED_COLUMNS = seed_columns("top1")
ARM_OR_MODEL = TableColumn("Arm or model", ARM.show)


def _image_text(row: pd.Series) -> str:
    low, high = (float(row.get(f"top1_images_{end}", math.nan)) for end in ("low", "high"))
    return NOTHING if pd.isna(low) else f"{low / POINTS:.2f} to {high / POINTS:.2f}"


def pairing_note(values: pd.DataFrame) -> str:
    """Says so where the differences of a table of one kind of them are not paired by seed."""
    (paired,) = (str(name) for name in values if str(name).endswith("_paired"))
    is_unpaired = (~values[paired].astype(bool) & (values[f"{paired.removesuffix('paired')}n"] > 0)).any()
    return "Some differences are unpaired (Welch): no initial weights in common." if is_unpaired else ""


def _rates_text(row: pd.Series) -> str:
    return ", ".join(f"{rate}: {top1 / POINTS:.2f}" for rate, top1 in row["top1_by_rate"].items())


def _lost_in_study(row: pd.Series) -> str:
    return NOTHING if pd.isna(row["top1_lost_in_study"]) else points_text(-row["top1_lost_in_study"])


AccuracyTable = partial(Table, measurement="accuracy")
"""A table of trainings."""

TABLES: tuple[Table, ...] = (
    AccuracyTable(
        name="accuracy",
        title="How accurate is each arm?",
        values=analysis.accuracy_values,
        conditions=STUDY_CONDITIONS,
        titled_by=(*OF_DESIGN, "changed"),
        columns=(
            ARM_OR_MODEL,
            *SEED_COLUMNS,
            TableColumn("95 % interval, images", _image_text),
            *claim_columns("top1_difference", "Against v1, points"),
        ),
        about=(
            f"Top-1 on validation images after training, the mean over n seeds. {SEEDS} The interval over images, "
            "from each image's share of right answers (Wilson's for one seed), says what other validation "
            f"images would give these very models. {COMPARED} {CLAIMS} Behind the arms stand, by their names, other "
            "models that were trained under the same conditions; size, base, attention and P are the arms' alone."
        ),
        note=pairing_note,
    ),
    AccuracyTable(
        name="cumulative_accuracy",
        title="What does each step of the paper's cumulative ablation add in our own training?",
        values=analysis.cumulative_accuracy_values,
        conditions=STUDY_CONDITIONS,
        titled_by=(*OF_DESIGN, "changed"),
        columns=(
            ARM,
            SEED_COLUMNS[0],
            count_column("params"),
            count_column("macs"),
            *SEED_COLUMNS[1:],
            TableColumn("Step from", "step_from"),
            *claim_columns("top1_step", "Step, points"),
            TableColumn("Reported step, points", "reported_top1_step_points", "+.1f"),
        ),
        about=(
            "The paper's path through the arms, with our own accuracies; a step is the difference to the arm that it "
            f"starts from. {SEEDS} {COMPARED} {CLAIMS} The reported steps are of b2 on ImageNet at 224 px, one run a "
            "row, spread unknown, between the same two arms. In base published the first step holds the change of the "
            "base too (confounders_accuracy)."
        ),
        note=pairing_note,
    ),
    AccuracyTable(
        name="resolution_transfer",
        title="Does v2 stand other test resolutions better than v1?",
        values=analysis.resolution_transfer_values,
        conditions=TRANSFER_CONDITIONS,
        titled_by=(*OF_DESIGN, "trained_at", "changed"),
        columns=(ARM, TableColumn("n", seeds_text)),
        spread=(
            metric_column("top1", "top1_mean", "{} px: " + METRICS["top1"].title),
            TableColumn("ahead of v1, points", lambda row: difference_text(row, "top1_difference")),
            TableColumn("lead gained or lost", lambda row: difference_text(row, "top1_fall")),
        ),
        about=(
            "Top-1 of the trained models on validation images of other sizes, without further training; v1's learned "
            "position embeddings are resized. `ahead of v1` is the published v2 models' lead at that resolution. `lead "
            "gained or lost` is that lead minus the lead at the training's own size: below 0, v2 falls more than v1. "
            f"{SEEDS} {COMPARED} {CLAIMS} Leads, and leads gained or lost, are a family each."
        ),
    ),
    AccuracyTable(
        name="learning_rates",
        title="How much does an arm lose by the learning rate that all share?",
        values=analysis.trial_values,
        conditions=analysis.TRIAL_CONDITIONS,
        titled_by=OF_DESIGN,
        columns=(
            ARM,
            TableColumn("Trials", "n_trials", "d"),
            TableColumn("Top-1 by rate, %", _rates_text),
            TableColumn("Best rate", "best_rate", "g"),
            TableColumn("Shared rate", "shared_rate", "g"),
            TableColumn("Lost by sharing, points", lambda row: points_text(-row["top1_lost"])),
            TableColumn("Rate of the study", "study_rate", "g"),
            TableColumn("Lost in the study, points", _lost_in_study),
        ),
        about=(
            "Trials that choose a recipe: trained without, and scored on, images that are set aside from the training "
            "images, by seeds that no study uses. The shared rate is the best in the mean of all arms; the rate of the "
            "study is that of the trainings in other tables, of several the shared one. Exploratory: few trials a "
            "rate, and the best of several is the best by chance too. No other table holds these."
        ),
    ),
    Table(
        name="evaluation",
        measurement="evaluation",
        title="How accurate are finished weights at each test resolution?",
        values=analysis.evaluation_values,
        conditions=CONDITIONS["evaluation"],
        titled_by=(*OF_DESIGN, "protocol"),
        rows_by="weights",
        columns=(TableColumn("Weights", "weights", "`{}`"),),
        spread=(
            metric_column("top1", title="{} px: " + METRICS["top1"].title),
            metric_column("top5"),
            metric_column("ece"),
            metric_column("top1", "expected_top1", "Released weights' top-1, %"),
        ),
        about=(
            "Accuracy of weights as they are, each image once. The digits begin the SHA-256 of the file of weights. "
            "The calibration error is the expected one over 15 bins of equal width. What the released weights of such "
            "a model reach, by timm's own evaluation or in the paper, stands beside where the images are all of "
            "ImageNet's. One file of weights is one training: a difference between two says nothing of seeds."
        ),
    ),
)
"""Every table of accuracy, in the report's order."""


def plain_studies(records: pd.DataFrame, *, with_models: bool = False) -> list[Group]:
    """Returns the studies in which all confounders are the base's: single ones have a figure of their own."""
    return list(filter(is_plain, analysis.split_studies(records, with_models=with_models)))


def _panels_of_accuracy(records: pd.DataFrame) -> Iterator[Panel]:
    for group in plain_studies(records, with_models=True):
        draw = partial(plot_accuracy, values=analysis.accuracy_values(group.rows), records=group.rows)
        yield Panel(group.conditions, draw, group.rows, height=0.75 + 0.19 * group.rows["model"].nunique())


def _panels_of_transfer(records: pd.DataFrame) -> Iterator[Panel]:
    for group in group_by(analysis.resolution_transfer_values(records), TRANSFER_CONDITIONS):
        if len(set(group.rows["resolution"])) > 1 and is_plain(group):
            for plot, shown in ((plot_transfer, "accuracy"), (plot_transfer_lead, "lead over v1")):
                yield Panel(group.conditions | {"shown": shown}, partial(plot, values=group.rows), group.rows)


def _panels_by_epoch(records: pd.DataFrame) -> Iterator[Panel]:
    for group in plain_studies(records):
        if (
            not {REFERENCE} < set(group.rows["arm"])
            or "history" not in group.rows
            or group.rows["history"].isna().any()
        ):
            continue
        if all(len(analysis.accuracy_curve(record)) > 1 for _, record in group.rows.iterrows()):
            yield Panel(group.conditions, partial(plot_difference_by_epoch, records=group.rows), group.rows)


def plot_accuracy(ax: Axes, values: pd.DataFrame, records: pd.DataFrame) -> Axes:
    """Draws each arm's and other model's mean top-1 with its interval over seeds, and its seeds as small dots.

    `values` are rows of `accuracy_values` under the same conditions, `records` the rows that they come from; others
    raise InputError.
    """
    for rows in (values, records[records["arm"].notna()], records[records["arm"].isna()]):
        refuse_mixed(rows, STUDY_CONDITIONS)
    names = records["arm"].fillna(records["model"])
    labels = [str(ARM.show(row)) for _, row in values.iterrows()]
    for place, (_, row) in enumerate(values.iterrows()):
        seeds = records.loc[names == labels[place], "top1"] / POINTS
        ax.plot(seeds, [place + 0.28] * len(seeds), ".", color=GREY, markersize=3)
        plot_interval(ax, place, row, "top1", str(row["arm"]))
    ax.set_xlabel(f"{METRICS['top1'].title}: mean, 95 % interval, seeds")
    return figures.list_rows(ax, labels)


def plot_cumulative_accuracy(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the cumulative ablation's mean top-1 with its interval over seeds, and beside each step what it adds.

    `values` are rows of `cumulative_accuracy_values` under the same conditions.
    """
    refuse_mixed(values, STUDY_CONDITIONS)
    means = values["top1_mean"] / POINTS
    ax.plot(means, range(len(values)), color=GREY, linewidth=1)
    covering = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # the line
    labels = []
    for place, (mean, (_, row)) in enumerate(zip(means, values.iterrows(), strict=True)):
        plot_interval(ax, place, row, "top1", row["arm"])
        above: dict[str, Any] = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "fontsize": 7}
        ax.annotate(_gain_text(row), (mean, place), **above, bbox=covering)
        labels.append("\n".join([row["arm"], *figures.count_labels(values, row)]))
    ax.margins(x=0.45)  # room for the words
    ax.set_xlabel(f"{METRICS['top1'].title}: mean, 95 % interval over seeds\nIn brackets the step, points")
    figures.list_rows(ax, labels)
    ax.set_ylim(len(values) - 0.5, -0.6)
    return ax


def _gain_text(row: pd.Series) -> str:
    """Returns a row's accuracy and, if it has one, its step."""
    level = f"{row['top1_mean'] / POINTS:.2f}"
    if pd.isna(row["top1_step_mean"]):
        return level
    claim = claim_text(row, "top1_step")
    return f"{level} ({points_text(row['top1_step_mean'])}{'' if claim == 'resolved' else f', {claim}'})"


def plot_transfer(ax: Axes, values: pd.DataFrame, name: str = "top1", words: str = METRICS["top1"].title) -> Axes:
    """Draws each arm's mean top-1, or a difference `name` in `words`, with its interval against the test resolution.

    `values` are rows of `resolution_transfer_values` under the same conditions.
    """
    refuse_mixed(values, TRANSFER_CONDITIONS)
    ax.axvline(values["trained_at"].iloc[0], color=GREY, linewidth=1, linestyle="--")
    keys = []
    for arm, rows in values.groupby("arm", sort=False):
        rows = rows.sort_values("pixels")
        mean, low, high = (rows[f"{name}_{end}"] / POINTS for end in ("mean", "low", "high"))
        style = arm_line(str(arm), markersize=4, label=arm)
        whiskers = [(mean - low).fillna(0), (high - mean).fillna(0)]
        ax.errorbar(figures.side(rows), mean, yerr=whiskers, capsize=2, **style)
        keys.append(Line2D([], [], **style))
    figures.label_sizes(ax, values, f"{words}: mean, 95 % interval", ncols=2, handles=keys)
    ax.set_xlabel("Side of the test images, px")
    return ax


def plot_transfer_lead(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the published v2 models' lead over v1 with its interval against the test resolution."""
    ax.axhline(0, color=GREY, linewidth=1)
    return plot_transfer(ax, values.dropna(subset="top1_difference_mean"), "top1_difference", "Lead over v1, points")


def plot_difference_by_epoch(ax: Axes, records: pd.DataFrame) -> Axes:
    """Draws each arm's lead over v1 by epoch, with its interval over seeds as a band where there is one.

    `records` are those of one group of accuracy that were evaluated on the way.
    """
    refuse_mixed(records, STUDY_CONDITIONS)
    ax.axhline(0, color=GREY, linewidth=1)
    for arm, rows in analysis.difference_by_epoch_values(records).groupby("arm", sort=False):
        mean, low, high = (rows[end] / POINTS for end in ("mean", "low", "high"))
        style = arm_line(str(arm), markersize=3, label=arm)
        ax.plot(rows["epoch"], mean, **style)
        if low.notna().all():
            ax.fill_between(rows["epoch"], low, high, color=style["color"], alpha=0.12, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xlabel("Epoch")
    ax.set_ylabel("Lead over v1, points: mean, 95 % interval")
    figures.legend_below(ax, ncols=2)
    return ax


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
        look = arm_line(str(arm), label=str(weights), linestyle=next(styles[arm]))
        ax.plot(figures.side(curve), curve["top1"] / POINTS, **look)
    return figures.label_sizes(ax, values, METRICS["top1"].title)


FIGURES = (
    FigureKind(
        name="accuracy",
        title="How accurate is each arm?",
        named_by=OF_DESIGN,
        panels=_panels_of_accuracy,
        caption=(
            "Top-1 after training: mean with its 95 % interval over seeds, and each seed as a dot. "
            "Overlapping intervals do not settle whether two arms differ: the table has the differences."
        ),
    ),
    FigureKind(
        name="cumulative_accuracy",
        title="What does each step of the cumulative ablation add?",
        named_by=OF_DESIGN,
        panels=panels_of(analysis.cumulative_accuracy_values, STUDY_CONDITIONS, plot_cumulative_accuracy, is_plain),
        height=2.9,
        caption=(
            "The paper's path through the arms in our own training: mean top-1 with its 95 % interval over seeds, in "
            "brackets the step from the arm above, and each arm's parameters and MACs. A step is claimed only where "
            "neither unresolved nor exploratory stands beside it."
        ),
    ),
    FigureKind(
        name="resolution_transfer",
        title="Does v2 stand other test resolutions better than v1?",
        named_by=OF_DESIGN,
        panels=_panels_of_transfer,
        height=3.6,
        caption=(
            "Left, top-1 of trained models at other sizes of the validation images: mean with its 95 % interval over "
            "seeds; the grey line is the size of the training. Right, the lead of the published v2 models over v1 at "
            "each size: where it falls from the grey line on, v2 loses more than v1."
        ),
    ),
    FigureKind(
        name="difference_by_epoch",
        title="Does the ranking of the arms settle?",
        named_by=OF_DESIGN,
        panels=_panels_by_epoch,
        height=3.6,
        caption=(
            "Each arm's lead over v1 on validation images by epoch: mean difference, with its 95 % interval over seeds "
            "as a band. Curves that cross late, or have not levelled off, would rank otherwise after longer training. "
            "Exploratory: nothing is corrected for the number of epochs."
        ),
    ),
    FigureKind(
        name="evaluation",
        title="How do finished weights fare at other resolutions?",
        named_by=OF_DESIGN,
        panels=panels_of(analysis.evaluation_values, CONDITIONS["evaluation"], plot_evaluation, has_sizes),
        height=3.0,
        caption=(
            "Top-1 of finished weights against the test resolution; one file of weights is one training. The grey line "
            "is the size of images that the models are made for, to whose grid learned position embeddings belong; at "
            "any other they are resized."
        ),
    ),
)
"""The kinds of figures of accuracy."""
