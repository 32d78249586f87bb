"""The memory that this process has freed: kept for the next step, or given back (glibc; elsewhere nothing happens)."""

import ctypes
import platform
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # <malloc.h>
STEP = 64 * 2**20  # bytes that the heap grows by


@cache
def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for good; return whether the C library can.

    By default glibc asks the kernel for every block above 32 MB, the size of a large activation, and gives it back at
    once, in every layer of every step. The kernel fills each with zeros, which takes up to half of the time of
    training and of embedding (docs/training.md).
    """
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, STEP))
    return _glibc() and all(ctypes.CDLL(None).mallopt(name, value) == 1 for name, value in settings)


def give_back_freed_memory() -> None:
    """Give what is freed now back to the kernel, so that it is not counted as this process's."""
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


@cache
def _glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
