"""Open the tables of an output as a DuckDB database that can reach nothing but their files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa

from audiopipe.dataset.annotations import Annotation, annotation_paths, join_annotations
from audiopipe.dataset.schema import VIDEOS_SCHEMA, object_names
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.store.objects import Store

__all__ = ["checked", "choose", "open_database"]

Result = TypeVar("Result")

# A video that was tried again has a row in each shard that the plan has it in, and a video of a selection in each shard
# that has segments of it.
LAST_VIDEOS = """
CREATE VIEW videos AS SELECT * REPLACE (
    (sum(segments) OVER video)::INTEGER AS segments, (sum(segments_kept) OVER video)::INTEGER AS segments_kept)
FROM video_attempts WINDOW video AS (PARTITION BY language, video_id)
QUALIFY row_number() OVER (PARTITION BY language, video_id ORDER BY shard DESC) = 1
"""


def open_database(
    store: Store,
    shards: Mapping[str, tuple[str, int]],
    schema: pa.Schema,
    conditions: Sequence[str] = (),
    annotations: Sequence[Annotation] = (),
    threads: int | None = None,
    with_videos: bool = False,
) -> duckdb.DuckDBPyConnection:
    """Open a database with the tables `segments` and `videos` of some shards.

    Args:
        shards: the language and number of each, by name.
        schema: of the table of segments, for an output without shards.
        conditions: SQL conditions that hold for the rows of `segments`.
        annotations: whose columns `segments` gets.
        threads: of DuckDB; by default one per core.
        with_videos: add the table `videos`, which takes a read of each of its files.

    Raises:
        VerifyError: a table of the output is missing or cannot be read.
    """
    connection = duckdb.connect()
    if store.local_folder is None:
        connection.register_filesystem(store.fs)
    segments = _addresses(store, shards.values(), "segments")
    videos = _addresses(store, shards.values(), "videos") if with_videos else []
    added = annotation_paths(store, annotations, shards.keys())
    if store.local_folder is not None:
        _check_present(store, [*segments, *videos, *added])
    if threads is not None:
        connection.execute(f"SET threads = {threads}")
    connection.execute("SET enable_progress_bar = false")  # in a notebook, slow queries would add outputs to a cell
    connection.execute("SET allowed_paths = $paths", {"paths": segments + videos + added})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    rows = _table(connection, store, segments, schema)
    if annotations:
        rows = join_annotations(connection, rows, store, annotations, shards.keys())
    for condition in conditions:
        rows = choose(rows, condition)
    rows.create_view("segments")
    if with_videos:
        _table(connection, store, videos, VIDEOS_SCHEMA).create_view("video_attempts")
        connection.execute(LAST_VIDEOS)
    return connection


def choose(rows: duckdb.DuckDBPyRelation, condition: str | None) -> duckdb.DuckDBPyRelation:
    """Return the rows that a condition holds for; raise ConfigError if it is not valid SQL."""
    return rows if condition is None else checked(lambda: rows.filter(condition))


def checked(run: Callable[[], Result]) -> Result:
    """Run a query; what DuckDB says of wrong SQL becomes a ConfigError."""
    try:
        return run()
    except (duckdb.ProgrammingError, duckdb.DataError, duckdb.PermissionException) as error:
        raise ConfigError(f"the condition or query is not valid: {error}") from None


def _addresses(store: Store, shards: Iterable[tuple[str, int]], role: str) -> list[str]:
    """List tables as DuckDB opens them."""
    return [store.address(object_names(*shard)[role]) for shard in sorted(shards)]


def _check_present(store: Store, paths: Iterable[str]) -> None:
    """Raise VerifyError if a file is missing: for DuckDB, it is one that must not be opened."""
    if missing := [path for path in paths if not Path(path).exists()]:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise VerifyError(f"{store.url} lacks {missing[0]}{more}, which its commits have")


def _table(
    connection: duckdb.DuckDBPyConnection, store: Store, paths: list[str], schema: pa.Schema
) -> duckdb.DuckDBPyRelation:
    if not paths:
        return connection.from_arrow(schema.empty_table())
    try:
        return connection.read_parquet(paths)
    except (duckdb.Error, OSError) as error:
        raise VerifyError(f"a table of {store.url} cannot be read: {error}") from error
