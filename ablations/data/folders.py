"""Image folders, as `ablations.data.listing` lists them: their splits, and what of them cannot be read."""

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from ablations.data.cache import Question, describe_files, library_versions, load_answer, store_answer
from ablations.data.images import RULES, read_all
from ablations.data.listing import SUFFIXES, Listing, list_images, listed, named_as_splits
from ablations.data.registry import SPLITS
from ablations.errors import InputError, as_text
from ablations.files import value_digest

WAY_OUT = "mend or remove such images, or leave them out by --skip-unreadable, which accuracy and evaluate have"
"""What can be done about images that cannot be read, whichever command met them."""


def open_image_folder(root: Path) -> tuple[Listing, Listing]:
    """Returns the training and the validation split of an image folder.

    Raises InputError for a split that is missing or has no classes, a class without images, and for splits of
    different classes.
    """
    train, validation = (open_split(root / split, "images as train/CLASS/* and val/CLASS/*") for split in SPLITS)
    if train.classes != validation.classes:
        alone = sorted(set(train.classes) ^ set(validation.classes))
        raise InputError(f"{root}: train and val must have the same classes; only one of them has {listed(alone)}")
    return train, validation


def open_split(folder: Path, layout: str) -> Listing:
    """Returns the images of `folder/CLASS/*`.

    Raises InputError if the folder is missing, has no classes, or has splits instead, which `layout` says how to lay
    out; for a class without images, and as `list_images`.
    """
    split = list_images(folder) if folder.is_dir() else None
    if split is None or not split.classes:
        raise InputError(f"{as_text(str(folder))} is missing or has no class folders; allowed: {layout}")
    splits = named_as_splits(split.classes)
    # Below a split a class may be a train; beside the splits it would be taken for one.
    if splits and (len(splits) == len(split.classes) or not named_as_splits([folder.name])):
        raise InputError(
            f"{as_text(str(folder))} has {listed(splits)}, which is a split and no class; allowed: {layout}"
        )
    split.check(as_text(str(folder)), f"images ({', '.join(sorted(SUFFIXES))})")
    return split


def validation_folder(folder: Path) -> Path:
    """Returns the folder of classes that a finished model is evaluated on: `folder/val`, or without it `folder`."""
    return folder / "val" if (folder / "val").is_dir() else folder


def digest_listing(folders: Mapping[str, Path]) -> str:
    """Returns the SHA-256 of the paths and sizes in bytes of all images `folder/CLASS/*`, by the folders' names.

    A size is -1 where a link leads nowhere.
    """
    listing = []
    for name, folder in folders.items():
        for path in list_images(folder).paths:
            try:
                size = os.stat(path).st_size  # noqa: PTH116, a Path for each takes long
            except OSError:
                size = -1
            listing.append((name + path.removeprefix(str(folder)).replace(os.sep, "/"), size))
    found = hashlib.sha256()
    for path, size in sorted(listing):
        found.update(os.fsencode(path) + b"\0%d\0" % size)
    return found.hexdigest()


def say_left_out(complaints: Iterable[str]) -> None:
    """Says on stderr what of folders is neither a class nor an image."""
    for complaint in filter(None, complaints):
        print(f"note: {complaint}", file=sys.stderr)


def find_unreadable(split: Listing) -> dict[str, str]:
    """Returns the paths of the images that cannot be read, in order, with the reason in words.

    All are decoded once: what was found is kept in the cache, until a file of the split changes.
    """
    # A digest, because ImageNet's million files would make a note of a hundred megabytes.
    question: Question = {"what": "unreadable images", "rules": RULES, "folder": str(split.folder)}
    state = {"files": value_digest(describe_files(split.folder, split.paths)), **library_versions()}
    known = load_answer(question, state)
    if isinstance(known, dict) and known.keys() <= set(split.paths):
        return {path: str(reason) for path, reason in known.items()}
    nothing = torch.empty(0)
    found = {path: read for path, read in read_all(split.paths, lambda image: nothing) if isinstance(read, str)}
    store_answer(question, state, found)
    return found


def unreadable_images(faults: Mapping[str, str], total: int, *, skipping: bool = False) -> InputError:
    """The error for images, by name with the reason, that cannot be read among `total`."""
    first, reason = next(iter(faults.items()))
    way_out = "" if skipping else f"; {WAY_OUT}"
    return InputError(f"{len(faults)} of {total} images cannot be read, first {first} ({reason}){way_out}")
