"""Verify an output from its own objects: plan against commits, commits against objects, objects against each other.

All objects are read again; a fast check compares names and sizes only. A finding names the object, the problem and the
command that repairs it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from audiopipe.dataset.backup import BACKUP, BackupPair, find_backup_pairs
from audiopipe.dataset.check import check_shard
from audiopipe.dataset.checksum import verify_checksum
from audiopipe.dataset.commit import Commit, commit_name, list_commits
from audiopipe.dataset.describe import DESCRIPTION, description_files
from audiopipe.dataset.duplicates import TABLE as DUPLICATES
from audiopipe.dataset.duplicates import check_duplicates
from audiopipe.dataset.gc import find_orphans
from audiopipe.dataset.run_record import RUN_RECORD, RunRecord, read_run_record
from audiopipe.errors import PlanError, VerifyError
from audiopipe.plan.files import PLAN_FOLDER
from audiopipe.plan.plan import Plan, load_plan
from audiopipe.store.objects import Store
from audiopipe.types import Shard

__all__ = ["Finding", "Verification", "verify"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A mismatch: the object or shard, the problem, and the command that repairs it."""

    name: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}; {self.remedy}"


@dataclass(frozen=True)
class Verification:
    """Numbers of planned shards, checked objects and checked samples, and the problems."""

    shards: int
    objects: int
    samples: int
    findings: tuple[Finding, ...]


def verify(url: str, fast: bool = False) -> Verification:
    """Check a whole output.

    Args:
        fast: compare names and sizes only, and read neither audio nor tables.

    Raises:
        VerifyError: there is no run at that address.
    """
    check = _Check(Store(url), fast)
    findings = tuple(check.findings())
    return Verification(check.shards, check.objects, check.samples, findings)


class _Check:
    """One pass over an output."""

    def __init__(self, store: Store, fast: bool) -> None:
        self.store, self.fast = store, fast
        self.shards = self.objects = self.samples = 0
        self.commits: dict[str, Commit] = {}
        self.present: dict[str, int] = {}

    def findings(self) -> Iterator[Finding]:
        """Yield all problems in the order in which they should be repaired."""
        self.present = self.store.list()
        pairs = list(find_backup_pairs(self.store))
        if RUN_RECORD not in self.present and RUN_RECORD not in {pair.name for pair in pairs}:
            raise VerifyError(f"{self.store.url} has no {RUN_RECORD}: it is not the output of a run; check the address")
        bad_commits = dict(self._read_commits())
        yield from self._check_backup(pairs)
        if not all(pair.original_is_good for pair in pairs):
            return
        try:
            run = read_run_record(self.store)
            plan = load_plan(self.store)
        except (VerifyError, PlanError) as error:
            name = RUN_RECORD if isinstance(error, VerifyError) else PLAN_FOLDER
            yield Finding(name, str(error), self._rerun())
            return
        yield from self._find_missing_copies(pairs)
        planned = plan.shard_names()
        self.commits = {shard: commit for shard, commit in self.commits.items() if shard in planned}
        damaged = [shard for shard in bad_commits if shard in planned]
        # One remedy names all of them: a run cannot be resumed while one of its commits cannot be read.
        yield from (Finding(commit_name(shard), bad_commits[shard], self._resume(*damaged)) for shard in damaged)
        yield from self._check_plan()
        yield from self._check_shards(run, plan, set(damaged))
        for name in sorted(list_commits(self.present).keys() - planned):
            yield Finding(commit_name(name), "is the commit of no planned shard", self._collect())

    def _check_shards(self, run: RunRecord, plan: Plan, bad_commits: set[str]) -> Iterator[Finding]:
        """Check the shards, and if all commits can be read, what depends on all of them."""
        planned = {shard.name: shard for shard in plan.shards()}
        self.shards = len(planned)
        intact = True
        for shard in planned.values():
            if shard.name not in bad_commits:
                for finding in self._check_shard(shard, run):
                    intact = False
                    yield finding
        if bad_commits:
            return
        yield from self._check_orphans(plan)
        if self.commits.keys() == planned.keys():
            duplicate_findings = list(self._check_duplicates(run.duplicate_similarity, intact))
            yield from duplicate_findings
            if not duplicate_findings:
                yield from self._check_description(run, plan)

    def _check_backup(self, pairs: Iterable[BackupPair]) -> Iterator[Finding]:
        """Compare the run record and the plan with their copies."""
        for pair in pairs:
            if not (pair.original_is_good or pair.copy_is_good):
                yield Finding(pair.name, f"is damaged or missing, and so is {pair.copy}", self._rerun())
            elif not pair.intact:
                bad = pair.copy if pair.original_is_good else pair.name
                yield Finding(bad, "is damaged or missing", f"audiopipe restore {shlex.quote(self.store.url)}")

    def _find_missing_copies(self, pairs: Iterable[BackupPair]) -> Iterator[Finding]:
        copied = {pair.name for pair in pairs}
        originals = [RUN_RECORD, *(name for name in self.present if name.startswith(f"{PLAN_FOLDER}/"))]
        for name in originals:
            if name not in copied:
                yield Finding(f"{BACKUP}/{name}", "is missing", f"audiopipe restore {shlex.quote(self.store.url)}")

    def _collect(self) -> str:
        return f"audiopipe gc {shlex.quote(self.store.url)} --remove"

    def _resume(self, *shards: str) -> str:
        options = "".join(f" --shard {shlex.quote(name)}" for name in shards)
        return f"audiopipe resume {shlex.quote(self.store.url)}{options}"

    def _rerun(self) -> str:
        run_ids = sorted({commit.result.run_id for commit in self.commits.values()})
        option = f" --run-id {shlex.quote(run_ids[0])}" if run_ids else ""
        return f"remove it, then audiopipe run --output {shlex.quote(self.store.url)}{option} with the run's parameters"

    def _read_commits(self) -> Iterator[tuple[str, str]]:
        """Read all commits; yield the shard and the problem of those that are not good."""
        names = list_commits(self.present)
        bodies = self.store.read_all(list(names.values()))
        for shard, name in names.items():
            try:
                commit = Commit.from_json(bodies[name], name)
            except VerifyError:
                yield shard, "is damaged"
                continue
            if commit.result.shard != shard:
                yield shard, f"is the commit of {commit.result.shard}"
            self.commits[shard] = commit

    def _check_plan(self) -> Iterator[Finding]:
        """Compare the plan with its digests in the dataset's description, which is written last."""
        try:
            digests = verify_checksum(self.store.read(DESCRIPTION), DESCRIPTION)["plan"]
        except (FileNotFoundError, VerifyError):
            return
        for name, digest in digests.items():
            if name not in self.present or hashlib.sha256(self.store.read(name)).hexdigest() != digest:
                yield Finding(name, f"differs from the plan that {DESCRIPTION} was made from", self._rerun())

    def _check_shard(self, shard: Shard, run: RunRecord) -> Iterator[Finding]:
        remedy = self._resume(shard.name)
        commit = self.commits.get(shard.name)
        if commit is None:
            yield Finding(shard.name, "is planned but not committed", self._resume())
            return
        if commit.config_digest != run.config_digest:
            yield Finding(shard.name, "was made with another config than the run's", remedy)
        bodies: dict[str, bytes] = {}
        for item in commit.objects:
            self.objects += 1
            if item.name not in self.present:
                yield Finding(item.name, "is committed but missing", remedy)
            elif self.present[item.name] != item.size:
                yield Finding(item.name, f"has {self.present[item.name]} bytes, not the {item.size} committed", remedy)
            elif not self.fast:
                body = self.store.read(item.name)
                if hashlib.sha256(body).hexdigest() != item.sha256:
                    yield Finding(item.name, "differs from the sha256 in its commit", remedy)
                else:
                    bodies[item.name] = body
        if len(bodies) == len(commit.objects) and not self.fast:
            problems = check_shard(shard, commit, bodies, run.audio_format)
            self.samples += commit.result.segments_kept
            yield from (Finding(shard.name, problem, remedy) for problem in problems)

    def _check_orphans(self, plan: Plan) -> Iterator[Finding]:
        for name in find_orphans(self.present, self.commits, plan):
            yield Finding(name, "is named by no commit", self._collect())

    def _check_duplicates(self, similarity: float | None, intact: bool) -> Iterator[Finding]:
        """Check the objects about duplicates; their content only if all shards are `intact`."""
        fast = self.fast or not intact
        for name, problem in check_duplicates(self.store, self.commits, similarity, self.present, fast):
            yield Finding(name, problem, self._resume())

    def _check_description(self, run: RunRecord, plan: Plan) -> Iterator[Finding]:
        try:
            objects = description_files(self.store, run, self.commits, plan)
        except VerifyError as error:
            yield Finding(DUPLICATES, str(error), self._resume())
            return
        for name, data in objects.items():
            if name not in self.present:
                yield Finding(name, "is missing, although all shards are committed", self._resume())
            elif self.present[name] != len(data) or self.store.read(name) != data:
                yield Finding(name, "does not describe these shards", self._resume())
