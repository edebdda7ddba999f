"""Time of steps, taken interleaved in one process, so that whatever else the machine does meets all of them alike."""

import gc
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import torch

from ablations.measure.environment import check_device

Step = Callable[[], object]

SETTLED = 0.95
"""Warm-up ends when a round takes at least this share of the fastest before it."""

LONG = 5.0
"""Seconds of a round after which two are warm-up enough: what is done once weighs little in it."""


def time_interleaved(
    steps: Mapping[str, Step], *, repeats: int, warmup: int = 3, device: str | torch.device
) -> dict[str, list[float]]:
    """Returns `repeats` raw times in seconds of each step, taken A B A B ...

    Before them come `warmup` rounds or more, until they get no faster; of LONG ones two. Every time is from an idle
    device to an idle device, so no step hides its launching behind another's work. Python's garbage collector rests
    meanwhile. Raises InputError for a device that is not there.
    """
    time_step = _time_on_cuda if check_device(device).type == "cuda" else _time_on_cpu
    samples: dict[str, list[float]] = {name: [] for name in steps}
    with no_garbage_collection():
        _warm_up(steps.values(), time_step, warmup)
        for _ in range(repeats):
            for name, step in steps.items():
                samples[name].append(time_step(step))
    return samples


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collects Python's garbage now, and none in the block."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _warm_up(steps: Collection[Step], time_step: Callable[[Step], float], rounds: int) -> None:
    fastest = float("inf")
    for done in range(1, 4 * rounds + 1):
        seconds = sum(time_step(step) for step in steps)
        if done >= (2 if seconds > LONG else rounds) and seconds >= SETTLED * fastest:
            return
        fastest = min(fastest, seconds)


def _time_on_cpu(step: Step) -> float:
    start = perf_counter()
    step()
    return perf_counter() - start


def _time_on_cuda(step: Step) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3
