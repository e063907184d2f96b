"""Count the results of a session by worker, so that a heartbeat costs the same however many shards are done."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from audiopipe.types import ShardResult

__all__ = ["RATE_WINDOW", "Counter", "SessionCounters"]

RATE_WINDOW = timedelta(minutes=10)


@dataclass
class Counter:
    """Totals over results, and sums over those of the last `RATE_WINDOW`.

    A result is added and removed once, so that each of them costs constant time.

    Attributes:
        videos, segments, dropped: of all results.
        recent_videos, recent_segments: of the recent ones.
    """

    videos: int = 0
    segments: int = 0
    dropped: int = 0
    recent_videos: int = 0
    recent_segments: int = 0
    _recent: deque[tuple[datetime, int, int]] = field(default_factory=deque)  # finish, videos, segments
    _removed: int = 0
    # Starts that no later result precedes, with the number of their result: the first is the earliest recent one.
    _starts: deque[tuple[datetime, int]] = field(default_factory=deque)

    def add(self, result: ShardResult) -> None:
        """Count a result."""
        self.videos += result.videos
        self.segments += result.segments
        self.dropped += result.segments - result.segments_kept
        self.recent_videos += result.videos
        self.recent_segments += result.segments
        started = datetime.fromisoformat(result.started_at)
        while self._starts and self._starts[-1][0] >= started:
            self._starts.pop()
        self._starts.append((started, self._removed + len(self._recent)))
        self._recent.append((datetime.fromisoformat(result.finished_at), result.videos, result.segments))

    def minutes(self, now: datetime) -> float:
        """Return the minutes that the recent sums are of: since the first start of a recent result, at most the window.

        Results that are no longer recent are removed from the sums.
        """
        while self._recent and now - self._recent[0][0] >= RATE_WINDOW:
            _, videos, segments = self._recent.popleft()
            self.recent_videos -= videos
            self.recent_segments -= segments
            self._removed += 1
        while self._starts and self._starts[0][1] < self._removed:
            self._starts.popleft()
        first = self._starts[0][0] if self._starts else now
        return max((now - max(first, now - RATE_WINDOW)).total_seconds() / 60, 1 / 60)


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
