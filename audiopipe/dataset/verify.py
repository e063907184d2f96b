"""Verify an output from its own objects: plan against commits, commits against objects, objects against each other.

All objects are read again, several shards at a time; a fast check compares names and sizes only. A finding names the
object, the problem and the command that repairs it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from audiopipe.dataset.backup import BACKUP, BackupPair, find_backup_pairs, list_originals
from audiopipe.dataset.checksum import verify_checksum
from audiopipe.dataset.commit import Commit, commit_name, list_commits
from audiopipe.dataset.describe import description_files
from audiopipe.dataset.duplicates import TABLE as DUPLICATES
from audiopipe.dataset.duplicates import check_duplicates
from audiopipe.dataset.findings import Finding, resume_command
from audiopipe.dataset.gc import find_orphans
from audiopipe.dataset.run_record import RUN_RECORD, RunRecord, read_run_record
from audiopipe.dataset.schema import DESCRIPTION
from audiopipe.dataset.verify_annotations import AnnotationVerifier, find_annotation_orphans
from audiopipe.dataset.verify_journal import VerifyJournal, default_journal
from audiopipe.dataset.verify_shards import ShardVerifier, choose_sample, upper_bound
from audiopipe.errors import PlanError, VerifyError
from audiopipe.plan.files import PLAN_FOLDER
from audiopipe.plan.plan import Plan, load_plan
from audiopipe.store.objects import Store

__all__ = ["Finding", "OnShard", "Verification", "verify"]

OnShard = Callable[[int, int], None]


@dataclass(frozen=True)
class Verification:
    """The outcome of a verification.

    Attributes:
        shards: number of planned shards.
        checked: number of shards that were checked; fewer than `shards` in a sample.
        known: how many of these an interrupted verification had checked.
        bad: number of checked shards with findings.
        objects, samples: how many objects and samples were read.
    """

    shards: int
    checked: int
    known: int
    bad: int
    objects: int
    samples: int
    findings: tuple[Finding, ...]

    @property
    def max_bad_share(self) -> float:
        """The share of shards with findings that is not exceeded, with a confidence of 95 %."""
        return self.bad / max(self.checked, 1) if self.checked == self.shards else upper_bound(self.bad, self.checked)


def verify(
    url: str,
    fast: bool = False,
    *,
    sample: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    restart: bool = False,
    on_shard: OnShard | None = None,
) -> Verification:
    """Check an output.

    A verification that is interrupted continues where it stopped if it is started again; `VerifyJournal` says how.

    Args:
        fast: compare names and sizes only, and read neither audio nor tables.
        sample: check so many shards, chosen at random by the seed, instead of all.
        threads: shards that are read at the same time; default: the number of cores.
        restart: read everything again, also what an interrupted verification has read.
        on_shard: called after each shard with the numbers of checked shards, and of those to check.

    Raises:
        VerifyError: the address does not hold the output of a run.
    """
    store = Store(url)
    journal = VerifyJournal(None if fast or sample is not None else default_journal(store.root))
    if restart:
        journal.remove()
    check = _Check(store, fast, journal, sample, seed, threads or os.cpu_count() or 1, on_shard)
    findings = tuple(check.findings())
    journal.remove()
    return Verification(check.shards, check.checked, check.known, check.bad, check.objects, check.samples, findings)


@dataclass
class _Check:
    """One pass over an output."""

    store: Store
    fast: bool
    journal: VerifyJournal
    sample: int | None
    seed: int
    threads: int
    on_shard: OnShard | None
    shards: int = 0
    checked: int = 0
    known: int = 0
    bad: int = 0
    objects: int = 0
    samples: int = 0
    commits: dict[str, Commit] = field(default_factory=dict)
    present: dict[str, int] = field(default_factory=dict)

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
        readable = [shard for shard in planned.values() if shard.name not in bad_commits]
        if self.sample is not None:
            readable = choose_sample(readable, self.sample, self.seed)
        names = {shard.name for shard in readable}
        verifier = ShardVerifier(self.store, run, self.commits, self.present, self.fast, self.journal)
        for report in verifier.verify(readable, self.threads):
            self.checked += 1
            self.known += report.is_known
            self.objects += report.objects
            self.samples += report.samples
            self.bad += bool(report.findings)
            yield from report.findings
            if self.on_shard is not None:
                self.on_shard(self.checked, len(readable))
        commits = {shard: commit for shard, commit in self.commits.items() if shard in names}
        annotations = AnnotationVerifier(self.store, commits, self.present, self.fast)
        annotation_findings = list(annotations.findings(self.threads))
        yield from annotation_findings
        if bad_commits:
            return
        yield from self._check_orphans(plan)
        if self.commits.keys() == planned.keys():
            duplicate_findings = list(self._check_duplicates(run.duplicate_similarity, self.bad == 0))
            yield from duplicate_findings
            if not duplicate_findings and not annotation_findings:
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
        for name in list_originals(self.present):
            if name not in copied:
                yield Finding(f"{BACKUP}/{name}", "is missing", f"audiopipe restore {shlex.quote(self.store.url)}")

    def _collect(self) -> str:
        return f"audiopipe gc {shlex.quote(self.store.url)} --remove"

    def _resume(self, *shards: str) -> str:
        return resume_command(self.store.url, *shards)

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

    def _check_orphans(self, plan: Plan) -> Iterator[Finding]:
        annotations = find_annotation_orphans(self.present, plan.shard_names())
        for name in [*find_orphans(self.present, self.commits, plan), *annotations]:
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
