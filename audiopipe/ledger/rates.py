"""Estimate the speed of a run and the time until its end, from the times at which its shards finished.

The rate is the amount that finished within a sliding window, divided by the window's length. The window is the last ten
minutes, or longer until it holds `MIN_SHARDS` shards, and never starts before the session. For a run that has ended it
is the whole last session.

The uncertainty of the ETA is a bootstrap over shards: pairs of (time since the previous shard, videos) are drawn with
replacement, and the time that the remaining shards would take at the drawn pace gives the 10th and 90th percentile.
It covers what the window contains: it does not foresee a language with longer videos, and shards that finish in waves
make it too narrow, by about the square root of a wave's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from audiopipe.ledger.record import parse_utc
from audiopipe.ledger.rows import RunRow, ShardRow, ShardStatus
from audiopipe.types import Seconds

__all__ = ["MIN_SHARDS", "RECENT_SHARDS", "Eta", "Window", "estimate_eta", "measure_busy_time", "select_window"]

WINDOW = timedelta(minutes=10)
MIN_SHARDS = 20  # shards that a window needs for a meaningful rate
RECENT_SHARDS = 300  # shards that a reader fetches for rates; this bounds the cost of a snapshot
RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Window:
    """The shards that finished between `start` and `end`, oldest first."""

    start: datetime
    end: datetime
    shards: tuple[ShardRow, ...]

    @property
    def length_s(self) -> Seconds:
        """Return the length of the window."""
        return (self.end - self.start).total_seconds()

    def videos_per_minute(self, language: str | None = None, worker_id: str | None = None) -> float:
        """Return the rate of videos, of one language or worker if given."""
        return 60 * self._per_second([shard.videos for shard in self._select(language, worker_id)])

    def segments_per_second(self, language: str | None = None, worker_id: str | None = None) -> float:
        """Return the rate of segments, of one language or worker if given."""
        return self._per_second([shard.segments for shard in self._select(language, worker_id)])

    def audio_per_second(self) -> float:
        """Return seconds of audio per second, the factor of real time."""
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
    """Seconds until the end, with the 10th and 90th percentile if the window has enough shards for them."""

    seconds: Seconds
    low_s: Seconds | None = None
    high_s: Seconds | None = None


def measure_busy_time(spans: Iterable[tuple[str | None, str | None]]) -> Seconds:
    """Return the seconds in which at least one shard was being processed; pauses between sessions do not count.

    Args:
        spans: when each shard started and finished; those of which one is unknown do not count.
    """
    # In the precision of the ledger, so that commits give the same time.
    ordered = sorted((_to_ms(start), _to_ms(end)) for start, end in spans if start and end)
    busy, covered_until = timedelta(), ordered[0][0] if ordered else None
    for start, end in ordered:
        assert covered_until is not None
        busy += max(end - max(start, covered_until), timedelta())
        covered_until = max(covered_until, end)
    return busy.total_seconds()


def _to_ms(moment: str) -> datetime:
    parsed = parse_utc(moment)
    return parsed.replace(microsecond=parsed.microsecond // 1000 * 1000)


def select_window(run: RunRow, recent: Sequence[ShardRow], now: datetime) -> Window:
    """Select the window of a run at `now`; `recent` are its last finished shards in any order (see `RECENT_SHARDS`)."""
    end = parse_utc(run.completed_at) if run.completed_at else now
    session_start = parse_utc(run.resumed_at or run.started_at or end)
    finishes = [(moment, shard) for moment, shard in _sorted_finishes(recent) if session_start < moment <= end]
    start = session_start
    if not run.completed_at and len(finishes) >= MIN_SHARDS:
        start = max(session_start, min(end - WINDOW, finishes[-MIN_SHARDS][0]))
    if finishes and len(recent) >= RECENT_SHARDS:
        # The list is truncated at its oldest shard, so shards before it are unknown.
        start = max(start, finishes[0][0])
    return Window(start, end, tuple(shard for moment, shard in finishes if moment > start))


def estimate_eta(window: Window, remaining_videos: int) -> Eta | None:
    """Estimate the time for the remaining videos at the window's pace; None if no video finished in the window."""
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
    """Return ETAs in seconds at the paces of `RESAMPLES` resampled windows, each with a resampled future."""
    finishes = [parse_utc(shard.finished_at).timestamp() for shard in window.shards if shard.finished_at]
    gaps = np.diff([window.start.timestamp(), *finishes])
    videos = np.array([shard.videos for shard in window.shards], dtype=np.float64)
    # The time since the last finish is part of every sample: a stalled run must not look fast.
    idle_s = window.end.timestamp() - finishes[-1]
    # A fixed seed, so that two snapshots of the same ledger show the same range.
    indices = np.random.default_rng(0).integers(0, len(videos), (RESAMPLES, len(videos)))
    pace = (gaps[indices].sum(axis=1) + idle_s) / np.maximum(videos[indices].sum(axis=1), 1.0)
    # The remaining time is itself a sum over random shards; its relative spread shrinks with their number.
    shards_left = max(1.0, remaining_videos / max(videos.mean(), 1.0))
    spread = gaps.std() / max(gaps.mean(), 1e-9) / np.sqrt(shards_left)
    variation = np.random.default_rng(1).normal(1.0, spread, RESAMPLES).clip(0.0)
    etas: np.ndarray[tuple[int], np.dtype[np.float64]] = remaining_videos * pace * variation
    return etas


def _sorted_finishes(shards: Sequence[ShardRow]) -> list[tuple[datetime, ShardRow]]:
    finishes = [
        (parse_utc(shard.finished_at), shard)
        for shard in shards
        if shard.status is ShardStatus.DONE and shard.finished_at
    ]
    return sorted(finishes, key=lambda finish: finish[0])
