"""Which images are trained on, and which are set aside."""

import pytest
import torch

from ablations.data.splits import choose_split, choose_subset
from ablations.errors import InputError


def test_a_subset_has_the_same_number_of_each_class_and_is_part_of_a_larger_one():
    labels = torch.tensor([0] * 30 + [1] * 8 + [2] * 20)
    small, large = choose_subset(labels, 12), choose_subset(labels, 24)
    assert torch.bincount(labels[small]).tolist() == [4, 4, 4]
    assert torch.bincount(labels[large]).tolist() == [8, 8, 8]
    assert set(small.tolist()) < set(large.tolist())
    assert torch.equal(small, choose_subset(labels, 12))
    assert small.tolist() != [*range(4), *range(30, 34), *range(38, 42)], "the first ones of each class, not shuffled"
    assert torch.equal(choose_subset(labels, 0), torch.arange(58))
    for impossible in (13, 27):
        with pytest.raises(InputError, match=f"train_images={impossible} .* 0 for all 58, or a multiple of 3 up to 24"):
            choose_subset(labels, impossible)


def test_tuning_images_are_set_aside_whatever_is_trained_on():
    labels = torch.tensor([0] * 30 + [1] * 8 + [2] * 20)
    kept, tuning = choose_split(labels, 0, 6)
    assert torch.bincount(labels[tuning]).tolist() == [2, 2, 2]
    assert sorted([*kept.tolist(), *tuning.tolist()]) == list(range(58))
    for count in (3, 18):
        fewer, same = choose_split(labels, count, 6)
        assert torch.equal(same, tuning)
        assert set(fewer.tolist()) < set(kept.tolist())
        assert torch.bincount(labels[fewer]).tolist() == [count // 3] * 3
    with pytest.raises(InputError, match=r"train_images=21 .* a multiple of 3 up to 18"):
        choose_split(labels, 21, 6)
    with pytest.raises(InputError, match=r"tuning_images=27 .* a multiple of 3 up to 24"):
        choose_split(labels, 0, 27)


def test_without_tuning_images_none_is_set_aside():
    kept, tuning = choose_split(torch.arange(4), 0, 0)
    assert (kept.tolist(), tuning.tolist()) == ([0, 1, 2, 3], [])
