"""Tokens and maps: two views of one memory.

Blocks see tokens, (B, N, C) with N = H·W in row order; convolutions see maps, (B, C, H, W). Row-ordered tokens are a
channels-last map, so going from one to the other moves nothing. A class token, where there is one, is a prefix of the
map's tokens.
"""

import torch
from torch import Tensor


def as_tokens(x: Tensor) -> Tensor:
    """Views a map (B, C, H, W) as tokens (B, H·W, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def as_map(x: Tensor, size: tuple[int, int], num_prefix_tokens: int = 0) -> Tensor:
    """Views tokens (B, prefix + H·W, C) as a map (B, C, H, W); the prefix is left out."""
    if num_prefix_tokens > 0:  # even a slice of everything would copy its gradient
        x = x[:, num_prefix_tokens:]
    # In this order even a batch of one gets the strides by which convolutions know channels-last.
    return x.unflatten(1, size).permute(0, 3, 1, 2)


def with_prefix_of(x: Tensor, tokens: Tensor, num_prefix_tokens: int) -> Tensor:
    """Returns tokens (B, M, C) behind the prefix of other tokens (B, prefix + N, C)."""
    if num_prefix_tokens > 0:
        return torch.cat([tokens[:, :num_prefix_tokens], x], dim=1)
    return x
