"""One budget of memory for all shards that a worker process has under way.

A shard reserves what its batches may hold at the utmost, and waits for that before it begins; what is left is lent to
whoever decodes ahead. Nobody waits for ever: a shard begins in any case while no other is under way, and a queue that
is empty takes its next item in any case, so that whoever waits for just that item gets it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache

__all__ = ["MemoryBudget", "worker_budget"]

Bytes = float


class MemoryBudget:
    """Bytes shared by threads."""

    def __init__(self, limit: Bytes) -> None:
        self.limit = limit
        self._reserved = self._lent = 0.0
        self._shards = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, size_bytes: Bytes) -> Generator[None, None, None]:
        """Keep so much for a shard while inside; waits for shards that hold too much of it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._shards or self._reserved + size_bytes <= self.limit)
            self._shards, self._reserved = self._shards + 1, self._reserved + size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._shards, self._reserved = self._shards - 1, self._reserved - size_bytes
                self._changed.notify_all()

    def acquire(self, size: Bytes, needed: Callable[[], bool]) -> None:
        """Wait until there is so much left over, or it is needed at once; then it is lent, until `give_back`."""
        with self._changed:
            self._changed.wait_for(lambda: self._reserved + self._lent + size <= self.limit or needed())
            self._lent += size

    def release(self, size: Bytes) -> None:
        """What was lent is free again; also looks again at who waits for what is needed at once."""
        with self._changed:
            self._lent -= size
            self._changed.notify_all()


@cache
def worker_budget(megabytes: int) -> MemoryBudget:
    """The one of this process."""
    return MemoryBudget(megabytes * float(1 << 20))
