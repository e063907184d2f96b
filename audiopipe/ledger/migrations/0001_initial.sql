-- Tables, columns and the view have the names of the plan document; further columns make a run survive restarts.
-- Times are UTC, ISO 8601 text with milliseconds and a 'Z'. The name of a count says what it counts.

CREATE TABLE pipeline_runs (
  run_id TEXT PRIMARY KEY NOT NULL DEFAULT (
    lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-'
          || substr('89AB', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
  language TEXT NOT NULL,
  total_videos INTEGER NOT NULL,
  started_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  completed_at TEXT,
  status TEXT NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'incomplete', 'failed')),
  -- Start of the last session: rates exclude the time between two sessions.
  resumed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  output TEXT,
  config_digest TEXT,
  version TEXT,
  heartbeat_s REAL NOT NULL DEFAULT 10 CHECK (heartbeat_s > 0)
);

CREATE TABLE run_languages (
  run_id TEXT NOT NULL REFERENCES pipeline_runs (run_id),
  language TEXT NOT NULL,
  total_videos INTEGER NOT NULL,
  total_shards INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (run_id, language)
) WITHOUT ROWID;

CREATE TABLE worker_progress (
  run_id TEXT NOT NULL REFERENCES pipeline_runs (run_id),
  worker_id TEXT NOT NULL,
  -- A driver has a row too, so that a dead driver is detected; sums over workers exclude it.
  role TEXT NOT NULL DEFAULT 'worker' CHECK (role IN ('worker', 'driver')),
  partition_index INTEGER NOT NULL DEFAULT 0,
  partition_count INTEGER NOT NULL DEFAULT 1,
  hostname TEXT,
  instance_type TEXT,
  videos_total INTEGER NOT NULL DEFAULT 0,
  videos_processed INTEGER NOT NULL DEFAULT 0,
  segments_total INTEGER NOT NULL DEFAULT 0,
  segments_processed INTEGER NOT NULL DEFAULT 0,
  segments_dropped INTEGER NOT NULL DEFAULT 0,
  videos_per_minute REAL NOT NULL DEFAULT 0,
  segments_per_second REAL NOT NULL DEFAULT 0,
  gpu_utilization REAL NOT NULL DEFAULT 0,
  cpu_utilization REAL NOT NULL DEFAULT 0,
  memory_bytes INTEGER NOT NULL DEFAULT 0,
  gpu_memory_bytes INTEGER NOT NULL DEFAULT 0,
  status TEXT NOT NULL DEFAULT 'starting'
    CHECK (status IN ('starting', 'running', 'idle', 'stale', 'failed', 'done')),
  last_heartbeat TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  last_error TEXT,
  error_count INTEGER NOT NULL DEFAULT 0,
  started_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  PRIMARY KEY (run_id, worker_id)
);

CREATE TABLE shards (
  run_id TEXT NOT NULL REFERENCES pipeline_runs (run_id),
  shard TEXT NOT NULL,
  language TEXT NOT NULL,
  partition_index INTEGER NOT NULL DEFAULT 0,
  status TEXT NOT NULL CHECK (status IN ('failed', 'done')),
  attempts INTEGER NOT NULL DEFAULT 0,
  attempt TEXT,
  worker_id TEXT,
  device TEXT,
  videos INTEGER NOT NULL DEFAULT 0,
  videos_failed INTEGER NOT NULL DEFAULT 0,
  segments INTEGER NOT NULL DEFAULT 0,
  segments_kept INTEGER NOT NULL DEFAULT 0,
  drops TEXT NOT NULL DEFAULT '{}',
  audio_s REAL NOT NULL DEFAULT 0,
  kept_s REAL NOT NULL DEFAULT 0,
  bytes_in INTEGER NOT NULL DEFAULT 0,
  bytes_out INTEGER NOT NULL DEFAULT 0,
  stage_s TEXT NOT NULL DEFAULT '{}',
  wall_s REAL NOT NULL DEFAULT 0,
  error TEXT,
  started_at TEXT,
  finished_at TEXT,
  PRIMARY KEY (run_id, shard)
);
CREATE INDEX shards_by_finish ON shards (run_id, finished_at);
-- Covers every sum that the view and the monitor query.
CREATE INDEX shards_by_language ON shards (
  run_id, status, language, videos, videos_failed, segments, segments_kept, audio_s, kept_s, bytes_in, bytes_out);

CREATE TABLE processing_errors (
  id INTEGER PRIMARY KEY,
  worker_id TEXT,
  run_id TEXT,
  video_id TEXT,
  error_type TEXT,
  error_message TEXT,
  stack_trace TEXT,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  language TEXT,
  shard TEXT,
  stage TEXT,
  attempt INTEGER,
  retriable INTEGER,
  -- Identifies an error that is recorded twice: <shard>/<video> for a dead letter, a UUID for a failed attempt.
  event_id TEXT,
  -- Number of attempts before a video became a dead letter.
  attempts INTEGER NOT NULL DEFAULT 1,
  UNIQUE (run_id, event_id)
);

-- Updates not yet sent to a server, in order (`outbox.py`). Empty if the ledger has no server.
CREATE TABLE outbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL CHECK (kind IN ('start', 'shard', 'failure', 'worker', 'finish')),
  -- A newer row replaces an older row with the same key: only the last state of a worker matters.
  key TEXT UNIQUE,
  body TEXT NOT NULL,
  -- The reason why the server rejected the row. A rejected row is not sent again; it stays for inspection.
  refused TEXT
);

-- The server that has, together with the outbox, all rows of this file. A new server is sent everything.
CREATE TABLE sync_target (
  url TEXT PRIMARY KEY NOT NULL,
  since TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- The view of the plan document. `processed` sums the finished shards, so that a restart counts no video twice; for a
-- run without any (the plan document's reporter writes workers only) it sums the workers. Each side is summed before
-- the join.
CREATE VIEW run_progress AS
SELECT
  r.run_id,
  r.language,
  r.total_videos,
  COALESCE(s.processed, w.processed, 0) AS processed,
  COALESCE(w.assigned, 0) AS assigned,
  w.avg_rate,
  w.total_rate,
  COALESCE(w.active_workers, 0) AS active_workers,
  COALESCE(w.failed_workers, 0) AS failed_workers,
  (julianday(COALESCE(r.completed_at, 'now')) - julianday(r.started_at)) * 24 AS hours_elapsed,
  (r.total_videos - COALESCE(s.processed, w.processed, 0)) / NULLIF(w.total_rate, 0) / 60 AS hours_remaining
FROM pipeline_runs r
LEFT JOIN (
  SELECT run_id, SUM(videos) AS processed FROM shards WHERE status = 'done' GROUP BY run_id
) s ON s.run_id = r.run_id
LEFT JOIN (
  SELECT
    run_id,
    SUM(videos_processed) AS processed,
    SUM(videos_total) AS assigned,
    AVG(videos_per_minute) AS avg_rate,
    SUM(videos_per_minute) AS total_rate,
    COUNT(*) FILTER (WHERE status = 'running') AS active_workers,
    COUNT(*) FILTER (WHERE status = 'failed') AS failed_workers
  FROM worker_progress WHERE role = 'worker' GROUP BY run_id
) w ON w.run_id = r.run_id;
