"""Files of weights as they come: which kind of file it is, seen from its content, and what it holds.

Nothing but tensors and plain values is ever unpickled: other people's training code keeps its arguments and statistics
beside the weights, and of these the harmless kinds are let through.
"""

import argparse
import json
import pathlib
import re
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from ablations.errors import InputError

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


def read_weights_file(path: Path) -> Any:
    """Returns what a file by `torch.save` or of safetensors holds, on the CPU; its name does not matter.

    Raises InputError for a file that is missing, empty, cut off, a pointer of Git LFS, or none of tensors.
    """
    if not path.is_file():
        raise InputError(f"checkpoint {str(path)!r} is not a file that exists")
    try:
        if _header(path) is not None:
            return safetensors.torch.load_file(path)
        if _begins_with(path, ZIP) and not zipfile.is_zipfile(path):
            raise _cut_off(path)
        # Of a path torch would look at the suffix.
        with path.open("rb") as file, torch.serialization.safe_globals(HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"checkpoint {str(path)!r} cannot be read: {error.strerror}") from error
    except Exception as error:  # a damaged or foreign file fails in every way that a parser can
        if isinstance(error, EOFError) or "unexpected EOF" in str(error):
            raise _cut_off(path) from error
        unwanted = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        raise _no_checkpoint(path, f"it holds a {unwanted[1]}" if unwanted else "") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a safetensors file; none of any other. Raises InputError as `read_weights_file`."""
    if not path.is_file() or _header(path) is None:
        return {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise _no_checkpoint(path) from error


def _header(path: Path) -> dict[str, Any] | None:
    """Returns the header of a safetensors file, None of another; raises InputError for no weights."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(max(9, len(LFS_POINTER)))
        if not start:
            raise InputError(f"checkpoint {str(path)!r} is empty")
        if start == LFS_POINTER:
            raise InputError(
                f"checkpoint {str(path)!r} is a pointer of Git LFS and no weights; fetch them by `git lfs pull`"
            )
        length = int.from_bytes(start[:8], "little")
        if start[8:9] != b"{" or length > LONGEST_HEADER:
            return None
        file.seek(8)
        text = file.read(length)
    if len(text) < length:
        raise _cut_off(path)
    try:
        header = json.loads(text)
        ends = [int(each["data_offsets"][1]) for name, each in header.items() if name != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _no_checkpoint(path) from error
    if 8 + length + max(ends, default=0) > size:
        raise _cut_off(path)
    return header


def _begins_with(path: Path, content: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(content)) == content


def _cut_off(path: Path) -> InputError:
    return InputError(f"checkpoint {str(path)!r} is cut off: it ends before its weights do; copy or download it anew")


def _no_checkpoint(path: Path, why: str = "") -> InputError:
    return InputError(
        f"checkpoint {str(path)!r} is not a file of tensors{why and f', {why}'}; allowed: a state dict saved by "
        "torch.save or in a .safetensors file (pickled objects are never loaded)"
    )
