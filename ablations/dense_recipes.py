"""Recipes of detection and segmentation, as data. Needs no torch."""

from dataclasses import dataclass
from typing import Literal

from ablations.conditions import condition
from ablations.config import LARGEST_INPUT
from ablations.errors import refuse

Decay = Literal["steps", "poly"]

DEEPEST_VARIANTS = ("b4", "b5")
"""Those whose detectors the released code trains with a lower learning rate."""

PYRAMID_WIDTH = 256
"""Channels of the paper's feature pyramids."""


@dataclass(frozen=True, kw_only=True)
class DenseRecipe:
    """What training a detector and training a segmentation network have in common: AdamW on all parameters alike."""

    data: str = "bccd"
    """A data set that `list` shows, or the name of a folder in the data directory."""
    resolution: int = condition(160, least=32, unit="px")
    """Short side in pixels that images are resized to for a detector; side of the crops that segmentation trains on."""
    long_side: int = condition(1333, least=32, unit="px")
    """Pixels that an image's long side has at most when it is resized."""
    pyramid_width: int = condition(64, least=32, unit="channels")
    """Channels of the feature pyramid; 256 in the paper."""
    epochs: int = condition(12, least=1, unit="epochs")
    """Epochs of training, where `iterations` is 0."""
    iterations: int = condition(0, least=0, unit="steps")
    """Steps of training; 0 trains for `epochs`."""
    batch_size: int = condition(8, least=1, unit="images")
    """Images of a step, in all processes together."""
    accumulation: int = condition(1, least=1, unit="parts")
    """Parts that a process's share of a batch is trained in, whose gradients are added up: less memory, more time."""
    base_lr: float | None = 1e-3
    """Peak learning rate of AdamW; None is as released."""
    weight_decay: float = condition(1e-4, least=0)
    """Of AdamW, for all parameters."""
    decay: Decay = "poly"
    """How the rate falls: by `decay_rate` after each of `decay_epochs`, or to 0 as a power of the steps left."""
    decay_epochs: tuple[int, ...] = condition((8, 11), unit="epochs")
    """Epochs after which the rate falls, with decay=steps."""
    decay_rate: float = 0.1
    """What the rate is multiplied by then."""
    poly_power: float = condition(0.9, least=0)
    """The power, with decay=poly."""
    warmup_steps: int = condition(100, least=0, unit="steps")
    """Steps of linear rise of the learning rate."""
    warmup_ratio: float = 0.001
    """Learning rate of the first step, over the peak."""
    clip_grad_norm: float = condition(1.0, least=0)
    """Largest norm of the gradient; 0 does not clip."""
    drop_path_rate: float = 0.0
    """Of the last block, in a linear rise."""
    distortion: bool = False
    """Change brightness, contrast, saturation and hue of training images at random."""
    ema_decay: float = 0.0
    """Of the moving average of the weights that is evaluated instead of them, a step; 0 is off."""
    eval_every: int = condition(0, least=0, unit="epochs")
    """Epochs between evaluations on the way; 0 evaluates at the end alone, which is what counts."""

    @property
    def peak_lr(self) -> float:
        """The highest learning rate."""
        assert self.base_lr is not None, "as_released fills it in"
        return self.base_lr

    def check(self) -> None:
        """Raises InputError for a recipe that cannot be trained."""
        if self.base_lr is not None and not self.base_lr > 0:
            raise refuse("base_lr", self.base_lr, "more than 0")
        for name in ("ema_decay", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise refuse(name, getattr(self, name), "0 or more and less than 1")
        for name in ("warmup_ratio", "decay_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise refuse(name, getattr(self, name), "more than 0, up to 1")
        if self.pyramid_width % 32:
            raise refuse("pyramid_width", self.pyramid_width, "a multiple of 32, which group norms divide")
        if not self.resolution <= self.long_side <= LARGEST_INPUT:
            raise refuse("long_side", self.long_side, f"resolution, {self.resolution}, to {LARGEST_INPUT} pixels")
        if self.batch_size % self.accumulation:
            raise refuse("accumulation", self.accumulation, f"a divisor of batch_size, {self.batch_size}")
        if list(self.decay_epochs) != sorted(set(self.decay_epochs)) or any(each < 1 for each in self.decay_epochs):
            raise refuse("decay_epochs", self.decay_epochs, "epochs of 1 or more, rising")


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(DenseRecipe):
    """Training a detector; its defaults are those of `SmallDetection`."""

    smallest_anchor: int = condition(32, least=1, unit="px")
    """Side in pixels of the smallest anchor box, in resized images; the next are twice as large each."""
    flip: float = 0.5
    """Probability that a training image is mirrored."""


@dataclass(frozen=True, kw_only=True)
class SmallDetection(DetectionRecipe):
    """For some hundreds of images, from scratch, on a CPU: a narrow pyramid and small images.

    It shows that the pipeline learns. A detector from scratch needs about ten thousand images before its AP says
    something about the backbone (He et al. 2019, "Rethinking ImageNet Pre-training"). Expect what the table of
    detection in results says of BCCD.
    """

    data: str = "bccd"
    resolution: int = 160
    smallest_anchor: int = 8
    epochs: int = 60


@dataclass(frozen=True, kw_only=True)
class CocoOneTimes(DetectionRecipe):
    """The schedule 1x on COCO: 12 epochs, batches of 16, images to 800 and at most 1333 pixels.

    Source: PVT v2, 4.2, and the released configurations: 1e-4 for RetinaNet (and FCOS), 2e-4 for Mask R-CNN, in b4 and
    b5 divided by 1.4. They begin from ImageNet's weights: give `--init`. Expect the paper's AP (Table 3) within some
    tenths of a point; nobody has run it with this code yet.
    """

    data: str = "coco"
    resolution: int = 800
    pyramid_width: int = PYRAMID_WIDTH
    batch_size: int = 16
    base_lr: float | None = None
    decay: Decay = "steps"
    warmup_steps: int = 500
    clip_grad_norm: float = 0.0
    drop_path_rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(DenseRecipe):
    """Training a segmentation network on crops; its defaults are those of `SmallSegmentation`."""

    data: str = "camvid"
    resolution: int = condition(128, least=32, unit="px")
    """Side in pixels of the square crops that it is trained on."""
    short_side: int = condition(180, least=32, unit="px")
    """Pixels that an image's short side is resized to before it is scaled, and for testing, where sides are rounded up
    to multiples of 32."""
    min_scale: float = 0.5
    """Smallest random scale of a training image, over `short_side`."""
    max_scale: float = 2.0
    """Largest random scale."""
    max_class_share: float = 0.75
    """Most of a crop's labelled pixels that one class may have; another crop is drawn else, up to ten times."""
    flip: float = 0.5
    """Probability that a training image is mirrored."""
    distortion: bool = True
    """Change brightness, contrast, saturation and hue of training images at random."""

    def check(self) -> None:
        """Raises InputError for a recipe that cannot be trained."""
        DenseRecipe.check(self)
        if not 0 < self.min_scale <= self.max_scale:
            raise refuse("min_scale", self.min_scale, f"more than 0, up to max_scale, {self.max_scale}")
        if not 0 < self.max_class_share <= 1:
            raise refuse("max_class_share", self.max_class_share, "more than 0, up to 1")
        if not self.short_side <= self.long_side:
            raise refuse("short_side", self.short_side, f"32 to long_side, {self.long_side}")


@dataclass(frozen=True, kw_only=True)
class SmallSegmentation(SegmentationRecipe):
    """For some hundreds of images, from scratch, on a CPU: a narrow pyramid, small crops.

    Scales, crops, distortion and decay are those of ade20k-40k. Expect what the table of segmentation in results says
    of CamVid.
    """

    epochs: int = 60


@dataclass(frozen=True, kw_only=True)
class Ade20kOf40k(SegmentationRecipe):
    """Semantic FPN on ADE20K: 40,000 steps of 32 crops of 512 pixels.

    Source: PVT v2, 4.3, and the released configuration. It begins from ImageNet's weights: give `--init`. Expect the
    paper's mIoU (Table 5) within about a point; nobody has run it with this code yet.
    """

    data: str = "ade20k"
    resolution: int = 512
    short_side: int = 512
    long_side: int = 2048
    pyramid_width: int = PYRAMID_WIDTH
    iterations: int = 40_000
    batch_size: int = 32
    base_lr: float | None = 2e-4
    warmup_steps: int = 0
    clip_grad_norm: float = 0.0
    drop_path_rate: float = 0.1


DETECTION_RECIPES: dict[str, type[DetectionRecipe]] = {"small": SmallDetection, "coco-1x": CocoOneTimes}
"""Every recipe of detection by its name; a new one is an entry."""

SEGMENTATION_RECIPES: dict[str, type[SegmentationRecipe]] = {"small": SmallSegmentation, "ade20k-40k": Ade20kOf40k}
"""Every recipe of segmentation by its name; a new one is an entry."""


def released_lr(head: str, variant: str) -> float:
    """Returns the learning rate of a released training with this head."""
    lr = 2e-4 if head in ("mask_rcnn", "semantic_fpn") else 1e-4
    return lr / 1.4 if variant in DEEPEST_VARIANTS and head != "semantic_fpn" else lr
