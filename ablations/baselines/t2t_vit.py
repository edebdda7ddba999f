"""T2T-ViT_t: Yuan et al., "Tokens-to-Token ViT: Training Vision Transformers from Scratch on ImageNet" (ICCV 2021).

Published (Table 3): t-14 21.5 M parameters and 6.1 G MACs, t-19 39.2 M and 9.8 G, t-24 64.1 M and 15.0 G. The
`t` stands for the transformer in the tokens-to-token module, where other T2T-ViTs have a Performer. The published
parameters include the position embedding, which is fixed: here it is computed and no parameter. Read from the top:
leaf to root.
"""

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ablations.model.pvt import ClassToken, check_images
from ablations.model.tokens import as_map

TOKEN_DIM = 64
"""Width of the tokens that the tokens-to-token module's transformers give (Table 1)."""


def soft_split(x: Tensor, kernel_size: int, stride: int, padding: int) -> tuple[Tensor, tuple[int, int]]:
    """Flattens overlapping windows to tokens: (B, C, H, W) to (B, N, C·K²), and their map's size."""
    tokens = F.unfold(x, kernel_size, padding=padding, stride=stride).transpose(1, 2)
    height, width = ((side + 2 * padding - kernel_size) // stride + 1 for side in x.shape[2:])
    return tokens, (height, width)


class TokenTransformer(nn.Module):
    """One-headed attention that narrows tokens, and a feed-forward: (B, N, dim) to (B, N, TOKEN_DIM).

    The tokens that come in are too wide for the first residual, so the values stand in for them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = dim**-0.5  # by the width of what comes in, as in the released code
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * TOKEN_DIM, bias=False)
        self.proj = nn.Linear(TOKEN_DIM, TOKEN_DIM)
        self.norm2 = nn.LayerNorm(TOKEN_DIM)
        self.mlp = Mlp(TOKEN_DIM)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unsqueeze(1).chunk(3, dim=-1)  # B, 1, N, TOKEN_DIM
        x = (v + self.proj(F.scaled_dot_product_attention(q, k, v, scale=self.scale))).squeeze(1)
        return x + self.mlp(self.norm2(x))


class TokensToToken(nn.Module):
    """Three soft splits, a transformer after each of the first two: (B, 3, H, W) to tokens (B, N, dim).

    The strides are 4, 2 and 2, so N is 14 x 14 at 224 px.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.transformer1 = TokenTransformer(3 * 7 * 7)
        self.transformer2 = TokenTransformer(TOKEN_DIM * 3 * 3)
        self.project = nn.Linear(TOKEN_DIM * 3 * 3, dim)

    def forward(self, x: Tensor) -> Tensor:
        x, size = soft_split(x, kernel_size=7, stride=4, padding=2)
        x, size = soft_split(as_map(self.transformer1(x), size), kernel_size=3, stride=2, padding=1)
        x, _ = soft_split(as_map(self.transformer2(x), size), kernel_size=3, stride=2, padding=1)
        return self.project(x)


def sinusoids(tokens: Tensor) -> Tensor:
    """The position embedding (N, C) of tokens (B, N, C): channels 2i and 2i+1 are sin and cos of p / 10000^(2i/C)."""
    _, length, dim = tokens.shape
    positions = torch.arange(length, device=tokens.device, dtype=torch.float32)
    exponents = torch.arange(0, dim, 2, device=tokens.device, dtype=torch.float32) / dim
    angles = positions[:, None] / 10000.0**exponents
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(tokens.dtype)


class T2TViT(nn.Module):
    """Images (B, 3, H, W) to logits (B, num_classes); raises InputError for sides under 16 pixels.

    The class token has the first position, the map's tokens follow in row order.
    """

    def __init__(self, dim: int, depth: int, num_heads: int, num_classes: int) -> None:
        super().__init__()
        self.tokens_to_token = TokensToToken(dim)
        self.class_token = ClassToken(dim)
        blocks = (Block(dim, num_heads, mlp_ratio=3.0, qkv_bias=False, norm_layer=nn.LayerNorm) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, in_chans=3, smallest_side=16)
        x = self.class_token(self.tokens_to_token(x))
        x = self.blocks(x + sinusoids(x))
        return self.head(self.norm(x)[:, 0])


def t2t_vit_t_14(num_classes: int = 1000) -> T2TViT:
    """T2T-ViT_t-14: 14 blocks of width 384, with fresh weights."""
    return T2TViT(dim=384, depth=14, num_heads=6, num_classes=num_classes)


def t2t_vit_t_19(num_classes: int = 1000) -> T2TViT:
    """T2T-ViT_t-19: 19 blocks of width 448, with fresh weights."""
    return T2TViT(dim=448, depth=19, num_heads=7, num_classes=num_classes)


def t2t_vit_t_24(num_classes: int = 1000) -> T2TViT:
    """T2T-ViT_t-24: 24 blocks of width 512, with fresh weights."""
    return T2TViT(dim=512, depth=24, num_heads=8, num_classes=num_classes)
