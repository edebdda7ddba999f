"""Toggle `linear_sra`: which tokens a block's queries attend to (PVT v1, 3.3; PVT v2, 3.1).

Letters: B pictures, N query tokens, M key and value tokens, C channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ablations.config import PVTConfig
from ablations.model.layers import Linear
from ablations.model.tokens import as_tokens, on_map


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (B, heads, N, head_dim) over (B, heads, M, head_dim) in one kernel."""
    return F.scaled_dot_product_attention(q, k, v)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same with the (B, heads, N, M) score matrix in memory, as the released code ran it."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


KERNELS = {"fused": fused_attention, "explicit": explicit_attention}


class Attention(nn.Module):
    """Multi-head attention of every token to all tokens: (B, N, dim) to (B, N, dim).

    Subclasses give the keys and values fewer tokens by overriding `reduce`.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, kernel: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.attend = KERNELS[kernel]
        self.q = Linear(dim, dim, bias=qkv_bias)
        self.kv = Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def reduce(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns the M tokens (B, M, dim) that keys and values are made of."""
        return x

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        q = self.q(x).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)  # B, heads, N, head_dim
        kv = self.kv(self.reduce(x, size)).unflatten(2, (2, self.num_heads, self.head_dim))
        k, v = kv.permute(2, 0, 3, 1, 4).unbind()  # B, heads, M, head_dim
        x = self.attend(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class SpatialReductionAttention(Attention):
    """v1: a convolution turns every R x R tokens into one, so M = N / R²."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, kernel: str, sr_ratio: int) -> None:
        super().__init__(dim, num_heads, qkv_bias, kernel)
        self.sr = nn.Conv2d(dim, dim, kernel_size=sr_ratio, stride=sr_ratio)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def reduce(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return on_map(self.reduce_map, x, size)

    def reduce_map(self, feature_map: Tensor) -> Tensor:
        return self.norm(as_tokens(self.sr(feature_map)))


class LinearSpatialReductionAttention(Attention):
    """v2-Li: average pooling to P x P tokens whatever the map's size, so M = P² and the cost is linear in N."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, kernel: str, pool_size: int) -> None:
        super().__init__(dim, num_heads, qkv_bias, kernel)
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        self.sr = nn.Conv2d(dim, dim, kernel_size=1)
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.act = nn.GELU()

    def reduce(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return on_map(self.reduce_map, x, size)

    def reduce_map(self, feature_map: Tensor) -> Tensor:
        return self.act(self.norm(as_tokens(self.sr(self.pool(feature_map)))))


def build_attention(config: PVTConfig, stage: int) -> Attention:
    """Returns one block's attention in a stage (0 to 3); SRA with R = 1 is plain attention."""
    common = (config.embed_dims[stage], config.num_heads[stage], config.qkv_bias, config.attention)
    if config.linear_sra:
        return LinearSpatialReductionAttention(*common, config.pool_size)
    if config.sr_ratios[stage] == 1:
        return Attention(*common)
    return SpatialReductionAttention(*common, config.sr_ratios[stage])
