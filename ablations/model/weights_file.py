"""Files of weights as they come: which kind of file it is, seen from its content, and what it holds.

Nothing but tensors and plain values is ever unpickled: other people's training code keeps its arguments and statistics
beside the weights, and of these the harmless kinds are let through.
"""

import argparse
import hashlib
import io
import json
import pathlib
import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from ablations.errors import InputError
from ablations.files import opened_regular

LARGEST_FILE = 2**33
"""Bytes of a file of weights: the largest variant takes 1.3 GB with an optimiser's state and averages."""

LONGEST_HEADER = 100_000_000  # bytes, which is safetensors' own limit

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
ZIP = b"PK\x03\x04"


class _Placeholder:
    """Stands for an object whose code is neither here nor wanted."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


_SCALAR_TYPES = ("bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64")

HARMLESS: list[Any] = [
    argparse.Namespace,  # the arguments of timm's and the released training code
    defaultdict,
    *(list, dict, set, int, float),  # what a defaultdict makes
    pathlib.PosixPath,
    np.dtype,
    np.ndarray,
    *(type(np.dtype(name)) for name in _SCALAR_TYPES),
    *(
        (value.__reduce__()[0], f"numpy.{core}.multiarray.{name}")
        for name, value in (("scalar", np.float64()), ("_reconstruct", np.empty(0)))
        for core in ("core", "_core")
    ),
    (_Placeholder, "mmengine.logging.history_buffer.HistoryBuffer"),
]
"""What may lie beside tensors, besides what torch lets through itself: it holds values and runs nothing."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, read once: its digest is of the very bytes that its tensors come from."""

    path: Path
    content: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file's bytes."""
        return hashlib.sha256(self.content).hexdigest()

    def check_digest(self, expected: str, work: str) -> None:
        """Raises InputError for another file than the one of that SHA-256; `work` says amid what it was replaced."""
        if self.sha256 != expected:
            raise InputError(f"checkpoint {str(self.path)!r} was replaced by another while it was {work}")

    def load(self) -> Any:
        """Returns what the file holds, on the CPU.

        Raises InputError for one that is cut off, and for none of tensors.
        """
        try:
            if self._header() is not None:
                return dict(sorted(safetensors.torch.load(self.content).items()))  # which come in any order
            if self.content.startswith(ZIP) and not zipfile.is_zipfile(io.BytesIO(self.content)):
                raise _cut_off(self.path)
            with torch.serialization.safe_globals(HARMLESS):
                return torch.load(io.BytesIO(self.content), map_location="cpu", weights_only=True)
        except InputError:
            raise
        except Exception as error:  # a damaged or foreign file fails in every way that a parser can
            if isinstance(error, EOFError) or "unexpected EOF" in str(error):
                raise _cut_off(self.path) from error
            unwanted = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
            raise _no_checkpoint(self.path, f"it holds a {unwanted[1]}" if unwanted else "") from error

    def metadata(self) -> dict[str, str]:
        """Returns the metadata of a safetensors file; none of any other. Raises InputError as `load`."""
        return (self._header() or {}).get("__metadata__", {})

    def _header(self) -> dict[str, Any] | None:
        """Returns the header of a safetensors file, None of another; raises InputError for no weights."""
        content = self.content
        length = int.from_bytes(content[:8], "little")
        if content[8:9] != b"{" or length > LONGEST_HEADER:
            return None
        text = content[8 : 8 + length]
        if len(text) < length:
            raise _cut_off(self.path)
        try:
            header = json.loads(text)
            ends = [int(each["data_offsets"][1]) for name, each in header.items() if name != "__metadata__"]
            metadata = header.get("__metadata__", {}).items()
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _no_checkpoint(self.path) from error
        if not all(isinstance(part, str) for pair in metadata for part in pair):
            raise _no_checkpoint(self.path)
        if 8 + length + max(ends, default=0) > len(content):
            raise _cut_off(self.path)
        return header


def read_weights_file(path: Path) -> WeightsFile:
    """Returns a file by `torch.save` or of safetensors, with all its bytes; its name does not matter.

    Raises InputError for a file that is missing, empty, too large, or a pointer of Git LFS.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {str(path)!r} is not a file that exists")
    try:
        with opened_regular(path, LARGEST_FILE) as file:
            content = file.read()
    except OSError as error:
        raise InputError(f"checkpoint {str(path)!r} cannot be read: {error.strerror}") from error
    if not content:
        raise InputError(f"checkpoint {str(path)!r} is empty")
    if content.startswith(LFS_POINTER):
        raise InputError(
            f"checkpoint {str(path)!r} is a pointer of Git LFS and no weights; fetch them by `git lfs pull`"
        )
    return WeightsFile(path, content)


def _cut_off(path: Path) -> InputError:
    return InputError(f"checkpoint {str(path)!r} is cut off: it ends before its weights do; copy or download it anew")


def _no_checkpoint(path: Path, why: str = "") -> InputError:
    return InputError(
        f"checkpoint {str(path)!r} is not a file of tensors{why and f', {why}'}; allowed: a state dict saved by "
        "torch.save or in a .safetensors file (pickled objects are never loaded)"
    )
