"""Two of torch's layers, computed in another way: the same parameters, results and memory, in less time."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear layer that on a CPU adds its bias to the finished product: (..., in_features) to (..., out_features).

    There torch lays the bias out in every row first, for the product to be added to, which takes longer. Products on
    CUDA and under autocast add it by themselves.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None or not x.is_cpu or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return F.linear(x, self.weight).add_(self.bias)


class PatchConv2d(nn.Conv2d):
    """A convolution whose stride is its kernel: a map (B, in, H, W) to (B, out, H // R, W // R).

    Its patches do not overlap, so each is one row of a matrix product, whose gradients are products again. In training
    on a CPU those are faster than a convolution's.
    """

    def __init__(self, in_channels: int, out_channels: int, patch_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or x.is_cuda or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return _PatchProduct.apply(x, self.weight, self.bias)


class _PatchProduct(torch.autograd.Function):
    """The product of patches and kernels. It keeps the map and not the rows made of it, which would be as large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        batch, _, height, width = x.shape
        size = weight.shape[-1]
        product = F.linear(_as_rows(x, size), _as_rows(weight, size), bias)
        return product.view(batch, height // size, width // size, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        size = weight.shape[-1]
        rows = _as_rows(grad, 1)
        grad_x = _as_map(rows @ _as_rows(weight, size), x.shape, size) if ctx.needs_input_grad[0] else None
        return grad_x, _as_map(rows.T @ _as_rows(x, size), weight.shape, size), rows.sum(0)


def _as_rows(feature_map: Tensor, size: int) -> Tensor:
    """Lays the patches of a map (B, C, H, W) out as rows (B · H // size · W // size, size · size · C)."""
    height, width = (side // size for side in feature_map.shape[2:])
    tiled = feature_map.permute(0, 2, 3, 1)[:, : height * size, : width * size]
    return tiled.unflatten(2, (width, size)).unflatten(1, (height, size)).transpose(2, 3).flatten(3).flatten(0, 2)


def _as_map(rows: Tensor, shape: torch.Size, size: int) -> Tensor:
    """Lays rows back as the patches of a map of `shape` (B, C, H, W), with zeros where there was none."""
    batch, channels, height, width = shape
    patches = rows.view(batch, height // size, width // size, size, size, channels)
    tiled = patches.transpose(2, 3).reshape(batch, height // size * size, width // size * size, channels)
    return F.pad(tiled, (0, 0, 0, width % size, 0, height % size)).permute(0, 3, 1, 2)
