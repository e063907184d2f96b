"""The speculation policy: which of the last shards run too long and are started on a second worker.

A machine may be slow without being dead (a failing disk, a busy neighbor, a throttled core), and a task may get lost
between scheduler and worker. So the last shards of a run also run on another worker, like the backup tasks of MapReduce
(Dean and Ghemawat, 2004, section 3.6). The first commit wins, and the bytes are the same. A shard that is slow because
it holds more than the others is not started twice: it would be as slow again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from audiopipe.types import Seconds, Shard

__all__ = ["SpeculationPolicy"]

SLOWDOWN = 2.0  # times the longest time that a shard of its size is expected to take
MIN_OVERDUE_S = 20.0


@dataclass
class SpeculationPolicy:
    """Run times of shards. Time counts from when a thread became idle: before that a task may have been queued.

    Attributes:
        longest_s: longest run time of a shard so far; while it is 0, no shard is overdue.
        s_per_byte, s_per_audio_s: slowest rates of a shard so far, by the sizes and durations of the catalog.
    """

    longest_s: Seconds = 0.0
    s_per_byte: float = 0.0
    s_per_audio_s: float = 0.0
    _idle_since: float | None = None
    _started: dict[str, float] = field(default_factory=dict)

    def record(self, seconds: Seconds, size_bytes: int, audio_s: Seconds) -> None:
        """Note the run time of a finished shard, whose sizes are those of the catalog; 0 if they are unknown."""
        self.longest_s = max(self.longest_s, seconds)
        if size_bytes:
            self.s_per_byte = max(self.s_per_byte, seconds / size_bytes)
        if audio_s:
            self.s_per_audio_s = max(self.s_per_audio_s, seconds / audio_s)

    def expected_s(self, shard: Shard) -> Seconds:
        """Return the longest run time that the finished shards let expect of a shard."""
        return max(self.longest_s, self.s_per_byte * _total_bytes(shard), self.s_per_audio_s * _total_audio_s(shard))

    def overdue(self, running: Iterable[Shard], idle: bool) -> list[str]:
        """Return the names of the running shards that are overdue now.

        Args:
            idle: whether a worker thread has no task.
        """
        now = time.monotonic()
        shards = {shard.name: shard for shard in running}
        self._idle_since = (self._idle_since or now) if idle else None
        self._started = {name: self._started.get(name, now) for name in shards}
        if self._idle_since is None or not self.longest_s:
            return []
        return [
            name
            for name, started in self._started.items()
            if now - max(started, self._idle_since) > max(MIN_OVERDUE_S, SLOWDOWN * self.expected_s(shards[name]))
        ]


def _total_bytes(shard: Shard) -> int:
    return sum(video.size_bytes or 0 for video in shard.videos)


def _total_audio_s(shard: Shard) -> Seconds:
    return sum(video.duration_s or 0.0 for video in shard.videos)
