"""Order and augmentation: what is shown, and what it depends on."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from ablations.data.augmentation import draw_noise
from ablations.data.splits import InMemoryData
from ablations.measure import Accuracy
from ablations.training.batches import (
    draw_epoch,
    eval_batches,
    mix_seeds,
    training_batches,
)
from ablations.training.classification import Classification
from ablations.training.distributed import Ranks

CONDITIONS = Accuracy(batch_size=10, seed=4)


def make_data(count: int, side: int = 32, *, may_flip: bool = False) -> InMemoryData:
    """Random images whose labels are their numbers."""
    images = torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.arange(count)
    mean, std = torch.full((3,), 127.5), torch.full((3,), 73.9)
    return InMemoryData(
        train_images=images,
        train_labels=labels,
        eval_images=images[:1],
        eval_labels=labels[:1],
        mean=mean,
        std=std,
        may_flip=may_flip,
    )


def epoch_of(
    data: InMemoryData, conditions: Accuracy = CONDITIONS, epoch: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*training_batches(data, conditions, epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_an_epoch_shows_every_image_once_in_batches_of_one_size():
    batches = list(training_batches(make_data(40), CONDITIONS, 1))
    assert [images.shape for images, _ in batches] == [(10, 3, 32, 32)] * 4
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in batches)
    order = torch.cat([labels for _, labels in batches]).tolist()
    assert sorted(order) == list(range(40))
    assert order != list(range(40))


@pytest.mark.parametrize(("count", "sizes"), [(39, [10, 10, 10]), (10, [10]), (7, [7])])
def test_what_fills_no_batch_is_left_out_unless_it_is_all(count, sizes):
    data = make_data(count)
    assert [len(labels) for _, labels in training_batches(data, CONDITIONS, 1)] == sizes
    assert Classification(data, CONDITIONS).steps_per_epoch == len(sizes)


@pytest.mark.parametrize("side", [32, 96])
def test_order_and_augmentation_depend_on_seed_and_epoch_and_nothing_else(side):
    data = make_data(30, side, may_flip=True)
    torch.manual_seed(1)
    images, labels = epoch_of(data)
    torch.manual_seed(2)
    torch.rand(5)
    again_images, again_labels = epoch_of(data)
    assert torch.equal(images, again_images)
    assert torch.equal(labels, again_labels)
    for seed, epoch in ((4, 2), (5, 1)):
        other_images, other_labels = epoch_of(data, Accuracy(batch_size=10, seed=seed), epoch)
        assert not torch.equal(labels, other_labels)
        assert not torch.equal(images[labels.argsort()], other_images[other_labels.argsort()])


def test_a_batch_of_another_size_shows_the_same_images_cut_the_same_way():
    data = make_data(30, may_flip=True)
    images, labels = epoch_of(data)
    other_images, other_labels = epoch_of(data, Accuracy(batch_size=5, seed=4))
    assert torch.equal(labels, other_labels)
    torch.testing.assert_close(images, other_images)


def test_seeds_are_mixed_in_order():
    mixed = {mix_seeds(*seeds) for seeds in ((0, 1), (1, 0), (0, 2), (0, 1, 1), (10, 1), (1, 1))}
    assert len(mixed) == 6
    assert mix_seeds(3, 4) == mix_seeds(3, 4)


def test_images_are_mirrored_only_where_they_may_be():
    ramp = torch.arange(32, dtype=torch.uint8).expand(64, 3, 32, 32)
    for may_flip in (False, True):
        data = make_data(64, may_flip=may_flip)
        data = InMemoryData(**{**vars(data), "train_images": ramp})
        images, _ = epoch_of(data)
        rising = images[:, 0, 16, 20] > images[:, 0, 16, 12]
        assert rising.all() if not may_flip else 20 < rising.sum() < 44


def test_large_images_are_cropped_and_small_ones_shifted():
    for side, shifted in ((64, True), (65, False)):
        images, labels = epoch_of(make_data(10, side))
        images = (images * 73.9 + 127.5)[labels.argsort()]
        # A shift keeps every level a whole number; a crop interpolates.
        whole = ((images - images.round()).abs() < 0.01).float().mean()
        assert (whole > 0.99) == shifted


def test_an_area_is_honoured():
    ramp = torch.arange(96, dtype=torch.uint8).expand(50, 3, 96, 96)
    data = replace(make_data(50, 96), train_images=ramp)
    spans = {}
    for area in (0.05, 0.9):
        images, _ = epoch_of(data, replace(CONDITIONS, min_crop_scale=area))
        spans[area] = (images[:, 0, 48, -1] - images[:, 0, 48, 0]) * 73.9
    assert spans[0.05].min() < 40 < spans[0.05].max()
    # At least 0.9 of the area and at most 4:3: the width is at least sqrt(0.9 * 3 / 4) = 0.82 of 96, and 2 % of
    # blurred border.
    assert spans[0.9].min() > 0.80 * 96


@pytest.mark.parametrize(("count", "repeats"), [(30, 3), (40, 4), (31, 3), (10, 20)])
def test_repeats_show_fewer_images_so_often_each_cut_differently(count, repeats):
    conditions = replace(CONDITIONS, aug_repeats=repeats, batch_size=count)
    ((images, labels),) = training_batches(make_data(count), conditions, 1)
    shown = Counter(labels.tolist())
    assert len(labels) == count
    assert len(shown) == -(-count // repeats)
    assert sorted(shown.values())[1:] == [min(repeats, count)] * (len(shown) - 1)
    # Beside each other, and not all at the same of the 25 places that a shift has.
    assert labels.tolist() == [label for label in dict.fromkeys(labels.tolist()) for _ in range(shown[label])]
    same = [torch.equal(images[0], images[place]) for place in range(1, min(repeats, count))]
    assert not all(same)


def test_repeats_show_other_images_in_the_next_epoch():
    conditions = replace(CONDITIONS, aug_repeats=3)
    first, second = (set(epoch_of(make_data(30), conditions, epoch)[1].tolist()) for epoch in (1, 2))
    assert len(first) == len(second) == 10
    assert first != second


def test_without_repeats_every_place_has_its_own_draw():
    drawn = draw_epoch(make_data(30), CONDITIONS, 1)
    assert torch.equal(drawn.images, drawn.draws)
    repeated = draw_epoch(make_data(30), replace(CONDITIONS, aug_repeats=3), 1)
    assert sorted(repeated.draws.tolist()) == list(range(30))


def test_an_image_is_erased_from_the_noise_after_it_was_normalised():
    data = make_data(40)
    plain, labels = epoch_of(data)
    erased, again = epoch_of(data, replace(CONDITIONS, random_erasing=1.0))
    assert torch.equal(labels, again)
    differ = (plain != erased).any(dim=1)
    assert differ.any(dim=2).any(dim=1).all()
    boxes = draw_epoch(data, replace(CONDITIONS, random_erasing=1.0), 1).boxes
    assert boxes is not None
    noise = draw_noise(3, 32)
    for image, label, where in zip(erased, labels.tolist(), differ, strict=True):
        own = noise[int(boxes[label, 4])]
        assert torch.equal(image[:, where], own[:, where])
        rows, columns = where.any(dim=1), where.any(dim=0)
        assert where.sum() == rows.sum() * columns.sum(), "a box is filled, and nothing beside it"
        assert 0.01 * 32**2 < where.sum() < 0.4 * 32**2


def test_some_are_erased_and_erasing_leaves_order_and_cuts_as_they_are():
    data = make_data(200)
    plain, labels = epoch_of(data)
    erased, again = epoch_of(data, replace(CONDITIONS, random_erasing=0.25))
    assert torch.equal(labels, again)
    changed = (plain != erased).flatten(1).any(dim=1).float().mean().item()
    assert changed == pytest.approx(0.25, abs=0.12)


EVERYTHING = replace(CONDITIONS, random_erasing=0.5, aug_repeats=3)


@pytest.mark.parametrize("side", [32, 80])
def test_an_epoch_that_resumes_shows_what_is_left_of_it(side):
    data, conditions = make_data(40, side, may_flip=True), replace(EVERYTHING, resolution=side)
    whole = list(training_batches(data, conditions, 3))
    for first_step in range(5):
        rest = list(training_batches(data, conditions, 3, first_step=first_step))
        assert len(rest) == 4 - first_step
        for (images, labels), (other_images, other_labels) in zip(whole[first_step:], rest, strict=True):
            assert torch.equal(images, other_images)
            assert torch.equal(labels, other_labels)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_each_batch_and_keep_its_mirrored_pairs(count):
    data, conditions = make_data(48, may_flip=True), replace(EVERYTHING, batch_size=16)
    whole = list(training_batches(data, conditions, 1))
    shares = [list(training_batches(data, conditions, 1, ranks=Ranks(rank, count))) for rank in range(count)]
    for step, (images, labels) in enumerate(whole):
        seen = []
        for rank in range(count):
            own_images, own_labels = shares[rank][step]
            places = Ranks(rank, count).share(16)
            assert torch.equal(own_images, images[places])
            assert torch.equal(own_labels, labels[places])
            # The image that mixup pairs each with, in a process's own batch and in the whole one.
            assert torch.equal(labels.flip(0)[places], own_labels.flip(0))
            seen += places.tolist()
        assert sorted(seen) == list(range(16))


@pytest.mark.parametrize(("validation", "batch_size"), [(7, 3), (8, 3), (3, 3), (1, 8), (12, 3), (10, 1)])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_validation_image_is_in_one_batch_of_one_process(validation, batch_size, count):
    data = make_data(4)
    images = torch.arange(validation, dtype=torch.uint8)[:, None, None, None].expand(validation, 3, 32, 32)
    data = replace(data, eval_images=images, eval_labels=torch.arange(validation))
    seen = []
    for rank in range(count):
        for shown, labels in eval_batches(data, Accuracy(batch_size=batch_size), ranks=Ranks(rank, count)):
            assert len(shown) == len(labels) <= batch_size
            assert (shown[:, 0, 5, 5] * 73.9 + 127.5).round().long().tolist() == labels.tolist()
            seen += labels.tolist()
    assert sorted(seen) == list(range(validation))
