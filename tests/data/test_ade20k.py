"""ADE20K's layout: labels and void of masks, and that every fault is one line, counted, and can be left out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations.data.ade20k import VOID, read_mask
from ablations.errors import InputError


def test_a_mask_s_zero_label_says_nothing_and_a_palette_is_for_people(segments, make_ade20k):
    plain = segments(make_ade20k())
    coloured = segments(make_ade20k(name="coloured", palette=True))
    labels = {"num_classes": 3, "first_label": 1, "void_label": 0}
    for one, other in zip(plain.train, coloured.train, strict=True):
        mask = read_mask(one.mask_path, **labels)
        assert set(np.unique(mask)) == {0, 1, 2, VOID}
        with Image.open(other.mask_path) as image:
            assert image.mode == "P"
        assert (read_mask(other.mask_path, **labels) == mask).all()


def test_a_void_label_above_the_classes_says_nothing_too(segments, make_ade20k):
    root = make_ade20k()
    data = segments(root, first_label=0, void_label=3)
    mask = read_mask(data.train[0].mask_path, num_classes=3, first_label=0, void_label=3)
    assert set(np.unique(mask)) == {0, 1, 2, VOID}
    with pytest.raises(InputError, match=r"^scenes has masks with labels beyond the classes: 6, first .* \(3\); mend"):
        segments(root, first_label=0, void_label=255)


@pytest.fixture
def spoil(read_pixels: Callable[[Path], np.ndarray]) -> Callable[[Path, str], None]:
    """`spoil(path, how)` makes a mask faulty."""

    def spoil_mask(path: Path, how: str) -> None:
        pixels = read_pixels(path)
        match how:
            case "size":
                Image.fromarray(pixels[:40, :50]).save(path)
            case "colour":
                Image.fromarray(pixels).convert("RGB").save(path)
            case "label":
                pixels[0, 0] = 9
                Image.fromarray(pixels).save(path)
            case "damage":
                path.write_bytes(path.read_bytes()[:60])
            case "missing":
                path.unlink()

    return spoil_mask


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ("size", "masks of another size than their image"),
        ("colour", "masks that are no index images"),
        ("label", "masks with labels beyond the classes"),
        ("damage", "masks that cannot be read"),
        ("missing", "images without a mask"),
    ],
)
def test_a_faulty_mask_of_pixels_is_named_and_left_out_on_request_alone(segments, spoil, make_ade20k, how, fault):
    root = make_ade20k()
    spoil(root / "annotations" / "training" / "000002.png", how)
    with pytest.raises(InputError, match=f"^scenes has {fault}: 1, first training/000002.png.*; mend them, or leave"):
        segments(root)
    data = segments(root, skip_faulty=True)
    assert [Path(item.path).stem for item in data.train] == ["000000", "000001", "000003"]
    assert data.left_out == {fault: 1}


def test_a_mask_without_an_image_and_a_class_without_a_pixel_are_faults(segments, make_ade20k):
    root = make_ade20k()
    (root / "images" / "training" / "000003.png").unlink()
    with pytest.raises(InputError, match=r"^scenes has masks of a missing image: 1, first training/000003.png"):
        segments(root)
    other = make_ade20k(name="others")
    with pytest.raises(InputError, match=r"^others has classes without a pixel: 1, first label 4 in training"):
        segments(other, num_classes=4)


def test_every_fault_is_found_again_from_the_cache(segments, spoil, make_ade20k):
    from ablations.data import dense_loading

    root = make_ade20k()
    spoil(root / "annotations" / "training" / "000002.png", "label")
    for _ in range(2):
        dense_loading._load_segments.cache_clear()
        with pytest.raises(InputError, match=r"masks with labels beyond the classes: 1, first .*2\.png \(9\)"):
            segments(root)
