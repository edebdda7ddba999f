"""Recipes: how a model is trained, as data. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ablations.conditions import condition
from ablations.errors import pick, refuse

Loading = Literal["in-memory", "streaming"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training from scratch: AdamW, a cosine after a linear warm-up, step by step, and the augmentation of images.

    Its defaults are those of `Small`.
    """

    data: str = "digits"
    """A data set that `list` shows, or the name of an image folder in the data directory."""
    resolution: int = condition(32, least=1, unit="px")
    """Side in pixels of the images as the model sees them; grey ones are given to all three channels."""
    loading: Loading = "in-memory"
    """`in-memory` decodes each image's centre square once, keeps it, and takes crops from it; `streaming` reads the
    images in every epoch and takes crops from whole images."""
    epochs: int = condition(20, least=1, unit="epochs")
    """Epochs of warm-up and cosine."""
    cooldown_epochs: int = condition(0, least=0, unit="epochs")
    """Epochs at the lowest learning rate after them."""
    batch_size: int = condition(64, least=1, unit="images")
    """Images of a step, in all processes together."""
    base_lr: float = 3e-3
    """Peak learning rate of AdamW, where `lr_base_size` does not scale it."""
    lr_base_size: int = condition(0, least=0, unit="images")
    """The peak is base_lr x batch_size / lr_base_size; 0 does not scale it."""
    weight_decay: float = condition(0.05, least=0)
    """Of AdamW; biases, norms and class tokens are not decayed."""
    warmup_epochs: float = condition(0.5, unit="epochs")
    """Epochs of linear rise of the learning rate, which the cosine follows."""
    warmup_lr_ratio: float = 0.01
    """Learning rate of the first step, over the peak."""
    min_lr_ratio: float = 0.01
    """Learning rate that the cosine ends at, over the peak."""
    clip_grad_norm: float | None = condition(1.0, least=0)
    """Largest norm of the gradient; 0 does not clip, None clips as released: at 1 in b3, b4 and b5 alone."""
    drop_path_rate: float | None = 0.0
    """Of the last block, in a linear rise; None is as released: 0.3 in b3, b4 and b5, else 0.1."""
    label_smoothing: float = 0.1
    """Share of the target that all classes divide among them."""
    mixup: float = condition(0.0, least=0)
    """Alpha of mixup; 0 is off. Where cutmix is on too, half of the batches has either."""
    cutmix: float = condition(0.0, least=0)
    """Alpha of cutmix; 0 is off."""
    min_crop_scale: float = 0.35
    """Least share of an image of more than 64 px a side that a random crop keeps; smaller ones are shifted."""
    rand_augment: str = ""
    """RandAugment in timm's words, such as rand-m9-mstd0.5-inc1, for streaming images; off where empty."""
    random_erasing: float = 0.0
    """Probability that a part of an image is replaced by noise."""
    aug_repeats: int = condition(1, least=1)
    """How often an epoch shows an image, cut differently each time; it shows the fewer images."""
    ema_decay: float = 0.0
    """Of the moving average of the weights that is evaluated instead of them, a step; 0 is off."""
    eval_every: int = condition(0, least=0, unit="epochs")
    """Epochs between evaluations on the way; 0 evaluates at the end alone, which is what counts."""

    @property
    def peak_lr(self) -> float:
        """The highest learning rate."""
        return self.base_lr * self.batch_size / self.lr_base_size if self.lr_base_size else self.base_lr

    @property
    def total_epochs(self) -> int:
        return self.epochs + self.cooldown_epochs

    def check(self) -> None:
        """Raises InputError for a recipe that cannot be trained."""
        if not self.base_lr > 0:
            raise refuse("base_lr", self.base_lr, "more than 0")
        for name in ("label_smoothing", "ema_decay", "drop_path_rate"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise refuse(name, getattr(self, name), "0 or more and less than 1")
        for name in ("warmup_lr_ratio", "min_lr_ratio", "random_erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise refuse(name, getattr(self, name), "0 to 1")
        if not 0 < self.min_crop_scale <= 1:
            raise refuse("min_crop_scale", self.min_crop_scale, "more than 0, up to 1")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise refuse("warmup_epochs", self.warmup_epochs, f"0 or more and less than epochs, {self.epochs}")
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise refuse("batch_size", self.batch_size, "an even number with mixup or cutmix, which mix pairs")
        if self.rand_augment and self.loading != "streaming":
            raise refuse("rand_augment", self.rand_augment, "nothing for in-memory images: use loading=streaming")


@dataclass(frozen=True, kw_only=True)
class Small(Recipe):
    """For small images and small sets: the paper's recipe without what hundreds of epochs need.

    Source: PVT v2, 4.1, less mixup, cutmix, RandAugment, random erasing and repeated augmentation; learning rate and
    shifts by what was tried on Fashion-MNIST (results/LOG.md). Expect what results/tables/comparison.md says.
    """


@dataclass(frozen=True, kw_only=True)
class Smoke(Recipe):
    """For tests: an epoch of digits, to see that all of it runs. Expect hardly more than chance."""

    epochs: int = 1
    batch_size: int = 128
    warmup_epochs: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Paper(Recipe):
    """The official recipe for ImageNet-1k: 300 epochs and 10 at the lowest rate, batches of 1024.

    Source: PVT v2, 4.1, and the released code. The rate rises from 1e-6 to 1e-3 and falls to 1e-5, here step by step
    and there epoch by epoch; a batch is mixed as one, where there each GPU mixes its own part. Expect the paper's top-1
    (Table 2) within what two runs differ by, about 0.2 points; nobody has run it with this code yet.
    """

    data: str = "imagenet"
    resolution: int = 224
    loading: Loading = "streaming"
    epochs: int = 300
    cooldown_epochs: int = 10
    batch_size: int = 1024
    base_lr: float = 5e-4
    lr_base_size: int = 512
    warmup_epochs: float = 5.0
    warmup_lr_ratio: float = 0.001
    clip_grad_norm: float | None = None
    drop_path_rate: float | None = None
    mixup: float = 0.8
    cutmix: float = 1.0
    min_crop_scale: float = 0.08
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    random_erasing: float = 0.25
    aug_repeats: int = 3


RECIPES: dict[str, type[Recipe]] = {"small": Small, "smoke": Smoke, "paper": Paper}
"""Every recipe by its name; a new one is an entry."""

if TYPE_CHECKING:
    RecipeName = str
else:
    RecipeName = Literal[tuple(RECIPES)]  # what the command line offers

DEEP_VARIANTS = ("b3", "b4", "b5")
"""Those that the released code trains with more drop path and a clipped gradient; PVT v1's medium and large too."""


def recipe_values(name: str, recipes: Mapping[str, type] = MappingProxyType(RECIPES)) -> dict[str, Any]:
    """Returns the fields of a recipe by its name among `recipes`; raises InputError for an unknown one."""
    return dict(vars(recipes[pick("recipe", name, recipes)]()))


def as_released(variant: str) -> dict[str, float]:
    """Returns the clipping and the drop path of a variant's released training; another model's are the small ones."""
    deep = variant in DEEP_VARIANTS
    return {"clip_grad_norm": 1.0 if deep else 0.0, "drop_path_rate": 0.3 if deep else 0.1}
