"""The comparison as a table, and what it says of each toggle in a sentence."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pandas as pd

from ablations.analysis.comparison import COMPARISON_CONDITIONS, MEMORY_STEPS, comparison_values
from ablations.analysis.grouping import REFERENCE, Group, group_by
from ablations.analysis.speed import holds_one
from ablations.config import TOGGLES, arm_name
from ablations.measure.measurement import MODES
from ablations.report.accuracy import CLAIMS, claim_text, difference_text, ends_text, seeds_text
from ablations.report.tables import (
    ARM,
    NOTHING,
    POINTS,
    Section,
    Table,
    TableColumn,
    change_of,
    count_column,
    list_sections,
    metric_text,
    points_text,
)

BRIEF = ("Arm", "Parameters", "MACs", "Memory, training, fused", "Speed of training", "Top-1", "Against v1")
"""How the headings of the columns begin that there is room for everywhere; `compare` prints the others."""


def _macs_column(macs: str, at: str) -> TableColumn:
    return count_column("macs", macs, lambda row: f"MACs at {row.get(at)}", bracket=change_of(macs), best="min")


def _memory_column(mode: str, attention: str) -> TableColumn:
    return count_column(
        "peak_memory_bytes",
        f"memory_{mode}_{attention}_bytes",
        lambda row: f"Memory, {mode}, {attention}, {size_of(row, 'memory_at')}",
        best="min",
    )


def size_of(row: pd.Series, at: str) -> str:
    """Returns the size of the images, with which the words of how something was measured begin."""
    return str(row.get(at)).partition(",")[0]


def _speed_column(mode: str) -> TableColumn:
    name = f"relative_speed_{mode}"

    def show(row: pd.Series) -> str:
        if pd.isna(row.get(name)):
            return NOTHING
        noisy = "; noisy" if row[f"{name}_noisy"] else ""
        return "1" if row["arm"] == REFERENCE else f"{row[name]:.2f} ({speed_range(row, mode)}{noisy})"

    return TableColumn(
        lambda row: f"Speed of {mode}, {size_of(row, 'speed_at')}, v1 = 1", show, is_best=f"{name}_is_best"
    )


def speed_range(row: pd.Series, mode: str) -> str:
    """Returns the 95 % interval of a relative speed in words."""
    return f"{row[f'relative_speed_{mode}_low']:.2f} to {row[f'relative_speed_{mode}_high']:.2f}"


def _top1_text(row: pd.Series) -> str:
    if pd.isna(row.get("top1_mean")):
        return NOTHING
    chance = ", at chance" if row["at_chance"] else ""
    return f"{metric_text('top1', row['top1_mean'])} ({ends_text(row, 'top1', '.1f')}){chance}"


def _score_text(score: str, row: pd.Series) -> str:
    """Returns a detector's or segmenter's score, its interval over seeds and how many these are."""
    if pd.isna(row.get(f"{score}_mean")):
        return NOTHING
    return f"{metric_text(score, row[f'{score}_mean'])} ({ends_text(row, score, '.1f')}, n = {row[f'{score}_n']:.0f})"


def _note(values: pd.DataFrame) -> str:
    """Says what was not measured."""
    missing = values["missing"].iloc[0]
    return f"Not measured of this model: {missing}." if pd.notna(missing) else ""


COMPARISON = Table(
    name="comparison",
    measurement="accuracy",
    title="What does each change cost, and what does it gain?",
    values=comparison_values,
    conditions=COMPARISON_CONDITIONS,
    titled_by=("variant", "base", "stem_stride", "pool_size", "data"),
    columns=(
        ARM,
        count_column("params", bracket=change_of("params"), best="min"),
        _macs_column("macs", "counted_at"),
        _macs_column("macs_large", "large_at"),
        *(_memory_column(mode, attention) for mode, attention in MEMORY_STEPS),
        *map(_speed_column, MODES),
        TableColumn("n", lambda row: NOTHING if pd.isna(row.get("n_seeds")) else seeds_text(row)),
        TableColumn("Top-1, %", _top1_text, is_best="top1_is_best"),
        TableColumn("Against v1, points", partial(difference_text, name="top1_difference")),
        TableColumn("AP, %", partial(_score_text, "ap")),
        TableColumn("mIoU, %", partial(_score_text, "miou")),
        TableColumn("Reported parameters, M", "reported_params_m", ".1f"),
        TableColumn("Reported GFLOPs (MACs), 224 px", "reported_gflops", ".1f"),
        TableColumn("Reported top-1, ImageNet, %", "reported_top1_percent", ".1f"),
    ),
    about=(
        "All columns of one table are of one model. In brackets the change against v1, or the 95 % interval: of speeds "
        "over repeats, noisy where their interquartile range is over 10 % of the median; of accuracies over n seeds, "
        "of which equal seeds are paired. Memory is the peak of one step, with fused or explicit attention. MACs are "
        f"those of convolutions and matrix products. {CLAIMS} Reported numbers are the paper's, of b2 on ImageNet."
    ),
    note=_note,
)
"""The product: one definition, rendered everywhere."""


_IN_BRACKETS = re.compile(r" \([^()]*\)")
_LEFT_OUT = re.compile(r"; speed of inference [^;]*\)")


def shorten(section: Section, texts: list[str]) -> tuple[Section, list[str]]:
    """Returns the columns of a comparison that a screen has room for, and its sentences without the speed of inference.

    Of parameters and MACs it has no change, which the sentences say, and of top-1 no interval but that of the
    difference to v1.
    """
    columns = [
        replace(column, cells=[_IN_BRACKETS.sub("", cell, count=1) for cell in column.cells])
        if column.heading.startswith(("Parameters", "MACs", "Top-1"))
        else column
        for column in section.only(BRIEF).columns
    ]
    return replace(section, columns=columns), [_LEFT_OUT.sub("", text) for text in texts]


def list_toggle_sentences(values: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yields the title and name of each toggle of one comparison, and what it costs and gains in plain words.

    `values` are the rows of one comparison. Costs and speed are of v1 with the toggle beside v1. The accuracy is the
    toggle's main effect, over all settings of the others; without one, the difference of the two arms.
    """
    rows = {str(row["arm"]): row for _, row in values.iterrows()}
    for name, toggle in TOGGLES.items():
        arm = arm_name([name])
        if arm in rows and REFERENCE in rows:
            clauses = [*_accuracy_clauses(rows[arm]), *_cost_clauses(rows[arm]), *_speed_clauses(rows[arm])]
            yield f"{toggle.title} ({name})", f"{'; '.join(clauses)}."


def _accuracy_clauses(row: pd.Series) -> Iterator[str]:
    of_effect = pd.notna(row.get("top1_effect_mean"))
    column = "top1_effect" if of_effect else "top1_difference"
    mean = row.get(f"{column}_mean")
    if pd.isna(mean):
        return
    declared, n = row.get("declared_seeds"), f"{row[f'{column}_n']:.0f}"
    n = n if pd.isna(declared) or row[f"{column}_n"] >= declared else f"{n} of {declared:.0f}"
    claim, sure = claim_text(row, column), f"{ends_text(row, column)}, n = {n}"
    if claim == "resolved":
        verb = "adds" if mean > 0 else "loses"
        yield f"{verb} {abs(mean) / POINTS:.2f} points of top-1 (95 % interval {sure})"
    elif claim == "unresolved":
        yield f"has no resolved effect on top-1 ({points_text(mean)} points, {sure})"
    else:
        yield f"exploratory, {points_text(mean)} points of top-1 ({sure})"


def percent_text(change: float, less: str = "fewer") -> str:
    """Returns a change in words: `2.3 % more`, `12 % fewer`, `as many`."""
    text = f"{abs(change):.1f}" if abs(change) < 10 else f"{abs(change):.0f}"
    if float(text) == 0:
        return "as many" if less == "fewer" else "as much"
    return f"{text} % {'more' if change > 0 else less}"


def _cost_clauses(row: pd.Series) -> Iterator[str]:
    if pd.notna(row.get("params_change_percent")):
        yield f"{percent_text(row['params_change_percent'])} parameters"
    macs = [
        f"{percent_text(row[f'{metric}_change_percent'])} at {row[at]}"
        for metric, at in (("macs", "counted_at"), ("macs_large", "large_at"))
        if pd.notna(row.get(f"{metric}_change_percent"))
    ]
    if macs:
        yield f"MACs: {', '.join(macs)}"
    memory = {
        attention: percent_text(row[name], "less")
        for mode, attention in MEMORY_STEPS
        if mode == "training" and pd.notna(row.get(name := f"memory_{mode}_{attention}_change_percent"))
    }
    if memory:
        either = f"{next(iter(memory.values()))} with either attention"
        each = ", ".join(f"{change} ({attention} attention)" for attention, change in memory.items())
        words = either if len(memory) > 1 and len(set(memory.values())) == 1 else each
        yield f"training memory at {size_of(row, 'memory_at')}: {words}"


def _speed_clauses(row: pd.Series) -> Iterator[str]:
    for mode in MODES:
        speed = row.get(f"relative_speed_{mode}")
        if pd.notna(speed):
            low, high = row[f"relative_speed_{mode}_low"], row[f"relative_speed_{mode}_high"]
            unresolved = ", unresolved" if holds_one(low, high) else ""
            noisy = ", noisy" if row[f"relative_speed_{mode}_noisy"] else ""
            yield f"speed of {mode} {speed:.2f} ({speed_range(row, mode)}{unresolved}{noisy})"


def list_comparisons(values: pd.DataFrame) -> list[tuple[Group, Section]]:
    """Returns the comparisons of `comparison_values` and their tables, the one that says most first.

    That is one with accuracy, of all the seeds that its study declared, of the most images, in base v2, of the largest
    model, at the learning rate that trials chose.
    """
    pairs = zip(group_by(values, COMPARISON_CONDITIONS), list_sections(COMPARISON, values), strict=True)
    return sorted(pairs, key=lambda pair: _weight(pair[0]), reverse=True)


def has_all_seeds(rows: pd.DataFrame) -> bool:
    """Whether all arms of a comparison were trained with as many seeds as their study declared, if it did."""
    declared = rows["declared_seeds"].fillna(0) if "declared_seeds" in rows else 0
    return bool((rows["n_seeds"] >= declared).all())


def _weight(group: Group) -> tuple[float, ...]:
    names, rows = group.conditions, group.rows
    images = names.get("n_train_images")
    measured = any(str(name).startswith(("memory_in", "relative_speed_")) for name in rows.dropna(axis="columns"))
    return (
        float(pd.notna(images)),
        float("top1_effect_mean" in rows and rows["top1_effect_mean"].notna().any()),
        float("n_seeds" in rows and has_all_seeds(rows)),
        float(measured),
        0.0 if pd.isna(images) else float(images),
        float(names["base"] == "v2"),
        float(rows["params"].iloc[0]),
        float("has_chosen_rate" in rows and rows["has_chosen_rate"].eq(True).all()),
    )
