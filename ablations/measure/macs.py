"""MACs of one forward pass, traced on the `meta` device: shapes flow through the module, numbers do not.

Counted are the MACs of convolutions and matrix products, attention's two products included. Norms,
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

from ablations.measure.shapes import run_on_meta

aten = torch.ops.aten


def attention_flops(query: list[int], key: list[int], value: list[int], *_: Any, **__: Any) -> int:
    """Twice the MACs of attention on (B, heads, N, d), (B, heads, M, d) and (B, heads, M, d')."""
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
    avg_pool2d avg_pool3d _adaptive_avg_pool2d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d
    grid_sampler_2d
    upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    cat stack copy _to_copy _unsafe_view repeat roll flip tril triu
    constant_pad_nd reflection_pad2d replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle im2col col2im
    nonzero masked_select repeat_interleave unsafe_split _local_scalar_dense
    index index_put index_select gather scatter slice_scatter select_scatter embedding
    empty empty_like empty_strided new_empty new_empty_strided zeros zeros_like new_zeros ones ones_like new_ones
    full full_like new_full fill zero arange linspace eye scalar_tensor
    """.split()
)
"""The `aten` operators that count as none, in place or not, beside those that torch marks as pointwise or as views."""

LAYERS_WITHOUT_MACS = {
    "native_batch_norm": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    **dict.fromkeys(("relu", "relu_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_"), "relu"),
    **dict.fromkeys(("gelu", "silu", "silu_", "hardswish", "hardswish_", "elu", "sigmoid", "sigmoid_"), "activation"),
    **dict.fromkeys(("_softmax", "_safe_softmax"), "softmax"),
    **dict.fromkeys(("avg_pool2d", "_adaptive_avg_pool2d", "max_pool2d_with_indices", "mean"), "pool"),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), "upsample"),
}
"""Operators that count as none here and that other counters count, and the kind of layer each is."""


class UncountedOperator(RuntimeError):
    """An operator whose MACs nobody knows."""


@dataclass(frozen=True)
class TracedMacs:
    """The MACs of one forward pass of a batch.

    `by_module` gives each module's own work without its children's, by its path in `named_modules()`, and `by_operator`
    each operator's; both leave out what does none, and sum to `total`. `other_values` is no work that counts here: how
    many values the norms, activations, pools and interpolations put out (pools: took in), by kind.
    """

    total: int
    by_module: dict[str, int]
    by_operator: dict[str, int]
    other_values: dict[str, int]


def trace_macs(model: nn.Module, input_shape: tuple[int, ...]) -> TracedMacs:
    """Counts the MACs of `model` in evaluation mode on a float32 input of `input_shape`, batch included.

    The model may be on any device and is left as it is. Raises UncountedOperator for an operator that nobody knows how
    to count.
    """
    twin = copy_to_meta(model).eval()
    counter = _Counter()
    for path, module in twin.named_modules():
        module.register_forward_pre_hook(partial(counter.enter, path))
        module.register_forward_hook(counter.leave, always_call=True)
    with torch.no_grad(), counter:
        twin(torch.empty(input_shape, device="meta"))
    return TracedMacs(
        counter.by_module.total(), dict(counter.by_module), dict(counter.by_operator), dict(counter.other_values)
    )


def copy_to_meta(model: nn.Module) -> nn.Module:
    """Returns a copy on the `meta` device; neither the copy nor the copying takes memory for the weights."""
    # Given as already copied, tensors are not copied by deepcopy.
    copied: dict[int, Tensor] = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        copied[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    return copy.deepcopy(model, copied)


class _Counter(TorchDispatchMode):
    """Counts every operator that runs, for the module that runs it, and lets none pass that nobody can count."""

    def __init__(self) -> None:
        super().__init__()
        # torch's own formulas of flops, each called with an operator's arguments and its result.
        self.formulas = FlopCounterMode(display=False, custom_mapping=FORMULAS).flop_registry
        self.running = [""]
        self.by_module: Counter[str] = Counter()
        self.by_operator: Counter[str] = Counter()
        self.other_values: Counter[str] = Counter()

    def enter(self, path: str, *_: Any) -> None:
        self.running.append(path)

    def leave(self, *_: Any) -> None:
        self.running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = self.formulas.get(func.overloadpacket)
        if formula is None and not is_without_macs(func):
            with self:
                result = func.decompose(*args, **kwargs)  # an operator may be made of others
            if result is NotImplemented:
                raise UncountedOperator(f"nobody knows how many MACs {func} takes")
            return result
        result = run_on_meta(func, args, kwargs)
        name = func.overloadpacket.__name__
        if formula is not None:
            macs = formula(*args, **kwargs, out_val=result) // 2
            self.by_module[self.running[-1]] += macs
            self.by_operator[name] += macs
        elif kind := LAYERS_WITHOUT_MACS.get(name):
            values = args[0] if kind == "pool" else result[0] if isinstance(result, tuple) else result
            self.other_values[kind] += values.numel()
        return result


def is_without_macs(operator: torch._ops.OpOverload) -> bool:
    """Whether an operator is known to multiply nothing that counts."""
    if operator.is_view or {torch.Tag.pointwise, torch.Tag.inplace_view} & set(operator.tags):
        return True
    return operator.namespace == "aten" and operator.overloadpacket.__name__.removesuffix("_") in WITHOUT_MACS
