"""The schedules of detection and segmentation."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ablations.measure import Detection, Segmentation
from ablations.training.dense import RateSchedule


def rates(conditions: Any, steps_per_epoch: int, total: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = RateSchedule(optimizer, conditions, steps_per_epoch, total)
    return [schedule.factor(done) for done in range(total)]


def test_the_rate_of_coco_1x_falls_after_epochs_8_and_11_and_begins_at_a_thousandth():
    from ablations.dense_recipes import CocoOneTimes

    conditions = Detection(**vars(CocoOneTimes()))
    found = rates(replace(conditions, base_lr=1.0), 1000, 12_000)
    assert found[0] == pytest.approx(0.001)
    assert found[250] == pytest.approx(0.5005)
    assert (found[500], found[7999]) == (1.0, 1.0)
    assert (found[8000], found[10_999]) == (pytest.approx(0.1), pytest.approx(0.1))
    assert found[11_000] == pytest.approx(0.01)


def test_the_rate_of_ade20k_40k_falls_as_a_power_of_the_steps_left():
    from ablations.dense_recipes import Ade20kOf40k

    conditions = Segmentation(**vars(Ade20kOf40k()))
    found = rates(conditions, 631, 40_000)
    assert found[0] == 1.0
    assert found[20_000] == pytest.approx(0.5**0.9)
    assert found[39_999] == pytest.approx((1 / 40_000) ** 0.9)
