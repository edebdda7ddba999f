"""The tables that compare arms: one definition for each measurement."""

from collections.abc import Callable

import pandas as pd

from ablations.records import METRICS
from ablations.report.conditions import CONDITIONS
from ablations.report.memory_values import GROWTH_CONDITIONS, growth_values, validation_values
from ablations.report.tables import NOTHING, Column, Table, show_metric, show_plain, show_with_change
from ablations.report.values import (
    REFERENCE,
    accuracy_values,
    cost_values,
    ladder_values,
    memory_values,
    model_memory_values,
    speed_values,
)

ARM = Column("Arm", lambda row: row["arm"])


def _cost_note(values: pd.DataFrame) -> str:
    counted_twice = values.dropna(subset="macs_traced")
    equal = int((counted_twice["macs"] == counted_twice["macs_traced"]).sum())
    riders = "Arm v1 has v1's riders and the others v2's, so that a change against v1 holds both. "
    agreement = f"Closed form and trace count the same in {equal} of {len(counted_twice)} records."
    return (
        f"{riders if values['frame'].iloc[0] == 'published' else ''}"
        f"{'There is no closed form with this head.' if counted_twice.empty else agreement}"
    )


_MODES = {
    "inference": "One forward pass without gradients.",
    "training": "One training step: forward, backward and AdamW with its state.",
}
_METHODS = {
    "tracked_storages": (
        "Counted are the bytes of tensors that live at one time, operator by operator: not the resident memory of a "
        "process, which adds libraries and what kernels and the allocator keep for themselves."
    ),
    "predicted_storages": (
        "Predicted on shapes alone: the bytes of tensors that would live at one time, operator by operator. On the CPU "
        "they are those of tracked storages; what kernels and libraries take for themselves is not in them."
    ),
    "max_memory_allocated": (
        "Counted is the most that the CUDA allocator had given out at one time: less than it reserves, and without the "
        "CUDA context and the libraries."
    ),
}


def _memory_note(values: pd.DataFrame) -> str:
    return f"{_MODES[values['mode'].iloc[0]]} {_METHODS.get(values['memory_method'].iloc[0], '')}".strip()


def _speed_note(values: pd.DataFrame) -> str:
    noisy = ", ".join(values.loc[values["noisy"].astype(bool), "arm"])
    repeats = f"n = {values['repeats'].iloc[0]} timed steps of each arm."
    return f"{_MODES[values['mode'].iloc[0]]} {repeats} Noisy: {noisy or 'none'}."


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
        columns=(ARM, Column(METRICS["params"].title, show_with_change("params"))),
        spread=(Column("{} px: " + METRICS["macs"].title, show_with_change("macs")),),
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
    Table(
        name="memory",
        measurement="memory",
        title="Peak memory",
        values=memory_values,
        conditions=CONDITIONS["memory"],
        titled_by=("variant", "frame", "mode", "attention", "device", "method"),
        columns=(ARM,),
        spread=(Column("{} px", show_with_change("peak_memory_bytes")),),
        about=(
            "Peak memory in MiB of the second of two steps; each number is one record, and in brackets stands the "
            "change against v1."
        ),
        note=_memory_note,
    ),
    Table(
        name="memory_growth",
        measurement="memory",
        title="How predicted memory grows",
        values=growth_values,
        conditions=GROWTH_CONDITIONS,
        titled_by=("variant", "frame", "mode", "attention", "device", "sizes"),
        columns=(
            ARM,
            Column("Exponent of the peak", show_plain("exponent", ".2f")),
            Column("of what grows", show_plain("growing_exponent", ".2f")),
            Column("Scores outweigh the rest from, px", show_plain("scores_overtake_px", ".0f")),
        ),
        about=(
            "The exponent is the slope of the logarithm of peak memory against that of pixels between the two largest "
            "sizes: 1 is linear in pixels, 2 quadratic. What grows is the peak without parameters, gradients, "
            "optimiser state and input. The last column is the first predicted size at which explicit attention takes "
            "at least twice what the fused kernel takes."
        ),
    ),
    Table(
        name="memory_validation",
        measurement="memory",
        title="Predicted memory beside tracked memory",
        values=validation_values,
        conditions=("variant", "frame", "attention", "mode", "precision", "batch_size", "resolution", "torch"),
        titled_by=("variant", "frame", "mode", "attention", "resolution"),
        columns=(
            ARM,
            Column("Predicted, bytes", show_plain("peak_memory_bytes_predicted", ",.0f")),
            Column("Tracked, bytes", show_plain("peak_memory_bytes_tracked", ",.0f")),
            Column("Difference, bytes", show_plain("difference_bytes", "+z,.0f")),
            Column("%", show_plain("difference_percent", "+z.3f")),
        ),
        about=(
            "Peak memory of the second of two steps on the CPU: predicted on shapes alone, and tracked storage by "
            "storage on real tensors."
        ),
    ),
    Table(
        name="memory_models",
        measurement="memory",
        title="Peak memory of models by name",
        values=model_memory_values,
        conditions=("mode", "precision", "batch_size", "device", "method", "memory_method"),
        titled_by=("mode", "device", "method"),
        rows_by="model",
        columns=(Column("Model", lambda row: f"`{row['model']}`"),),
        spread=(Column("{} px", show_metric("peak_memory_bytes")),),
        about="Peak memory in MiB of the second of two steps; each number is one record.",
        note=_memory_note,
    ),
    Table(
        name="speed",
        measurement="speed",
        title="Speed",
        values=speed_values,
        conditions=CONDITIONS["speed"],
        titled_by=("variant", "frame", "mode", "resolution", "device"),
        columns=(
            ARM,
            Column(METRICS["latency_s"].title, show_metric("latency_s")),
            Column("IQR, ms", show_metric("latency_s", "latency_iqr_s")),
            Column(METRICS["throughput_img_per_s"].title, show_metric("throughput_img_per_s")),
            Column(METRICS["relative_speed"].label, _unless_reference(show_plain("relative_speed", ".3f"))),
            Column("95 % interval", _unless_reference(_speed_interval)),
            Column("Noisy", lambda row: "noisy" if row["noisy"] else ""),
        ),
        about=(
            "Median and interquartile range (IQR) of step times. Speed relative to v1 is the median ratio to v1's "
            "steps, timed in turn in one process, with its 95 % interval, unresolved where that holds 1; the "
            "latencies of two rows were taken at different moments and compare less well. A row is noisy where its "
            "IQR is over 10 % of its median. All of it holds for one machine, batch and size."
        ),
        note=_speed_note,
    ),
    Table(
        name="accuracy",
        measurement="accuracy",
        title="Accuracy",
        values=accuracy_values,
        conditions=CONDITIONS["accuracy"],
        titled_by=("data", "variant", "frame"),
        columns=(
            ARM,
            Column("n", lambda row: str(row["n_seeds"])),
            Column(METRICS["top1"].title, show_metric("top1", "top1_mean")),
            Column("95 % interval", _mean_interval),
            Column("Against v1, points", _unless_reference(_difference)),
            Column("95 % interval", _unless_reference(_difference_interval)),
        ),
        about=(
            "Top-1 on held-out pictures after training from scratch: the mean over n seeds with its 95 % t "
            "interval. Differences are paired by seed (same order of pictures, same augmentation) and unresolved "
            "where their interval holds 0; one pair has no interval. Intervals are not corrected for the number "
            "of comparisons. They are about seeds: they hold neither the choice of held-out pictures nor another "
            "recipe, size or data set."
        ),
    ),
)
"""Every table of arms, in the report's order."""
