"""Peaks of live storages that can be worked out by hand, in this process and in fresh ones."""

import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablations.analysis.memory import ALLOWED_PERCENT
from ablations.config import build_config
from ablations.errors import InputError
from ablations.measure import peak_memory, process
from ablations.measure.peak_memory import (
    StorageTracker,
    measure_in_process,
    measure_peak_memory,
    measure_resident_memory,
)
from ablations.measure.process import ProcessFailed, run_in_fresh_process
from ablations.model import PVT, build_model

KIB = 1024
MIB = 1024 * KIB

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's peak can be reset, and its processes limited")


def test_tracker_follows_storages_not_tensors() -> None:
    with StorageTracker() as tracker:
        a = torch.zeros(256)
        assert tracker.live_bytes == KIB
        view = a.view(16, 16)[:1]
        a.add_(1)
        a.resize_(2, 128)
        assert tracker.live_bytes == KIB
        b = torch.cat([a, a])
        assert tracker.live_bytes == 3 * KIB
        del b
        assert (tracker.live_bytes, tracker.peak_bytes) == (KIB, 3 * KIB)
        del a
        assert tracker.live_bytes == KIB  # the view keeps it
        tracker.restart()
        assert tracker.peak_bytes == KIB
        view.resize_(512)
        assert tracker.live_bytes == 2 * KIB
        del view
        assert (tracker.live_bytes, tracker.peak_bytes) == (0, 2 * KIB)


def test_tracker_counts_what_it_is_given_once() -> None:
    weight = nn.Parameter(torch.zeros(256))
    tracker = StorageTracker()
    tracker.add(weight)
    tracker.add(weight.view(16, 16))
    with tracker:
        weight.detach().mul_(2)
    assert tracker.live_bytes == tracker.peak_bytes == KIB
    del weight
    assert tracker.live_bytes == 0


def test_tracker_sees_into_composite_operators() -> None:
    peaks = []
    for without_gradients in (torch.no_grad, torch.inference_mode):
        with StorageTracker() as tracker, without_gradients():
            torch.matmul(torch.zeros(4, 16, 16), torch.zeros(2, 1, 16, 16))
        peaks.append(tracker.peak_bytes)
    # The factors of 4 and 2 KiB, what `matmul` makes of each for a batch of 2 x 4, and the product.
    assert peaks == [(4 + 2 + 8 + 8 + 8) * KIB] * 2


def test_inference_of_a_perceptron() -> None:
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8))
    measured = measure_peak_memory(model, (32, 64), mode="inference", precision="float32", device="cpu")
    parameters = 4 * (64 * 256 + 256 + 256 * 8 + 8)
    hidden = 4 * 32 * 256
    assert measured == {
        # The hidden layer before and after the ReLU.
        "peak_memory_bytes": parameters + 4 * 32 * 64 + 2 * hidden,
        "parameter_bytes": parameters,
        "input_bytes": 4 * 32 * 64,
        "memory_method": "tracked_storages",
    }


def test_training_peaks_at_the_last_gradient_where_weights_are_large() -> None:
    model = nn.Linear(256, 256, bias=False)
    measured = measure_peak_memory(model, (4, 256), mode="training", precision="float32", device="cpu")
    weights = 4 * 256 * 256
    # Weights, gradients, two moments; images and the output's gradient; labels; step count, loss and its gradient.
    assert measured["peak_memory_bytes"] == 4 * weights + 2 * 4 * 4 * 256 + 4 * 8 + 4 + 4 + 4


class Sines(nn.Module):
    """A chain of functions that keep their inputs for the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scale).sin().sin().sin()


def test_training_peaks_in_the_backward_pass_where_activations_are_large() -> None:
    shape = (16, 1024)
    activation = 4 * 16 * 1024
    training = measure_peak_memory(Sines(), shape, mode="training", precision="float32", device="cpu")
    inference = measure_peak_memory(Sines(), shape, mode="inference", precision="float32", device="cpu")
    # Input, product; each sine replaces what it read.
    assert inference["peak_memory_bytes"] == 3 * activation + 4
    # Input, product, two sines, log-softmax (all kept), and the gradient of the loss before and after the log-softmax;
    # beside them 16 labels and some scalars.
    assert 0 < training["peak_memory_bytes"] - 7 * activation - 16 * 8 < 64


def test_what_only_the_first_step_needs_is_left_out() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = torch.zeros(1024 * 1024).sum()
            return x + self.kept

    measured = measure_peak_memory(Lazy(), (1, 256), mode="inference", precision="float32", device="cpu")
    assert measured["peak_memory_bytes"] == 2 * KIB + 4


def test_bf16_activations_take_half() -> None:
    model = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 8))
    peaks = {
        precision: measure_peak_memory(model, (512, 64), mode="inference", precision=precision, device="cpu")
        for precision in ("float32", "bf16")
    }
    fixed = peaks["bf16"]["parameter_bytes"] + peaks["bf16"]["input_bytes"]
    float32, bf16 = (peaks[precision]["peak_memory_bytes"] - fixed for precision in ("float32", "bf16"))
    assert float32 == 2 * 4 * 512 * 1024
    # The autocast copy of the first layer's weights and bias is let go after the layer.
    assert bf16 == 2 * 2 * 512 * 1024


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_pvt_measures_the_same_every_time(mode: str) -> None:
    first, second = (
        measure_peak_memory(
            build_model(build_config("pico")), (2, 3, 64, 48), mode=mode, precision="float32", device="cpu"
        )
        for _ in range(2)
    )
    assert first == second
    copies = 4 if mode == "training" else 1  # with gradients and two moments
    assert first["peak_memory_bytes"] > copies * first["parameter_bytes"] + first["input_bytes"]


def test_scores_take_memory_only_where_attention_is_explicit() -> None:
    peaks = {
        attention: measure_peak_memory(
            build_model(build_config("nano", attention=attention)),
            (1, 3, 256, 256),
            mode="inference",
            precision="float32",
            device="cpu",
        )["peak_memory_bytes"]
        for attention in ("fused", "explicit")
    }
    scores = 4 * 128**2 * 16**2  # of the first stage: 128 x 128 tokens to 16 x 16 reduced ones
    assert peaks["explicit"] > 2 * scores  # before and after the softmax
    assert peaks["fused"] < 2 * scores


def build_pico() -> PVT:
    return build_model(build_config("pico"))


def build_perceptron(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width, bias=False), nn.ReLU(), nn.Linear(width, 8, bias=False))


def raise_error(error: Exception) -> nn.Module:
    raise error


def measure_there(build: Callable[[], nn.Module], shape: tuple[int, ...], **others: Any) -> dict[str, Any]:
    return measure_in_process(build, shape, **({"mode": "inference", "precision": "float32", "device": "cpu"} | others))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_fresh_processes_track_what_this_one_does(mode: str, precision: str) -> None:
    conditions: dict[str, Any] = {"mode": mode, "precision": precision, "device": "cpu"}
    there = measure_there(build_pico, (2, 3, 64, 48), **conditions)
    here = measure_peak_memory(build_pico(), (2, 3, 64, 48), **conditions)
    assert {name: there[name] for name in here} == here
    assert set(there) - set(here) == {"resident_peak_bytes", "resident_method"}


@pytest.mark.slow
def test_the_layout_is_a_condition() -> None:
    # A convolution of channels-first images in another layout copies them, so the peaks differ.
    peaks = {measure_there(build_pico, (2, 3, 64, 64), channels_last=last)["peak_memory_bytes"] for last in (0, 1)}
    assert len(peaks) == 2


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_resident_memory_is_close_to_tracked_storages_where_kernels_need_little(mode: str) -> None:
    rows, width = (6144, 4096) if mode == "inference" else (3072, 4096)
    measured = measure_there(partial(build_perceptron, width), (rows, 64), mode=mode)
    # In training three at a time: what the ReLU kept, the gradient behind it, and the one before it.
    hidden = 4 * rows * width * (2 if mode == "inference" else 3)
    assert hidden < measured["peak_memory_bytes"] < 1.1 * hidden
    assert measured["resident_method"] == "vm_hwm"
    assert measured["resident_peak_bytes"] == pytest.approx(measured["peak_memory_bytes"], rel=0.01, abs=MIB)


def test_resident_memory_without_a_peak_that_can_be_reset(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(peak_memory, "_PEAK_RESET", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr(peak_memory, "return_freed_memory", lambda: None)
    peaks = iter([100 * MIB, 130 * MIB])
    monkeypatch.setattr(peak_memory, "_peak_of_life", lambda: next(peaks))
    measured = measure_resident_memory(build_pico, (1, 3, 32, 32), mode="inference", precision="float32", device="cpu")
    assert measured == {"resident_peak_bytes": 30 * MIB, "resident_method": "ru_maxrss"}
    monkeypatch.setattr(peak_memory, "_peak_of_life", lambda: None)
    measured = measure_resident_memory(build_pico, (1, 3, 32, 32), mode="inference", precision="float32", device="cpu")
    assert measured == {"resident_peak_bytes": None, "resident_method": None}


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_forked_processes_measure_what_fresh_ones_do(monkeypatch, mode: str) -> None:
    side = 1024 if mode == "inference" else 512  # so that a page or two is no share of the peak
    shape = (1, 3, side, side)
    forked = measure_there(build_pico, shape, mode=mode)
    spawning = multiprocessing.get_context("spawn")
    monkeypatch.setattr(process, "fresh_process_context", lambda imports: spawning)
    fresh = measure_there(build_pico, shape, mode=mode)
    assert forked["peak_memory_bytes"] == fresh["peak_memory_bytes"]
    allowed = ALLOWED_PERCENT["resident", mode] / 100
    assert forked["resident_peak_bytes"] == pytest.approx(fresh["resident_peak_bytes"], rel=allowed)


@on_linux
def test_the_peak_of_a_life_is_in_bytes() -> None:
    peak = run_in_fresh_process(peak_memory._peak_of_life)
    assert 50 * MIB < peak < 4096 * MIB  # with torch imported


@on_linux
def test_a_limit_that_is_too_small_is_a_result() -> None:
    measured = measure_there(partial(build_perceptron, 4096), (6144, 64), memory_limit_bytes=80 * MIB)
    (asked,) = [text for text in measured.pop("out_of_memory").split(", ") if text.startswith("asked")]
    assert asked == "asked for 96.0 MiB"  # the hidden layer: 6144 x 4096 x 4 bytes
    assert measured == {"peak_memory_bytes": None, "memory_method": "tracked_storages"}


@on_linux
def test_what_is_free_is_what_the_limit_leaves() -> None:
    shape = (6144, 64)  # 1.5 MiB, and 1.1 MiB of weights
    measured = measure_there(partial(build_perceptron, 4096), shape, memory_limit_bytes=150 * MIB)
    free = float(measured["out_of_memory"].removeprefix("asked for 96.0 MiB, free ").removesuffix(" MiB"))
    assert 20 < free < 150 - 96  # the first hidden layer is there


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity"),
            "2.50 GiB",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3145728 bytes."), "3.0 MiB"),
        (RuntimeError("could not create a primitive"), "an unknown amount"),
        (MemoryError(), "an unknown amount"),
    ],
)
def test_every_kind_of_running_out(error: Exception, asked: str) -> None:
    measured = measure_there(partial(raise_error, error), (1, 3))
    assert measured["out_of_memory"].startswith(f"asked for {asked}, free ")
    assert measured["peak_memory_bytes"] is None


def test_other_errors_are_failures() -> None:
    with pytest.raises(ProcessFailed, match="RuntimeError: mat1 and mat2 shapes cannot be multiplied"):
        measure_there(partial(build_perceptron, 8), (4, 5))


@pytest.mark.parametrize("wrong", [{"mode": "train"}, {"precision": "fp16"}, {"device": "tpu"}])
def test_unknown_conditions_start_no_process(monkeypatch, wrong: dict[str, str]) -> None:
    monkeypatch.setattr(peak_memory, "run_in_fresh_process", None)
    with pytest.raises(InputError, match=next(iter(wrong.values()))):
        measure_there(build_pico, (1, 3, 32, 32), **wrong)


def test_resident_memory_is_the_cpu_s() -> None:
    with pytest.raises(InputError, match="device='cuda' is not possible; allowed: cpu"):
        measure_resident_memory(build_pico, (1, 3, 32, 32), mode="inference", precision="float32", device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_cuda_in_a_fresh_process_finds_nothing_left_over(mode: str) -> None:
    held = torch.ones(MIB, device="cuda")
    measured = measure_there(partial(nn.Linear, 1024, 1024, bias=False), (4, 1024), mode=mode, device="cuda")
    assert held.sum() == MIB
    assert measured["left_over_bytes"] == 0
    assert measured["memory_method"] == "max_memory_allocated"
    assert measured["peak_memory_bytes"] >= (4 if mode == "training" else 1) * 4 * MIB


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_runs_out_as_a_result() -> None:
    measured = measure_there(partial(build_perceptron, 2**20), (2**22, 64), device="cuda")  # 16 TiB
    assert measured["out_of_memory"].startswith("asked for 16384.00 GiB, free ")
    assert (measured["peak_memory_bytes"], measured["memory_method"]) == (None, "max_memory_allocated")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_cuda_reports_what_its_allocator_gave_out(mode: str) -> None:
    model = nn.Linear(1024, 1024, bias=False)
    measured = measure_peak_memory(model, (4, 1024), mode=mode, precision="float32", device="cuda")
    assert measured["memory_method"] == "max_memory_allocated"
    weights = 4 * 1024 * 1024
    assert measured["peak_reserved_bytes"] >= measured["peak_memory_bytes"]
    assert measured["peak_memory_bytes"] >= (4 if mode == "training" else 1) * weights
