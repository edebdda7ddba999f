"""The plots of cost that go beyond one comparison of arms; each function draws values on an `ax` and returns it.

`ablations.report.growth` and `ablations.report.comparison` give the values.
"""

from textwrap import wrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ablations.records import METRICS
from ablations.report.conditions import CONDITIONS, MODEL_CONDITIONS, refuse_mixed
from ablations.report.figures import (
    COLOURS,
    GREY,
    arm_line,
    group_alike,
    legend_below,
    legend_of_shared_lines,
    list_rows,
    log_ticks,
    resolution_axis,
    side,
)
from ablations.report.values import MODULE_KINDS

BASELINE_LINES = ("--", ":", "-.", *((0, (5, 1) + (1, 1) * dots) for dots in range(2, 8)))
"""Line styles of models that are no arms; they are all grey."""

_OF_STEP = tuple(name for name in CONDITIONS["memory"] if name not in MODEL_CONDITIONS)
"""What lines of several models have in common."""

OPERATOR_COLOURS = {"convolution": "#009E73", "linear": "#0072B2", "batched_product": "#D55E00"}
OPERATOR_WORDS = {"convolution": "convolutions", "linear": "linear layers", "batched_product": "products in batches"}


def plot_scaling(ax: Axes, values: pd.DataFrame, metric: str = "macs", exponent: str = "last_exponent") -> Axes:
    """Draws a metric against the side of the input on logarithmic axes, with the models' exponents in the legend.

    Arms have their colours and share a line where they are ALIKE; other models are grey. `values` are rows of
    `scaling_values`, or of `model_memory_values` for `peak_memory_bytes`.
    """
    refuse_mixed(values, ("head", *_OF_STEP))
    divisor = METRICS[metric].divisor
    curves = {
        tuple(rows.iloc[0][["name", "arm", exponent]]): (rows[metric] / divisor).set_axis(side(rows))
        for _, rows in values.groupby("name", sort=False)
    }
    arms = group_alike({name: curve for name, curve in curves.items() if pd.notna(name[1])})
    others = [{name: curve} for name, curve in curves.items() if pd.isna(name[1])]
    handles, labels = [], []
    for group, linestyle in zip([*arms, *others], ["-"] * len(arms) + [*BASELINE_LINES] * len(others), strict=False):
        names, curve = list(group), next(iter(group.values()))
        styles = [
            {"color": GREY, "linestyle": linestyle, "linewidth": 1.4} if pd.isna(arm) else arm_line(arm, markersize=4)
            for _, arm, _ in names
        ]
        ax.plot(curve.index, curve, **styles[0])
        handles.append(tuple(Line2D([], [], **style) for style in styles))
        exponents = sorted({f"{number:.2f}" for *_, number in names})
        words = f"{', '.join(name for name, *_ in names)}: {' to '.join(dict.fromkeys((exponents[0], exponents[-1])))}"
        labels.append("\n".join(wrap(words, width=40)))
    log_ticks(ax)
    ax.set_ylabel(METRICS[metric].title)
    resolution_axis(ax, values)
    legend_of_shared_lines(ax, handles, labels)
    return ax


def plot_module_costs(ax: Axes, values: pd.DataFrame, metric: str = "macs") -> Axes:
    """Draws a bar for each arm's `params` or `macs` in each kind of module; kinds in which no arm has any are left out.

    `values` are rows of `module_values` at one resolution.
    """
    refuse_mixed(values, (*CONDITIONS["cost"], "resolution"))
    of_arm = {arm: rows.set_index("module")[metric] for arm, rows in values.groupby("arm", sort=False)}
    table = pd.DataFrame(of_arm).reindex(MODULE_KINDS).fillna(0)
    table = table[table.any(axis="columns")]
    height = 0.8 / len(of_arm)
    for number, arm in enumerate(table):
        places = [place + height * (number - (len(of_arm) - 1) / 2) for place in range(len(table))]
        ax.barh(places, table[arm] / METRICS[metric].divisor, height=height, color=COLOURS[str(arm)], label=arm)
    at = f" at {values['resolution'].iloc[0]} px" if metric == "macs" else ""
    ax.set_xlabel(f"{METRICS[metric].label}{at}, {METRICS[metric].unit}")
    legend_below(ax, ncols=2)
    ax.set_ylim(-0.6, len(table) - 0.4)
    return list_rows(ax, list(table.index))


def plot_operators(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws each model's share of MACs by kind of operator; `values` are rows of `operator_values`."""
    refuse_mixed(values, ("head",))
    start = pd.Series(0.0, index=values.index)
    for kind, colour in OPERATOR_COLOURS.items():
        share = 100 * values[f"macs_{kind}"] / values["macs"]
        ax.barh(range(len(values)), share, left=start, height=0.75, color=colour, label=OPERATOR_WORDS[kind])
        start = start + share
    ax.set_xlim(0, 100)
    ax.set_xlabel("Share of the MACs, %")
    legend_below(ax, ncols=1)
    ax.set_ylim(-0.6, len(values) - 0.4)
    return list_rows(ax, values["name"].tolist())


def plot_complexity(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the paper's terms of one attention layer as lines and the traced layer as dots, against the input's side.

    `values` are rows of `complexity_values` of one stage.
    """
    refuse_mixed(values, ("head", "stage"))
    for column, colour, words in (
        ("sra_products", "#D55E00", "SRA, products: 2h²w²c/R²"),
        ("sra_reduction", "#882255", "SRA, reduction: hwc²R²"),
        ("linear_sra_products", "#009E73", "linear SRA, products: 2hwP²c"),
    ):
        ax.plot(side(values), values[f"paper_{column}"] / 1e9, color=colour, linewidth=1.2, label=words)
        traced = values[values[column] > 0]
        ax.plot(side(traced), traced[column] / 1e9, "o", color=colour, markersize=4, markerfacecolor="white")
    ax.plot([], [], "o", color=GREY, markersize=4, markerfacecolor="white", label="traced layer")
    log_ticks(ax)
    ax.set_ylabel("MACs of a layer, G")
    resolution_axis(ax, values)
    legend_below(ax)
    return ax
