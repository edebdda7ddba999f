"""Predicted peaks: equal to what real tensors take, byte for byte, and to what can be worked out by hand."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.checkpoint import checkpoint

from ablations.config import ARMS, build_config
from ablations.errors import InputError
from ablations.measure import predict, shapes
from ablations.measure.kinds import BYTE_KINDS
from ablations.measure.macs import trace_macs
from ablations.measure.peak_memory import measure_peak_memory
from ablations.measure.predict import predict_peak_memory
from ablations.model import build_model

KIB = 1024


def predicted(build: Callable[[], nn.Module], input_shape: tuple[int, ...], **conditions: Any) -> dict[str, Any]:
    """The prediction for a model built on `meta`: in float32 on the CPU in inference, unless told otherwise."""
    with torch.device("meta"):
        model = build()
    return predict_peak_memory(
        model, input_shape, **({"mode": "inference", "precision": "float32", "device": "cpu"} | conditions)
    )


def assert_equal_to_measured(build: Callable[[], nn.Module], input_shape: tuple[int, ...], **conditions: Any) -> None:
    conditions = {"precision": "float32"} | conditions
    measured = measure_peak_memory(build(), input_shape, device="cpu", **conditions)
    found = predicted(build, input_shape, **conditions)
    assert sum(found["bytes_at_peak"].values()) == found["peak_memory_bytes"]
    assert sum(found["activations_by_stage"].values()) == found["bytes_at_peak"]["activations"]
    assert min(found["bytes_at_peak"].values()) >= 0
    keys = ("peak_memory_bytes", "parameter_bytes", "input_bytes")
    assert {key: found[key] for key in keys} == {key: measured[key] for key in keys}


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("attention", [pytest.param("fused", marks=pytest.mark.slow), "explicit"])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_takes_what_it_takes_for_real(arm: str, attention: str, mode: str) -> None:
    config = build_config("pico", arm, attention=attention)
    assert_equal_to_measured(lambda: build_model(config), (2, 3, 64, 48), mode=mode)


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize(
    ("arm", "attention"), [("v1", "explicit"), ("v1+ope+cffn", "fused"), ("v1+cffn+lsra", "explicit")]
)
def test_autocast_takes_what_it_takes_for_real(arm: str, attention: str, mode: str) -> None:
    config = build_config("pico", arm, attention=attention)
    assert_equal_to_measured(lambda: build_model(config), (1, 3, 64, 64), mode=mode, precision="bf16")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("resnet18", {}, 64),
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2}, 64),
        ("swin_tiny_patch4_window7_224", {"img_size": 56, "embed_dim": 24, "depths": (2, 1, 1, 1)}, 56),
    ],
)
@pytest.mark.slow
def test_models_of_others_take_what_they_take_for_real(
    name: str, options: dict[str, Any], size: int, mode: str, precision: str
) -> None:
    assert_equal_to_measured(
        lambda: timm.create_model(name, **options), (1, 3, size, size), mode=mode, precision=precision
    )


def torchs_peak(build: Callable[[], nn.Module], input_shape: tuple[int, ...]) -> int:
    """The peak in bytes of a training step in float32 on the CPU, by torch's MemTracker on fake tensors."""
    with FakeTensorMode():
        model, images = build(), torch.empty(input_shape)
        labels = torch.zeros(input_shape[0], dtype=torch.long)
        optimizer = torch.optim.AdamW(model.parameters())
        for weight in model.parameters():
            moments = {name: torch.empty_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[weight] = {"step": torch.zeros(()), **moments}
        tracker = MemTracker()
        tracker.track_external(model, optimizer, images, labels)
        with tracker:
            F.cross_entropy(model(images), labels).backward()
        return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


@pytest.mark.parametrize(("arm", "attention"), [("v1", "explicit"), ("v1+ope+cffn", "fused")])
@pytest.mark.slow
def test_torchs_own_tracker_finds_the_same_peak(arm: str, attention: str) -> None:
    config, shape = build_config("pico", arm, attention=attention), (2, 3, 64, 64)
    found = predicted(lambda: build_model(config), shape, mode="training", channels_last=False)
    assert found["peak_memory_bytes"] == torchs_peak(lambda: build_model(config), shape)


class Checkpointed(nn.Module):
    """Blocks whose activations are computed anew in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 16)) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = x + checkpoint(stage, x, use_reentrant=False)
        return x


class Plain(Checkpointed):
    """The same, keeping them."""

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = x + stage(x)
        return x


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("build", [Checkpointed, Plain])
def test_activation_checkpointing(build: type[nn.Module], precision: str) -> None:
    assert_equal_to_measured(build, (256, 16), mode="training", precision=precision)


def test_checkpointed_blocks_keep_their_inputs_only() -> None:
    kept = [predicted(build, (256, 16), mode="training") for build in (Plain, Checkpointed)]
    plain, checkpointed = (each["bytes_at_peak"]["activations"] for each in kept)
    assert checkpointed < plain / 4
    assert kept[1]["bytes_at_peak"]["temporaries"] > kept[0]["bytes_at_peak"]["temporaries"]


def test_weights_that_never_have_a_gradient_have_no_state() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.frozen = (nn.Linear(64, 64) for _ in range(3))
            self.frozen.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.frozen(self.used(x))

    assert_equal_to_measured(Half, (4, 64), mode="training")


def test_functions_that_torch_wrote_in_python_are_looked_into() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0].mean(1)

    for precision in ("float32", "bf16"):
        assert_equal_to_measured(Attends, (2, 64, 16), mode="training", precision=precision)


def test_inference_of_a_perceptron() -> None:
    found = predicted(lambda: nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8)), (32, 64))
    parameters, images, hidden = 4 * (64 * 256 + 256 + 256 * 8 + 8), 4 * 32 * 64, 4 * 32 * 256
    kinds = dict.fromkeys(BYTE_KINDS, 0) | {"parameters": parameters, "input": images, "temporaries": 2 * hidden}
    assert found == {
        "peak_memory_bytes": parameters + images + 2 * hidden,  # the hidden layer before and after the ReLU
        "memory_method": "predicted_storages",
        "peak_operator": "aten.relu",
        "peak_phase": "forward",
        "bytes_at_peak": kinds,
        "activations_by_stage": {},
        "parameter_bytes": parameters,
        "input_bytes": images,
    }


def test_training_that_peaks_at_the_last_gradient() -> None:
    found = predicted(lambda: nn.Linear(256, 256, bias=False), (4, 256), mode="training")
    weights = 4 * 256 * 256
    assert found["bytes_at_peak"] == {
        "parameters": weights,
        "gradients": 0,
        "optimizer": 2 * weights + 4,  # two moments, and the count of steps
        "input": 4 * 4 * 256 + 4 * 8,  # images, labels
        "activations": 0,
        # The weight's gradient, which nobody has accumulated yet, the output's, the loss and its own.
        "temporaries": weights + 4 * 4 * 256 + 4 + 4,
    }
    assert found["peak_phase"] == "backward"


def test_the_state_of_the_optimiser_lies_on_the_device() -> None:
    found = predicted(
        lambda: nn.Sequential(nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False)),
        (4, 256),
        mode="training",
        device="cuda",
    )
    weights = 2 * 4 * 256 * 256
    # Two moments, and for each of two weights a count of steps, which takes an allocator's unit.
    assert found["bytes_at_peak"]["optimizer"] == 2 * weights + 2 * 512


def test_activations_are_told_apart_by_the_stage_that_made_them() -> None:
    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([nn.Sequential(nn.Sigmoid(), nn.Sigmoid()), nn.Sequential(nn.Sigmoid())])
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            x = x * self.scale
            for stage in self.stages:
                x = stage(x)
            return x

    found = predicted(Stages, (16, KIB), mode="training")
    activation = 4 * 16 * KIB
    assert found["peak_phase"] == "backward"
    # The scaled input is let go after the first sigmoid, which keeps what it puts out. The loss keeps its log-softmax
    # and a scalar: both are of no module.
    stages = found["activations_by_stage"]
    assert stages["stages.0"] == 2 * activation
    assert stages["stages.1"] == activation
    assert stages.keys() == {"stages.0", "stages.1", ""}
    assert 0 <= stages[""] - activation < 16
    assert found["bytes_at_peak"]["activations"] == sum(stages.values())


def test_cuda_rounds_every_tensor_up() -> None:
    found = predicted(lambda: nn.Linear(10, 130), (1, 10), device="cuda")
    # Weights of 5,200 bytes, bias and output of 520, input of 40.
    assert found["bytes_at_peak"] == dict.fromkeys(BYTE_KINDS, 0) | {
        "parameters": 5632 + 1024,
        "input": 512,
        "temporaries": 1024,
    }
    assert found["parameter_bytes"] == 5200 + 520


class Attend(nn.Module):
    """Attention of N tokens of width 32 in two heads, over themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4).unbind()
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1)


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fused_attention_keeps_no_scores(device: str, precision: str, mode: str) -> None:
    tokens = KIB
    found = predicted(Attend, (1, tokens, 32), mode=mode, precision=precision, device=device)
    scores = 2 * tokens * tokens * 2  # of two heads, in bfloat16
    assert found["peak_memory_bytes"] < scores / 2


def test_logsumexp_is_kept_for_backward() -> None:
    tokens = KIB
    with torch.device("meta"):
        q = torch.empty(1, 2, tokens, 16, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tuple(tensor.shape)) or tensor, lambda t: t
    ):
        for device, dtype in (("cpu", torch.float32), ("cuda", torch.float32), ("cuda", torch.bfloat16)):
            kept.clear()
            with predict._Device(device, False, None):
                x = q.to(dtype)
                output = nn.functional.scaled_dot_product_attention(x, x, x)
            assert (1, 2, tokens) in kept
            assert max(map(len, kept)) == 4
            assert (1, 2, tokens, tokens) not in kept
            output.sum().backward()


def test_cuda_autocast_takes_softmax_in_float32() -> None:
    config = build_config("nano", "v1+ope+cffn", "v2", attention="explicit")
    size = 512
    peaks = {
        device: predicted(lambda: build_model(config), (1, 3, size, size), precision="bf16", device=device)
        for device in ("cpu", "cuda")
    }
    scores = (size // 2) ** 2 * (size // 16) ** 2  # of the first stage
    temporaries = {device: peak["bytes_at_peak"]["temporaries"] for device, peak in peaks.items()}
    # Before and after the softmax, in bfloat16; on CUDA as float32 before it and after it, beside the bfloat16 ones.
    assert 4 * scores < temporaries["cpu"] < 5 * scores
    assert 8 * scores < temporaries["cuda"] < 11 * scores
    assert peaks["cuda"]["peak_operator"] == "aten._softmax"


def test_resolution_does_not_change_how_many_operators_run(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    run = predict.run_on_meta

    def count(*call: Any) -> Any:
        counts[-1] += 1
        return run(*call)

    monkeypatch.setattr(predict, "run_on_meta", count)
    for size in (128, 4096):
        counts.append(0)
        predicted(lambda: build_model(build_config("pico")), (1, 3, size, size), mode="training")
    assert counts[0] == counts[1] > 100


def test_shapes_are_worked_out_once_for_all_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "RESULTS", {})
    monkeypatch.setattr(shapes, "MOST_RESULTS", 10)
    found, known = [], []
    for _ in range(2):
        found.append(predicted(lambda: nn.Sequential(nn.Linear(8, 8), nn.GELU()), (4, 8)))
        known.append(dict(shapes.RESULTS))
    assert found[0] == found[1]
    assert 1 < len(known[0]) < 10
    assert known[0] == known[1]
    found += [predicted(lambda: nn.Sequential(nn.Linear(8, 8), nn.GELU()), (4 + rows, 8)) for rows in range(10)]
    assert 0 < len(shapes.RESULTS) <= 10
    assert found[2] == found[0]
    peaks = [each["peak_memory_bytes"] for each in found[2:]]
    assert [after - before for before, after in pairwise(peaks)] == [3 * 4 * 8] * 9


def test_a_trace_of_macs_is_as_if_no_prediction_had_been(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        model = build_model(build_config("pico", "v1+cffn"))
    traces = []
    for predicts_before in (False, True):
        monkeypatch.setattr(shapes, "RESULTS", {})
        if predicts_before:
            predict_peak_memory(model, (2, 3, 96, 64), mode="inference", precision="float32", device="cpu")
        traces.append(trace_macs(model, (2, 3, 96, 64)))
    assert traces[0] == traces[1]  # by operator too: laid out channels-last, layers are other operators


def test_order_of_images_is_a_condition() -> None:
    found = [
        predicted(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()), (2, 3, 32, 32), channels_last=channels_last)[
            "peak_memory_bytes"
        ]
        for channels_last in (True, False)
    ]
    # Channels-last maps are copied when they are flattened.
    assert found[0] - found[1] == 4 * 2 * 8 * 30 * 30


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_images_in_row_order_take_what_they_take_for_real(mode: str) -> None:
    assert_equal_to_measured(
        lambda: timm.create_model("resnet10t", num_classes=10), (2, 3, 48, 64), mode=mode, channels_last=False
    )


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_model_is_left_without_hooks_and_gradients(mode: str) -> None:
    with torch.device("meta"):
        model = build_model(build_config("pico"))
    conditions = {"mode": mode, "precision": "float32", "device": "cpu"}
    first, second = (predict_peak_memory(model, (1, 3, 32, 32), **conditions) for _ in range(2))
    assert first == second
    assert model.training is (mode == "training")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("wrong", [{"mode": "train"}, {"precision": "fp16"}, {"device": "tpu"}])
def test_unknown_conditions_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong.values()))):
        predicted(lambda: nn.Linear(4, 4), (1, 4), **wrong)


def test_model_with_numbers_is_refused() -> None:
    with pytest.raises(InputError, match=r"'cpu'.* allowed: meta"):
        predict_peak_memory(nn.Linear(4, 4), (1, 4), mode="inference", precision="float32", device="cpu")
