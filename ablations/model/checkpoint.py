"""Weights in and out: this project's format, the released PVT code's, timm's and transformers'.

A format is a table of what it calls the parts of our keys, read from ours to theirs; everything else is one loop.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ablations.config import (
    ARMS,
    CONFOUNDERS,
    PVT_V1,
    PVT_V2,
    PVT_V2_LI,
    VARIANTS,
    PVTConfig,
    Size,
    arm_name,
    build_config,
)
from ablations.cost import count_params
from ablations.errors import InputError, pick, refuse
from ablations.files import written_whole
from ablations.model.pvt import PVT
from ablations.model.weights_file import WeightsFile, read_weights_file


@dataclass(frozen=True)
class Format:
    """What somebody else calls the weights of a PVT."""

    name: str
    mark: str
    """A key that every checkpoint of the format has and none of the formats after it in FORMATS."""
    renames: tuple[tuple[str, str], ...] = ()
    """Parts of our keys and their names there, replaced in this order.

    `{stage}` counts from 0, `{number}` from 1. `[key,value]` stands for two tensors that are one of ours, stacked.
    """

    def keys(self, key: str) -> list[str]:
        """Returns the keys of the format that make up one of ours."""
        stage = int(key.split(".")[1]) if key.startswith("stages.") else 0
        for ours, theirs in self.renames:
            key = key.replace(ours.format(stage=stage), theirs.format(stage=stage, number=stage + 1))
        stacked = "[key,value]"
        return [key.replace(stacked, part) for part in ("key", "value")] if stacked in key else [key]


OWN = Format("this project's", mark="stages.0.patch_embed.proj.weight")
RELEASED_V1 = Format(
    "the released PVT v1",
    mark="pos_embed1",
    renames=(
        ("stages.{stage}.patch_embed.", "patch_embed{number}."),
        ("stages.3.cls_token.weight", "cls_token"),
        ("stages.{stage}.pos_embed.weight", "pos_embed{number}"),
        ("stages.{stage}.blocks.", "block{number}."),
        ("stages.3.norm.", "norm."),
    ),
)
RELEASED_V2 = Format(
    "the released PVT v2",
    mark="patch_embed1.proj.weight",
    renames=(
        ("stages.{stage}.patch_embed.", "patch_embed{number}."),
        ("stages.{stage}.blocks.", "block{number}."),
        ("stages.{stage}.norm.", "norm{number}."),
        (".mlp.dwconv.", ".mlp.dwconv.dwconv."),
    ),
)
TIMM = Format(
    "timm's PVT v2",
    mark="stages.1.downsample.proj.weight",
    renames=(
        ("stages.0.patch_embed.", "patch_embed."),
        ("stages.{stage}.patch_embed.", "stages.{stage}.downsample."),
    ),
)
_TRANSFORMERS_BLOCK = (
    (".norm1.", ".layer_norm_1."),
    (".norm2.", ".layer_norm_2."),
    (".mlp.fc1.", ".mlp.dense1."),
    (".mlp.dwconv.", ".mlp.dwconv.dwconv."),
    (".mlp.fc2.", ".mlp.dense2."),
    ("head.", "classifier."),
)
TRANSFORMERS_V1 = Format(
    "transformers' Pvt",
    mark="encoder.patch_embeddings.0.projection.weight",
    renames=(
        ("stages.{stage}.patch_embed.proj.", "encoder.patch_embeddings.{stage}.projection."),
        ("stages.{stage}.patch_embed.norm.", "encoder.patch_embeddings.{stage}.layer_norm."),
        ("stages.3.cls_token.weight", "encoder.patch_embeddings.3.cls_token"),
        ("stages.{stage}.pos_embed.weight", "encoder.patch_embeddings.{stage}.position_embeddings"),
        ("stages.{stage}.blocks.", "encoder.block.{stage}."),
        ("stages.3.norm.", "encoder.layer_norm."),
        (".attn.q.", ".attention.self.query."),
        (".attn.kv.", ".attention.self.[key,value]."),
        (".attn.sr.", ".attention.self.sequence_reduction."),
        (".attn.norm.", ".attention.self.layer_norm."),
        (".attn.proj.", ".attention.output.dense."),
        *_TRANSFORMERS_BLOCK,
    ),
)
TRANSFORMERS_V2 = Format(
    "transformers' PvtV2",
    mark="encoder.layers.0.patch_embedding.proj.weight",
    renames=(
        ("stages.{stage}.patch_embed.norm.", "encoder.layers.{stage}.patch_embedding.layer_norm."),
        ("stages.{stage}.patch_embed.", "encoder.layers.{stage}.patch_embedding."),
        ("stages.{stage}.norm.", "encoder.layers.{stage}.layer_norm."),
        ("stages.{stage}.blocks.", "encoder.layers.{stage}.blocks."),
        (".attn.q.", ".attention.query."),
        (".attn.kv.", ".attention.[key,value]."),
        (".attn.sr.", ".attention.spatial_reduction."),
        (".attn.norm.", ".attention.layer_norm."),
        (".attn.proj.", ".attention.proj."),
        *_TRANSFORMERS_BLOCK,
    ),
)
FORMATS = (OWN, RELEASED_V1, RELEASED_V2, TIMM, TRANSFORMERS_V1, TRANSFORMERS_V2)

EXPORTS: dict[str, dict[str, Format]] = {
    "released": {PVT_V1: RELEASED_V1, PVT_V2: RELEASED_V2, PVT_V2_LI: RELEASED_V2},
    "timm": {PVT_V2: TIMM, PVT_V2_LI: TIMM},
}
"""The formats that `export_weights` writes, and the arms that each can express."""

HEAD = ("head.weight", "head.bias")

_WRAPPED = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")  # parts, by torch
_BACKBONES = re.compile(r"(pvt|pvt_v2)\.$")  # of transformers' classifiers, whose head lies beside them
_AVERAGED = re.compile(r"(^|[._])(ema|average|averaged|swa|teacher)([._]|$)")
_DEEPEST = 8  # wrappers within wrappers, at most
_NAMED_KEYS = 8  # at most, of each kind, in an error

Shape = tuple[int, ...]

Source = str | PathLike[str] | WeightsFile | Mapping[str, Any]
"""Where weights come from: the path of a file, a file that was read, or a state dict."""


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` loaded, and what not."""

    format: str
    """The checkpoint's format, in words."""
    kept: tuple[str, ...]
    """Keys of the model that kept their values; none after a strict load with the head."""
    unused: tuple[str, ...]
    """Keys of the checkpoint that were not used; after a strict load with the head those of other modules alone."""
    place: str = ""
    """Where in the checkpoint the weights are, such as `state_dict_ema: module.`; empty where they are all of it."""
    others: tuple[str, ...] = ()
    """Where it has other weights of such a model."""


@dataclass(frozen=True)
class _Weights:
    """Weights of a PVT in what a file holds."""

    place: str
    format: Format
    tensors: dict[str, Tensor]
    """By the format's keys, without prefixes."""
    outside: dict[str, Tensor]
    """Of other modules in the same state dict."""

    @property
    def is_averaged(self) -> bool:
        """Whether by its place this is a moving average."""
        return any(_AVERAGED.search(part) for part in self.place.split(": "))


def load_weights(
    model: PVT,
    source: Source,
    strict: bool = True,
    skip_head: bool = False,
    raw: bool = False,
) -> LoadReport:
    """Loads a checkpoint into `model` and returns what was left out; a refused checkpoint changes nothing.

    `source` is a file, by `torch.save` or of safetensors, or a state dict, in any of FORMATS; which, is seen from the
    content. The weights may lie under any wrapper and prefix, as training code leaves them. Where there is a moving
    average of them too, that is taken, with `raw` the others. Objects other than tensors are never unpickled.
    `strict=False` lets keys be missing or left over; `skip_head=True` leaves the head alone, for a checkpoint with
    other classes. Raises InputError for anything else that does not fit, tensors of another shape always, and for
    weights that are no plain floats.

    Position embeddings of another grid are such tensors: a checkpoint does not say which grid it has, and a model
    built with the checkpoint's `img_size` takes all other sizes anyway. What has no weights cannot be checked: heads,
    P, the ReLU of the linear models, and LayerNorm's eps, which in transformers is 1e-6 throughout.
    """
    found_here = _find_weights(source)
    chosen = next((each for each in found_here if each.is_averaged != raw), found_here[0])
    if raw and chosen.is_averaged:
        raise refuse("raw_weights", raw, f"False: the checkpoint has averaged weights alone, in {chosen.place}")
    given, format = chosen.tensors, chosen.format
    weights = model.state_dict()
    parts = {key: format.keys(key) for key in weights}

    ignored = {name for key in HEAD for name in format.keys(key)} if skip_head else set()
    expected = {
        name: (weights[key].shape[0] // len(names), *weights[key].shape[1:])  # of each part that is stacked
        for key, names in parts.items()
        for name in names
        if name not in ignored
    }
    found = {name: tuple(tensor.shape) for name, tensor in given.items() if name not in ignored}
    misfits = [[name for name in expected if name in found and expected[name] != found[name]]]
    if strict:
        misfits += [[name for name in expected if name not in found], [name for name in found if name not in expected]]
    if any(misfits):
        raise _misfit_error(model, format, expected, found, misfits)

    taken = {
        key: [given[name] for name in names]
        for key, names in parts.items()
        if all(name in given and name not in ignored for name in names)
    }
    _check_floats(taken)
    model.load_state_dict({key: _join(tensors) for key, tensors in taken.items()}, strict=False)
    used = {name for key in taken for name in parts[key]}
    return LoadReport(
        format=format.name,
        kept=tuple(key for key in weights if key not in taken),
        unused=tuple(name for name in [*given, *chosen.outside] if name not in used),
        place=chosen.place,
        others=tuple(each.place for each in found_here if each is not chosen),
    )


def opened(source: str | PathLike[str] | WeightsFile) -> WeightsFile:
    """Returns a file of weights with all its bytes; raises InputError as `read_weights_file`."""
    return source if isinstance(source, WeightsFile) else read_weights_file(Path(source))


def read_tensors(source: Source) -> tuple[str, dict[str, Tensor]]:
    """Returns the format of a checkpoint in words, and its weights by that format's keys: an average if it has one.

    Raises InputError as `load_weights` does for a file that has none.
    """
    found = _find_weights(source)
    chosen = next((each for each in found if each.is_averaged), found[0])
    return chosen.format.name, chosen.tensors


def export_weights(model: PVT, format: str) -> dict[str, Tensor]:
    """Returns the model's weights under the keys of `format`: `released` (PVT v1, v2 and v2-Li) or `timm` (v2, v2-Li).

    The tensors are the model's own. Raises InputError for a model that the format's code cannot build.
    """
    arms = EXPORTS[pick("format", format, EXPORTS)]
    config = model.config
    arm = arm_name(config.toggles)
    if arm not in arms:
        raise refuse("arm", arm, f"{', '.join(arms)} in the {format} format")
    published = build_config("b2", arm, "published")
    for field in (*CONFOUNDERS, "stem_stride", "pool_size"):
        without_effect = field == "conv_init" or (field == "pool_size" and "lsra" not in config.toggles)
        if not without_effect and getattr(config, field) != getattr(published, field):
            raise refuse(field, getattr(config, field), f"{getattr(published, field)!r} in the {format} format")
    return {arms[arm].keys(key)[0]: tensor for key, tensor in model.state_dict().items()}


def save_weights(
    weights: nn.Module | Mapping[str, Tensor],
    path: str | PathLike[str],
    description: Mapping[str, Any] | None = None,
) -> None:
    """Writes weights, a model's or a state dict's, to a file that `load_weights` takes.

    The suffix `.safetensors` makes it one; any other file is by `torch.save`. What the weights are goes into the
    metadata of a safetensors file: plain values, which `read_description` returns.
    """
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    path = Path(path)
    with written_whole(path) as file:
        if path.suffix.lower() == ".safetensors":
            metadata = {name: json.dumps(value) for name, value in (description or {}).items()}
            file.write(safetensors.torch.save(tensors, {"format": "pt"} | metadata))
        else:
            torch.save(tensors, file)


DESCRIPTION = ("model", "config", "num_classes", "class_names", "data", "recipe")
"""What a file of weights that was trained here says of itself.

`model` is a dict of variant, arm and base, or the name of a model that is no arm, which has no `config`; `config` has
the fields of PVTConfig, `recipe` the conditions of the training.
"""


def read_description(source: str | PathLike[str] | WeightsFile) -> dict[str, Any]:
    """Returns the DESCRIPTION of a file of weights; an empty dict where it does not say what it is.

    Raises InputError for a file that is damaged, or described in another way.
    """
    file = opened(source)
    metadata = file.metadata()
    if "recipe" not in metadata:
        return {}
    try:
        return {name: json.loads(metadata[name]) for name in DESCRIPTION if name in metadata}
    except ValueError as error:
        raise InputError(
            f"checkpoint {str(file.path)!r} has metadata that are no JSON; allowed: as save_weights writes them"
        ) from error


def load_model(path: str | PathLike[str]) -> PVT:
    """Returns the model of a file of weights that says which it is, in evaluation mode.

    Raises InputError for a file that does not say it, and as `load_weights` does.
    """
    file = opened(path)
    description = read_description(file)
    if "config" not in description:
        raise InputError(
            f"checkpoint {str(path)!r} does not say which arm it is of; allowed: one that a training here wrote"
        )
    model = PVT(PVTConfig(**description["config"]))
    load_weights(model, file)
    return model.eval()


def rename_weights(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Returns tensors in any of FORMATS under the keys of `model`; what it has no place for keeps its name."""
    found = _candidates("", weights) or [_Weights("", OWN, dict(weights), {})]
    given, format = found[0].tensors, found[0].format
    parts = {key: format.keys(key) for key in model.state_dict()}
    parts = {key: names for key, names in parts.items() if all(name in given for name in names)}
    used = {name for names in parts.values() for name in names}
    own = {key: _join([given[name] for name in names]) for key, names in parts.items()}
    return own | {name: tensor for name, tensor in (given | found[0].outside).items() if name not in used}


def _join(tensors: list[Tensor]) -> Tensor:
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


def _find_weights(source: Source) -> list[_Weights]:
    """Returns all weights of a PVT in what a file holds, at least one, in its order; raises InputError for none."""
    content = source if isinstance(source, Mapping) else opened(source).load()
    found: list[_Weights] = []
    keys: list[str] = []
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    seen: set[int] = set()
    while waiting:
        place, value, depth = waiting.pop(0)
        if not isinstance(value, Mapping) or id(value) in seen or depth > _DEEPEST:
            continue
        seen.add(id(value))
        tensors = {key: each for key, each in value.items() if isinstance(key, str) and isinstance(each, Tensor)}
        keys += tensors
        found += _candidates(place, tensors)
        waiting += [(f"{place}.{key}".strip("."), each, depth + 1) for key, each in value.items()]
    if found:
        return found
    if not isinstance(content, Mapping):
        raise InputError(f"checkpoint is a {type(content).__name__}; allowed: a state dict")
    names = ", ".join(f"{format.name} ({format.mark})" for format in FORMATS)
    raise InputError(
        f"checkpoint with {len(keys)} tensors ({', '.join([*keys[:_NAMED_KEYS], '...'])}) is in no known format; "
        f"allowed: {names}"
    )


def _candidates(place: str, tensors: Mapping[str, Tensor]) -> list[_Weights]:
    """Returns the weights of PVTs in one state dict, each of which has the mark of a format under its own prefix."""
    given = {_WRAPPED.sub("", key): tensor for key, tensor in tensors.items()}
    formats: dict[str, Format] = {}
    for format in FORMATS:
        for key in given:
            if key == format.mark or key.endswith(f".{format.mark}"):
                formats.setdefault(key.removesuffix(format.mark), format)
    found = []
    for prefix, format in formats.items():
        within: dict[str, Tensor] = {}
        outside: dict[str, Tensor] = {}
        around = _BACKBONES.sub("", prefix)
        for key, tensor in given.items():
            start = next((each for each in (prefix, around) if key.startswith(each)), None)
            (outside if start is None else within)[key.removeprefix(start or "")] = tensor
        found.append(_Weights(": ".join(filter(None, [place, prefix])), format, within, outside))
    return found


def _check_floats(taken: Mapping[str, list[Tensor]]) -> None:
    """Raises InputError for weights that would be cut to floats, or have no numbers."""
    for key, tensors in taken.items():
        for tensor in tensors:
            if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
                kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device.type}".replace("torch.", "")
                raise InputError(f"checkpoint has {key} as {kind}; allowed: plain floats")


def _misfit_error(
    model: PVT, format: Format, expected: dict[str, Shape], found: dict[str, Shape], misfits: list[list[str]]
) -> InputError:
    """The error that names the first keys of each kind of misfit, with their shapes, and the way out where one is."""
    named = [name for kind in misfits for name in kind[:_NAMED_KEYS]]
    shapes = "; ".join(
        f"{name} is {found.get(name, 'absent')} in the checkpoint and {expected.get(name, 'absent')} in the model"
        for name in named
    )
    rest = sum(map(len, misfits)) - len(named)
    more = f"; and {rest} more" if rest else ""
    embeddings = [name for key in model.state_dict() if ".pos_embed." in key for name in format.keys(key)]
    head = [name for key in HEAD for name in format.keys(key)]
    classes = next(iter(found.get(head[0], ())), 0)
    ways_out = {
        f"a model of {classes} classes has its head (--num-classes {classes})" if classes else "it has no head": {
            *head
        },
        "a model built for the checkpoint's image size (--img-size) takes other sizes too": {*embeddings} & {*found},
    }
    # A way out of some misfits only, as for a model of another size, would lead nowhere.
    way_there_is = set().union(*ways_out.values()).issuperset(named)
    hints = "".join(f"; {hint}" for hint, names in ways_out.items() if way_there_is and not names.isdisjoint(named))
    alike = "" if way_there_is else _models_as_large(found, classes, model.config.img_size)
    whose = f", but has as many parameters as {alike}" if alike else ""
    return InputError(
        f"checkpoint in {format.name} format does not fit the model, of arm {arm_name(model.config.toggles)}{whose}: "
        f"{shapes}{more}{hints}"
    )


def _models_as_large(found: dict[str, Shape], classes: int, img_size: Size) -> str:
    """Returns the variants, arms and bases with as many parameters as were found, in words; empty where none has."""
    params = sum(map(math.prod, found.values()))
    names = [
        f"{variant} {arm} base={base}"
        for variant, arm, base in product(VARIANTS, ARMS, ("v2", "v1"))
        if count_params(build_config(variant, arm, base, num_classes=classes, img_size=img_size)) == params
    ]
    return ", ".join(names)
