"""The comparison as a table, what it says of each toggle in a sentence, and what a toggle alone costs as a figure."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ablations.analysis.comparison import COMPARISON_CONDITIONS, MEMORY_STEPS, comparison_values
from ablations.analysis.effects import CLEAN_BASES
from ablations.analysis.grouping import REFERENCE, Group, group_by
from ablations.analysis.speed import holds_one
from ablations.config import TOGGLES, arm_name
from ablations.measure.measurement import MODES
from ablations.report.accuracy import CLAIMS, claim_text, difference_text, ends_text, seeds_text
from ablations.report.figures import FigureKind, arm_colour, legend_below, list_rows, panels_of
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

BRIEF = ("Arm", "Parameters", "MACs", "Memory, training, fused", "Training speed", "Top-1", "Against v1")
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


SPEEDS = {"relative_speed": "speed_at", "relative_speed_large": "large_speed_at"}
"""The two speeds of a comparison and the columns that say how each was timed."""


def place_of(row: pd.Series, at: str) -> str:
    """Returns the size of the images and the device, with which the words of how something was measured begin."""
    return ", ".join(str(row.get(at)).split(", ")[:2])


def _speed_column(speed: str, mode: str) -> TableColumn:
    name = f"{speed}_{mode}"

    def show(row: pd.Series) -> str:
        if pd.isna(row.get(name)):
            return NOTHING
        return "1" if row["arm"] == REFERENCE else speed_text(row, name)

    return TableColumn(
        lambda row: f"{mode.capitalize()} speed, {size_of(row, SPEEDS[speed])}, v1 = 1", show, is_best=f"{name}_is_best"
    )


def speed_text(row: pd.Series, name: str) -> str:
    """Returns a relative speed with its 95 % interval in brackets, and whether it is unresolved or noisy."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    marks = {"unresolved": holds_one(low, high), "noisy": row[f"{name}_noisy"]}
    return f"{row[name]:.2f} ({', '.join([f'{low:.2f} to {high:.2f}', *(mark for mark in marks if marks[mark])])})"


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
        *(_speed_column(speed, mode) for mode, speed in product(MODES, SPEEDS)),
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
        "over repeats, unresolved where it holds 1, and noisy where the interquartile range of times is over 10 % of "
        "their median; of accuracies over n seeds, of which equal seeds are paired. Memory is the peak of one step, "
        "with fused or explicit attention. MACs are those of convolutions and matrix products. "
        f"{CLAIMS} Reported numbers are the paper's, of b2 on ImageNet."
    ),
    note=_note,
)
"""The product: one definition, rendered everywhere."""


COSTS = {
    "params": ("Parameters", ""),
    "macs": ("MACs, {}", "counted_at"),
    "macs_large": ("MACs, {}", "large_at"),
    "memory_training_fused": ("Training memory, {},\nfused attention", "memory_at"),
    "memory_training_explicit": ("Training memory, {},\nexplicit attention", "memory_at"),
}
"""What is drawn of a toggle alone: the start of each column of changes, its words, and the column with the size."""


FEWEST_TOGGLES = 3
"""Toggles whose costs are worth a figure; fewer are as well read in the table."""


def _toggle_costs(rows: pd.DataFrame) -> Iterator[tuple[str, str, tuple[float, float, float]]]:
    """Yields a cost in words, a toggle, and by how many percent it alone changes that, with the interval's ends.

    Of time it is that of a training step at the size that `training_speed` chooses.
    """
    arms = {str(row["arm"]): row for _, row in rows.iterrows()}
    toggles = {name: arms[arm_name([name])] for name in TOGGLES if arm_name([name]) in arms}
    for cost, (words, at) in COSTS.items():
        for name, row in toggles.items():
            if pd.notna(change := row.get(f"{cost}_change_percent")):
                yield words.format(size_of(row, at)), name, (change, change, change)
    column, at = training_speed(rows)
    for name, row in toggles.items():
        if pd.notna(row.get(column)):
            middle, low, high = (100 / row[f"{column}{end}"] - 100 for end in ("", "_high", "_low"))
            yield f"Training time, {place_of(row, at)}", name, (middle, low, high)


def training_speed(rows: pd.DataFrame) -> tuple[str, str]:
    """Returns the column of the training speed that most toggles alone have, the larger size's of two with as many, and
    the column that says how it was timed; empty ones where no toggle was timed.

    `rows` are those of one comparison.
    """
    alone = rows[rows["arm"].isin([arm_name([name]) for name in TOGGLES])]
    columns = {f"{speed}_training": at for speed, at in reversed(SPEEDS.items())}
    timed = {name: int(alone[name].notna().sum()) for name in columns if name in alone}
    most = max(timed, key=lambda name: timed[name], default="")
    return (most, columns[most]) if most and timed[most] else ("", "")


def plot_toggle_costs(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws by how many percent each toggle alone changes each cost of v1, a bar a toggle.

    `values` are rows of one comparison.
    """
    costs = list(_toggle_costs(values))
    places = {label: place for place, label in enumerate(dict.fromkeys(label for label, *_ in costs))}
    toggles = list(dict.fromkeys(name for _, name, _ in costs))
    height = 0.8 / len(toggles)
    for label, name, (change, low, high) in costs:
        place = places[label] + (toggles.index(name) - (len(toggles) - 1) / 2) * height
        colour = arm_colour(arm_name([name]))
        face = "white" if low < 0 < high else colour
        ax.barh(place, change, height=0.9 * height, facecolor=face, edgecolor=colour, linewidth=0.8)
        ax.plot([low, high], [place] * 2, color="black", linewidth=0.8)
        end, shift, side = (min(low, 0), -3, "right") if change < 0 else (max(high, 0), 3, "left")
        beside: dict[str, Any] = {"textcoords": "offset points", "ha": side, "va": "center", "fontsize": 6}
        ax.annotate(f"{change:+z.1f} %", (end, place), (shift, 0), **beside)
    ax.axvline(0, color="black", linewidth=0.8)
    least, most = (pick(each for _, _, ends in costs for each in (0, *ends)) for pick in (min, max))
    room = 0.4 * (most - least)  # for the numbers
    ax.set_xlim(least - room, most + room)
    ax.set_xlabel("Change against v1, %")
    looks = {name: arm_colour(arm_name([name])) for name in toggles}
    handles = [Patch(color=look, label=f"{name}: {TOGGLES[name].title}") for name, look in looks.items()]
    if any(low < 0 < high for _, _, (_, low, high) in costs):
        handles.append(Patch(facecolor="white", edgecolor="black", label="hollow: unresolved"))
    legend_below(ax, handles)
    return list_rows(ax, places)


_RANGE = re.compile(r"[\d.]+ to [\d.]+(, )?")
_IN_BRACKETS = re.compile(r" \([^()]*\)")
_LEFT_OUT = re.compile(r"; inference speed: [^;]* px|(?<=: )[^;]* px, ")


def shorten(section: Section, texts: list[str]) -> tuple[Section, list[str]]:
    """Returns the columns of a comparison that a screen has room for, and its sentences without the speed of inference
    and, of MACs and speeds at two sizes, without the smaller.

    Of parameters and MACs the columns have no change, which the sentences say; of top-1 no interval but that of the
    difference to v1; and of speeds that of training at the size that most arms have, with whether it is resolved
    instead of its interval.
    """
    brief = section.only(BRIEF).columns
    speeds = [column for column in brief if column.heading.startswith("Training speed")]
    fullest = max(reversed(speeds), key=lambda column: -column.cells.count(NOTHING), default=None)
    columns = [
        replace(column, cells=[_shorten_cell(column.heading, cell) for cell in column.cells])
        for column in brief
        if column is fullest or column not in speeds
    ]
    return replace(section, columns=columns), [_LEFT_OUT.sub("", text) for text in texts]


def _shorten_cell(heading: str, cell: str) -> str:
    if "speed" in heading:
        return _RANGE.sub("", cell).removesuffix(" ()")
    return _IN_BRACKETS.sub("", cell, count=1) if heading.startswith(("Parameters", "MACs", "Top-1")) else cell


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
        speeds = [
            f"{speed_text(row, f'{speed}_{mode}')} at {size_of(row, at)}"
            for speed, at in SPEEDS.items()
            if pd.notna(row.get(f"{speed}_{mode}"))
        ]
        if speeds:
            yield f"{mode} speed: {', '.join(speeds)}"


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


TABLES = (COMPARISON,)

FIGURES = (
    FigureKind(
        name="toggle_costs",
        title="What does each change alone cost?",
        named_by=("variant", "base", "pool_size"),
        titled_by=("variant", "base"),
        panels=panels_of(
            comparison_values,
            COMPARISON_CONDITIONS,
            plot_toggle_costs,
            lambda group: (
                pd.isna(group.conditions.get("data"))
                and group.conditions["base"] in CLEAN_BASES
                and len({toggle for _, toggle, _ in _toggle_costs(group.rows)}) >= FEWEST_TOGGLES
            ),
        ),
        height=3.9,
        caption=(
            "v1 with one toggle beside v1. Parameters and MACs are exact; memory is the peak of one training step; "
            "time is that of a step beside v1's, timed interleaved on one machine, with its 95 % interval as a line, "
            "hollow where that holds 0."
        ),
    ),
)
"""The kinds of figures of comparisons."""
