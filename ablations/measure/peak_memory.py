"""Peak memory of a step: the allocator's on CUDA, live tensor storages and resident memory on the CPU.

CUDA's is never compared with the CPU's.
"""

import gc
import re
import sys
import weakref
from collections.abc import Callable
from functools import partial
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablations.errors import pick
from ablations.measure.allocator import is_out_of_memory, return_freed_memory
from ablations.measure.environment import check_device, use_full_float32
from ablations.measure.macs import input_dtype
from ablations.measure.process import available_memory, read_status, run_in_fresh_process
from ablations.measure.step import StepOptions, build_step, fused_kernels

MIB = 2**20

METHODS = {"cpu": "tracked_storages", "cuda": "max_memory_allocated"}
"""How the peak is measured on each device."""

_PEAK_RESET = Path("/proc/self/clear_refs")


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


def measure_in_process(
    build: Callable[[], nn.Module],
    input_shape: tuple[int, ...],
    *,
    memory_limit_bytes: int | None = None,
    **options: Unpack[StepOptions],
) -> dict[str, Any]:
    """Returns what fresh processes measure of the model that `build`, a function that can be pickled, returns there.

    On CUDA that is `measure_peak_memory`'s result, with TF32 off; on the CPU there is `measure_resident_memory`'s
    beside it, from a process of its own, which tracking does not disturb. If memory runs out, the result has
    `peak_memory_bytes` None, `memory_method`, and in `out_of_memory` what was asked for and what was free. On Linux's
    CPU it runs out at `memory_limit_bytes` beside what a process starts with; None is what is free, so that the system
    need not kill. Raises InputError as `build_step` does, and ProcessFailed for whatever else goes wrong in there.
    """
    pick("mode", options["mode"], ("inference", "training"))
    pick("precision", options["precision"], ("float32", "bf16"))
    device = str(options["device"])
    on_cpu = check_device(device).type == "cpu"
    if on_cpu and memory_limit_bytes is None:
        memory_limit_bytes = available_memory(device)
    result: dict[str, Any] = {}
    for measure in (_measure_built, measure_resident_memory) if on_cpu else (_measure_built,):
        measured = run_in_fresh_process(
            _measure_or_run_out,
            partial(measure, build, input_shape, **options),
            device,
            memory_limit_bytes=memory_limit_bytes if on_cpu else None,
            imports=[getattr(build, "func", build).__module__],  # of a partial, its function's
        )
        result |= measured
        if "out_of_memory" in measured:
            return measured | {"memory_method": METHODS["cpu" if on_cpu else "cuda"]}
    return result


def measure_peak_memory(
    model: nn.Module, input_shape: tuple[int, ...], **options: Unpack[StepOptions]
) -> dict[str, Any]:
    """Returns the peak memory in bytes of the second of two steps, with all that lives through it.

    Arguments and errors are `build_step`'s. The result has `peak_memory_bytes`, of which `parameter_bytes` are the
    parameters and `input_bytes` the input, and `memory_method`: `tracked_storages` (StorageTracker) on the CPU,
    `max_memory_allocated` on CUDA, with `peak_reserved_bytes` beside it and `left_over_bytes`, what lived on
    the device before: CUDA's are the whole process's, the model's own bytes among both if it is there already.
    `attention_kernels` names those of CUDA that attention was held to, if it was: see `fused_kernels`.
    """

    build, device = partial(build_step, model, input_shape, **options), options["device"]
    peak = _measure_allocated(build) if check_device(device).type == "cuda" else _measure_tracked(model, build)
    parameter_bytes = sum(parameter.nbytes for parameter in model.parameters())
    kernels = fused_kernels(model, device)
    held = {"attention_kernels": "+".join(kernels)} if kernels else {}
    sizes = {"parameter_bytes": parameter_bytes, "input_bytes": prod(input_shape) * input_dtype(model).itemsize}
    return peak | sizes | held


def measure_resident_memory(
    build: Callable[[], nn.Module], input_shape: tuple[int, ...], **options: Unpack[StepOptions]
) -> dict[str, Any]:
    """Returns by how much the second of two steps raises this process's resident memory at its peak.

    `resident_peak_bytes` is from before the model was built. `resident_method` is `vm_hwm` on Linux: the kernel's
    high-water mark is reset between the steps, and a step of an equal model went before all, so that code, imports and
    what kernels keep for the next call do not count. Elsewhere it is `ru_maxrss`, of the process's whole life: what
    was larger before hides the step, and what the first step needs for itself counts; None where there is not even
    that. To be called in a fresh process, for which it sets how freed memory goes back to the system. Raises InputError
    as `build_step` does, and for a device other than the CPU.
    """
    pick("device", str(options["device"]), ("cpu",))
    return_freed_memory()
    resettable = _reset_peak()
    if resettable:
        build_step(build(), input_shape, **options)()
        gc.collect()
        return_freed_memory()
    before = read_status()["VmRSS"] if resettable else _peak_of_life()
    step = build_step(build(), input_shape, **options)
    step()
    gc.collect()
    _reset_peak()
    step()
    after = read_status()["VmHWM"] if resettable else _peak_of_life()
    if before is None or after is None:
        return {"resident_peak_bytes": None, "resident_method": None}
    return {"resident_peak_bytes": after - before, "resident_method": "vm_hwm" if resettable else "ru_maxrss"}


def _reset_peak() -> bool:
    """Has Linux forget the process's peak resident size so far; returns whether it did."""
    try:
        _PEAK_RESET.write_text("5", encoding="ascii")  # proc_pid_clear_refs(5)
    except OSError:
        return False
    return True


def _peak_of_life() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _measure_built(
    build: Callable[[], nn.Module], input_shape: tuple[int, ...], **options: Unpack[StepOptions]
) -> dict[str, Any]:
    """Measures the peak memory of what `build` returns; for a fresh process, whose settings it changes."""
    if options["device"] == "cuda":
        use_full_float32()
    else:
        return_freed_memory()  # else gaps between what lives would count towards the limit
    return measure_peak_memory(build(), input_shape, **options)


def _measure_or_run_out(measure: Callable[[], dict[str, Any]], device: str) -> dict[str, Any]:
    try:
        return measure()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # Still with what it holds: the traceback keeps the step's tensors.
        free = available_memory(device)
        asked = re.search(r"[Tt]ried to allocate ([\d.]+) (\w+)", str(error))
        amount = "an unknown amount"
        if asked:
            amount = f"{int(asked[1]) / MIB:.1f} MiB" if asked[2] == "bytes" else f"{asked[1]} {asked[2]}"
        return {"peak_memory_bytes": None, "out_of_memory": f"asked for {amount}, free {free / MIB:.1f} MiB"}


def _measure_tracked(model: nn.Module, build: Callable[[], Callable[[], None]]) -> dict[str, Any]:
    with StorageTracker() as tracker:
        for tensor in chain(model.parameters(), model.buffers()):
            tracker.add(tensor)
        step = build()
        step()
        gc.collect()
        tracker.restart()
        step()
    return {"peak_memory_bytes": tracker.peak_bytes, "memory_method": METHODS["cpu"]}


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
        "memory_method": METHODS["cuda"],
    }
