"""Memory as the C library hands it out: what it keeps of freed memory, and the errors that say there is no more."""

import ctypes
import platform
from functools import cache

import torch

# Of glibc's mallopt(3).
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


@cache
def keep_freed_memory() -> bool:
    """Has the process keep freed memory for its next tensors from now on; returns whether the C library can.

    By default glibc maps every large buffer anew and gives it back when it is freed, and each page of it faults on
    first use. What a process holds resident then says less of what it needs, so nothing that measures resident memory
    should call this.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that there is no more memory: on the CPU that has no type of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # Torch's allocator; oneDNN, whose other refusals name what they could not create further; the C++ library.
    return "DefaultCPUAllocator" in str(error) or str(error) in ("could not create a primitive", "std::bad_alloc")
