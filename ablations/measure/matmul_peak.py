"""The ceiling of a machine: MACs a second of large matrix products, which everything else falls short of."""

from statistics import median
from typing import Any

import torch

from ablations.errors import pick
from ablations.measure.environment import check_device
from ablations.measure.interleaved import Step, time_interleaved

SIZES = (1024, 2048, 3072, 4096, 8192)
"""Rows and columns of the square matrices."""

LONGEST = 0.8
"""Seconds that one product may take. Sizes that would take longer are left out; a slow machine needs no large ones."""

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


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
    smallest = SIZES[0]
    samples = time_interleaved({"smallest": _product(smallest, dtype, device)}, repeats=3, device=device)
    rate = smallest**3 / median(samples["smallest"])
    return [size for size in SIZES if size == smallest or size**3 <= LONGEST * rate]


def _product(size: int, dtype: torch.dtype, device: torch.device) -> Step:
    """Returns a function that multiplies two square matrices into a third, which is there before."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    product = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=product)
