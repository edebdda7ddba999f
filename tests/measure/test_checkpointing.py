"""Checkpointed stages: the same numbers under the same names from less memory, and predicted to the byte."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablations.config import build_config
from ablations.errors import InputError
from ablations.measure.checkpointing import checkpoint_stages
from ablations.measure.memory import measure_peak_memory
from ablations.measure.predict import predict_peak_memory
from ablations.model import build_model

ALL = (1, 2, 3, 4)


def build(variant: str = "pico", arm: str = "v1+ope+cffn", stages: tuple[int, ...] = (), **overrides: Any) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(build_config(variant, arm, **overrides))
    checkpoint_stages(model, stages)
    return model


def train(model: nn.Module, device: str = "cpu", precision: str = "float32") -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss of two pictures and the gradients of all weights."""
    torch.manual_seed(1)
    images, labels = torch.randn(2, 3, 64, 48), torch.tensor([3, 1])
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        loss = F.cross_entropy(model.to(device)(images.to(device)), labels.to(device))
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_equal_steps(plain: nn.Module, checkpointed: nn.Module, **conditions: Any) -> None:
    (loss, gradients), (other_loss, other_gradients) = train(plain, **conditions), train(checkpointed, **conditions)
    assert loss == other_loss
    assert gradients.keys() == other_gradients.keys()
    assert [name for name, gradient in gradients.items() if not torch.equal(gradient, other_gradients[name])] == []


def count_forwards(module: nn.Module, run: Callable[[], Any]) -> int:
    calls: list[None] = []
    handle = module.register_forward_hook(lambda *_: calls.append(None))
    run()
    handle.remove()
    return len(calls)


def peaks(build_it: Callable[[], nn.Module], input_shape: tuple[int, ...], **conditions: Any) -> tuple[int, int]:
    """The tracked and the predicted peak of a training step on the CPU."""
    with torch.device("meta"):
        model = build_it()
    conditions = {"mode": "training", "precision": "float32", "device": "cpu"} | conditions
    measured = measure_peak_memory(build_it(), input_shape, **conditions)
    return measured["peak_memory_bytes"], predict_peak_memory(model, input_shape, **conditions)["peak_memory_bytes"]


def test_names_and_weights_stay() -> None:
    plain, checkpointed = build(), build(stages=ALL)
    assert list(plain.state_dict()) == list(checkpointed.state_dict())
    assert [name for name, _ in plain.named_modules()] == [name for name, _ in checkpointed.named_modules()]
    assert repr(plain) == repr(checkpointed)
    plain.load_state_dict(checkpointed.state_dict())
    assert all(map(torch.equal, plain.parameters(), checkpointed.parameters()))


@pytest.mark.parametrize("attention", ["fused", "explicit"])
@pytest.mark.parametrize("arm", ["v1", "v1+cffn+lsra"])
def test_loss_and_gradients_are_the_same_bit_for_bit(arm: str, attention: str) -> None:
    options = {"arm": arm, "attention": attention, "frame": "v1"}
    assert_equal_steps(build(**options), build(**options, stages=ALL))


def test_paths_that_are_dropped_are_dropped_again() -> None:
    options = {"variant": "nano", "drop_path_rate": 0.5}
    assert train(build(**options))[0] != train(build(variant="nano"))[0]
    assert_equal_steps(build(**options), build(**options, stages=ALL))


def test_autocast_holds_for_what_runs_anew() -> None:
    assert_equal_steps(build(), build(stages=ALL), precision="bf16")


def test_the_numbers_drawn_afterwards_are_the_same() -> None:
    drawn = []
    for stages in ((), ALL):
        train(build(stages=stages, drop_path_rate=0.5))
        drawn.append(torch.rand(1))
    assert drawn[0] == drawn[1]


def test_only_the_blocks_of_the_stages_run_twice_and_only_in_training() -> None:
    model = build(stages=(1, 3))
    layers = [stage.blocks[0].mlp.fc1 for stage in model.stages]
    assert [count_forwards(layer, lambda: train(model)) for layer in layers] == [2, 1, 2, 1]
    assert count_forwards(model.stages[0].patch_embed.proj, lambda: train(model)) == 1
    model.eval()
    assert [count_forwards(layer, lambda: train(model)) for layer in layers] == [1, 1, 1, 1]


def test_twice_is_once() -> None:
    model = build(stages=ALL)
    checkpoint_stages(model, (1, 1, 2))
    assert_equal_steps(build(), model)
    assert count_forwards(model.stages[0].blocks[0].mlp.fc1, lambda: train(model)) == 2


def test_a_copy_has_weights_of_its_own() -> None:
    model = build(stages=ALL)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model.stages[0].blocks[0].mlp.fc1.weight.zero_()
    assert_equal_steps(build(), twin)
    assert count_forwards(twin.stages[0].blocks[0].mlp.fc1, lambda: train(twin)) == 2


def test_inference_is_unaffected() -> None:
    shape = (1, 3, 64, 64)
    plain, checkpointed = build().eval(), build(stages=ALL).eval()
    images = torch.randn(shape)
    with torch.inference_mode():
        assert torch.equal(plain(images), checkpointed(images))
    tracked = [peaks(lambda stages=stages: build(stages=stages), shape, mode="inference") for stages in ((), ALL)]
    assert tracked[0] == tracked[1]


def test_every_stage_that_is_checkpointed_takes_memory_off() -> None:
    tracked = [
        measure_peak_memory(
            build("nano", stages=stages), (1, 3, 128, 128), mode="training", precision="float32", device="cpu"
        )["peak_memory_bytes"]
        for stages in ((), (2,), (1, 2))
    ]
    assert tracked[0] > tracked[1] > tracked[2]
    # One block's at a time is there still, so of the first stage's two blocks at least one is saved, of which the
    # feed-forward keeps three maps: 64 x 64 tokens of an inner width of 8 x 16.
    assert tracked[1] - tracked[2] > 3 * 64 * 64 * 8 * 16 * 4


@pytest.mark.parametrize("stages", [(1,), ALL])
@pytest.mark.parametrize("attention", ["fused", "explicit"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("arm", ["v1", "v1+ope+cffn", "v1+ope+cffn+lsra"])
def test_prediction_is_what_it_takes_for_real(
    arm: str, precision: str, attention: str, stages: tuple[int, ...]
) -> None:
    options = {"arm": arm, "attention": attention, "stages": stages, "drop_path_rate": 0.2}
    tracked, predicted = peaks(lambda: build(**options), (2, 3, 64, 64), precision=precision)
    assert tracked == predicted


class Widening(nn.Module):
    """A block that needs the most memory between its layers, so that running it anew reaches the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 64)
        self.fc2 = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x).repeat(16, 1, 1).mean(0))


class WideningStage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Widening(), Widening())

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class WideningModel(nn.Module):
    def __init__(self, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = nn.Sequential(WideningStage(), WideningStage())
        checkpoint_stages(self, stages)

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x)


@pytest.mark.parametrize("stages", [(2,), (1, 2)])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_autocast_keeps_its_casts_while_a_block_runs_anew(precision: str, stages: tuple[int, ...]) -> None:
    tracked, predicted = peaks(lambda: WideningModel(stages), (256, 64), precision=precision)
    assert tracked == predicted
    with torch.device("meta"):
        model = WideningModel(stages)
    found = predict_peak_memory(model, (256, 64), mode="training", precision=precision, device="cpu")
    assert (found["peak_phase"], found["peak_operator"]) == ("backward", "aten.repeat")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_prediction_for_cuda_needs_no_cuda(precision: str) -> None:
    there = torch.cuda.is_initialized()
    found = []
    for stages in ((), ALL):
        with torch.device("meta"):
            model = build("nano", stages=stages, drop_path_rate=0.2, attention="explicit")
        found.append(predict_peak_memory(model, (1, 3, 256, 256), mode="training", precision=precision, device="cuda"))
    assert torch.cuda.is_initialized() == there
    assert found[1]["peak_memory_bytes"] < found[0]["peak_memory_bytes"]
    kept = [sum(each["activations_by_stage"].values()) for each in found]
    assert kept[1] < kept[0] / 4


def test_models_of_others_with_such_blocks_can_be_checkpointed() -> None:
    models = []
    for stages in ((), (2, 3)):
        torch.manual_seed(0)
        models.append(timm.create_model("pvt_v2_b0", num_classes=5))
        checkpoint_stages(models[-1], stages)
    assert_equal_steps(*models)
    assert count_forwards(models[1].stages[1].blocks[0].mlp.fc1, lambda: train(models[1])) == 2


@pytest.mark.parametrize("stage", [0, 5, -1])
def test_stage_that_is_not_there_is_refused_before_anything_changes(stage: int) -> None:
    model = build()
    with pytest.raises(InputError, match=f"stage={stage} is not possible; allowed: 1 to 4"):
        checkpoint_stages(model, (1, stage))
    assert count_forwards(model.stages[0].blocks[0].mlp.fc1, lambda: train(model)) == 1


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(), WideningStage()])
def test_model_without_stages_of_blocks_is_refused(model: nn.Module) -> None:
    with pytest.raises(InputError, match=f"model='{type(model).__name__}' is not possible; .*blocks"):
        checkpoint_stages(model, (1,))


def test_no_stages_can_be_asked_of_any_model() -> None:
    model = nn.Linear(2, 2)
    checkpoint_stages(model, ())
    assert type(model) is nn.Linear


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_on_cuda_paths_are_dropped_again_and_memory_is_saved(precision: str) -> None:
    options = {"variant": "nano", "drop_path_rate": 0.5}
    (loss, gradients), (other_loss, other_gradients) = (
        train(build(**options, stages=stages), "cuda", precision) for stages in ((), ALL)
    )
    assert loss == other_loss
    tolerance = 1e-4 if precision == "float32" else 2e-2
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=tolerance, atol=tolerance)
    tracked = [
        measure_peak_memory(
            build("nano", stages=stages), (1, 3, 256, 256), mode="training", precision=precision, device="cuda"
        )["peak_memory_bytes"]
        for stages in ((), ALL)
    ]
    assert tracked[1] < tracked[0]
