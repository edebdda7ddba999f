"""The paper's Table 2 as a plot: its top-1 against our counts of MACs and parameters, by family of models."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ablations.analysis.grouping import refuse_mixed
from ablations.analysis.paper import paper_values
from ablations.records import METRICS
from ablations.report.figures import arm_colour, arm_line, legend_below

ARM_FAMILIES = {"v1": "PVT v1", "v1+ope+cffn": "PVT v2", "v1+ope+cffn+lsra": "PVT v2-Li"}
"""What the paper calls the arms that are rows of its Table 2."""

BASELINE_FAMILIES = {
    "ResNet": (("ResNet",), "0.65", "h", "--"),
    "ResNeXt": (("ResNeXt",), "0.45", "d", "--"),
    "RegNetY": (("RegNetY",), "0.25", "8", "--"),
    "ViT, DeiT": (("ViT", "DeiT"), "#DDAA33", "<", "-"),
    "T2T-ViT": (("T2T",), "#88CCEE", ">", "-"),
    "TNT": (("TNT",), "#999933", "p", "-"),
    "Swin": (("Swin",), "#332288", "H", "-"),
    "CvT": (("CvT",), "#44AA99", "<", "-"),
    "CoaT-Lite": (("CoaT",), "#4477AA", "d", "-"),
    "Twins-SVT": (("Twins",), "#117733", ">", "-"),
}
"""How the paper's names of a family's models begin, its colour, marker and line: those of ConvNets grey and dashed."""

AREA_OF_A_MILLION = 3.0
"""Square points that a million parameters add to the square around a bubble."""

KEYS = (5, 25, 100)
"""Parameters in millions of the bubbles that explain the size."""

LABEL_PLACES = {"v1": (4, -5), "v1+ope+cffn": (-4, 5), "v1+ope+cffn+lsra": (-4, 11)}
"""Where the name of an arm's point stands, in points from it; names of v2-Li clear those of v2."""


def backbone_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of the paper's Table 2 that were counted, each with its `family`, and its `arm` if it is one."""
    values = paper_values(records, "table2_imagenet")
    if values.empty:
        return values
    is_arm = values["model"].str.startswith("pvt:")
    arms = values["model"].str.split("/").str[1].where(is_arm)
    families = [
        _baseline_family(name) if pd.isna(arm) else ARM_FAMILIES[arm]
        for name, arm in zip(values["name"], arms, strict=True)
    ]
    return values.assign(arm=arms, family=families)


def _baseline_family(name: str) -> str:
    return next(family for family, (beginnings, *_) in BASELINE_FAMILIES.items() if name.startswith(beginnings))


def plot_backbones(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the paper's top-1 against MACs, a bubble for each model's parameters and a line for each family.

    `values` are rows of `backbone_values` with one head and resolution.
    """
    refuse_mixed(values, ("head", "resolution"))
    values = values.sort_values("macs").assign(
        giga_macs=values["macs"] / METRICS["macs"].divisor, millions=values["params"] / METRICS["params"].divisor
    )
    for family in (*ARM_FAMILIES.values(), *BASELINE_FAMILIES):
        rows = values[values["family"] == family]
        if rows.empty:
            continue
        macs, top1, millions = rows["giga_macs"], rows["paper_top1_percent"], rows["millions"]
        look = _line(family, rows["arm"].iloc[0])
        ends = dict.fromkeys(f"{end:.3g}" for end in (millions.min(), millions.max()))
        ax.plot(macs, top1, label=f"{family}: {' to '.join(ends)} M", **look)
        area = AREA_OF_A_MILLION * millions.astype(float)
        ax.scatter(macs, top1, s=area, color=look["color"], alpha=0.18, linewidths=0, zorder=look["zorder"])
    for _, row in values[values["arm"].notna()].iterrows():
        _name_point(ax, row)
    ax.set_xscale("log")
    ax.set_xlim(0.75 * values["giga_macs"].min(), 1.5 * values["giga_macs"].max())  # room for words and bubbles
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(f"{METRICS['macs'].label} at {values['resolution'].iloc[0]} px, {METRICS['macs'].unit}")
    ax.set_ylabel("The paper's top-1, %")
    _explain_bubbles(ax)
    legend_below(ax, ncols=2)
    return ax


def _line(family: str, arm: Any) -> dict[str, Any]:
    """Returns how a family's line and markers are drawn: arms before baselines."""
    if pd.notna(arm):
        return arm_line(arm, markersize=4, markeredgewidth=0, zorder=4)
    _, colour, marker, line = BASELINE_FAMILIES[family]
    look = {"color": colour, "marker": marker, "linestyle": line, "linewidth": 0.7}
    return {**look, "markersize": 4, "markeredgewidth": 0, "zorder": 3}


def _name_point(ax: Axes, row: pd.Series) -> None:
    """Writes the size's name beside an arm's point: v1's below its line, the others' above theirs."""
    right, up = LABEL_PLACES[row["arm"]]
    ax.annotate(
        row["name"].partition("-")[2],
        (row["giga_macs"], row["paper_top1_percent"]),
        (right, up),
        textcoords="offset points",
        ha="left" if right > 0 else "right",
        va="bottom" if up > 0 else "top",
        fontsize=6.5,
        color=arm_colour(row["arm"]),
        zorder=5,
    )


def _explain_bubbles(ax: Axes) -> None:
    keys = [ax.scatter([], [], s=AREA_OF_A_MILLION * millions, color="0.8", linewidths=0) for millions in KEYS]
    labels = [f"{millions} M" for millions in KEYS]
    look = {"title_fontsize": 7, "labelspacing": 0.8, "borderpad": 0.8}
    ax.add_artist(ax.legend(keys, labels, loc="lower right", title="Parameters", **look))
