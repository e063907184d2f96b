"""What the quality report reads of an output: exact totals from its commits, and segments, all or a sample of shards.

Everything comes from the output itself, at any URL; no ledger and no audio is needed. Memory is bounded: the sums are
of the commits, and of the segments at most about `max_segments` are held, in whole shards drawn at random, of each
language in proportion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from audiopipe.dataset.commit import Commit, read_commits
from audiopipe.dataset.run_record import RunRecord, read_run_record
from audiopipe.dataset.totals import Totals, effective_results
from audiopipe.errors import ConfigError
from audiopipe.kernels import METRICS
from audiopipe.pipeline.score import RULES
from audiopipe.plan.plan import load
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table
from audiopipe.types import DeadLetter, ShardResult

__all__ = ["PARAMETERS", "DatasetTables", "Rule", "read_dataset"]

PARAMETERS = ("output", "language", "examples_per_kind", "max_segments", "seed", "compare_with")
COLUMNS = (
    *(
        "key",
        "video_id",
        "language",
        "shard",
        "segment",
        "start_s",
        "end_s",
        "duration_s",
        "text",
        "kept",
        "drop_reason",
    ),
    *METRICS,
    *("audio_bytes", "source_uri"),
)


@dataclass(frozen=True)
class Rule:
    """A threshold of the run: which metric, which side of `limit` is dropped, and under what name."""

    reason: str
    metric: str
    field: str
    limit: float
    below: bool

    def distance(self, values: pd.Series[float]) -> pd.Series[float]:
        """How far inside the limit the values are; negative is outside."""
        return values - self.limit if self.below else self.limit - values


@dataclass(frozen=True)
class DatasetTables:
    """An output as it is now. `segments` has a row for each segment of the shards that were read.

    `results` are those of the commits, but a video that was tried again counts once, as what became of it last. `other`
    is an output to compare with.
    """

    store: Store
    run: RunRecord
    commits: dict[str, Commit]
    results: dict[str, ShardResult]
    segments: pd.DataFrame
    examples_per_kind: int
    other: DatasetTables | None = None

    @cached_property
    def total(self) -> Totals:
        return Totals.of(self.results.values())

    @cached_property
    def by_language(self) -> dict[str, Totals]:
        names = sorted({result.language for result in self.results.values()})
        return {name: Totals.of(some for some in self.results.values() if some.language == name) for name in names}

    @property
    def sampled(self) -> bool:
        return len(self.segments) < self.total.segments

    @property
    def kept(self) -> pd.DataFrame:
        return self.segments[self.segments["kept"]]

    @property
    def dead_letters(self) -> list[DeadLetter]:
        return [letter for result in self.results.values() for letter in result.dead_letters]

    @property
    def rules(self) -> list[Rule]:
        """The run's thresholds that are switched on, in the order in which they are asked."""
        config = self.run.config
        active = [(rule, config.get(rule[2])) for rule in RULES]
        return [
            Rule(reason, metric, field, float(limit), below=field.startswith("min_"))
            for (reason, metric, field, _), limit in active
            if limit is not None
        ]


def read_dataset(
    output: str,
    language: str = "all",
    examples_per_kind: int = 3,
    max_segments: int = 200_000,
    seed: int = 0,
    compare_with: str | None = None,
) -> DatasetTables:
    """An output's commits and segments.

    Args:
        language: 'all', or names separated by commas.
        examples_per_kind: examples to listen to, of the best, the worst and the borderline segments each.
        compare_with: another output, which `Dataset.other` is then.
        max_segments: about how many segments to hold at most; beyond that a sample of shards is read.

    Raises:
        ConfigError: a parameter is impossible, or nothing is committed there.
        PlanError, VerifyError: it is no output of a run, or damaged.
    """
    for name, value, low, high in (
        ("examples_per_kind", examples_per_kind, 0, 12),
        ("max_segments", max_segments, 1, 10**7),
    ):
        if not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"parameter '{name}' {value!r}: must be a whole number from {low} to {high:,}")
    store = Store(output)
    commits = _wanted(read_commits(store), language, output)
    chosen = _sample(list(commits.values()), max_segments, seed)
    results = effective_results(commits, load(store))
    other = read_dataset(compare_with, language, 0, max_segments, seed) if compare_with else None
    return DatasetTables(
        store, read_run_record(store), commits, results, _segments(store, chosen), examples_per_kind, other
    )


def _wanted(commits: dict[str, Commit], language: str, output: str) -> dict[str, Commit]:
    if not commits:
        raise ConfigError(f"output {output!r} has no committed shard; check its address, or wait for the first one")
    if language == "all":
        return commits
    names = {name.strip() for name in language.split(",")}
    known = {commit.result.language for commit in commits.values()}
    if names - known:
        raise ConfigError(f"parameter 'language' {language!r}: the output has {', '.join(sorted(known))} so far")
    return {shard: commit for shard, commit in commits.items() if commit.result.language in names}


def _sample(commits: list[Commit], most: int, seed: int) -> list[Commit]:
    """All shards, or of each language shards drawn at random until its part of `most` segments is there."""
    total = sum(commit.result.segments for commit in commits)
    if total <= most:
        return commits
    order = np.random.default_rng(seed).permutation(len(commits))
    share, chosen, held = most / total, [], dict[str, float]()
    wanted = {commit.result.language: 0.0 for commit in commits}
    for commit in commits:
        wanted[commit.result.language] += share * commit.result.segments
    for commit in (commits[number] for number in order):
        language = commit.result.language
        if held.get(language, 0) < wanted[language]:
            chosen.append(commit)
            held[language] = held.get(language, 0) + commit.result.segments
    return chosen


def _segments(store: Store, commits: Iterable[Commit]) -> pd.DataFrame:
    names = [item.name for commit in commits for item in commit.objects if "/segments_" in item.name]
    frames = [read_table(store.read(name), COLUMNS).to_pandas() for name in sorted(names)]
    filled = [frame for frame in frames if len(frame)]
    joined: pd.DataFrame = pd.concat(filled or frames[:1], ignore_index=True)
    return joined
