"""Commit the tables of an annotation, shard by shard, by the protocol of `commit.py`."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.dataset.annotations import ANNOTATIONS, COLUMNS, AnnotationRecord
from audiopipe.dataset.backup import remove_backup
from audiopipe.dataset.commit import Commit, commit_shard, publish, upload
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.store.objects import Store
from audiopipe.types import ShardResult

__all__ = [
    "annotation_result",
    "commit_annotation",
    "publish_annotation",
    "read_annotation_commits",
    "remove_annotation",
    "reopen_annotation",
]


def annotation_result(shard: ShardResult, rows: int, scored: int, started_at: str) -> ShardResult:
    """Return the result of an annotated shard: what it shares with the shard, and its own counts.

    Args:
        shard: the result of the dataset's shard.
        rows: rows of the table.
        scored: how many of them were given to scorers, or read from a file.
    """
    return replace(
        shard,
        worker="local",
        videos_failed=0,
        segments=rows,
        segments_kept=scored,
        drops={},
        audio_s=0.0,
        kept_s=0.0,
        bytes_in=0,
        bytes_out=0,
        stage_s={},
        stage_cpu_s={},
        stage_items={},
        queue_depths={},
        wall_s=round((datetime.now(UTC) - datetime.fromisoformat(started_at)).total_seconds(), 3),
        started_at=started_at,
        finished_at=datetime.now(UTC).isoformat(),
        dead_letters=(),
    )


def read_annotation_commits(store: Store, record: AnnotationRecord, shards: Mapping[str, Commit]) -> dict[str, Commit]:
    """Read the commits of an annotation by shard, of those whose tables exist with their sizes.

    Args:
        shards: the commits of the dataset; what was made from another attempt's objects is left out.

    Raises:
        VerifyError: a commit is damaged.
    """
    sizes = store.list(record.folder)
    start, end = f"{record.folder}/", ".json"
    names = [name for name in sizes if name.endswith(end) and name != record.columns_name]
    commits = {
        name[len(start) : -len(end)]: Commit.from_json(body, name) for name, body in store.read_all(names).items()
    }
    return {
        shard: commit
        for shard, commit in commits.items()
        if all(sizes.get(item.name) == item.size for item in commit.objects)
        and shard in shards
        and commit.source == shards[shard].objects_digest
    }


def publish_annotation(store: Store, record: AnnotationRecord, shard: Commit) -> Commit | None:
    """Publish the table of a shard that is committed; return its commit, None if there is none.

    A commit whose table was lost, or was made before the shard was rebuilt from another source, is removed, so that the
    shard can be annotated again.

    Args:
        shard: the commit of the dataset.
    """
    name = record.commit_name(shard.result.shard)
    try:
        commit = Commit.from_json(store.read(name), name)
        if commit.source == shard.objects_digest:
            publish(store, commit)
            return commit
    except FileNotFoundError:
        return None
    except VerifyError:
        pass
    reopen_annotation(store, record, [shard.result.shard])
    return None


def commit_annotation(
    store: Store, record: AnnotationRecord, shard: Commit, result: ShardResult, table: pa.Table
) -> ShardResult:
    """Commit the table of a shard, unless another attempt was faster.

    Args:
        shard: the commit of the dataset.
        result: of the shard; its attempt and its bytes are set here.

    Returns:
        The result of the attempt that was committed.
    """
    attempt = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="audiopipe-annotation-") as folder:
        path = Path(folder) / "table"
        pq.write_table(table, path, compression="zstd")
        objects = upload(store, result.shard, attempt, {record.table_name(result.shard): path})
    result = replace(result, attempt=attempt, bytes_out=sum(item.size for item in objects))
    commit = Commit(result, objects, record.digest, shard.objects_digest)
    return commit_shard(store, commit, record.commit_name(result.shard))


def reopen_annotation(store: Store, record: AnnotationRecord, shards: Iterable[str]) -> None:
    """Remove the commits of shards, then their tables, so that these shards can be annotated again."""
    names = list(shards)
    store.remove_all([record.commit_name(shard) for shard in names])
    store.remove_all([record.table_name(shard) for shard in names])


def remove_annotation(store: Store, annotation_id: str) -> None:
    """Remove an annotation: its record, then its commits and tables. No process may be working on it.

    Args:
        annotation_id: its name and version, as `AnnotationRecord.id`.

    Raises:
        ConfigError: the annotation does not exist.
    """
    known = sorted({name.split("/")[1] for name in store.list(ANNOTATIONS)})
    if annotation_id not in known:
        raise ConfigError(f"{store.url} has no annotation '{annotation_id}': it has {', '.join(known) or 'none'}")
    record = f"{ANNOTATIONS}/{annotation_id}/{COLUMNS}"
    remove_backup(store, record)
    store.remove_all([record])
    store.remove(f"{ANNOTATIONS}/{annotation_id}")
