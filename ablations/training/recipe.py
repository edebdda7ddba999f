"""From a recipe to what it trains with: optimiser, schedule, mixing, loss, precision."""

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from ablations.measure import Accuracy

# timm warns of a cosine of a single step, which is right: that step has the peak rate.
logging.getLogger("timm.scheduler").setLevel(logging.ERROR)

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (B, K) and labels (B,), or targets (B, K) where they are mixed, to the mean."""


def build_optimizer(model: nn.Module, conditions: Accuracy) -> torch.optim.AdamW:
    """Returns AdamW at the peak learning rate.

    Biases, other one-dimensional parameters and those that `model.no_weight_decay()` names, if it has that, are not
    decayed.
    """
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    groups = param_groups_weight_decay(model, conditions.weight_decay, no_weight_decay_list=spared)
    return torch.optim.AdamW(groups, lr=conditions.peak_lr, fused=True)


def build_schedule(optimizer: torch.optim.Optimizer, conditions: Accuracy, steps_per_epoch: int) -> CosineLRScheduler:
    """Returns the schedule, at its first step: `step_update(n)` sets the rate of the step that follows `n` steps.

    The rate rises linearly to the peak, then falls along a cosine to the lowest, where it stays.
    """
    warmup_steps = int(conditions.warmup_epochs * steps_per_epoch)
    return CosineLRScheduler(
        optimizer,
        t_initial=conditions.epochs * steps_per_epoch - warmup_steps,
        lr_min=conditions.min_lr_ratio * conditions.peak_lr,
        warmup_t=warmup_steps,
        warmup_lr_init=conditions.warmup_lr_ratio * conditions.peak_lr,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def build_mixup(conditions: Accuracy) -> Mixup | None:
    """Returns what mixes a batch with itself in reverse, or None; it draws from NumPy's global generator."""
    if not (conditions.mixup or conditions.cutmix):
        return None
    return Mixup(
        mixup_alpha=conditions.mixup,
        cutmix_alpha=conditions.cutmix,
        label_smoothing=conditions.label_smoothing,
        num_classes=conditions.num_classes,
    )


def build_loss(conditions: Accuracy) -> Loss:
    """Returns the cross-entropy with smoothed labels, or with mixed targets, which are smoothed already."""
    if conditions.mixup or conditions.cutmix:
        soft = SoftTargetCrossEntropy()
        return lambda logits, targets: soft(logits.float(), targets)  # a CPU's autocast would leave it in bfloat16

    def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=conditions.label_smoothing)

    return smoothed


def autocast(conditions: Accuracy) -> torch.autocast:
    """Returns the context of a forward pass in the conditions' precision."""
    return torch.autocast(conditions.device, torch.bfloat16, enabled=conditions.precision == "bf16")
