-- The plan's tables, columns and view with their names, and what they need to survive restarts. The same tables as the
-- SQLite ledger has (audiopipe/ledger/migrations). Run ids are text: a run may be named, and a UUID is text as well.
-- `supabase db push --workdir cluster` applies the files of this folder in order; applying them again changes nothing.

-- Supabase has these roles. On a bare PostgreSQL they are made, so that the same file serves both.
DO $$
DECLARE
  name TEXT;
BEGIN
  FOREACH name IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = name) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN%s', name, CASE name WHEN 'service_role' THEN ' BYPASSRLS' ELSE '' END);
    END IF;
  END LOOP;
END $$;
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;

CREATE TABLE IF NOT EXISTS pipeline_runs (
  run_id TEXT PRIMARY KEY DEFAULT gen_random_uuid()::TEXT,
  language TEXT NOT NULL,
  total_videos INT NOT NULL,
  started_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  completed_at TIMESTAMPTZ,
  status TEXT NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'incomplete', 'failed')),
  -- Rates count from the last start only, so that the time between two sessions is not work.
  resumed_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  output TEXT,
  config_digest TEXT,
  version TEXT,
  heartbeat_s FLOAT NOT NULL DEFAULT 10 CHECK (heartbeat_s > 0)
);
CREATE INDEX IF NOT EXISTS pipeline_runs_by_start ON pipeline_runs (started_at DESC);

CREATE TABLE IF NOT EXISTS run_languages (
  run_id TEXT NOT NULL REFERENCES pipeline_runs (run_id),
  language TEXT NOT NULL,
  total_videos INT NOT NULL,
  total_shards INT NOT NULL DEFAULT 0,
  PRIMARY KEY (run_id, language)
);

CREATE TABLE IF NOT EXISTS worker_progress (
  run_id TEXT NOT NULL REFERENCES pipeline_runs (run_id),
  worker_id TEXT NOT NULL,
  -- A driver has a row too, so that a dead one is seen; it is not counted as a worker.
  role TEXT NOT NULL DEFAULT 'worker' CHECK (role IN ('worker', 'driver')),
  partition_index INT NOT NULL DEFAULT 0,
  partition_count INT NOT NULL DEFAULT 1,
  hostname TEXT,
  instance_type TEXT,
  videos_total INT NOT NULL DEFAULT 0,
  videos_processed INT NOT NULL DEFAULT 0,
  segments_total INT NOT NULL DEFAULT 0,
  segments_processed INT NOT NULL DEFAULT 0,
  segments_dropped INT NOT NULL DEFAULT 0,
  videos_per_minute FLOAT NOT NULL DEFAULT 0,
  segments_per_second FLOAT NOT NULL DEFAULT 0,
  gpu_utilization FLOAT NOT NULL DEFAULT 0,
  cpu_utilization FLOAT NOT NULL DEFAULT 0,
  memory_bytes BIGINT NOT NULL DEFAULT 0,
  gpu_memory_bytes BIGINT NOT NULL DEFAULT 0,
  status TEXT NOT NULL DEFAULT 'starting'
    CHECK (status IN ('starting', 'running', 'idle', 'stale', 'failed', 'done')),
  last_heartbeat TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  last_error TEXT,
  error_count INT NOT NULL DEFAULT 0,
  started_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  PRIMARY KEY (run_id, worker_id)
);

CREATE TABLE IF NOT EXISTS shards (
  run_id TEXT NOT NULL REFERENCES pipeline_runs (run_id),
  shard TEXT NOT NULL,
  language TEXT NOT NULL,
  partition_index INT NOT NULL DEFAULT 0,
  status TEXT NOT NULL CHECK (status IN ('failed', 'done')),
  attempts INT NOT NULL DEFAULT 0,
  attempt TEXT,
  worker_id TEXT,
  device TEXT,
  videos INT NOT NULL DEFAULT 0,
  videos_failed INT NOT NULL DEFAULT 0,
  segments INT NOT NULL DEFAULT 0,
  segments_kept INT NOT NULL DEFAULT 0,
  drops JSONB NOT NULL DEFAULT '{}',
  audio_s FLOAT NOT NULL DEFAULT 0,
  kept_s FLOAT NOT NULL DEFAULT 0,
  bytes_in BIGINT NOT NULL DEFAULT 0,
  bytes_out BIGINT NOT NULL DEFAULT 0,
  stage_s JSONB NOT NULL DEFAULT '{}',
  wall_s FLOAT NOT NULL DEFAULT 0,
  error TEXT,
  started_at TIMESTAMPTZ,
  finished_at TIMESTAMPTZ,
  PRIMARY KEY (run_id, shard)
);
CREATE INDEX IF NOT EXISTS shards_by_finish ON shards (run_id, finished_at DESC NULLS LAST, shard);
-- Covers every sum that the view and the monitor ask for.
CREATE INDEX IF NOT EXISTS shards_by_language ON shards (run_id, status, language)
  INCLUDE (videos, videos_failed, segments, segments_kept, audio_s, kept_s, bytes_in, bytes_out);

CREATE TABLE IF NOT EXISTS processing_errors (
  id BIGSERIAL PRIMARY KEY,
  worker_id TEXT,
  run_id TEXT,
  video_id TEXT,
  error_type TEXT,
  error_message TEXT,
  stack_trace TEXT,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  language TEXT,
  shard TEXT,
  stage TEXT,
  attempt INT,
  retriable BOOLEAN,
  -- What makes an error the same when it is told twice: <shard>/<video> of a dead letter, or a failure's own UUID.
  event_id TEXT,
  UNIQUE (run_id, event_id)
);
CREATE INDEX IF NOT EXISTS processing_errors_by_run ON processing_errors (run_id, id DESC);
CREATE INDEX IF NOT EXISTS processing_errors_by_shard ON processing_errors (run_id, shard);

-- The plan's view. `processed` is counted from finished shards, so that a restart counts nothing twice; a run with
-- none (the plan's own reporter) is counted from its workers. Each side is summed before it is joined, and with the
-- reader's own rights.
CREATE OR REPLACE VIEW run_progress WITH (security_invoker = true) AS
SELECT
  r.run_id,
  r.language,
  r.total_videos,
  COALESCE(s.processed, w.processed, 0) AS processed,
  COALESCE(w.assigned, 0) AS assigned,
  w.avg_rate,
  w.total_rate,
  w.active_workers,
  w.failed_workers,
  EXTRACT(EPOCH FROM (COALESCE(r.completed_at, NOW()) - r.started_at)) / 3600 AS hours_elapsed,
  (r.total_videos - COALESCE(s.processed, w.processed, 0)) / NULLIF(w.total_rate, 0) / 60 AS hours_remaining
FROM pipeline_runs r
CROSS JOIN LATERAL (
  SELECT SUM(videos) AS processed FROM shards WHERE shards.run_id = r.run_id AND shards.status = 'done'
) s
CROSS JOIN LATERAL (
  SELECT
    SUM(videos_processed) AS processed,
    SUM(videos_total) AS assigned,
    AVG(videos_per_minute) AS avg_rate,
    SUM(videos_per_minute) AS total_rate,
    COUNT(*) FILTER (WHERE p.status = 'running') AS active_workers,
    COUNT(*) FILTER (WHERE p.status = 'failed') AS failed_workers
  FROM worker_progress p WHERE p.run_id = r.run_id AND p.role = 'worker'
) w;

-- The service key writes (it bypasses row-level security), signed-in users read, everybody else sees nothing.
-- Supabase grants new tables to all of its roles, so what is not meant is taken back by name.
DO $$
DECLARE
  name TEXT;
BEGIN
  FOREACH name IN ARRAY ARRAY['pipeline_runs', 'run_languages', 'worker_progress', 'shards', 'processing_errors'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('DROP POLICY IF EXISTS "signed-in users read" ON %I', name);
    EXECUTE format('CREATE POLICY "signed-in users read" ON %I FOR SELECT TO authenticated USING (true)', name);
  END LOOP;
END $$;
REVOKE ALL ON pipeline_runs, run_languages, worker_progress, shards, processing_errors, run_progress
  FROM PUBLIC, anon, authenticated;
GRANT SELECT ON pipeline_runs, run_languages, worker_progress, shards, processing_errors, run_progress TO authenticated;
GRANT ALL ON pipeline_runs, run_languages, worker_progress, shards, processing_errors, run_progress TO service_role;
REVOKE ALL ON SEQUENCE processing_errors_id_seq FROM PUBLIC, anon, authenticated;
GRANT USAGE ON SEQUENCE processing_errors_id_seq TO service_role;
