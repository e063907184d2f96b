"""Choose the segments of a selection, and the shard and place of each, with DuckDB and out of core.

What is computed here depends on the tables of the parent and on the options alone. Hashes are MD5 and sums are of whole
microseconds and bytes, so that neither threads nor DuckDB's version change a result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from audiopipe.conditions import Condition, parse_condition
from audiopipe.dataset.annotations import Annotation, annotation_paths, join_annotations
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.duplicates import TABLE as DUPLICATES
from audiopipe.dataset.duplicates import read_duplicates
from audiopipe.dataset.schema import TAR_URL, object_names
from audiopipe.dataset.selection import SelectionOptions
from audiopipe.dataset.split_groups import group_videos
from audiopipe.dataset.sql import quote_name, quote_text
from audiopipe.errors import ConfigError
from audiopipe.parameter_messages import suggest
from audiopipe.store.objects import Store

__all__ = ["Count", "choose_rows", "count_before", "count_chosen", "count_left_out", "open_parent", "resolve_options"]

LOG = logging.getLogger(__name__)

MEMORY_LIMIT = "1GB"
SIDECAR_BYTES = 2048  # of the last sample of a tar, whose end no row says; it counts for the size of tars only
LAST_VIDEOS = """
CREATE VIEW videos AS SELECT * FROM video_rows
QUALIFY row_number() OVER (PARTITION BY language, video_id ORDER BY shard DESC) = 1
"""
MICROSECONDS = "round(duration_s * 1e6)::BIGINT"


class Count(NamedTuple):
    """A number of segments and their hours, by language and a reason, a split or None."""

    language: str
    label: str | None
    segments: int
    hours: float


@contextmanager
def open_parent(
    parent: Store, commits: Mapping[str, Commit], annotations: Sequence[Annotation], folder: Path
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database on disk with the views `segments` (annotations joined) and `videos` of what is committed.

    It can reach nothing but the parent's tables and the scratch folder.
    """
    results = {(commit.result.language, commit.result.index) for commit in commits.values()}
    names = [object_names(*shard) for shard in sorted(results)]
    segments, videos = ([parent.address(roles[role]) for roles in names] for role in ("segments", "videos"))
    with duckdb.connect(str(folder / "selection.duckdb")) as connection:
        if parent.local_folder is None:
            connection.register_filesystem(parent.fs)
        connection.execute("SET temp_directory = $folder", {"folder": str(folder / "spill")})
        paths = [*segments, *videos, *annotation_paths(parent, annotations, commits.keys())]
        connection.execute("SET allowed_paths = $paths", {"paths": paths})
        for setting in (f"memory_limit = '{MEMORY_LIMIT}'", "preserve_insertion_order = false"):
            connection.execute(f"SET {setting}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        rows = connection.read_parquet(segments, union_by_name=True)
        join_annotations(connection, rows, parent, annotations, commits.keys()).create_view("segments")
        connection.read_parquet(videos, union_by_name=True).create_view("video_rows")
        connection.execute(LAST_VIDEOS)
        yield connection


def resolve_options(connection: duckdb.DuckDBPyConnection, options: SelectionOptions) -> Condition:
    """Check condition, column and languages of the options against the parent; return the condition.

    Raises:
        ConfigError: the condition is not valid, or a column or language does not exist.
    """
    rows = connection.table("segments")
    columns = dict(zip(rows.columns, map(str, rows.types), strict=True))
    condition = parse_condition(options.where, columns)
    known = [language for (language,) in connection.sql("SELECT DISTINCT language FROM segments ORDER BY 1").fetchall()]
    for language in options.languages or ():
        if language not in known:
            raise ConfigError(f"the dataset has no language '{language}': {suggest(language, known)}")
    if options.rank_by is not None and options.rank_by not in columns:
        raise ConfigError(f"rank_by: unknown column '{options.rank_by}': {suggest(options.rank_by, columns)}")
    return condition


def choose_rows(
    connection: duckdb.DuckDBPyConnection, parent: Store, options: SelectionOptions, condition: Condition
) -> int:
    """Create the table `placed`: language, shard and key of each chosen segment, its bytes in the parent, its place.

    Returns:
        The number of chosen segments.

    Raises:
        ConfigError: the condition cannot be computed for a row, or the dataset does not have a table of duplicates.
    """
    duplicates = _duplicates(parent) if options.unique else pa.table({"language": [""], "video_id": [""]})
    connection.from_arrow(duplicates).create("duplicates")
    _run(connection, _locate_sql(connection, options, condition))
    chosen = "CREATE TABLE chosen AS SELECT * FROM located WHERE reason IS NULL"
    if options.hours is not None:
        order = f"rank {'DESC' if options.descending else 'ASC'} NULLS LAST, language, key, shard"
        total = f"sum({MICROSECONDS}) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING)"
        chosen += f" QUALIFY {total} <= {round(options.hours * 3_600_000_000)}"
    _run(connection, chosen)
    _assign_splits(connection, options)
    _run(connection, _place_sql(options))
    [(count,)] = connection.sql("SELECT count(*) FROM placed").fetchall()
    return int(count)


def count_before(connection: duckdb.DuckDBPyConnection) -> list[Count]:
    """Count the segments of the parent by language and drop reason; the reason of kept ones is None."""
    return _counts(connection, "SELECT language, if(kept, NULL, drop_reason) AS label, duration_s FROM segments")


def count_chosen(connection: duckdb.DuckDBPyConnection) -> list[Count]:
    """Count the chosen segments by language and split."""
    return _counts(connection, "SELECT language, split AS label, duration_s FROM placed")


def count_left_out(connection: duckdb.DuckDBPyConnection) -> list[Count]:
    """Count the segments that were not chosen by language and reason: a part of the condition, or an option."""
    return _counts(
        connection,
        "SELECT located.language, coalesce(reason, 'beyond hours') AS label, located.duration_s FROM located "
        "ANTI JOIN placed USING (language, shard, key)",
    )


def _counts(connection: duckdb.DuckDBPyConnection, rows: str) -> list[Count]:
    sql = f"""SELECT language, label, count(*), sum({MICROSECONDS})::BIGINT FROM ({rows}) GROUP BY ALL
    ORDER BY language, label NULLS FIRST"""
    rows_of_counts = connection.sql(sql).fetchall()
    return [
        Count(language, label, count, round(us / 3_600_000_000, 4)) for language, label, count, us in rows_of_counts
    ]


def _duplicates(parent: Store) -> pa.Table:
    """Return language and video of the duplicates."""
    if parent.size(DUPLICATES) is None:
        raise ConfigError(
            f"{parent.url} has no {DUPLICATES}, which --unique needs: a finished run with duplicate_similarity has it"
        )
    table = read_duplicates(parent)
    return table.filter(table["left_out"]).select(["language", "video_id"])


def _locate_sql(connection: duckdb.DuckDBPyConnection, options: SelectionOptions, condition: Condition) -> str:
    """Write the query for the table `located`: all segments, where their samples are, why one is left out."""
    tests = [(f"({part}) IS NOT TRUE", part) for part in condition.parts]
    if options.languages is not None:
        listed = ", ".join(map(quote_text, options.languages))
        tests.insert(0, (f"language NOT IN ({listed})", "language"))
    tests.append(("tar_offset IS NULL", "no audio"))
    tests.append(("(language, video_id) IN (FROM duplicates)", "duplicate"))
    reason = " ".join(f"WHEN {test} THEN {quote_text(label)}" for test, label in tests)
    is_virtual = TAR_URL in connection.table("segments").columns
    tar = TAR_URL if is_virtual else "format('{}/{}_{:06d}.tar', language, if(kept, 'audio', 'dropped'), shard)"
    # The next sample of a tar begins where this one ends. A virtual parent has not all samples of its tars.
    size = (
        "NULL::BIGINT" if is_virtual else f"lead(tar_offset) OVER (PARTITION BY {tar} ORDER BY tar_offset) - tar_offset"
    )
    rank = quote_name(options.rank_by) if options.rank_by else "NULL"
    return f"""CREATE TABLE located AS
    SELECT language, shard, key, video_id, speaker, duration_s, {tar} AS tar, tar_offset,
        audio_bytes, {size} AS sample_bytes, {rank} AS rank, CASE {reason} END AS reason
    FROM segments"""


def _assign_splits(connection: duckdb.DuckDBPyConnection, options: SelectionOptions) -> None:
    """Create the table `splits`: the split of each video, by the hash of the video or of its group."""
    if options.split_by == "speaker" and options.splits:
        pairs = connection.sql("SELECT DISTINCT video_id, speaker FROM chosen ORDER BY ALL").fetchall()
        groups = group_videos(pairs)
        table = pa.table({"video_id": list(groups), "leader": list(groups.values())})
    else:
        table = pa.table({"video_id": pa.array([], pa.string()), "leader": pa.array([], pa.string())})
    connection.from_arrow(table).create("leaders")
    share = "('0x' || left(md5(coalesce(leader, video_id)), 13))::BIGINT / 4503599627370496.0"
    limits, total = [], 0.0
    for number, (_, part) in enumerate(options.splits[:-1]):
        total += part
        limits.append(f"WHEN share < {total!r} THEN {number}")
    names = " ".join(f"WHEN {number} THEN {quote_text(name)}" for number, (name, _) in enumerate(options.splits))
    choice = f"CASE {' '.join(limits)} ELSE {len(options.splits) - 1} END" if limits else "0"
    name = f"CASE number {names} END" if names else "NULL::VARCHAR"
    _run(
        connection,
        f"""CREATE TABLE splits AS SELECT video_id, number, {name} AS split FROM (
        SELECT video_id, {choice} AS number FROM (
        SELECT video_id, {share} AS share FROM (SELECT DISTINCT video_id FROM chosen) LEFT JOIN leaders USING (video_id)
        ))""",
    )
    _warn_about_splits(connection, options)


def _warn_about_splits(connection: duckdb.DuckDBPyConnection, options: SelectionOptions) -> None:
    """Warn about splits that are empty, and about speakers that connect more than half of the videos."""
    videos = dict(connection.sql("SELECT split, count(*) FROM splits GROUP BY split").fetchall())
    if empty := [name for name, _ in options.splits if name not in videos]:
        LOG.warning("no video is in split %s: a split by hash has only about its share of the videos", ", ".join(empty))
    groups = connection.sql("SELECT count(*) FROM leaders GROUP BY leader ORDER BY 1 DESC LIMIT 1").fetchall()
    total = sum(videos.values())
    if groups and total > 1 and groups[0][0] > total / 2:
        LOG.warning(
            "%d of %d videos are connected by speakers, so that they are in one split: labels that begin again in each "
            "video, such as S1 of the scorer speakers, connect all of them; split by video then",
            groups[0][0],
            total,
        )


def _place_sql(options: SelectionOptions) -> str:
    """Write the query for the table `placed`: in each language and split, the order is cut into equal shards."""
    order = "shard, tar, tar_offset, key"
    if options.shuffle is not None:
        order = f"md5({quote_text(f'{options.shuffle}:')} || language || '/' || key), {order}"
    limit = options.shard_mb * 1_000_000
    new_shard = "dense_rank() OVER (PARTITION BY language ORDER BY number, (start * ((total + limit_bytes - 1) // "
    new_shard += "limit_bytes)) // total) - 1"
    size = f"coalesce(sample_bytes, 512 * ((audio_bytes + 511) // 512) + 1024 + {SIDECAR_BYTES})"
    return f"""CREATE TABLE placed AS
    SELECT language, shard, key, video_id, duration_s, tar, tar_offset, sample_bytes, split, bytes, start AS position,
        number, ({"shard" if options.virtual else new_shard})::INTEGER AS new_shard
    FROM (
        SELECT *, {limit}::HUGEINT AS limit_bytes, sum(bytes) OVER (PARTITION BY language, number) AS total,
            sum(bytes) OVER (PARTITION BY language, number ORDER BY {order} ROWS UNBOUNDED PRECEDING) - bytes AS start
        FROM (SELECT *, {size} AS bytes FROM chosen JOIN splits USING (video_id)))"""


def _run(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Run a statement; what DuckDB says of values that a condition cannot take becomes a ConfigError."""
    try:
        connection.execute(sql)
    except duckdb.DataError as error:
        raise ConfigError(f"the condition cannot be computed for all segments: {error}") from None
