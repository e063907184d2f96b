"""Measure what the stages of a shard cost and how full the queues between them are.

Items, seconds of work and of CPU are summed over threads by stage. For each queue there is the mean number of items at
the times when one is taken: near zero, the stage before the queue is the bottleneck; near its limit, the one after it.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from audiopipe.types import Seconds

__all__ = ["StageTimer"]

T = TypeVar("T")


class StageTimer:
    """Sums up time and items by stage. A measurement costs four clock calls and a lock."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, Seconds] = defaultdict(float)
        self._cpu_s: defaultdict[str, Seconds] = defaultdict(float)
        self._items: defaultdict[str, int] = defaultdict(int)
        self._depth_sums: defaultdict[str, int] = defaultdict(int)
        self._depth_counts: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._started = time.perf_counter()

    @contextmanager
    def measure(self, stage: str, items: int = 1) -> Generator[None, None, None]:
        """Measure the work on some items, by the clock and by this thread's CPU time."""
        started, cpu_started = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            seconds, cpu_s = time.perf_counter() - started, time.thread_time() - cpu_started
            with self._lock:
                self._seconds[stage] += seconds
                self._cpu_s[stage] += cpu_s
                self._items[stage] += items

    def iterate(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """Yield the items and measure the time until each of them arrives."""
        while True:
            with self.measure(stage):
                item = next(items, self)
            if item is self:
                with self._lock:
                    self._items[stage] -= 1  # the end is not an item
                return
            yield item  # type: ignore[misc]

    def add_cpu(self, stage: str, cpu_s: Seconds) -> None:
        """Add the CPU time of another process."""
        with self._lock:
            self._cpu_s[stage] += cpu_s

    def record_depth(self, queue: str, depth: int) -> None:
        """Record how many items a queue holds when one is taken."""
        with self._lock:
            self._depth_sums[queue] += depth
            self._depth_counts[queue] += 1

    @property
    def wall_s(self) -> Seconds:
        """The time since the timer was created."""
        return time.perf_counter() - self._started

    def seconds(self) -> dict[str, Seconds]:
        """Return the time by stage, rounded to a millisecond, including the wait for the network or a decoder."""
        return self._rounded(self._seconds)

    def cpu_seconds(self) -> dict[str, Seconds]:
        """Return the CPU time by stage, of this process and its decoders."""
        return self._rounded(self._cpu_s)

    def items(self) -> dict[str, int]:
        """Return the number of items by stage, failed ones included."""
        with self._lock:
            return dict(sorted(self._items.items()))

    def _rounded(self, sums: dict[str, Seconds]) -> dict[str, Seconds]:
        with self._lock:
            return {stage: round(seconds, 3) for stage, seconds in sorted(sums.items())}

    def depths(self) -> dict[str, float]:
        """Return the mean number of items that waited in each queue when one was taken."""
        with self._lock:
            return {
                queue: round(total / self._depth_counts[queue], 2) for queue, total in sorted(self._depth_sums.items())
            }
