"""Compiling a model for one cell."""

import torch
from torch import nn


def compile_alone(model: nn.Module) -> None:
    """Compiles a model in place, for static shapes, and forgets what was compiled before in this process.

    Left alone, torch takes symbolic sizes at the second size that it meets: training then fails (torch 2.14), and a
    cell's kernels depend on the cells before it.
    """
    torch._dynamo.reset()
    model.compile(dynamic=False)
