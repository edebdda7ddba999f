"""Peak memory of a step: the allocator's on CUDA, live tensor storages on the CPU. The two are never compared."""

import gc
import weakref
from collections.abc import Callable
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablations.measure.environment import check_device
from ablations.measure.step import build_step


class StorageTracker(TorchDispatchMode):
    """Counts the bytes of live tensor storages while it is active, and the most that lived at once.

    A storage counts from the operator that returns it until its last tensor is gone, however many views it has. Tensors
    made before are given to `add`. What a kernel allocates and frees within one operator is not seen. Watching changes
    one thing: torch then adds the bias of a linear layer out of place if the layer's input is not contiguous.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._sizes: dict[int, int] = {}
        self._storages: dict[int, weakref.ref] = {}

    def add(self, tensor: Tensor) -> None:
        """Counts the tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        address = id(storage)  # of the Python object, of which a storage has one for life
        if address not in self._storages:
            self._storages[address] = weakref.ref(storage, lambda _: self._release(address))
        # Not only for new ones: a storage can be resized in place.
        self.live_bytes += storage.nbytes() - self._sizes.get(address, 0)
        self._sizes[address] = storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def restart(self) -> None:
        """Forgets the peak so far."""
        self.peak_bytes = self.live_bytes

    def _release(self, address: int) -> None:
        del self._storages[address]
        self.live_bytes -= self._sizes.pop(address)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # in inference mode composite operators arrive whole, and what they are made of would not be seen
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            result = func(*args, **kwargs)
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self.add(leaf)
        return result


def measure_peak_memory(
    model: nn.Module, input_shape: tuple[int, ...], *, mode: str, precision: str, device: str | torch.device
) -> dict[str, Any]:
    """Returns the peak memory in bytes of the second of two steps, with all that lives through it.

    Arguments and errors are `build_step`'s. The result has `peak_memory_bytes`, of which `parameter_bytes` are the
    parameters and `input_bytes` the input, and `memory_method`: `tracked_storages` (StorageTracker) on the CPU,
    `max_memory_allocated` on CUDA, with `peak_reserved_bytes` beside it and `left_over_bytes`, what lived on
    the device before: CUDA's are the whole process's, the model's own bytes among both if it is there already.
    """

    def build() -> Callable[[], None]:
        return build_step(model, input_shape, mode=mode, precision=precision, device=device)

    peak = _measure_allocated(build) if check_device(device).type == "cuda" else _measure_tracked(model, build)
    parameter_bytes = sum(parameter.nbytes for parameter in model.parameters())
    return peak | {"parameter_bytes": parameter_bytes, "input_bytes": prod(input_shape) * torch.float32.itemsize}


def _measure_tracked(model: nn.Module, build: Callable[[], Callable[[], None]]) -> dict[str, Any]:
    with StorageTracker() as tracker:
        for tensor in chain(model.parameters(), model.buffers()):
            tracker.add(tensor)
        step = build()
        step()
        gc.collect()
        tracker.restart()
        step()
    return {"peak_memory_bytes": tracker.peak_bytes, "memory_method": "tracked_storages"}


def _measure_allocated(build: Callable[[], Callable[[], None]]) -> dict[str, Any]:
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # else what ran before decides whether the peak holds them
    torch.cuda.empty_cache()
    left_over = torch.cuda.memory_allocated()
    step = build()
    step()
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return {
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        "left_over_bytes": left_over,
        "memory_method": "max_memory_allocated",
    }
