"""Write the plan of a selection: for each shard the lists of its segments and videos, then the files of the plan.

    _selection/<shard>.segments.parquet   the rows of its segments, in order, with the place of each in the parent
    _selection/<shard>.videos.parquet     the rows of their videos
    _selection/summary.json               counts before and after, the shards of each split; written last

A video counts in the first shard that has a segment of it. The plan has a row for each such video; a shard whose videos
all count in earlier ones has one row without an id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from audiopipe.config import RunConfig
from audiopipe.dataset.checksum import add_checksum, verify_checksum
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.schema import RESERVED_COLUMNS, TAR_URL, VIDEOS_SCHEMA
from audiopipe.dataset.select_rows import Count, count_before, count_chosen, count_left_out
from audiopipe.dataset.selection import LISTS, SUMMARY, Selection, SelectionOptions
from audiopipe.dataset.sql import quote_text
from audiopipe.errors import VerifyError
from audiopipe.plan.files import PLAN_SCHEMA, PlanMetadata, plan_path, serialize
from audiopipe.store.objects import Store
from audiopipe.types import Shard, shard_name

__all__ = ["Pin", "ShardList", "has_plan", "read_list", "read_planned_videos", "read_summary", "write_plan"]

BATCH_ROWS = 4096
PINS = b"audiopipe"  # key of the metadata of a list: size and sha256 of each tar of the parent that it names
# Of the lists alone. With a space, they are never those of a scorer or an annotation.
NEW_SHARD, SAMPLE_BYTES = "new shard", "sample bytes"

Key = tuple[str, int]


class Pin(NamedTuple):
    """Size and sha256 of a committed tar, and the end of the attempt that made it, in ISO format."""

    size: int
    sha256: str
    finished_at: str


@dataclass(frozen=True)
class ShardList:
    """The segments and videos of a shard of a selection.

    Attributes:
        segments: the rows in the order of the tar; `parent_tar` and `parent_offset` say where the audio is.
        sample_bytes: for each the bytes from its audio to that of the next sample of its tar; None where not known.
        videos: rows of `VIDEOS_SCHEMA`.
        new_videos: number of the videos that count in this shard.
        tars: what is known of the tars of the parent, by name.
    """

    segments: pa.Table
    sample_bytes: list[int | None]
    videos: pa.Table
    new_videos: int
    tars: Mapping[str, Pin]


def has_plan(dest: Store) -> bool:
    """Check whether the plan of a selection is complete."""
    return dest.size(SUMMARY) is not None


def write_plan(
    connection: duckdb.DuckDBPyConnection,
    dest: Store,
    config: RunConfig,
    selection: Selection,
    commits: Mapping[str, Commit],
) -> None:
    """Write the lists, the plan and the summary. An interrupted one is written again, with the same bytes.

    Args:
        commits: those of the parent.
    """
    options = selection.options
    pins = {
        item.name: Pin(item.size, item.sha256, commit.result.finished_at)
        for commit in commits.values()
        for item in commit.objects
        if item.name.endswith(".tar")
    }
    segments = _Stream(connection, _segments_sql(connection, options, selection.url))
    videos = _Stream(connection, VIDEOS_SQL)
    plan: dict[str, list[pa.Table]] = {}
    for language, shard, size in _shards(connection, options, commits):
        name = shard_name(language, shard)
        rows, video_rows = segments.take((language, shard)), videos.take((language, shard))
        tars = {tar: pins[tar] for tar in pc.unique(rows["parent_tar"]).to_pylist() if tar in pins}
        dest.write(_list_name(name, "segments"), _to_parquet(rows.replace_schema_metadata({PINS: json.dumps(tars)})))
        dest.write(_list_name(name, "videos"), _to_parquet(video_rows))
        plan.setdefault(language, []).append(_plan_rows(language, shard, size, video_rows))
    metadata = PlanMetadata.of(config, generation=0, kind="select")
    for language, tables in sorted(plan.items()):
        dest.write(plan_path(language, 0), serialize(pa.concat_tables(tables), metadata))
    dest.write(SUMMARY, add_checksum(_summarize(connection)))


def read_list(dest: Store, shard: str) -> ShardList:
    """Read the lists of a shard.

    Raises:
        VerifyError: one is missing or damaged.
    """
    segments, videos = (_read_table(dest, _list_name(shard, kind)) for kind in ("segments", "videos"))
    tars = json.loads((segments.schema.metadata or {}).get(PINS, b"{}"))
    return ShardList(
        segments.drop_columns([SAMPLE_BYTES]).replace_schema_metadata(),
        segments[SAMPLE_BYTES].to_pylist(),
        videos.select(VIDEOS_SCHEMA.names).cast(VIDEOS_SCHEMA),
        sum(videos["is_new"].to_pylist()),
        {name: Pin(*pin) for name, pin in tars.items()},
    )


def read_planned_videos(dest: Store, shard: Shard) -> list[tuple[str, str]]:
    """Return id and address of the videos that a shard of a selection has; raises as `read_list`."""
    table = _read_table(dest, _list_name(shard.name, "videos"))
    return list(zip(table["video_id"].to_pylist(), table["uri"].to_pylist(), strict=True))


def read_summary(dest: Store) -> dict[str, Any]:
    """Read the counts of a selection; raise `VerifyError` if they are missing or damaged."""
    try:
        return verify_checksum(dest.read(SUMMARY), SUMMARY)
    except FileNotFoundError:
        raise VerifyError(f"{SUMMARY} is missing: run the same select again") from None


class _Stream:
    """Reads rows that are sorted by language and new shard, a shard at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, sql: str) -> None:
        self._reader = connection.cursor().sql(sql).to_arrow_reader(BATCH_ROWS)
        self._rest = self._reader.schema.empty_table()

    def take(self, key: Key) -> pa.Table:
        """Return the rows of the next shard, without the column of the shard; none if it has none."""
        parts: list[pa.Table] = []
        while True:
            matches = pc.and_(
                pc.equal(self._rest["language"], key[0]), pc.equal(self._rest[NEW_SHARD], pa.scalar(key[1]))
            )
            count = pc.sum(matches).as_py() or 0
            parts.append(self._rest.slice(0, count))
            if count < self._rest.num_rows:
                self._rest = self._rest.slice(count)
                break
            try:
                self._rest = pa.Table.from_batches([self._reader.read_next_batch()])
            except StopIteration:
                self._rest = self._reader.schema.empty_table()
                break
        return pa.concat_tables(parts).drop_columns([NEW_SHARD]).combine_chunks()


def _segments_sql(connection: duckdb.DuckDBPyConnection, options: SelectionOptions, parent_url: str) -> str:
    columns = connection.table("segments").columns
    old = ", ".join(f"s.{name}" for name in RESERVED_COLUMNS if name in columns)
    split = "coalesce(p.split, s.split)" if "split" in columns else "p.split"
    exclude = f"EXCLUDE ({old})" if old else ""
    is_address = "contains(p.tar, '://') OR starts_with(p.tar, '/')"
    url = f", if({is_address}, p.tar, {quote_text(f'{parent_url}/')} || p.tar) AS {TAR_URL}" if options.virtual else ""
    return f"""SELECT p.new_shard AS "{NEW_SHARD}", p.sample_bytes AS "{SAMPLE_BYTES}", s.* {exclude} REPLACE (
            p.new_shard AS shard, true AS kept, NULL::VARCHAR AS drop_reason),
        {split} AS split, s.shard AS parent_shard, p.tar AS parent_tar, s.tar_offset AS parent_offset {url}
    FROM placed p JOIN segments s ON (p.language = s.language AND p.shard = s.shard AND p.key = s.key)
    ORDER BY s.language, p.new_shard, p.number, p.position, s.key"""


VIDEOS_SQL = f"""SELECT p.new_shard AS "{NEW_SHARD}", p.is_new, v.* REPLACE (
        p.new_shard AS shard, p.segments::INTEGER AS segments, p.segments::INTEGER AS segments_kept,
        NULL::BLOB AS fingerprint),
    p.seconds
FROM (
    SELECT language, video_id, new_shard, count(*) AS segments, sum(round(duration_s * 1e6)::BIGINT) / 1e6 AS seconds,
        new_shard = min(new_shard) OVER (PARTITION BY language, video_id) AS is_new
    FROM placed GROUP BY language, video_id, new_shard) p
JOIN videos v ON (p.language = v.language AND p.video_id = v.video_id)
ORDER BY v.language, p.new_shard, v.video_id"""


def _shards(
    connection: duckdb.DuckDBPyConnection, options: SelectionOptions, commits: Mapping[str, Commit]
) -> Iterator[tuple[str, int, int]]:
    """Yield language, number and bytes of each shard in order; a virtual selection has those of its parent."""
    sql = "SELECT language, new_shard, sum(bytes)::BIGINT FROM placed GROUP BY ALL ORDER BY ALL"
    sizes = {(language, shard): size for language, shard, size in connection.sql(sql).fetchall()}
    if options.virtual:
        languages = {language for language, _ in sizes}
        parts = [name.rpartition("-") for name in commits]
        sizes |= {
            (language, int(shard)): 0
            for language, _, shard in parts
            if language in languages and (language, int(shard)) not in sizes
        }
    return ((*key, size) for key, size in sorted(sizes.items()))


def _plan_rows(language: str, shard: int, size: int, videos: pa.Table) -> pa.Table:
    new = videos.filter(videos["is_new"])
    ids, uris, seconds = (new[name].to_pylist() for name in ("video_id", "uri", "seconds"))
    if not ids:
        ids, uris, seconds = [""], [""], [0.0]
    count = len(ids)
    columns = {
        "shard": [shard] * count,
        "position": list(range(count)),
        "partition": [0] * count,
        "video_id": ids,
        "language": [language] * count,
        "uri": uris,
        "size_bytes": [size, *[None] * (count - 1)],
        "duration_s": seconds,
        "sidecars": [None] * count,
    }
    return pa.table(columns, schema=PLAN_SCHEMA)


def _summarize(connection: duckdb.DuckDBPyConnection) -> dict[str, object]:
    """Describe the choice in numbers: {language: {reason or split: {segments, hours}}}, and the shards of splits."""
    splits: dict[str, dict[str, list[int]]] = {}
    sql = """SELECT language, split, min(new_shard), max(new_shard) + 1 FROM placed WHERE split IS NOT NULL
    GROUP BY language, split, number ORDER BY language, number"""
    for language, split, first, end in connection.sql(sql).fetchall():
        splits.setdefault(language, {})[split] = [first, end]
    return {
        "before": _by_language(count_before(connection), "kept"),
        "after": _by_language(count_chosen(connection), "all"),
        "left_out": _by_language(count_left_out(connection), "unknown"),
        "splits": splits,
    }


def _by_language(counts: Sequence[Count], missing: str) -> dict[str, dict[str, dict[str, int | float]]]:
    table: dict[str, dict[str, dict[str, int | float]]] = {}
    for count in counts:
        labels = table.setdefault(count.language, {})
        labels[count.label or missing] = {"segments": count.segments, "hours": count.hours}
    return table


def _list_name(shard: str, kind: str) -> str:
    return f"{LISTS}/{shard}.{kind}.parquet"


def _to_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _read_table(dest: Store, name: str) -> pa.Table:
    try:
        data = dest.read(name)
        with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True) as file:
            return file.read(use_threads=False)
    except FileNotFoundError:
        problem = "missing"
    except (pa.ArrowException, OSError) as error:
        problem = f"damaged ({error})"
    raise VerifyError(f"{name} of {dest.url} is {problem}; make the selection again in another folder")
