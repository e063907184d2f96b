"""Sums over shards, for summaries, the dataset's description and reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from audiopipe.types import ShardResult

__all__ = ["Totals"]


@dataclass
class Totals:
    """Sums over shards."""

    shards: int = 0
    videos: int = 0
    videos_failed: int = 0
    segments: int = 0
    segments_kept: int = 0
    audio_s: float = 0.0
    kept_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0

    def __post_init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.stage_s: Counter[str] = Counter()

    @classmethod
    def of(cls, results: Iterable[ShardResult]) -> Totals:
        totals = cls()
        for result in results:
            totals.add(result)
        return totals

    def add(self, result: ShardResult) -> None:
        self.shards += 1
        for item in fields(self):
            if item.name != "shards":
                setattr(self, item.name, getattr(self, item.name) + getattr(result, item.name))
        self.drops.update(result.drops)
        self.errors.update(letter.error_type for letter in result.dead_letters)
        self.stage_s.update(result.stage_s)

    def counts(self) -> dict[str, Any]:
        """What depends on input and config alone: no timings."""
        return {
            "shards": self.shards,
            "videos": self.videos,
            "videos_failed": self.videos_failed,
            "errors": dict(sorted(self.errors.items())),
            "segments": self.segments,
            "segments_kept": self.segments_kept,
            "segments_dropped": dict(sorted(self.drops.items())),
            "hours": round(self.audio_s / 3600, 4),
            "hours_kept": round(self.kept_s / 3600, 4),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
