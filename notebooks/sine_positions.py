"""Slot `pos_embed`: fixed sines and cosines of row and column instead of the base's position embedding.

    python run_ablation.py accuracy --toggles cffn notebooks/sine_positions.py:sine --variants pico --data digits

As in Carion et al. 2020 (DETR): half of the channels tell the row, half the column, at wavelengths up to 10,000 tokens.
Nothing is learned, and any size of map has its own.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ablations.config import PVTConfig
from ablations.cost import ModuleCost
from ablations.model.tokens import with_prefix_of
from ablations.toggle_files import NewToggle

LONGEST = 10_000.0  # tokens


def encode(count: int, channels: int, like: Tensor) -> Tensor:
    """Returns (count, channels): sines in the first half of the channels, cosines in the second."""
    places = torch.arange(count, device=like.device, dtype=torch.float32)
    powers = torch.arange(channels // 2, device=like.device, dtype=torch.float32) / (channels // 2)
    angles = places[:, None] / LONGEST**powers
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)


class SinePositions(nn.Module):
    """Adds its place to each token: (B, prefix + N, C) to the same; a class token has no place."""

    def __init__(self, num_prefix_tokens: int) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        (height, width), half = size, x.shape[2] // 2
        rows = encode(height, half, x)[:, None].expand(-1, width, -1)
        columns = encode(width, half, x)[None].expand(height, -1, -1)
        places = torch.cat([rows, columns], dim=2).flatten(0, 1)  # N, C
        return with_prefix_of(x[:, self.num_prefix_tokens :] + places, x, self.num_prefix_tokens)


def build_sine_positions(config: PVTConfig, stage: int) -> SinePositions:
    return SinePositions(config.num_prefix_tokens(stage))


def no_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """Neither parameters nor MACs."""
    yield from ()


sine = NewToggle(
    name="sine", title="Sine position embeddings", slot="pos_embed", build=build_sine_positions, cost=no_cost
)
