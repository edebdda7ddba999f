"""CPVT: Chu et al., "Conditional Positional Encodings for Vision Transformers" (2021; ICLR 2023).

DeiT without position embedding: after the first block, a position encoding generator (a 3x3 depth-wise convolution
with zero padding and a residual) lets each token know its neighbours and the border. This is the paper's default, with
one generator and a class token (its Figure 1b); CPVT-GAP and several generators are its variants. Published: Ti 6 M
parameters, S 22 M (later tables report 23 M), and 0.34 M MACs more than DeiT-Ti for Ti's generator. Read from
the top: leaf to root. LayerNorm is timm's, whose eps is DeiT's.
"""

import torch
from timm.layers import LayerNorm
from timm.models.twins import PosConv
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ablations.model.pvt import ClassToken, check_images
from ablations.model.tokens import as_tokens

DEPTH = 12
PATCH_SIZE = 16  # pixels a side


class PositionEncodingGenerator(nn.Module):
    """The generator on tokens (B, 1 + N, C) of a map of `size`: the class token passes by."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = PosConv(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return torch.cat([x[:, :1], self.conv(x[:, 1:], size)], dim=1)


class CPVT(nn.Module):
    """Images (B, 3, H, W) to logits (B, num_classes); raises InputError for sides under PATCH_SIZE pixels.

    What does not fill a patch at the right or below is dropped.
    """

    def __init__(self, dim: int, num_heads: int, num_classes: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
        self.class_token = ClassToken(dim)
        blocks = [Block(dim, num_heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(DEPTH)]
        self.first_block = blocks[0]
        self.position = PositionEncodingGenerator(dim)
        self.blocks = nn.Sequential(*blocks[1:])
        self.norm = LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, in_chans=3, smallest_side=PATCH_SIZE)
        feature_map = self.patch_embed(x)
        size = (feature_map.shape[2], feature_map.shape[3])
        x = self.first_block(self.class_token(as_tokens(feature_map)))
        x = self.blocks(self.position(x, size))
        return self.head(self.norm(x)[:, 0])


def cpvt_ti(num_classes: int = 1000) -> CPVT:
    """CPVT-Ti, the size of DeiT-Ti, with fresh weights."""
    return CPVT(dim=192, num_heads=3, num_classes=num_classes)


def cpvt_s(num_classes: int = 1000) -> CPVT:
    """CPVT-S, the size of DeiT-S, with fresh weights."""
    return CPVT(dim=384, num_heads=6, num_classes=num_classes)
