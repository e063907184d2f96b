"""Seconds of work by stage, added up over threads. A reading costs two clock calls and a lock."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["Stages"]

T = TypeVar("T")


class Stages:
    """A stop watch with a reading for each stage."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._started = time.perf_counter()

    def add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._seconds[stage] += seconds

    @contextmanager
    def timed(self, stage: str) -> Generator[None, None, None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def each(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """The items, with the time that each of them takes to come."""
        while True:
            with self.timed(stage):
                item = next(items, self)
            if item is self:
                return
            yield item  # type: ignore[misc]

    @property
    def wall_s(self) -> float:
        return time.perf_counter() - self._started

    def seconds(self) -> dict[str, float]:
        """Rounded to a millisecond."""
        with self._lock:
            return {stage: round(seconds, 3) for stage, seconds in sorted(self._seconds.items())}
