"""Multiply-adds of one forward pass, traced on the `meta` device: shapes flow through the module, numbers do not.

Counted are the multiply-adds of convolutions and matrix products, attention's two products included. Norms,
activations, softmax, pooling, interpolation and whatever only moves or makes tensors count as none. An operator that
is in neither list is an error, never a silent zero.
"""

import copy
from collections import Counter
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


def attention_flops(query: list[int], key: list[int], value: list[int], *_: Any, **__: Any) -> int:
    """Twice the multiply-adds of attention on (B, heads, N, d), (B, heads, M, d) and (B, heads, M, d')."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


FORMULAS = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    aten._scaled_dot_product_fused_attention_overrideable: attention_flops,
}
"""Operators that multiply and that FlopCounterMode has no formula for. Which attention runs on `meta` is torch's choice
(plain products, in the versions known), and every kernel must give the same count."""

WITHOUT_MACS = frozenset(
    """
    native_layer_norm native_batch_norm _native_batch_norm_legit_no_training native_group_norm
    _softmax _safe_softmax _log_softmax hardswish glu _prelu_kernel
    mean sum amax amin max min argmax var var_mean std prod linalg_vector_norm logsumexp cumsum topk sort
    avg_pool2d _adaptive_avg_pool2d max_pool2d_with_indices adaptive_max_pool2d
    upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    cat stack copy _to_copy _unsafe_view repeat roll flip tril triu
    constant_pad_nd reflection_pad2d replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle im2col col2im
    index index_put index_select gather scatter slice_scatter select_scatter embedding
    empty empty_like empty_strided new_empty new_empty_strided zeros zeros_like new_zeros ones ones_like new_ones
    full full_like new_full fill zero arange linspace eye scalar_tensor
    """.split()
)
"""The `aten` operators that count as none, in place or not, beside those that torch marks as pointwise or as views."""


class UncountedOperator(RuntimeError):
    """An operator whose multiply-adds nobody knows."""


@dataclass(frozen=True)
class TracedMacs:
    """The multiply-adds of one forward pass of a batch.

    `by_module` gives each module's own work without its children's, by its path in `named_modules()`; modules that do
    none are left out, so the values sum to `total`.
    """

    total: int
    by_module: dict[str, int]


def trace_macs(model: nn.Module, input_shape: tuple[int, ...]) -> TracedMacs:
    """Counts the multiply-adds of `model` in evaluation mode on a float32 input of `input_shape`, batch included.

    The model may be on any device and is left as it is. Raises UncountedOperator for an operator that nobody knows how
    to count.
    """
    twin = copy_to_meta(model).eval()
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    by_module: Counter[str] = Counter()
    running: list[str] = []

    def credit_running() -> None:
        new = counter.get_total_flops() // 2 - by_module.total()
        if new:
            by_module[running[-1]] += new

    def enter(path: str, *_: Any) -> None:
        credit_running()
        running.append(path)

    def leave(*_: Any) -> None:
        credit_running()
        running.pop()

    for path, module in twin.named_modules():
        module.register_forward_pre_hook(partial(enter, path))
        module.register_forward_hook(leave)
    # The first mode of the two is the outer one: it sees what FlopCounterMode has left after taking composites apart.
    with torch.no_grad(), _CountedOnly(counter), counter:
        twin(torch.empty(input_shape, device="meta"))
    return TracedMacs(by_module.total(), dict(by_module))


def copy_to_meta(model: nn.Module) -> nn.Module:
    """Returns a copy on the `meta` device; neither the copy nor the copying takes memory for the weights."""
    # Given as already copied, tensors are not copied by deepcopy.
    copied: dict[int, Tensor] = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        copied[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    return copy.deepcopy(model, copied)


class _CountedOnly(TorchDispatchMode):
    """Runs operators that `counter` has a formula for or that count as none, and no others."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.formulas = counter.flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket not in self.formulas and not _is_without_macs(func):
            raise UncountedOperator(f"nobody knows how many multiply-adds {func} takes")
        return func(*args, **(kwargs or {}))


def _is_without_macs(operator: torch._ops.OpOverload) -> bool:
    if operator.is_view or {torch.Tag.pointwise, torch.Tag.inplace_view} & set(operator.tags):
        return True
    return operator.namespace == "aten" and operator.overloadpacket.__name__.removesuffix("_") in WITHOUT_MACS
