"""Annotate an output: add columns to its segments, from scorers or from a file; list and remove such columns."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distributed import Client

from audiopipe.config import RunConfig
from audiopipe.config.checks import locate_networks
from audiopipe.dataset.annotation_file import AnnotationFile, KeyCounts
from audiopipe.dataset.annotation_import import compare_keys, import_annotation
from audiopipe.dataset.annotation_shards import read_annotation_commits, remove_annotation, reopen_annotation
from audiopipe.dataset.annotations import AnnotationRecord, check_columns, open_annotation
from audiopipe.dataset.backup import backup
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.describe import describe
from audiopipe.dataset.run_record import RunRecord, read_config, read_run_record, read_schema
from audiopipe.dataset.virtual import is_virtual
from audiopipe.driver.outcome import NOT_FINISHED
from audiopipe.driver.recorder import without_ledger_errors
from audiopipe.driver.run import complete_commits
from audiopipe.driver.session import OnTick, Session
from audiopipe.errors import ConfigError
from audiopipe.ledger import open_run_ledger
from audiopipe.ledger.rows import ANNOTATION
from audiopipe.pipeline.annotate import AnnotationJob
from audiopipe.pipeline.annotation_scores import scorer_record
from audiopipe.pipeline.scratch import scratch_folder
from audiopipe.plan.plan import Plan, load_plan
from audiopipe.plan.planned import PlannedShards
from audiopipe.scorers.registry import create_scorers, stored_columns
from audiopipe.store.objects import Store
from audiopipe.store.output import check_output

__all__ = ["AnnotationSummary", "annotate", "remove"]

OnShard = Callable[[int, int], None]


@dataclass(frozen=True)
class AnnotationSummary:
    """The outcome of an annotation.

    Attributes:
        annotations: their names with versions.
        columns: the columns that they add.
        shards: planned shards of the output.
        annotated: shards that are annotated now.
        new: shards that this call annotated.
        uncommitted: shards that the run has not committed, so that they have no segments yet.
        failed: reason by name, for shards that could not be annotated.
        counts: the comparison of a file's keys with those of the output.
        stopped: why a session ended before all shards were tried; None if it did not.
        workers_retired: reason by name, for workers that could not work and got no further shards.
        unfinished_code: exit code of an annotation that is not finished: 2 if a person must act first, else 4.
    """

    output: str
    annotations: tuple[str, ...]
    columns: tuple[str, ...]
    shards: int
    annotated: int
    new: int
    uncommitted: int
    wall_s: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    counts: KeyCounts | None = None
    stopped: str | None = None
    workers_retired: dict[str, str] = field(default_factory=dict)
    unfinished_code: int = NOT_FINISHED

    @property
    def exit_code(self) -> int:
        """Return 0 if each planned shard is annotated, else `unfinished_code`."""
        return 0 if self.annotated == self.shards else self.unfinished_code


@dataclass(frozen=True)
class _Output:
    """An output as it is when an annotation starts."""

    store: Store
    config: RunConfig
    run: RunRecord
    plan: Plan
    commits: dict[str, Commit]

    @classmethod
    def open(cls, output: str, parameters: dict[str, object]) -> _Output:
        store = Store(output)
        config = read_config(store, **parameters)
        check_output(store)
        plan = load_plan(store)
        return cls(store, config, read_run_record(store), plan, complete_commits(store, plan))

    @property
    def columns(self) -> list[str]:
        """Names of the columns of the segments."""
        return list(read_schema(self.run).names)

    def reopen(self, records: Iterable[AnnotationRecord], shards: Collection[str]) -> None:
        """Remove what annotations have of these shards."""
        planned = self.plan.shard_names()
        for name in shards:
            if name not in planned:
                example = next(iter(sorted(planned)), "en-000000")
                raise ConfigError(f"no shard '{name}' in the plan of {self.store.url}: they are named like {example}")
        for record in records:
            reopen_annotation(self.store, record, shards)

    def annotated(self, records: Sequence[AnnotationRecord]) -> dict[str, Commit]:
        """Return the committed shards that have all these annotations, with the commit of the first."""
        commits = [read_annotation_commits(self.store, record, self.commits) for record in records]
        common = set(self.commits).intersection(*commits)
        return {shard: commit for shard, commit in commits[0].items() if shard in common}


def annotate(
    output: str,
    *,
    scorers: str | None = None,
    file: str | None = None,
    shards: Iterable[str] = (),
    speaker_labels: bool = False,
    speaker_embeddings: bool = False,
    name: str | None = None,
    key_column: str | None = None,
    columns: Sequence[str] | None = None,
    ignore_unknown: bool = False,
    client: Client | None = None,
    on_tick: OnTick | None = None,
    on_shard: OnShard | None = None,
    **parameters: object,
) -> AnnotationSummary:
    """Add columns to the segments of an output, from scorers or from a file.

    The same call resumes an annotation that was interrupted, and annotates what the output has gained since.

    Args:
        scorers: names of scorers, separated by commas, to run over the committed audio on the cluster.
        file: a Parquet, CSV, TSV or JSON lines file at any address, with a row for each segment that it knows.
        shards: names of shards to annotate again; what the annotation has of them is removed first.
        speaker_labels, speaker_embeddings: options of the scorer `speakers`, as in `RunConfig`.
        name: of a file's annotation; default: that of the file.
        key_column: the file's column with the keys; default: `key`, or else `video_id` and `segment`.
        columns: the file's columns to take; default: all but the keys.
        ignore_unknown: leave out rows whose keys the output does not have, instead of refusing them.
        client, on_tick: as for `run`; with scorers.
        on_shard: called with the numbers of new shards, and of those to commit; with a file.
        parameters: fields of `RunConfig` that do not change the output, such as `workers`.

    Raises:
        VerifyError, PlanError: the address does not hold the output of a run, or it is damaged.
        ConfigError: a scorer is unknown, the file cannot be read or its keys do not match, or a column exists already.
        MissingExtra: a scorer needs a package that is not installed.
        ClusterError: the workers did not start.
    """
    if (scorers is None) == (file is None):
        raise ConfigError("annotate takes either scorers or a file")
    started = time.monotonic()
    target, names = _Output.open(output, parameters), list(shards)
    if scorers is not None:
        job = _create_job(scorers, speaker_labels, speaker_embeddings)
        summary = _run_scorers(target, job, names, client, on_tick)
    else:
        with scratch_folder("annotate", target.config.scratch) as folder:
            table = AnnotationFile(str(file), folder, key_column, columns)
            try:
                summary = _take_file(target, table, table.record(name), names, ignore_unknown, on_shard)
            finally:
                table.close()
    _describe(target.store)
    return replace(summary, wall_s=time.monotonic() - started)


def _create_job(scorers: str, speaker_labels: bool, speaker_embeddings: bool) -> AnnotationJob:
    """Describe the annotations of scorers.

    Raises:
        ConfigError, MissingExtra: as `create_scorers`.
    """
    entries = locate_networks(scorers).split(",")
    if "signal" in entries:
        raise ConfigError("scorer 'signal': its columns are those of every run, which measured them before encoding")
    created = create_scorers(",".join(entries), speaker_labels=speaker_labels, speaker_embeddings=speaker_embeddings)
    stored_columns(created)
    flags = {"--speaker-labels": speaker_labels, "--speaker-embeddings": speaker_embeddings}
    options = "".join(f" {flag}" for flag, is_set in flags.items() if is_set)
    records = [
        scorer_record(entry, scorer, options if scorer.name == "speakers" else "")
        for entry, scorer in zip(entries, created, strict=True)
    ]
    return AnnotationJob(tuple(records), tuple(entries), speaker_labels, speaker_embeddings)


def _run_scorers(
    target: _Output, job: AnnotationJob, shards: Collection[str], client: Client | None, on_tick: OnTick | None
) -> AnnotationSummary:
    """Run scorers over the shards that are committed and not annotated, in a session like that of a run."""
    store, config = target.store, target.config
    if is_virtual(target.run):
        raise ConfigError(
            f"{store.url} is a virtual selection, which has no audio: annotate its parent, then select again"
        )
    for record in job.records:
        check_columns(store, record, target.columns)
    for record in job.records:
        open_annotation(store, record, target.columns)
    target.reopen(job.records, shards)
    backup(store)
    todo = PlannedShards(target.plan, only=target.commits.keys())
    # Another run in the ledger, so that the run of the output stays as it ended.
    run_id = f"{target.run.run_id}{ANNOTATION}{'-'.join(record.id for record in job.records)}"
    with open_run_ledger(config.ledger, config.output, config.metrics_address) as ledger:
        tick = on_tick and without_ledger_errors(on_tick)
        # An annotation may have been made together with others, as another run of the ledger.
        commits = {
            shard: replace(commit, result=replace(commit.result, run_id=run_id))
            for shard, commit in target.annotated(job.records).items()
        }
        session = Session(config, run_id, target.plan, ledger, commits, todo, tick, job)
        session.open()
        if session.pending:
            session.work(client)
        annotated = target.annotated(job.records)
        session.close(annotated)
    return AnnotationSummary(
        **_describe_target(target, job.records, annotated),
        new=session.outcome.new.shards,
        failed={shard: reason for shard, reason in session.outcome.failed.items() if shard not in annotated},
        stopped=session.outcome.stopped,
        workers_retired=session.steering.retired,
        unfinished_code=session.outcome.exit_code,
    )


def _take_file(
    target: _Output,
    file: AnnotationFile,
    record: AnnotationRecord,
    shards: Collection[str],
    ignore_unknown: bool,
    on_shard: OnShard | None,
) -> AnnotationSummary:
    """Split a file's values by shard."""
    check_columns(target.store, record, target.columns)
    counts = compare_keys(target.store, file, target.commits, ignore_unknown)
    target.reopen([record], shards)
    new = import_annotation(target.store, file, record, target.commits, target.columns, on_shard)
    return AnnotationSummary(
        **_describe_target(target, [record], target.annotated([record])), new=len(new), counts=counts
    )


def _describe_target(
    target: _Output, records: Sequence[AnnotationRecord], annotated: Collection[str]
) -> dict[str, Any]:
    planned = target.plan.shard_names()
    return {
        "output": target.store.url,
        "annotations": tuple(record.id for record in records),
        "columns": tuple(column.name for record in records for column in record.columns),
        "shards": len(planned),
        "annotated": len(annotated),
        "uncommitted": len(planned - target.commits.keys()),
    }


def remove(output: str, annotation: str) -> None:
    """Remove an annotation with its columns. No process may be working on it.

    Args:
        annotation: its name and version, as in `AnnotationSummary.annotations`.

    Raises:
        VerifyError: the address does not hold the output of a run.
        ConfigError: the output has no such annotation.
    """
    store = Store(output)
    read_run_record(store)
    remove_annotation(store, annotation)
    _describe(store)


def _describe(store: Store) -> None:
    """Copy the records of annotations, and name complete annotations in the dataset's description."""
    backup(store)
    describe(store)
