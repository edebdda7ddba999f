"""Memory as the C library hands it out: what it keeps of freed memory, and the errors that say there is no more."""

import ctypes
import platform
from functools import cache

import torch

# Of glibc's mallopt(3).
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_MMAP_MAX = -4

_SMALLEST_MAPPED = 2**14
"""Bytes: 4 pages, so that all but a model's smallest tensors are above it."""


@cache
def keep_freed_memory() -> bool:
    """Has the process keep freed memory for its next tensors from now on; returns whether the C library can.

    By default glibc maps every large buffer anew and gives it back when it is freed, and each page of it faults on
    first use. What a process holds resident then says less of what it needs, so nothing that measures resident memory
    should call this.
    """
    library = _glibc()
    return library is not None and bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> None:
    """Gives freed memory back to the system, now and from now on, where the C library can."""
    if library := _glibc():
        library.mallopt(_MMAP_THRESHOLD, _SMALLEST_MAPPED)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Returns the C library; None where it is another than glibc."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that there is no more memory: on the CPU that has no type of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # Torch's allocator; oneDNN, whose other refusals name what they could not create further; the C++ library.
    return "DefaultCPUAllocator" in str(error) or str(error) in ("could not create a primitive", "std::bad_alloc")
