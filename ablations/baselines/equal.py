"""Equal pairs: an arm's model and the same model as a library has it, with the same weights and the same numbers out.

timm has PVT v2 and v2-Li, transformers has these and PVT v1. What their code fixes decides which configs have an
equal: `check_has_baseline` tells before anything is built.
"""

from typing import Any

import timm.models.pvt_v2 as timm_pvt
import torch
from torch import Tensor, nn

from ablations.baselines.registry import ARMS_OF_LIBRARIES
from ablations.config import CONFOUNDERS, PVT_V1, PVTConfig, Size, arm_name, as_pair, base_confounders
from ablations.errors import pick, refuse
from ablations.model import PVT
from ablations.model.checkpoint import TIMM, TRANSFORMERS_V1, TRANSFORMERS_V2, Format

ATTENTION = {"timm": "fused", "transformers": "explicit"}
"""How the libraries' models attend, whatever our own does: timm's faster way, and transformers' only one."""

TOLERANCE = 1e-4
"""Of the largest output. Rounding alone makes about 1e-6 in float32, another LayerNorm eps in one place 5e-6."""


def check_has_baseline(config: PVTConfig, library: str, resolution: Size) -> None:
    """Raises InputError where a library has no model that does what `config`'s does at `resolution` in pixels."""
    arms = ARMS_OF_LIBRARIES[pick("library", library, ARMS_OF_LIBRARIES)]
    arm = arm_name(config.toggles)
    if arm not in arms:
        raise refuse("arm", arm, f"{', '.join(arms)}, which {library} has")
    published = base_confounders("published", arm)
    for field in CONFOUNDERS:
        if field != "conv_init" and getattr(config, field) != published[field]:  # weights are given, not drawn
            raise refuse(field, getattr(config, field), f"{published[field]!r} beside {library}, as published")
    config.check_size("resolution", resolution)
    if config.position_embedding == "learned":
        _check_position_grids(config, library, resolution)


def build_equal(model: PVT, library: str, channels_last: bool = False) -> nn.Module:
    """Returns the library's model of `model`'s config with a copy of its weights, on its device, in its dtype and mode.

    Images (B, in_chans, H, W) to logits (B, num_classes). It attends as ATTENTION says. What differs from the
    library's models without making another of them is set on its own layers: timm's first stride and both libraries'
    P, for which their constructors have no argument, and transformers' LayerNorm eps, 1e-5 where the released code has
    it. `channels_last` lays its convolutions' weights out so; pass its images in the same layout. Raises InputError
    as `check_has_baseline` does at the config's `img_size`.
    """
    config = model.config
    check_has_baseline(config, library, config.img_size)
    with torch.device("cpu"):  # timm computes drop-path rates from tensors, which must hold numbers
        baseline = build_timm(config) if library == "timm" else build_transformers(config)
    for module in baseline.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d):  # linear SRA's, and no other
            module.output_size = config.pool_size
    baseline.to(next(model.parameters()))
    baseline.load_state_dict(_renamed_weights(model, baseline, _weight_format(library, arm_name(config.toggles))))
    if channels_last:
        baseline.to(memory_format=torch.channels_last)
    classifier = baseline if library == "timm" else Logits(baseline)
    return classifier.train(model.training)


@torch.no_grad()
def check_equal(own: nn.Module, baseline: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Returns the largest difference of two models' outputs, as a share of the largest output of `baseline`.

    Both are put into evaluation mode and given the same random images (B, C, H, W), on `own`'s device and in its
    dtype. Raises RuntimeError where the difference is over TOLERANCE, which on CUDA TF32 alone may be: see
    `ablations.measure.environment.use_full_float32`.
    """
    images = torch.randn(input_shape, generator=torch.Generator().manual_seed(0)).to(next(own.parameters()))
    expected = baseline.eval()(images)
    actual = own.eval()(images)
    if actual.shape != expected.shape:
        raise RuntimeError(f"outputs are {tuple(actual.shape)} and the baseline's {tuple(expected.shape)}")
    difference = float((actual - expected).abs().max() / expected.abs().max())
    if not difference <= TOLERANCE:  # nan is neither
        raise RuntimeError(
            f"outputs differ from the baseline's by {difference:.1e} of the largest, over {TOLERANCE:.0e}"
        )
    return difference


class Logits(nn.Module):
    """A classifier of transformers' that returns its logits (B, num_classes) alone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x).logits


def _check_position_grids(config: PVTConfig, library: str, resolution: Size) -> None:
    """Raises InputError where the grids of learned position embeddings are others than transformers would have."""
    height, width = as_pair(config.img_size)
    if height != width:
        raise refuse("img_size", config.img_size, f"a square beside {library}, with position embeddings")
    if config.stem_stride != 4:
        raise refuse("stem_stride", config.stem_stride, f"4 beside {library}, with position embeddings")
    if as_pair(resolution) != (height, width):
        allowed = f"{height} beside {library}, whose position embeddings fit img_size and no other size"
        raise refuse("resolution", resolution, allowed)


def build_timm(config: PVTConfig) -> Any:
    """Returns timm's classifier of a config that has one, with fresh weights, but for P: that is always 7."""
    baseline: Any = timm_pvt.PyramidVisionTransformerV2(
        **_shared_arguments(config),
        embed_dims=config.embed_dims,
        num_heads=config.num_heads,
        sr_ratios=config.sr_ratios,
        num_classes=config.num_classes,
        in_chans=config.in_chans,
        linear="lsra" in config.toggles,
    )
    baseline.patch_embed = timm_pvt.OverlapPatchEmbed(
        patch_size=2 * config.stem_stride - 1,
        stride=config.stem_stride,
        in_chans=config.in_chans,
        embed_dim=config.embed_dims[0],
    )
    for stage in baseline.stages:
        for block in stage.blocks:
            block.attn.fused_attn = True  # else an environment variable decides
    return baseline


def build_transformers(config: PVTConfig) -> nn.Module:
    """Returns transformers' classifier of a config that has one, with fresh weights, but for P: that is always 7."""
    from transformers import (  # takes seconds
        PvtConfig,
        PvtForImageClassification,
        PvtV2Config,
        PvtV2ForImageClassification,
    )

    arguments = _shared_arguments(config) | {
        "hidden_sizes": config.embed_dims,
        "num_attention_heads": config.num_heads,
        "num_channels": config.in_chans,
        "num_labels": config.num_classes,
        "strides": config.strides,
    }
    if "ope" in config.toggles:
        patch_sizes = tuple(2 * stride - 1 for stride in config.strides)
        arguments |= {
            "sr_ratios": config.sr_ratios,
            "linear_attention": "lsra" in config.toggles,
            "patch_sizes": patch_sizes,
        }
        baseline: nn.Module = PvtV2ForImageClassification(PvtV2Config(**arguments))
    else:
        arguments |= {"sequence_reduction_ratios": config.sr_ratios, "patch_sizes": config.strides}
        arguments["image_size"] = as_pair(config.img_size)[0]
        baseline = PvtForImageClassification(PvtConfig(**arguments))
    for name, module in baseline.named_modules():
        if isinstance(module, nn.LayerNorm) and (".patch_embedding" in name or ".attention." in name):
            module.eps = 1e-5
    return baseline


def _shared_arguments(config: PVTConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("depths", "mlp_ratios", "qkv_bias", "drop_path_rate")}


def _weight_format(library: str, arm: str) -> Format:
    if library == "timm":
        return TIMM
    return TRANSFORMERS_V1 if arm == PVT_V1 else TRANSFORMERS_V2


def _renamed_weights(model: PVT, baseline: nn.Module, format: Format) -> dict[str, Tensor]:
    """Returns the model's weights under the baseline's keys."""
    # transformers' classifiers hold the rest of the model in a module that checkpoints need not name.
    prefix = f"{getattr(baseline, 'base_model_prefix', '')}."
    full_names = {name.removeprefix(prefix): name for name in baseline.state_dict()}
    renamed = {}
    for key, tensor in model.state_dict().items():
        names = format.keys(key)
        for name, part in zip(names, tensor.chunk(len(names)), strict=True):
            renamed[full_names[name]] = part
    return renamed
