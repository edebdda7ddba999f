"""What an image folder holds: the one rule of what is a class and what is an image. Needs no torch.

A class is a folder in the folder of classes; its images are the regular files below it, however deep, whose suffix says
that they are images. Hidden and system names are left out, and a folder counts once however it is linked. What was left
out is counted.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from ablations.errors import InputError, as_text

SUFFIXES = frozenset(
    """
    .apng .avif .avifs .bmp .dib .gif .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .pbm .pcx .pgm .png .pnm
    .ppm .qoi .tga .tif .tiff .webp
    """.split()
)
"""Of images, in small letters: the still images that Pillow reads without another program."""

SYSTEM_NAMES = frozenset(
    [
        *"__macosx __pycache__ @eadir #recycle $recycle.bin lost+found thumbs.db ehthumbs.db desktop.ini".split(),
        "system volume information",
    ]
)
"""What operating systems, storage servers and Python leave in folders, in small letters."""

SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
"""How parts of data sets are called, in small letters."""

HIDDEN, NO_IMAGE, LINKED, SPECIAL, BESIDE = (
    "hidden or the system's",
    "no image by the suffix",
    "a link to a folder that counts already",
    "no regular file",
    "beside the class folders",
)
"""Why something is left out."""

_NAMED = 3  # at most, for each reason
_NAMED_CLASSES = 5  # at most, in an error

_Identity = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images `folder/CLASS/**`: classes in the order of their labels, images by class and then by path."""

    folder: Path
    classes: list[str]
    """Their names as text: bytes that are not UTF-8 are written as `\\xe9`."""
    paths: list[str]
    labels: list[int]
    """Of each image, the place of its class in `classes`."""
    left_out: dict[str, list[str]]
    """Paths under the folder, as text, by the reason."""

    @property
    def complaint(self) -> str:
        """What was left out, in words; empty where nothing was."""
        reasons = []
        for reason, names in self.left_out.items():
            named = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            reasons.append(f"{len(names)} {reason} ({named})")
        return f"{as_text(str(self.folder))}: left out {'; '.join(reasons)}" if reasons else ""

    def name(self, path: str) -> str:
        """Returns an image's path under the folder that the split lies in, such as `train/cat/1.png`."""
        return as_text(Path(path).relative_to(self.folder.parent).as_posix())

    def check(self, place: str, what: str) -> None:
        """Raises InputError, which says at what `place`, for a class without `what`."""
        if empty := sorted(set(range(len(self.classes))) - set(self.labels)):
            raise InputError(f"{place} has no {what} of class {listed([self.classes[label] for label in empty])}")

    def without(self, paths: Mapping[str, str]) -> Self:
        """Returns it without some images; raises InputError for a class that has no other."""
        kept = [index for index, path in enumerate(self.paths) if path not in paths]
        left = self.only(kept)
        left.check(self.folder.name, "images that can be read")
        return left

    def only(self, kept: list[int]) -> Self:
        """Returns it with some of its images, by their places in it."""
        return replace(self, paths=[self.paths[index] for index in kept], labels=[self.labels[index] for index in kept])


def label_order(name: str) -> tuple[list[str | int], str]:
    """Returns what classes are sorted by: numbers in a name by their value, letters without case, as timm does."""
    parts = re.split(r"(\d+)", name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the class folders, in the order of their labels; none where there is no folder.

    They are as the system has them. Raises InputError for a folder that may not be read.
    """
    return _class_folders(folder, _Left(folder)) if folder.is_dir() else []


def list_images(folder: Path) -> Listing:
    """Returns what a folder of classes holds.

    Raises InputError for a folder that may not be read, and where two classes are one folder.
    """
    left = _Left(folder)
    names = _class_folders(folder, left)
    roots = [f"{folder}/{name}" for name in names]
    known: dict[_Identity, str] = {}
    for root in roots:
        other = known.setdefault(_identity(root), root)
        if other != root:
            raise InputError(f"{as_text(root)} and {as_text(other)} are one folder; allowed: a folder for each class")
    # What holds the folder is there too: a link to it would bring other splits in.
    seen = {*known, *(_identity(str(place)) for place in (folder, *folder.resolve().parents))}
    found: list[dict[str, list[str]]] = [{} for _ in roots]
    links: list[tuple[int, str]] = []
    for label, root in enumerate(roots):  # a folder counts where it is before it counts where it is linked
        links += [(label, link) for link in _walk(root, found[label], seen, left)]
    while links:
        label, link = links.pop(0)
        if _identity(link) in seen:
            left.out(LINKED, link)
        else:
            seen.add(_identity(link))
            links += [(label, each) for each in _walk(link, found[label], seen, left)]
    paths, labels = [], []
    for label, folders in enumerate(found):
        own = [f"{place}/{name}" for place in sorted(folders) for name in sorted(folders[place])]
        paths += own
        labels += [label] * len(own)
    return Listing(
        folder=folder, classes=list(map(as_text, names)), paths=paths, labels=labels, left_out=dict(left.by_reason)
    )


def listed(names: Sequence[str]) -> str:
    """Returns the first few names, and how many more there are."""
    more = len(names) - _NAMED_CLASSES
    return ", ".join(names[:_NAMED_CLASSES]) + (f" and {more} more" if more > 0 else "")


def named_as_splits(names: Iterable[str]) -> list[str]:
    """Returns those of the names that are a split's."""
    return [name for name in names if name.lower() in SPLIT_NAMES]


@dataclass(frozen=True)
class _Left:
    """What is left out of a folder."""

    folder: Path
    by_reason: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def out(self, reason: str, path: str) -> None:
        self.by_reason[reason].append(as_text(path.removeprefix(f"{self.folder}/")))


def _class_folders(folder: Path, left: _Left) -> list[str]:
    names = []
    for entry in _entries(str(folder), left):
        if _leads_to(entry.is_dir):
            names.append(entry.name)
        else:
            left.out(BESIDE, entry.path)
    return sorted(names, key=label_order)


def _walk(root: str, found: dict[str, list[str]], seen: set[_Identity], left: _Left) -> list[str]:
    """Adds the images below a folder to those `found` by their folder; returns the links to folders, in order."""
    links: list[str] = []
    waiting = [root]
    while waiting:
        place = waiting.pop()
        images = []
        for entry in _entries(place, left):
            if _leads_to(entry.is_dir):
                if entry.is_symlink():
                    links.append(entry.path)
                elif (identity := _identity(entry.path)) not in seen:  # a mount may show a folder twice
                    seen.add(identity)
                    waiting.append(entry.path)
            elif os.path.splitext(entry.name)[1].lower() not in SUFFIXES:  # noqa: PTH122, a Path for each takes long
                left.out(NO_IMAGE, entry.path)
            elif _leads_to(entry.is_file) or not os.path.exists(entry.path):  # noqa: PTH110
                images.append(entry.name)  # a link that leads nowhere is an image that cannot be read
            else:
                left.out(SPECIAL, entry.path)
        if images:
            found[place] = images
    return sorted(links)


def _leads_to(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # links in a circle
        return False


def _entries(folder: str, left: _Left) -> Iterator[os.DirEntry[str]]:
    """Yields what lies in a folder and is neither hidden nor the system's."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
                    left.out(HIDDEN, entry.path)
                else:
                    yield entry
    except OSError as error:
        raise InputError(f"{as_text(folder)} cannot be read ({error.strerror})") from error


def _identity(path: str) -> _Identity:
    status = os.stat(path)  # noqa: PTH116
    return status.st_dev, status.st_ino
