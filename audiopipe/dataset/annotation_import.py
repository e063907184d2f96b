"""Make an annotation of an output from a file: check its keys, split it by shard, commit each shard."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa

from audiopipe.dataset.annotation_file import AnnotationFile, KeyCounts
from audiopipe.dataset.annotation_shards import (
    annotation_result,
    commit_annotation,
    publish_annotation,
    read_annotation_commits,
)
from audiopipe.dataset.annotations import AnnotationRecord, annotation_schema, open_annotation
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.schema import object_names
from audiopipe.errors import ConfigError
from audiopipe.store.objects import Store
from audiopipe.types import shard_name

__all__ = ["compare_keys", "import_annotation"]

UPLOADS = 8  # at the same time


def compare_keys(
    store: Store, file: AnnotationFile, commits: Mapping[str, Commit], ignore_unknown: bool = False
) -> KeyCounts:
    """Compare the keys of a file with those of the committed shards.

    Raises:
        ConfigError: keys are missing, repeated or ambiguous, or unknown and not to be ignored.
    """
    results = [commits[shard].result for shard in sorted(commits)]
    tables = [store.address(object_names(result.language, result.index)["segments"]) for result in results]
    counts = file.compare(store, tables)
    if counts.unknown and not ignore_unknown:
        more = ", …" if counts.unknown > len(counts.examples) else ""
        raise ConfigError(
            f"annotations {file.name}: {counts.unknown} of {counts.rows} keys are those of no committed segment "
            f"({', '.join(counts.examples)}{more}): correct them, or leave them out by --ignore-unknown"
        )
    return counts


def import_annotation(
    store: Store,
    file: AnnotationFile,
    record: AnnotationRecord,
    commits: Mapping[str, Commit],
    existing: Collection[str],
    on_shard: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Create the annotation, and commit a table for each committed shard that has none; return these shards.

    `compare_keys` comes first. The same file and output give the same bytes; what an interrupted call has committed
    stays.

    Args:
        existing: names of the columns of the segments.
        on_shard: called after each shard with the numbers of new shards, and of those to commit.
    """
    open_annotation(store, record, existing)
    done = read_annotation_commits(store, record, commits)
    pending = {shard: commit for shard, commit in sorted(commits.items()) if shard not in done}
    started_at = datetime.now(UTC).isoformat()
    new: list[str] = []
    running: deque[Future[str]] = deque()

    def collect(limit: int) -> None:
        while len(running) > limit:
            new.append(running.popleft().result())
            if on_shard is not None:
                on_shard(len(new), len(pending))

    with ThreadPoolExecutor(UPLOADS, "annotate") as pool:
        try:
            for shard, table in _tables(file, record, pending.keys()):
                running.append(pool.submit(_commit, store, record, pending[shard], table, started_at))
                collect(2 * UPLOADS)
            collect(0)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return new


def _tables(file: AnnotationFile, record: AnnotationRecord, shards: Collection[str]) -> Iterator[tuple[str, pa.Table]]:
    """Yield the tables of shards by name; a shard without segments has an empty one."""
    empty = set(shards)
    if not empty:
        return
    for language, number, table in file.shards():
        name = shard_name(language, number)
        if name in empty:
            empty.remove(name)
            yield name, table
    schema = annotation_schema(record.columns)
    yield from ((name, schema.empty_table()) for name in sorted(empty))


def _commit(store: Store, record: AnnotationRecord, shard: Commit, table: pa.Table, started_at: str) -> str:
    """Commit the table of a shard, unless it was committed and its publication interrupted."""
    if publish_annotation(store, record, shard) is None:
        result = annotation_result(shard.result, table.num_rows, table.num_rows, started_at)
        commit_annotation(store, record, shard, result, table)
    return shard.result.shard
