"""The tables of peak memory: by arm, how it grows, of models by name, and what predictions of it are worth."""

from collections.abc import Callable

import pandas as pd

from ablations.analysis.grouping import CONDITIONS
from ablations.config import NUM_STAGES
from ablations.records import METRICS
from ablations.report.library_memory import KINDS, LIBRARY_MEMORY_CONDITIONS, library_memory_values
from ablations.report.memory_values import (
    GROWTH_CONDITIONS,
    MODEL_MEMORY_CONDITIONS,
    SUMMARY_CONDITIONS,
    VALIDATION_CONDITIONS,
    growth_values,
    model_memory_values,
    peak_parts,
    validation_summary,
    validation_values,
)
from ablations.report.tables import (
    ARM,
    MODE_WORDS,
    NOTHING,
    Column,
    Table,
    metric_text,
    show_metric,
    show_plain,
    show_with_change,
)
from ablations.report.values import memory_values

_METHODS = {
    "tracked_storages": (
        "Counted are the bytes of tensors that live at one time, operator by operator, in a process of its own. Its "
        "resident memory, which has what kernels take for themselves too, stands in the CSV and in memory_validation."
    ),
    "predicted_storages": (
        "Predicted on shapes alone: the bytes of tensors that would live at one time, operator by operator. On the CPU "
        "they are those of tracked storages; what kernels and libraries take for themselves is not in them."
    ),
    "max_memory_allocated": (
        "Counted is the most that the CUDA allocator had given out at one time, in a process of its own: less than it "
        "reserves, and without the CUDA context and the libraries."
    ),
}


def _note(values: pd.DataFrame) -> str:
    return f"{MODE_WORDS[values['mode'].iloc[0]]} {_METHODS.get(values['memory_method'].iloc[0], '')}".strip()


def _show_peak(row: pd.Series) -> str:
    if pd.notna(row.get("out_of_memory")):
        return "out of memory"
    if pd.notna(row.get("refused")):
        return "refused"
    change = "peak_memory_bytes_change_percent" in row
    return (show_with_change if change else show_metric)("peak_memory_bytes")(row)


def _beside(library: str, kind: str = "") -> Callable[[pd.Series], str]:
    """Shows a library's memory of a kind and, in brackets, by how much ours is off it."""

    def show(row: pd.Series) -> str:
        theirs = row[f"{library}_{kind}bytes"]
        if pd.isna(theirs):
            return NOTHING
        change = "equal" if theirs == row[KINDS[kind]] else f"{row[f'{library}_{kind}change_percent']:+z.2f} %"
        return f"{metric_text('peak_memory_bytes', theirs)} ({change})"

    return show


_LIBRARIES = (
    ("timm", "timm"),
    ("timm, channels-last", "timm_channels_last"),
    ("transformers", "transformers"),
    ("transformers, channels-last", "transformers_channels_last"),
)


MEMORY_TABLES = (
    Table(
        name="memory",
        measurement="memory",
        title="Peak memory",
        values=memory_values,
        conditions=CONDITIONS["memory"],
        titled_by=("variant", "base", "mode", "attention", "device", "method"),
        columns=(ARM,),
        spread=(Column("{} px", _show_peak, best="min"),),
        about=(
            "Peak memory in MiB of the second of two steps; each number is one record, and in brackets stands the "
            "change against v1."
        ),
        note=_note,
    ),
    Table(
        name="memory_growth",
        measurement="memory",
        title="How predicted memory grows",
        values=growth_values,
        conditions=GROWTH_CONDITIONS,
        titled_by=("variant", "base", "mode", "attention", "device", "sizes"),
        columns=(
            ARM,
            Column("Exponent of the peak", show_plain("exponent", ".2f")),
            Column("of what grows", show_plain("growing_exponent", ".2f")),
            Column("Scores outweigh the rest from about, px", show_plain("scores_overtake_px", ".0f")),
        ),
        about=(
            "The exponent is the slope of the logarithm of peak memory against that of pixels between the two largest "
            "sizes: 1 is linear in pixels, 2 quadratic. What grows is the peak without parameters, gradients, "
            "optimiser state and input. The last column is the side at which what grows with explicit attention is "
            "twice what grows with the fused kernel, between predicted sizes along a line through logarithms."
        ),
    ),
    Table(
        name="memory_parts",
        measurement="memory",
        title="What peak memory is made of",
        values=peak_parts,
        conditions=(*CONDITIONS["memory"], "resolution"),
        titled_by=("variant", "base", "mode", "attention", "device", "resolution"),
        columns=(
            ARM,
            Column(METRICS["peak_memory_bytes"].title, show_metric("peak_memory_bytes"), best="min"),
            *(
                Column(f"{kind}, MiB", show_metric("peak_memory_bytes", f"{kind}_bytes"))
                for kind in ("parameters", "gradients", "optimizer", "input", "activations", "temporaries")
            ),
            *(
                Column(f"of stage {stage}", show_metric("peak_memory_bytes", f"stage_{stage}_bytes"))
                for stage in range(1, NUM_STAGES + 1)
            ),
            Column("Reached by", lambda row: f"{row['peak_operator'].removeprefix('aten.')}, {row['peak_phase']}"),
        ),
        about=(
            "The predicted peak by what the bytes are for, at the smallest and the largest square. Activations are "
            "what the forward pass keeps for the backward pass, and by the stage that made them; temporaries are all "
            "else that lives then, a gradient that is not accumulated yet among it."
        ),
        note=_note,
    ),
    Table(
        name="memory_models",
        measurement="memory",
        title="Peak memory of models by name",
        values=model_memory_values,
        conditions=MODEL_MEMORY_CONDITIONS,
        titled_by=("mode", "device", "method"),
        rows_by="model",
        columns=(
            Column("Model", lambda row: f"`{row['model']}`"),
            Column("Exponent of what grows", show_plain("growing_exponent", ".2f")),
        ),
        spread=(Column("{} px", _show_peak),),
        about=(
            "Peak memory in MiB of the second of two steps; each number is one record. The exponent in pixels is that "
            "of the peak without parameters, gradients, optimiser state and input, between the two largest squares."
        ),
        note=_note,
    ),
    Table(
        name="memory_libraries",
        measurement="memory",
        title="Peak memory beside timm and transformers",
        values=library_memory_values,
        conditions=LIBRARY_MEMORY_CONDITIONS,
        titled_by=("mode", "device", "method"),
        rows_by="case",
        columns=(
            Column("Model", lambda row: row["case"]),
            Column(METRICS["peak_memory_bytes"].title, show_metric("peak_memory_bytes")),
            *(Column(title, _beside(name)) for title, name in _LIBRARIES),
            Column("Above the best", lambda row: "above" if row["above"] else "no"),
            Column("Resident, MiB", show_metric("peak_memory_bytes", "resident_peak_bytes")),
            *(Column(f"{title}, resident", _beside(name, "resident_")) for title, name in _LIBRARIES),
        ),
        about=(
            "Peak memory in MiB of the second of two steps, and beside it that of the same models of libraries with as "
            "many classes, in the default layout and with images and weights channels-last; each number is one record. In "
            "brackets stands by how much ours is more or, with a minus, less; equal is to the byte. Ours attend with "
            "the fused kernel and so do timm's; transformers' attend explicitly, as they have no other way. Above the "
            "best is judged by the best of timm's or, for v1, of transformers'. Where memory was measured, the "
            "resident memory of a fresh process stands beside it, which has what kernels take for themselves."
        ),
        note=_note,
    ),
    Table(
        name="memory_validation",
        measurement="memory",
        title="Predicted memory against measured memory",
        values=validation_summary,
        conditions=SUMMARY_CONDITIONS,
        titled_by=("device",),
        rows_by="case",
        columns=(
            Column("Measured as", lambda row: row["case"]),
            Column("n", show_plain("n", "d")),
            Column("Equal to the byte", show_plain("n_equal", "d")),
            Column("Median distance, %", show_plain("median_percent", ".2f")),
            Column("Largest, %", show_plain("largest_percent", ".2f")),
            Column("Allowed, %", show_plain("goal_percent", "g")),
            Column("Beyond", show_plain("n_beyond_goal", "d")),
            Column("Largest at", lambda row: row["worst"]),
            Column("bytes", show_plain("worst_bytes", "+z,.0f")),
        ),
        about=(
            "Every prediction that was measured too. Tracked is the peak of live storages on real tensors, resident "
            "by how much the second step raises the resident memory of a fresh process, allocated what CUDA's "
            "allocator gave out. Predictions leave out what kernels take for themselves: buffers in which matrix "
            "products and convolutions of the CPU lay out their factors anew (copies in float32 where the precision is "
            "bf16), and pages that an allocator holds beside tensors, which weigh most where little is needed."
        ),
    ),
    Table(
        name="memory_validation_cells",
        measurement="memory",
        title="Predicted memory against measured memory, cell by cell",
        values=validation_values,
        conditions=VALIDATION_CONDITIONS,
        titled_by=("way", "mode", "attention", "resolution"),
        rows_by="model",
        columns=(
            Column("Model", lambda row: f"`{row['model']}`"),
            Column("Predicted, bytes", show_plain("predicted_bytes", ",.0f")),
            Column("Measured, bytes", show_plain("measured_bytes", ",.0f")),
            Column("Difference, bytes", show_plain("difference_bytes", "+z,.0f")),
            Column("%", show_plain("difference_percent", "+z.3f")),
            Column("Beyond what is allowed", lambda row: "beyond" if row["beyond_goal"] else ""),
        ),
        about="What stands behind the table memory_validation, which says what is measured and what is left out.",
    ),
)
"""Every table of memory, in the report's order."""
