"""The speculation policy: which of the last shards run too long and are started on a second worker.

A machine may be slow without being dead (a failing disk, a busy neighbor, a throttled core), and a task may get lost
between scheduler and worker. So the last shards of a run also run on another worker, like the backup tasks of MapReduce
(Dean and Ghemawat, 2004, section 3.6). The first commit wins, and the bytes are the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from audiopipe.types import Seconds

__all__ = ["SpeculationPolicy"]

SLOWDOWN = 2.0  # times the longest shard so far
MIN_OVERDUE_S = 20.0


@dataclass
class SpeculationPolicy:
    """Run times of shards. Time counts from when a thread became idle: before that a task may have been queued.

    Attributes:
        longest_s: longest run time of a shard so far; while it is 0, no shard is overdue.
    """

    longest_s: Seconds = 0.0
    _idle_since: float | None = None
    _started: dict[str, float] = field(default_factory=dict)

    def record(self, seconds: Seconds) -> None:
        """Note the run time of a finished shard."""
        self.longest_s = max(self.longest_s, seconds)

    def overdue(self, running: Iterable[str], idle: bool) -> list[str]:
        """Return the running shards that are overdue now.

        Args:
            idle: whether a worker thread has no task.
        """
        now = time.monotonic()
        self._idle_since = (self._idle_since or now) if idle else None
        self._started = {name: self._started.get(name, now) for name in running}
        if self._idle_since is None or not self.longest_s:
            return []
        limit = max(MIN_OVERDUE_S, SLOWDOWN * self.longest_s)
        return [name for name, started in self._started.items() if now - max(started, self._idle_since) > limit]
