"""Peaks of live storages that can be worked out by hand."""

import pytest
import torch
from torch import Tensor, nn

from ablations.config import build_config
from ablations.measure.memory import StorageTracker, measure_peak_memory
from ablations.model import build_model

KIB = 1024


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


def test_training_peaks_in_the_optimiser_where_weights_are_large() -> None:
    model = nn.Linear(256, 256, bias=False)
    measured = measure_peak_memory(model, (4, 256), mode="training", precision="float32", device="cpu")
    weights = 4 * 256 * 256
    # Weights, gradients, two moments, and two temporaries of AdamW; labels of 8 bytes, step count and loss of 4.
    assert measured["peak_memory_bytes"] == 6 * weights + 4 * 4 * 256 + 4 * 8 + 4 + 4


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_cuda_reports_what_its_allocator_gave_out(mode: str) -> None:
    model = nn.Linear(1024, 1024, bias=False)
    measured = measure_peak_memory(model, (4, 1024), mode=mode, precision="float32", device="cuda")
    assert measured["memory_method"] == "max_memory_allocated"
    weights = 4 * 1024 * 1024
    assert measured["peak_reserved_bytes"] >= measured["peak_memory_bytes"]
    assert measured["peak_memory_bytes"] >= (4 if mode == "training" else 1) * weights
