"""ADE20K's layout: `images/{training,validation}/*` and masks of one name, `annotations/{training,validation}/*.png`.

A mask's values are indices; a palette, if it has one, is for people. Values below the first class, and the void label,
say nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ablations.data.annotations import Faults, Segments, check_split
from ablations.data.cache import Question, describe_files, library_versions, load_answer, store_answer
from ablations.files import value_digest

SPLITS = ("training", "validation")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm")

VOID = 255
"""What a pixel without a class is, in masks as `read_mask` gives them."""

INDEX_MODES = ("L", "P", "1", "I", "I;16")
"""Of Pillow's images whose values are indices."""


def read_ade20k(
    root: Path, split: str, *, num_classes: int, first_label: int, void_label: int, faults: Faults
) -> tuple[list[Segments], set[int]]:
    """Returns the images of a split with their masks, and the classes, from 0, that some pixel has.

    All masks are decoded once; what was found is kept in the cache. Faults are noted, and these images left out. Raises
    InputError for a split without images.
    """
    images = {path.stem: path for path in _files(root / "images" / split) if path.suffix.lower() in SUFFIXES}
    masks = {path.stem: path for path in _files(root / "annotations" / split) if path.suffix.lower() == ".png"}
    check_split(list(images), f"{split} of {root.name}", "images")
    for name in sorted(images.keys() - masks.keys()):
        faults.note("images without a mask", f"{split}/{images[name].name}")
    for name in sorted(masks.keys() - images.keys()):
        faults.note("masks of a missing image", f"{split}/{masks[name].name}")
    pairs = [
        Segments(path=str(images[name]), mask_path=str(masks[name])) for name in sorted(images.keys() & masks.keys())
    ]
    seen = _look_at(root, split, pairs)
    found, classes = [], set()
    for pair, (fault, values) in zip(pairs, seen, strict=True):
        labels = {value - first_label for value in values if value >= first_label and value != void_label}
        if not fault and labels and max(labels) >= num_classes:
            fault = "masks with labels beyond the classes"
        if fault:
            more = f" ({max(labels) + first_label})" if "beyond" in fault else ""
            faults.note(fault, f"{split}/{Path(pair.mask_path).name}{more}")
            continue
        classes |= labels
        found.append(pair)
    if not faults.found:
        check_split(found, f"{split} of {root.name}", "images with masks")
    return found, classes


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _look_at(root: Path, split: str, pairs: Sequence[Segments]) -> list[tuple[str, list[int]]]:
    """Returns for each pair what is wrong with it in words, nothing where it is sound, and the values of its mask."""
    question: Question = {"what": "masks", "folder": str(root), "split": split}
    paths = [path for pair in pairs for path in (pair.path, pair.mask_path)]
    state = {"files": value_digest(describe_files(root, paths)), **library_versions()}
    known = load_answer(question, state)
    if isinstance(known, list) and len(known) == len(pairs):
        return [(str(fault), [int(value) for value in values]) for fault, values in known]
    found = [_look_at_pair(pair) for pair in pairs]
    store_answer(question, state, found)
    return found


def _look_at_pair(pair: Segments) -> tuple[str, list[int]]:
    try:
        with Image.open(pair.path) as image:
            size = image.size
    except Exception:  # a damaged file fails in every way that a decoder can
        return "images that cannot be read", []
    try:
        with Image.open(pair.mask_path) as mask:
            if mask.mode not in INDEX_MODES:
                return "masks that are no index images", []
            if mask.size != size:
                return "masks of another size than their image", []
            return "", np.unique(np.asarray(mask)).astype(int).tolist()
    except Exception:
        return "masks that cannot be read", []


def read_mask(path: str, *, num_classes: int, first_label: int, void_label: int) -> np.ndarray:
    """Returns a mask (height, width) of bytes: classes from 0, and VOID where a pixel has none."""
    with Image.open(path) as mask:
        values = np.asarray(mask).astype(np.int64)
    labels = values - first_label
    none = (labels < 0) | (labels >= num_classes) | (values == void_label)
    return np.where(none, VOID, labels).astype(np.uint8)
