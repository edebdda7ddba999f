"""Protocols: timm's own numbers, and which accuracy is expected of which model."""

import pytest
import timm
import torch
from PIL import Image, ImageFile
from timm.data import create_transform, resolve_data_config
from torchvision import transforms
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from ablations.data.protocols import (
    CROPS,
    build_transform,
    normalise_bytes,
    read_image,
    read_in_order,
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


@pytest.mark.parametrize(("workers", "ahead"), [(1, 0), (1, 5), (3, 2), (4, 100)])
def test_images_come_in_order_and_what_cannot_be_read_in_its_place(tmp_path, workers, ahead):
    for level in range(12):
        Image.new("L" if level % 2 else "RGB", (40, 32), level if level % 2 else (level, 0, 0)).save(
            tmp_path / f"{level:02}.png"
        )
    (tmp_path / "07.png").write_bytes((tmp_path / "07.png").read_bytes()[:45])
    (tmp_path / "09.png").write_text("no image")
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    stream = list(read_in_order(paths, pil_to_tensor, workers=workers, ahead=ahead))
    assert len(stream) == 12
    for level, read in enumerate(stream):
        if level in (7, 9):
            assert isinstance(read, str)
        else:
            assert read.shape == (3, 32, 40)
            assert read[0].unique().tolist() == [level]
    assert stream[9] == "UnidentifiedImageError: cannot identify image file"
    assert stream[7].startswith("OSError: ")


@pytest.mark.parametrize("name", ["it's.png", "a: b.png", "back\\slash.png", "ü\n.png"])
def test_a_fault_does_not_repeat_the_images_path(tmp_path, name):
    (tmp_path / name).write_text("no image")
    assert read_image(str(tmp_path / name), pil_to_tensor) == "UnidentifiedImageError: cannot identify image file"
    (tmp_path / name).unlink()
    assert read_image(str(tmp_path / name), pil_to_tensor).endswith("No such file or directory")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image_is_not_filled_up_even_if_another_library_wants_it(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"image.{suffix}"
    draw_image(200, 160).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for wanted in (False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", wanted)
        assert isinstance(read_image(str(path), pil_to_tensor), str)


def test_no_more_is_read_ahead_than_asked(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    started = []

    def transform(image):
        started.append(image)
        return pil_to_tensor(image)

    stream = read_in_order([str(tmp_path / "image.png")] * 50, transform, workers=2, ahead=4)
    for _ in range(3):
        next(stream)
    stream.close()
    assert 3 <= len(started) <= 3 + 4
