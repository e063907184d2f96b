"""Freed memory is kept for what comes next.

A shard allocates and frees arrays of about a megabyte all the while. Dask starts its workers with an environment in
which glibc gives each of them back to the system at once (`MALLOC_TRIM_THRESHOLD_`), and the system then zeroes its
pages again, one by one, at their next use: more work than decoding is.
"""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["raise_malloc_thresholds"]

# <malloc.h>: what is freed at the end of the heap goes back from so many bytes on; what is larger never comes from it.
M_TRIM_THRESHOLD, KEPT_BYTES = -1, 128 << 20
M_MMAP_THRESHOLD, LARGE_BYTES = -3, 32 << 20  # the most that glibc allows


@cache
def raise_malloc_thresholds() -> None:
    """Let this process keep up to 128 MB of freed memory. Nothing happens where the C library is not glibc."""
    setting = getattr(ctypes.CDLL(None), "mallopt", None)
    if setting is not None:
        setting(M_MMAP_THRESHOLD, LARGE_BYTES)
        setting(M_TRIM_THRESHOLD, KEPT_BYTES)
