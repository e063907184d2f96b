"""Prove an output complete from what lies in it: plan against commits against objects against what is inside them.

Everything is read again. A finding names the object, what is wrong, and what mends it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq
import soundfile as sf

from audiopipe.commit import Commit
from audiopipe.encode import SUFFIXES
from audiopipe.errors import VerifyError
from audiopipe.output import RUN, read_commits
from audiopipe.plan import load
from audiopipe.store import Store
from audiopipe.types import Shard

__all__ = ["Finding", "Verification", "verify"]

RUN_AGAIN = "run it again"
REMAKE = "remove its commit and run again"


@dataclass(frozen=True, slots=True)
class Finding:
    """One mismatch: which object or shard, what is wrong with it, and what to do."""

    name: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}; {self.remedy}"


@dataclass(frozen=True)
class Verification:
    """What was read, and what was wrong with it."""

    shards: int
    objects: int
    samples: int
    findings: tuple[Finding, ...]


def verify(url: str) -> Verification:
    """Read all of an output again.

    Raises:
        VerifyError: there is no run at that address.
    """
    store = Store(url)
    try:
        run = json.loads(store.read(RUN))
    except FileNotFoundError:
        raise VerifyError(f"{url} holds no {RUN}: it is not the output of a run") from None
    plan, commits, present = load(store), read_commits(store), store.list()
    findings: list[Finding] = []
    samples = 0
    planned = list(plan.shards())
    for shard in planned:
        commit = commits.pop(shard.name, None)
        if commit is None:
            findings.append(Finding(shard.name, "is planned and not committed", RUN_AGAIN))
            continue
        check = _ShardCheck(store, shard, commit, run["config_digest"], run["config"]["audio_format"])
        findings.extend(check.findings(present))
        samples += check.samples
    findings.extend(Finding(name, "is committed and not planned", "look who wrote it") for name in commits)
    known = {item.name for commit in read_commits(store).values() for item in commit.objects}
    findings.extend(_strays(present, known))
    return Verification(len(planned), len(known), samples, tuple(findings))


def _strays(present: dict[str, int], known: set[str]) -> Iterator[Finding]:
    for name in present:
        folder, _, file = name.partition("/")
        of_a_shard = not folder.startswith("_") and file.startswith(("audio_", "segments_", "videos_", "manifest_"))
        if of_a_shard and name not in known:
            yield Finding(name, "is named by no commit", "remove it")


class _ShardCheck:
    """One shard's commit against its objects and their content."""

    def __init__(self, store: Store, shard: Shard, commit: Commit, digest: str, audio_format: str) -> None:
        self.store, self.shard, self.commit, self.digest = store, shard, commit, digest
        self.suffix = SUFFIXES[audio_format]
        self.samples = 0

    def findings(self, present: dict[str, int]) -> Iterator[Finding]:
        if self.commit.config_digest != self.digest:
            yield Finding(self.shard.name, "was made with another config than the run's", REMAKE)
        bodies: dict[str, bytes] = {}
        for item in self.commit.objects:
            if item.name not in present:
                yield Finding(item.name, "is committed and missing", REMAKE)
            elif hashlib.sha256(body := self.store.read(item.name)).hexdigest() != item.sha256:
                yield Finding(item.name, f"has other bytes than its commit says ({len(body)} of {item.size})", REMAKE)
            else:
                bodies[item.name.rsplit("/", 1)[-1].split("_")[0]] = body
        if len(bodies) == len(self.commit.objects):
            yield from self._content(bodies)

    def _content(self, bodies: dict[str, bytes]) -> Iterator[Finding]:
        """The objects are what was committed; do they agree with one another?"""
        videos = pq.read_table(io.BytesIO(bodies["videos"])).to_pylist()
        segments = pq.read_table(io.BytesIO(bodies["segments"])).to_pylist()
        if [row["video_id"] for row in videos] != [video.video_id for video in self.shard.videos]:
            yield self._wrong("its videos are not the plan's")
        if sum(row["segments"] for row in videos) != len(segments):
            yield self._wrong("its videos and its segments differ in number")
        kept = [row for row in segments if row["kept"]]
        result = self.commit.result
        if (len(segments), len(kept)) != (result.segments, result.segments_kept):
            yield self._wrong("its commit and its segments differ in number")
        entries = [json.loads(line) for line in bodies.get("manifest", b"").splitlines()]
        if [entry["audio_filepath"] for entry in entries] != [row["key"] + self.suffix for row in kept]:
            yield self._wrong("its manifest does not list the segments that were kept")
        if kept:
            yield from self._tar(bodies["audio"], kept)

    def _tar(self, body: bytes, kept: list[dict[str, object]]) -> Iterator[Finding]:
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        expected = [str(row["key"]) + suffix for row in kept for suffix in (self.suffix, ".json")]
        if list(members) != expected:
            yield self._wrong("its tar does not hold the segments that were kept")
            return
        for row in kept:
            self.samples += 1
            duration_s = sf.info(io.BytesIO(members[str(row["key"]) + self.suffix])).duration
            about = json.loads(members[f"{row['key']}.json"])
            if abs(duration_s - float(str(row["duration_s"]))) > 0.1 or about["start_s"] != row["start_s"]:
                yield self._wrong(f"sample {row['key']} is not the segment that its row describes")

    def _wrong(self, problem: str) -> Finding:
        return Finding(self.shard.name, problem, REMAKE)
