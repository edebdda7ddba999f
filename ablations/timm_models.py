r"""Our variants among timm's models: `timm.create_model("ablation_pvt_b2", arm="v1+ope", frame="v2")`.

Importing this module registers `ablation_pvt_VARIANT` for each of `ablations.config.VARIANTS`. Their weights are those
of `ablations.model.build_model`, under the same keys; none are offered for download. timm has no place where a package
could announce its models, so its scripts (train.py, validate.py, benchmark.py) need the import before they start:

    python -c "import ablations.timm_models, runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')" \
        train.py --data-dir DIR --model ablation_pvt_b0 --model-kwargs arm=v1+ope frame=v2

For torchrun, which wants a file, put what stands between the quotation marks into one.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from itertools import accumulate
from operator import mul
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ablations.config import NUM_STAGES, TOGGLES, VARIANTS, PVTConfig, as_pair, build_config
from ablations.errors import InputError, pick, refuse
from ablations.model.pvt import PVT, AveragePooling, Block

POOLS = {"average": "avg", "class_token": "token"}
"""timm's `global_pool` for the rider `pooling`; a model without a head may also have none, which is an empty text."""

OPTIONS = (
    *("arm", "frame", "drop_rate", "global_pool", "device", "dtype"),
    *(field.name for field in fields(PVTConfig) if field.name not in TOGGLES.values()),
)
"""What `timm.create_model` takes for our variants beside what it takes for every model."""


class CheckpointedBlock(Block):
    """A block that, where it trains, keeps its input alone for the backward pass and computes the rest again."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x, size)
        return checkpoint(super().forward, x, size, use_reentrant=False)


class TimmPVT(PVT):
    """A PVT with what timm's tools ask of a model: the same modules, weights and results, and more methods.

    `drop_rate` is that of a dropout before the head. Arguments and results of the methods are timm's. Raises InputError
    for a rate that is none and for a `global_pool` that is not the config's `pooling`.
    """

    def __init__(self, config: PVTConfig, drop_rate: float = 0.0, global_pool: str | None = None) -> None:
        if not isinstance(drop_rate, int | float) or not 0 <= drop_rate < 1:
            raise refuse("drop_rate", drop_rate, "0 or more and less than 1")
        super().__init__(config)
        self.global_pool = _checked_pool(config, POOLS[config.pooling] if global_pool is None else global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.num_features = self.head_hidden_size = config.embed_dims[-1]
        reductions = accumulate(config.strides, mul)
        self.feature_info = [
            {"num_chs": dim, "reduction": reduction, "module": f"stages.{stage}"}
            for stage, (dim, reduction) in enumerate(zip(config.embed_dims, reductions, strict=True))
        ]

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    @property
    def in_chans(self) -> int:
        return self.config.in_chans

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """As PVT's; the features are not pooled where `global_pool` is empty."""
        x = self.head_drop(self.pooling(features) if self.global_pool else features)
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        intermediates_only: bool = False,
        *,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """As PVT's. `norm` and `stop_early` change nothing: maps come with their stage's norm, and all stages run."""
        if output_fmt != "NCHW":
            raise refuse("output_fmt", output_fmt, "'NCHW'")
        return super().forward_intermediates(x, self._stages_taken(indices), intermediates_only)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes the stages after the last of `indices`, and the head; returns the indices counted from 0.

        Norms belong to their stages and stay, whatever `prune_norm` says.
        """
        taken = self._stages_taken(indices)
        kept = max(taken) + 1
        if kept < NUM_STAGES:
            self.stages = self.stages[:kept]
            self.num_features = self.head_hidden_size = self.config.embed_dims[kept - 1]
            # A class token joins in the last stage only: what is left ends with a map.
            self.config, self.pooling = replace(self.config, pooling="average"), AveragePooling()
        if prune_head or kept < NUM_STAGES:
            self.reset_classifier(0, "")
        return taken

    def _stages_taken(self, indices: int | list[int] | None) -> list[int]:
        stages = range(len(self.stages))
        wanted = stages if indices is None else range(-indices, 0) if isinstance(indices, int) else indices
        if not len(wanted) or not all(-len(stages) <= index < len(stages) for index in wanted):
            raise refuse("indices", indices, f"some of {list(stages)}, as a list or as a number of the last")
        return [stages[index] for index in wanted]

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts a fresh head in the place of the old one, or none where `num_classes` is 0."""
        config = replace(self.config, num_classes=num_classes)
        self.global_pool = _checked_pool(config, self.global_pool if global_pool is None else global_pool)
        self.config = config
        weight = next(self.parameters())
        placed: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        self.head = nn.Linear(self.num_features, num_classes, **placed) if num_classes else nn.Identity()
        self._init_weights(self.head)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Has every block compute its inner activations again in the backward pass, which saves their memory."""
        for module in self.modules():
            if isinstance(module, Block):
                # A change of class leaves modules, names and weights as they are, which wrapping the block would not.
                module.__class__ = CheckpointedBlock if enable else Block

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Returns timm's patterns of the layers for its layer decay: the stem, each block, and what is left, the head.

        A later stage's patch embedding goes with its first block, a stage's norm with its last. `coarse` makes stages
        of the blocks.
        """
        blocks = [
            (r"^stages\.(\d+)\.(?:patch_embed|embeddings)\.", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)\.", None),
            (r"^stages\.(\d+)\.norm\.", (99999,)),  # timm's mark of what belongs to the group before it
        ]
        stem = r"^stages\.0\.(?:patch_embed|embeddings)\."
        return {"stem": stem, "blocks": r"^stages\.(\d+)\." if coarse else blocks}


def _checked_pool(config: PVTConfig, global_pool: str) -> str:
    own = POOLS[config.pooling]
    if global_pool == own or (global_pool == "" and not config.num_classes):
        return global_pool
    raise refuse(
        "global_pool", global_pool, f"{own!r}, which pooling={config.pooling!r} is, or '' where num_classes is 0"
    )


def _build(
    variant: str,
    *,
    arm: str = "v1+ope+cffn",
    frame: str = "published",
    drop_rate: float = 0.0,
    global_pool: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> TimmPVT:
    """Returns the model of a variant, an arm and a frame, with single fields of its config replaced by `overrides`."""
    for option in overrides:
        pick("option", option, OPTIONS)
    config = build_config(variant, arm, frame, **overrides)
    with torch.device(device or torch.get_default_device()):
        return TimmPVT(config, drop_rate, global_pool).to(dtype=dtype)


def _entrypoint(variant: str) -> Callable[..., nn.Module]:
    name = _timm_name(variant)

    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        **options: Any,
    ) -> nn.Module:
        source = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
        if pretrained and not (source.has_weights or source.state_dict):
            raise InputError(
                f"pretrained=True is not possible: {name} has no pretrained weights; allowed: False, or a file of "
                "weights in pretrained_cfg_overlay={'file': ...} or checkpoint_path"
            )
        if options.get("feature_cls", "getter") != "getter":  # the others would take a stage's tokens for its map
            raise refuse("feature_cls", options["feature_cls"], "'getter'")
        overlay = pretrained_cfg_overlay or {}
        if "img_size" in options:  # so that loaders give what the model is made for
            sized = _default_cfg(variant, img_size=options["img_size"])
            input_size = (source.input_size[0], *sized["input_size"][1:])
            overlay = {"input_size": input_size, "pool_size": sized["pool_size"], **overlay}
        return build_model_with_cfg(
            partial(_build, variant),
            name,
            pretrained,
            pretrained_cfg=pretrained_cfg,
            pretrained_cfg_overlay=overlay,
            feature_cfg={"out_indices": tuple(range(NUM_STAGES)), "feature_cls": "getter"},
            **options,
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Returns the variant {variant} as timm's tools take it; options are those of OPTIONS."
    return create


def _timm_name(variant: str) -> str:
    return f"ablation_pvt_{variant}"


def _default_cfg(variant: str, **overrides: Any) -> dict[str, Any]:
    """What timm's loaders and weight adaptation need to know: the paper's evaluation, and names of modules."""
    config = build_config(variant, **overrides)
    return {
        "input_size": (config.in_chans, *as_pair(config.img_size)),
        "pool_size": config.stage_sizes(config.img_size)[-1],
        "num_classes": config.num_classes,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stages.0.patch_embed.proj",
        "classifier": "head",
    }


# Read by `register_model` from the module of the function that it registers, under this name.
default_cfgs = generate_default_cfgs({_timm_name(variant): _default_cfg(variant) for variant in VARIANTS})

for _variant in VARIANTS:
    # timm lists the names that it registers in this module's `__all__`.
    globals()[_timm_name(_variant)] = register_model(_entrypoint(_variant))
