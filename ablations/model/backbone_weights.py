"""A classifier's weights for a backbone: what belongs to classifying is left out, position embeddings are resized."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from os import PathLike

from torch import Tensor

from ablations.errors import InputError
from ablations.model.checkpoint import HEAD, load_weights, read_tensors, rename_weights
from ablations.model.pvt import PVT, PositionEmbedding, resize_pos_embed


@dataclass(frozen=True)
class BackboneReport:
    """What was loaded into a backbone, and what was not."""

    format: str
    """The checkpoint's format, in words."""
    unused: tuple[str, ...]
    """Keys that a backbone has no place for: the head, the class token and, in base v1, its position embedding."""
    resized: tuple[str, ...]
    """Position embeddings that were brought to another grid."""

    @property
    def summary(self) -> str:
        """One line for people."""
        words = [f"backbone weights in {self.format} format"]
        if self.unused:
            words.append(f"left out: {', '.join(self.unused)}")
        if self.resized:
            words.append(f"resized: {', '.join(self.resized)}")
        return "; ".join(words)


def load_backbone_weights(model: PVT, source: str | PathLike[str] | Mapping[str, Tensor]) -> BackboneReport:
    """Loads a classifier's weights, in any format that `load_weights` knows, into a PVT without head and class token.

    Position embeddings are interpolated bilinearly to the model's grids, from square ones. A refused checkpoint changes
    nothing. Raises InputError where it is no checkpoint, lacks a weight, or has one of another shape.
    """
    format, read = read_tensors(source)
    given = rename_weights(read, model)
    has_token = any(name.endswith(("cls_token", "cls_token.weight")) for name in read)
    dropped = [name for name in given if name in HEAD or name.endswith(("cls_token", "cls_token.weight"))]
    weights = {name: tensor for name, tensor in given.items() if name in model.state_dict() and name not in dropped}
    resized = []
    for stage, module in enumerate(model.stages):
        name = f"stages.{stage}.pos_embed.weight"
        if not isinstance(module.pos_embed, PositionEmbedding) or name not in weights:
            continue
        is_last = stage == len(model.stages) - 1
        prefix = int(has_token and is_last)
        fitted = fit_embedding(name, weights[name], module.pos_embed.grid, prefix)
        if prefix:
            dropped.append(f"{name}[0]")
        if fitted.shape[1] != weights[name].shape[1] - prefix:
            resized.append(name)
        weights[name] = fitted
    if missing := [name for name in model.state_dict() if name not in weights]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"checkpoint in {format} format does not fit the backbone: it lacks {missing[0]}{more}")
    load_weights(model, weights)
    unknown = [name for name in given if name not in weights and name not in dropped]
    return BackboneReport(format, (*dropped, *unknown), tuple(resized))


def fit_embedding(name: str, embedding: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Returns position embeddings (1, prefix + N, C) of a square grid without the prefix, for another grid.

    Raises InputError where the grid is not square.
    """
    own = embedding[:, prefix:]
    count = own.shape[1]
    if count == grid[0] * grid[1]:
        return own
    side = isqrt(count)
    if side * side != count:
        raise InputError(
            f"checkpoint's {name} has {count} positions; allowed: a square number, or {grid[0]} x {grid[1]}"
        )
    return resize_pos_embed(own, (side, side), grid, 0)
