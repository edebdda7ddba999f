"""The models that PVT v2 is compared with: one entry each, from which all else follows. Needs no torch.

A model's source says where it is built: `pvt:VARIANT/ARM/BASE` is this project's, `baselines:NAME` one of
`ablations.baselines`, `timm:NAME` and `transformers:NAME` those libraries', and `FILE.py:FUNCTION` a user's. timm's
options may follow a question mark; `dynamic_img_size` resizes position embeddings, or pads windows, to fit any input.

To add a model, add an entry to BASELINES. One that no library keeps needs a `builder` too.
"""

from dataclasses import dataclass, field
from typing import Any

from ablations.config import PVT_V1, PVT_V2, PVT_V2_LI, VARIANT_ALIASES, Size

MODEL_SOURCES = ("timm", "transformers", "baselines")
"""What stands before the colon in the source of a model that is no arm and no user's."""


IMAGENET = ("table2_imagenet",)
DENSE = (*IMAGENET, "table3_coco", "table5_ade20k")
ALL_TABLES = (*DENSE, "table4_detectors")


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One model."""

    name: str
    """What the paper calls it, or its own paper does."""
    source: str
    tables: tuple[str, ...] = ()
    """The tables of the paper, of PAPER_TABLES, that have a row of it."""
    family: str | None = None
    """Of the families among which the article places PVT v2, if it is in one."""
    resolution: int = 224
    """The side in pixels of the images that it is made for."""
    in_figure4: bool = False
    """Whether the paper's Figure 4 compares PVT v2 with it."""
    instead: dict[str, str] = field(default_factory=dict)
    """The source of another model that has this name in one table."""
    builder: str | None = None
    """Of a source `baselines:NAME`, the function `module:function` that returns the model."""
    depths: tuple[int, ...] | None = None
    """Of a CvT from transformers, whose class has no names of sizes: the blocks of its stages."""


def _own(name: str, builder: str, **others: Any) -> Baseline:
    """A model that no library keeps, by its `module:function` in `ablations.baselines`."""
    source = f"baselines:{builder.partition(':')[2]}"
    return Baseline(name=name, source=source, builder=f"ablations.baselines.{builder}", **others)


def _resnet(depth: int, tables: tuple[str, ...], **others: Any) -> Baseline:
    # The ResNets of mmsegmentation have three convolutions of 3x3 for a stem.
    deep_stem = {"table5_ade20k": f"timm:resnet{depth}?stem_type=deep,stem_width=32"}
    instead = {table: source for table, source in deep_stem.items() if table in tables}
    return Baseline(name=f"ResNet{depth}", source=f"timm:resnet{depth}", tables=tables, instead=instead, **others)


BASELINES = (
    Baseline(name="ViT-Base/16", source="timm:vit_base_patch16_224", tables=IMAGENET, family="ViT"),
    Baseline(name="ViT-S/16", source="timm:vit_small_patch16_224?dynamic_img_size=True", family="ViT", in_figure4=True),
    Baseline(name="ViT-S/32", source="timm:vit_small_patch32_224?dynamic_img_size=True", family="ViT", in_figure4=True),
    *(
        Baseline(name=f"DeiT-{size}/16", source=f"timm:deit_{size.lower()}_patch16_224", tables=IMAGENET, family="DeiT")
        for size in ("Tiny", "Small", "Base")
    ),
    *(
        _own(f"T2T-ViT_t-{depth}", f"t2t_vit:t2t_vit_t_{depth}", tables=IMAGENET, family="T2T-ViT")
        for depth in (14, 19, 24)
    ),
    Baseline(name="TNT-S", source="timm:tnt_s_patch16_224", tables=IMAGENET, family="TNT"),
    Baseline(name="TNT-B", source="timm:tnt_b_patch16_224", tables=IMAGENET, family="TNT"),
    _own("CPVT-Ti", "cpvt:cpvt_ti", family="CPVT"),
    _own("CPVT-S", "cpvt:cpvt_s", family="CPVT"),
    Baseline(name="CrossViT-S", source="timm:crossvit_small_240", family="CrossViT", resolution=240),
    Baseline(name="CrossViT-15", source="timm:crossvit_15_240", family="CrossViT", resolution=240),
    _own("LocalViT-T", "local_vit:localvit_t", family="LocalViT"),
    _own("LocalViT-S", "local_vit:localvit_s", family="LocalViT"),
    *(
        Baseline(
            name=f"PVTv1-{alias.capitalize()}",
            source=f"pvt:{variant}/{PVT_V1}/published",
            tables=DENSE,
            family="PVT v1",
        )
        for alias, variant in VARIANT_ALIASES.items()
    ),
    Baseline(
        name="Swin-T",
        source="timm:swin_tiny_patch4_window7_224?dynamic_img_size=True",
        tables=(*IMAGENET, "table4_detectors"),
        family="Swin",
    ),
    Baseline(name="Swin-S", source="timm:swin_small_patch4_window7_224", tables=IMAGENET, family="Swin"),
    Baseline(name="Swin-B", source="timm:swin_base_patch4_window7_224", tables=IMAGENET, family="Swin"),
    # Wu et al. 2021, Table 1.
    Baseline(name="CvT-13", source="transformers:cvt-13", depths=(1, 2, 10), tables=IMAGENET, family="CvT"),
    Baseline(name="CvT-21", source="transformers:cvt-21", depths=(1, 4, 16), tables=IMAGENET, family="CvT"),
    Baseline(name="CoaT-Lite Small", source="timm:coat_lite_small", tables=IMAGENET, family="CoaT"),
    Baseline(name="LeViT-256", source="timm:levit_256", family="LeViT"),
    Baseline(name="LeViT-384", source="timm:levit_384", family="LeViT"),
    Baseline(name="Twins-SVT-S", source="timm:twins_svt_small", tables=IMAGENET, family="Twins"),
    Baseline(name="Twins-SVT-B", source="timm:twins_svt_base", tables=IMAGENET, family="Twins"),
    Baseline(name="Twins-SVT-L", source="timm:twins_svt_large", tables=IMAGENET, family="Twins"),
    _resnet(18, DENSE),
    _resnet(50, ALL_TABLES, in_figure4=True),
    _resnet(101, DENSE),
    _resnet(152, IMAGENET),
    Baseline(name="ResNeXt50-32x4d", source="timm:resnext50_32x4d", tables=IMAGENET),
    Baseline(name="ResNeXt101-32x4d", source="timm:resnext101_32x4d", tables=DENSE),
    Baseline(name="ResNeXt101-64x4d", source="timm:resnext101_64x4d", tables=DENSE),
    Baseline(name="RegNetY-4G", source="timm:regnety_040", tables=IMAGENET),
    Baseline(name="RegNetY-8G", source="timm:regnety_080", tables=IMAGENET),
    Baseline(name="RegNetY-16G", source="timm:regnety_160", tables=IMAGENET),
    *(
        Baseline(
            name=f"PVTv2-B{size}", source=f"pvt:b{size}/{PVT_V2}/published", tables=ALL_TABLES if size == 2 else DENSE
        )
        for size in range(6)
    ),
    Baseline(name="PVTv2-B2-Li", source=f"pvt:b2/{PVT_V2_LI}/published", tables=ALL_TABLES),
)
"""Every model of the paper's tables, its Figure 4 and the article's families. Families stand in their order here."""

MODELS = {model.name: model.source for model in BASELINES}
"""The source of every model by its name."""

OWN_RESOLUTIONS = {model.name: model.resolution for model in BASELINES if model.resolution != 224}
"""The side in pixels of the inputs of models that take others than 224."""

SCALED = tuple(model.name for model in BASELINES if model.in_figure4)
"""The baselines of the paper's Figure 4."""

FAMILIES = {
    family: tuple(model.name for model in BASELINES if model.family == family)
    for family in dict.fromkeys(model.family for model in BASELINES)
    if family
}
"""The backbones among which the article places PVT v2, by family."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper whose rows are backbones."""

    heads: tuple[str, ...]
    resolution: Size
    """Pixels of the input."""
    models: dict[str, str]
    """The source of each row's backbone, by the paper's name."""


PAPER_TABLES = {
    name: PaperTable(
        heads=heads,
        resolution=resolution,
        models={model.name: model.instead.get(name, model.source) for model in BASELINES if name in model.tables},
    )
    for name, heads, resolution in (
        ("table2_imagenet", ("classifier",), 224),
        ("table3_coco", ("retinanet", "mask_rcnn"), (800, 1280)),
        ("table4_detectors", ("fcos",), (800, 1280)),
        ("table5_ade20k", ("semantic_fpn",), 512),
    )
}
"""The tables that compare backbones. Of Table 4's detectors only ATSS, whose layers are those of FCOS."""

ARMS_OF_LIBRARIES = {
    "timm": {PVT_V2: "pvt_v2_b{}", PVT_V2_LI: "pvt_v2_b{}?linear=True"},
    "transformers": {PVT_V1: "pvt_b{}", PVT_V2: "pvt_v2_b{}", PVT_V2_LI: "pvt_v2_b{}_linear"},
}
"""What libraries call the arms that they have too, as published, in sizes 0 to 5. timm's attend by the fused kernel
unless timm is told otherwise, transformers' explicitly, and transformers' v1 takes inputs of 224 px and no others."""

EQUAL_MODELS = {
    library: {(f"b{size}", arm): f"{library}:{name.format(size)}" for arm, name in names.items() for size in range(6)}
    for library, names in ARMS_OF_LIBRARIES.items()
}
"""The source of each library's model that equals a variant and an arm as published."""

GROUPS: dict[str, tuple[str, ...]] = {
    **{name: tuple(table.models.values()) for name, table in PAPER_TABLES.items()},
    "figure4": tuple(MODELS[name] for name in SCALED),
    "others": tuple(model.source for model in BASELINES if not model.tables and model.name not in OWN_RESOLUTIONS),
    "crossvit": tuple(MODELS[name] for name in OWN_RESOLUTIONS),
    **{
        f"libraries_{name}_{variant}": tuple(
            models[variant, arm] for arm in arms for models in EQUAL_MODELS.values() if (variant, arm) in models
        )
        for name, arms in (("v1", (PVT_V1,)), ("v2", (PVT_V2, PVT_V2_LI)))
        for variant in ("b0", "b2")
    },
    "memory": tuple(MODELS[name] for name in ("ResNet50", "ViT-S/16", "Swin-T")),
}
"""Names that study files have for several models."""
