"""How fast a run goes, and when it will end, from the times at which its shards finished.

The rate is what finished within a sliding window, over the window's length. The window is the last ten minutes, or as
far back as it takes to hold `ENOUGH` shards, and never reaches before the start of the session. For a run that has
ended it is the whole last session.

The uncertainty of the ETA is a bootstrap over shards: pairs of (time since the shard before, videos) are drawn with
replacement, and the time that the remaining shards would take at the drawn pace gives the 10th and 90th percentile.
It knows what the window has seen: a language with longer videos to come is outside of it, and shards that finish in
waves make it too narrow by about the square root of the wave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from audiopipe.ledger.record import parse_utc
from audiopipe.ledger.rows import RunRow, ShardRow, ShardStatus
from audiopipe.types import Seconds

__all__ = ["MIN_SHARDS", "RECENT_SHARDS", "Eta", "Window", "estimate_eta", "select_window"]

WINDOW = timedelta(minutes=10)
MIN_SHARDS = 20  # shards that a window should hold for its rate to mean something
RECENT_SHARDS = 300  # shards that a reader fetches to look at rates; bounds the cost of a look
RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Window:
    """The shards that finished within the last `length_s` seconds, oldest first."""

    start: datetime
    end: datetime
    shards: tuple[ShardRow, ...]

    @property
    def length_s(self) -> Seconds:
        return (self.end - self.start).total_seconds()

    def videos_per_minute(self, language: str | None = None, worker_id: str | None = None) -> float:
        return 60 * self._per_second([shard.videos for shard in self._select(language, worker_id)])

    def segments_per_second(self, language: str | None = None, worker_id: str | None = None) -> float:
        return self._per_second([shard.segments for shard in self._select(language, worker_id)])

    def audio_per_second(self) -> float:
        """Seconds of audio per second: times real time."""
        return self._per_second([shard.audio_s for shard in self.shards])

    def _select(self, language: str | None, worker_id: str | None) -> list[ShardRow]:
        return [
            shard
            for shard in self.shards
            if language in (None, shard.language) and worker_id in (None, shard.worker_id)
        ]

    def _per_second(self, amounts: Sequence[float]) -> float:
        return sum(amounts) / self.length_s if self.length_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds until the end, with the 10th and 90th percentile where enough shards were seen."""

    seconds: Seconds
    low_s: Seconds | None = None
    high_s: Seconds | None = None


def select_window(run: RunRow, recent: Sequence[ShardRow], now: datetime) -> Window:
    """The window of a run at `now`; `recent` are its last finished shards in any order (see `RECENT`)."""
    end = parse_utc(run.completed_at) if run.completed_at else now
    session = parse_utc(run.resumed_at or run.started_at or end)
    done = [(when, shard) for when, shard in _finishes(recent) if session < when <= end]
    start = session
    if not run.completed_at and len(done) >= MIN_SHARDS:
        start = max(session, min(end - WINDOW, done[-MIN_SHARDS][0]))
    if done and len(recent) >= RECENT_SHARDS:
        # The list is cut off at its oldest shard, so nothing is known of the time before it.
        start = max(start, done[0][0])
    return Window(start, end, tuple(shard for when, shard in done if when > start))


def estimate_eta(window: Window, remaining_videos: int) -> Eta | None:
    """When the remaining videos will be done at the window's pace; None while nothing has finished in it."""
    rate = window.videos_per_minute() / 60
    if remaining_videos <= 0:
        return Eta(0.0, 0.0, 0.0)
    if rate <= 0:
        return None
    expected = remaining_videos / rate
    if len(window.shards) < MIN_SHARDS // 2:
        return Eta(expected)
    low, high = np.percentile(_bootstrap_etas(window, remaining_videos), [10, 90])
    return Eta(expected, min(float(low), expected), max(float(high), expected))


def _bootstrap_etas(window: Window, remaining_videos: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """ETAs in seconds at the paces of `DRAWS` resampled windows, each with a resampled future."""
    finishes = [parse_utc(shard.finished_at).timestamp() for shard in window.shards if shard.finished_at]
    gaps = np.diff([window.start.timestamp(), *finishes])
    videos = np.array([shard.videos for shard in window.shards], dtype=np.float64)
    # The wait since the last finish belongs to every draw: a stalled run must not look fast.
    waiting = window.end.timestamp() - finishes[-1]
    # A fixed seed: the same ledger shows the same range each time it is looked at.
    picks = np.random.default_rng(0).integers(0, len(videos), (RESAMPLES, len(videos)))
    pace = (gaps[picks].sum(axis=1) + waiting) / np.maximum(videos[picks].sum(axis=1), 1.0)
    # What is left is itself a sum of so many random shards; its spread shrinks with their number.
    shards_left = max(1.0, remaining_videos / max(videos.mean(), 1.0))
    spread = gaps.std() / max(gaps.mean(), 1e-9) / np.sqrt(shards_left)
    luck = np.random.default_rng(1).normal(1.0, spread, RESAMPLES).clip(0.0)
    drawn: np.ndarray[tuple[int], np.dtype[np.float64]] = remaining_videos * pace * luck
    return drawn


def _finishes(shards: Sequence[ShardRow]) -> list[tuple[datetime, ShardRow]]:
    done = [shard for shard in shards if shard.status is ShardStatus.DONE and shard.finished_at]
    return sorted(((parse_utc(shard.finished_at or ""), shard) for shard in done), key=lambda finish: finish[0])
