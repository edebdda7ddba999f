"""How the C library hands freed memory back, which decides how much of a step on the CPU is page faults."""

import ctypes
import platform
from functools import cache

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
