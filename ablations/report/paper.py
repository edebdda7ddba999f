"""The paper's tables and figures with our counts beside the reported numbers."""

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullFormatter

from ablations.analysis import paper as analysis
from ablations.analysis.grouping import CONDITIONS, Group, refuse_mixed
from ablations.config import PVT_V1, PVT_V2, PVT_V2_LI
from ablations.measure.metrics import METRICS
from ablations.report import figures
from ablations.report.cost import GFLOPS, NAME, PARAMS, CostTable, note_class_tokens
from ablations.report.figures import GREY, FigureKind, arm_line, panels_of
from ablations.report.tables import ARM, TableColumn, metric_column

CUMULATIVE_CONDITIONS = (*CONDITIONS["cost"], "resolution")

UNIT = "What the paper calls GFLOPs are MACs, those of convolutions and matrix products; so are ours."


def _beside(ours: TableColumn, metric: str, form: str = "") -> tuple[TableColumn, ...]:
    """Returns the columns of our count, the reported number, and by how much ours differs."""
    return (
        ours,
        TableColumn("reported", f"reported_{metric}_{analysis.DIVISORS[metric][0]}", form),
        TableColumn("difference, %", f"{metric}_difference_percent", "+z.1f"),
    )


PAPER_MACS = metric_column("macs", title=GFLOPS)
PARAMS_BESIDE = _beside(PARAMS, "params")
MACS_BESIDE = _beside(PAPER_MACS, "macs")
PAPER_ROW = TableColumn("Row of the paper", "reported_setting")

TABLES = (
    CostTable(
        name="table2_imagenet",
        title="Do our counts match the paper's Table 2: backbones on ImageNet?",
        values=analysis.imagenet_values,
        conditions=("head", "resolution"),
        rows_by="name",
        columns=(
            NAME,
            *PARAMS_BESIDE,
            *MACS_BESIDE,
            TableColumn("Reported top-1, %", "reported_top1_percent"),
            TableColumn("Why the reported number differs", "note"),
        ),
        about=(
            f"Parameters and MACs of one image, counted, beside the reported numbers. {UNIT} A count that does not "
            "round to the reported number has a note; where the note names another way of counting, its result stands "
            "in brackets. Nothing was trained: top-1 is as reported."
        ),
    ),
    CostTable(
        name="table3_coco",
        title="Do our counts match the paper's Table 3: detectors on COCO?",
        values=partial(analysis.paper_values, table="table3_coco"),
        conditions=("head", "resolution"),
        titled_by=("head",),
        rows_by="name",
        columns=(NAME, *PARAMS_BESIDE, metric_column("macs", title=f"{GFLOPS}, 800×1280")),
        about=(
            "torchvision's RetinaNet and Mask R-CNN around each backbone, set up as the paper's: 80 classes, a pyramid "
            "of 256 channels, RetinaNet's from C3 with P6 from C5. The paper reports parameters alone. Its tool counts "
            "trainable ones, and its ResNets and ResNeXts were trained with the stem and the first stage frozen: ours "
            "have 0.2 to 0.4 M more there before rounding. Mask R-CNN's MACs depend on its proposals and are left out."
        ),
        note=note_class_tokens,
    ),
    CostTable(
        name="table4_detectors",
        title="Do our counts match the paper's Table 4: other detectors on COCO?",
        values=partial(analysis.paper_values, table="table4_detectors"),
        conditions=("resolution",),
        rows_by="row",
        columns=(
            TableColumn("Detector", "detector"),
            TableColumn("Backbone", "name"),
            TableColumn("Ours is", lambda row: "torchvision's FCOS" if row["head"] else "quoted, not built"),
            *_beside(PARAMS, "params", ".0f"),
            *_beside(PAPER_MACS, "macs", ".0f"),
        ),
        about=(
            "ATSS has the layers of FCOS and differs in how training assigns samples; torchvision's FCOS stands for "
            f"it. No well-kept library has the others: their rows are quoted. The paper reports whole numbers. {UNIT}"
        ),
        note=note_class_tokens,
    ),
    CostTable(
        name="table5_ade20k",
        title="Do our counts match the paper's Table 5: Semantic FPN on ADE20K?",
        values=partial(analysis.paper_values, table="table5_ade20k"),
        conditions=("head", "resolution"),
        rows_by="name",
        columns=(NAME, *PARAMS_BESIDE, *MACS_BESIDE),
        about=(
            "Semantic FPN (the semantic branch of Panoptic FPN) with 150 classes around each backbone. The paper's "
            f"ResNets have a stem of three convolutions, and so have these. {UNIT} The paper's counter adds something "
            "for layers that are no products, which no single rule of ours gives for all rows; all differences are "
            "under half a percent."
        ),
        note=note_class_tokens,
    ),
    CostTable(
        name="table6_ablation",
        title="Do our counts match the paper's Table 6: the ablation in RetinaNet?",
        values=analysis.table6_values,
        conditions=("variant", "base", "head", "resolution"),
        columns=(
            PAPER_ROW,
            ARM,
            *PARAMS_BESIDE,
            TableColumn("step", "params_step", "+.2f", METRICS["params"].divisor),
            TableColumn("reported step", "reported_params_step_m", "+.1f"),
            *MACS_BESIDE,
            TableColumn("step", "macs_step", "+.2f", METRICS["macs"].divisor),
            TableColumn("reported step", "reported_macs_step_g", "+.1f"),
            TableColumn("AP, COCO, %", "ap_on_coco", ".1f", METRICS["ap"].divisor),
            TableColumn("Reported AP, COCO, %", "reported_ap_percent", ".1f"),
        ),
        about=(
            "RetinaNet with 80 classes on b2 at 800×1280 px. The paper's first row has v1's confounders and its others "
            "have v2's (base published), so that its step to + OPE holds the change of confounders too. The other arms "
            "and bases are ours alone. Steps are differences to the paper's row above; reported steps are between "
            "reported values. Reported AP is the paper's; ours stands beside it where it was measured on COCO. "
            f"{UNIT}"
        ),
        note=note_class_tokens,
    ),
    CostTable(
        name="cumulative",
        title="What does each step of the paper's cumulative ablation cost and gain?",
        values=analysis.cumulative_values,
        conditions=CUMULATIVE_CONDITIONS,
        titled_by=("variant", "base", "resolution"),
        columns=(
            PAPER_ROW,
            ARM,
            PARAMS,
            TableColumn("reported", "reported_params_m"),
            TableColumn("step", "params_step", "+.2f", METRICS["params"].divisor),
            TableColumn("reported step", "reported_retinanet_params_step_m", "+.1f"),
            PAPER_MACS,
            TableColumn("reported", "reported_gflops"),
            TableColumn("step", "macs_step", "+.2f", METRICS["macs"].divisor),
            TableColumn("Reported top-1, %", "reported_top1_percent"),
            TableColumn("step", "reported_top1_step_points", "+.1f"),
        ),
        about=(
            "Steps are differences to the row above; the first holds the change of base too. Our numbers are of "
            "backbones, counted and not trained. The reported totals are those of the paper's Table 2, which lacks the "
            "second row; the reported steps in parameters are those of the RetinaNets of its Table 6, which the table "
            "table6_ablation rebuilds. All top-1 is as reported: ImageNet at 224 px, one run a row, spread unknown. "
            "What the paper calls GFLOPs are MACs."
        ),
    ),
)
"""The paper's tables, in the report's order."""


def plot_cumulative(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the paper's path step by step: reported top-1, and before each step our parameters and MACs.

    `values` are rows of `cumulative_values` at one resolution.
    """
    refuse_mixed(values, CUMULATIVE_CONDITIONS)
    top1 = values["reported_top1_percent"]
    ax.plot(top1, range(len(values)), color=GREY, linewidth=1)
    labels = []
    for place, (_, row) in enumerate(values.iterrows()):
        ax.plot(row["reported_top1_percent"], place, **arm_line(row["arm"], markersize=7))
        step = row["reported_top1_step_points"]
        text = f"{row['reported_top1_percent']:.1f}" + ("" if pd.isna(step) else f" ({step:+.1f})")
        ax.annotate(text, (row["reported_top1_percent"], place), (8, 0), textcoords="offset points", va="center")
        counts = ", ".join(figures.count_labels(values, row))
        labels.append(f"{row['arm']}\n{row['reported_setting']}\n{counts}")
    ax.set_xlim(top1.min() - 0.3, top1.max() + 2.4)  # room for the words
    ax.xaxis.set_major_locator(MultipleLocator(1))
    ax.set_xlabel("Reported top-1, %")
    return figures.list_rows(ax, labels, room=0.5)


BASELINE_LOOKS = {
    "ResNet": ("0.65", "h", "--"),
    "ResNeXt": ("0.45", "d", "--"),
    "RegNetY": ("0.25", "8", "--"),
    "ViT, DeiT": ("#DDAA33", "<", "-"),
    "T2T-ViT": ("#88CCEE", ">", "-"),
    "TNT": ("#999933", "p", "-"),
    "Swin": ("#332288", "H", "-"),
    "CvT": ("#44AA99", "<", "-"),
    "CoaT-Lite": ("#4477AA", "d", "-"),
    "Twins-SVT": ("#117733", ">", "-"),
}
"""A family's colour, marker and line: those of ConvNets are grey and dashed."""

AREA_OF_A_MILLION = 3.0
"""Square points that a million parameters add to the square around a bubble."""

KEYS = (5, 25, 100)
"""Parameters in millions of the bubbles that explain the size."""

LABEL_PLACES = {PVT_V1: (4, -5), PVT_V2: (-4, 5), PVT_V2_LI: (-4, 11)}
"""Where the name of an arm's point stands, in points from it; names of v2-Li clear those of v2."""


def _has_arms_and_baselines(group: Group) -> bool:
    return len(group.rows) >= figures.FEWEST_ARMS and 0 < group.rows["arm"].isna().sum() < len(group.rows)


def plot_imagenet(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws reported top-1 against MACs, a bubble for each model's parameters and a line for each family.

    `values` are rows of `imagenet_values` with one head and resolution.
    """
    refuse_mixed(values, ("head", "resolution"))
    values = values.sort_values("macs").assign(
        giga_macs=values["macs"] / METRICS["macs"].divisor, millions=values["params"] / METRICS["params"].divisor
    )
    for family in (*analysis.ARM_FAMILIES.values(), *analysis.BASELINE_FAMILIES):
        rows = values[values["family"] == family]
        if rows.empty:
            continue
        macs, top1, millions = rows["giga_macs"], rows["reported_top1_percent"], rows["millions"]
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
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} G" if value >= 1 else f"{1e3 * value:g} M"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(f"{METRICS['macs'].label} at {values['resolution'].iloc[0]} px")
    ax.set_ylabel("Reported top-1, %")
    _explain_bubbles(ax)
    figures.legend_below(ax, ncols=2)
    return ax


def _line(family: str, arm: Any) -> dict[str, Any]:
    """Returns how a family's line and markers are drawn: arms before baselines."""
    if pd.notna(arm):
        return arm_line(arm, markersize=4, markeredgewidth=0, zorder=4)
    colour, marker, line = BASELINE_LOOKS[family]
    look = {"color": colour, "marker": marker, "linestyle": line, "linewidth": 0.7}
    return {**look, "markersize": 4, "markeredgewidth": 0, "zorder": 3}


def _name_point(ax: Axes, row: pd.Series) -> None:
    """Writes the size's name beside an arm's point: v1's below its line, the others' above theirs."""
    right, up = LABEL_PLACES[row["arm"]]
    ax.annotate(
        row["name"].partition("-")[2],
        (row["giga_macs"], row["reported_top1_percent"]),
        (right, up),
        textcoords="offset points",
        ha="left" if right > 0 else "right",
        va="bottom" if up > 0 else "top",
        fontsize=6.5,
        color=figures.arm_colour(row["arm"]),
        zorder=5,
    )


def _explain_bubbles(ax: Axes) -> None:
    keys = [ax.scatter([], [], s=AREA_OF_A_MILLION * millions, color="0.8", linewidths=0) for millions in KEYS]
    labels = [f"{millions} M" for millions in KEYS]
    look = {"title_fontsize": 7, "labelspacing": 0.8, "borderpad": 0.8}
    ax.add_artist(ax.legend(keys, labels, loc="lower right", title="Parameters", **look))


FIGURES = (
    FigureKind(
        name="cumulative",
        title="What does each step of the paper's ablation gain, as reported?",
        named_by=("variant", "base"),
        panels=panels_of(analysis.cumulative_values, CUMULATIVE_CONDITIONS, plot_cumulative),
        height=2.6,
        caption=(
            "The paper's cumulative ablation: reported top-1 on ImageNet, one run a row, spread unknown. Parameters "
            "and MACs are our count of backbones with a head of 1,000 classes."
        ),
    ),
    FigureKind(
        name="table2_imagenet",
        title="Which models are reported to gain most from their MACs?",
        named_by=("head",),
        panels=panels_of(analysis.imagenet_values, ("head", "resolution"), plot_imagenet, _has_arms_and_baselines),
        height=5.4,
        caption=(
            "The paper's Table 2: reported top-1, one run a row, spread unknown, against our count of MACs. A bubble's "
            "area is in proportion to our count of parameters. Lines join the models of a family, whose fewest and "
            "most parameters stand after its name."
        ),
    ),
)
"""The kinds of figures of the paper's tables."""
