"""The recipe that the conditions name: AdamW, and a cosine after a linear warm-up, step by step.

It is the official recipe (PVT v2, 4.1) without what 300 epochs need and small data sets do not: no mixup, cutmix,
RandAugment, random erasing or repeated augmentation.
"""

import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from ablations.design import Accuracy

CLIP_NORM = 1.0
"""Largest norm of the gradient, in every model. The official recipe clips those of the larger ones only."""

LOWEST = 0.01
"""The learning rate at both ends, over its peak."""


def build_optimizer(model: nn.Module, conditions: Accuracy) -> torch.optim.AdamW:
    """Returns AdamW at the peak learning rate.

    Biases, other one-dimensional parameters and those that `model.no_weight_decay()` names, if it has that, are not
    decayed.
    """
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    groups = param_groups_weight_decay(model, conditions.weight_decay, no_weight_decay_list=spared)
    return torch.optim.AdamW(groups, lr=conditions.base_lr, fused=True)


def build_schedule(optimizer: torch.optim.Optimizer, conditions: Accuracy, steps_per_epoch: int) -> CosineLRScheduler:
    """Returns the schedule, at its first step: `step_update(n)` sets the rate of the step that follows `n` steps.

    From 1 % of the peak the rate rises linearly to the peak, then falls along a cosine to 1 % after the last step.
    """
    warmup_steps = int(conditions.warmup_epochs * steps_per_epoch)
    lowest = LOWEST * conditions.base_lr
    return CosineLRScheduler(
        optimizer,
        t_initial=conditions.epochs * steps_per_epoch - warmup_steps,
        lr_min=lowest,
        warmup_t=warmup_steps,
        warmup_lr_init=lowest,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def autocast(conditions: Accuracy) -> torch.autocast:
    """Returns the context of a forward pass in the conditions' precision."""
    return torch.autocast(conditions.device, torch.bfloat16, enabled=conditions.precision == "bf16")
