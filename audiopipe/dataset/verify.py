"""Prove an output complete from what lies in it: plan against commits against objects against what is inside them.

Everything is read again; `fast` looks at names and sizes alone. A finding names the object, what is wrong with it, and
the command that mends it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from audiopipe.dataset import backup as copies
from audiopipe.dataset import duplicates
from audiopipe.dataset.check import check_shard
from audiopipe.dataset.commit import COMMITS, Commit, commit_name, verify_checksum
from audiopipe.dataset.describe import DATASET, RUN, description_files, read_run
from audiopipe.dataset.gc import find_orphans
from audiopipe.errors import PlanError, VerifyError
from audiopipe.plan.files import FOLDER
from audiopipe.plan.plan import Plan, load
from audiopipe.store.objects import Store
from audiopipe.types import Shard

__all__ = ["Finding", "Verification", "verify"]


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


def verify(url: str, fast: bool = False) -> Verification:
    """Check all of an output.

    Args:
        fast: compare names and sizes alone, and read neither audio nor tables.

    Raises:
        VerifyError: there is no run at that address.
    """
    check = _Check(Store(url), fast)
    findings = tuple(check.findings())
    return Verification(check.shards, check.objects, check.samples, findings)


class _Check:
    def __init__(self, store: Store, fast: bool) -> None:
        self.store, self.fast = store, fast
        self.shards = self.objects = self.samples = 0
        self.commits: dict[str, Commit] = {}

    def findings(self) -> Iterator[Finding]:
        """All that is wrong, in the order in which one would mend it."""
        present = self.store.list()
        copied = list(copies.find_backup_pairs(self.store))
        if RUN not in present and RUN not in {pair.name for pair in copied}:
            raise VerifyError(f"{self.store.url} holds no {RUN}: it is not the output of a run")
        commits = list(self._commits(present))
        yield from self._copies(copied)
        if not all(pair.original_is_good for pair in copied):
            return
        try:
            run = read_run(self.store)
            plan = load(self.store)
        except (VerifyError, PlanError) as error:
            yield Finding(RUN if isinstance(error, VerifyError) else FOLDER, str(error), self._again())
            return
        yield from commits
        yield from self._plan_files(present)
        damaged = {finding.name for finding in commits}
        planned = list(plan.shards())
        self.shards = len(planned)
        sound = True
        for shard in planned:
            if commit_name(shard.name) not in damaged:
                for finding in self._shard(shard, run["config_digest"], run["config"]["audio_format"], present):
                    sound = False
                    yield finding
        for name in sorted(self.commits.keys() - {shard.name for shard in planned}):
            yield Finding(commit_name(name), "is committed and not planned", f"restore its plan in {FOLDER}/")
        if not damaged:
            yield from self._strays(present, plan)
            if self.commits.keys() == {shard.name for shard in planned}:
                duplicated = list(self._duplicates(run["config"].get("duplicate_similarity"), present, sound))
                yield from duplicated
                if not duplicated:
                    yield from self._description(run, plan, present)

    def _copies(self, copied: Iterable[copies.BackupPair]) -> Iterator[Finding]:
        """What the run and its plan are, against their copies."""
        for pair in copied:
            if not (pair.original_is_good or pair.copy_is_good):
                yield Finding(pair.name, f"is damaged or gone, and so is {pair.copy}", self._again())
            elif not pair.intact:
                bad = pair.copy if pair.original_is_good else pair.name
                yield Finding(bad, "is damaged or gone", f"audiopipe restore {shlex.quote(self.store.url)}")

    def _resume(self, *shards: str) -> str:
        chosen = "".join(f" --shard {shlex.quote(name)}" for name in shards)
        return f"audiopipe resume {shlex.quote(self.store.url)}{chosen}"

    def _again(self) -> str:
        known = sorted({commit.result.run_id for commit in self.commits.values()})
        run_id = f" --run-id {shlex.quote(known[0])}" if known else ""
        return f"remove it, then audiopipe run --output {shlex.quote(self.store.url)}{run_id} with the run's parameters"

    def _commits(self, present: Mapping[str, int]) -> Iterator[Finding]:
        names = [name for name in present if name.startswith(f"{COMMITS}/") and name.endswith(".json")]
        damaged = {}
        for name, data in self.store.read_all(names).items():
            shard = name.removeprefix(f"{COMMITS}/").removesuffix(".json")
            try:
                commit = Commit.from_json(data, name)
            except VerifyError:
                damaged[shard] = Finding(name, "is damaged", "")
                continue
            if commit.result.shard != shard:
                damaged[shard] = Finding(name, f"is the commit of {commit.result.shard}", "")
            self.commits[shard] = commit
        # All at once: nothing can be resumed while one of them cannot be read.
        for finding in damaged.values():
            yield replace(finding, remedy=self._resume(*damaged))

    def _plan_files(self, present: Mapping[str, int]) -> Iterator[Finding]:
        """The plan against its digests in the dataset's description, which is written when all else is done."""
        try:
            told = verify_checksum(self.store.read(DATASET), DATASET)["plan"]
        except (FileNotFoundError, VerifyError):
            return
        for name, digest in told.items():
            if name not in present or hashlib.sha256(self.store.read(name)).hexdigest() != digest:
                yield Finding(name, f"is not the plan that {DATASET} was made of", self._again())

    def _shard(self, shard: Shard, digest: str, audio_format: str, present: Mapping[str, int]) -> Iterator[Finding]:
        remedy = self._resume(shard.name)
        commit = self.commits.get(shard.name)
        if commit is None:
            yield Finding(shard.name, "is planned and not committed", self._resume())
            return
        if commit.config_digest != digest:
            yield Finding(shard.name, "was made with another config than the run's", remedy)
        bodies: dict[str, bytes] = {}
        for item in commit.objects:
            self.objects += 1
            if item.name not in present:
                yield Finding(item.name, "is committed and missing", remedy)
            elif present[item.name] != item.size:
                yield Finding(item.name, f"has {present[item.name]} bytes, not the {item.size} committed", remedy)
            elif not self.fast:
                body = self.store.read(item.name)
                if hashlib.sha256(body).hexdigest() != item.sha256:
                    yield Finding(item.name, "has other bytes than its commit says", remedy)
                else:
                    bodies[item.name] = body
        if len(bodies) == len(commit.objects) and not self.fast:
            found = check_shard(shard, commit, bodies, audio_format)
            self.samples += commit.result.segments_kept
            yield from (Finding(shard.name, problem, remedy) for problem in found)

    def _strays(self, present: Mapping[str, int], plan: Plan) -> Iterator[Finding]:
        for name in find_orphans(present, self.commits, plan):
            yield Finding(name, "is named by no commit", f"audiopipe gc {shlex.quote(self.store.url)} --remove")

    def _duplicates(self, similarity: float | None, present: Mapping[str, int], sound: bool) -> Iterator[Finding]:
        fast = self.fast or not sound
        for name, problem in duplicates.check_duplicates(self.store, self.commits, similarity, present, fast):
            yield Finding(name, problem, self._resume())

    def _description(self, run: dict[str, object], plan: Plan, present: Mapping[str, int]) -> Iterator[Finding]:
        try:
            objects = description_files(self.store, run, self.commits, plan)
        except VerifyError as error:
            yield Finding(duplicates.TABLE, str(error), self._resume())
            return
        for name, data in objects.items():
            if name not in present:
                yield Finding(name, "is missing, and all shards are there", self._resume())
            elif present[name] != len(data) or self.store.read(name) != data:
                yield Finding(name, "does not describe these shards", self._resume())
