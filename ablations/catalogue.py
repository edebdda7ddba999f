"""The models that PVT v2 is compared with: what the paper calls them, and where each is built. Needs no torch.

A model's name says its source: `pvt:VARIANT/ARM/BASE` is this project's, `baselines:NAME` one of `ablations.baselines`,
`timm:NAME` and `transformers:NAME` those libraries', and `FILE.py:FUNCTION` a user's. timm's options may follow a
question mark; the one here has position embeddings resized, or windows padded, to any input.
"""

from dataclasses import dataclass, field

from ablations.config import PVT_V1, PVT_V2, PVT_V2_LI

MODEL_SOURCES = ("timm", "transformers", "baselines")
"""Where models come from whose name is `SOURCE:NAME`, beside `pvt:`."""

PAPER_MODELS = {
    **{
        f"PVTv1-{name}": f"pvt:{shape}/v1/published"
        for name, shape in (("Tiny", "b1"), ("Small", "b2"), ("Medium", "b3"), ("Large", "b4"))
    },
    **{f"PVTv2-B{size}": f"pvt:b{size}/v1+ope+cffn/published" for size in range(6)},
    "PVTv2-B2-Li": "pvt:b2/v1+ope+cffn+lsra/published",
    **{f"ResNet{depth}": f"timm:resnet{depth}" for depth in (18, 50, 101, 152)},
    "ResNeXt50-32x4d": "timm:resnext50_32x4d",
    "ResNeXt101-32x4d": "timm:resnext101_32x4d",
    "ResNeXt101-64x4d": "timm:resnext101_64x4d",
    "RegNetY-4G": "timm:regnety_040",
    "RegNetY-8G": "timm:regnety_080",
    "RegNetY-16G": "timm:regnety_160",
    "ViT-Base/16": "timm:vit_base_patch16_224",
    **{f"DeiT-{size}/16": f"timm:deit_{size.lower()}_patch16_224" for size in ("Tiny", "Small", "Base")},
    **{f"T2T-ViT_t-{depth}": f"baselines:t2t_vit_t_{depth}" for depth in (14, 19, 24)},
    **{f"TNT-{size}": f"timm:tnt_{size.lower()}_patch16_224" for size in ("S", "B")},
    "Swin-T": "timm:swin_tiny_patch4_window7_224?dynamic_img_size=True",
    "Swin-S": "timm:swin_small_patch4_window7_224",
    "Swin-B": "timm:swin_base_patch4_window7_224",
    "CvT-13": "transformers:cvt-13",
    "CvT-21": "transformers:cvt-21",
    "CoaT-Lite Small": "timm:coat_lite_small",
    "Twins-SVT-S": "timm:twins_svt_small",
    "Twins-SVT-B": "timm:twins_svt_base",
    "Twins-SVT-L": "timm:twins_svt_large",
}
"""The paper's name of a model in its tables, and ours."""

OTHER_BASELINES = {
    "ViT-S/16": "timm:vit_small_patch16_224?dynamic_img_size=True",
    "ViT-S/32": "timm:vit_small_patch32_224?dynamic_img_size=True",
    "CPVT-Ti": "baselines:cpvt_ti",
    "CPVT-S": "baselines:cpvt_s",
    "LocalViT-T": "baselines:localvit_t",
    "LocalViT-S": "baselines:localvit_s",
    "CrossViT-S": "timm:crossvit_small_240",
    "CrossViT-15": "timm:crossvit_15_240",
    "LeViT-256": "timm:levit_256",
    "LeViT-384": "timm:levit_384",
}
"""Models that the paper's Table 2 leaves out: of its Figure 4, and of families that the article names."""

MODELS = PAPER_MODELS | OTHER_BASELINES

OWN_RESOLUTIONS = {"CrossViT-S": 240, "CrossViT-15": 240}
"""The side in pixels of the inputs of models that take others than 224."""

SCALED = ("ViT-S/16", "ViT-S/32", "ResNet50")
"""The baselines of the paper's Figure 4."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper whose rows are backbones: with which heads, and at which input in pixels (height, width)."""

    names: tuple[str, ...]
    heads: tuple[str, ...]
    resolution: int | tuple[int, int]
    instead: dict[str, str] = field(default_factory=dict)
    """Models that are others here than under the same name elsewhere."""

    @property
    def models(self) -> dict[str, str]:
        """The model of each name."""
        return {name: self.instead.get(name, PAPER_MODELS[name]) for name in self.names}


_DENSE = (
    *("PVTv2-B0", "ResNet18", "PVTv1-Tiny", "PVTv2-B1", "ResNet50", "PVTv1-Small", "PVTv2-B2-Li", "PVTv2-B2"),
    *("ResNet101", "ResNeXt101-32x4d", "PVTv1-Medium", "PVTv2-B3", "PVTv1-Large", "PVTv2-B4"),
    *("ResNeXt101-64x4d", "PVTv2-B5"),
)

# The ResNets of mmsegmentation have three convolutions of 3x3 for a stem.
_DEEP_STEMS = {f"ResNet{depth}": f"timm:resnet{depth}?stem_type=deep,stem_width=32" for depth in (18, 50, 101)}

PAPER_TABLES = {
    "table2_imagenet": PaperTable(names=tuple(PAPER_MODELS), heads=("classifier",), resolution=224),
    "table3_coco": PaperTable(names=_DENSE, heads=("retinanet", "mask_rcnn"), resolution=(800, 1280)),
    "table4_detectors": PaperTable(
        names=("ResNet50", "Swin-T", "PVTv2-B2-Li", "PVTv2-B2"), heads=("fcos",), resolution=(800, 1280)
    ),
    "table5_ade20k": PaperTable(names=_DENSE, heads=("semantic_fpn",), resolution=512, instead=_DEEP_STEMS),
}
"""The tables of the paper that compare backbones. Of Table 4's detectors only ATSS, whose layers are those of FCOS."""

ARMS_OF_LIBRARIES = {
    "timm": ("v1+ope+cffn", "v1+ope+cffn+lsra"),
    "transformers": ("v1", "v1+ope+cffn", "v1+ope+cffn+lsra"),
}
"""The arms, as published, that libraries have too; transformers' v1 takes inputs of 224 px and no others."""

EQUAL_MODELS = {
    library: {(f"b{size}", arm): f"{library}:{name.format(size)}" for arm, name in names.items() for size in range(6)}
    for library, names in {
        "timm": {"v1+ope+cffn": "pvt_v2_b{}", "v1+ope+cffn+lsra": "pvt_v2_b{}?linear=True"},
        "transformers": {"v1": "pvt_b{}", "v1+ope+cffn": "pvt_v2_b{}", "v1+ope+cffn+lsra": "pvt_v2_b{}_linear"},
    }.items()
}
"""The models by name that libraries have of a variant and an arm as published. transformers' attend explicitly, timm's
by the fused kernel unless timm is told otherwise."""

FAMILIES = {
    "ViT": ("ViT-Base/16", "ViT-S/16", "ViT-S/32"),
    "DeiT": ("DeiT-Tiny/16", "DeiT-Small/16", "DeiT-Base/16"),
    "T2T-ViT": ("T2T-ViT_t-14", "T2T-ViT_t-19", "T2T-ViT_t-24"),
    "TNT": ("TNT-S", "TNT-B"),
    "CPVT": ("CPVT-Ti", "CPVT-S"),
    "CrossViT": ("CrossViT-S", "CrossViT-15"),
    "LocalViT": ("LocalViT-T", "LocalViT-S"),
    "PVT v1": ("PVTv1-Tiny", "PVTv1-Small", "PVTv1-Medium", "PVTv1-Large"),
    "Swin": ("Swin-T", "Swin-S", "Swin-B"),
    "CvT": ("CvT-13", "CvT-21"),
    "CoaT": ("CoaT-Lite Small",),
    "LeViT": ("LeViT-256", "LeViT-384"),
    "Twins": ("Twins-SVT-S", "Twins-SVT-B", "Twins-SVT-L"),
}
"""The backbones among which the article places PVT v2, by family."""

_V2 = (PVT_V2, PVT_V2_LI)

GROUPS: dict[str, tuple[str, ...]] = {
    **{name: tuple(table.models.values()) for name, table in PAPER_TABLES.items()},
    "figure4": tuple(MODELS[name] for name in SCALED),
    "others": tuple(model for name, model in OTHER_BASELINES.items() if name not in OWN_RESOLUTIONS),
    "crossvit": tuple(MODELS[name] for name in OWN_RESOLUTIONS),
    **{
        f"libraries_{name}_{variant}": tuple(
            models[variant, arm] for arm in arms for models in EQUAL_MODELS.values() if (variant, arm) in models
        )
        for name, arms in (("v1", (PVT_V1,)), ("v2", _V2))
        for variant in ("b0", "b2")
    },
    "memory": tuple(MODELS[name] for name in ("ResNet50", "ViT-S/16", "Swin-T")),
}
"""Names that study files have for several models."""
