"""Tokens and maps: two views of one memory.

Blocks see tokens, (B, N, C) with N = H·W in row order; convolutions see maps, (B, C, H, W). Row-ordered tokens are a
channels-last map, so going from one to the other moves nothing. A class token, where there is one, stands before the
map's tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def as_tokens(feature_map: Tensor) -> Tensor:
    """Views a map (B, C, H, W) as tokens (B, H·W, C)."""
    return feature_map.permute(0, 2, 3, 1).flatten(1, 2)


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Views the last H·W of the tokens (B, N, C) as a map (B, C, H, W); tokens before them are left out."""
    num_tokens = size[0] * size[1]
    if tokens.shape[1] != num_tokens:  # even a slice of everything would copy its gradient
        tokens = tokens[:, -num_tokens:]
    # In this order even a single picture gets the strides by which convolutions know channels-last.
    return tokens.unflatten(1, size).permute(0, 3, 1, 2)


def on_map(layer: Callable[[Tensor], Tensor], tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Gives the map of `tokens` (B, N, C) to `layer`, which returns tokens; a class token passes by and stays first."""
    num_prefix_tokens = tokens.shape[1] - size[0] * size[1]
    mapped = layer(as_map(tokens, size))
    return torch.cat([tokens[:, :num_prefix_tokens], mapped], dim=1) if num_prefix_tokens else mapped
