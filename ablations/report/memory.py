"""Peak memory: its tables and figures, and what fits into a budget."""

from collections.abc import Iterator
from functools import partial
from textwrap import fill, wrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis import memory as analysis
from ablations.analysis.grouping import CONDITIONS, Group, describe, group_by, refuse_mixed, squares, without
from ablations.analysis.speed import LIBRARIES, column_of
from ablations.config import NUM_STAGES, PVT_V1
from ablations.measure.kinds import BYTE_KINDS
from ablations.report.figures import (
    ALIKE,
    FEWEST_ARMS,
    FigureKind,
    Panel,
    arm_line,
    group_alike,
    halves_by_lsra,
    has_sizes,
    label_axes,
    label_lines,
    log_ticks,
    panels_of,
    plot_scaling,
    readable_unit,
    side,
)
from ablations.report.tables import (
    ARM,
    NOTHING,
    Show,
    Table,
    TableColumn,
    change_of,
    metric_column,
    metric_text,
    mode_note,
    terminal_rows,
)
from ablations.units import format_bytes

_METHODS = {
    "tracked_storages": (
        "Measured on real tensors, in a fresh process: the bytes of the tensors that live at one time, operator by "
        "operator. The resident memory of that process, which holds the kernels' own buffers too, stands in the CSV "
        "and in memory_validation."
    ),
    "predicted_storages": (
        "Predicted from shapes alone: the bytes of the tensors that would live at one time, operator by operator. On "
        "the CPU these are the tracked storages; what kernels and libraries take for themselves is not in them."
    ),
    "max_memory_allocated": (
        "Measured in a fresh process: the most that the CUDA allocator had given out at one time. That is less than it "
        "reserves, and leaves out the CUDA context and the libraries."
    ),
}


def _note(values: pd.DataFrame) -> str:
    return f"{mode_note(values)} {_METHODS.get(values['memory_method'].iloc[0], '')}".strip()


def _note_of_arms(values: pd.DataFrame) -> str:
    """Says by how much SRA needs more than another attention, at each resolution of this variant."""
    savings = analysis.attention_savings(values)
    texts = []
    for arm in savings:
        over = [f"{percent:+z.1f} % at {size} px" for size, percent in savings[arm].dropna().items()]
        texts.append(f"{PVT_V1} against {arm}: {', '.join(over)}.")
    return " ".join([_note(values), *texts])


def _show_peak(row: pd.Series) -> str:
    if pd.notna(row.get("out_of_memory")):
        return "out of memory"
    if pd.notna(row.get("refused")):
        return "refused"
    text, change = metric_text("peak_memory_bytes", row["peak_memory_bytes"]), change_of("peak_memory_bytes")(row)
    return f"{text} ({change})" if change else text


def _beside(library: str, kind: str = "") -> Show:
    """Shows a library's memory of a kind and, in brackets, by how much ours is off it."""

    def show(row: pd.Series) -> str:
        theirs = row[f"{library}_{kind}bytes"]
        if pd.isna(theirs):
            return NOTHING
        change = "equal" if theirs == row[analysis.KINDS[kind]] else f"{row[f'{library}_{kind}change_percent']:+z.2f} %"
        return f"{metric_text('peak_memory_bytes', theirs)} ({change})"

    return show


def _note_of_validation(summary: pd.DataFrame) -> str:
    """Says at which batch sizes predictions equal tracked storages, and how far resident memory misses."""
    texts = []
    for way, own in summary.groupby("way", sort=False):
        equal, n = own["n_equal"].sum(), own["n"].sum()
        batches = ", ".join(dict.fromkeys(own["batch_sizes"]))
        if equal == n:
            texts.append(f"{str(way).capitalize()}: predictions equal all {n} cells to the byte, at batch {batches}.")
            continue
        misses = [
            f"{row['n_beyond_goal']} of {row['n']} cells of {row['mode']} in {row['precision']} miss by over "
            f"{row['goal_percent']:g} % (the furthest by {row['largest_percent']:.1f} %)"
            for _, row in own.iterrows()
        ]
        texts.append(f"{str(way).capitalize()}, at batch {batches}: {'; '.join(misses)}.")
    return " ".join(texts)


_MODEL = TableColumn("Model", "model", "`{}`")
_ONE_RECORD = "Peak memory in MiB of the second of two steps; each number is one record."


def _bytes_column(title: str, name: str) -> TableColumn:
    return metric_column("peak_memory_bytes", f"{name}_bytes", title)


_MemoryTable = partial(Table, measurement="memory")
"""A table of memory."""

TABLES = (
    _MemoryTable(
        name="memory",
        title="Peak memory",
        values=analysis.memory_values,
        conditions=CONDITIONS["memory"],
        titled_by=("variant", "base", "mode", "attention", "device", "method"),
        columns=(ARM,),
        spread=(TableColumn("{} px", _show_peak, best="min"),),
        about=(
            f"{_ONE_RECORD} In brackets stands the change against v1. Below each table stands by how much v1's "
            "spatial-reduction attention needs more than linear SRA."
        ),
        note=_note_of_arms,
    ),
    _MemoryTable(
        name="memory_growth",
        title="How predicted memory grows",
        values=analysis.growth_values,
        conditions=analysis.GROWTH_CONDITIONS,
        titled_by=("variant", "base", "mode", "attention", "device", "sizes"),
        columns=(
            ARM,
            TableColumn("Exponent of the peak", "exponent", ".2f"),
            TableColumn("of what grows", "growing_exponent", ".2f"),
            TableColumn("Scores outweigh the rest from about, px", "scores_overtake_px", ".0f"),
        ),
        about=(
            "The exponent is the slope of the logarithm of peak memory against that of pixels between the two largest "
            "sizes: 1 is linear in pixels, 2 quadratic. What grows is the peak without parameters, gradients, "
            "optimiser state and input. The last column is the side at which what grows with explicit attention is "
            "twice what grows with the fused kernel, on a line through logarithms between predicted sizes."
        ),
    ),
    _MemoryTable(
        name="memory_parts",
        title="What peak memory is made of",
        values=analysis.peak_parts,
        conditions=analysis.PARTS_CONDITIONS,
        titled_by=("variant", "base", "mode", "attention", "device", "resolution"),
        columns=(
            ARM,
            metric_column("peak_memory_bytes", best="min"),
            *(_bytes_column(f"{kind}, MiB", kind) for kind in BYTE_KINDS),
            *(_bytes_column(f"of stage {stage}", f"stage_{stage}") for stage in range(1, NUM_STAGES + 1)),
            TableColumn("Reached by", lambda row: f"{row['peak_operator'].removeprefix('aten.')}, {row['peak_phase']}"),
        ),
        about=(
            "The predicted peak by what its bytes are for, at the smallest and the largest square. Activations are "
            "what the forward pass keeps for the backward pass, in all and by the stage that made them. Temporaries "
            "are all else that lives then, a gradient that is not accumulated yet among it."
        ),
        note=_note,
    ),
    _MemoryTable(
        name="memory_models",
        title="Peak memory of models by name",
        values=analysis.model_memory_values,
        conditions=analysis.MODEL_MEMORY_CONDITIONS,
        titled_by=("mode", "device", "method"),
        rows_by="model",
        columns=(_MODEL, TableColumn("Exponent of what grows", "growing_exponent", ".2f")),
        spread=(TableColumn("{} px", _show_peak),),
        about=(
            f"{_ONE_RECORD} The exponent in pixels is that of the peak without parameters, gradients, optimiser state "
            "and input, between the two largest squares."
        ),
        note=_note,
    ),
    _MemoryTable(
        name="memory_libraries",
        title="Peak memory beside timm and transformers",
        values=analysis.library_memory_values,
        conditions=analysis.LIBRARY_MEMORY_CONDITIONS,
        titled_by=("mode", "device", "method"),
        rows_by="case",
        columns=(
            TableColumn("Model", "case"),
            metric_column("peak_memory_bytes"),
            *(TableColumn(name, _beside(column_of(name))) for name in LIBRARIES),
            TableColumn("Above the best", lambda row: "above" if row["above"] else "no"),
            _bytes_column("Resident, MiB", "resident_peak"),
            *(TableColumn(f"{name}, resident", _beside(column_of(name), "resident_")) for name in LIBRARIES),
        ),
        about=(
            f"{_ONE_RECORD} Beside ours stand the same models of libraries with as many classes, in the default layout "
            "and with images and weights channels-last. In brackets stands by how much ours needs more or, with a "
            "minus, less; equal is to the byte. Ours and timm's attend with the fused kernel, transformers' "
            "explicitly, as they have no other way. Above the best is judged by the best of timm's or, for v1, of "
            "transformers'. Where memory was measured, the resident memory of a fresh process stands beside it, which "
            "holds the kernels' own buffers too."
        ),
        note=_note,
    ),
    _MemoryTable(
        name="memory_validation",
        title="Predicted memory against measured memory",
        values=analysis.validation_summary,
        conditions=analysis.SUMMARY_CONDITIONS,
        titled_by=("device",),
        rows_by="case",
        columns=(
            TableColumn("Measured as", "case"),
            TableColumn("Batch", "batch_sizes"),
            TableColumn("n", "n", "d"),
            TableColumn("Equal to the byte", "n_equal", "d"),
            TableColumn("Median distance, %", "median_percent", ".2f"),
            TableColumn("Largest, %", "largest_percent", ".2f"),
            TableColumn("Allowed, %", "goal_percent", "g"),
            TableColumn("Beyond", "n_beyond_goal", "d"),
            TableColumn("Largest at", "worst"),
            TableColumn("bytes", "worst_bytes", "+z,.0f"),
        ),
        about=(
            "Every prediction that was measured too. Tracked is the peak of live storages on real tensors; resident is "
            "by how much the second step raises the resident memory of a fresh process; allocated is what the CUDA "
            "allocator gave out. Predictions leave out what kernels take for themselves: buffers in which matrix "
            "products and convolutions of the CPU lay out their factors anew (copies in float32 where the precision is "
            "bf16), and pages that an allocator holds beside tensors, which weigh most where little is needed."
        ),
        note=_note_of_validation,
    ),
    _MemoryTable(
        name="memory_validation_cells",
        title="Predicted memory against measured memory, cell by cell",
        values=analysis.validation_values,
        conditions=analysis.VALIDATION_CONDITIONS,
        titled_by=("way", "mode", "attention", "resolution"),
        rows_by="model",
        columns=(
            _MODEL,
            TableColumn("Predicted, bytes", "predicted_bytes", ",.0f"),
            TableColumn("Measured, bytes", "measured_bytes", ",.0f"),
            TableColumn("Difference, bytes", "difference_bytes", "+z,.0f"),
            TableColumn("%", "difference_percent", "+z.3f"),
            TableColumn("Beyond what is allowed", lambda row: "beyond" if row["beyond_goal"] else ""),
        ),
        about="The cells behind memory_validation, which says what is measured and what predictions leave out.",
    ),
)

_OF_BOTH_KERNELS = without(CONDITIONS["memory"], "attention")
"""What is equal within one panel."""

KERNEL_LINES = {"fused": {"linestyle": "-"}, "explicit": {"linestyle": "--"}}


def plot_memory(ax: Axes, values: pd.DataFrame, limits: tuple[float, float] | None = None) -> Axes:
    """Draws peak memory against the side of the input on logarithmic axes; dashed is explicit attention.

    Arms that are ALIKE in all they have share the line of the first; words at its end name them. `values` are rows of
    `memory_values` of one mode, of one attention kernel or both; squares are drawn, where memory sufficed. `limits` are
    the least and the most bytes of all panels of one scale.
    """
    refuse_mixed(values, _OF_BOTH_KERNELS)
    values = _drawn(values)
    unit = readable_unit("peak_memory_bytes", pd.Series(limits) if limits else values["peak_memory_bytes"])
    low, high = limits or (values["peak_memory_bytes"].min(), values["peak_memory_bytes"].max())
    ax.set_ylim(0.9 * low / unit.divisor, 1.1 * high / unit.divisor)
    log_ticks(ax)
    every = {
        (str(kernel), str(arm)): (rows["peak_memory_bytes"] / unit.divisor).set_axis(side(rows))
        for (kernel, arm), rows in values.groupby(["attention", "arm"], sort=False)
    }
    lines = []
    for curves in group_alike(every):
        kernel, arm = next(iter(curves))
        words = _name_curves(list(curves), number_of_arms=values["arm"].nunique())
        lines.append((next(iter(curves.values())), arm_line(arm, **KERNEL_LINES[kernel]), words))
    label_lines(ax, lines)
    return label_axes(ax, values, unit.title)


def _drawn(values: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of squares that fitted into memory, of arms that have two or more with that attention."""
    values = squares(values).dropna(subset="peak_memory_bytes")
    sizes = values.groupby(["attention", "arm"])["pixels"].transform("nunique")
    return values[sizes > 1]


def _name_curves(curves: list[tuple[str, str]], number_of_arms: int) -> str:
    """Returns the kernels and arms of a line as a few short lines of text; kernels of the same arms stand together."""
    kernels: dict[tuple[str, ...], list[str]] = {}
    for kernel in dict.fromkeys(kernel for kernel, _ in curves):
        kernels.setdefault(tuple(arm for own, arm in curves if own == kernel), []).append(kernel)
    lines = []
    for arms, own in kernels.items():
        names = "all arms" if len(arms) == number_of_arms else ", ".join(arms)
        lines += wrap(f"{' and '.join(own)}: {names}", width=LABEL_WIDTH)
    return "\n".join(lines)


LABEL_WIDTH = 20
"""Letters of a line beside a panel."""


def _panels_of_memory(records: pd.DataFrame) -> Iterator[Panel]:
    for group in group_by(analysis.memory_values(records), _OF_BOTH_KERNELS):
        values = _drawn(group.rows)
        if values["arm"].nunique() >= FEWEST_ARMS:
            yield from halves_by_lsra(group.conditions, values, plot_memory, values["peak_memory_bytes"])


def _unbroken_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns `model_memory_values` of squares, with names within which a legend's line does not end."""
    values = analysis.model_memory_values(records)
    if values.empty:
        return values
    return squares(values.assign(name=values["name"].str.replace(" ", "\N{NO-BREAK SPACE}")))


def _is_growing(group: Group) -> bool:
    return has_sizes(group) and bool(group.rows["growing_exponent"].notna().all())


BUDGET_CONDITIONS = ("variant", "base", "attention", "mode", "precision", "device", "channels_last", "checkpointing")


def render_budget(rows: list[dict[str, Any]], width: int) -> str:
    """Returns for a terminal, by group of equal conditions, the largest image and the largest batches of each model.

    `rows` are those of `ablations.measure.budget.budget_values`; the predicted peak stands in brackets.
    """
    values = pd.DataFrame(rows)
    budget = format_bytes(int(values["budget_bytes"].iloc[0]))
    sections = [
        f"What fits into {budget}",
        fill(
            "The largest square image in multiples of 32 px at batch 1, and the largest batch at each size, with the "
            "predicted peak of the second of two steps: the next size would be over the budget. On a GPU leave room "
            "for its context and for workspaces, which predictions leave out.",
            width,
        ),
    ]
    for group in group_by(values, BUDGET_CONDITIONS):
        models = [list(own.iterrows()) for _, own in group.rows.groupby("model", sort=False)]
        lines = [["Model", *(_question(answer) for _, answer in models[0])]]
        lines += [[ARM.show(answers[0][1]), *(_answer(answer) for _, answer in answers)] for answers in models]
        sections += [describe(group.conditions), terminal_rows(lines, width)]
    refusals = dict.fromkeys((row["model"], row["refused"]) for row in rows if row["refused"])
    sections += [f"{model} refuses a size on the way: {reason}" for model, reason in refusals]
    return "\n\n".join(sections) + "\n"


def _question(answer: pd.Series) -> str:
    return "Largest image, px" if answer["asked"] == "resolution" else f"Largest batch at {answer['resolution']} px"


def _answer(answer: pd.Series) -> str:
    if pd.notna(answer["refused"]):
        return NOTHING
    if pd.isna(answer["peak_memory_bytes"]):
        return "none"
    at_least = "at least " if answer["at_limit"] else ""
    return f"{at_least}{int(answer[answer['asked']])} ({format_bytes(int(answer['peak_memory_bytes']))})"


FIGURES = (
    FigureKind(
        name="memory",
        title="How does peak memory grow with the input?",
        named_by=("variant", "base", "device", "method"),
        panels=_panels_of_memory,
        height=2.9,
        caption=(
            "Peak memory by resolution, both axes logarithmic; dashed lines store the attention matrix (explicit). "
            "Left, arms with spatial-reduction attention: with explicit attention memory grows faster than the pixels. "
            f"Right, arms with linear SRA, on the same scale: theirs does not. Arms within {100 * ALIKE:.0f} % of "
            "another's line everywhere share that line, drawn as the first of them. The table `memory` (`report "
            "--all`) has every number and says what is counted."
        ),
    ),
    FigureKind(
        name="memory_models",
        title="How does the peak memory of other models grow with the input?",
        named_by=("device", "method"),
        panels=panels_of(
            _unbroken_values,
            analysis.MODEL_MEMORY_CONDITIONS,
            partial(plot_scaling, metric="peak_memory_bytes", exponent="growing_exponent"),
            _is_growing,
        ),
        height=4.3,
        caption=(
            "Peak memory of models by resolution, both axes logarithmic; arms are b2 in base v2 with fused attention. "
            "The number after a name is the exponent in pixels, between the two largest sizes, of the peak without "
            f"parameters, gradients, optimiser state and input. Arms within {100 * ALIKE:.0f} % of another's line "
            "share that line."
        ),
    ),
)
"""The kinds of figures of memory."""
