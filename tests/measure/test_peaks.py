"""A machine's two peaks: from known times, and from real products and copies of small tensors."""

from collections.abc import Mapping
from statistics import median
from typing import Any

import pytest
import torch

from ablations.errors import InputError
from ablations.measure import peaks
from ablations.measure.interleaved import Step
from ablations.measure.operators import count_roofline
from ablations.measure.peaks import measure_bandwidth, measure_matmul_peak


@pytest.fixture(autouse=True)
def measured_anew() -> None:
    """What a test before this one measured is forgotten."""
    measure_matmul_peak.cache_clear()
    measure_bandwidth.cache_clear()


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """MACs a second by size, which products of (10, 20, 30) seem to reach; 1000 where none is given."""
    given: dict[int, float] = {}

    def time_interleaved(steps: Mapping[str, Step], *, repeats: int, **_: Any) -> dict[str, list[float]]:
        sizes = {name: 10 if name == "smallest" else int(name) for name in steps}
        seconds = {name: size**3 / given.get(size, 1000.0) for name, size in sizes.items()}
        # One is too low and one too high: the median is unmoved, the best and the mean are not.
        return {name: [0.0 * time, 9.0 * time, *[time] * (repeats - 2)] for name, time in seconds.items()}

    monkeypatch.setattr(peaks, "MATRIX_SIZES", (10, 20, 30))
    monkeypatch.setattr(peaks, "LONGEST", 27.0)
    monkeypatch.setattr(peaks, "time_interleaved", time_interleaved)
    return given


def test_the_best_median_of_the_sizes_counts(rates: dict[int, float]) -> None:
    rates |= {10: 1000.0, 20: 4000.0, 30: 3000.0}
    peak = measure_matmul_peak("cpu", "float32", repeats=5)
    assert peak["macs_per_s"] == pytest.approx(4000.0)
    assert peak["size"] == 20
    assert peak["samples"]["20"] == pytest.approx([0.0, 18.0, 2.0, 2.0, 2.0])  # 20 ** 3 MACs
    assert list(peak["samples"]) == ["10", "20", "30"]


@pytest.mark.parametrize(
    ("rate", "sizes"),
    [(1000.0, ["10", "20", "30"]), (999.0, ["10", "20"]), (297.0, ["10", "20"]), (296.0, ["10"]), (1.0, ["10"])],
)
def test_products_that_take_too_long_are_left_out(rates: dict[int, float], rate: float, sizes: list[str]) -> None:
    rates[10] = rate  # 27 s are 27,000 MACs at a rate of 1000
    assert list(measure_matmul_peak("cpu", "float32", repeats=3)["samples"]) == sizes


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_real_products(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(peaks, "MATRIX_SIZES", (32, 64))
    peak = measure_matmul_peak("cpu", precision, repeats=3)
    assert {size: len(samples) for size, samples in peak["samples"].items()} == {"32": 3, "64": 3}
    assert peak["macs_per_s"] == max(int(size) ** 3 / median(times) for size, times in peak["samples"].items())
    assert (peak["threads"], peak["precision"]) == (torch.get_num_threads(), precision)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_matrices_are_square_and_of_the_precision(
    monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    multiplied: list[tuple[torch.Size, torch.dtype]] = []

    def mm(left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> None:
        multiplied.extend((matrix.shape, matrix.dtype) for matrix in (left, right, out))

    monkeypatch.setattr(peaks, "MATRIX_SIZES", (8,))
    monkeypatch.setattr(torch, "mm", mm)
    measure_matmul_peak("cpu", precision, repeats=2)
    assert set(multiplied) == {((8, 8), dtype)}


@pytest.mark.parametrize(("device", "precision"), [("cpu", "float16"), ("tpu", "float32")])
def test_what_nobody_can_measure_is_refused(device: str, precision: str) -> None:
    with pytest.raises(InputError, match="is not possible"):
        measure_matmul_peak(device, precision)


def test_bytes_read_and_written_over_the_median_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: dict[str, tuple[int, int]] = {}
    seconds = {"1024": 4.0, "2048": 2.0, "4096": 4.0}  # the smallest, four copies at once, has 1024 B/s

    def time_interleaved(steps: Mapping[str, Step], *, repeats: int, **_: Any) -> dict[str, list[float]]:
        for name, step in steps.items():
            (row,) = count_roofline(step, macs_per_s=1.0, bytes_per_s={1: 1.0})["roofline"]
            moved[name] = row["calls"], row["bytes"]
        return {name: [9.0 * time, 0.1 * time, *[time] * (repeats - 2)] for name, time in seconds.items()}

    monkeypatch.setattr(peaks, "COPIED_BYTES", (1024, 2048, 4096))
    monkeypatch.setattr(peaks, "TIMED_BYTES", 4096)
    monkeypatch.setattr(peaks, "time_interleaved", time_interleaved)
    measured = measure_bandwidth("cpu", repeats=5)
    assert moved == {"1024": (4, 4096), "2048": (2, 4096), "4096": (1, 4096)}
    assert measured["samples"]["1024"] == pytest.approx([9.0, 0.1, 1.0, 1.0, 1.0])
    # A copy is held to be no slower than larger ones: what holds it up is no matter of memory.
    assert measured["rates"] == {4096: 1024.0, 2048: 2048.0, 1024: 2048.0}
    assert measured["bytes_per_s"] == 1024.0


def test_real_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "COPIED_BYTES", (1024, 4096))
    measured = measure_bandwidth("cpu", repeats=3)
    assert {size: len(samples) for size, samples in measured["samples"].items()} == {"1024": 3, "4096": 3}
    assert 0 < measured["bytes_per_s"] == 4096 / median(measured["samples"]["4096"])
    assert set(measured["rates"]) == {1024, 4096}


def test_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match="device='tpu'"):
        measure_bandwidth("tpu")
