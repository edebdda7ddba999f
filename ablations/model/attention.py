"""Slot `attn`, toggle `lsra`: which tokens a block's queries attend to (PVT v1, 3.3; PVT v2, 3.1).

Letters: B images, N query tokens, M key and value tokens, C channels, all with the prefix of class tokens.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ablations.config import PVTConfig
from ablations.model.patch_embed import CONV_NORM_EPS
from ablations.model.tokens import as_map, as_tokens, with_prefix_of


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (B, heads, N, head_dim) over (B, heads, M, head_dim) in one kernel."""
    return F.scaled_dot_product_attention(q, k, v)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same with the (B, heads, N, M) score matrix in memory, as the released code ran it."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


KERNELS = {"fused": fused_attention, "explicit": explicit_attention}


class Attention(nn.Module):
    """Multi-head attention of every token to all tokens, M = N: (B, N, dim) to (B, N, dim).

    Subclasses give the keys and values fewer tokens by overriding `reduce`.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, kernel: str = "fused") -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.attend = KERNELS[kernel]
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def reduce(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns the M tokens (B, M, dim) that keys and values are made of."""
        return x

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        q = self.q(x).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)  # B, heads, N, head_dim
        kv = self.kv(self.reduce(x, size)).unflatten(2, (2, self.num_heads, self.head_dim))
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)  # B, heads, M, head_dim
        x = self.attend(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class SpatialReductionAttention(Attention):
    """v1: a convolution turns every R x R tokens of the map into one, so M = N / R²."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        sr_ratio: int,
        qkv_bias: bool = True,
        kernel: str = "fused",
        num_prefix_tokens: int = 0,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias, kernel)
        self.num_prefix_tokens = num_prefix_tokens
        self.sr = nn.Conv2d(dim, dim, kernel_size=sr_ratio, stride=sr_ratio)
        self.norm = nn.LayerNorm(dim, eps=CONV_NORM_EPS)

    def reduce(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        reduced = self.norm(as_tokens(self.sr(as_map(x, size, self.num_prefix_tokens))))
        return with_prefix_of(reduced, x, self.num_prefix_tokens)


class LinearSpatialReductionAttention(Attention):
    """v2-Li: average pooling to P x P tokens whatever the map's size, so M = P² and the cost is linear in N."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        pool_size: int = 7,
        qkv_bias: bool = True,
        kernel: str = "fused",
        num_prefix_tokens: int = 0,
    ) -> None:
        super().__init__(dim, num_heads, qkv_bias, kernel)
        self.num_prefix_tokens = num_prefix_tokens
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        self.sr = nn.Conv2d(dim, dim, kernel_size=1)
        self.norm = nn.LayerNorm(dim, eps=CONV_NORM_EPS)
        self.act = nn.GELU()

    def reduce(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        pooled = self.pool(as_map(x, size, self.num_prefix_tokens))
        reduced = self.act(self.norm(as_tokens(self.sr(pooled))))
        return with_prefix_of(reduced, x, self.num_prefix_tokens)


def build_sra(config: PVTConfig, stage: int) -> Attention:
    """v1: spatial-reduction attention; with R = 1 it is plain attention."""
    dim, num_heads, sr_ratio = config.embed_dims[stage], config.num_heads[stage], config.sr_ratios[stage]
    if sr_ratio == 1:
        return Attention(dim, num_heads, config.qkv_bias, config.attention)
    prefix = config.num_prefix_tokens(stage)
    return SpatialReductionAttention(dim, num_heads, sr_ratio, config.qkv_bias, config.attention, prefix)


def build_linear_sra(config: PVTConfig, stage: int) -> LinearSpatialReductionAttention:
    """v2-Li: linear spatial-reduction attention."""
    dim, num_heads, prefix = config.embed_dims[stage], config.num_heads[stage], config.num_prefix_tokens(stage)
    return LinearSpatialReductionAttention(dim, num_heads, config.pool_size, config.qkv_bias, config.attention, prefix)
