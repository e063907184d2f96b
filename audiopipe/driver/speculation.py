"""When a shard is late: everything else is done, threads are idle, and it takes far longer than any other did.

A machine may be slow without being dead: a disk about to fail, a neighbour, a throttled core; and a task may be lost
between scheduler and worker. So the last shards of a run are tried on another worker as well, as backup tasks are in
MapReduce (Dean and Ghemawat, 2004, 3.6). The first commit wins, and the bytes are the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from audiopipe.types import Seconds

__all__ = ["SpeculationPolicy"]

PATIENCE = 2.0  # times the longest that any shard took
LEAST_S = 20.0


@dataclass
class SpeculationPolicy:
    """Who is late. Time is counted from when a thread became idle: until then a task may only have waited for one.

    Attributes:
        longest_s: that a shard took so far; without one nobody is late.
    """

    longest_s: Seconds = 0.0
    _idle_since: float | None = None
    _since: dict[str, float] = field(default_factory=dict)

    def record(self, seconds: Seconds) -> None:
        """Note how long a shard took."""
        self.longest_s = max(self.longest_s, seconds)

    def overdue(self, running: Iterable[str], idle: bool) -> list[str]:
        """Which of the shards under way are late just now; `idle` is whether there is a thread without work."""
        now = time.monotonic()
        self._idle_since = (self._idle_since or now) if idle else None
        self._since = {name: self._since.get(name, now) for name in running}
        if self._idle_since is None or not self.longest_s:
            return []
        limit = max(LEAST_S, PATIENCE * self.longest_s)
        return [name for name, since in self._since.items() if now - max(since, self._idle_since) > limit]
