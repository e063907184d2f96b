"""Verify the shards of an output on several threads, in the order of the plan.

Reading and hashing release Python's lock, so threads suffice. A thread holds one block of a tar at a time.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from audiopipe.dataset.check import check_shard
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.findings import Finding, resume_command
from audiopipe.dataset.run_record import RunRecord
from audiopipe.dataset.select_lists import read_planned_videos
from audiopipe.dataset.verify_journal import JournalEntry, VerifyJournal
from audiopipe.store.objects import Store
from audiopipe.types import Shard

__all__ = ["ShardReport", "ShardVerifier", "choose_sample", "upper_bound"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ShardReport:
    """The findings of a shard, and how many of its objects and samples were read. `is_known`: by an earlier process."""

    shard: str
    objects: int
    samples: int
    findings: tuple[Finding, ...]
    is_known: bool = False


@dataclass(frozen=True)
class ShardVerifier:
    """Verifies shards against their commits.

    Attributes:
        present: the sizes of all objects of the output by name.
        fast: compare names and sizes only.
    """

    store: Store
    run: RunRecord
    commits: Mapping[str, Commit]
    present: Mapping[str, int]
    fast: bool
    journal: VerifyJournal

    def verify(self, shards: Sequence[Shard], threads: int) -> Iterator[ShardReport]:
        """Yield the report of each shard in this order; shards of the journal are not read again."""
        known = self.journal.read(self.commits)
        with ThreadPoolExecutor(threads, "verify") as pool:
            ahead: deque[Future[ShardReport]] = deque()
            try:
                for shard in shards:
                    ahead.append(pool.submit(self._verify_once, shard, known.get(shard.name)))
                    if len(ahead) > 2 * threads:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _planned_videos(self, shard: Shard) -> list[tuple[str, str]]:
        """Return id and address of the videos that a shard must have; a selection has a list of them."""
        if self.run.parent is not None:
            return read_planned_videos(self.store, shard)
        return [(video.video_id, video.shown_uri) for video in shard.videos]

    def _verify_once(self, shard: Shard, known: JournalEntry | None) -> ShardReport:
        """Verify a shard, unless the journal knows it and its objects still have their sizes."""
        if known is not None and not self._compare_sizes(shard):
            return ShardReport(shard.name, known.objects, known.samples, (), is_known=True)
        return self._verify(shard)

    def _verify(self, shard: Shard) -> ShardReport:
        commit, remedy = self.commits.get(shard.name), resume_command(self.store.url, shard.name)
        if commit is None:
            missing = Finding(shard.name, "is planned but not committed", resume_command(self.store.url))
            return ShardReport(shard.name, 0, 0, (missing,))
        findings, samples = self._compare_sizes(shard), 0
        if commit.config_digest != self.run.config_digest:
            findings.insert(0, Finding(shard.name, "was made with another config than the run's", remedy))
        if not self.fast and not any(finding.name != shard.name for finding in findings):
            check = check_shard(self.store, shard, commit, self.run.audio_format, self._planned_videos(shard))
            findings += [Finding(name, problem, remedy) for name, problem in check.damaged.items()]
            findings += [Finding(shard.name, problem, remedy) for problem in check.problems]
            samples = 0 if check.damaged else commit.result.segments_kept
        if not findings and not self.fast:
            self.journal.record(JournalEntry(shard.name, commit.result.attempt, len(commit.objects), samples))
        return ShardReport(shard.name, len(commit.objects), samples, tuple(findings))

    def _compare_sizes(self, shard: Shard) -> list[Finding]:
        """Compare the listing with the commit."""
        findings, remedy = [], resume_command(self.store.url, shard.name)
        for item in self.commits[shard.name].objects:
            size = self.present.get(item.name)
            if size is None:
                findings.append(Finding(item.name, "is committed but missing", remedy))
            elif size != item.size:
                findings.append(Finding(item.name, f"has {size} bytes, not the {item.size} committed", remedy))
        return findings


def choose_sample(shards: Sequence[Shard], count: int, seed: int) -> list[Shard]:
    """Choose shards at random, each with the same probability; return them in the order of the plan."""
    chosen = random.Random(seed).sample(range(len(shards)), min(count, len(shards)))
    return [shards[number] for number in sorted(chosen)]


def upper_bound(bad: int, checked: int, confidence: float = CONFIDENCE) -> float:
    """Return the largest share of bad shards with which `bad` or fewer of `checked` is as likely as 1 - confidence.

    This is the one-sided bound of Clopper and Pearson (1934), for a sample that is small compared with the whole.
    """
    if bad >= checked:
        return 1.0
    low, high = bad / checked, 1.0
    for _ in range(60):
        share = (low + high) / 2
        low, high = (share, high) if _chance(bad, checked, share) > 1 - confidence else (low, share)
    return high


def _chance(bad: int, checked: int, share: float) -> float:
    """Return the probability of at most `bad` successes in `checked` trials."""
    if share >= 1.0:
        return 0.0
    return math.fsum(
        math.exp(
            math.lgamma(checked + 1)
            - math.lgamma(k + 1)
            - math.lgamma(checked - k + 1)
            + (k * math.log(share) if k else 0.0)
            + (checked - k) * math.log1p(-share)
        )
        for k in range(bad + 1)
    )
