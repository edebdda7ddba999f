"""Toggle `overlapping_patch_embed`: how a stage turns the map before it into tokens (PVT v2, 3.2)."""

from torch import Tensor, nn

from ablations.config import PVTConfig
from ablations.model.tokens import as_tokens


class ConvEmbed(nn.Module):
    """A strided convolution and a LayerNorm: (B, in_chans, H, W) to tokens (B, N, embed_dim) and their map's size."""

    def __init__(self, in_chans: int, embed_dim: int, stride: int, kernel_size: int, padding: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size, stride, padding)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.proj(x)
        return self.norm(as_tokens(x)), (x.shape[2], x.shape[3])


class PatchEmbed(ConvEmbed):
    """v1: patches of S x S that tile the map; what does not fill a patch at the right or below is dropped."""

    def __init__(self, in_chans: int, embed_dim: int, stride: int) -> None:
        super().__init__(in_chans, embed_dim, stride, kernel_size=stride, padding=0)


class OverlappingPatchEmbed(ConvEmbed):
    """v2: windows of (2S-1) x (2S-1), S apart, with S-1 zeros around the map."""

    def __init__(self, in_chans: int, embed_dim: int, stride: int) -> None:
        super().__init__(in_chans, embed_dim, stride, kernel_size=2 * stride - 1, padding=stride - 1)


def build_patch_embed(config: PVTConfig, stage: int) -> ConvEmbed:
    """Returns the patch embedding of a stage (0 to 3)."""
    patch_embed = OverlappingPatchEmbed if config.overlapping_patch_embed else PatchEmbed
    in_chans = (config.in_chans, *config.embed_dims)[stage]
    return patch_embed(in_chans, config.embed_dims[stage], config.strides[stage])
