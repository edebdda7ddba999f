"""The recipe: which parameters are decayed, and the learning rate worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ablations.config import build_config
from ablations.measure import Accuracy
from ablations.model import build_model
from ablations.recipes import recipe_values
from ablations.training.recipe import autocast, build_loss, build_mixup, build_optimizer, build_schedule


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
    assert of["stages.3.cls_token.weight"] == 0
    assert of["stages.3.pos_embed.weight"] == of["stages.0.pos_embed.weight"] == 0.05


def rates(steps_per_epoch: int, **conditions) -> list[float]:
    recipe = Accuracy(**conditions)
    optimizer = build_optimizer(Net(), recipe)
    schedule = build_schedule(optimizer, recipe, steps_per_epoch)
    rates = []
    for step in range(recipe.total_epochs * steps_per_epoch + 1):
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


def test_a_single_step_is_at_the_peak_and_nothing_is_said_of_it(caplog):
    assert rates(2, base_lr=2.0, epochs=1, warmup_epochs=0.5)[1] == 2.0
    assert not caplog.records


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_is_that_of_matrix_products(precision, dtype):
    with autocast(Accuracy(precision=precision)):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == dtype


def test_the_paper_s_rates_are_those_of_the_released_code():
    values = rates(10, **{**recipe_values("paper"), "drop_path_rate": 0.1, "clip_grad_norm": 0.0})
    assert values[0] == pytest.approx(1e-6)
    assert values[25] == pytest.approx((1e-6 + 1e-3) / 2)  # half of 5 epochs of 10 steps
    assert values[50] == max(values) == pytest.approx(1e-3)
    # Half of the way from 5 to 300 epochs along the cosine, then its end, and the ten epochs at the lowest.
    assert values[1525] == pytest.approx((1e-3 + 1e-5) / 2)
    assert values[3000:] == pytest.approx([1e-5] * 101)


def test_ends_of_the_rate_may_be_nothing():
    values = rates(10, base_lr=2.0, epochs=2, warmup_epochs=1.0, warmup_lr_ratio=0.0, min_lr_ratio=0.0)
    assert (values[0], values[10], values[20]) == (0.0, 2.0, pytest.approx(0.0))


def mixed(seed: int, count: int = 8, **conditions) -> tuple[torch.Tensor, torch.Tensor]:
    recipe = Accuracy(**{"label_smoothing": 0.1, "num_classes": 10, **conditions})
    mixup = build_mixup(recipe)
    assert mixup is not None
    np.random.seed(seed)  # noqa: NPY002, what timm draws from
    images = torch.arange(float(count))[:, None, None, None].expand(count, 3, 16, 16).clone()
    return mixup(images, torch.arange(count))


@pytest.mark.parametrize("kinds", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}], ids=str)
def test_targets_are_those_of_a_pair_smoothed_and_sum_to_1(kinds):
    images, targets = mixed(3, **kinds)
    assert targets.shape == (8, 10)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
    assert targets.min().item() == pytest.approx(0.1 / 10)
    for place in range(8):
        own, other = targets[place, place], targets[place, 7 - place]
        share = (own.item() - 0.01) / 0.9
        assert own + other == pytest.approx(0.9 + 2 * 0.01)
        # What the image shows of either: everywhere so much, or only the one in a box.
        shown = images[place].mean().item()
        assert shown == pytest.approx(share * place + (1 - share) * (7 - place), abs=1e-4)


def test_what_is_mixed_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = mixed(3, mixup=0.8, cutmix=1.0)
    torch.manual_seed(2)
    again, other = mixed(3, mixup=0.8, cutmix=1.0), mixed(4, mixup=0.8, cutmix=1.0)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first[1], other[1])


def test_half_of_the_batches_have_either_where_both_are_on():
    cut = [len(mixed(seed, mixup=0.8, cutmix=1.0)[0][0].unique()) == 2 for seed in range(100)]
    assert 30 < sum(cut) < 70


def test_nothing_is_mixed_where_both_are_off():
    assert build_mixup(Accuracy()) is None


def test_the_loss_of_labels_is_that_of_their_smoothed_targets():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    labels = torch.tensor([0, 1])
    by_label = build_loss(Accuracy(label_smoothing=0.3))(logits, labels)
    targets = torch.full((2, 3), 0.1)
    targets[0, 0] = targets[1, 1] = 0.8
    by_target = build_loss(Accuracy(mixup=0.5))(logits, targets)
    first, second = math.log(math.exp(2) + 2), math.log(math.exp(1) + 2)
    worked_out = (0.8 * (first - 2) + 0.2 * first + 0.9 * second + 0.1 * (second - 1)) / 2
    assert by_label.item() == pytest.approx(worked_out, rel=1e-6)
    assert by_target.item() == pytest.approx(worked_out, rel=1e-6)
