"""Share one memory budget among all shards that a worker process has in flight.

A shard reserves the most that its batches may hold, and waits for that before it starts. The rest is acquired piece by
piece for decoding ahead. Deadlock is impossible: a shard starts in any case while no other is in flight, and an empty
queue takes its next item in any case, so that the consumer that waits for this item gets it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache

__all__ = ["MemoryBudget", "get_worker_budget"]

Bytes = float


class MemoryBudget:
    """A number of bytes that threads share."""

    def __init__(self, limit: Bytes) -> None:
        self.limit = limit
        self._reserved = self._acquired = 0.0
        self._shards = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, size: Bytes) -> Generator[None, None, None]:
        """Reserve bytes for a shard; wait first while other shards have reserved too many."""
        with self._changed:
            self._changed.wait_for(lambda: not self._shards or self._reserved + size <= self.limit)
            self._shards, self._reserved = self._shards + 1, self._reserved + size
        try:
            yield
        finally:
            with self._changed:
                self._shards, self._reserved = self._shards - 1, self._reserved - size
                self._changed.notify_all()

    def acquire(self, size: Bytes, is_needed: Callable[[], bool]) -> None:
        """Take bytes until `release`; wait first until they are available or `is_needed` returns true.

        `is_needed` is evaluated when a reservation or an acquisition ends.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._reserved + self._acquired + size <= self.limit or is_needed())
            self._acquired += size

    def release(self, size: Bytes) -> None:
        """Return acquired bytes, or 0 bytes so that waiting threads evaluate `is_needed` again."""
        with self._changed:
            self._acquired -= size
            self._changed.notify_all()


@cache
def get_worker_budget(megabytes: int) -> MemoryBudget:
    """Return the budget of this process."""
    return MemoryBudget(megabytes * float(1 << 20))
