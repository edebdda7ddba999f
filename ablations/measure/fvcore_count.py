"""A third opinion on MACs: fvcore's, which reads the operators of a `torch.jit` trace.

Its conventions: a MAC is one, a bias none; norms, bilinear upsampling and adaptive pooling count a few a
value, and are kept apart here from convolutions and matrix products. Fused attention, which fvcore takes for free, is
counted by a handle of this file. What fvcore has no handle for must be known to be free, else it is an error.
"""

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import library, nn
from torch.overrides import TorchFunctionMode

from ablations.errors import InputError, first_line, pick
from ablations.measure.macs import WITHOUT_MACS, UncountedOperator, copy_to_meta

PRODUCTS = frozenset("conv linear matmul mm bmm addmm einsum attention".split())
"""What this project counts, by the names that fvcore and the handles of this file give."""

OTHERS = frozenset(
    "batch_norm group_norm layer_norm instance_norm upsample_nearest2d upsample_bilinear2d adaptive_avg_pool2d "
    "grid_sampler".split()
)
"""What fvcore counts and this project does not. For each value: 5 in a layer, group or instance norm and 2 in a batch
norm (4 and 1 without weights), 1 into an adaptive pool, 1 out of a nearest and 4 out of a bilinear interpolation."""

ATTENTION = (
    "aten::scaled_dot_product_attention",
    "aten::_scaled_dot_product_attention_math",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
)
"""Fused attention in a trace: torch's function, whichever kernel it picks, and kernels called by themselves. The other
kernels cannot be traced."""

FREE = WITHOUT_MACS | frozenset(
    """
    softmax log_softmax dropout feature_dropout prelu rms_norm norm linalg_norm
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool3d adaptive_avg_pool1d adaptive_max_pool1d
    pad concat tile repeat_interleave meshgrid
    """.split()
)
"""The `aten` operators that count as none, in place or not, beside those that torch marks as pointwise or as views:
those of a trace of kernels, and those made of such that this trace shows whole."""


@dataclass(frozen=True)
class FvcoreCount:
    """What fvcore says of one forward pass of a batch.

    `products` are the MACs of convolutions and matrix products by operator, attention's under `attention`;
    `others` is what fvcore counts and this project does not, by operator. `skipped` says how often each operator ran
    that fvcore has no handle for and that is known to be free; those that fvcore itself leaves out as free (views,
    copies, ReLU) are not listed.
    """

    products: dict[str, int]
    others: dict[str, int]
    skipped: dict[str, int]


def count_with_fvcore(model: nn.Module, input_shape: tuple[int, ...], device: str = "meta") -> FvcoreCount:
    """Counts a copy of `model` in evaluation mode on a float32 input of `input_shape`, batch included, with fvcore.

    On `meta`, shapes flow and numbers do not, and convolutions are two-dimensional; `cpu` runs real tensors, fvcore's
    usual way. Raises UncountedOperator for
    an operator that neither fvcore nor this file knows, and InputError for a model that cannot be traced, for another
    device, and where fvcore is not installed.
    """
    pick("device", device, ("meta", "cpu"))
    flop_count_analysis = _import_analysis()
    try:
        twin = copy_to_meta(model) if device == "meta" else copy.deepcopy(model).to(device)
        analysis = flop_count_analysis(twin.eval(), torch.zeros(input_shape, device=device))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        analysis.set_op_handle(**HANDLES)
        with torch.no_grad(), _Traceable(device):
            counts = analysis.by_operator()
    except (InputError, UncountedOperator):
        raise
    except Exception as error:
        raise InputError(f"fvcore cannot trace a {type(model).__name__} on {device!r}: {first_line(error)}") from error
    for name in counts.keys() - PRODUCTS - OTHERS:
        raise UncountedOperator(f"fvcore counts {name}, and nobody knows whether as MACs")
    skipped = analysis.unsupported_ops()
    for kind in skipped:
        if not _is_free(kind):
            raise UncountedOperator(f"fvcore takes {kind} for free, and nobody knows how many MACs it takes")
    return FvcoreCount(
        products={name: int(count) for name, count in counts.items() if name in PRODUCTS},
        others={name: int(count) for name, count in counts.items() if name in OTHERS},
        skipped={kind.removeprefix("aten::"): times for kind, times in skipped.items()},
    )


def _import_analysis() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # importing it scripts a function, which torch has given up
            from fvcore.nn import FlopCountAnalysis
    except ImportError as error:
        raise InputError(f"fvcore cannot be imported: {first_line(error)}") from error
    return FlopCountAnalysis


def _shape(value: Any) -> list[int]:
    return value.type().sizes()


def _attention_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Every query meets every key with all of its width, and every value with the value's."""
    query, key, value = (_shape(tensor) for tensor in inputs[:3])
    return Counter(attention=prod(_shape(outputs[0])[:-1]) * key[-2] * (query[-1] + value[-1]))


def _conv2d_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Every value of the result takes one window of its group's channels."""
    return Counter(conv=prod(_shape(outputs[0])) * prod(_shape(inputs[1])[1:]))


def _matmul_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """fvcore's own leaves out what the first operand is repeated for, and cannot take vectors."""
    return prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _einsum_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """fvcore's own reads the count from a text that has four digits of it."""
    equation = inputs[0].toIValue().replace(" ", "")
    operands, arrow, result = equation.partition("->")
    pair = operands.split(",")
    if not arrow or "." in equation or len(pair) != 2:
        raise UncountedOperator(f"nobody knows how many MACs aten::einsum takes for {equation!r}")
    shapes = [_shape(tensor) for tensor in inputs[1].node().inputs()]
    sizes = dict(zip("".join(pair), chain(*shapes), strict=True))
    common = set(pair[0]) & set(pair[1])
    # What only one has and the result has not is summed before; what nothing is summed over is no matrix product.
    return prod(sizes[letter] for letter in common | set(result)) if common - set(result) else 0


HANDLES: dict[str, Callable[[Sequence[Any], Sequence[Any]], Any]] = {
    **dict.fromkeys(ATTENTION, _attention_macs),
    "ablations::conv2d": _conv2d_macs,
    "aten::matmul": _matmul_macs,
    "aten::einsum": _einsum_macs,
}
"""Operators of a trace that fvcore has no handle for, or one that is not exact."""


def _is_free(kind: str) -> bool:
    """Whether an operator is known to count as none; torch marks the pointwise ones and the views."""
    namespace, _, name = kind.partition("::")
    packet = getattr(torch.ops.aten, name, None)
    if namespace != "aten" or packet is None:
        return False
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    marks = {torch.Tag.pointwise, torch.Tag.inplace_view}
    marked = any(overload.is_view or marks & set(overload.tags) for overload in overloads)
    return marked or name.removesuffix("_") in FREE


library.define(
    "ablations::conv2d",
    "(Tensor input, Tensor weight, Tensor? bias=None, int[2] stride=1, int[2] padding=0, int[2] dilation=1,"
    " int groups=1) -> Tensor",
)
library.impl("ablations::conv2d", "Meta", torch.conv2d)


class _Traceable(TorchFunctionMode):
    """Has a trace show every convolution and product.

    On `meta`, torch's own convolution comes to nothing that a trace shows: a kernel written in Python stands before it,
    and Python sees tensors for sizes while a trace runs, on which that kernel fails. A trace shows an operator of
    another library and does not look into it, so that the kernel runs as usual there. Wherever a mode is on, torch's
    attention layers do without the one operator that would hide all of their products.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.conv2d = torch.ops.ablations.conv2d if device == "meta" else torch.conv2d

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (self.conv2d if func is torch.conv2d else func)(*args, **(kwargs or {}))
