"""SQL of the SQLite ledger: longer statements as constants, and functions that build INSERT statements."""

from __future__ import annotations

import json
from collections.abc import Mapping

from audiopipe.ledger.record import RowValues

__all__ = [
    "COUNTERS",
    "FINISH_RUN",
    "LANGUAGES",
    "MARK_STALE",
    "NEWEST_SHARDS",
    "REOPEN_RUN",
    "RESUME_RUN",
    "STALE_HEARTBEATS",
    "build_assignments",
    "build_insert",
]

STALE_HEARTBEATS = 3  # missed heartbeats after which a worker or driver counts as stale

ALIVE = "('starting', 'running', 'idle')"

# Drivers with a recent heartbeat, except those whose successor on the same partition started after it.
DRIVERS_ALIVE = f"""
    SELECT 1 FROM worker_progress d WHERE d.run_id = :run_id AND d.role = 'driver' AND d.status IN {ALIVE}
    AND julianday(:now) - julianday(d.last_heartbeat) < {STALE_HEARTBEATS} * pipeline_runs.heartbeat_s / 86400.0
    AND NOT EXISTS (
        SELECT 1 FROM worker_progress n WHERE n.run_id = d.run_id AND n.role = 'driver'
        AND n.worker_id <> d.worker_id AND n.partition_index = d.partition_index AND n.started_at > d.last_heartbeat)"""

# A driver that joins a running run does not start a session, so the window of the rates keeps its start.
RESUME_RUN = f"""
    UPDATE pipeline_runs SET status = 'running', completed_at = NULL, language = :language,
    total_videos = :total_videos, output = :output, config_digest = :config_digest, version = :version,
    heartbeat_s = :heartbeat_s,
    resumed_at = CASE WHEN status = 'running' AND EXISTS ({DRIVERS_ALIVE}) THEN resumed_at ELSE :now END
    WHERE run_id = :run_id"""

FINISH_RUN = f"""
    UPDATE pipeline_runs SET completed_at = :now, status = CASE WHEN :status = 'done' AND (
        SELECT COALESCE(SUM(total_shards), 0) FROM run_languages WHERE run_id = :run_id
    ) > (SELECT COUNT(*) FROM shards WHERE run_id = :run_id AND status = 'done') THEN 'incomplete' ELSE :status END
    WHERE run_id = :run_id AND NOT EXISTS ({DRIVERS_ALIVE})"""

# Workers and drivers without a heartbeat for some periods before `now` are stale.
MARK_STALE = f"""
    UPDATE worker_progress SET status = 'stale', videos_per_minute = 0, segments_per_second = 0, updated_at = :now
    WHERE run_id = :run_id AND status IN {ALIVE} AND (julianday(:now) - julianday(last_heartbeat)) * 86400.0
    > {STALE_HEARTBEATS} * (SELECT heartbeat_s FROM pipeline_runs WHERE run_id = :run_id)"""

# A heartbeat of a driver after the end of the run shows that the run goes on.
REOPEN_RUN = f"""
    UPDATE pipeline_runs SET status = 'running', completed_at = NULL WHERE run_id = :run_id AND completed_at < (
        SELECT MAX(last_heartbeat) FROM worker_progress WHERE run_id = :run_id AND role = 'driver'
        AND status IN {ALIVE})"""

COUNTERS = (
    "videos_total",
    "videos_processed",
    "segments_total",
    "segments_processed",
    "segments_dropped",
    "error_count",
)

LANGUAGES = """
    SELECT l.language, l.total_videos, l.total_shards, COALESCE(s.processed, 0) AS processed,
    COALESCE(s.failed, 0) AS failed, COALESCE(s.shards_done, 0) AS shards_done, COALESCE(s.segments, 0) AS segments,
    COALESCE(s.kept, 0) AS kept, COALESCE(s.audio_s, 0) AS audio_s, COALESCE(s.kept_s, 0) AS kept_s,
    COALESCE(s.bytes_in, 0) AS bytes_in, COALESCE(s.bytes_out, 0) AS bytes_out
    FROM run_languages l LEFT JOIN (
        SELECT language, SUM(videos) AS processed, SUM(videos_failed) AS failed, COUNT(*) AS shards_done,
        SUM(segments) AS segments, SUM(segments_kept) AS kept, SUM(audio_s) AS audio_s, SUM(kept_s) AS kept_s,
        SUM(bytes_in) AS bytes_in, SUM(bytes_out) AS bytes_out
        FROM shards WHERE run_id = :run_id AND status = 'done' GROUP BY language
    ) s ON s.language = l.language WHERE l.run_id = :run_id ORDER BY l.language"""

# Only the columns that rates and sparklines need.
NEWEST_SHARDS = """
    SELECT shard, language, status, videos, segments, audio_s, worker_id, finished_at FROM shards
    WHERE run_id = ? ORDER BY finished_at DESC, shard LIMIT ?"""


def build_insert(table: str, row: Mapping[str, object], *, keep_null: bool = False) -> tuple[str, RowValues]:
    """Build an INSERT and its values; without `keep_null`, a None leaves the column to its default."""
    values = {name: _to_sql(value) for name, value in row.items() if keep_null or value is not None}
    columns, placeholders = ", ".join(values), ", ".join(f":{name}" for name in values)
    return f"INSERT INTO {table} ({columns}) VALUES ({placeholders})", values


def build_assignments(columns: Mapping[str, object], **expressions: str) -> str:
    """Build the SET list of an upsert: the inserted value of each column, or its expression."""
    return ", ".join(f"{name} = {expressions.get(name, f'excluded.{name}')}" for name in columns)


def _to_sql(value: object) -> object:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
