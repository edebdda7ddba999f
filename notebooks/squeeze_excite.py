"""Slot `mlp`: v1's feed-forward whose hidden channels are gated by timm's squeeze-and-excitation (Hu et al. 2018).

python run_ablation.py cost --toggles ope lsra notebooks/squeeze_excite.py:se
"""

from collections.abc import Iterator

from timm.layers import SqueezeExcite
from torch import Tensor, nn

from ablations.config import PVTConfig
from ablations.cost import ModuleCost, mlp_cost
from ablations.model.tokens import as_map, as_tokens, with_prefix_of
from ablations.toggle_files import NewToggle

REDUCTION = 4  # hidden channels for each of the gate's


class GatedFeedForward(nn.Module):
    """FC, GELU, gate, FC: tokens (B, prefix + N, dim) to tokens; a class token passes by the gate."""

    def __init__(self, dim: int, hidden_dim: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        # timm's layer takes maps (B, C, H, W): one line before it and one behind it make tokens of them.
        self.gate = SqueezeExcite(hidden_dim, rd_channels=hidden_dim // REDUCTION)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.act(self.fc1(x))
        gated = as_tokens(self.gate(as_map(x, size, self.num_prefix_tokens)))
        return self.fc2(with_prefix_of(gated, x, self.num_prefix_tokens))


def build_gated_feed_forward(config: PVTConfig, stage: int) -> GatedFeedForward:
    dim = config.embed_dims[stage]
    return GatedFeedForward(dim, dim * config.mlp_ratios[stage], config.num_prefix_tokens(stage))


def gated_cost(config: PVTConfig, stage: int, size: tuple[int, int]) -> Iterator[ModuleCost]:
    """v1's two layers, and the two 1x1 convolutions of the gate, each of one pixel."""
    yield from mlp_cost(config, stage, size)
    hidden_dim = config.embed_dims[stage] * config.mlp_ratios[stage]
    weights = hidden_dim * hidden_dim // REDUCTION
    yield ModuleCost("gate.conv_reduce", weights + hidden_dim // REDUCTION, weights)
    yield ModuleCost("gate.conv_expand", weights + hidden_dim, weights)


se = NewToggle(name="se", title="Squeeze-and-excitation", slot="mlp", build=build_gated_feed_forward, cost=gated_cost)
