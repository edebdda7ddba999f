"""The other ceiling of a machine: bytes a second of copies, from those in a cache to one that no cache holds."""

from statistics import median
from typing import Any

import torch
from torch import Tensor

from ablations.measure.environment import check_device
from ablations.measure.interleaved import Step, time_interleaved

SIZES = tuple(2**power for power in range(18, 31, 2))
"""Bytes that a copy moves, half of them read and half written: 256 KiB to 1 GiB, more than a processor's caches hold.

The largest is one pair of 512 MiB, which a GPU too takes far longer to copy than to launch."""

TIMED_BYTES = 2**26
"""Smaller copies are timed several at once, until they move so much."""


def measure_bandwidth(device: str | torch.device, repeats: int = 5) -> dict[str, Any]:
    """Returns the bytes a second that copies between the same two tensors reach in memory and in caches.

    Keys: `bytes_per_s` of the largest copy, from memory to memory; `rates`, bytes a second by the bytes that a copy
    moves, the best of that size and of all larger ones; `samples`, by size, `repeats` raw seconds of a copy after a
    warm-up. Bytes read and bytes written both count; what a processor fetches of a line before it writes there does
    not, as in the bytes of an operator. Raises InputError for a device that is not there.
    """
    place = check_device(device)
    source = torch.ones(SIZES[-1] // 8, device=place)
    target = torch.empty_like(source)
    copies = {str(size): _copies(source[: size // 8], target[: size // 8], _at_once(size)) for size in SIZES}
    times = time_interleaved(copies, repeats=repeats, warmup=2, device=place)
    samples = {str(size): [seconds / _at_once(size) for seconds in times[str(size)]] for size in SIZES}
    rates: dict[int, float] = {}
    for size in reversed(SIZES):
        rates[size] = max([size / median(samples[str(size)]), *rates.values()])
    return {"bytes_per_s": rates[SIZES[-1]], "rates": rates, "samples": samples}


def _at_once(size: int) -> int:
    return max(1, TIMED_BYTES // size)


def _copies(source: Tensor, target: Tensor, count: int) -> Step:
    def copy() -> None:
        for _ in range(count):
            target.copy_(source)

    return copy
