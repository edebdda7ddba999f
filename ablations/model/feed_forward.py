"""Slot `mlp`, toggle `cffn`: what a block does to each token by itself, or with its neighbours (PVT v2, 3.3)."""

from torch import Tensor, nn

from ablations.config import PVTConfig
from ablations.model.tokens import as_map, as_tokens, with_prefix_of


class FeedForward(nn.Module):
    """v1: FC, GELU, FC. Tokens (B, N, dim) to tokens (B, N, dim)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class ConvFeedForward(nn.Module):
    """v2: FC, 3x3 depth-wise convolution with zero padding, GELU, FC. Tokens (B, N, dim) to tokens (B, N, dim).

    A prefix of class tokens passes by the convolution. `relu` puts a ReLU before it: the paper does not mention it, the
    released linear models have it.
    """

    def __init__(self, dim: int, hidden_dim: int, num_prefix_tokens: int = 0, relu: bool = False) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, kernel_size=3, padding=1, groups=hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.relu(self.fc1(x))
        x = with_prefix_of(as_tokens(self.dwconv(as_map(x, size, self.num_prefix_tokens))), x, self.num_prefix_tokens)
        x = self.act(x)  # under the same name, so that inference frees what was before
        return self.fc2(x)


def build_feed_forward(config: PVTConfig, stage: int) -> FeedForward:
    """v1: each token by itself."""
    dim = config.embed_dims[stage]
    return FeedForward(dim, dim * config.mlp_ratios[stage])


def build_conv_feed_forward(config: PVTConfig, stage: int) -> ConvFeedForward:
    """v2: each token with its eight neighbours."""
    dim = config.embed_dims[stage]
    return ConvFeedForward(
        dim, dim * config.mlp_ratios[stage], num_prefix_tokens=config.num_prefix_tokens(stage), relu=config.ffn_relu
    )
