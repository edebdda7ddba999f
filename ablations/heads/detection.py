"""The detectors of the paper's Tables 3, 4 and 6 around any backbone; their parts are torchvision's.

A backbone takes images (B, 3, H, W) and returns a list of four maps, at strides 4, 8, 16 and 32; `channels` are
their widths. A PVT on base v1 joins its class token for the classifier alone: as in the released detectors, a backbone
has none. Layers, anchors and score thresholds are those that the paper took from mmdetection. Where torchvision's
layers differ, its stay: a ReLU before P7, and in Mask R-CNN a box and a mask for the background too (0.004 M
parameters).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FCOS, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from ablations.dense_recipes import PYRAMID_WIDTH
from ablations.errors import InputError, refuse

NUM_MAPS = 4  # C2 to C5

ANCHOR_LEVELS = 5
"""Of a RetinaNet and of a Mask R-CNN: P3 to P7, and P2 to P6."""


class PyramidBackbone(nn.Module):
    """A backbone with a feature pyramid: images (B, 3, H, W) to maps (B, width, H', W') by name, finest first.

    `num_maps` is how many of the backbone's maps the pyramid takes, the coarsest ones; `extra_blocks` makes the levels
    beyond. Raises InputError where `channels` are not four widths.
    """

    def __init__(
        self, backbone: nn.Module, channels: Sequence[int], num_maps: int, extra_blocks: ExtraFPNBlock, width: int
    ) -> None:
        super().__init__()
        self.out_channels = width  # read by torchvision's detectors
        self.num_maps = num_maps
        self.body = backbone
        self.fpn = FeaturePyramidNetwork(list(four_widths(channels)[-num_maps:]), width, extra_blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.body(x)[-self.num_maps :]
        return self.fpn({str(level): feature_map for level, feature_map in enumerate(maps)})


def four_widths(channels: Sequence[int]) -> Sequence[int]:
    """Returns `channels`; raises InputError where they are not the widths of four maps."""
    if len(channels) != NUM_MAPS or min(channels) < 1:
        raise refuse("channels", tuple(channels), f"{NUM_MAPS} widths of 1 or more, one a map from stride 4 to 32")
    return channels


def _anchors(smallest: int, scales: Sequence[float]) -> AnchorGenerator:
    """Returns boxes of three shapes in each of the `scales` at each place, twice as large from level to level."""
    sizes = tuple(tuple(int(smallest * 2**level * scale) for scale in scales) for level in range(ANCHOR_LEVELS))
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * ANCHOR_LEVELS)


def build_retinanet(
    backbone: nn.Module,
    channels: Sequence[int],
    num_classes: int = 80,
    *,
    width: int = PYRAMID_WIDTH,
    smallest_anchor: int = 32,
    **options: Any,
) -> RetinaNet:
    """Returns a RetinaNet (Lin et al. 2017): a pyramid from C3, P6 from C5, P7 from P6, nine anchors at each place.

    Labels are 0 to `num_classes` - 1; `smallest_anchor` is in pixels, and `options` are torchvision's. Raises
    InputError where `channels` are not four widths.
    """
    extra_blocks = LastLevelP6P7(four_widths(channels)[-1], width)
    # torchvision takes P5 where C5 happens to have P5's width, as PVT v2-B0's has.
    extra_blocks.use_P5 = False
    pyramid = PyramidBackbone(backbone, channels, num_maps=3, extra_blocks=extra_blocks, width=width)
    anchors = _anchors(smallest_anchor, [2 ** (third / 3) for third in range(3)])
    options = {"detections_per_img": 100} | options
    return RetinaNet(pyramid, num_classes, anchor_generator=anchors, **options)


def build_fcos(
    backbone: nn.Module,
    channels: Sequence[int],
    num_classes: int = 80,
    *,
    width: int = PYRAMID_WIDTH,
    smallest_anchor: int = 32,
    **options: Any,
) -> FCOS:
    """Returns an FCOS (Tian et al. 2019): a pyramid from C3, P6 from P5, P7 from P6, one anchor at each place.

    It stands for ATSS (Zhang et al. 2020), which differs in how training samples are assigned: the layers are the same
    but for the biases before group norms and a scale for each level (0.002 M parameters). Labels are 0 to
    `num_classes` - 1; an anchor is a quarter of the smallest in a RetinaNet, and twice as large from level to level;
    `options` are torchvision's. Raises InputError where `channels` are not four widths.
    """
    extra_blocks = LastLevelP6P7(width, width)
    pyramid = PyramidBackbone(backbone, channels, num_maps=3, extra_blocks=extra_blocks, width=width)
    sizes = tuple((max(smallest_anchor // 4, 1) * 2**level,) for level in range(ANCHOR_LEVELS))
    anchors = AnchorGenerator(sizes, ((1.0,),) * ANCHOR_LEVELS)
    options = {"score_thresh": 0.05} | options
    return FCOS(pyramid, num_classes, anchor_generator=anchors, **options)


def build_mask_rcnn(
    backbone: nn.Module,
    channels: Sequence[int],
    num_classes: int = 80,
    *,
    width: int = PYRAMID_WIDTH,
    smallest_anchor: int = 32,
    **options: Any,
) -> MaskRCNN:
    """Returns a Mask R-CNN (He et al. 2017): a pyramid from C2, P6 by pooling P5, three anchors at each place.

    Labels are 1 to `num_classes`; 0 is the background. `smallest_anchor` is in pixels, and `options` are torchvision's.
    Raises InputError where `channels` are not four widths.
    """
    pyramid = PyramidBackbone(backbone, channels, num_maps=NUM_MAPS, extra_blocks=LastLevelMaxPool(), width=width)
    anchors = _anchors(smallest_anchor, [1.0])
    return MaskRCNN(pyramid, num_classes + 1, rpn_anchor_generator=anchors, **options)


class DensePart(nn.Module):
    """What a one-stage detector does to every place of an image, whatever is in it: all but resizing and selecting.

    Images (B, 3, H, W), normalised, to the head's outputs, (B, places and anchors, numbers) by name. The layers are
    shared with the detector.
    """

    def __init__(self, detector: RetinaNet | FCOS) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.head(list(self.backbone(x).values()))


def dense_part(detector: nn.Module) -> DensePart:
    """Returns the part of a detector whose cost an image's size decides.

    Raises InputError for a detector of two stages: most of its second stage's work depends on what the first proposes.
    """
    if not isinstance(detector, RetinaNet | FCOS):
        raise InputError(f"{type(detector).__name__} has no dense part; allowed: RetinaNet, FCOS")
    return DensePart(detector)
