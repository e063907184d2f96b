"""Verify the annotations of an output: their records, their commits, and their tables against those of the segments."""

from __future__ import annotations

import hashlib
import shlex
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from audiopipe.dataset.annotations import (
    ANNOTATIONS,
    COLUMNS,
    KEYS,
    AnnotationRecord,
    annotation_schema,
    annotation_shard_of,
    is_annotation_record,
)
from audiopipe.dataset.commit import Commit, CommittedObject
from audiopipe.dataset.findings import Finding
from audiopipe.dataset.schema import object_names
from audiopipe.errors import VerifyError
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table

__all__ = ["AnnotationVerifier", "find_annotation_orphans"]


def find_annotation_orphans(present: Iterable[str], planned: Iterable[str]) -> list[str]:
    """List the objects of annotations that no commit names, those of shards that are not planned, and all of an
    annotation whose record was removed.
    """
    names, shards = {name for name in present if name.startswith(f"{ANNOTATIONS}/")}, set(planned)
    orphans = []
    for name in sorted(names):
        folder = name.rpartition("/")[0]
        shard = annotation_shard_of(name)
        is_known = f"{folder}/{COLUMNS}" in names and shard in shards and f"{folder}/{shard}.json" in names
        if not is_known and not is_annotation_record(name):
            orphans.append(name)
    return orphans


@dataclass(frozen=True)
class AnnotationVerifier:
    """Verifies annotations for committed shards.

    Attributes:
        commits: the shards of the dataset to check, with their commits.
        present: the sizes of all objects of the output by name.
        fast: compare names and sizes only.
    """

    store: Store
    commits: Mapping[str, Commit]
    present: Mapping[str, int]
    fast: bool

    def findings(self, threads: int) -> Iterator[Finding]:
        """Yield what is wrong, by annotation and shard."""
        names = [name for name in self.present if is_annotation_record(name)]
        for name, body in self.store.read_all(names).items():
            try:
                record = AnnotationRecord.from_json(body, name)
            except VerifyError:
                yield Finding(name, "is damaged", f"audiopipe restore {shlex.quote(self.store.url)}")
                continue
            if record.columns_name != name:
                remedy = f"audiopipe annotate {shlex.quote(self.store.url)} --remove {shlex.quote(name.split('/')[1])}"
                yield Finding(name, f"is the record of {record.id}", remedy)
                continue
            yield from self._check_shards(record, threads)

    def _check_shards(self, record: AnnotationRecord, threads: int) -> Iterator[Finding]:
        with ThreadPoolExecutor(threads, "verify") as pool:
            ahead: deque[Future[Finding | None]] = deque()
            try:
                for shard in sorted(self.commits):
                    ahead.append(pool.submit(self._check_shard, record, shard))
                    if len(ahead) > 2 * threads and (finding := ahead.popleft().result()):
                        yield finding
                while ahead:
                    if finding := ahead.popleft().result():
                        yield finding
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _check_shard(self, record: AnnotationRecord, shard: str) -> Finding | None:
        name, rerun = record.commit_name(shard), record.command(self.store.url)
        remedy = f"{rerun} --shard {shlex.quote(shard)}"
        if name not in self.present:
            return Finding(name, "is missing: the shard is not annotated", rerun)
        try:
            commit = Commit.from_json(self.store.read(name), name)
        except (VerifyError, FileNotFoundError):
            return Finding(name, "is damaged", remedy)
        if problem := self._find_commit_problem(record, commit, shard):
            return Finding(name, problem, remedy)
        (item,) = commit.objects
        table_problem = self._find_table_problem(record, item, self.commits[shard])
        return Finding(item.name, table_problem, remedy) if table_problem else None

    def _find_commit_problem(self, record: AnnotationRecord, commit: Commit, shard: str) -> str | None:
        if commit.result.shard != shard or [item.name for item in commit.objects] != [record.table_name(shard)]:
            return f"is the commit of {commit.result.shard} or of another annotation"
        if commit.config_digest != record.digest:
            return "was made for other columns or from another source"
        if commit.source != self.commits[shard].objects_digest:
            return "was made before its shard was rebuilt with other content"
        return None

    def _find_table_problem(self, record: AnnotationRecord, item: CommittedObject, commit: Commit) -> str | None:
        """Compare a table with its commit and with the segments of its shard."""
        size = self.present.get(item.name)
        if size != item.size:
            return "is committed but missing" if size is None else f"has {size} bytes, not the {item.size} committed"
        return None if self.fast else self._read_problem(record, item, commit)

    def _read_problem(self, record: AnnotationRecord, item: CommittedObject, commit: Commit) -> str | None:
        """Read a table, and return what is wrong with it."""
        body = self.store.read(item.name)
        if hashlib.sha256(body).hexdigest() != item.sha256:
            return "differs from the sha256 in its commit"
        table, schema = read_table(body), annotation_schema(record.columns)
        if not table.schema.equals(schema):
            return "does not have the columns of its annotation"
        name = object_names(commit.result.language, commit.result.index)["segments"]
        try:
            segments = read_table(self.store.read(name), KEYS)
        except (FileNotFoundError, OSError, pa.ArrowException):
            return None  # the finding is that of the shard
        return None if table.select(KEYS).equals(segments) else "does not have the keys of its shard's segments"
