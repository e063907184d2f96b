"""Let the C library keep freed memory for the next allocations.

A shard allocates and frees arrays of about a megabyte all the time. Dask starts its workers with an environment in
which glibc returns each of them to the system at once (`MALLOC_TRIM_THRESHOLD_`). The system then zeroes the pages
again, one by one, at their next use, which takes more time than decoding.
"""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["raise_malloc_thresholds"]

# <malloc.h>: free memory at the end of the heap above the first threshold is returned to the system; allocations above
# the second do not come from the heap.
M_TRIM_THRESHOLD, MAX_KEPT_BYTES = -1, 128 << 20
M_MMAP_THRESHOLD, MAX_HEAP_BYTES = -3, 32 << 20  # the most that glibc allows


@cache
def raise_malloc_thresholds() -> None:
    """Let this process keep up to 128 MB of freed memory. Do nothing if the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAX_HEAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, MAX_KEPT_BYTES)
