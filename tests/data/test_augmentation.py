"""Augmentation: what is drawn for an image, and what the drawn numbers do to it."""

import math

import pytest
import torch
from torch import Tensor

from ablations.data.augmentation import (
    ERASED_AREA,
    ERASED_RATIO,
    NOISES,
    draw_boxes,
    draw_crops,
    draw_noise,
    draw_shifts,
    erase,
    normalise,
    sample_views,
)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shifts_are_whole_pixels_up_to_a_sixteenth_of_the_side():
    views = draw_shifts(2000, 32, generator())
    pixels = views[:, :, 2] * 32 / 2
    assert sorted(pixels.unique().tolist()) == list(range(-2, 3))
    assert torch.equal(views[:, :, :2], torch.eye(2).expand(2000, 2, 2))


def test_a_shifted_image_is_moved_and_has_zeros_beyond():
    image = torch.rand(1, 2, 32, 32, generator=generator())
    view = torch.tensor([[[1.0, 0.0, 2 * 3 / 32], [0.0, 1.0, -2 * 4 / 32]]])  # 3 to the right, 4 up
    expected = torch.zeros_like(image)
    expected[:, :, 4:, :-3] = image[:, :, :-4, 3:]
    torch.testing.assert_close(sample_views(image, view, "zeros"), expected, atol=1e-5, rtol=0)


def test_a_negative_width_mirrors():
    image = torch.rand(1, 2, 32, 32, generator=generator())
    view = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    torch.testing.assert_close(sample_views(image, view, "border"), image.flip(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("least", [0.08, 0.35, 0.9])
def test_crops_have_the_area_and_the_ratio_and_lie_inside(least: float):
    views = draw_crops(5000, least, generator())
    width, height = views[:, 0, 0], views[:, 1, 1]
    centre = views[:, :, 2]
    assert (views[:, 0, 1] == 0).all()
    assert (views[:, 1, 0] == 0).all()
    whole = (width == 1) | (height == 1)  # held to the image's side, and so smaller or longer than drawn
    area, ratio = (width * height)[~whole], (width / height)[~whole]
    assert least - 1e-6 <= area.min() < least + 0.05
    assert area.max() <= 1
    assert ratio.min() >= 3 / 4 - 1e-6
    assert ratio.max() <= 4 / 3 + 1e-6
    assert (ratio.log().mean()).abs() < 0.02
    assert (centre[:, 0].abs() <= 1 - width + 1e-6).all()
    assert (centre[:, 1].abs() <= 1 - height + 1e-6).all()
    # One that is held to the side loses at most what the most extreme ratio makes it longer by.
    assert (width * height).min() >= least * math.sqrt(3 / 4) - 1e-6


def test_the_whole_image_is_shown_where_all_of_it_is_kept():
    views = draw_crops(500, 1.0, generator())
    width, height = views[:, 0, 0], views[:, 1, 1]
    assert (torch.maximum(width, height) == 1).all()


def test_a_crop_of_a_ramp_is_the_part_of_the_ramp():
    side = 96
    ramp = torch.arange(side, dtype=torch.float32).expand(1, 1, side, side)
    view = torch.tensor([[[0.5, 0.0, 0.25], [0.0, 0.5, 0.0]]])  # half as wide, its middle at 5/8 of the width
    columns = sample_views(ramp, view, "border")[0, 0, 0]
    # Column i of the result shows the point (i + 0.5) / 96 of the crop, which begins at 3/8 of 96, so at 36 pixels.
    expected = 36 + (torch.arange(side) + 0.5) / side * 48 - 0.5
    torch.testing.assert_close(columns, expected, atol=1e-3, rtol=0)


def extents(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_boxes_are_drawn_with_the_probability_and_are_empty_else(probability: float):
    boxes = draw_boxes(4000, probability, generator())
    width, height = extents(boxes)
    drawn = width > 0
    assert torch.equal(drawn, height > 0)
    # Four standard deviations of a share of 4,000 are at most 4 * sqrt(0.25 / 4000) = 0.032.
    assert drawn.float().mean().item() == pytest.approx(probability, abs=0.032 if 0 < probability < 1 else 0)


def test_boxes_have_the_area_and_the_ratio_and_lie_inside():
    boxes = draw_boxes(5000, 1.0, generator())
    width, height = extents(boxes)
    assert boxes[:, :4].min() >= 0
    assert boxes[:, :4].max() <= 1 + 1e-6
    whole = (width > 1 - 1e-6) | (height > 1 - 1e-6)
    area, ratio = (width * height)[~whole], (width / height)[~whole]
    assert ERASED_AREA[0] - 1e-4 <= area.min() < 0.03
    assert 0.3 < area.max() <= ERASED_AREA[1] + 1e-4
    assert ERASED_RATIO[0] - 1e-3 <= ratio.min() < 0.35
    assert 3 < ratio.max() <= ERASED_RATIO[1] + 1e-2
    assert ratio.log().mean().abs() < 0.05
    assert set(boxes[:, 4].unique().tolist()) == set(range(NOISES))
    left = boxes[~whole, 0] / (1 - width[~whole])  # where it lies, of all places where it could
    assert left.mean().item() == pytest.approx(0.5, abs=0.03)


def test_what_is_drawn_for_an_image_does_not_depend_on_how_often_images_are_erased():
    never, often = (draw_boxes(100, probability, generator()) for probability in (0.0, 1.0))
    assert torch.equal(never[:, :2], often[:, :2])
    assert torch.equal(never[:, 4], often[:, 4])


def test_an_erased_part_is_exactly_the_box_and_is_filled_from_the_noise():
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    noise = draw_noise(3, 8)
    # Columns 2 to 4 and rows 1 to 6 of the first, whose noise is the sixth; nothing of the second.
    boxes = torch.tensor([[2 / 8, 1 / 8, 5 / 8, 7 / 8, 5.0], [0.5, 0.5, 0.5, 0.5, 3.0]])
    expected = images.clone()
    expected[0, :, 1:7, 2:5] = noise[5, :, 1:7, 2:5]
    assert torch.equal(erase(images, boxes, noise), expected)


def test_a_box_that_covers_everything_leaves_only_noise():
    noise = draw_noise(3, 8)
    images = torch.zeros(1, 3, 8, 8)
    assert torch.equal(erase(images, torch.tensor([[0.0, 0.0, 1.0, 1.0, 7.0]]), noise), noise[7:8])


def test_the_noise_is_always_the_same_and_normal():
    torch.manual_seed(1)
    noise = draw_noise(3, 32)
    torch.manual_seed(2)
    assert torch.equal(noise, draw_noise(3, 32))
    assert noise.shape == (NOISES, 3, 32, 32)
    assert noise.mean().abs() < 0.02
    assert noise.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalised_channel_by_channel_and_grey_ones_are_given_to_all_three(channels: int):
    images = torch.full((2, channels, 4, 4), 100, dtype=torch.uint8)
    mean, std = torch.arange(1.0, channels + 1) * 10, torch.arange(1.0, channels + 1) * 5
    shown = normalise(images, mean, std)
    assert shown.shape == (2, 3, 4, 4)
    assert shown.is_contiguous(memory_format=torch.channels_last)
    expected = [18.0, 8.0, 70 / 15] if channels == 3 else [18.0] * 3
    assert shown[1, :, 2, 3].tolist() == pytest.approx(expected)
