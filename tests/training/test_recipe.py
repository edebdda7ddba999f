"""The recipe: which parameters are decayed, and the learning rate worked out by hand."""

import pytest
import torch
from torch import nn

from ablations.config import build_config
from ablations.design import Accuracy
from ablations.model import build_model
from ablations.training.recipe import autocast, build_optimizer, build_schedule


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.token = nn.Parameter(torch.zeros(1, 1, 3))
        self.grid = nn.Parameter(torch.zeros(1, 4, 3))


class SparingNet(Net):
    def no_weight_decay(self) -> set[str]:
        return {"token"}


def decays(model: nn.Module) -> dict[str, float]:
    optimizer = build_optimizer(model, Accuracy(weight_decay=0.05, base_lr=0.5))
    of = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]
    return {name: of[parameter] for name, parameter in model.named_parameters()}


def test_one_dimensional_parameters_and_the_spared_ones_are_not_decayed():
    expected = {"linear.weight": 0.05, "linear.bias": 0, "norm.weight": 0, "norm.bias": 0, "token": 0.05, "grid": 0.05}
    assert decays(Net()) == expected
    assert decays(SparingNet()) == expected | {"token": 0}


def test_a_pvts_class_token_is_spared_and_its_position_embeddings_are_not():
    of = decays(build_model(build_config("pico", "v1", "v1")))
    assert of["stages.3.embeddings.0.token"] == 0
    assert of["stages.3.embeddings.1.weight"] == of["stages.0.embeddings.0.weight"] == 0.05


def rates(steps_per_epoch: int, **conditions) -> list[float]:
    recipe = Accuracy(**conditions)
    optimizer = build_optimizer(Net(), recipe)
    schedule = build_schedule(optimizer, recipe, steps_per_epoch)
    rates = []
    for step in range(recipe.epochs * steps_per_epoch + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        assert {group["lr"] for group in optimizer.param_groups} == {rates[-1]}
        schedule.step_update(step + 1)
    return rates


def test_the_rate_rises_linearly_and_falls_along_a_cosine():
    values = rates(10, base_lr=2.0, epochs=4, warmup_epochs=1.0)
    # From 0.02 to 2 in 10 steps; then 0.02 + 1.98 (1 + cos(pi t / 30)) / 2 for t of 0, 10, 15, 20, 30.
    expected = {0: 0.02, 1: 0.218, 5: 1.01, 10: 2.0, 20: 0.02 + 1.98 * 0.75, 25: 1.01, 30: 0.02 + 1.98 * 0.25, 40: 0.02}
    assert {step: values[step] for step in expected} == pytest.approx(expected)
    assert values[:11] == sorted(values[:11])
    assert values[10:] == sorted(values[10:], reverse=True)


def test_without_warm_up_the_peak_comes_first_and_part_of_an_epoch_counts():
    assert rates(10, base_lr=2.0, epochs=2, warmup_epochs=0.0)[0] == 2.0
    values = rates(10, base_lr=2.0, epochs=2, warmup_epochs=0.5)
    assert values.index(2.0) == 5


def test_a_warm_up_of_nearly_everything_leaves_a_step_to_fall():
    values = rates(1, base_lr=2.0, epochs=1, warmup_epochs=0.9)
    assert values[0] == 2.0


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_is_that_of_matrix_products(precision, dtype):
    with autocast(Accuracy(precision=precision)):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == dtype
