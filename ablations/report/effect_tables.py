"""The tables of what each change does: effects, steps, orders, Shapley values, the cumulative in our own training."""

import pandas as pd

from ablations.analysis.effects import CHANGES, EFFECTS
from ablations.analysis.grouping import CONDITIONS
from ablations.records import METRICS
from ablations.report.cumulative_accuracy import cumulative_accuracy_values
from ablations.report.differences import effect_name
from ablations.report.effect_choice import contributions_at_work, effects_at_work, in_clean_bases
from ablations.report.effect_values import effect_values, order_values, shapley_values, step_values
from ablations.report.tables import (
    ARM,
    MODE_WORDS,
    NOTHING,
    ONE_SEED,
    PAIRED,
    POINTS,
    Column,
    Show,
    Table,
    points_text,
    show_interval,
    show_metric,
    show_paired_points,
    show_plain,
    show_points,
    show_signed,
    show_with_interval,
)


def _extremes(row: pd.Series) -> str:
    if pd.isna(row["top1_smallest_mean"]):
        return NOTHING
    return " to ".join(points_text(row[f"top1_{end}_mean"]) for end in ("smallest", "largest"))


def _level_interval(row: pd.Series) -> str:
    if pd.isna(row["top1_low"]):
        return ONE_SEED
    return f"{row['top1_low'] / POINTS:.2f} to {row['top1_high'] / POINTS:.2f}"


def _p_value(column: str) -> Show:
    def show(row: pd.Series) -> str:
        return NOTHING if pd.isna(row[column]) else "< 0.001" if row[column] < 0.001 else f"{row[column]:.3f}"

    return show


def _after_holm(row: pd.Series) -> str:
    if pd.isna(row["p_holm"]):
        return NOTHING
    return "resolved" if row["top1_effect_resolved_holm"] else "unresolved"


def _shapley_percent(row: pd.Series) -> str:
    name = "peak_memory_bytes"
    if pd.isna(row[f"{name}_shapley_percent"]):
        return NOTHING
    least, most = row[f"{name}_smallest_percent"], row[f"{name}_largest_percent"]
    return f"{row[f'{name}_shapley_percent']:+z.1f} ({least:+z.1f} to {most:+z.1f})"


def _seeds_note(values: pd.DataFrame) -> str:
    n, left_out = (int(values[name].iloc[0]) for name in ("n_seeds", "n_seeds_left_out"))
    if n == 0:
        return "No seed has all eight arms."
    used = "n = 1 seed, so there is no interval." if n == 1 else f"n = {n} seeds, each with all eight arms."
    return f"{used} {left_out} left out, for arms that they lack." if left_out else used


def _effects_note(values: pd.DataFrame) -> str:
    n = int(values["n_seeds"].iloc[0])
    return _seeds_note(values) + (f" Degrees of freedom: {7 * (n - 1)}." if n > 1 else "")


def _interactions_note(values: pd.DataFrame) -> str:
    missing = set(EFFECTS) - set(values["effect"])
    if len(missing) == len(EFFECTS) - len(CHANGES):
        return (
            "All interactions are exactly 0: in any order, and whatever the others are, a change adds the same, which "
            "is its Shapley value too."
        )
    return "Interactions that are not listed are exactly 0." if missing else ""


def _mode_note(values: pd.DataFrame) -> str:
    return MODE_WORDS[values["mode"].iloc[0]]


_SCALE = (
    "Exact, without noise: one value an arm; in brackets in percent of arm v1's. A change's effect is the mean with it "
    "minus the mean without it, over the four settings of the others; an interaction (a x b) is half of how much more "
    "a does with b than without it, and that of three is half of the change of such an interaction with the third."
)
_CLEAN = "Base published is left out: there arms differ in confounders too."
_OF_DESIGN = ("data", "variant", "base")


EFFECT_TABLES: tuple[Table, ...] = (
    Table(
        name="effects_accuracy",
        measurement="accuracy",
        title="What each change does to accuracy",
        values=in_clean_bases(effect_values, "accuracy"),
        conditions=CONDITIONS["accuracy"],
        titled_by=_OF_DESIGN,
        rows_by="effect",
        columns=(
            Column("Effect", lambda row: effect_name(row["effect"])),
            Column("Points of top-1", show_points("top1_effect")),
            Column("95 % interval", show_interval("top1_effect")),
            Column("p", _p_value("p")),
            Column("p by Holm, of seven", _p_value("p_holm")),
            Column("After Holm", _after_holm),
        ),
        about=(
            "A change's effect is the mean with it minus the mean without it, over the four settings of the others. An "
            "interaction (a x b) is half of how much more a does with b than without it: below 0, each does less "
            "where the other is; that of three is half of the change of such an interaction with the third. The model "
            "is linear, with a block for each seed, and pools its 7 (n - 1) degrees of freedom: it takes a change to "
            "do the same in every seed. The intervals by seed of steps_accuracy, shapley_accuracy and cumulative_steps do "
            "not, have n - 1 degrees and are mostly wider: where the two disagree, this is why. Each interval is at "
            "95 % by itself, unresolved where it holds 0; p by Holm and the last column allow for all seven. All of it "
            f"is about seeds, with one recipe, size and choice of validation images. {_CLEAN}"
        ),
        note=_effects_note,
    ),
    Table(
        name="steps_accuracy",
        measurement="accuracy",
        title="What each change adds to accuracy, by what is there already",
        values=in_clean_bases(step_values, "accuracy"),
        conditions=CONDITIONS["accuracy"],
        titled_by=_OF_DESIGN,
        rows_by="step",
        columns=(
            Column("Step", lambda row: row["step"]),
            Column("Points of top-1", show_points("top1_step")),
            Column("95 % interval", show_interval("top1_step")),
        ),
        about=f"Each change at the four settings of the others. {PAIRED} {_CLEAN}",
        note=_seeds_note,
    ),
    Table(
        name="orders_accuracy",
        measurement="accuracy",
        title="What each change adds to accuracy, by the order of adding them",
        values=in_clean_bases(order_values, "accuracy"),
        conditions=CONDITIONS["accuracy"],
        titled_by=_OF_DESIGN,
        rows_by="order",
        columns=(
            Column("Order", lambda row: row["order"]),
            *(Column(f"{change}, points", show_with_interval(f"top1_{change}")) for change in CHANGES),
        ),
        about=(
            "All six orders of adding the three changes to v1; the paper's cumulative is the first. The means of a row add "
            f"up to the whole way. {PAIRED} {_CLEAN}"
        ),
        note=_seeds_note,
    ),
    Table(
        name="shapley_accuracy",
        measurement="accuracy",
        title="What each change adds to accuracy, whatever the order",
        values=in_clean_bases(shapley_values, "accuracy"),
        conditions=CONDITIONS["accuracy"],
        titled_by=_OF_DESIGN,
        rows_by="change",
        columns=(
            Column("Change", lambda row: row["change"]),
            Column("Shapley value, points", show_points("top1_shapley")),
            Column("95 % interval", show_interval("top1_shapley")),
            Column("Least to most at any setting, points", _extremes),
        ),
        about=(
            "The Shapley value is the mean of what a change adds over the six orders; the three add up to the whole "
            f"way from v1. The last column has means alone, and chance spreads them too. {PAIRED} {_CLEAN}"
        ),
        note=_seeds_note,
    ),
    Table(
        name="cumulative_steps",
        measurement="accuracy",
        title="The cumulative in our own training",
        values=cumulative_accuracy_values,
        conditions=CONDITIONS["accuracy"],
        titled_by=_OF_DESIGN,
        columns=(
            ARM,
            Column("n", show_plain("n_seeds", "d")),
            Column(METRICS["params"].title, show_metric("params")),
            Column(METRICS["macs"].title, show_metric("macs")),
            Column(METRICS["top1"].title, show_metric("top1", "top1_mean"), best="max"),
            Column("95 % interval", _level_interval),
            Column("Step, points", show_paired_points("top1_step")),
            Column("95 % interval of the step", show_interval("top1_step")),
            Column("Paper's step, points", show_plain("paper_top1_step_points", "+.1f")),
        ),
        about=(
            "The paper's path through the arms, with our own accuracies; a step is the difference to the row above. "
            f"{PAIRED} The paper's steps are of b2 on ImageNet at 224 px, one run a row, spread unknown. In base "
            "published the first step holds the change of confounders too (confounders_accuracy)."
        ),
    ),
    Table(
        name="effects_cost",
        measurement="cost",
        title="What each change does to parameters and MACs",
        values=in_clean_bases(effects_at_work, "cost"),
        conditions=CONDITIONS["cost"],
        titled_by=("variant", "base", "head"),
        rows_by="effect",
        columns=(
            Column("Effect", lambda row: effect_name(row["effect"])),
            Column(METRICS["params"].title, show_signed("params", "params_effect")),
        ),
        spread=(Column("{} px: " + METRICS["macs"].title, show_signed("macs", "macs_effect")),),
        about=f"{_SCALE} {_CLEAN}",
        note=_interactions_note,
    ),
    Table(
        name="effects_memory",
        measurement="memory",
        title="What each change does to peak memory",
        values=in_clean_bases(effects_at_work, "memory"),
        conditions=CONDITIONS["memory"],
        titled_by=("variant", "base", "mode", "attention", "device", "method"),
        rows_by="effect",
        columns=(Column("Effect", lambda row: effect_name(row["effect"])),),
        spread=(Column("{} px: MiB", show_signed("peak_memory_bytes", "peak_memory_bytes_effect")),),
        about=(
            f"{_SCALE} A peak is the most of many moments, and another change can move it to another moment: so there "
            f"are interactions. What is counted says the table memory. {_CLEAN}"
        ),
        note=lambda values: f"{_mode_note(values)} {_interactions_note(values)}".strip(),
    ),
    Table(
        name="shapley_memory",
        measurement="memory",
        title="What each change adds to peak memory, whatever the order",
        values=in_clean_bases(contributions_at_work, "memory"),
        conditions=CONDITIONS["memory"],
        titled_by=("variant", "base", "mode", "attention", "device", "method"),
        rows_by="change",
        columns=(Column("Change", lambda row: row["change"]),),
        spread=(Column("{} px: % of v1", _shapley_percent),),
        about=(
            "The Shapley value is the mean of what a change adds over the six orders of adding the three; they add up "
            "to the whole way from v1. In brackets the least and the most that it adds at any setting of the others. "
            "Exact; the CSV has bytes. Conditions without interactions are left out: there it is the effect "
            f"(effects_memory), in any order. {_CLEAN}"
        ),
        note=_mode_note,
    ),
)
"""Every table of effects, in the report's order."""
