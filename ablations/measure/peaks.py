"""The two ceilings of a machine: MACs a second of large matrix products, and bytes a second of copies.

Each is measured once in a process for a device and, of products, a precision.
"""

from functools import cache
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ablations.errors import pick
from ablations.measure.environment import check_device
from ablations.measure.interleaved import Step, time_interleaved

MATRIX_SIZES = (1024, 2048, 3072, 4096, 8192)
"""Rows and columns of the square matrices."""

LONGEST = 0.8
"""Seconds that one product may take. Sizes that would take longer are left out; a slow machine needs no large ones."""

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}

COPIED_BYTES = tuple(2**power for power in range(18, 31, 2))
"""Bytes that a copy moves, half of them read and half written: 256 KiB to 1 GiB, more than a processor's caches hold.

The largest is one pair of 512 MiB, which a GPU too takes far longer to copy than to launch."""

TIMED_BYTES = 2**26
"""Smaller copies are timed several at once, until they move so much."""


@cache
def measure_matmul_peak(device: str | torch.device, precision: str, repeats: int = 5) -> dict[str, Any]:
    """Returns the most MACs a second that `device` reaches in square matrix products, in a few seconds.

    Each size's products are timed interleaved with the others', `repeats` times; the best of the sizes' medians counts.
    Keys: `macs_per_s`, `size` of the matrices that reached it, `samples` (raw seconds of one product, by size),
    `threads` that torch uses on the CPU, `precision`. The matrices are of the precision, so `bf16` is no autocast;
    `float32` is what torch is set to on CUDA (see `use_full_float32`). Raises InputError for an unknown precision, and
    for a device that is not there.
    """
    dtype = DTYPES[pick("precision", precision, DTYPES)]
    place = check_device(device)
    products = {size: _product(size, dtype, place) for size in _affordable_sizes(dtype, place)}
    samples = time_interleaved(
        {str(size): run for size, run in products.items()}, repeats=repeats, warmup=2, device=place
    )
    rates = {size: size**3 / median(samples[str(size)]) for size in products}
    best = max(rates, key=rates.__getitem__)
    return {
        "macs_per_s": rates[best],
        "size": best,
        "samples": samples,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def _affordable_sizes(dtype: torch.dtype, device: torch.device) -> list[int]:
    """Returns the smallest size, and those whose product takes at most LONGEST at its speed."""
    smallest = MATRIX_SIZES[0]
    samples = time_interleaved({"smallest": _product(smallest, dtype, device)}, repeats=3, device=device)
    rate = smallest**3 / median(samples["smallest"])
    return [size for size in MATRIX_SIZES if size == smallest or size**3 <= LONGEST * rate]


def _product(size: int, dtype: torch.dtype, device: torch.device) -> Step:
    """Returns a function that multiplies two square matrices into a third, which is there before."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    product = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=product)


@cache
def measure_bandwidth(device: str | torch.device, repeats: int = 5) -> dict[str, Any]:
    """Returns the bytes a second that copies between the same two tensors reach in memory and in caches.

    Keys: `bytes_per_s` of the largest copy, from memory to memory; `rates`, bytes a second by the bytes that a copy
    moves, the best of that size and of all larger ones; `samples`, by size, `repeats` raw seconds of a copy after a
    warm-up. Bytes read and bytes written both count; what a processor fetches of a line before it writes there does
    not, as in the bytes of an operator. Raises InputError for a device that is not there.
    """
    place = check_device(device)
    source = torch.ones(COPIED_BYTES[-1] // 8, device=place)
    target = torch.empty_like(source)
    copies = {str(size): _copies(source[: size // 8], target[: size // 8], _at_once(size)) for size in COPIED_BYTES}
    times = time_interleaved(copies, repeats=repeats, warmup=2, device=place)
    samples = {str(size): [seconds / _at_once(size) for seconds in times[str(size)]] for size in COPIED_BYTES}
    rates: dict[int, float] = {}
    for size in reversed(COPIED_BYTES):
        rates[size] = max([size / median(samples[str(size)]), *rates.values()])
    return {"bytes_per_s": rates[COPIED_BYTES[-1]], "rates": rates, "samples": samples}


def _at_once(size: int) -> int:
    return max(1, TIMED_BYTES // size)


def _copies(source: Tensor, target: Tensor, count: int) -> Step:
    def copy() -> None:
        for _ in range(count):
            target.copy_(source)

    return copy
