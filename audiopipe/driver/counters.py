"""Count the results of a session by worker, so that a heartbeat costs the same however many shards are done."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from audiopipe.types import ShardResult

__all__ = ["RATE_WINDOW", "Counter", "SessionCounters"]

RATE_WINDOW = timedelta(minutes=10)


class RecentResult(NamedTuple):
    """The times of a processed shard, and its videos and segments."""

    started: datetime
    finished: datetime
    videos: int
    segments: int


@dataclass
class Counter:
    """Totals over results, and the results of the last `RATE_WINDOW`."""

    videos: int = 0
    segments: int = 0
    dropped: int = 0
    _recent: list[RecentResult] = field(default_factory=list)

    def add(self, result: ShardResult) -> None:
        """Count a result."""
        self.videos += result.videos
        self.segments += result.segments
        self.dropped += result.segments - result.segments_kept
        times = datetime.fromisoformat(result.started_at), datetime.fromisoformat(result.finished_at)
        self._recent.append(RecentResult(*times, result.videos, result.segments))

    def rates(self, now: datetime) -> tuple[float, float]:
        """Return videos per minute and segments per second since the first start of a recent result, but at most of
        the window; forget older results.
        """
        self._recent = [result for result in self._recent if now - result.finished < RATE_WINDOW]
        first = min((result.started for result in self._recent), default=now)
        seconds = max((now - max(first, now - RATE_WINDOW)).total_seconds(), 1.0)
        videos = sum(result.videos for result in self._recent)
        return videos / seconds * 60, sum(result.segments for result in self._recent) / seconds


@dataclass
class SessionCounters:
    """The counters of a session, together and by worker."""

    total: Counter = field(default_factory=Counter)
    _workers: dict[str, Counter] = field(default_factory=dict)

    def add(self, result: ShardResult) -> None:
        """Count a result of this session."""
        self.total.add(result)
        self._workers.setdefault(result.worker, Counter()).add(result)

    def of(self, worker_id: str) -> Counter:
        """Return the counter of a worker."""
        return self._workers.get(worker_id) or Counter()
