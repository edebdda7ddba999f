"""Builds the models that arms are compared with, by name, with fresh weights and no download.

Names are sources of `ablations.baselines.registry`: `timm:NAME`, with options of timm's after a question mark as in
`timm:vit_small_patch16_224?dynamic_img_size=True`; `transformers:NAME`; `baselines:NAME`; `FILE.py:FUNCTION`, with
arguments of the function after a question mark as in `mine.py:build?arm=v1+ope`.
"""

import ast
import copy
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from ablations.baselines.equal import Logits, build_transformers
from ablations.baselines.guest import answering_logits, run_file, unwrapped
from ablations.baselines.registry import BASELINES, EQUAL_MODELS
from ablations.config import build_config
from ablations.errors import InputError, first_line, pick, refuse

OWN = {model.source.partition(":")[2]: model.builder for model in BASELINES if model.builder}
"""The builders of the models of `ablations.baselines`, by name."""

CVT_DEPTHS = {model.source.partition(":")[2]: list(model.depths) for model in BASELINES if model.depths}
"""The CvTs that are built from transformers, and the depths of their stages."""

PVTS = {source.partition(":")[2]: place for place, source in EQUAL_MODELS["transformers"].items()}
"""The PVTs that are built from transformers, and the variant and the arm, as published, that each is."""

STRIDES = (4, 8, 16, 32)
"""Of the maps that detectors take."""


def check_baseline(name: str) -> None:
    """Raises InputError for a name that its source does not know, before anything is built."""
    source, _, rest = name.partition(":")
    if source == "timm":
        name, _, settings = rest.partition("?")
        pick("model", _without_tag(name), timm.list_models())
        parse_options(settings)
    elif source == "transformers":
        pick("model", rest, [*CVT_DEPTHS, *PVTS])
    elif source == "baselines":
        pick("model", rest, OWN)


def build_baseline(name: str, **options: Any) -> nn.Module:
    """Returns a classifier, images (B, 3, H, W) to logits (B, classes); raises InputError for an unknown name.

    A user's file is run, and its model is built on the CPU; others are built on the current default device. `options`
    are for timm's models; the others are what they are. Of what they answer the logits alone are left, where there are
    any (`ablations.baselines.guest.logits_of`).
    """
    source, _, rest = name.partition(":")
    if source == "timm":
        return answering_logits(_from_timm(rest, **options))
    if source == "transformers":
        return answering_logits(_from_transformers(rest))
    if source == "baselines":
        module, _, function = OWN[pick("model", rest, OWN)].partition(":")
        return getattr(import_module(module), function)()
    return answering_logits(_from_file(name))


def build_baseline_backbone(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Returns a backbone, images (B, 3, H, W) to four maps at strides 4 to 32, and the maps' widths.

    One from a user's file must return such maps itself. Raises InputError for a model that is neither that nor timm's,
    or has no such maps.
    """
    source, _, rest = name.partition(":")
    if source.endswith(".py"):
        return _with_widths(_from_file(name), name)
    if source != "timm":
        raise refuse(
            "model", name, "timm:NAME, FILE.py:FUNCTION or an arm: other heads than the classifier stand on those alone"
        )
    backbone = _from_timm(rest, features_only=True)
    channels = dict(zip(backbone.feature_info.reduction(), backbone.feature_info.channels(), strict=True))
    if not set(STRIDES) <= set(channels):
        raise refuse("model", name, f"one with maps at strides {STRIDES}; this one's are {tuple(channels)}")
    indices = [place for place, stride in enumerate(channels) if stride in STRIDES]
    return PyramidMaps(backbone, indices), tuple(channels[stride] for stride in STRIDES)


def _with_widths(backbone: nn.Module, name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Returns a backbone and its maps' widths, as one image of 256 x 256 px shows them."""
    try:
        maps = copy.deepcopy(backbone).to("meta").eval()(torch.empty(1, 3, 256, 256, device="meta"))
        shapes = [tuple(feature_map.shape) for feature_map in maps]
    except Exception as error:
        raise InputError(f"model={name!r} gives no maps: {first_line(error)}") from error
    if [shape[2:] for shape in shapes] != [(256 // stride, 256 // stride) for stride in STRIDES]:
        allowed = (
            f"one that returns a list of maps (B, C, H, W) at strides {STRIDES}; at 256 px this one's are {shapes}"
        )
        raise refuse("model", name, allowed)
    return backbone, tuple(shape[1] for shape in shapes)


class PyramidMaps(nn.Module):
    """A backbone of timm's: images (B, 3, H, W) to those of its maps, (B, C, H', W'), that `indices` names."""

    def __init__(self, backbone: nn.Module, indices: list[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.indices = indices
        self.channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.backbone(x)
        return [maps[index].permute(0, 3, 1, 2) if self.channels_last else maps[index] for index in self.indices]


def _from_timm(name: str, **options: Any) -> Any:
    name, _, settings = name.partition("?")
    pick("model", _without_tag(name), timm.list_models())
    options |= parse_options(settings)
    try:
        return timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # whatever an option may do to a constructor
        raise InputError(f"model='timm:{name}' cannot be built with {options}: {first_line(error)}") from error


def _without_tag(name: str) -> str:
    """Returns the architecture of a name such as `resnet50.a1_in1k`, whose tag names pretrained weights."""
    return name.partition(".")[0]


def parse_options(settings: str) -> dict[str, Any]:
    """Returns the options of `name=value,name=value`; values are Python literals, or text: words, and arms' names."""
    try:
        call = cast(ast.Call, ast.parse(f"options({settings})", mode="eval").body)
        if call.args or not all(option.arg for option in call.keywords):
            raise ValueError
        return {str(option.arg): _literal(option.value) for option in call.keywords}
    except (SyntaxError, ValueError) as error:
        allowed = "name=value, separated by commas, as in timm:NAME?dynamic_img_size=True"
        raise refuse("model options", settings, allowed) from error


def _literal(value: ast.expr) -> Any:
    """Returns a literal, or as text words that plus signs may join."""
    if all(isinstance(node, ast.Name | ast.BinOp | ast.Add | ast.Load) for node in ast.walk(value)):
        return ast.unparse(value).replace(" ", "")
    return ast.literal_eval(value)


def _from_transformers(name: str) -> nn.Module:
    if pick("model", name, [*CVT_DEPTHS, *PVTS]) in PVTS:
        return Logits(build_transformers(build_config(*PVTS[name], "published")))
    depth = CVT_DEPTHS[name]
    from transformers import CvtConfig, CvtForImageClassification  # takes seconds

    config = CvtConfig(depth=depth)
    config.num_labels = 1000
    return CvtForImageClassification(config)


def _from_file(name: str) -> nn.Module:
    """Returns what a function of a user's file returns (`ablations.baselines.guest`), on the CPU, as it is in eager."""
    path, _, function = name.rpartition(":")
    function, _, settings = function.partition("?")
    arguments = parse_options(settings)
    try:
        with torch.device("cpu"):  # it may compute something from its weights
            model = run_file(Path(path).expanduser(), function, partial(pick, f"function of {path}"), arguments)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        is_relative = isinstance(error, ImportError) and "relative import" in str(error)
        hint = "; relative imports reach the folders around the file that have an __init__.py" if is_relative else ""
        raise InputError(f"model={name!r} cannot be built: {first_line(error)}{hint}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"model={name!r} returns a {type(model).__name__}; allowed: a torch.nn.Module")
    return unwrapped(model)
