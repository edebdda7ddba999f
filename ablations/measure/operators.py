"""Where the time of a step goes, operator by operator, and how far each kind is from the machine's roofline bound.

Two views of one step. The profiler sees the kernels that ran: their own time, without that of what they called, under
names such as `mkldnn_convolution`, `addmm` and `copy_`, which lays out the bias of an `addmm`. A dispatch mode sees
what the model asked for (`convolution`): its MACs and the bytes of its tensors. Names differ between the two;
kinds do not, so times and roofline meet by kind. Explicit attention's two products are matrix products, and its softmax
is attention.
"""

import os
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ablations.measure.environment import check_device
from ablations.measure.interleaved import Step, no_garbage_collection
from ablations.measure.kinds import OPERATOR_KINDS, kind_of
from ablations.measure.macs import FORMULAS, is_without_macs
from ablations.measure.shapes import tensors_in

aten = torch.ops.aten


@dataclass
class _Profiles:
    """What the profiler saw of one step, each time that it was profiled; operators by kind and name."""

    seconds: list[dict[tuple[str, str], float]] = field(default_factory=list)
    overheads_s: list[float] = field(default_factory=list)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The most in one step."""

    def add(self, events: Sequence[FunctionEvent], wall_s: float, place: torch.device) -> None:
        calls: Counter[tuple[str, str]] = Counter()
        seconds: dict[tuple[str, str], float] = defaultdict(float)
        for event in events:
            if event.name.startswith("aten::"):
                name = event.name.removeprefix("aten::")
                row = ("optimizer" if _is_in_optimizer(event) else kind_of(name, event.input_shapes), name)
                calls[row] += 1
                own_us = event.self_device_time_total if place.type == "cuda" else event.self_cpu_time_total
                seconds[row] += own_us / 1e6
        self.calls |= calls
        self.seconds.append(seconds)
        self.overheads_s.append(wall_s - sum(seconds.values()))

    def summarise(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        for (kind, name), calls in self.calls.items():
            samples = [each.get((kind, name), 0.0) for each in self.seconds]
            if (seconds := median(samples)) > 0:
                row = {"kind": kind, "operator": name, "calls": calls, "seconds": seconds, "samples": samples}
                rows.append(row)
        rows.sort(key=lambda row: (OPERATOR_KINDS.index(row["kind"]), -row["seconds"]))
        overhead_s = median(self.overheads_s)
        return {"operators": rows, "step_overhead_s": overhead_s, "step_overhead_samples": self.overheads_s}


def measure_operators(
    steps: Mapping[str, Step], device: str | torch.device, repeats: int = 5
) -> dict[str, dict[str, Any]]:
    """Returns for each step how long its operators take, as torch's profiler sees them, `repeats` steps interleaved.

    Keys: `operators`, a row for each operator that takes time with its `kind`, `operator` (its name), `calls` in a
    step, `seconds`, and the raw `samples` of which these are the median, the longest of each kind first;
    `step_overhead_s`, what the step takes beside all operators (Python, autograd, dispatch, the profiler and, on CUDA,
    waiting for launches), the median of `step_overhead_samples`. Times of operators are their own on the CPU, and those
    of their kernels on CUDA. What an optimizer calls is its own kind. Steps should be warm; Python's garbage collector
    rests while one runs. Raises InputError for a device that is not there.
    """
    place = check_device(device)
    profiles = {name: _Profiles() for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            with no_garbage_collection():  # what the profiler left of the last step is collected before
                events, wall_s = _profile(step, place)
            profiles[name].add(events, wall_s, place)
    return {name: each.summarise() for name, each in profiles.items()}


def _profile(step: Step, place: torch.device) -> tuple[list[FunctionEvent], float]:
    """Returns what the profiler saw of one step, and the seconds that this took from an idle device to an idle one."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else every start and stop of the profiler prints a line
    synchronise: Callable[[], None] = torch.cuda.synchronize if place.type == "cuda" else lambda: None
    on_cuda = [ProfilerActivity.CUDA] if place.type == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *on_cuda], record_shapes=True, acc_events=True) as profiler:
        synchronise()
        start = perf_counter()
        step()
        synchronise()
        wall_s = perf_counter() - start
    return list(profiler.events()), wall_s


def _is_in_optimizer(event: FunctionEvent) -> bool:
    parent = event.cpu_parent
    while parent is not None and not parent.name.startswith("Optimizer.step#"):  # the profiler's name
        parent = parent.cpu_parent
    return parent is not None


def count_roofline(step: Step, *, macs_per_s: float, bytes_per_s: Mapping[int, float]) -> dict[str, Any]:
    """Returns how long the operators of one `step` take on a machine at these rates, each run by itself.

    The roofline bound of a call is its MACs at `macs_per_s` or its bytes at the rate of the largest copy that moves no
    more, whichever takes longer: `bytes_per_s` by the bytes of a copy, as `measure_bandwidth` has them, for what fits
    in a cache may lie there. A call's bytes are those of the tensors that it reads and of those that it writes; views
    move none. Some operators may be faster than their bound: one that writes where it has read, or less than it has,
    by up to a half (for a copy the processor also fetches what is overwritten), and one with a tensor twice among its
    arguments, or smaller than the smallest copy.

    Keys: `roofline`, a row for each kind with its `kind`, `calls`, `macs`, `bytes` and `bound_s`, sums over the calls;
    `uncounted`, the names of operators of which nobody knows whether they multiply: they count with their bytes.
    """
    counter = _RooflineCounter(macs_per_s, bytes_per_s)
    with counter:
        step()
    rows = [{"kind": kind} | counter.sums[kind] for kind in OPERATOR_KINDS if kind in counter.sums]
    return {"roofline": rows, "uncounted": sorted(counter.uncounted)}


def convolution_backward_flops(gradient: Sequence[int], _: Any, weight: Sequence[int], *others: Any, **__: Any) -> int:
    """Twice the MACs of a convolution's backward pass: for each gradient asked for, those of the forward.

    torch's own formula counts a depth-wise convolution's as if it were none.
    """
    *_, output_mask = others
    return 2 * sum(output_mask[:2]) * prod(gradient) * prod(weight[1:])


def attention_backward_flops(
    _: Any, query: Sequence[int], key: Sequence[int], value: Sequence[int], *__: Any, **___: Any
) -> int:
    """Twice the MACs of a fused attention's backward pass, which computes the scores anew: five products."""
    return 2 * prod(query[:-1]) * key[-2] * (3 * query[-1] + 2 * value[-1])


BACKWARD_FORMULAS = {
    aten.convolution_backward: convolution_backward_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
    aten._scaled_dot_product_fused_attention_overrideable_backward: attention_backward_flops,
}
"""Operators of the backward pass for which torch has no formula of flops, or another."""

_ALSO_WITHOUT_MACS = frozenset(
    """
    _softmax_backward_data _log_softmax_backward_data nll_loss_forward nll_loss_backward native_dropout
    native_dropout_backward upsample_bilinear2d_backward upsample_bicubic2d_backward embedding_dense_backward
    """.split()
)
"""Beside WITHOUT_MACS and the kinds of which no operator has any."""

_KINDS_WITHOUT_MACS = ("normalisation", "activations", "additions and sums", "copies", "optimizer")

_ONLY_WRITTEN = ("copy", "fill", "zero")
"""What these change in place, they do not read."""

_MOVES_NOTHING = ("_unsafe_view", "resize", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty")


class _RooflineCounter(TorchDispatchMode):
    """Sums MACs, bytes and roofline bounds of every operator that runs, by kind."""

    def __init__(self, macs_per_s: float, bytes_per_s: Mapping[int, float]) -> None:
        super().__init__()
        self.macs_per_s = macs_per_s
        self.sizes, self.rates = zip(*sorted(bytes_per_s.items()), strict=True)
        self.formulas = FlopCounterMode(display=False, custom_mapping=FORMULAS | BACKWARD_FORMULAS).flop_registry
        self.sums: dict[str, dict[str, Any]] = {}
        self.uncounted: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = self.formulas.get(func.overloadpacket)
        if formula is None:
            with self:
                result = func.decompose(*args, **kwargs)  # without autograd, operators made of others arrive whole
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        tensors = tensors_in((args, kwargs, result))
        if not tensors or func.is_view or torch.Tag.inplace_view in func.tags or name.rstrip("_") in _MOVES_NOTHING:
            return result
        kind = kind_of(name, [leaf.shape if isinstance(leaf, Tensor) else () for leaf in args])
        known = kind in _KINDS_WITHOUT_MACS or name in _ALSO_WITHOUT_MACS or is_without_macs(func)
        if formula is None and not known:
            self.uncounted.add(name)
        macs = formula(*args, **kwargs, out_val=result) // 2 if formula else 0
        moved = moved_bytes(func, args, kwargs, result)
        bytes_per_s = self.rates[max(bisect_right(self.sizes, moved) - 1, 0)]
        bound_s = max(macs / self.macs_per_s, moved / bytes_per_s)
        sums = self.sums.setdefault(kind, {"calls": 0, "macs": 0, "bytes": 0, "bound_s": 0.0})
        for name, amount in zip(sums, (1, macs, moved, bound_s), strict=True):
            sums[name] += amount
        return result


def moved_bytes(operator: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Returns the bytes that a call reads and writes: the elements of its tensors, each once a tensor.

    A tensor that is changed in place counts twice, one that is expanded with what it has in memory.
    """
    name = operator._schema.name.removeprefix("aten::").removesuffix("_")
    parameters = operator._schema.arguments
    given = {parameter.name: value for parameter, value in zip(parameters, args, strict=False)} | dict(kwargs)
    writes = {each.name for each in parameters if each.alias_info is not None and each.alias_info.is_write}
    changed = writes - {"grads"}  # which the fused optimizers change only where losses are scaled
    unread = {each.name for each in parameters if each.is_out}
    if name in _ONLY_WRITTEN:
        unread = changed
    elif name.endswith("_like") or name.startswith("new_"):
        unread = set(given)  # looked at for their shape
    read = tensors_in([value for name, value in given.items() if name not in unread])
    written = tensors_in([value for name, value in given.items() if name in changed])
    known = {id(tensor) for tensor in written}
    written += [tensor for tensor in tensors_in(result) if id(tensor) not in known]
    return sum(map(_own_bytes, read + written))


def _own_bytes(tensor: Tensor) -> int:
    """Returns the bytes of a tensor's elements in memory, where an expanded dimension is one element."""
    own = prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return own * tensor.element_size()
