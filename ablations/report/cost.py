"""Parameters and MACs: the tables and figures."""

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.axes import Axes

from ablations.analysis import cost as analysis
from ablations.analysis.cost import at_both_ends, has_lost_class_token
from ablations.analysis.grouping import CONDITIONS, Group, group_by, refuse_mixed, squares
from ablations.config import PVT_V2, PVT_V2_LI, TOGGLES
from ablations.measure.metrics import METRICS
from ablations.report.figures import (
    ALIKE,
    FEWEST_ARMS,
    GREY,
    FigureKind,
    Panel,
    arm_line,
    halves_by_lsra,
    has_sizes,
    label_axes,
    label_lines,
    label_sizes,
    log_ticks,
    panels_of,
    plot_scaling,
    side,
)
from ablations.report.tables import (
    ARM,
    MACS_AT,
    Table,
    TableColumn,
    change_of,
    count_column,
    metric_column,
    metric_text,
    terminal_rows,
)

NAME = TableColumn("Model", "name")
PARAMS = metric_column("params")
IMAGE = TableColumn("Input, px", "resolution")
GFLOPS = "GFLOPs (MACs)"


def note_class_tokens(values: pd.DataFrame) -> str:
    """Says which arms of base v1 have lost their class token to a head that reads maps."""
    lost = values[has_lost_class_token(values)]
    if lost.empty:
        return ""
    names = lost["arm" if "arm" in lost else "name"].unique()
    which = "the models here have none" if len(names) == len(values) else f"{', '.join(names)} has none here"
    return f"Base v1 has a class token, which this head cannot read: {which}."


def _note_cost(values: pd.DataFrame) -> str:
    """Says what the base does, how the counts agree, and which arms have lost their class token."""
    counted_twice = values.dropna(subset="macs_traced")
    equal = int((counted_twice["macs"] == counted_twice["macs_traced"]).sum())
    own = {name for name, toggle in TOGGLES.items() if toggle.cost is None}
    once = values[values["macs_traced"].isna() & values["macs"].notna()]
    alone = [arm for arm in once["arm"].unique() if own & set(str(arm).split("+"))]
    sentences = [
        "Arm v1 has v1's confounders and the others v2's, so that a change against v1 holds both."
        if (values["base"] == "published").all()
        else "",
        "There is no closed form with this head."
        if counted_twice.empty
        else f"Closed form and trace count the same in {equal} of {len(counted_twice)} records.",
        f"Without a closed form, the traced count stands alone: {', '.join(alone)}." if alone else "",
        note_class_tokens(values),
    ]
    return " ".join(filter(None, sentences))


def _note_refusals(values: pd.DataFrame) -> str:
    """Says which inputs a model refuses, and why, and which models did not run on shapes alone."""
    refused = values[values["refused"].notna()]
    sentences = []
    for reason, rows in refused.groupby("refused", sort=False):
        sizes = [f"`{row['model']}` at {row['resolution']} px" for _, row in rows.iterrows()]
        sentences.append(f"{', '.join(sizes)}: {str(reason).rstrip('.')}.")
    if "counted_on" in values:
        models = values.loc[values["counted_on"].notna(), "model"].unique()
        sentences.append(
            f"Counted on real tensors, since shapes alone do not do: {', '.join(f'`{m}`' for m in models)}."
        )
    return " ".join(sentences)


def _part_column(part: str) -> TableColumn:
    """Returns the column of a part's MACs and of their share of all."""
    return count_column("macs", part, part.capitalize(), bracket=lambda row: f"{100 * row[part] / row['macs']:.1f} %")


CostTable = partial(Table, measurement="cost")
"""A table of counts."""

TABLES = (
    CostTable(
        name="cost",
        title="Parameters and MACs",
        values=analysis.cost_values,
        conditions=CONDITIONS["cost"],
        titled_by=("variant", "base", "head"),
        columns=(ARM, count_column("params", bracket=change_of("params"), best="min")),
        spread=(count_column("macs", heading=MACS_AT, bracket=change_of("macs"), best="min"),),
        about=(
            "One image's forward pass. MACs are those of convolutions and matrix products, attention's two included; "
            "norms, activations and pooling count as none. In brackets the change against v1. Counted by tracing the "
            "model's operators, and classifiers in closed form too. They do not say how long anything takes."
        ),
        note=_note_cost,
    ),
    CostTable(
        name="parts",
        title="What the MACs are made of",
        values=lambda records: at_both_ends(analysis.part_values(records)),
        conditions=("variant", "base", "head", "resolution"),
        titled_by=("variant", "base", "resolution"),
        columns=(
            ARM,
            *map(_part_column, analysis.PARTS),
            count_column("macs"),
        ),
        about="MACs by part of the network, and the share of the whole; counted module by module.",
    ),
    CostTable(
        name="scaling",
        title="MACs against the size of the input (the paper's Figure 4)",
        values=analysis.scaling_values,
        conditions=("head", "sizes", "last_sizes"),
        titled_by=("head", "sizes"),
        rows_by="name",
        columns=(
            NAME,
            TableColumn("Exponent", "exponent", ".3f"),
            TableColumn("at the end", "last_exponent", ".3f"),
        ),
        spread=(metric_column("macs", title="{} px: G"),),
        about=(
            "The exponent is the slope of the logarithm of MACs against that of pixels, by least squares over all "
            "sizes; at the end, between the two largest. 1 is linear in pixels, 2 is quadratic. Arms are those of b2 "
            "in base published."
        ),
    ),
    CostTable(
        name="crossover",
        title="Where linear SRA starts to pay",
        values=analysis.crossover_values,
        conditions=("head",),
        rows_by="variant",
        columns=(
            TableColumn("Variant", "variant"),
            *(TableColumn(f"P = {size}", f"crossover_px_p{size}", ".0f") for size in analysis.POOL_SIZES),
        ),
        about=(
            f"The side in pixels from which on PVT v2 with linear SRA ({PVT_V2_LI}) takes fewer MACs than with SRA "
            f"({PVT_V2}): in closed form, over squares of multiples of 32 px up to {analysis.CROSSOVER_SIDES[-1]}. "
            "Fewer MACs are not a shorter time."
        ),
    ),
    CostTable(
        name="complexity",
        title="The paper's formulas beside the traced layer",
        values=lambda records: at_both_ends(analysis.complexity_values(records)),
        conditions=("head", "resolution"),
        titled_by=("resolution",),
        rows_by="stage",
        columns=(
            TableColumn("Stage", "stage"),
            TableColumn("h × w", lambda row: f"{row['height']} × {row['width']}"),
            TableColumn("c", "channels"),
            TableColumn("R", "sr_ratio"),
            TableColumn("SRA: 2h²w²c/R²", "reported_sra_products", ",.2f", 1e6),
            TableColumn("SRA, traced products", "sra_products", ",.2f", 1e6),
            TableColumn("SRA: hwc²R²", "reported_sra_reduction", ",.2f", 1e6),
            TableColumn("SRA, traced reduction", "sra_reduction", ",.2f", 1e6),
            TableColumn("Linear SRA: 2hwP²c", "reported_linear_sra_products", ",.2f", 1e6),
            TableColumn("linear SRA, traced products", "linear_sra_products", ",.2f", 1e6),
            TableColumn("linear SRA, traced reduction", "linear_sra_reduction", ",.2f", 1e6),
        ),
        about=(
            "Million MACs of one attention layer of PVTv2-B2 and B2-Li (P = 7), without its linear projections, which "
            "the formulas leave out. The first term of SRA is exact where R divides the map, and too large where it "
            "does not. The second, hwc²R², is R² times too large: a convolution of R × R and stride R has R²c² weights "
            "at hw / R² places, which makes hwc², as traced; R = 1 has no such convolution. Linear SRA's term is "
            "exact; its 1 × 1 convolution after the pool, P²c², is not in it."
        ),
    ),
    CostTable(
        name="operators",
        title="MACs by operator",
        values=analysis.operator_values,
        conditions=("head",),
        rows_by="model",
        columns=(
            NAME,
            IMAGE,
            metric_column("macs"),
            TableColumn("convolutions", "macs_convolution", ",.3f", 1e9),
            TableColumn("linear layers", "macs_linear", ",.3f", 1e9),
            TableColumn("products in batches", "macs_batched_product", ",.3f", 1e9),
            TableColumn("Values of layer norms, M", "values_layer_norm", ",.2f", 1e6),
            TableColumn("batch norms", "values_batch_norm", ",.2f", 1e6),
            TableColumn("softmax", "values_softmax", ",.2f", 1e6),
            TableColumn("ReLU", "values_relu", ",.2f", 1e6),
            TableColumn("other activations", "values_activation", ",.2f", 1e6),
            TableColumn("into pools", "values_pool", ",.2f", 1e6),
        ),
        about=(
            "Products in batches are attention's, and linear layers that a model applies window by window. Norms, "
            "activations and pools count as no MACs here and as some elsewhere: so many values they look at."
        ),
    ),
    CostTable(
        name="backbones",
        title="The backbones that the article names",
        values=analysis.backbone_values,
        conditions=("head",),
        rows_by="name",
        columns=(
            TableColumn("Family", "family"),
            NAME,
            IMAGE,
            PARAMS,
            metric_column("macs"),
            TableColumn("Built as", "model", "`{}`"),
        ),
        about="Counted, not trained; each at the size of input that its paper gives.",
    ),
    CostTable(
        name="models",
        title="Models by name",
        values=analysis.model_values,
        conditions=("head",),
        rows_by="model",
        columns=(
            TableColumn("Model", "model", "`{}`"),
            PARAMS,
        ),
        spread=(metric_column("macs", title="{} px: G"),),
        about=(
            "One image's forward pass, counted by tracing the model's operators on tensors without numbers. A dash is "
            "a size that was not counted, or that the model refuses: then its reason stands below."
        ),
        note=_note_refusals,
    ),
)
"""The tables of parameters and MACs, in the report's order."""


def render_breakdown(records: pd.DataFrame, width: int) -> str:
    """Returns what each module of each counted cell adds by itself, the most MACs first, for a terminal."""
    sections = []
    for _, record in records[records["measurement"] == "cost"].iterrows():
        title = f"{record['model']}, {record['head']}, {record['resolution']} px"
        title += f", P = {record['pool_size']}" if pd.notna(record.get("pool_size")) else ""
        if not isinstance(record.get("breakdown"), dict):
            sections.append(f"{title}\n\nNo breakdown: {record.get('refused') or 'an older record'}")
        else:
            rows = sorted(record["breakdown"].items(), key=lambda item: -item[1]["macs"])
            lines = [["Module, repeated blocks as one", METRICS["params"].title, METRICS["macs"].title]]
            lines += [
                [name or "(the model itself)", *(metric_text(metric, counts[metric]) for metric in ("params", "macs"))]
                for name, counts in rows
            ]
            sections.append(f"{title}\n\n{terminal_rows(lines, width)}")
    return "\n\n".join(sections)


def _is_curve_of_arms(group: Group) -> bool:
    is_whole = bool(group.rows["macs"].notna().all())
    return has_sizes(group) and group.rows["arm"].nunique() >= FEWEST_ARMS and is_whole


def _panels_of_macs(records: pd.DataFrame) -> Iterator[Panel]:
    for group in filter(_is_curve_of_arms, group_by(analysis.cost_values(records), CONDITIONS["cost"])):
        a_pixel = group.rows["macs"] / group.rows["pixels"]
        yield from halves_by_lsra(group.conditions, group.rows, plot_macs_by_resolution, a_pixel)


def plot_macs_by_resolution(ax: Axes, values: pd.DataFrame, limits: tuple[float, float] | None = None) -> Axes:
    """Draws each arm's MACs a pixel against the side of the input, both on logarithmic axes.

    A flat line is a cost that is linear in pixels. `values` are rows of `cost_values`; squares are drawn. `limits` are
    the least and the most MACs a pixel of all panels of one scale.
    """
    refuse_mixed(values, CONDITIONS["cost"])
    values = squares(values)
    a_pixel = values["macs"] / values["pixels"]
    low, high = limits or (a_pixel.min(), a_pixel.max())
    ax.set_ylim(0.94 * low, 1.06 * high)
    log_ticks(ax, of_counts=True)
    lines = [
        ((rows["macs"] / rows["pixels"]).set_axis(side(rows)), arm_line(str(arm)), str(arm))
        for arm, rows in values.groupby("arm", sort=False)
    ]
    label_lines(ax, lines)
    return label_axes(ax, values, "MACs a pixel")


def plot_complexity(ax: Axes, values: pd.DataFrame) -> Axes:
    """Draws the paper's terms of one attention layer as lines and the traced layer as crosses, by the input's side.

    `values` are rows of `complexity_values` of one stage.
    """
    refuse_mixed(values, ("head", "stage"))
    for column, colour, words in (
        ("sra_products", "#D55E00", "SRA, products: 2h²w²c/R²"),
        ("sra_reduction", "#882255", "SRA, reduction: hwc²R²"),
        ("linear_sra_products", "#009E73", "linear SRA, products: 2hwP²c"),
    ):
        ax.plot(side(values), values[f"reported_{column}"], color=colour, linewidth=1.2, label=words)
        traced = values[values[column] > 0]
        ax.plot(side(traced), traced[column], "x", color=colour, markersize=5)
    ax.plot([], [], "x", color=GREY, markersize=5, label="traced layer")
    log_ticks(ax, of_counts=True)
    return label_sizes(ax, values, "MACs of a layer")


FIGURES = (
    FigureKind(
        name="macs_by_resolution",
        title="How do MACs grow with the input?",
        named_by=("variant", "base", "head"),
        panels=_panels_of_macs,
        height=3.4,
        caption=("MACs a pixel of the input, both axes logarithmic; a flat line is a cost linear in pixels."),
    ),
    FigureKind(
        name="scaling",
        title="How do MACs grow with the input, beside other models?",
        named_by=("head",),
        panels=panels_of(
            analysis.scaling_values, ("head", "sizes"), plot_scaling, lambda group: group.rows["arm"].notna().any()
        ),
        height=5.2,
        caption=(
            "MACs against the size of the input, both axes logarithmic; the paper's Figure 4 with the arms of all its "
            "toggles. The number after a name is the exponent in pixels between the two largest sizes: 1 is linear, 2 "
            f"is quadratic. Arms within {ALIKE:.0%} of another's line everywhere share that line; the table has every "
            "number."
        ),
    ),
    FigureKind(
        name="complexity",
        title="Do the paper's formulas give the MACs of a layer?",
        named_by=("variant",),
        panels=panels_of(
            lambda records: analysis.complexity_values(records).assign(variant="b2"),
            ("stage", "variant"),
            plot_complexity,
            has_sizes,
        ),
        height=3.6,
        caption=(
            "One attention layer of PVTv2-B2 and B2-Li (P = 7): the paper's terms as lines, the traced layer as "
            "crosses. The traced reduction is hwc², R² below the paper's term; where R = 1, in stage 4, there is none. "
            "Linear projections are in neither, and linear SRA's reduction is in the table."
        ),
    ),
)
"""The kinds of figures of parameters and MACs."""
