"""The rate of copies: from known times, and from real copies of small tensors."""

from collections.abc import Mapping
from statistics import median
from typing import Any

import pytest

from ablations.errors import InputError
from ablations.measure import bandwidth
from ablations.measure.bandwidth import measure_bandwidth
from ablations.measure.interleaved import Step
from ablations.measure.operators import count_roofline


def test_bytes_read_and_written_over_the_median_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: dict[str, tuple[int, int]] = {}
    seconds = {"1024": 4.0, "2048": 2.0, "4096": 4.0}  # the smallest, four copies at once, has 1024 B/s

    def time_interleaved(steps: Mapping[str, Step], *, repeats: int, **_: Any) -> dict[str, list[float]]:
        for name, step in steps.items():
            (row,) = count_roofline(step, macs_per_s=1.0, bytes_per_s={1: 1.0})["roofline"]
            moved[name] = row["calls"], row["bytes"]
        return {name: [9.0 * time, 0.1 * time, *[time] * (repeats - 2)] for name, time in seconds.items()}

    monkeypatch.setattr(bandwidth, "SIZES", (1024, 2048, 4096))
    monkeypatch.setattr(bandwidth, "TIMED_BYTES", 4096)
    monkeypatch.setattr(bandwidth, "time_interleaved", time_interleaved)
    measured = measure_bandwidth("cpu", repeats=5)
    assert moved == {"1024": (4, 4096), "2048": (2, 4096), "4096": (1, 4096)}
    assert measured["samples"]["1024"] == pytest.approx([9.0, 0.1, 1.0, 1.0, 1.0])
    # A copy is held to be no slower than larger ones: what holds it up is no matter of memory.
    assert measured["rates"] == {4096: 1024.0, 2048: 2048.0, 1024: 2048.0}
    assert measured["bytes_per_s"] == 1024.0


def test_real_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "SIZES", (1024, 4096))
    measured = measure_bandwidth("cpu", repeats=3)
    assert {size: len(samples) for size, samples in measured["samples"].items()} == {"1024": 3, "4096": 3}
    assert 0 < measured["bytes_per_s"] == 4096 / median(measured["samples"]["4096"])
    assert set(measured["rates"]) == {1024, 4096}


def test_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match="device='tpu'"):
        measure_bandwidth("tpu")
