"""Activation checkpointing: a block keeps its input for the backward pass, and runs anew there for all else it needs.

Memory is bought with time (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ablations.errors import refuse


def checkpoint_stages(model: nn.Module, stages: Iterable[int]) -> None:
    """Has each block of the given stages, counted from 1, checkpoint its activations whenever it trains.

    The model is changed in place; any will do whose blocks are in `stages[i].blocks`. Names and weights stay as they
    are, and so do outputs and gradients, with random layers too: they draw the same numbers when they run anew. In
    evaluation mode and without gradients nothing changes. The model can be copied, but no longer pickled. Raises
    InputError, before anything is changed, for a stage that the model does not have and a model without such blocks.
    """
    wanted = list(stages)
    blocks = _blocks_of_stages(model) if wanted else []
    for stage in wanted:
        if stage not in range(1, len(blocks) + 1):
            raise refuse("stage", stage, f"1 to {len(blocks)}")
    for stage in wanted:
        for block in blocks[stage - 1]:
            if not isinstance(block, _Checkpointed):
                # Not a module around the block, which would change the names of its weights.
                block.__class__ = type(type(block).__name__, (_Checkpointed, type(block)), {})


def _blocks_of_stages(model: nn.Module) -> list[Any]:
    stages = getattr(model, "stages", ())
    blocks = [getattr(stage, "blocks", None) for stage in stages] if isinstance(stages, Iterable) else []
    if not blocks or not all(isinstance(each, nn.ModuleList | nn.Sequential) for each in blocks):
        raise refuse("model", type(model).__name__, "where stages are checkpointed one with blocks in stages[i].blocks")
    return blocks


class _Checkpointed(nn.Module):
    """What a block of any kind becomes beside its own."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.training and torch.is_grad_enabled():
            return checkpoint(super().forward, *args, use_reentrant=False, **kwargs)
        return super().forward(*args, **kwargs)
