r"""Our variants among timm's models: `timm.create_model("ablation_pvt_b2", arm="v1+ope", base="v2")`.

Importing this module registers `ablation_pvt_VARIANT` for each of `ablations.config.VARIANTS`. Their weights are those
of `ablations.model.build_model`, under the same keys; none are offered for download. A file of weights, in
`checkpoint_path` or in `pretrained_cfg_overlay={"file": FILE}` beside `pretrained=True`, may have timm's keys, the
released code's or transformers' too. timm has no place where a package
could announce its models, so its scripts (train.py, validate.py, benchmark.py) need the import before they start:

    python -c "import ablations.model.timm_registry, runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')" \
        train.py --data-dir DIR --model ablation_pvt_b0 --model-kwargs arm=v1+ope base=v2

For torchrun, which wants a file, put what stands between the quotation marks into one.
"""

import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import nn

from ablations.config import NUM_STAGES, PVT_V2, VARIANTS, PVTConfig, as_pair, build_config
from ablations.errors import InputError, pick, refuse
from ablations.model.checkpoint import rename_weights
from ablations.model.pvt import PVT

OPTIONS = (
    *("arm", "base", "drop_rate", "global_pool", "device", "dtype"),
    *(field.name for field in fields(PVTConfig) if field.name != "toggles"),
)
"""What `timm.create_model` takes for our variants beside what it takes for every model."""


def _build(
    variant: str,
    *,
    arm: str = PVT_V2,
    base: str = "published",
    drop_rate: float = 0.0,
    global_pool: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> PVT:
    """Returns the model of a variant, an arm and a base, with single fields of its config replaced by `overrides`."""
    for option in overrides:
        pick("option", option, OPTIONS)
    config = build_config(variant, arm, base, **overrides)
    with torch.device(device or torch.get_default_device()):
        model = PVT(config, drop_rate=drop_rate, global_pool=global_pool).to(dtype=dtype)
    model.register_load_state_dict_pre_hook(_take_other_keys)
    return model


def _take_other_keys(model: nn.Module, weights: dict[str, Any], prefix: str, *others: Any) -> None:
    """Renames, before they are loaded, weights under other keys than ours."""
    if not prefix:
        renamed = rename_weights(weights, model)
        weights.clear()
        weights.update(renamed)


def _entrypoint(variant: str) -> Callable[..., nn.Module]:
    name = _timm_name(variant)

    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        **options: Any,
    ) -> nn.Module:
        source = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
        if pretrained and sys._getframe(1).f_locals.get("checkpoint_path"):
            # timm loads that file itself, once the model is there, and tells entry points nothing of it.
            pretrained = False
        if pretrained and not (source.has_weights or source.state_dict):
            raise InputError(
                f"pretrained=True is not possible: {name} has no pretrained weights; allowed: False, or a file of "
                "weights in pretrained_cfg_overlay={'file': ...} or checkpoint_path"
            )
        if options.get("feature_cls", "getter") != "getter":  # the others would take a stage's tokens for its map
            raise refuse("feature_cls", options["feature_cls"], "'getter'")
        sized = _default_cfg(variant, **{key: value for key, value in options.items() if key in SIZED_BY})
        overlay = {"pool_size": sized["pool_size"]}
        if "img_size" in options:  # so that loaders give what the model is made for
            overlay["input_size"] = (source.input_size[0], *sized["input_size"][1:])
        overlay |= pretrained_cfg_overlay or {}
        return build_model_with_cfg(
            partial(_build, variant),
            name,
            pretrained,
            pretrained_cfg=pretrained_cfg,
            pretrained_cfg_overlay=overlay,
            pretrained_filter_fn=rename_weights,
            feature_cfg={"out_indices": tuple(range(NUM_STAGES)), "feature_cls": "getter"},
            **options,
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"Returns the variant {variant} as timm's tools take it; options are those of OPTIONS."
    return create


SIZED_BY = ("arm", "base", "img_size", "stem_stride", "pooling")
"""The options that decide the size of the input and of the last map."""


def _timm_name(variant: str) -> str:
    return f"ablation_pvt_{variant}"


def _default_cfg(variant: str, **overrides: Any) -> dict[str, Any]:
    """What timm's loaders and weight adaptation need to know: the paper's evaluation, and names of modules."""
    config = build_config(variant, **overrides)
    return {
        "input_size": (config.in_chans, *as_pair(config.img_size)),
        # With a class token features are tokens, as in timm's ViTs, and no map that could be pooled.
        "pool_size": None if config.num_prefix_tokens(NUM_STAGES - 1) else config.stage_sizes(config.img_size)[-1],
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
