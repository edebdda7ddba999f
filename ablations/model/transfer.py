"""Weights to begin a training from: of a classifier of other classes, or for another size, or as a backbone."""

from dataclasses import dataclass
from math import isqrt

from torch import Tensor

from ablations.errors import InputError
from ablations.model.checkpoint import HEAD, Source, load_weights, read_tensors, rename_weights
from ablations.model.pvt import PVT, PositionEmbedding, resize_pos_embed

CLS_TOKEN = ("cls_token", "cls_token.weight")


@dataclass(frozen=True)
class TransferReport:
    """What was loaded to begin from, and what was not."""

    format: str
    """The checkpoint's format, in words."""
    unused: tuple[str, ...]
    """Keys that the model has no place for: a head of other classes and, for a backbone, the head and class token."""
    resized: tuple[str, ...]
    """Position embeddings that were brought to another grid."""


def transfer_weights(model: PVT, source: Source) -> TransferReport:
    """Loads a classifier's weights, in any format that `load_weights` knows, as far as the model has a place for them.

    A head that the model has for other classes keeps the weights it has. Position embeddings are interpolated
    bilinearly to the model's grids, from square ones. A refused checkpoint changes nothing. Raises InputError where it
    is no checkpoint, lacks a weight, or has one of another shape or that the model has not.
    """
    format, read = read_tensors(source)
    given = rename_weights(read, model)
    own = model.state_dict()
    dropped = [
        name
        for name in given
        if (name in HEAD and (name not in own or given[name].shape != own[name].shape))
        or (name.endswith(CLS_TOKEN) and name not in own)
    ]
    weights = {name: tensor for name, tensor in given.items() if name in own and name not in dropped}
    if missing := [name for name in own if name not in weights and name not in HEAD]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"checkpoint in {format} format does not fit the model: it lacks {missing[0]}{more}")
    if unknown := [name for name in given if name not in weights and name not in dropped]:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(f"checkpoint in {format} format does not fit the model: it has {unknown[0]}{more} beside")
    has_token = any(name.endswith(CLS_TOKEN) for name in read)
    resized = []
    for stage, module in enumerate(model.stages):
        name = f"stages.{stage}.pos_embed.weight"
        if not isinstance(module.pos_embed, PositionEmbedding):
            continue
        prefix = module.pos_embed.num_prefix_tokens
        embedding = weights[name]
        if has_token and stage == len(model.stages) - 1 and not prefix:
            embedding = embedding[:, 1:]
            dropped.append(f"{name}[0]")
        weights[name] = fit_embedding(name, embedding, module.pos_embed.grid, prefix)
        if weights[name].shape != embedding.shape:
            resized.append(name)
    load_weights(model, {name: own[name] for name in HEAD if name in own} | weights)
    return TransferReport(format, tuple(dropped), tuple(resized))


def fit_embedding(name: str, embedding: Tensor, grid: tuple[int, int], num_prefix_tokens: int) -> Tensor:
    """Returns position embeddings (1, prefix + N, C) of a square grid for another grid.

    Raises InputError where the grid is not square.
    """
    count = embedding.shape[1] - num_prefix_tokens
    if count == grid[0] * grid[1]:
        return embedding
    side = isqrt(count)
    if side * side != count:
        raise InputError(
            f"checkpoint's {name} has {count} positions; allowed: a square number, or {grid[0]} x {grid[1]}"
        )
    return resize_pos_embed(embedding, (side, side), grid, num_prefix_tokens)
