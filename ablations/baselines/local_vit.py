"""LocalViT: Li et al., "LocalViT: Bringing Locality to Vision Transformers" (2021).

DeiT with another feed-forward: 1x1 convolution, 3x3 depth-wise convolution, 1x1 convolution, with batch norms, h-swish
and squeeze-and-excitation, on the map alone; the class token passes by. Published: T 5.9 M parameters and 1.3 G
MACs, S 22.4 M and 4.6 G. Heads and the width of the squeeze, which the counts cannot tell or the name does
not say, are the released code's. Read from the top: leaf to root.
"""

from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, SqueezeExcitation

from ablations.model.pvt import ClassToken, PositionEmbedding, check_images
from ablations.model.tokens import as_map, as_tokens, with_prefix_of

DEPTH = 12
PATCH_SIZE = 16  # pixels a side
GRID = (14, 14)  # tokens of an image of 224 x 224 px, for which the position embedding is made
SQUEEZED_DIM = 4  # the hidden width over a reduction of 192 in T, of 384 in S


class LocalFeedForward(nn.Module):
    """Feed-forward with locality and its residual, on a map: (B, dim, H, W) to tokens (B, H·W, dim).

    Batch norms take the place of the LayerNorm that stands before DeiT's.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden_dim = 4 * dim
        h_swish = nn.Hardswish
        self.convs = nn.Sequential(
            Conv2dNormActivation(dim, hidden_dim, kernel_size=1, activation_layer=h_swish),
            Conv2dNormActivation(hidden_dim, hidden_dim, kernel_size=3, groups=hidden_dim, activation_layer=h_swish),
            SqueezeExcitation(hidden_dim, SQUEEZED_DIM, scale_activation=nn.Hardsigmoid),
            Conv2dNormActivation(hidden_dim, dim, kernel_size=1, activation_layer=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return as_tokens(x + self.convs(x))


class LocalBlock(nn.Module):
    """Attention of all tokens and feed-forward of the map's: (B, 1 + N, C) to (B, 1 + N, C)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, qkv_bias=True)
        self.mlp = LocalFeedForward(dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return with_prefix_of(self.mlp(as_map(x, size, 1)), x, 1)


class LocalViT(nn.Module):
    """Images (B, 3, H, W) to logits (B, num_classes); raises InputError for sides under PATCH_SIZE pixels.

    What does not fill a patch at the right or below is dropped. Where the map is not GRID, the position embedding is
    resized to it bilinearly.
    """

    def __init__(self, dim: int, num_heads: int, num_classes: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
        self.class_token = ClassToken(dim)
        self.position_embedding = PositionEmbedding(dim, GRID, num_prefix_tokens=1)
        self.blocks = nn.ModuleList(LocalBlock(dim, num_heads) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, in_chans=3, smallest_side=PATCH_SIZE)
        feature_map = self.patch_embed(x)
        size = (feature_map.shape[2], feature_map.shape[3])
        x = self.position_embedding(self.class_token(as_tokens(feature_map)), size)
        for block in self.blocks:
            x = block(x, size)
        return self.head(self.norm(x)[:, 0])


def localvit_t(num_classes: int = 1000) -> LocalViT:
    """LocalViT-T, from DeiT-T, with fresh weights."""
    return LocalViT(dim=192, num_heads=4, num_classes=num_classes)


def localvit_s(num_classes: int = 1000) -> LocalViT:
    """LocalViT-S, from DeiT-S, with fresh weights."""
    return LocalViT(dim=384, num_heads=8, num_classes=num_classes)
