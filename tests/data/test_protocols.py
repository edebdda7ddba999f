"""Protocols: timm's own numbers, and which accuracy is expected of which model."""

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from ablations.data.protocols import (
    CROPS,
    build_transform,
    normalise_bytes,
    resized_short_side,
)
from ablations.errors import InputError


def draw_image(width: int, height: int) -> Image.Image:
    random = torch.Generator().manual_seed(width)
    coarse = torch.randint(256, (3, height // 8, width // 8), generator=random, dtype=torch.uint8)
    return to_pil_image(coarse).resize((width, height), Image.Resampling.BILINEAR)


IMAGES = [(500, 375), (300, 420), (64, 64), (1000, 40)]


@pytest.mark.parametrize("size", IMAGES)
@pytest.mark.parametrize("resolution", [32, 192, 224, 288])
@pytest.mark.parametrize("protocol", CROPS)
def test_images_are_those_of_timms_pipeline(protocol, resolution, size):
    settings = timm.get_pretrained_cfg("pvt_v2_b2").to_dict()
    changes = {"img_size": resolution} | ({} if protocol == "timm" else {"crop_pct": 0.875})
    config = resolve_data_config(changes, pretrained_cfg=settings)
    assert config["crop_pct"] == CROPS[protocol]
    image = draw_image(*size)
    shown = build_transform(protocol, resolution)(image)
    assert (shown.dtype, shown.shape) == (torch.uint8, (3, resolution, resolution))
    expected = create_transform(**config, is_training=False)(image)
    assert torch.equal(normalise_bytes(shown[None])[0], expected)


@pytest.mark.parametrize("size", IMAGES)
def test_the_papers_protocol_is_256_pixels_and_the_centre_224(size):
    steps = [
        transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    image = draw_image(*size)
    shown = build_transform("paper", 224)(image)
    assert torch.equal(normalise_bytes(shown[None])[0], transforms.Compose(steps)(image))


@pytest.mark.parametrize("protocol", CROPS)
def test_the_short_side_is_timms(protocol):
    for resolution in range(16, 513):
        (resized,) = (step for step in build_transform(protocol, resolution).transforms if hasattr(step, "max_size"))
        assert resized_short_side(protocol, resolution) == resized.size
    # 160 px are 182.86 of which timm drops the fraction.
    assert [resized_short_side("paper", resolution) for resolution in (64, 160, 224)] == [73, 182, 256]


def test_the_protocols_differ():
    image = draw_image(500, 375)
    assert not torch.equal(*(build_transform(protocol, 224)(image) for protocol in CROPS))


def test_bytes_become_mean_0_and_deviation_1_channels_last():
    images = torch.tensor([124, 116, 104], dtype=torch.uint8)[None, :, None, None].expand(2, 3, 4, 4)
    shown = normalise_bytes(images)
    assert shown.abs().max() < 0.02  # ImageNet's mean, to the byte
    assert shown.is_contiguous(memory_format=torch.channels_last)
    assert images.dtype == torch.uint8


def test_unknown_protocols_and_resolutions_are_refused():
    with pytest.raises(InputError, match="protocol='papers' is not possible; allowed: paper, timm"):
        build_transform("papers", 224)
    for resolution in (0, -224, 2**17):
        with pytest.raises(InputError, match=f"resolution={resolution} "):
            build_transform("timm", resolution)
