"""MACs of one forward pass, traced on the `meta` device: shapes flow through the module, numbers only where they must.

Counted are the MACs of convolutions and matrix products, attention's two products included. Norms,
activations, softmax, pooling, interpolation and whatever only moves or makes tensors count as none. An operator that
is in neither list is an error, never a silent zero.
"""

import copy
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ablations.baselines.guest import state_kept, unregistered_tensors
from ablations.measure.shapes import run_on_meta

aten = torch.ops.aten


def attention_flops(query: list[int], key: list[int], value: list[int], *_: Any, **__: Any) -> int:
    """Twice the MACs of attention on (B, heads, N, d), (B, heads, M, d) and (B, heads, M, d')."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def vector_flops(matrix: list[int], *_: Any, **__: Any) -> int:
    """Twice the MACs of the product of a matrix, or of a vector, with a vector."""
    return 2 * prod(matrix)


FORMULAS = {
    **dict.fromkeys((aten.mv, aten.dot, aten.vdot), vector_flops),
    aten.addmv: lambda added, *product, **options: vector_flops(*product, **options),
    aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    aten._scaled_dot_product_fused_attention_overrideable: attention_flops,
}
"""Operators that multiply and that FlopCounterMode has no formula for. Which attention runs on `meta` is torch's choice
(plain products, in the versions known), and every kernel must give the same count."""

WITHOUT_MACS = frozenset(
    """
    _weight_norm_interface _weight_norm norm
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
    on_real_tensors: bool = False
    """Whether the model did not run on shapes alone, and so on numbers, which takes its time and memory."""


def trace_macs(model: nn.Module, input_shape: tuple[int, ...]) -> TracedMacs:
    """Counts the MACs of `model` in evaluation mode on an input of `input_shape`, batch included.

    The input is of the model's own floats (`input_dtype`). The model may be on any device and stays as it is. Where it
    does not run on shapes alone, because it makes tensors elsewhere or asks for their numbers, it runs on numbers on
    the CPU, if it has any. Raises UncountedOperator for an operator that nobody knows how to count.
    """
    try:
        return _trace(copy_to_meta(model), input_shape)
    except (RuntimeError, TypeError) as error:
        has_numbers = not any(tensor.is_meta for tensor in chain(model.parameters(), model.buffers()))
        if not is_about_numbers(error):
            raise
        try:
            with torch.device("meta"):  # for what it makes itself
                return _trace(copy_to_meta(model), input_shape)
        except (RuntimeError, TypeError):
            if not has_numbers:
                raise error from None
    with state_kept(), sdpa_kernel(SDPBackend.MATH):
        torch._C._set_mkldnn_enabled(False)  # its kernels hide what they multiply
        return replace(_trace(copy_on_cpu(model), input_shape, "cpu"), on_real_tensors=True)


def is_about_numbers(error: Exception) -> bool:
    """Whether an error says that a tensor without numbers is not enough."""
    return isinstance(error, NotImplementedError) or "meta" in str(error)


def input_dtype(model: nn.Module) -> torch.dtype:
    """Returns the dtype that a model's images have: that of its first floating weights."""
    return next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)


def _trace(twin: nn.Module, input_shape: tuple[int, ...], device: str = "meta") -> TracedMacs:
    """Counts on a copy, which becomes its own."""
    twin.eval().requires_grad_(False)  # else torch folds some products into others
    counter = _Counter()
    for path, module in twin.named_modules():
        module.register_forward_pre_hook(partial(counter.enter, path))
        module.register_forward_hook(counter.leave, always_call=True)
    images = torch.zeros(input_shape, device=device, dtype=input_dtype(twin))
    with torch.no_grad(), counter:
        twin(images)
    return TracedMacs(
        counter.by_module.total(), dict(counter.by_module), dict(counter.by_operator), dict(counter.other_values)
    )


def copy_to_meta(model: nn.Module) -> nn.Module:
    """Returns a copy on the `meta` device; neither the copy nor the copying takes memory for the weights.

    Tensors that modules keep beside their parameters and buffers are there too.
    """
    # Given as already copied, tensors are not copied by deepcopy.
    others = [*model.buffers(), *unregistered_tensors(model)]
    copied: dict[int, Tensor] = {id(tensor): tensor.detach().to("meta") for tensor in others}
    for parameter in model.parameters():
        copied[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    return copy.deepcopy(model, copied)


def copy_on_cpu(model: nn.Module) -> nn.Module:
    """Returns a copy on the CPU; of what was computed from weights it has the numbers alone."""
    return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in unregistered_tensors(model)}).cpu()


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
    if operator.namespace == "profiler":  # which only marks what runs
        return True
    if operator.is_view or {torch.Tag.pointwise, torch.Tag.inplace_view} & set(operator.tags):
        return True
    return operator.namespace == "aten" and operator.overloadpacket.__name__.removesuffix("_") in WITHOUT_MACS
