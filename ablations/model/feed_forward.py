"""Toggle `conv_feed_forward`: what a block does to each token by itself, or with its neighbours (PVT v2, 3.3)."""

from torch import Tensor, nn

from ablations.config import PVTConfig
from ablations.model.layers import Linear
from ablations.model.tokens import as_tokens, on_map


class FeedForward(nn.Module):
    """v1: FC, GELU, FC. Tokens (B, N, dim) to tokens (B, N, dim)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class ConvFeedForward(nn.Module):
    """v2: FC, 3x3 depth-wise convolution with zero padding, GELU, FC. Tokens (B, N, dim) to tokens (B, N, dim).

    `relu` puts a ReLU before the convolution; the paper does not mention it, the released linear models have it.
    """

    def __init__(self, dim: int, hidden_dim: int, relu: bool) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, kernel_size=3, padding=1, groups=hidden_dim)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.relu(self.fc1(x))
        x = on_map(self.convolve, x, size)
        x = self.act(x)  # under the same name, so that inference frees what was before
        return self.fc2(x)

    def convolve(self, feature_map: Tensor) -> Tensor:
        return as_tokens(self.dwconv(feature_map))


def build_feed_forward(config: PVTConfig, stage: int) -> nn.Module:
    """Returns one block's feed-forward in a stage (0 to 3)."""
    dim = config.embed_dims[stage]
    hidden_dim = dim * config.mlp_ratios[stage]
    if config.conv_feed_forward:
        return ConvFeedForward(dim, hidden_dim, config.ffn_relu)
    return FeedForward(dim, hidden_dim)
