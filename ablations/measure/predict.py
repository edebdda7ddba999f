"""Peak memory of a step, predicted: the step runs on shapes alone, and what its operators would allocate is counted.

The model lies on the `meta` device, where tensors have shapes and no numbers, so that a prediction takes the same time
at every resolution and for every batch. Counted is what StorageTracker counts on real tensors. What a device does
otherwise than `meta` is modelled: the kernel that attention takes, autocast's casts, the layout of convolutions and, on
CUDA, the rounding of the caching allocator. Left out is what kernels take for themselves
(workspaces, copies of masks and of heads of odd width), and with it the context of CUDA.

torch.distributed._tools.mem_tracker.MemTracker finds the same bytes on fake tensors (CPU, float32 training steps, as
the tests compare). It takes longer: 6.3 times as long as a first prediction (95 % interval 4.3 to 8.7) and 17 times as
long as one whose shapes were met before (12 to 22); pico v1+ope+cffn, two images of 64 px, 6 interleaved repeats, one
thread of a busy Xeon, torch 2.14.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from itertools import chain
from types import FunctionType
from typing import Any, NamedTuple
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._prims_common import suggest_memory_format
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ablations.errors import pick, refuse
from ablations.measure.kinds import BYTE_KINDS
from ablations.measure.macs import input_dtype
from ablations.measure.shapes import run_on_meta, tensors_in
from ablations.measure.step import step_loss

aten = torch.ops.aten

ROUNDING = {"cpu": 1, "cuda": 512}
"""The bytes to whose multiples each device's allocator rounds."""

LOWER = frozenset(
    """
    conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d linear prelu einsum
    matmul mm bmm addmm addbmm baddbmm linalg_vecdot scaled_dot_product_attention
    """.split()
)
"""The functions whose inputs autocast makes bfloat16."""

_LOSSES = """
    nll_loss nll_loss_nd nll_loss2d cross_entropy_loss mse_loss l1_loss smooth_l1_loss huber_loss kl_div
    binary_cross_entropy_with_logits cosine_embedding_loss hinge_embedding_loss margin_ranking_loss multi_margin_loss
    multilabel_margin_loss poisson_nll_loss soft_margin_loss triplet_margin_loss cdist
"""
FULL = {
    "cpu": frozenset(
        f"""
        {_LOSSES} binary_cross_entropy prod trace quantile grid_sampler reflection_pad1d reflection_pad2d
        replication_pad1d replication_pad2d replication_pad3d avg_pool3d max_pool3d adaptive_avg_pool3d
        """.split()
    ),
    "cuda": frozenset(
        f"""
        {_LOSSES} acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow softplus
        layer_norm rms_norm group_norm cosine_similarity dist pdist renorm logsumexp
        upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
        upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
        """.split()
    ),
}
"""The functions whose inputs autocast makes float32, by device. Layer norm and softmax are among CUDA's only."""

FULL_RESULT = {
    "cpu": frozenset[str](),
    "cuda": frozenset("softmax log_softmax sum prod cumsum cumprod linalg_vector_norm".split()),
}
"""The functions that autocast asks for a float32 result, by device."""


def predict_peak_memory(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    mode: str,
    precision: str,
    device: str,
    channels_last: bool = True,
) -> dict[str, Any]:
    """Returns the peak memory in bytes that `measure_peak_memory` would find on `device`, which need not be there.

    The step is `build_step`'s and the model becomes its own, put into the mode and without gradients; it lies on the
    `meta` device. It is one step and begins where a second would, with the optimiser's state in place: what the model
    makes in its first step and keeps is counted as if it were made in every one. `channels_last=False` leaves
    weights as they are and a batch of images in row order.

    Beside `peak_memory_bytes`, `parameter_bytes`, `input_bytes` and `memory_method` the result has `peak_operator` and
    `peak_phase` (`forward` or `backward`): what reached the peak; `bytes_at_peak`, by BYTE_KINDS, which sum to
    it; and `activations_by_stage`, the part of it that backward waits for by the part of the model that made it: the
    first name of a module's path and the number after it, as in `stages.0`. What activation checkpointing computes
    anew counts as temporary.

    Raises InputError for an unknown mode, precision or device, and for a model that is not on `meta`.
    """
    pick("mode", mode, ("inference", "training"))
    pick("precision", precision, ("float32", "bf16"))
    pick("device", device, ROUNDING)
    places = sorted({tensor.device.type for tensor in chain(model.parameters(), model.buffers())} - {"meta"})
    if places:
        raise refuse("model's device", ", ".join(places), "meta; build the model under torch.device('meta')")
    images = torch.empty(input_shape, device="meta", dtype=input_dtype(model))
    if images.ndim == 4 and channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    model.train(mode == "training")
    autocast = precision == "bf16"
    if mode == "inference":
        memory = _LiveBytes(device, model, [images])
        with memory, torch.inference_mode(), _Device(device, autocast, None):
            model(images)
    else:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        memory, reached = _train(model, images, device, autocast, trained)
        if len(reached) < len(trained):  # AdamW keeps no state for a weight that never has a gradient
            memory, _ = _train(model, images, device, autocast, reached)
    held = memory.at_peak.items()
    return {
        "peak_memory_bytes": memory.peak_bytes,
        "memory_method": "predicted_storages",
        "peak_operator": memory.peak_operator,
        "peak_phase": memory.peak_phase,
        "bytes_at_peak": {kind: sum(count for (each, _), count in held if each == kind) for kind in BYTE_KINDS},
        "activations_by_stage": {stage: count for (kind, stage), count in held if kind == "activations" and count},
        "parameter_bytes": sum(parameter.nbytes for parameter in model.parameters()),
        "input_bytes": images.nbytes,
    }


def _train(
    model: nn.Module, images: Tensor, device: str, autocast: bool, trained: list[nn.Parameter]
) -> tuple["_LiveBytes", list[nn.Parameter]]:
    """Runs a step with the optimiser's state of `trained`; returns its memory and which of them had a gradient."""
    labels = torch.empty(images.shape[:1], dtype=torch.long, device="meta")
    memory = _LiveBytes(device, model, [images, labels])
    state = []
    with ExitStack() as stack:
        stack.callback(model.zero_grad, set_to_none=True)
        stack.enter_context(memory)
        memory.kind = "optimizer"
        for parameter in trained:  # two moments and a count of steps, as a first step would leave them
            state += [torch.empty_like(parameter), torch.empty_like(parameter), torch.empty((), device="meta")]
        memory.kind = "temporaries"
        memory.restart()
        for parameter in trained:
            stack.callback(parameter.register_post_accumulate_grad_hook(memory.relabel_gradient).remove)
        casts: dict[Tensor, Tensor] = {}
        with (
            _noting_stages(model, memory),
            saved_tensors_hooks(memory.relabel_saved, lambda tensor: tensor),
            _Device(device, autocast, casts),
        ):
            loss = step_loss(model(images), labels)
        casts.clear()
        memory.phase = "backward"
        memory.casts = casts
        with _Device(device, autocast, casts):  # for what activation checkpointing runs anew
            torch.autograd.backward(loss)
        reached = [parameter for parameter in trained if parameter.grad is not None]
    return memory, reached  # the fused AdamW has no memory of its own


@contextmanager
def _noting_stages(model: nn.Module, memory: "_LiveBytes") -> Iterator[None]:
    """Tells `memory` which part of the model runs."""
    with ExitStack() as stack:
        for path, module in model.named_modules():
            stage = STAGE.match(path)
            enter = partial(memory.enter, stage.group() if stage else "")
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(memory.leave, always_call=True).remove)
        yield


class _Storage(NamedTuple):
    reference: ref
    nbytes: int
    kind: str
    stage: str


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of live storages, as StorageTracker does and by what they are for."""

    def __init__(self, device: str, model: nn.Module, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.device = device
        self.phase = "forward"
        self.stages = [""]
        self.casts: dict[Tensor, Tensor] = {}
        self.live_bytes = 0
        self.peak_bytes = 0
        self.peak_operator = ""
        self.peak_phase = ""
        self.at_peak: dict[tuple[str, str], int] = {}
        self._live: Counter[tuple[str, str]] = Counter()
        self._storages: dict[int, _Storage] = {}
        self._basic: set[Any] = set()
        for kind, made_before in {"parameters": [*model.parameters(), *model.buffers()], "input": inputs}.items():
            self.kind = kind
            for tensor in made_before:
                self.add(tensor)
        self.kind = "temporaries"
        self.restart()

    def restart(self) -> None:
        """Forgets the peak so far."""
        self._set_peak("")

    def add(self, tensor: Tensor) -> None:
        """Counts the tensor's storage, unless it is counted already or lies on another device than the model."""
        if self.device == "cuda" and not tensor.is_meta:  # made on the CPU
            return
        storage = tensor.untyped_storage()
        address = id(storage)
        unit = ROUNDING[self.device]
        nbytes = -(-storage.nbytes() // unit) * unit
        known = self._storages.get(address)
        if known is None:
            reference = ref(storage, lambda _: self._release(address))
            self._storages[address] = _Storage(reference, nbytes, self.kind, self.stages[-1])
            self._count(self.kind, self.stages[-1], nbytes)
        elif known.nbytes != nbytes:  # resized in place
            self._storages[address] = known._replace(nbytes=nbytes)
            self._count(known.kind, known.stage, nbytes - known.nbytes)

    def relabel(self, tensor: Tensor, kind: str) -> None:
        """Counts what was a temporary as `kind` from now on."""
        address = id(tensor.untyped_storage())
        known = self._storages.get(address)
        if known is not None and known.kind == "temporaries":
            self._storages[address] = known._replace(kind=kind)
            self._count(known.kind, known.stage, -known.nbytes)
            self._count(kind, known.stage, known.nbytes)

    def relabel_saved(self, tensor: Tensor) -> Tensor:
        self.relabel(tensor, "activations")
        return tensor

    def relabel_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.relabel(parameter.grad, "gradients")

    def enter(self, stage: str, *_: Any) -> None:
        self.stages.append(stage)

    def leave(self, *_: Any) -> None:
        self.stages.pop()

    def _count(self, kind: str, stage: str, nbytes: int) -> None:
        self.live_bytes += nbytes
        self._live[kind, stage] += nbytes

    def _release(self, address: int) -> None:
        _, nbytes, kind, stage = self._storages.pop(address)
        self._count(kind, stage, -nbytes)

    def _set_peak(self, operator: str) -> None:
        self.peak_bytes = self.live_bytes
        self.peak_operator, self.peak_phase = operator, self.phase
        self.at_peak = dict(self._live)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # In the backward pass gradients are on for what runs anew, all but its views; its autocast ends with it.
        if self.casts and not (func.is_view or torch.is_grad_enabled()):
            self.casts.clear()
        if func not in self._basic:
            with self:  # in inference mode composite operators arrive whole
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            self._basic.add(func)
        result = run_on_meta(func, args, kwargs, LAYOUTS.get(func))
        for tensor in tensors_in(result):
            self.add(tensor)
        if self.live_bytes > self.peak_bytes:
            self._set_peak(str(func.overloadpacket))
        return result


def _convolution(args: Any, result: Tensor) -> Tensor:
    return result.contiguous(memory_format=_layout(args[0], args[1]))


def _convolution_backward(args: Any, results: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    layout = _layout(args[1], args[2])
    return (*(grad if grad is None else grad.contiguous(memory_format=layout) for grad in results[:2]), results[2])


def _layout(images: Tensor, weight: Tensor) -> torch.memory_format:
    """The order of a convolution's results: that of whatever it reads that is channels-last, else rows."""
    formats = {suggest_memory_format(tensor) for tensor in (images, weight) if tensor.ndim == 4}
    return torch.channels_last if torch.channels_last in formats else torch.contiguous_format


def _layer_norm(args: Any, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Mean and deviation are float32 for bfloat16 numbers with float32 weights."""
    return (results[0], results[1].float(), results[2].float())


def _batch_norm(args: Any, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outside of training no mean and deviation are kept."""
    return (results[0], results[1].new_empty(0), results[2].new_empty(0))


LAYOUTS: dict[Any, Callable[[Any, Any], Any]] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.native_batch_norm.default: lambda args, results: results if args[5] else _batch_norm(args, results),
}
"""Operators whose results are laid out otherwise on devices than on `meta`, and how."""


class _Device(TorchFunctionMode):
    """Has torch's functions do on `meta` what they do on `device`, in what they allocate: attention and autocast.

    `casts` holds autocast's bfloat16 copies of weights until it is cleared; with None every use makes its own.
    """

    def __init__(self, device: str, autocast: bool, casts: dict[Tensor, Tensor] | None) -> None:
        super().__init__()
        self.device = device
        self.autocast = autocast
        self.casts = casts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        opened = _opened(func) if isinstance(func, FunctionType) else None
        if opened is not None:
            with self:
                return opened(*args, **kwargs)
        name = getattr(func, "__name__", "")
        name = NAMES.get(name, name)
        # In the backward pass gradients, and with them autocast, are on only for what checkpointing runs anew.
        if self.autocast and (torch.is_grad_enabled() or torch.is_inference_mode_enabled()):
            if name in LOWER:
                # From the last to the first, as compiled code does it: backward then runs in the opposite order.
                kwargs = {key: tree_map_only(Tensor, self.lower, kwargs[key]) for key in reversed(kwargs)}
                args = [tree_map_only(Tensor, self.lower, argument) for argument in reversed(args)][::-1]
            elif name in FULL[self.device]:
                args, kwargs = tree_map_only(Tensor, _to_full, (args, kwargs))
            elif name in FULL_RESULT[self.device] and _has_no_dtype(args):
                kwargs = {"dtype": torch.float32} | kwargs
        if name == "scaled_dot_product_attention":
            return _attend(self.device, *args, **kwargs)
        return func(*args, **kwargs)

    def lower(self, tensor: Tensor) -> Tensor:
        if tensor.dtype is not torch.float32:
            return tensor
        if self.casts is None or not (tensor.is_leaf and tensor.requires_grad):
            return tensor.to(torch.bfloat16)
        if tensor not in self.casts:
            self.casts[tensor] = tensor.to(torch.bfloat16)
        return self.casts[tensor]


PYTHON_MODULES = ("torch.nn.functional", "torch.functional", "torch.autograd")
"""Where torch has functions that are written in Python and call others of its functions."""

NAMES = {"__matmul__": "matmul", "__rmatmul__": "matmul", "__pow__": "pow", "__rpow__": "pow"}
"""What operators of Python are called as functions."""

STAGE = re.compile(r"[^.]+(\.\d+)?")


def _has_no_dtype(args: Any) -> bool:
    """Whether a function of bfloat16 numbers is not told what to return."""
    return any(tensor.dtype is torch.bfloat16 for tensor in tensors_in(args)) and torch.dtype not in map(type, args)


def _to_full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype is torch.bfloat16 else tensor


@cache
def _opened(function: FunctionType) -> FunctionType | None:
    """Returns a function of torch's that is written in Python such that a mode sees what it calls; None for others.

    Such functions begin by asking whether a mode wants them as a whole. The twin is told that none does.
    """
    questions = {name for name in function.__code__.co_names if name.startswith("has_torch_function")}
    if function.__module__ not in PYTHON_MODULES or not questions:
        return None
    answers = dict.fromkeys(questions, lambda *_: False)
    twin = FunctionType(
        function.__code__,
        function.__globals__ | answers,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def _attend(
    device: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention by the kernel that `device` takes: its fused ones, or products and a softmax where those cannot."""
    fused = q.ndim == 4 and not enable_gqa and q.shape[-1] == k.shape[-1] == v.shape[-1]
    if device == "cpu":
        fused = fused and dropout_p == 0 and not (attn_mask is not None and attn_mask.requires_grad)
    if not fused:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(attn_mask.logical_not(), -torch.inf)
    if device == "cpu":
        flash_on_cpu = aten._scaled_dot_product_flash_attention_for_cpu
        return flash_on_cpu(q, k, v, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    if q.dtype is torch.bfloat16 and attn_mask is None:
        return aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*q.shape[:3], k.shape[2])
    logsumexp = any(tensor.requires_grad for tensor in (q, k, v))
    efficient = aten._scaled_dot_product_efficient_attention
    return efficient(q, k, v, attn_mask, logsumexp, dropout_p, is_causal, scale=scale)[0]
