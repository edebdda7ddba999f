"""What one step does to a model, seen from inside the model."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablations.errors import InputError
from ablations.measure.step import build_step

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
