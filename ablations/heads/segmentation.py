"""Semantic FPN, the segmentation network of the paper's Table 5: the semantic branch of Panoptic FPN.

Kirillov et al., "Panoptic Feature Pyramid Networks" (2019), section 3.1; widths as there. The backbone's maps hold no
class token, on base v1 either.
"""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork

from ablations.dense_recipes import PYRAMID_WIDTH
from ablations.heads.detection import NUM_MAPS, four_widths

CHANNELS_PER_GROUP = 4
"""Of group norms: 128 channels in 32 groups."""


class UpsamplingBranch(nn.Module):
    """Brings a level of the pyramid to the finest: a map (B, `width`, H', W') to (B, `width` / 2, H, W).

    For each halving between the two, and once where there is none: 3x3 convolution, group norm, ReLU, and bilinear
    upsampling to the size of the next finer level.
    """

    def __init__(self, num_halvings: int, width: int) -> None:
        super().__init__()
        num_convs, inner = max(num_halvings, 1), width // 2
        widths = [width, *[inner] * (num_convs - 1)]
        norm = partial(nn.GroupNorm, inner // CHANNELS_PER_GROUP)
        self.convs = nn.ModuleList(Conv2dNormActivation(each, inner, norm_layer=norm) for each in widths)

    def forward(self, x: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """`sizes` are the (height, width) of the pyramid's levels, finest first."""
        for conv, size in zip(self.convs, sizes[len(self.convs) - 1 :: -1], strict=True):
            x = conv(x)
            if x.shape[2:] != size:
                x = F.interpolate(x, size, mode="bilinear")
        return x


class SemanticFPN(nn.Module):
    """Images (B, 3, H, W) to logits (B, num_classes, H, W), for any H and W that the backbone takes.

    The backbone returns a list of four maps, at strides 4, 8, 16 and 32, whose widths are `channels`. Raises
    InputError where those are not four.
    """

    def __init__(
        self, backbone: nn.Module, channels: Sequence[int], num_classes: int = 150, *, width: int = PYRAMID_WIDTH
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = FeaturePyramidNetwork(list(four_widths(channels)), width)
        self.branches = nn.ModuleList(UpsamplingBranch(level, width) for level in range(NUM_MAPS))
        self.head = nn.Conv2d(width // 2, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        maps = {str(level): feature_map for level, feature_map in enumerate(self.backbone(x))}
        pyramid = list(self.fpn(maps).values())
        sizes = [(level.shape[2], level.shape[3]) for level in pyramid]
        merged = self.branches[0](pyramid[0], sizes)
        for branch, level in zip(self.branches[1:], pyramid[1:], strict=True):
            merged = merged + branch(level, sizes)
        return F.interpolate(self.head(merged), (x.shape[2], x.shape[3]), mode="bilinear")
