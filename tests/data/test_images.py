"""How image files become RGB: modes, frames, orientation, size; and what cannot be read."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torchvision.transforms.functional import pil_to_tensor

from ablations.data.images import LONGEST_RATIO, MOST_PIXELS, read_image, read_in_order


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
    Image.effect_noise((200, 160), 90).save(path)
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


def save(path, image, **options):
    image.save(path, **options)
    return str(path)


def levels_of(path, x=0, y=0):
    """Returns the RGB of a pixel, which must be readable."""
    read = read_image(path, pil_to_tensor)
    assert isinstance(read, torch.Tensor), read
    return tuple(read[:, y, x].tolist())


SIXTEEN = np.array([[0, 128, 129, 32767, 65535 - 128, 65535]], dtype=np.uint16)
EIGHT = [0, 0, 1, 127, 255, 255]


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_of_16_bits_becomes_8_by_value_over_257(tmp_path, suffix, order):
    if suffix == "tif" and order == ">u2":
        image = Image.frombytes("I;16B", (6, 1), SIXTEEN.astype(">u2").tobytes())
    else:
        image = Image.fromarray(SIXTEEN)
    path = save(tmp_path / f"deep.{suffix}", image)
    read = read_image(path, pil_to_tensor)
    assert read[:, 0].tolist() == [EIGHT] * 3


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_of_32_bits_are_refused_by_name(tmp_path, mode):
    path = save(tmp_path / "depth.tif", Image.new(mode, (4, 4), 300))
    reason = read_image(path, pil_to_tensor)
    assert reason.startswith(f"mode {mode}, ")
    assert reason.endswith("of 32 bits, have no white; allowed: 8 or 16 bits a channel")


MODES = {
    "1.png": (Image.new("1", (4, 4), 1), (255, 255, 255)),
    "grey.png": (Image.new("L", (4, 4), 7), (7, 7, 7)),
    "grey-alpha.png": (Image.new("LA", (4, 4), (7, 0)), (7, 7, 7)),
    "alpha.png": (Image.new("RGBA", (4, 4), (9, 8, 7, 0)), (9, 8, 7)),
    "cmyk.tif": (Image.new("CMYK", (4, 4), (255, 0, 0, 0)), (0, 255, 255)),
    "cmyk.jpg": (Image.new("CMYK", (16, 16), (0, 0, 0, 255)), (0, 0, 0)),
    "palette-alpha.tif": (Image.new("PA", (4, 4), (0, 90)), (0, 0, 0)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_has_one_rule(tmp_path, name):
    image, expected = MODES[name]
    assert levels_of(save(tmp_path / name, image)) == expected


def test_of_a_transparent_palette_the_colours_count_and_nothing_is_said(tmp_path, recwarn):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    path = save(tmp_path / "palette.png", image, transparency=bytes([0, 0]))
    assert levels_of(path) == (10, 20, 30)
    assert not list(recwarn)


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_of_several_frames_the_first_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"moving.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert levels_of(path) == (200, 0, 0)


def test_the_orientation_that_exif_gives_is_ignored(tmp_path):
    image = Image.new("RGB", (6, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "phone.jpg", image, exif=exif)
    assert read_image(path, pil_to_tensor).shape == (3, 4, 6)


WARNED = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00\x12\x01\x03\x00\x01\x00\x00\x00\x01\x00\x00\x00\x1a\x01\x05\x00"


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["-W", "error"]])
def test_pillow_warns_of_nothing_that_reads_well(tmp_path, flags):
    odd = save(tmp_path / "odd.jpg", Image.new("RGB", (8, 8)), exif=WARNED)
    large = save(tmp_path / "large.png", Image.new("1", (9000, 10000)))
    code = (
        "import sys; from ablations.data.images import read_image; "
        "print([read_image(path, lambda image: image.size) for path in sys.argv[1:]])"
    )
    done = subprocess.run([sys.executable, *flags, "-c", code, odd, large], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[(8, 8), (9000, 10000)]", "")


def header_of(width, height):
    """Returns a bitmap that says how large it is and has no pixels."""
    small = io.BytesIO()
    Image.new("RGB", (1, 1)).save(small, "BMP")
    content = bytearray(small.getvalue())
    content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(content)


def test_too_many_pixels_are_refused_by_their_number_before_they_are_decoded(tmp_path):
    (tmp_path / "wall.bmp").write_bytes(header_of(60_000, 5_000))
    assert read_image(str(tmp_path / "wall.bmp"), pil_to_tensor) == (
        f"60000 x 5000 px are more than {MOST_PIXELS:,} pixels, the most of one image"
    )


@pytest.mark.parametrize(("size", "cut"), [((8000, 1), (8, 1)), ((3, 1001), (3, 25)), ((80, 10), (80, 10))])
def test_a_strip_is_cut_to_its_middle(tmp_path, size, cut):
    path = save(tmp_path / "strip.png", Image.new("L", size))
    width, height = read_image(path, lambda image: image.size)
    assert (width, height) == cut
    assert max(cut) <= LONGEST_RATIO * min(cut) + 1


def test_what_is_cut_off_is_what_a_centre_crop_never_sees(tmp_path):
    strip = Image.new("L", (1000, 10), 0)
    strip.paste(255, (495, 0, 505, 10))
    read = read_image(save(tmp_path / "strip.png", strip), pil_to_tensor)
    assert read.shape == (3, 10, 80)
    assert read[0, 0].tolist() == [0] * 35 + [255] * 10 + [0] * 35


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_what_pillow_would_start_a_program_for_is_no_image(tmp_path, suffix):
    (tmp_path / f"page.{suffix}").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    assert "cannot identify" in read_image(str(tmp_path / f"page.{suffix}"), pil_to_tensor)


def deep_png(path, levels):
    """Writes a PNG of one pixel of colour with 16 bits a channel."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">3H", *levels))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return str(path)


def test_of_colours_of_16_bits_the_upper_8_count(tmp_path):
    assert levels_of(deep_png(tmp_path / "deep.png", (0x12FF, 0xFF00, 0x00FF))) == (0x12, 0xFF, 0x00)


def test_colour_profiles_are_ignored(tmp_path):
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    assert levels_of(save(tmp_path / "profile.png", image, icc_profile=b"no profile at all")) == (10, 20, 30)
