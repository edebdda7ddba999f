"""Builds the models that arms are compared with, by name, with fresh weights and no download.

Names are those of `ablations.catalogue`: `timm:NAME`, with options of timm's after a question mark as in
`timm:vit_small_patch16_224?dynamic_img_size=True`; `transformers:NAME`; `peers:NAME`; `FILE.py:FUNCTION`.
"""

import ast
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ablations.errors import InputError, first_line, pick, refuse
from ablations.peers import cpvt, local_vit, t2t_vit

OWN: dict[str, Callable[[], nn.Module]] = {
    builder.__name__: builder
    for builder in (
        *(t2t_vit.t2t_vit_t_14, t2t_vit.t2t_vit_t_19, t2t_vit.t2t_vit_t_24),
        *(cpvt.cpvt_ti, cpvt.cpvt_s),
        *(local_vit.localvit_t, local_vit.localvit_s),
    )
}
"""The models of `ablations.peers` by name."""

CVT_DEPTHS = {"cvt-13": [1, 2, 10], "cvt-21": [1, 4, 16]}
"""The models that are built from transformers, and the depths of their stages (Wu et al. 2021, Table 1)."""

STRIDES = (4, 8, 16, 32)
"""Of the maps that detectors take."""


def check_peer(name: str) -> None:
    """Raises InputError for a name that its source does not know, before anything is built."""
    source, _, rest = name.partition(":")
    if source == "timm":
        pick("model", rest.partition("?")[0], timm.list_models())
    elif source == "transformers":
        pick("model", rest, CVT_DEPTHS)
    elif source == "peers":
        pick("model", rest, OWN)


def build_peer(name: str) -> nn.Module:
    """Returns a classifier, pictures (B, 3, H, W) to logits (B, classes); raises InputError for an unknown name.

    A user's file is run, and its model is built on the CPU; others are built on the current default device.
    """
    source, _, rest = name.partition(":")
    if source == "timm":
        return _build_timm(rest)
    if source == "transformers":
        return _build_cvt(rest)
    if source == "peers":
        return OWN[pick("model", rest, OWN)]()
    return _build_from_file(name)


def build_peer_backbone(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Returns a backbone, pictures (B, 3, H, W) to four maps at strides 4 to 32, and the maps' widths.

    Raises InputError for a model that is not timm's, or has no such maps.
    """
    source, _, rest = name.partition(":")
    if source != "timm":
        raise refuse("model", name, "a model of timm's or an arm, beside a head other than the classifier")
    backbone = _build_timm(rest, features_only=True)
    channels = dict(zip(backbone.feature_info.reduction(), backbone.feature_info.channels(), strict=True))
    if not set(STRIDES) <= set(channels):
        raise refuse("model", name, f"one with maps at strides {STRIDES}; it has {tuple(channels)}")
    indices = [place for place, stride in enumerate(channels) if stride in STRIDES]
    return PyramidMaps(backbone, indices), tuple(channels[stride] for stride in STRIDES)


class PyramidMaps(nn.Module):
    """A backbone of timm's: pictures (B, 3, H, W) to those of its maps, (B, C, H', W'), that `indices` names."""

    def __init__(self, backbone: nn.Module, indices: list[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.indices = indices
        self.channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.backbone(x)
        return [maps[index].permute(0, 3, 1, 2) if self.channels_last else maps[index] for index in self.indices]


def _build_timm(name: str, **options: Any) -> Any:
    name, _, settings = name.partition("?")
    pick("model", name, timm.list_models())
    options |= dict(_parse_option(setting) for setting in settings.split(",") if setting)
    try:
        return timm.create_model(name, pretrained=False, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"model='timm:{name}' cannot be built with {options}: {first_line(error)}") from error


def _parse_option(setting: str) -> tuple[str, Any]:
    """Returns the name and the value of `name=value`; a Python literal is one, other words are text."""
    name, _, value = setting.partition("=")
    if not (name and value):
        raise refuse("model option", setting, "name=value, as in timm:NAME?dynamic_img_size=True")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _build_cvt(name: str) -> nn.Module:
    depth = CVT_DEPTHS[pick("model", name, CVT_DEPTHS)]
    from transformers import CvtConfig, CvtForImageClassification  # takes seconds

    config = CvtConfig(depth=depth)
    config.num_labels = 1000
    return CvtForImageClassification(config)


def _build_from_file(name: str) -> nn.Module:
    """Returns what a function of a user's file returns; it may import its neighbours, which are forgotten then."""
    path, _, function = name.rpartition(":")
    folder, known = str(Path(path).parent.resolve()), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        with torch.device("cpu"):  # it may compute something from its weights
            model = _find_function(Path(path), function)()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"model={name!r} cannot be built: {first_line(error)}") from error
    finally:
        sys.path.remove(folder)
        for module in set(sys.modules) - known:  # another folder may have modules of the same names
            if (getattr(sys.modules[module], "__file__", None) or "").startswith(folder):
                del sys.modules[module]
    if not isinstance(model, nn.Module):
        raise InputError(f"model={name!r} returns a {type(model).__name__}; allowed: a torch.nn.Module")
    return model


def _find_function(path: Path, name: str) -> Callable[[], Any]:
    spec = importlib.util.spec_from_file_location("model_file", path)
    if spec is None or spec.loader is None:
        raise refuse("model", str(path), "a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    functions = {key: value for key, value in vars(module).items() if not key.startswith("_") and callable(value)}
    found = functions[pick(f"function of {path}", name, functions)]
    if isinstance(found, nn.Module):
        raise InputError(f"function of {path}: {name} is a {type(found).__name__}; allowed: a function that returns it")
    return found
