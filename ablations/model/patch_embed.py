"""Slot `patch_embed`, toggle `ope`: how a stage turns the map before it into tokens (PVT v2, 3.2)."""

from torch import Tensor, nn

from ablations.config import PVTConfig
from ablations.model.tokens import as_tokens

CONV_NORM_EPS = 1e-5
"""Of the LayerNorms after convolutions, as in the released code, where they have the framework's default."""


class PatchEmbed(nn.Module):
    """A strided convolution and a LayerNorm: (B, in_chans, H', W') to tokens (B, H·W, embed_dim) and (H, W).

    With kernel_size = stride and no padding (v1) patches tile the map, and what fills none at its right and lower
    border is dropped. With kernel_size = 2·stride - 1 and padding = stride - 1 (v2) they overlap.
    """

    def __init__(self, in_chans: int, embed_dim: int, kernel_size: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)
        self.norm = nn.LayerNorm(embed_dim, eps=CONV_NORM_EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.proj(x)
        return self.norm(as_tokens(x)), (x.shape[2], x.shape[3])


def build_patch_embed(config: PVTConfig, stage: int) -> PatchEmbed:
    """v1: S x S patches that tile the map."""
    in_chans, stride = (config.in_chans, *config.embed_dims)[stage], config.strides[stage]
    return PatchEmbed(in_chans, config.embed_dims[stage], kernel_size=stride, stride=stride)


def build_overlapping_patch_embed(config: PVTConfig, stage: int) -> PatchEmbed:
    """v2: windows of (2S-1) x (2S-1), S apart, with S-1 zeros around the map."""
    in_chans, stride = (config.in_chans, *config.embed_dims)[stage], config.strides[stage]
    return PatchEmbed(in_chans, config.embed_dims[stage], kernel_size=2 * stride - 1, stride=stride, padding=stride - 1)
