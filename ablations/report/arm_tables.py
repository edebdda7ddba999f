"""The tables that compare arms: one definition for each measurement."""

import pandas as pd

from ablations.analysis.grouping import CONDITIONS
from ablations.records import METRICS
from ablations.report.memory_tables import MEMORY_TABLES
from ablations.report.speed_tables import SPEED_TABLES
from ablations.report.tables import (
    ARM,
    NOTHING,
    Column,
    Table,
    range_text,
    show_metric,
    show_plain,
    show_with_change,
    unless_reference,
)
from ablations.report.values import accuracy_values, cost_values, cumulative_values


def _cost_note(values: pd.DataFrame) -> str:
    counted_twice = values.dropna(subset="macs_traced")
    equal = int((counted_twice["macs"] == counted_twice["macs_traced"]).sum())
    confounders = "Arm v1 has v1's confounders and the others v2's, so that a change against v1 holds both. "
    agreement = f"Closed form and trace count the same in {equal} of {len(counted_twice)} records."
    return (
        f"{confounders if values['base'].iloc[0] == 'published' else ''}"
        f"{'There is no closed form with this head.' if counted_twice.empty else agreement}"
    )


POINTS = METRICS["top1"].divisor


def _mean_interval(row: pd.Series) -> str:
    return range_text(row, "top1", ".2f", POINTS) if row["n_seeds"] > 1 else "none: one seed"


def _difference(row: pd.Series) -> str:
    if not row["n_pairs"]:
        return "no common seed"
    pairs = "" if row["n_pairs"] == row["n_seeds"] else f" (n = {row['n_pairs']})"
    return f"{row['top1_difference_mean'] / POINTS:+z.2f}{pairs}"


def _difference_interval(row: pd.Series) -> str:
    if row["n_pairs"] < 2:
        return "none: one seed" if row["n_pairs"] else NOTHING
    text = range_text(row, "top1_difference", "+z.2f", POINTS)
    return text if row["difference_is_resolved"] else f"{text}, unresolved"


ARM_TABLES = (
    Table(
        name="cost",
        measurement="cost",
        title="Parameters and MACs",
        values=cost_values,
        conditions=CONDITIONS["cost"],
        titled_by=("variant", "base", "head"),
        columns=(ARM, Column(METRICS["params"].title, show_with_change("params"), best="min")),
        spread=(Column("{} px: " + METRICS["macs"].title, show_with_change("macs"), best="min"),),
        about=(
            "One image's forward pass. MACs are those of convolutions and matrix products, attention's "
            "two included; norms, activations and pooling count as none. In brackets the change against v1. "
            "Counted by tracing the model's operators, and classifiers in closed form too. They do not say how long "
            "anything takes."
        ),
        note=_cost_note,
    ),
    Table(
        name="cumulative",
        measurement="cost",
        title="The paper's cumulative",
        values=cumulative_values,
        conditions=(*CONDITIONS["cost"], "resolution"),
        titled_by=("variant", "base", "resolution"),
        columns=(
            Column("Row of the paper", lambda row: row["paper_setting"]),
            ARM,
            Column(METRICS["params"].title, show_metric("params")),
            Column("paper's", show_plain("paper_params_m")),
            Column("step", show_plain("params_step", "+.2f", METRICS["params"].divisor)),
            Column("paper's step", show_plain("paper_retinanet_params_step_m", "+.1f")),
            Column("GFLOPs (MACs)", show_metric("macs")),
            Column("paper's", show_plain("paper_gflops")),
            Column("step", show_plain("macs_step", "+.2f", METRICS["macs"].divisor)),
            Column("Paper's top-1, %", show_plain("paper_top1_percent")),
            Column("step", show_plain("paper_top1_step_points", "+.1f")),
        ),
        about=(
            "Steps are differences to the row above; the first holds the change of base too. Our numbers are of "
            "backbones, counted and not trained. The paper's totals are those of its Table 2, which lacks the "
            "second row; its steps in parameters are those of the RetinaNet detectors of its Table 6, which the table "
            "table6_ablation rebuilds. All top-1 is the paper's: ImageNet at 224 px, one run a row, spread unknown. "
            "What the paper calls GFLOPs are MACs."
        ),
    ),
    *MEMORY_TABLES,
    *SPEED_TABLES,
    Table(
        name="accuracy",
        measurement="accuracy",
        title="Accuracy",
        values=accuracy_values,
        conditions=CONDITIONS["accuracy"],
        titled_by=("data", "variant", "base"),
        columns=(
            Column("Arm or model", ARM.show),
            Column("n", lambda row: str(row["n_seeds"])),
            Column(METRICS["top1"].title, show_metric("top1", "top1_mean"), best="max"),
            Column("95 % interval", _mean_interval),
            Column("Against v1, points", unless_reference(_difference)),
            Column("95 % interval", unless_reference(_difference_interval)),
        ),
        about=(
            "Top-1 on validation images after training from scratch: the mean over n seeds with its 95 % t "
            "interval. Differences are paired by seed (same order of images, same augmentation) and unresolved "
            "where their interval holds 0; one pair has no interval. Intervals are not corrected for the number "
            "of comparisons. They are about seeds: they hold neither the choice of validation images nor another "
            "recipe, size or data set. Behind the arms stand, by their names, other models that were trained under "
            "the same conditions, where there are any; size, base, attention and P are the arms' alone."
        ),
    ),
)
"""Every table of arms, in the report's order."""
