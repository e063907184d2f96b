"""Annotate an output: add columns to its segments, from scorers or from a file; list and remove such columns."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from audiopipe.config import RunConfig
from audiopipe.dataset.annotation_file import AnnotationFile, KeyCounts
from audiopipe.dataset.annotation_import import compare_keys, import_annotation
from audiopipe.dataset.annotation_shards import read_annotation_commits, remove_annotation, reopen_annotation
from audiopipe.dataset.annotations import AnnotationRecord
from audiopipe.dataset.backup import backup
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.describe import describe
from audiopipe.dataset.run_record import read_columns, read_config, read_run_record
from audiopipe.dataset.schema import segments_schema
from audiopipe.driver.outcome import NOT_FINISHED
from audiopipe.driver.run import complete_commits
from audiopipe.errors import ConfigError
from audiopipe.pipeline.scratch import scratch_folder
from audiopipe.plan.plan import load_plan
from audiopipe.store.objects import Store
from audiopipe.store.output import check_output

__all__ = ["AnnotationSummary", "annotate", "remove"]


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
        unfinished_code: exit code of an annotation that is not finished: 2 if a person must act first, else 4.
    """

    output: str
    annotations: tuple[str, ...]
    columns: tuple[str, ...]
    shards: int
    annotated: int
    new: int
    uncommitted: int
    wall_s: float
    failed: dict[str, str] = field(default_factory=dict)
    counts: KeyCounts | None = None
    stopped: str | None = None
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
    commits: dict[str, Commit]
    planned: tuple[str, ...]

    @classmethod
    def open(cls, output: str, parameters: dict[str, object]) -> _Output:
        store = Store(output)
        config = read_config(store, **parameters)
        check_output(store)
        plan = load_plan(store)
        return cls(store, config, complete_commits(store, plan), tuple(shard.name for shard in plan.shards()))

    @property
    def columns(self) -> Collection[str]:
        """Names of the columns of the segments."""
        return list(segments_schema(read_columns(read_run_record(self.store))).names)

    def reopen(self, record: AnnotationRecord, shards: Iterable[str]) -> None:
        """Remove what an annotation has of these shards."""
        names = list(shards)
        for name in names:
            if name not in self.planned:
                raise ConfigError(f"no shard '{name}' in the plan of {self.store.url}")
        reopen_annotation(self.store, record, names)


def annotate(
    output: str,
    *,
    file: str | None = None,
    name: str | None = None,
    key_column: str | None = None,
    columns: Sequence[str] | None = None,
    ignore_unknown: bool = False,
    shards: Iterable[str] = (),
    on_shard: Callable[[int, int], None] | None = None,
    **parameters: object,
) -> AnnotationSummary:
    """Add columns to the segments of an output. The same call resumes an annotation that was interrupted.

    Args:
        file: a Parquet, CSV, TSV or JSON lines file at any address, with a row for each segment that it knows.
        name: of the annotation; default: that of the file.
        key_column: the file's column with the keys; default: `key`, or else `video_id` and `segment`.
        columns: the file's columns to take; default: all but the keys.
        ignore_unknown: leave out rows whose keys the output does not have, instead of refusing them.
        shards: names of shards to annotate again; what the annotation has of them is removed first.
        on_shard: called with the numbers of new shards of a file's annotation, and of those to commit.
        parameters: fields of `RunConfig` that do not change the output, such as `scratch`.

    Raises:
        VerifyError, PlanError: there is no run at that address, or it is damaged.
        ConfigError: the file cannot be read or its keys do not match, or a column exists already.
    """
    if file is None:
        raise ConfigError("annotate needs a file")
    started = time.monotonic()
    target = _Output.open(output, parameters)
    with scratch_folder("annotate", target.config.scratch) as folder:
        table = AnnotationFile(file, folder, key_column, columns)
        try:
            record = table.record(name)
            target.reopen(record, shards)
            counts = compare_keys(target.store, table, target.commits, ignore_unknown)
            new = import_annotation(target.store, table, record, target.commits, target.columns, on_shard)
        finally:
            table.close()
    _describe(target.store)
    return AnnotationSummary(
        output=output,
        annotations=(record.id,),
        columns=tuple(column.name for column in record.columns),
        shards=len(target.planned),
        annotated=len(read_annotation_commits(target.store, record).keys() & target.commits.keys()),
        new=len(new),
        uncommitted=len(target.planned) - len(target.commits),
        wall_s=time.monotonic() - started,
        counts=counts,
    )


def remove(output: str, annotation: str) -> None:
    """Remove an annotation with its columns. No process may be working on it.

    Args:
        annotation: its name and version, as in `AnnotationSummary.annotations`.

    Raises:
        VerifyError: there is no run at that address.
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
