"""What one step does to a model, seen from inside the model."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablations.config import build_config
from ablations.errors import InputError
from ablations.measure import step as step_module
from ablations.measure.step import FUSED_KERNELS, build_step, fused_kernels, only_kernels
from ablations.model import build_model

SHAPE = (4, 3, 6, 5)


class Probe(nn.Module):
    """A classifier of 10 classes that notes how it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)
        nn.init.zeros_(self.head.bias)
        self.seen: list[dict[str, Any]] = []

    def forward(self, x: Tensor) -> Tensor:
        output = self.head(x.mean(dim=(2, 3)))
        self.seen.append(
            {
                "shape": tuple(x.shape),
                "channels_last": x.is_contiguous(memory_format=torch.channels_last),
                "training": self.training,
                "inference_mode": torch.is_inference_mode_enabled(),
                "dtype": output.dtype,
                "input": x.clone(),
            }
        )
        return output


def run_twice(**conditions: Any) -> tuple[Probe, list[dict[str, Any]]]:
    probe = Probe()
    step = build_step(probe, SHAPE, device="cpu", **({"mode": "inference", "precision": "float32"} | conditions))
    assert step() is None
    step()
    return probe, probe.seen


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_step_runs_the_model_as_it_says(mode: str, precision: str) -> None:
    _, (first, second) = run_twice(mode=mode, precision=precision)
    assert first["shape"] == SHAPE
    assert first["channels_last"]
    assert first["training"] is (mode == "training")
    assert first["inference_mode"] is (mode == "inference")
    assert first["dtype"] is (torch.bfloat16 if precision == "bf16" else torch.float32)
    assert torch.equal(first["input"], second["input"])
    assert first["input"].std() > 0.5


def test_the_layout_changes_and_the_numbers_do_not() -> None:
    (_, (last, _)), (_, (first, _)) = run_twice(channels_last=True), run_twice(channels_last=False)
    assert (last["channels_last"], first["channels_last"]) == (True, False)
    assert torch.equal(first["input"], last["input"])


def test_training_updates_and_releases_the_gradients() -> None:
    probe, _ = run_twice(mode="training")
    # AdamW moves a weight by about its rate, 1e-9, whatever the gradient's size.
    assert 1e-9 < probe.head.bias.abs().max() < 3e-9
    assert all(parameter.grad is None for parameter in probe.parameters())


def test_inference_changes_nothing() -> None:
    probe, _ = run_twice(mode="inference")
    assert probe.head.bias.abs().max() == 0


def test_equal_steps_have_equal_inputs() -> None:
    (_, (first, _)), (_, (other, _)) = run_twice(), run_twice(mode="training")
    assert torch.equal(first["input"], other["input"])


@pytest.mark.parametrize("wrong", [{"mode": "train"}, {"precision": "fp16"}, {"device": "tpu"}])
def test_unknown_conditions_are_refused(wrong: dict[str, str]) -> None:
    conditions = {"mode": "training", "precision": "float32", "device": "cpu"} | wrong
    with pytest.raises(InputError, match=next(iter(wrong.values()))):
        build_step(Probe(), SHAPE, **conditions)


def may_run() -> dict[str, bool]:
    """Which kernels torch's attention may take."""
    backends = torch.backends.cuda
    return {
        "flash": backends.flash_sdp_enabled(),
        "efficient": backends.mem_efficient_sdp_enabled(),
        "cudnn": backends.cudnn_sdp_enabled(),
        "math": backends.math_sdp_enabled(),
    }


@pytest.mark.parametrize(
    ("attention", "device", "held"),
    [("fused", "cuda", True), ("fused", "cuda:0", True), ("fused", "cpu", False), ("explicit", "cuda", False)],
)
def test_only_what_is_called_fused_is_held_to_cudas_fused_kernels(attention: str, device: str, held: bool) -> None:
    with torch.device("meta"):
        model = build_model(build_config("pico", attention=attention))
    kernels = fused_kernels(model, device)
    assert kernels == (("flash", "efficient", "cudnn") if held else ())
    free = may_run()
    with only_kernels(kernels):
        assert may_run() == {"flash": True, "efficient": True, "cudnn": True, "math": not held}
    assert may_run() == free


def test_other_models_attend_as_they_like() -> None:
    assert fused_kernels(Probe(), "cuda") == ()
    named = Probe()
    named.config = "fused"  # type: ignore[assignment]
    assert fused_kernels(named, "cuda") == ()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # torch says of each kernel why it cannot
def test_what_no_fused_kernel_can_do_fails_instead_of_running_in_another() -> None:
    q = torch.randn(1, 2, 5, 8)
    expected = F.scaled_dot_product_attention(q, q, q)
    with only_kernels(tuple(FUSED_KERNELS)):
        assert torch.equal(F.scaled_dot_product_attention(q, q, q), expected)  # the CPU's flash kernel
        with pytest.raises(RuntimeError, match="No available kernel"):
            F.scaled_dot_product_attention(q, q, q, dropout_p=0.5)


class Attending(nn.Module):
    """A classifier that notes which kernels it may attend by, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)
        self.seen: list[dict[str, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        output = self.head(x.mean(dim=(2, 3)))
        self.seen.append(may_run())
        if output.requires_grad:
            output.register_hook(lambda _: self.seen.append(may_run()))
        return output


@pytest.mark.parametrize(("mode", "passes"), [("inference", 1), ("training", 2)])
@pytest.mark.parametrize("kernels", [(), ("flash", "cudnn")])
def test_a_step_holds_its_model_to_the_kernels(
    mode: str, passes: int, kernels: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "fused_kernels", lambda model, device: kernels)
    model = Attending()
    free = may_run()
    build_step(model, SHAPE, mode=mode, precision="float32", device="cpu")()
    assert model.seen == [{name: name in kernels for name in free} if kernels else free] * passes
    assert may_run() == free
