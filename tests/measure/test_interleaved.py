"""Order, warm-up and clock of timed steps, on a clock that the test winds."""

import gc
from collections.abc import Callable, Iterator

import pytest
import torch

from ablations.errors import InputError
from ablations.measure import interleaved
from ablations.measure.interleaved import time_interleaved


class Clock:
    """Stands still but while a step runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def step(self, name: str, durations: Iterator[float]) -> Callable[[], None]:
        def run() -> None:
            self.ran.append(name)
            self.now += next(durations)

        return run


def constant(duration: float) -> Iterator[float]:
    while True:
        yield duration


def falling(first: list[float], then: float) -> Iterator[float]:
    yield from first
    yield from constant(then)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(interleaved, "perf_counter", lambda: clock.now)
    return clock


def test_steps_are_timed_interleaved_after_the_warm_up(clock: Clock) -> None:
    steps = {"a": clock.step("a", constant(1.0)), "b": clock.step("b", constant(2.0))}
    assert time_interleaved(steps, repeats=4, warmup=3, device="cpu") == {"a": [1.0] * 4, "b": [2.0] * 4}
    assert clock.ran == ["a", "b"] * (3 + 4)


def test_warm_up_goes_on_while_rounds_get_faster(clock: Clock) -> None:
    steps = {"a": clock.step("a", falling([16.0, 8.0, 4.0, 2.0, 1.5], then=1.0))}
    assert time_interleaved(steps, repeats=2, warmup=3, device="cpu") == {"a": [1.0] * 2}
    assert len(clock.ran) == 7 + 2  # the seventh round is the first that is no faster


def test_warm_up_ends_in_any_case(clock: Clock) -> None:
    halving = (2.0**-n for n in range(100))
    time_interleaved({"a": clock.step("a", halving)}, repeats=1, warmup=3, device="cpu")
    assert len(clock.ran) == 12 + 1


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_collector_rests_while_timing(collecting: bool) -> None:
    seen = []
    (gc.enable if collecting else gc.disable)()
    try:
        time_interleaved({"a": lambda: seen.append(gc.isenabled())}, repeats=2, device="cpu")
        assert set(seen) == {False}
        assert gc.isenabled() is collecting
    finally:
        gc.enable()


def test_garbage_collector_is_back_after_a_failure() -> None:
    def fail() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        time_interleaved({"a": fail}, repeats=1, device="cpu")
    assert gc.isenabled()


def test_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match="device='tpu'"):
        time_interleaved({}, repeats=1, device="tpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_times_the_device_and_not_the_launch() -> None:
    x = torch.randn(4096, 4096, device="cuda")
    samples = time_interleaved({"ten": lambda: [x @ x for _ in range(10)]}, repeats=3, device="cuda")
    # A launch takes microseconds, and no GPU does 1.4e12 operations of float32 in a millisecond.
    assert min(samples["ten"]) > 1e-3
