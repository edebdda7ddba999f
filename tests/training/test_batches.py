"""Order and augmentation: what is shown, and what it depends on."""

import math

import pytest
import torch

from ablations.design import Accuracy
from ablations.training.batches import (
    draw_crops,
    draw_shifts,
    look,
    mix_seeds,
    steps_per_epoch,
    training_batches,
)
from ablations.training.data import ImageData

CONDITIONS = Accuracy(batch_size=10, seed=4)


def make_data(count: int, side: int = 32, *, may_flip: bool = False) -> ImageData:
    """Random pictures whose labels are their numbers."""
    images = torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.arange(count)
    mean, std = torch.full((3,), 127.5), torch.full((3,), 73.9)
    return ImageData(
        train_images=images,
        train_labels=labels,
        eval_images=images[:1],
        eval_labels=labels[:1],
        mean=mean,
        std=std,
        may_flip=may_flip,
    )


def epoch_of(data: ImageData, conditions: Accuracy = CONDITIONS, epoch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*training_batches(data, conditions, epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_an_epoch_shows_every_picture_once_in_batches_of_one_size():
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
    assert steps_per_epoch(data, CONDITIONS) == len(sizes)


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


def test_a_batch_of_another_size_shows_the_same_pictures_cut_the_same_way():
    data = make_data(30, may_flip=True)
    images, labels = epoch_of(data)
    other_images, other_labels = epoch_of(data, Accuracy(batch_size=5, seed=4))
    assert torch.equal(labels, other_labels)
    torch.testing.assert_close(images, other_images)


def test_seeds_are_mixed_in_order():
    mixed = {mix_seeds(*seeds) for seeds in ((0, 1), (1, 0), (0, 2), (0, 1, 1), (10, 1), (1, 1))}
    assert len(mixed) == 6
    assert mix_seeds(3, 4) == mix_seeds(3, 4)


def test_shifts_are_whole_pixels_up_to_a_sixteenth_of_the_side():
    views = draw_shifts(2000, 32, generator())
    pixels = views[:, :, 2] * 32 / 2
    assert sorted(pixels.unique().tolist()) == list(range(-2, 3))
    assert torch.equal(views[:, :, :2], torch.eye(2).expand(2000, 2, 2))


def test_a_shifted_picture_is_moved_and_has_zeros_beyond():
    image = torch.rand(1, 2, 32, 32, generator=generator())
    view = torch.tensor([[[1.0, 0.0, 2 * 3 / 32], [0.0, 1.0, -2 * 4 / 32]]])  # 3 to the right, 4 up
    expected = torch.zeros_like(image)
    expected[:, :, 4:, :-3] = image[:, :, :-4, 3:]
    torch.testing.assert_close(look(image, view, "zeros"), expected, atol=1e-5, rtol=0)


def test_a_negative_width_mirrors():
    image = torch.rand(1, 2, 32, 32, generator=generator())
    view = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    torch.testing.assert_close(look(image, view, "border"), image.flip(3), atol=1e-5, rtol=0)


def test_crops_have_the_area_and_the_ratio_and_lie_inside():
    views = draw_crops(5000, generator())
    width, height = views[:, 0, 0], views[:, 1, 1]
    centre = views[:, :, 2]
    assert (views[:, 0, 1] == 0).all()
    assert (views[:, 1, 0] == 0).all()
    whole = (width == 1) | (height == 1)  # held to the picture's side, and so smaller or longer than drawn
    area, ratio = (width * height)[~whole], (width / height)[~whole]
    assert area.min() >= 0.35 - 1e-6
    assert area.max() <= 1
    assert ratio.min() >= 3 / 4 - 1e-6
    assert ratio.max() <= 4 / 3 + 1e-6
    assert (area.mean() - 0.62).abs() < 0.05
    assert (ratio.log().mean()).abs() < 0.02
    assert (centre[:, 0].abs() <= 1 - width + 1e-6).all()
    assert (centre[:, 1].abs() <= 1 - height + 1e-6).all()
    assert (width * height).min() >= 0.35 * math.sqrt(3 / 4) - 0.05


def test_a_crop_of_a_ramp_is_the_part_of_the_ramp():
    side = 96
    ramp = torch.arange(side, dtype=torch.float32).expand(1, 1, side, side)
    view = torch.tensor([[[0.5, 0.0, 0.25], [0.0, 0.5, 0.0]]])  # half as wide, its middle at 5/8 of the width
    columns = look(ramp, view, "border")[0, 0, 0]
    # Column i of the result shows the point (i + 0.5) / 96 of the crop, which begins at 3/8 of 96, so at 36 pixels.
    expected = 36 + (torch.arange(side) + 0.5) / side * 48 - 0.5
    torch.testing.assert_close(columns, expected, atol=1e-3, rtol=0)


def test_pictures_are_mirrored_only_where_they_may_be():
    ramp = torch.arange(32, dtype=torch.uint8).expand(64, 3, 32, 32)
    for may_flip in (False, True):
        data = make_data(64, may_flip=may_flip)
        data = ImageData(**{**vars(data), "train_images": ramp})
        images, _ = epoch_of(data)
        rising = images[:, 0, 16, 20] > images[:, 0, 16, 12]
        assert rising.all() if not may_flip else 20 < rising.sum() < 44


def test_large_pictures_are_cropped_and_small_ones_shifted():
    for side, shifted in ((64, True), (65, False)):
        images, labels = epoch_of(make_data(10, side))
        images = (images * 73.9 + 127.5)[labels.argsort()]
        # A shift keeps every level a whole number; a crop interpolates.
        whole = ((images - images.round()).abs() < 0.01).float().mean()
        assert (whole > 0.99) == shifted
