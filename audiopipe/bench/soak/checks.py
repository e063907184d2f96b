"""Compare the output of a soak with its catalog, with the undisturbed run and with the ledger."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from audiopipe.bench.servers.supabase import Postgres
from audiopipe.bench.soak.inputs import source_of
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit, read_commit, read_commits
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.run_record import read_config
from audiopipe.dataset.verify import verify
from audiopipe.pipeline.shard import process_shard
from audiopipe.plan.plan import Plan, load_plan
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table
from audiopipe.types import Shard

__all__ = ["Check", "OutputChecker", "check_ledger", "check_restarts", "check_retired", "find_retired"]

# Columns that differ between two videos of the same source, or name where it lies in its shard.
PLACES = frozenset({"key", "video_id", "shard", "tar_offset", "audio_bytes"})
TABLES_PER_READ = 64
NAMED = 3  # examples in a message
RETIRED = re.compile(r"worker (\S+) is retired: (.+)")
MAX_UNRECORDED = 10  # shards in flight when a driver is stopped: two for each thread


@dataclass(frozen=True)
class Check:
    """A statement about the soak: what was checked, whether it holds, and the numbers."""

    name: str
    is_met: bool
    detail: str


class OutputChecker:
    """Reads the output of a soak and that of an undisturbed run of the same videos.

    Args:
        videos: ids of the catalog.
    """

    def __init__(self, output: Store, reference: Store, videos: Sequence[str]) -> None:
        self.output, self.reference, self.videos = output, reference, videos
        self.plan: Plan = load_plan(output)
        self.commits = read_commits(output, self.plan.shard_names())
        self.open_shards = self.plan.shard_names() - self.commits.keys()  # of a soak that was stopped

    def check(self, samples: int) -> list[Check]:
        """Run all checks of the output.

        Args:
            samples: number of shards that are processed again, undisturbed, and compared byte by byte.
        """
        collect_garbage(self.output.url, remove=True, min_age_h=0)  # parts of killed attempts
        verification = verify(self.output.url)
        findings = [
            f"{item.name}: {item.problem}" for item in verification.findings if item.name not in self.open_shards
        ]
        return [
            self._check_lost(),
            Check(
                "every committed object has its size and sha256 (audiopipe verify)",
                not findings,
                _examples(findings) or f"{verification.objects:,} objects, {verification.samples:,} samples",
            ),
            self._check_same(),
            self._check_bytes(samples),
        ]

    def _check_lost(self) -> Check:
        """Check that each video of the catalog has one row in the tables of committed shards, or is in an open one."""
        names = [item.name for commit in self.commits.values() for item in commit.objects if "/videos_" in item.name]
        rows: Counter[str] = Counter()
        for table in _read_tables(self.output, names):
            rows.update(table["video_id"].to_pylist())
        shards = [shard for shard in self.plan.shards() if shard.name in self.open_shards]
        open_videos = {video.video_id for shard in shards for video in shard.videos}
        lost = sorted(set(self.videos) - rows.keys() - open_videos)
        repeated = sorted(video for video, count in rows.items() if count > 1 or video in open_videos)
        problems = [f"{video} lost" for video in lost] + [f"{video} more than once" for video in repeated]
        detail = f"{rows.total():,} videos in {len(self.commits):,} shards, {len(open_videos):,} not processed yet"
        is_met = not problems and rows.keys() | open_videos == set(self.videos)
        return Check("nothing lost, nothing twice", is_met, f"{detail}; {_examples(problems)}".rstrip("; "))

    def _check_same(self) -> Check:
        """Check that every video has the rows of its source in the undisturbed run: status, segments, all scores."""
        expected = self._digests(self.reference, read_commits(self.reference).values())
        actual = self._digests(self.output, self.commits.values())
        wrong = [video for video, digest in actual.items() if digest != expected.get(source_of(video))]
        detail = f"rows of {len(actual):,} videos compared with those of {len(expected)} sources"
        return Check(
            "every video has the rows and scores of an undisturbed run", not wrong, _examples(sorted(wrong)) or detail
        )

    def _digests(self, store: Store, commits: Iterable[Commit]) -> dict[str, str]:
        """Return a digest over the rows of each video by its id; by its source in the undisturbed run."""
        names = [item.name for commit in commits for item in commit.objects if item.name.endswith(".parquet")]
        digests: dict[str, str] = {}
        for table in _read_tables(store, sorted(names, key=lambda name: name.rpartition("/")[2])):
            kept = [name for name in table.column_names if name not in PLACES]
            rows: dict[str, list[object]] = {}
            for video, row in zip(table["video_id"].to_pylist(), table.select(kept).to_pylist(), strict=True):
                rows.setdefault(video, []).append(sorted(row.items()))
            for video, values in rows.items():
                key = source_of(video) if store is self.reference else video
                digests[key] = hashlib.sha256(f"{digests.get(key, '')}{values!r}".encode()).hexdigest()
        return digests

    def _check_bytes(self, samples: int) -> Check:
        """Process shards from all parts of the soak again, without faults, and compare the digests of their objects."""
        shards = {shard.name: shard for shard in self.plan.shards()}
        names = sorted(self.commits, key=lambda name: self.commits[name].result.finished_at)
        chosen = [names[index * len(names) // samples] for index in range(min(samples, len(names)))]
        with tempfile.TemporaryDirectory(prefix="audiopipe-soak-") as folder:
            config = read_config(self.output, output=folder, ledger=None, scratch=None)
            wrong = [name for name in chosen if not self._is_same(shards[name], config)]
        name = "shards processed again without faults have the same bytes"
        return Check(name, not wrong, _examples(wrong) or f"{len(chosen)} shards, from all parts of the soak")

    def _is_same(self, shard: Shard, config: RunConfig) -> bool:
        process_shard(shard, config, self.commits[shard.name].result.run_id)
        commit = read_commit(Store(config.output), shard.name)
        return commit is not None and _sha256(commit) == _sha256(self.commits[shard.name])


def check_ledger(postgres: Postgres, commits: Mapping[str, Commit]) -> Check:
    """Check that the database behind Supabase has the shards of the output and their videos, after all its outages.

    Shards that were committed while the driver was being stopped are recorded when it continues.
    """
    rows = postgres.sql("SELECT shard, videos FROM shards WHERE status = 'done'")
    recorded = {shard: int(videos) for shard, videos in rows}
    wrong = [name for name, videos in recorded.items() if name not in commits or videos != commits[name].result.videos]
    missing = len(commits.keys() - recorded.keys())
    detail = _examples(wrong) or f"{len(recorded):,} shards in Supabase, {missing} not recorded before the stop"
    return Check("the ledger in Supabase has every shard", not wrong and missing <= MAX_UNRECORDED, detail)


def find_retired(log: str) -> dict[str, str]:
    """Return the workers that a driver's log calls retired, with the reason."""
    return dict(RETIRED.findall(log))


def check_restarts(restarted: Sequence[str]) -> Check:
    """Check that no healthy worker was restarted, as Dask does with one that is silent for five minutes."""
    return Check("no healthy worker was restarted", not restarted, _examples(restarted) or "none")


def check_retired(retired: Mapping[str, str], broken: Sequence[str]) -> Check:
    """Check that the driver has retired no worker but those of hosts that are broken on purpose."""
    wrong = [f"{name}: {reason}" for name, reason in retired.items() if name.partition("-")[0] not in broken]
    name = "only workers with a full disk or a wrong clock were retired"
    return Check(name, not wrong, _examples(wrong) or f"{len(retired)} retired")


def _read_tables(store: Store, names: Sequence[str]) -> Iterable[pa.Table]:
    for start in range(0, len(names), TABLES_PER_READ):
        bodies: Mapping[str, bytes] = store.read_all(names[start : start + TABLES_PER_READ])
        yield from (read_table(body) for body in bodies.values())


def _sha256(commit: Commit) -> dict[str, str]:
    return {item.name: item.sha256 for item in commit.objects}


def _examples(problems: Sequence[str]) -> str:
    more = f" and {len(problems) - NAMED:,} more" if len(problems) > NAMED else ""
    return ", ".join(problems[:NAMED]) + more
