"""Training end to end, on digits: it learns, it repeats, arms are paired, and a lost run says so."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ablations.config import build_config
from ablations.design import Accuracy
from ablations.errors import InputError
from ablations.model import build_model
from ablations.training.data import ImageData, load_data
from ablations.training.loop import Diverged, measure_accuracy, train

BRIEF = Accuracy(epochs=2, batch_size=50, train_images=200, warmup_epochs=0.5)


def build_pico(arm: str = "v1+ope+cffn", **overrides) -> nn.Module:
    return build_model(build_config("pico", arm, "v2", num_classes=10, **overrides))


def without_times(result: dict) -> dict:
    history = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in result["history"]]
    return {name: value for name, value in result.items() if name not in ("train_s", "train_img_per_s")} | {
        "history": history
    }


class Linear(nn.Sequential):
    """Classifies pixels, and keeps the pictures that it was trained on."""

    def __init__(self, width: int = 10) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, width), nn.Linear(width, 10))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.clone())
        return super().forward(x)


class Breaks(Linear):
    """Gives logits that are no numbers from its third step on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return logits * math.nan if len(self.seen) >= 3 else logits


def test_a_pvt_learns_digits_in_two_epochs():
    conditions = Accuracy(epochs=2, batch_size=32, base_lr=3e-3, warmup_epochs=0.5)
    seen = []
    result = measure_accuracy(build_pico, conditions, None, progress=lambda *words: seen.append(words))
    assert result["top1"] > 0.3  # chance is 0.1
    assert result["eval_loss"] < math.log(10)
    assert (result["n_eval_images"], result["n_train_images"]) == (360, 1437)
    first, last = result["history"]
    assert (first["epoch"], last["epoch"]) == (1, 2)
    assert last["loss"] < first["loss"]
    assert last["lr"] < 1.1 * 0.01 * 3e-3
    assert result["train_s"] == first["seconds"] + last["seconds"]
    assert result["train_img_per_s"] == 2 * 44 * 32 / result["train_s"]  # 44 whole batches of 32 in 1,437
    assert seen == [(1, 2, first), (2, 2, last)]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    def measure(seed: int) -> dict:
        return measure_accuracy(lambda: build_pico(drop_path_rate=0.3), replace(BRIEF, seed=seed), None)

    torch.manual_seed(1)
    first = without_times(measure(0))
    torch.manual_seed(2)
    assert without_times(measure(0)) == first
    assert without_times(measure(1))["history"] != first["history"]


def test_the_callers_random_state_is_left_as_it_was():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    measure_accuracy(Linear, BRIEF, None)
    assert torch.equal(torch.rand(3), expected)


def test_the_weights_begin_with_the_seed():
    built = []

    def build() -> nn.Module:
        built.append(build_pico())
        return built[-1]

    measure_accuracy(build, replace(BRIEF, epochs=1, seed=5, base_lr=1e-12), None)
    torch.manual_seed(5)
    for own, expected in zip(built[0].parameters(), build_pico().parameters(), strict=True):
        torch.testing.assert_close(own, expected)


def test_two_models_see_the_same_pictures_in_the_same_order():
    data = load_data(BRIEF, None)
    torch.manual_seed(0)
    narrow, wide = Linear(3), Linear(30)
    train(narrow, data, BRIEF)
    train(nn.Sequential(wide, nn.Dropout(0.5)), data, BRIEF)  # draws random numbers of its own
    assert len(narrow.seen) == len(wide.seen) == 8
    assert all(torch.equal(one, other) for one, other in zip(narrow.seen, wide.seen, strict=True))
    assert not torch.equal(narrow.seen[0], narrow.seen[4]), "two epochs must differ"


def test_a_loss_that_is_not_finite_ends_the_run_with_step_and_rate():
    recipe = replace(BRIEF, epochs=4, warmup_epochs=2.0, base_lr=1.0)
    told = []
    with pytest.raises(Diverged, match=r"the loss is nan at step 3, learning rate 0\.258") as caught:
        measure_accuracy(Breaks, recipe, None, progress=lambda *words: told.append(words))
    # 8 steps of warm-up from 0.01 to 1: the third runs at 0.01 + 2 * 0.99 / 8.
    assert caught.value.step == 3
    assert caught.value.lr == pytest.approx(0.2575)
    assert math.isnan(caught.value.loss)
    assert told == []
    assert not isinstance(caught.value, InputError)


class Bias(nn.Module):
    """The same logits for every picture: `scale` times its parameter, which begins at 2 / scale for class 0."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.bias = nn.Parameter(torch.tensor([2.0 / scale, *[0.0] * 9]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.scale * self.bias).expand(len(x), -1)


ONE_STEP = Accuracy(epochs=1, batch_size=50, train_images=50, warmup_epochs=0.0, base_lr=0.01, label_smoothing=0.3)


def all_of_class_0(data: ImageData) -> ImageData:
    return replace(data, train_labels=torch.zeros_like(data.train_labels))


def test_the_loss_is_smoothed():
    (entry,) = train(Bias(), all_of_class_0(load_data(ONE_STEP, None)), ONE_STEP)
    # -log p is z - 2 for class 0 and z for the others, z = log(e² + 9); 0.3 of the weight goes to all ten alike.
    z = math.log(math.exp(2) + 9)
    assert entry["loss"] == pytest.approx(0.7 * (z - 2) + 0.3 * (z - 0.2), rel=1e-6)
    assert entry["lr"] == 0.01


def test_a_step_is_adamws_and_its_gradient_is_clipped():
    model = Bias(scale=1000.0)
    before = model.bias.detach().clone()
    train(model, all_of_class_0(load_data(ONE_STEP, None)), ONE_STEP)
    # Unclipped, the gradient is 1000 times the difference of probabilities, which are some hundredths at least.
    assert model.bias.grad.norm().item() == pytest.approx(1.0, rel=1e-4)
    # AdamW's first step is the rate in each gradient's direction, whatever its size: class 0 up, the others down.
    moved = model.bias.detach() - before
    torch.testing.assert_close(moved, torch.tensor([0.01, *[-0.01] * 9]), rtol=1e-3, atol=0)


def test_bf16_trains_too():
    result = measure_accuracy(build_pico, replace(BRIEF, epochs=1, precision="bf16"), None)
    assert math.isfinite(result["history"][0]["loss"])
    assert result["top1"] >= 0


def test_a_recipe_that_cannot_be_trained_and_wrong_data_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"warmup_epochs=2\.0"):
        measure_accuracy(Linear, replace(BRIEF, warmup_epochs=2.0), None)
    with pytest.raises(InputError, match="data='nowhere'"):
        measure_accuracy(Linear, replace(BRIEF, data="nowhere"), tmp_path)


def test_the_real_fashion_mnist_is_learned(shared_data):
    conditions = Accuracy(
        data="fashion-mnist", train_images=2000, epochs=2, batch_size=50, base_lr=1e-3, warmup_epochs=0.5
    )
    result = measure_accuracy(Linear, conditions, shared_data)
    assert result["top1"] > 0.4
    assert result["n_eval_images"] == 10_000
