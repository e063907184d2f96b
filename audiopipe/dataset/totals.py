"""Sum up the results of shards, for summaries, the dataset's description and reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.dataset.commit import Commit
from audiopipe.ledger.rates import measure_busy_time
from audiopipe.plan.plan import Plan
from audiopipe.types import ShardResult, shard_name

__all__ = ["Totals", "effective_result", "effective_results"]


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
        self.stage_items: Counter[str] = Counter()
        self.spans: list[tuple[str, str]] = []

    @property
    def videos_done(self) -> int:
        """The videos that did not fail."""
        return self.videos - self.videos_failed

    @property
    def busy_s(self) -> float:
        """The seconds in which at least one of the shards was being processed."""
        return measure_busy_time(self.spans)

    @classmethod
    def of(cls, results: Iterable[ShardResult]) -> Totals:
        """Sum up results."""
        totals = cls()
        for result in results:
            totals.add(result)
        return totals

    def add(self, result: ShardResult) -> None:
        """Add a shard's result."""
        self.shards += 1
        for item in fields(self):
            if item.name != "shards":
                setattr(self, item.name, getattr(self, item.name) + getattr(result, item.name))
        self.drops.update(result.drops)
        self.errors.update(letter.error_type for letter in result.dead_letters)
        self.stage_s.update(result.stage_s)
        self.stage_items.update(result.stage_items)
        self.spans.append((result.started_at, result.finished_at))

    def counts(self) -> dict[str, int | float | dict[str, int]]:
        """Return the sums that depend on input and config alone: no timings. The values can be written as JSON."""
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


def effective_results(commits: Mapping[str, Commit], plan: Plan) -> dict[str, ShardResult]:
    """Return the results by shard, without the dead letters that a later generation of the plan has planned again.

    So a video counts in its last shard only: once, with its last outcome, and not at all while that shard is to be
    processed. A commit of no planned shard does not count.
    """
    planned = plan.shard_names()
    results = [commit.result for shard, commit in commits.items() if shard in planned]
    last = _last_shards(results, plan)
    return {result.shard: _without_retried(result, last) for result in results}


def effective_result(result: ShardResult, plan: Plan) -> ShardResult:
    """Return a planned shard's result without the dead letters that the plan has in a later shard."""
    return _without_retried(result, _last_shards([result], plan))


def _last_shards(results: Iterable[ShardResult], plan: Plan) -> dict[tuple[str, str], str]:
    """Find the last shard that the plan has for each dead letter's (language, video)."""
    dead: dict[str, set[str]] = {}
    for result in results:
        for letter in result.dead_letters:
            dead.setdefault(result.language, set()).add(letter.video_id)
    last = {}
    for language, ids in dead.items():
        table = plan.tables[language].select(["shard", "video_id"])
        rows = table.filter(pc.is_in(table["video_id"], pa.array(sorted(ids)))).sort_by("shard")
        for shard, video_id in zip(rows["shard"].to_pylist(), rows["video_id"].to_pylist(), strict=True):
            last[language, video_id] = shard_name(language, shard)
    return last


def _without_retried(result: ShardResult, last: Mapping[tuple[str, str], str]) -> ShardResult:
    letters = tuple(
        letter
        for letter in result.dead_letters
        if last.get((result.language, letter.video_id), result.shard) == result.shard
    )
    retried = len(result.dead_letters) - len(letters)
    return replace(
        result, videos=result.videos - retried, videos_failed=result.videos_failed - retried, dead_letters=letters
    )
