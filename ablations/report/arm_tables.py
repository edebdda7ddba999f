"""The tables that compare arms: one definition for each measurement."""

from collections.abc import Callable

import pandas as pd

from ablations.records import METRICS
from ablations.report.conditions import CONDITIONS
from ablations.report.library_values import LIBRARY_CONDITIONS, geometric_mean, library_values
from ablations.report.memory_tables import MEMORY_TABLES
from ablations.report.operator_tables import OPERATOR_TABLE
from ablations.report.tables import ARM, MODE_WORDS, NOTHING, Column, Table, show_metric, show_plain, show_with_change
from ablations.report.values import (
    REFERENCE,
    accuracy_values,
    cost_values,
    ladder_values,
    speed_values,
)


def _cost_note(values: pd.DataFrame) -> str:
    counted_twice = values.dropna(subset="macs_traced")
    equal = int((counted_twice["macs"] == counted_twice["macs_traced"]).sum())
    riders = "Arm v1 has v1's riders and the others v2's, so that a change against v1 holds both. "
    agreement = f"Closed form and trace count the same in {equal} of {len(counted_twice)} records."
    return (
        f"{riders if values['frame'].iloc[0] == 'published' else ''}"
        f"{'There is no closed form with this head.' if counted_twice.empty else agreement}"
    )


def _speed_note(values: pd.DataFrame) -> str:
    noisy = ", ".join(values.loc[values["noisy"].astype(bool), "arm"])
    repeats = f"n = {values['repeats'].iloc[0]} timed steps of each arm."
    return f"{MODE_WORDS[values['mode'].iloc[0]]} {repeats} Noisy: {noisy or 'none'}."


def _interval(metric: str, form: str, divisor: float = 1.0) -> Callable[[pd.Series], str]:
    def show(row: pd.Series) -> str:
        low, high = row[f"{metric}_low"] / divisor, row[f"{metric}_high"] / divisor
        return NOTHING if pd.isna(low) else f"{low:{form}} to {high:{form}}"

    return show


def _unless_reference(show: Callable[[pd.Series], str]) -> Callable[[pd.Series], str]:
    return lambda row: NOTHING if row["arm"] == REFERENCE else show(row)


def _speed_interval(row: pd.Series) -> str:
    text = _interval("relative_speed", ".3f")(row)
    return f"{text}, unresolved" if row["relative_speed_low"] <= 1 <= row["relative_speed_high"] else text


def _library_ratio(name: str) -> Callable[[pd.Series], str]:
    def show(row: pd.Series) -> str:
        if pd.isna(row.get(f"{name}_ratio")):
            return NOTHING
        low, high = row[f"{name}_ratio_low"], row[f"{name}_ratio_high"]
        return f"{row[f'{name}_ratio']:.2f} ({low:.2f} to {high:.2f})"

    return show


def _library_note(values: pd.DataFrame) -> str:
    repeats = f"n = {values['repeats'].iloc[0]} timed steps of each model."
    default, strictest = (geometric_mean(values[name]) for name in ("ratio", "strictest_ratio"))
    return (
        f"{MODE_WORDS[values['mode'].iloc[0]]} {repeats} Geometric mean of {len(values)} rows: {default:.2f} times as "
        f"fast as the faster library as it comes (least {values['ratio'].min():.2f}), {strictest:.2f} times as fast as "
        f"the fastest in either layout (least {values['strictest_ratio'].min():.2f})."
    )


POINTS = METRICS["top1"].divisor


def _mean_interval(row: pd.Series) -> str:
    return _interval("top1", ".2f", POINTS)(row) if row["n_seeds"] > 1 else "none: one seed"


def _difference(row: pd.Series) -> str:
    if not row["n_pairs"]:
        return "no common seed"
    pairs = "" if row["n_pairs"] == row["n_seeds"] else f" (n = {row['n_pairs']})"
    return f"{row['top1_difference_mean'] / POINTS:+z.2f}{pairs}"


def _difference_interval(row: pd.Series) -> str:
    if row["n_pairs"] < 2:
        return "none: one seed" if row["n_pairs"] else NOTHING
    text = _interval("top1_difference", "+z.2f", POINTS)(row)
    return text if row["difference_is_resolved"] else f"{text}, unresolved"


ARM_TABLES = (
    Table(
        name="cost",
        measurement="cost",
        title="Parameters and multiply-adds",
        values=cost_values,
        conditions=CONDITIONS["cost"],
        titled_by=("variant", "frame", "head"),
        columns=(ARM, Column(METRICS["params"].title, show_with_change("params"), best="min")),
        spread=(Column("{} px: " + METRICS["macs"].title, show_with_change("macs"), best="min"),),
        about=(
            "One picture's forward pass. Multiply-adds are those of convolutions and matrix products, attention's "
            "two included; norms, activations and pooling count as none. In brackets the change against v1. "
            "Counted by tracing the model's operators, and classifiers in closed form too. They do not say how long "
            "anything takes."
        ),
        note=_cost_note,
    ),
    Table(
        name="ladder",
        measurement="cost",
        title="The paper's ladder",
        values=ladder_values,
        conditions=(*CONDITIONS["cost"], "resolution"),
        titled_by=("variant", "frame", "resolution"),
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
            "Steps are differences to the row above; the first holds the change of frame too. Our numbers are of "
            "backbones, counted and not trained. The paper's totals are those of its Table 2, which lacks the "
            "second row; its steps in parameters are those of the RetinaNet detectors of its Table 6, which the table "
            "table6_ablation rebuilds. All top-1 is the paper's: ImageNet at 224 px, one run a row, spread unknown. "
            "What the paper calls GFLOPs are multiply-adds."
        ),
    ),
    *MEMORY_TABLES,
    Table(
        name="speed",
        measurement="speed",
        title="Speed",
        values=speed_values,
        conditions=CONDITIONS["speed"],
        titled_by=("variant", "frame", "mode", "resolution", "device"),
        columns=(
            ARM,
            Column(METRICS["latency_s"].title, show_metric("latency_s"), best="min"),
            Column("IQR, ms", show_metric("latency_s", "latency_iqr_s")),
            Column(METRICS["throughput_img_per_s"].title, show_metric("throughput_img_per_s"), best="max"),
            Column(METRICS["relative_speed"].label, _unless_reference(show_plain("relative_speed", ".3f")), best="max"),
            Column("95 % interval", _unless_reference(_speed_interval)),
            Column("Of the peak, %", show_plain("share_of_peak", ".1f", 0.01)),
            Column("Noisy", lambda row: "noisy" if row["noisy"] else ""),
        ),
        about=(
            "Median and interquartile range (IQR) of step times. Speed relative to v1 is the median ratio to v1's "
            "steps, timed in turn in one process, with its 95 % interval, unresolved where that holds 1; the "
            "latencies of two rows were taken at different moments and compare less well. A row is noisy where its "
            "IQR is over 10 % of its median. The peak is the multiply-adds a second of large matrix products, measured "
            "in the same process; training counts three times the multiply-adds of inference. All of it holds for one "
            "machine, batch and size."
        ),
        note=_speed_note,
    ),
    Table(
        name="speed_libraries",
        measurement="speed",
        title="Speed beside timm and transformers",
        values=library_values,
        conditions=LIBRARY_CONDITIONS,
        titled_by=("mode", "device", "precision"),
        rows_by="case",
        columns=(
            Column("Model", lambda row: row["case"]),
            Column(METRICS["latency_s"].title, show_metric("latency_s")),
            Column("Peak, GMAC/s", show_plain("peak_macs_per_s", ".0f", 1e9)),
            Column("Of the peak, %", show_plain("share_of_peak", ".1f", 0.01)),
            *(
                Column(title, _library_ratio(name))
                for title, name in (
                    ("timm = 1", "timm"),
                    ("timm, channels-last = 1", "timm_channels_last"),
                    ("transformers = 1", "transformers"),
                    ("transformers, channels-last = 1", "transformers_channels_last"),
                )
            ),
            Column("Noisy", lambda row: "noisy" if row["noisy"] else ""),
        ),
        about=(
            "How fast our models are as a multiple of the same models of libraries, with equal weights and outputs "
            "that were compared first: the library's time over ours, median and 95 % interval, all timed in turn in "
            "one process whose allocator keeps freed memory. Libraries' models are timed as they come and with "
            "pictures and weights channels-last. timm's attend with the fused kernel, transformers' explicitly. A row "
            "is noisy where an IQR is over 10 % of its median."
        ),
        note=_library_note,
    ),
    OPERATOR_TABLE,
    Table(
        name="accuracy",
        measurement="accuracy",
        title="Accuracy",
        values=accuracy_values,
        conditions=CONDITIONS["accuracy"],
        titled_by=("data", "variant", "frame"),
        columns=(
            Column("Arm or model", ARM.show),
            Column("n", lambda row: str(row["n_seeds"])),
            Column(METRICS["top1"].title, show_metric("top1", "top1_mean"), best="max"),
            Column("95 % interval", _mean_interval),
            Column("Against v1, points", _unless_reference(_difference)),
            Column("95 % interval", _unless_reference(_difference_interval)),
        ),
        about=(
            "Top-1 on held-out pictures after training from scratch: the mean over n seeds with its 95 % t "
            "interval. Differences are paired by seed (same order of pictures, same augmentation) and unresolved "
            "where their interval holds 0; one pair has no interval. Intervals are not corrected for the number "
            "of comparisons. They are about seeds: they hold neither the choice of held-out pictures nor another "
            "recipe, size or data set. Behind the arms stand, by their names, other models that were trained under "
            "the same conditions, where there are any; size, frame, attention and P are the arms' alone."
        ),
    ),
)
"""Every table of arms, in the report's order."""
