"""What toggles and confounders do, and what accuracy costs: tables and figures."""

import textwrap
from collections.abc import Iterable, Iterator
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ablations.analysis import effects as analysis
from ablations.analysis.accuracy import STUDY_CONDITIONS, has_chosen_rate
from ablations.analysis.confounders import GAIN, base_gain_values, confounder_values, single_confounder_values
from ablations.analysis.effects import Factorial, effect_values, spanning
from ablations.analysis.grouping import CONDITIONS, Group, describe, group_by, is_plain, refuse_mixed, without
from ablations.analysis.statistics import MOST_SEEDS
from ablations.analysis.tradeoffs import tradeoff_values
from ablations.measure.measurement import MODES
from ablations.measure.metrics import METRICS
from ablations.report import accuracy, figures
from ablations.report.accuracy import (
    CLAIMS,
    COMPARED,
    OF_DESIGN,
    SEED_COLUMNS,
    SEEDS,
    AccuracyTable,
    claim_columns,
    claim_text,
    difference_text,
    pairing_note,
    seeds_text,
)
from ablations.report.figures import GREY, FigureKind, Panel, arm_line, panels_of, plot_interval
from ablations.report.tables import (
    ARM,
    MACS_AT,
    NOTHING,
    POINTS,
    Show,
    Table,
    TableColumn,
    metric_text,
    mode_note,
    points_text,
    signed_column,
    terminal_rows,
)

FACTORIAL_CONDITIONS = (*STUDY_CONDITIONS, "toggles")
CHANGE_CONDITIONS = without(STUDY_CONDITIONS, "changed")
BASE_GAIN_CONDITIONS = (*without(STUDY_CONDITIONS, "base"), "arm")
TRADEOFF_CONDITIONS = (*STUDY_CONDITIONS, "cost", "measured_as")


def effect_name(effect: str) -> str:
    """Returns an effect as it is written for people: `ope × cffn`."""
    return effect.replace(":", " × ")


def _points_between(name: str, *ends: str) -> Show:
    """Shows two differences in points as a range."""
    least, most = map(name.format, ends)
    return lambda row: NOTHING if pd.isna(row[least]) else f"{points_text(row[least])} to {points_text(row[most])}"


def _order_text(row: pd.Series) -> str:
    return ", ".join(f"{toggle} {points_text(row[f'top1_{toggle}'])}" for toggle in row["order"].split(", "))


def _shapley_percent(row: pd.Series) -> str:
    name = "peak_memory_bytes"
    if pd.isna(row[f"{name}_shapley_percent"]):
        return NOTHING
    least, most = row[f"{name}_smallest_percent"], row[f"{name}_largest_percent"]
    return f"{row[f'{name}_shapley_percent']:+z.1f} ({least:+z.1f} to {most:+z.1f})"


def _seeds_note(values: pd.DataFrame) -> str:
    row = values.iloc[0]
    n, left_out, arms = row["n_seeds"], int(row["n_seeds_left_out"]), 2 ** len(row["toggles"].split(", "))
    used = f"n = {seeds_text(row)} seed{'s' if n != 1 else ''}, each with all {arms} arms."
    return f"{used} {left_out} left out, for arms that they lack." if left_out else used


def _effects_note(values: pd.DataFrame) -> str:
    n, family = int(values["n_seeds"].iloc[0]), len(values)
    freedom = f" Degrees of freedom: {n - 1}; of the pooled model {family * (n - 1)}." if n > 1 else ""
    return f"{_seeds_note(values)} Holm corrects for {family} effects.{freedom}"


def _incomplete_note(values: pd.DataFrame) -> str:
    row = values.iloc[0]
    arms, missing, left_out = (int(row[name]) for name in ("n_arms", "n_arms_missing", "n_seeds_left_out"))
    left = f" {left_out} seeds left out, for arms that they lack." if left_out else ""
    return f"{arms} arms, {missing} missing. n = {seeds_text(row)} seeds, each with all of these arms.{left}"


def _interactions_note(values: pd.DataFrame) -> str:
    possible = 2 ** len(values["toggles"].iloc[0].split(", ")) - 1
    interactions = possible - values.loc[values["order"] == 1, "effect"].nunique()
    listed = values.loc[values["order"] > 1, "effect"].nunique()
    if interactions and not listed:
        return (
            "All interactions are exactly 0: in any order, and whatever the others are, a toggle adds the same, which "
            "is its Shapley value too."
        )
    return "Interactions that are not listed are exactly 0." if listed < interactions else ""


_MEANING = (
    "A toggle's effect is the mean with it minus the mean without it, over all settings of the others. An interaction "
    "(a × b) is half of how much more a does with b than without it: below 0, each does less where the other is. That "
    "of more toggles is half of the change of such an interaction with one more."
)
_EXACT = f"Exact, without noise: one value an arm; in brackets in percent of the arm without the toggles. {_MEANING}"
_CLEAN = "Base published is left out: there arms differ in confounders too."
_TOGGLE = TableColumn("Toggle", "toggle")
_PART_N = TableColumn("n", "top1_part_n", "d")
_EFFECT = TableColumn("Effect", lambda row: effect_name(row["effect"]))
_Factorial = partial(AccuracyTable, conditions=FACTORIAL_CONDITIONS, titled_by=(*OF_DESIGN, "toggles", "changed"))
"""A table of what toggles do to accuracy."""
EFFECTS_ON_ACCURACY = partial(effect_values, measurement="accuracy")
_OF_MEMORY = ("variant", "base", "mode", "attention", "device", "method")


def _share_of_step(metric: str) -> TableColumn:
    return TableColumn("of the step, %", f"{metric}_share_percent", "+z.0f")


def _base_table(
    measurement: str,
    words: str,
    how: str,
    titled_by: tuple[str, ...],
    columns: tuple[TableColumn, ...] = (),
    spread: tuple[TableColumn, ...] = (),
) -> Table:
    """Returns the table of what the bases do to the paper's first step."""
    names = STUDY_CONDITIONS if measurement == "accuracy" else CONDITIONS[measurement]
    return Table(
        name=f"confounders_{measurement}",
        measurement=measurement,
        title=f"How much of the paper's first step is the base: {words}",
        values=partial(confounder_values, measurement=measurement),
        conditions=without(names, "base"),
        rows_by="part",
        about=(
            "The paper's row v1+ope has v2's confounders (no position embedding, average pooling, a norm after every "
            "stage, other initial weights) and its v1 has v1's. The published step is the change of base at v1 and "
            "then ope in base v2, or ope in base v1 and then the change of base. The ReLU of the released linear "
            f"models is the other difference between the cumulative ablation in base published and in base v2. {how}"
        ),
        titled_by=titled_by,
        columns=(TableColumn("Part", "part"), *columns),
        spread=spread,
    )


def _price(row: pd.Series) -> str:
    """Shows the price of a point in percent of arm v1's cost, and the ends of its interval."""
    reference = row["cost_value"] - row["cost_change"]
    price, low, high = (100 * row[f"cost_per_point{end}"] / reference for end in ("", "_low", "_high"))
    if pd.isna(price):
        return NOTHING
    return f"{price:+z.2f}" + ("" if pd.isna(low) else f" ({low:+z.2f} to {high:+z.2f})")


def _place(row: pd.Series) -> str:
    if row["on_front"]:
        return "on it"
    return f"below {row['dominated_by']}" + ("" if row["dominance_resolved"] else ", not claimed")


def _cost_text(row: pd.Series) -> str:
    return f"{metric_text(row['cost'], row['cost_value'])} {METRICS[row['cost']].unit}"


_SHOWN_COSTS = {"macs": METRICS["macs"].label}
"""Costs whose label keeps its capitals."""


def shown_tradeoffs(records: pd.DataFrame) -> pd.DataFrame:
    """Returns `tradeoff_values` with the cost in words, `against`."""
    values = tradeoff_values(records)
    words = [_SHOWN_COSTS.get(cost, METRICS[cost].label.lower()) for cost in values.get("cost", ())]
    return values.assign(against=words)


TABLES: tuple[Table, ...] = (
    AccuracyTable(
        name="base_gains",
        title="Do the toggles gain more in base v2?",
        values=base_gain_values,
        conditions=BASE_GAIN_CONDITIONS,
        titled_by=("data", "variant", "arm", "changed"),
        rows_by="part",
        columns=(
            TableColumn("Part", "part"),
            _PART_N,
            *claim_columns("top1_part"),
        ),
        about=(
            "From PVT v1 to a published v2 model, the toggles and the base change together. What the toggles gain over "
            "v1 is measured in both bases; the difference of the two gains says whether the unadvertised changes and "
            f"the advertised ones need each other. {SEEDS} {COMPARED} {CLAIMS}"
        ),
        note=pairing_note,
    ),
    _Factorial(
        name="effects_accuracy",
        title="What does each toggle do to accuracy?",
        values=EFFECTS_ON_ACCURACY,
        rows_by="effect",
        columns=(
            _EFFECT,
            *claim_columns("top1_effect"),
            TableColumn("Pooled model's 95 % interval", _points_between("top1_effect_pooled_{}", "low", "high")),
        ),
        about=(
            f"The primary analysis. {_MEANING} Each seed's contrast is one value, and mean, interval and p are over "
            "the seeds. The pooled linear model beside it has a block for each seed and takes all arms to vary alike "
            f"and a toggle to do the same in every seed; where that fails its interval is too narrow. {SEEDS} {CLAIMS} "
            f"{_CLEAN}"
        ),
        note=_effects_note,
    ),
    _Factorial(
        name="effects_incomplete",
        title="What does each toggle do to accuracy, where arms are missing?",
        values=analysis.partial_effect_values,
        rows_by="effect",
        columns=(
            _EFFECT,
            *claim_columns("top1_effect"),
            TableColumn("Cannot be told from", lambda row: effect_name(row["aliases"]) or NOTHING),
        ),
        about=(
            "Studies that lack arms. Effects are fitted by least squares in each seed, main effects first, as long as "
            "the arms decide them. What cannot be told from another is named: the number in its row, or in theirs, "
            "holds both, and is the one alone only if the other is 0. "
            f"{_MEANING} {SEEDS} {CLAIMS} {_CLEAN}"
        ),
        note=_incomplete_note,
    ),
    _Factorial(
        name="steps_accuracy",
        title="What does each toggle add to accuracy, by what is there already?",
        values=analysis.step_values,
        rows_by="step",
        columns=(TableColumn("Step", "step"), *claim_columns("top1_step")),
        about=f"Each toggle at every setting of the others. {SEEDS} {COMPARED} {CLAIMS} {_CLEAN}",
        note=lambda values: f"{_seeds_note(values)} {pairing_note(values)}".strip(),
    ),
    _Factorial(
        name="orders_accuracy",
        title="What does each toggle add to accuracy, by the order of adding them?",
        values=analysis.order_values,
        rows_by="order",
        columns=(TableColumn("Order", "order"), TableColumn("Adds one after the other, points", _order_text)),
        about=(
            "All orders of adding the toggles one by one; the means of a row add up to the whole way. Means alone, "
            f"exploratory: each is a step of the table steps_accuracy, which has its interval and claim. {_CLEAN}"
        ),
        note=_seeds_note,
    ),
    _Factorial(
        name="shapley_accuracy",
        title="What does each toggle add to accuracy, whatever the order?",
        values=partial(analysis.shapley_values, measurement="accuracy"),
        rows_by="toggle",
        columns=(
            _TOGGLE,
            *claim_columns("top1_shapley", "Shapley value, points"),
            TableColumn("Least to most at any setting, points", _points_between("top1_{}", "smallest", "largest")),
        ),
        about=(
            "The Shapley value is the mean of what a toggle adds over all orders of adding them; all toggles' values "
            "add up to the whole way from the arm with none to the arm with all. The last column has means alone, and "
            f"chance spreads them too. {SEEDS} {CLAIMS} {_CLEAN}"
        ),
        note=_seeds_note,
    ),
    Table(
        name="effects_cost",
        measurement="cost",
        title="What does each toggle do to parameters and MACs?",
        values=partial(analysis.effects_at_work, measurement="cost"),
        conditions=(*CONDITIONS["cost"], "toggles"),
        titled_by=("variant", "base", "head", "toggles"),
        rows_by="effect",
        columns=(_EFFECT, signed_column("params", "params_effect")),
        spread=(signed_column("macs", "macs_effect", MACS_AT),),
        about=f"{_EXACT} {_CLEAN}",
        note=_interactions_note,
    ),
    Table(
        name="effects_memory",
        measurement="memory",
        title="What does each toggle do to peak memory?",
        values=partial(analysis.effects_at_work, measurement="memory"),
        conditions=(*CONDITIONS["memory"], "toggles"),
        titled_by=(*_OF_MEMORY, "toggles"),
        rows_by="effect",
        columns=(_EFFECT,),
        spread=(signed_column("peak_memory_bytes", "peak_memory_bytes_effect", "{} px"),),
        about=(
            f"{_EXACT} A peak is the most of many moments, and another toggle can move it to another moment: so there "
            f"are interactions. The table memory says what is counted. {_CLEAN}"
        ),
        note=lambda values: f"{mode_note(values)} {_interactions_note(values)}".strip(),
    ),
    Table(
        name="shapley_memory",
        measurement="memory",
        title="What does each toggle add to peak memory, whatever the order?",
        values=partial(analysis.contributions_at_work, measurement="memory"),
        conditions=(*CONDITIONS["memory"], "toggles"),
        titled_by=(*_OF_MEMORY, "toggles"),
        rows_by="toggle",
        columns=(_TOGGLE,),
        spread=(TableColumn("{} px: % of v1", _shapley_percent),),
        about=(
            "The Shapley value is the mean of what a toggle adds over all orders of adding them; they add up to the "
            "whole way. In brackets the least and the most that it adds at any setting of the others. Exact; the CSV "
            "has bytes. Conditions without interactions are left out: there it is the effect (effects_memory), in any "
            f"order. {_CLEAN}"
        ),
        note=mode_note,
    ),
    _base_table(
        "cost",
        "parameters and MACs",
        "In brackets in percent of arm v1 in base v1. Exact.",
        titled_by=("variant", "head"),
        columns=(signed_column("params", "params_part"), _share_of_step("params")),
        spread=(
            signed_column("macs", "macs_part", MACS_AT),
            _share_of_step("macs"),
        ),
    ),
    _base_table(
        "memory",
        "peak memory",
        "In brackets in percent of arm v1 in base v1. Exact.",
        titled_by=("variant", "mode", "attention", "device", "method"),
        spread=(
            signed_column("peak_memory_bytes", "peak_memory_bytes_part", "{} px"),
            _share_of_step("peak_memory_bytes"),
        ),
    ),
    _base_table(
        "accuracy",
        "accuracy",
        f"{SEEDS} {COMPARED} {CLAIMS}",
        titled_by=("data", "variant", "changed"),
        columns=(_PART_N, *claim_columns("top1_part")),
    ),
    AccuracyTable(
        name="single_confounders",
        title="Which of the confounders is it?",
        values=single_confounder_values,
        conditions=CHANGE_CONDITIONS,
        titled_by=OF_DESIGN,
        rows_by="comparison",
        columns=(
            TableColumn("Changed", "changed", "`{}`"),
            ARM,
            TableColumn("What", "part"),
            _PART_N,
            *claim_columns("top1_part"),
        ),
        about=(
            "One confounder is set otherwise than the base has it, all else equal. `accuracy` is what that does to the "
            f"arm; `gain over v1` is how much more the arm gains over v1 with the change than without it. {SEEDS} "
            f"{COMPARED} {CLAIMS}"
        ),
        note=pairing_note,
    ),
    AccuracyTable(
        name="tradeoff",
        title="What does accuracy cost?",
        values=shown_tradeoffs,
        conditions=(*TRADEOFF_CONDITIONS, "against"),
        titled_by=(*OF_DESIGN, "against", "changed"),
        columns=(
            ARM,
            *SEED_COLUMNS,
            TableColumn("Cost", _cost_text),
            TableColumn("Change, %", "cost_change_percent", "+z.1f", beside_v1=True),
            TableColumn("Against v1, points", lambda row: difference_text(row, "top1_difference")),
            TableColumn("A point costs, % of v1's", _price),
            TableColumn("Pareto front", _place),
        ),
        about=(
            "An arm is on the front if no other costs no more and has a mean at least as high, one of the two "
            "strictly; else the arms that beat it are named, and not claimed unless one of them is ahead by a resolved "
            "difference. The price of a point is the change in cost over the gain against v1, where that gain is "
            "resolved, with the ends of its interval in brackets; below 0 the gain comes with a saving. Parameters and "
            "MACs are counted for the model that was trained, at the size it was trained at. Memory and latency are of "
            "the same model and size, whose number of classes may be another; latency is v1's over the arm's relative "
            f"speed. {SEEDS} {COMPARED} {CLAIMS}"
        ),
        note=pairing_note,
    ),
)
"""Every table of effects, in the report's order; the primary question first."""


def _is_shown(group: Group) -> bool:
    """Whether some seed has every arm, and single confounders, which have a figure of their own, are the base's."""
    return is_plain(group) and bool(group.rows["top1_effect_mean"].notna().any())


def _panels_of_interactions(records: pd.DataFrame) -> Iterator[Panel]:
    for study in accuracy.plain_studies(records):
        for group in filter(_is_shown, group_by(effect_values(study.rows, "accuracy"), FACTORIAL_CONDITIONS)):
            for _, effect in group.rows[group.rows["order"] == 2].iterrows():
                draw = partial(plot_interaction, records=study.rows, effect=effect)
                yield Panel(group.conditions | {"shown": effect_name(effect["effect"])}, draw, study.rows)


def _panels_of_tradeoffs(records: pd.DataFrame) -> Iterator[Panel]:
    groups = group_by(shown_tradeoffs(records), (*TRADEOFF_CONDITIONS, "against"))
    is_chosen = [has_chosen_rate(records, group.conditions) for group in groups]
    settled = [_but_rate(group) for group, chosen in zip(groups, is_chosen, strict=True) if chosen]
    for group, chosen in zip(groups, is_chosen, strict=True):
        is_shown = chosen or _but_rate(group) not in settled
        if len(group.rows) >= figures.FEWEST_ARMS and is_plain(group) and is_shown:
            untold = without(group.conditions, "cost", "against", "measured_as")
            conditions = {name: group.conditions[name] for name in untold}
            mode = next((f" of {mode}" for mode in MODES if mode in group.conditions["measured_as"]), "")
            shown = {"shown": f"{group.conditions['against']}{mode}"}
            yield Panel(shown | conditions, partial(plot_tradeoff, values=group.rows), group.rows)


def _but_rate(group: Group) -> str:
    return describe(group.conditions, without(group.conditions, "base_lr"))


def _gains_by_confounder(records: pd.DataFrame) -> pd.DataFrame:
    values = single_confounder_values(records)
    return values[values["part"] == GAIN] if len(values) else values


def plot_base_gains(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the parts of the way from v1 to one published model with their intervals over seeds.

    `values` are rows of `base_gain_values` under the same conditions and of one arm.
    """
    refuse_mixed(values, BASE_GAIN_CONDITIONS)
    ax.set_xlabel(f"Points of top-1,\n{_interval_words(values, 'top1_part')}")
    labels = [part.replace(" minus ", "\nminus ") for part in values["part"]]
    return _plot_differences(ax, values, "top1_part", values["arm"], labels)


def plot_single_confounders(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws how much more an arm gains over v1 where one confounder is changed, a row a change.

    `values` are rows of `single_confounder_values` of one arm and its gain, under the same conditions.
    """
    refuse_mixed(values, ("part", *CHANGE_CONDITIONS, "arm"))
    ax.set_xlabel(f"Gain over v1 changes by, points,\n{_interval_words(values, 'top1_part')}")
    labels = [change.replace("_", " ").replace("=", ":\n") for change in values["changed"]]
    return _plot_differences(ax, values, "top1_part", values["arm"], labels)


def plot_effects(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the effects on top-1 with their intervals over seeds, a hollow marker where one is not claimed.

    `values` are rows of `effect_values` of accuracy under the same conditions. An effect has the colour and marker of
    the arm that has just its toggles.
    """
    refuse_mixed(values, FACTORIAL_CONDITIONS)
    factorial = Factorial(tuple(values["toggles"].iloc[0].split(", ")))
    ax.set_xlabel(f"Points of top-1, {_interval_words(values, 'top1_effect')}")
    arms = [factorial.arm_with(factorial.effects[effect]) for effect in values["effect"]]
    return _plot_differences(ax, values, "top1_effect", arms, list(map(effect_name, values["effect"])))


def _interval_words(values: pd.DataFrame, name: str) -> str:
    counts = values[f"{name}_n"].unique()
    return f"95 % interval, n = {counts[0]:.0f}" if len(counts) == 1 else "95 % interval"


def _plot_differences(ax: Axes, values: pd.DataFrame, name: str, arms: Iterable[str], labels: list[str]) -> Axes:
    """Draws a difference and its interval in each row, in the arm's colour, hollow where it is not claimed."""
    ax.axvline(0, color=GREY, linewidth=1)
    for place, (arm, (_, row)) in enumerate(zip(arms, values.iterrows(), strict=True)):
        plot_interval(ax, place, row, name, arm, claimed=claim_text(row, name) == "resolved")
    figures.explain_hollow(ax)
    return figures.list_rows(ax, labels)


def plot_interaction(ax: Axes, records: pd.DataFrame, effect: pd.Series) -> Axes:
    """Draws mean top-1 without and with a toggle, a line without and one with another; parallel lines do not interact.

    Means are over all settings of the other toggles and over the seeds that have every arm; small dots are the seeds.
    `records` are those of one group of accuracy, `effect` a row of their `effect_values`, of two toggles.
    """
    refuse_mixed(records, STUDY_CONDITIONS)
    toggle, other = effect["effect"].split(":")
    factorial = Factorial(tuple(effect["toggles"].split(", ")), spanning(records["arm"]).common)
    top1 = factorial.complete(analysis.by_arm(records, "top1")) / POINTS
    low, high = float(top1.to_numpy().min()), float(top1.to_numpy().max())
    margin = max(0.05 * (high - low), 0.1)
    signs = factorial.signs
    for side, words in ((-1, "without"), (1, "with")):
        style = arm_line(factorial.arm_with([other] if side == 1 else []))
        chosen = [signs.index[(signs[toggle] == own_side) & (signs[other] == side)] for own_side in (-1, 1)]
        means = [top1[list(arms)].mean(axis="columns") for arms in chosen]
        ax.plot((0, 1), [seeds.mean() for seeds in means], **style, label=f"{words} {other}")
        for place, seeds in enumerate(means):
            ax.plot([place + 0.04 * side] * len(seeds), seeds, ".", color=style["color"], markersize=3)
    ax.set_xlim(-0.25, 1.25)
    ax.set_xticks((0, 1), [f"without {toggle}", f"with {toggle}"])
    ax.set_ylim(low - margin, high + margin)  # the same for all pairs
    claim = claim_text(effect, "top1_effect")
    ax.set_xlabel(f"Interaction {points_text(effect['top1_effect_mean'])} points, {claim}")
    ax.set_ylabel(METRICS["top1"].title)
    figures.legend_below(ax, ncols=2)
    return ax


def plot_tradeoff(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws each arm's mean top-1 against a cost, with their intervals, and the Pareto front of the means.

    `values` are rows of `tradeoff_values` of one cost.
    """
    refuse_mixed(values, TRADEOFF_CONDITIONS)
    metric = values["cost"].iloc[0]
    unit = figures.readable_unit(metric, values["cost_value"])
    costs = values["cost_value"] / unit.divisor
    front = values[values["on_front"]].assign(cost=costs).sort_values("cost")
    ax.plot(front["cost"], front["top1_mean"] / POINTS, color=GREY, linewidth=1, drawstyle="steps-post")
    for (_, row), cost in zip(values.iterrows(), costs, strict=True):
        plot_interval(ax, cost, row, "top1", row["arm"], along="y")
        if pd.notna(row["cost_low"]):
            ends = [row["cost_low"] / unit.divisor, row["cost_high"] / unit.divisor]
            ax.hlines(row["top1_mean"] / POINTS, *ends, color=figures.arm_colour(row["arm"]), linewidth=1)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(unit.title)
    ax.set_ylabel(f"{METRICS['top1'].title}: mean, 95 % interval")
    keys = [Line2D([], [], **arm_line(arm, linestyle="none", label=arm)) for arm in values["arm"]]
    figures.legend_below(ax, ncols=2, handles=keys)
    return ax


def render_power(values: pd.DataFrame, points: float, power: float, width: int) -> str:
    """Returns `power_values` for a terminal: how many seeds resolve a difference of so many points."""
    lines = [["Study", "Comparison", "SD over seeds, points", "Pilot seeds", "Seeds needed"]]
    for _, row in values.iterrows():
        study, sd = ", ".join(str(row[name]) for name in OF_DESIGN), f"{100 * row['sd']:.2f}"
        needed = f"{row['seeds_needed']:,.0f}" if pd.notna(row["seeds_needed"]) else f"> {MOST_SEEDS:,}"
        needed = needed if row["sd"] > 0 else NOTHING
        lines.append([study, f"{row['family']}: {row['comparison']}", sd, str(int(row["n_seeds"])), needed])
    head = f"Seeds to resolve a true difference of {points:g} points with probability {power:g}, Holm-corrected"
    return f"{textwrap.fill(head, width)}\n\n{terminal_rows(lines, width)}"


_NOT_CLAIMED = (
    "Means with 95 % intervals over seeds; a hollow marker is not claimed (unresolved, or exploratory for too few "
    "seeds)."
)

FIGURES = (
    FigureKind(
        name="effects_accuracy",
        title="What does each toggle do to accuracy?",
        named_by=("data", "toggles"),
        titled_by=OF_DESIGN,
        panels=panels_of(EFFECTS_ON_ACCURACY, FACTORIAL_CONDITIONS, plot_effects, _is_shown),
        height=2.8,
        one_scale=True,
        caption=(
            "What each toggle, and each pair beyond its parts, does to top-1, seed by seed: mean with its 95 % "
            "interval over seeds; hollow where it is not claimed (unresolved after Holm, or exploratory for too few "
            "seeds)."
        ),
    ),
    FigureKind(
        name="interactions",
        title="Does a toggle do more where another is on?",
        named_by=(*OF_DESIGN, "toggles"),
        titled_by=OF_DESIGN,
        panels=_panels_of_interactions,
        height=3.0,
        caption=(
            "Mean top-1 without and with a toggle, over all settings of the others and over seeds, which are the small "
            "dots. Parallel lines are no interaction; an interaction is half of the difference between the slopes."
        ),
    ),
    FigureKind(
        name="base_gains",
        title="Do the toggles gain more in base v2?",
        named_by=("data",),
        titled_by=OF_DESIGN,
        panels=panels_of(base_gain_values, BASE_GAIN_CONDITIONS, plot_base_gains),
        height=2.5,
        one_scale=True,
        caption=(
            "The way from v1 in base v1 to a published v2 model: what the toggles gain in each base, the difference of "
            f"the two gains, the base alone, and all together. {_NOT_CLAIMED}"
        ),
    ),
    FigureKind(
        name="single_confounders",
        title="Which of the confounders is it?",
        named_by=("data",),
        titled_by=OF_DESIGN,
        panels=panels_of(_gains_by_confounder, (*CHANGE_CONDITIONS, "arm"), plot_single_confounders),
        height=2.5,
        one_scale=True,
        caption=(
            "One confounder is set otherwise than the base has it: what that does to the published arm's gain over v1. "
            f"{_NOT_CLAIMED}"
        ),
    ),
    FigureKind(
        name="tradeoff",
        title="What does accuracy cost?",
        named_by=OF_DESIGN,
        panels=_panels_of_tradeoffs,
        height=3.6,
        caption=(
            "Top-1 against cost: mean with its 95 % interval over seeds, latency with that of its ratio to v1's. The "
            "grey line is the Pareto front of the means. Of several learning rates the one that trials chose is drawn. "
            "Whether an arm is surely beaten, the table `tradeoff` says "
            "(`report --all`)."
        ),
    ),
)
"""The kinds of figures of effects."""
