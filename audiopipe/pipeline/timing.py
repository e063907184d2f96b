"""What the stages of a shard cost and how full the queues between them are.

Items, seconds of work and of CPU by stage, added up over threads; the mean depth of each queue at the moments when
something is taken out of it: near zero means that what comes before is the bottleneck, a full one that what comes after
is.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["StageTimer"]

T = TypeVar("T")


class StageTimer:
    """A stop watch with a reading for each stage. A reading costs four clock calls and a lock."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._cpu_s: defaultdict[str, float] = defaultdict(float)
        self._items: defaultdict[str, int] = defaultdict(int)
        self._depths: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._lock = threading.Lock()
        self._started = time.perf_counter()

    @contextmanager
    def measure(self, stage: str, items: int = 1) -> Generator[None, None, None]:
        """Time what is done inside to so many items, by the clock and by this thread's use of a core."""
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
        """The items, with the time that each of them takes to come."""
        while True:
            with self.measure(stage):
                item = next(items, self)
            if item is self:
                with self._lock:
                    self._items[stage] -= 1  # the end is none
                return
            yield item  # type: ignore[misc]

    def add_cpu(self, stage: str, cpu_s: float) -> None:
        """Note what a process of its own took of a core."""
        with self._lock:
            self._cpu_s[stage] += cpu_s

    def record_depth(self, queue: str, depth: int) -> None:
        """Note that something was taken from a queue of `depth` items."""
        with self._lock:
            seen = self._depths[queue]
            seen[0] += depth
            seen[1] += 1

    @property
    def wall_s(self) -> float:
        return time.perf_counter() - self._started

    def seconds(self) -> dict[str, float]:
        """By the clock, rounded to a millisecond; for decoding and fetching, the wait for another process too."""
        return self._rounded(self._seconds)

    def cpu_seconds(self) -> dict[str, float]:
        """What was computed, in this process or a decoder's."""
        return self._rounded(self._cpu_s)

    def items(self) -> dict[str, int]:
        """How many came through, failed ones included."""
        with self._lock:
            return dict(sorted(self._items.items()))

    def _rounded(self, readings: dict[str, float]) -> dict[str, float]:
        with self._lock:
            return {stage: round(seconds, 3) for stage, seconds in sorted(readings.items())}

    def depths(self) -> dict[str, float]:
        """The mean number of items that waited in each queue when one was taken."""
        with self._lock:
            return {queue: round(total / count, 2) for queue, (total, count) in sorted(self._depths.items())}
