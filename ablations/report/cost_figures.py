"""The plots of cost that go beyond one comparison of arms; each function draws values on an `ax` and returns it.

`ablations.report.growth` and `ablations.analysis.paper` give the values.
"""

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis.grouping import CONDITIONS, refuse_mixed
from ablations.records import METRICS
from ablations.report.figures import (
    GREY,
    arm_colour,
    legend_below,
    list_rows,
    log_ticks,
    resolution_axis,
    side,
)
from ablations.report.values import MODULE_KINDS

OPERATOR_COLOURS = {"convolution": "#009E73", "linear": "#0072B2", "batched_product": "#D55E00"}
OPERATOR_WORDS = {"convolution": "convolutions", "linear": "linear layers", "batched_product": "products in batches"}


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
        ax.barh(places, table[arm] / METRICS[metric].divisor, height=height, color=arm_colour(str(arm)), label=arm)
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
