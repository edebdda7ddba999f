"""What takes long to make from files and is kept on disk: decoded images, and which of them cannot be read.

An entry is an answer to a question, such as the images of a folder at a resolution, in a state: the files' sizes and
times, the libraries' versions. It counts for exactly that state. What cannot be read back, or does not agree with its
checksum, is as if it were not there; and where the cache cannot be written, nothing is kept. So it never changes what
comes out, or ends a run. What another user can write is not believed, for a checksum may be forged too.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
from torch import Tensor

from ablations.files import opened_regular, value_digest, write_bytes, write_text

Question = dict[str, Any]
"""What is asked, as plain values: one entry is kept for it."""

State = dict[str, Any]
"""All that the answer depends on, as plain values."""


def cache_directory() -> Path:
    """Returns the folder that ABLATIONS_CACHE_DIR names, else `pvt-ablations` in the user's folder of caches."""
    return Path(os.environ.get("ABLATIONS_CACHE_DIR") or "~/.cache/pvt-ablations").expanduser()


def describe_files(folder: Path, paths: Sequence[str]) -> list[list[Any]]:
    """Returns each file's path under the folder, size in bytes and time of change in ns; None where there is none."""
    return [[Path(path).relative_to(folder).as_posix(), *_size_and_time(path)] for path in paths]


def _size_and_time(path: str) -> tuple[int | None, int | None]:
    try:
        status = Path(path).stat()
    except OSError:
        return None, None
    return status.st_size, status.st_mtime_ns


def library_versions() -> State:
    """Returns what decides about a decoded image's levels beside its file."""
    return {
        "pillow": PIL.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),  # resizing bytes has kernels for each, which round differently
    }


def load_answer(question: Question, state: State) -> Any:
    """Returns the answer that is kept, a plain value; None where there is none for this state."""
    try:
        with _opened(question, ".json", LARGEST_NOTE) as file:
            entry = json.loads(file.read())
    except (OSError, ValueError, RuntimeError, RecursionError):  # a RuntimeError where the user has no home
        return None
    if isinstance(entry, dict) and (entry.get("question"), entry.get("state")) == (question, state):
        return entry.get("answer")
    return None


def store_answer(question: Question, state: State, answer: Any) -> None:
    """Keeps an answer, in place of an older one to the same question."""
    entry = {"question": question, "state": state, "answer": answer}
    with suppress(OSError, RuntimeError):
        write_text(_entry_path(question, ".json"), json.dumps(entry, indent=1))


def load_images(question: Question, state: State, shape: Sequence[int]) -> Tensor | None:
    """Returns the images that are kept, bytes of the given shape; None where there are none for this state."""
    known = load_answer(question, state)
    if not isinstance(known, dict) or known.get("shape") != list(shape):
        return None
    images = torch.empty(*shape, dtype=torch.uint8)
    content = _bytes_of(images)
    try:
        with _opened(question, ".bin", len(content)) as file:
            if os.fstat(file.fileno()).st_size != len(content) or file.readinto(content) != len(content):
                return None
    except OSError:
        return None
    return images if hashlib.sha256(content).hexdigest() == known.get("sha256") else None


def store_images(question: Question, state: State, images: Tensor) -> None:
    """Keeps images, contiguous bytes in main memory, in place of older ones for the same question."""
    content = _bytes_of(images)
    try:
        write_bytes(_entry_path(question, ".bin"), content)
    except (OSError, RuntimeError):
        return
    # After a crash in between, the checksum of the older note refuses the newer images.
    answer = {"shape": list(images.shape), "dtype": "uint8", "sha256": hashlib.sha256(content).hexdigest()}
    store_answer(question, state, answer)


def _bytes_of(images: Tensor) -> memoryview:
    return images.numpy().data.cast("B")


LARGEST_NOTE = 2**30
"""Bytes: reasons for a million images."""


OTHERS = stat.S_IRWXG | stat.S_IRWXO


def _is_ours(place: Path) -> bool:
    """Whether no other user but root can write a file or folder."""
    status = place.stat()
    is_own = not hasattr(os, "getuid") or status.st_uid in (0, os.getuid())
    return is_own and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@contextmanager
def _opened(question: Question, suffix: str, most_bytes: int) -> Iterator[BufferedReader]:
    """Gives an entry to read; raises OSError where another user can write it."""
    path = _entry_path(question, suffix)
    if not (_is_ours(path.parent) and (_is_ours(path) or not path.parent.stat().st_mode & OTHERS)):
        raise PermissionError(f"{path} can be written by another user")
    with opened_regular(path, most_bytes) as file:
        yield file


def _entry_path(question: Question, suffix: str) -> Path:
    cache_directory().mkdir(mode=0o700, parents=True, exist_ok=True)
    return cache_directory() / f"{value_digest(question)[:16]}{suffix}"
