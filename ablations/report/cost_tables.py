"""The tables of cost that go beyond one comparison of arms: the paper's, other backbones', growth, complexity."""

from collections.abc import Callable
from functools import partial

import pandas as pd

from ablations.analysis.paper import (
    backbone_values,
    model_values,
    operator_values,
    paper_values,
    table6_values,
)
from ablations.records import METRICS
from ablations.report.growth import (
    PARTS,
    POOL_SIZES,
    at_both_ends,
    complexity_values,
    crossover_values,
    part_values,
    scaling_values,
)
from ablations.report.tables import (
    NOTHING,
    Column,
    Table,
    four_figures,
    markdown_rows,
    metric_text,
    show_metric,
    show_plain,
)

NAME = Column("Model", lambda row: row["name"])
GFLOPS = "GFLOPs (MACs)"
UNIT = "What the paper calls GFLOPs are MACs, those of convolutions and matrix products; so are ours."
IMAGE = Column("Input, px", lambda row: row["resolution"])


def _text(column: str) -> Callable[[pd.Series], str]:
    return lambda row: str(row[column]) if pd.notna(row.get(column)) and row[column] else NOTHING


def _share(part: str) -> Callable[[pd.Series], str]:
    return lambda row: f"{four_figures(row[part] / 1e9)} ({100 * row[part] / row['macs']:.1f} %)"


PARAMS_BESIDE = (
    Column(METRICS["params"].title, show_metric("params")),
    Column("paper's", show_plain("paper_params_m")),
    Column("difference, %", show_plain("params_difference_percent", "+z.1f")),
)
MACS_BESIDE = (
    Column(GFLOPS, show_metric("macs")),
    Column("paper's", show_plain("paper_macs_g")),
    Column("difference, %", show_plain("macs_difference_percent", "+z.1f")),
)

COST_TABLES = (
    Table(
        name="table2_imagenet",
        measurement="cost",
        title="The paper's Table 2: backbones on ImageNet",
        values=partial(paper_values, table="table2_imagenet"),
        conditions=("head", "resolution"),
        titled_by=("head", "resolution"),
        rows_by="name",
        columns=(
            NAME,
            *PARAMS_BESIDE,
            *MACS_BESIDE,
            Column("Paper's top-1, %", show_plain("paper_top1_percent")),
            Column("Where the print differs", _text("note")),
        ),
        about=(
            f"Parameters and MACs of one image, counted, beside the paper's print. {UNIT} A cell that does "
            "not round to the print has a note, and where a note names another way of counting, its result in "
            "brackets. Nothing was trained: top-1 is the paper's."
        ),
    ),
    Table(
        name="table3_coco",
        measurement="cost",
        title="The paper's Table 3: detectors on COCO",
        values=partial(paper_values, table="table3_coco"),
        conditions=("head", "resolution"),
        titled_by=("head",),
        rows_by="name",
        columns=(NAME, *PARAMS_BESIDE, Column(f"{GFLOPS}, 800x1280", show_metric("macs"))),
        about=(
            "torchvision's RetinaNet and Mask R-CNN around each backbone, set up as the paper's: 80 classes, a pyramid "
            "of 256 channels, RetinaNet's from C3 with P6 from C5. The paper prints parameters alone. Its tool counts "
            "trainable ones, and its ResNets and ResNeXts were trained with the stem and the first stage frozen: so "
            "ours have 0.2 to 0.4 M more there before rounding. Mask R-CNN's MACs depend on its proposals and "
            "are left out."
        ),
    ),
    Table(
        name="table4_detectors",
        measurement="cost",
        title="The paper's Table 4: other detectors on COCO",
        values=partial(paper_values, table="table4_detectors"),
        conditions=("resolution",),
        titled_by=("resolution",),
        rows_by="row",
        columns=(
            Column("Detector", lambda row: row["detector"]),
            Column("Backbone", lambda row: row["name"]),
            Column("Ours is", lambda row: "torchvision's FCOS" if row["head"] else "quoted, not built"),
            Column(METRICS["params"].title, show_metric("params")),
            Column("paper's", show_plain("paper_params_m", ".0f")),
            Column("difference, %", show_plain("params_difference_percent", "+z.1f")),
            Column(GFLOPS, show_metric("macs")),
            Column("paper's", show_plain("paper_macs_g", ".0f")),
            Column("difference, %", show_plain("macs_difference_percent", "+z.1f")),
        ),
        about=(
            "ATSS has the layers of FCOS and differs in how training assigns samples; torchvision's FCOS stands for "
            f"it. No well-kept library has the others: their rows are quoted. The paper prints whole numbers. {UNIT}"
        ),
    ),
    Table(
        name="table5_ade20k",
        measurement="cost",
        title="The paper's Table 5: Semantic FPN on ADE20K",
        values=partial(paper_values, table="table5_ade20k"),
        conditions=("head", "resolution"),
        titled_by=("head", "resolution"),
        rows_by="name",
        columns=(NAME, *PARAMS_BESIDE, *MACS_BESIDE),
        about=(
            "Semantic FPN (the semantic branch of Panoptic FPN) with 150 classes around each backbone. The paper's "
            f"ResNets have three convolutions for a stem, and so have these. {UNIT} The paper's counter "
            "adds something for layers that are no products, which no single rule of ours gives for all rows; all "
            "differences are under half a percent."
        ),
    ),
    Table(
        name="table6_ablation",
        measurement="cost",
        title="The paper's Table 6: the ablation, in RetinaNet",
        values=table6_values,
        conditions=("variant", "base", "head", "resolution"),
        titled_by=("variant", "base", "head", "resolution"),
        columns=(
            Column("Row of the paper", _text("paper_setting")),
            Column("Arm", lambda row: row["arm"]),
            *PARAMS_BESIDE,
            Column("step", show_plain("params_step", "+.2f", 1e6)),
            Column("paper's step", show_plain("paper_params_step_m", "+.1f")),
            *MACS_BESIDE,
            Column("step", show_plain("macs_step", "+.2f", 1e9)),
            Column("paper's step", show_plain("paper_macs_step_g", "+.1f")),
        ),
        about=(
            "RetinaNet with 80 classes on b2 at 800x1280 px. The paper has four rows, with v1's confounders in the first "
            "and v2's in the others (base published): its step to + OPE holds the change of confounders too. As in the "
            "released detectors there is no class token in any base. The other arms and bases are ours alone. Steps "
            "are differences to the row of the paper above; the paper's are "
            f"between its printed values. {UNIT}"
        ),
    ),
    Table(
        name="backbones",
        measurement="cost",
        title="The backbones that the article names",
        values=backbone_values,
        conditions=("head",),
        titled_by=("head",),
        rows_by="name",
        columns=(
            Column("Family", lambda row: row["family"]),
            NAME,
            IMAGE,
            Column(METRICS["params"].title, show_metric("params")),
            Column(METRICS["macs"].title, show_metric("macs")),
            Column("Built as", lambda row: f"`{row['model']}`"),
        ),
        about="Counted, not trained; each at the size of input that its paper gives.",
    ),
    Table(
        name="models",
        measurement="cost",
        title="Models by name",
        values=model_values,
        conditions=("head",),
        titled_by=("head",),
        rows_by="model",
        columns=(
            Column("Model", lambda row: f"`{row['model']}`"),
            Column(METRICS["params"].title, show_metric("params")),
        ),
        spread=(Column("{} px: " + METRICS["macs"].unit, show_metric("macs")),),
        about=(
            "One image's forward pass, counted by tracing the model's operators on tensors without numbers. A dash "
            "is a size that was not counted, or that the model refuses: then its reason stands below."
        ),
        note=lambda values: _refusals(values),
    ),
    Table(
        name="scaling",
        measurement="cost",
        title="MACs against the size of the input (the paper's Figure 4)",
        values=scaling_values,
        conditions=("head", "sizes", "last_sizes"),
        titled_by=("head", "sizes"),
        rows_by="name",
        columns=(
            NAME,
            Column("Exponent", show_plain("exponent", ".3f")),
            Column("at the end", show_plain("last_exponent", ".3f")),
        ),
        spread=(Column("{} px: G", show_metric("macs")),),
        about=(
            "The exponent is the slope of the logarithm of MACs against that of pixels, by least squares over "
            "all sizes; at the end, between the two largest. 1 is linear in pixels, 2 is quadratic. Arms are those of "
            "b2 in base published."
        ),
    ),
    Table(
        name="crossover",
        measurement="cost",
        title="Where linear SRA starts to pay",
        values=crossover_values,
        conditions=("head",),
        titled_by=("head",),
        rows_by="variant",
        columns=(
            Column("Variant", lambda row: row["variant"]),
            *(Column(f"P = {size}", show_plain(f"crossover_px_p{size}", ".0f")) for size in POOL_SIZES),
        ),
        about=(
            "The side in pixels from which on a PVT v2 with linear SRA (v1+ope+cffn+lsra) takes fewer MACs "
            "than with SRA (v1+ope+cffn): in closed form, over squares of multiples of 32 px up to 2048. Fewer "
            "MACs are not a shorter time."
        ),
    ),
    Table(
        name="complexity",
        measurement="cost",
        title="The article's formulas beside the traced layer",
        values=lambda records: at_both_ends(complexity_values(records)),
        conditions=("head", "resolution"),
        titled_by=("resolution",),
        rows_by="stage",
        columns=(
            Column("Stage", lambda row: str(row["stage"])),
            Column("h x w", lambda row: f"{row['height']} x {row['width']}"),
            Column("c", lambda row: str(row["channels"])),
            Column("R", lambda row: str(row["sr_ratio"])),
            Column("SRA: 2h²w²c/R²", show_plain("paper_sra_products", ",.2f", 1e6)),
            Column("SRA, traced products", show_plain("sra_products", ",.2f", 1e6)),
            Column("SRA: hwc²R²", show_plain("paper_sra_reduction", ",.2f", 1e6)),
            Column("SRA, traced reduction", show_plain("sra_reduction", ",.2f", 1e6)),
            Column("Linear SRA: 2hwP²c", show_plain("paper_linear_sra_products", ",.2f", 1e6)),
            Column("linear SRA, traced products", show_plain("linear_sra_products", ",.2f", 1e6)),
            Column("linear SRA, traced reduction", show_plain("linear_sra_reduction", ",.2f", 1e6)),
        ),
        about=(
            "Million MACs of one attention layer of PVTv2-B2 and B2-Li (P = 7), without its linear "
            "projections, which the formulas leave out. The first term of SRA is exact where R divides the map, and "
            "too large where it does not. The second, hwc²R², is R² times too large: a convolution of R x R and stride "
            "R has R²c² weights at hw / R² places, which makes hwc², as traced; R = 1 has no such convolution. "
            "Linear SRA's term is exact; its 1 x 1 convolution after the pool, P²c², is not in it."
        ),
    ),
    Table(
        name="parts",
        measurement="cost",
        title="What the MACs are made of",
        values=lambda records: at_both_ends(part_values(records)),
        conditions=("variant", "base", "head", "resolution"),
        titled_by=("variant", "base", "resolution"),
        columns=(
            Column("Arm", lambda row: row["arm"]),
            *(Column(part.capitalize(), _share(part)) for part in PARTS),
            Column(METRICS["macs"].title, show_metric("macs")),
        ),
        about="MACs by part of the network, in G, and the share of the whole; counted module by module.",
    ),
    Table(
        name="operators",
        measurement="cost",
        title="MACs by operator",
        values=operator_values,
        conditions=("head",),
        titled_by=("head",),
        rows_by="model",
        columns=(
            NAME,
            IMAGE,
            Column(METRICS["macs"].title, show_metric("macs")),
            Column("convolutions", show_plain("macs_convolution", ",.3f", 1e9)),
            Column("linear layers", show_plain("macs_linear", ",.3f", 1e9)),
            Column("products in batches", show_plain("macs_batched_product", ",.3f", 1e9)),
            Column("Values of layer norms, M", show_plain("values_layer_norm", ",.2f", 1e6)),
            Column("batch norms", show_plain("values_batch_norm", ",.2f", 1e6)),
            Column("softmax", show_plain("values_softmax", ",.2f", 1e6)),
            Column("ReLU", show_plain("values_relu", ",.2f", 1e6)),
            Column("other activations", show_plain("values_activation", ",.2f", 1e6)),
            Column("into pools", show_plain("values_pool", ",.2f", 1e6)),
        ),
        about=(
            "Products in batches are attention's, and linear layers that a model applies window by window. Norms, "
            "activations and pools count as no MACs here and as some elsewhere: so many values they look at."
        ),
    ),
)
"""The tables of cost, in the report's order."""


def _refusals(values: pd.DataFrame) -> str:
    refused = values[values["refused"].notna()]
    sentences = []
    for reason, rows in refused.groupby("refused", sort=False):
        sizes = [f"`{row['model']}` at {row['resolution']} px" for _, row in rows.iterrows()]
        sentences.append(f"{', '.join(sizes)}: {str(reason).rstrip('.')}.")
    return " ".join(sentences)


def render_breakdown(records: pd.DataFrame) -> str:
    """Returns what each module of each counted cell adds by itself, the most MACs first, as Markdown."""
    sections = []
    for _, record in records[records["measurement"] == "cost"].iterrows():
        title = f"## {record['model']}, {record['head']}, {record['resolution']} px"
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
            sections.append(f"{title}\n\n{markdown_rows(lines)}")
    return "\n\n".join(sections)
