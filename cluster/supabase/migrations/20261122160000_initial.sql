-- The ledger and the catalog of audiopipe: tables, view and functions.
-- Tables, columns and the view have the names of the plan document; further columns make a run survive restarts. The
-- SQLite ledger has the same tables (audiopipe/ledger/migrations). Run ids are text, because a user may name a run; a
-- UUID is text as well. Apply this file with `supabase db push --workdir cluster`; applying it again changes nothing.

-- Supabase provides these roles; a plain PostgreSQL gets them here, so that this file works on both.
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
  -- Start of the last session: rates exclude the time between two sessions.
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
  -- A driver has a row too, so that a dead driver is detected; sums over workers exclude it.
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
-- Covers every sum that the view and the monitor query.
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
  -- Identifies an error that is sent twice: <shard>/<video> for a dead letter, a UUID for a failed attempt.
  event_id TEXT,
  -- Number of attempts before a video became a dead letter.
  attempts INT NOT NULL DEFAULT 1,
  UNIQUE (run_id, event_id)
);
CREATE INDEX IF NOT EXISTS processing_errors_by_run ON processing_errors (run_id, id DESC);
CREATE INDEX IF NOT EXISTS processing_errors_by_shard ON processing_errors (run_id, shard);

-- The view of the plan document. `processed` sums the finished shards, so that a restart counts no video twice; for a
-- run without any (the plan document's reporter writes workers only) it sums the workers. Each side is summed before
-- the join. The view runs with the permissions of the caller.
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

-- Check whether the caller may read the ledger and the catalog: the token of a signed-in user must have the claim
-- `app_metadata.audiopipe = "reader"`. Users cannot change their `app_metadata` (unlike `user_metadata`), so a project
-- with open sign-up does not show its runs, messages and addresses to everyone. The owner of the project gives the claim:
--   UPDATE auth.users SET raw_app_meta_data = raw_app_meta_data || '{"audiopipe": "reader"}' WHERE email = '…';
-- It is in the user's next token. PostgREST passes the token's claims in the setting `request.jwt.claims`.
CREATE OR REPLACE FUNCTION may_read_ledger() RETURNS BOOLEAN
LANGUAGE sql STABLE SET search_path = public AS $$
  SELECT COALESCE(
    NULLIF(current_setting('request.jwt.claims', true), '')::JSONB #>> '{app_metadata,audiopipe}' = 'reader', false)
$$;
REVOKE ALL ON FUNCTION may_read_ledger() FROM PUBLIC, anon;
GRANT EXECUTE ON FUNCTION may_read_ledger() TO authenticated, service_role;

-- The service key writes (it bypasses row-level security), signed-in users with the claim above read, all others have no
-- access. Supabase grants new tables to all of its roles by default, so these grants are revoked explicitly.
DO $$
DECLARE
  name TEXT;
BEGIN
  FOREACH name IN ARRAY ARRAY['pipeline_runs', 'run_languages', 'worker_progress', 'shards', 'processing_errors'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('DROP POLICY IF EXISTS "signed-in users read" ON %I', name);
    EXECUTE format('DROP POLICY IF EXISTS "readers read" ON %I', name);
    -- In a subquery, the function is called once for a query and not for each row.
    EXECUTE format(
      'CREATE POLICY "readers read" ON %I FOR SELECT TO authenticated USING ((SELECT may_read_ledger()))', name);
  END LOOP;
END $$;
REVOKE ALL ON pipeline_runs, run_languages, worker_progress, shards, processing_errors, run_progress
  FROM PUBLIC, anon, authenticated;
GRANT SELECT ON pipeline_runs, run_languages, worker_progress, shards, processing_errors, run_progress TO authenticated;
GRANT ALL ON pipeline_runs, run_languages, worker_progress, shards, processing_errors, run_progress TO service_role;
REVOKE ALL ON SEQUENCE processing_errors_id_seq FROM PUBLIC, anon, authenticated;
GRANT USAGE ON SEQUENCE processing_errors_id_seq TO service_role;

-- Functions, for writes that REST cannot express: many rows of several tables, in order, in one transaction. Every
-- write may be repeated. Functions run with the permissions of the caller, so the policies of the tables apply.

-- Decode JSON that the server passes as a JSON string (`@supabase/lite` does).
CREATE OR REPLACE FUNCTION decode_json(value JSONB) RETURNS JSONB
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE jsonb_typeof(value) WHEN 'string' THEN (value #>> '{}')::JSONB ELSE value END
$$;

-- Record finished shards: an array of rows of `shards`, each with `dead_letters`, rows of `processing_errors`.
-- An attempt that is recorded already changes nothing, unless it has fewer videos now, because the others were planned
-- again and count in another shard; a newer attempt replaces the shard and its dead letters.
-- Returns the number of shards written.
CREATE OR REPLACE FUNCTION upsert_shards(shards JSONB) RETURNS INT
LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
  rows JSONB := decode_json(upsert_shards.shards);
  written JSONB;
BEGIN
  WITH incoming AS (
    -- One row per shard: ON CONFLICT DO UPDATE must not affect a row twice.
    SELECT DISTINCT ON (run_id, shard) *
    FROM jsonb_populate_recordset(NULL::public.shards, rows)
    ORDER BY run_id, shard, finished_at DESC, videos
  ), upserted AS (
    INSERT INTO public.shards AS s (
      run_id, shard, language, partition_index, status, attempts, attempt, worker_id, device, videos, videos_failed,
      segments, segments_kept, drops, audio_s, kept_s, bytes_in, bytes_out, stage_s, wall_s, started_at, finished_at)
    SELECT
      run_id, shard, language, COALESCE(partition_index, 0), 'done', 1, attempt, worker_id, device, COALESCE(videos, 0),
      COALESCE(videos_failed, 0), COALESCE(segments, 0), COALESCE(segments_kept, 0), COALESCE(drops, '{}'),
      COALESCE(audio_s, 0), COALESCE(kept_s, 0), COALESCE(bytes_in, 0), COALESCE(bytes_out, 0),
      COALESCE(stage_s, '{}'), COALESCE(wall_s, 0), started_at, finished_at
    FROM incoming
    ON CONFLICT (run_id, shard) DO UPDATE SET
      language = excluded.language, partition_index = excluded.partition_index, status = 'done',
      attempts = s.attempts + (s.attempt IS DISTINCT FROM excluded.attempt)::INT, attempt = excluded.attempt,
      worker_id = excluded.worker_id, device = excluded.device,
      videos = excluded.videos, videos_failed = excluded.videos_failed, segments = excluded.segments,
      segments_kept = excluded.segments_kept, drops = excluded.drops, audio_s = excluded.audio_s,
      kept_s = excluded.kept_s, bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out,
      stage_s = excluded.stage_s, wall_s = excluded.wall_s, error = NULL, started_at = excluded.started_at,
      finished_at = excluded.finished_at
    WHERE s.status <> 'done'
      OR (s.finished_at <= excluded.finished_at
        AND (s.attempt IS DISTINCT FROM excluded.attempt OR s.videos > excluded.videos))
    RETURNING s.run_id, s.shard, s.attempt, s.videos
  )
  SELECT COALESCE(jsonb_agg(to_jsonb(upserted)), '[]') INTO written FROM upserted;

  DELETE FROM processing_errors e USING jsonb_to_recordset(written) AS w (run_id TEXT, shard TEXT)
  WHERE e.run_id = w.run_id AND e.shard = w.shard AND e.video_id IS NOT NULL;

  INSERT INTO processing_errors (
    worker_id, run_id, video_id, error_type, error_message, created_at, language, shard, stage, retriable, attempts,
    event_id)
  SELECT
    e.worker_id, w.run_id, e.video_id, e.error_type, e.error_message, COALESCE(e.created_at, NOW()), e.language,
    w.shard, e.stage, e.retriable, COALESCE(e.attempts, 1), e.event_id
  FROM jsonb_array_elements(rows) item
  JOIN jsonb_to_recordset(written) AS w (run_id TEXT, shard TEXT, attempt TEXT, videos INT)
    ON w.run_id = item ->> 'run_id' AND w.shard = item ->> 'shard' AND w.attempt IS NOT DISTINCT FROM item ->> 'attempt'
    AND w.videos = COALESCE((item ->> 'videos')::INT, 0)
  CROSS JOIN jsonb_populate_recordset(
    NULL::processing_errors, COALESCE(NULLIF(item -> 'dead_letters', 'null'), '[]')) e
  ON CONFLICT (run_id, event_id) DO NOTHING;

  RETURN jsonb_array_length(written);
END $$;

-- Record failed attempts: rows of `processing_errors`, each with a unique `event_id`. A finished shard stays finished.
CREATE OR REPLACE FUNCTION record_failures(failures JSONB) RETURNS VOID
LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
  failure processing_errors;
BEGIN
  FOR failure IN SELECT * FROM jsonb_populate_recordset(NULL::processing_errors, failures) LOOP
    INSERT INTO processing_errors (
      worker_id, run_id, error_type, error_message, stack_trace, created_at, language, shard, attempt, event_id)
    VALUES (
      failure.worker_id, failure.run_id, failure.error_type, failure.error_message, failure.stack_trace,
      COALESCE(failure.created_at, NOW()), failure.language, failure.shard, failure.attempt, failure.event_id)
    ON CONFLICT (run_id, event_id) DO NOTHING;
    CONTINUE WHEN NOT FOUND;
    INSERT INTO shards AS s (run_id, shard, language, status, attempts, worker_id, error, finished_at)
    VALUES (
      failure.run_id, failure.shard, failure.language, 'failed', 1, failure.worker_id,
      failure.error_type || ': ' || failure.error_message, failure.created_at)
    ON CONFLICT (run_id, shard) DO UPDATE SET
      status = 'failed', attempts = s.attempts + 1, worker_id = excluded.worker_id, error = excluded.error,
      finished_at = excluded.finished_at
    WHERE s.status <> 'done';
  END LOOP;
END $$;

-- Record heartbeats: rows of `worker_progress`. Counters keep their highest value; an older heartbeat changes nothing.
-- A worker or driver without a heartbeat for three periods is marked stale, with a rate of 0, until its next heartbeat.
-- A run that ended while one of its drivers was silent becomes running again with that driver's next heartbeat.
CREATE OR REPLACE FUNCTION upsert_workers(workers JSONB) RETURNS VOID
LANGUAGE sql SET search_path = public AS $$
  INSERT INTO worker_progress AS p (
    run_id, worker_id, role, partition_index, partition_count, hostname, instance_type, videos_total,
    videos_processed, segments_total, segments_processed, segments_dropped, videos_per_minute, segments_per_second,
    gpu_utilization, cpu_utilization, memory_bytes, gpu_memory_bytes, status, last_heartbeat, last_error, error_count,
    started_at, updated_at)
  SELECT DISTINCT ON (run_id, worker_id)
    run_id, worker_id, COALESCE(role, 'worker'), COALESCE(partition_index, 0), COALESCE(partition_count, 1), hostname,
    instance_type, COALESCE(videos_total, 0), COALESCE(videos_processed, 0), COALESCE(segments_total, 0),
    COALESCE(segments_processed, 0), COALESCE(segments_dropped, 0), COALESCE(videos_per_minute, 0),
    COALESCE(segments_per_second, 0), COALESCE(gpu_utilization, 0), COALESCE(cpu_utilization, 0),
    COALESCE(memory_bytes, 0), COALESCE(gpu_memory_bytes, 0), COALESCE(status, 'starting'),
    COALESCE(last_heartbeat, NOW()), last_error, COALESCE(error_count, 0),
    COALESCE(started_at, last_heartbeat, NOW()), NOW()
  FROM jsonb_populate_recordset(NULL::worker_progress, $1)
  ORDER BY run_id, worker_id, last_heartbeat DESC
  ON CONFLICT (run_id, worker_id) DO UPDATE SET
    role = excluded.role, partition_index = excluded.partition_index, partition_count = excluded.partition_count,
    hostname = COALESCE(excluded.hostname, p.hostname),
    instance_type = COALESCE(excluded.instance_type, p.instance_type),
    videos_total = GREATEST(p.videos_total, excluded.videos_total),
    videos_processed = GREATEST(p.videos_processed, excluded.videos_processed),
    segments_total = GREATEST(p.segments_total, excluded.segments_total),
    segments_processed = GREATEST(p.segments_processed, excluded.segments_processed),
    segments_dropped = GREATEST(p.segments_dropped, excluded.segments_dropped),
    videos_per_minute = excluded.videos_per_minute, segments_per_second = excluded.segments_per_second,
    gpu_utilization = excluded.gpu_utilization, cpu_utilization = excluded.cpu_utilization,
    memory_bytes = excluded.memory_bytes, gpu_memory_bytes = excluded.gpu_memory_bytes, status = excluded.status,
    last_heartbeat = excluded.last_heartbeat, last_error = COALESCE(excluded.last_error, p.last_error),
    error_count = GREATEST(p.error_count, excluded.error_count), updated_at = NOW()
  WHERE excluded.last_heartbeat >= p.last_heartbeat;

  WITH newest AS (
    SELECT run_id, MAX(last_heartbeat) AS heartbeat
    FROM jsonb_populate_recordset(NULL::worker_progress, $1) GROUP BY run_id
  )
  UPDATE worker_progress p SET status = 'stale', videos_per_minute = 0, segments_per_second = 0, updated_at = NOW()
  FROM newest n JOIN pipeline_runs r USING (run_id)
  WHERE p.run_id = n.run_id AND p.status IN ('starting', 'running', 'idle')
    AND p.last_heartbeat < n.heartbeat - make_interval(secs => 3 * r.heartbeat_s);

  UPDATE pipeline_runs r SET status = 'running', completed_at = NULL
  FROM jsonb_populate_recordset(NULL::worker_progress, $1) d
  WHERE d.run_id = r.run_id AND d.role = 'driver' AND d.status IN ('starting', 'running', 'idle')
    AND d.last_heartbeat > r.completed_at;
$$;

-- Check whether a run has a driver with a heartbeat after `since`. A driver whose successor on the same partition
-- started later than that heartbeat does not count.
CREATE OR REPLACE FUNCTION drivers_alive(run_id TEXT, since TIMESTAMPTZ) RETURNS BOOLEAN
LANGUAGE sql STABLE SET search_path = public AS $$
  SELECT EXISTS (
    SELECT 1 FROM worker_progress d
    WHERE d.run_id = $1 AND d.role = 'driver' AND d.status IN ('starting', 'running', 'idle') AND d.last_heartbeat > $2
      AND NOT EXISTS (
        SELECT 1 FROM worker_progress n
        WHERE n.run_id = $1 AND n.role = 'driver' AND n.worker_id <> d.worker_id
          AND n.partition_index = d.partition_index AND n.started_at > d.last_heartbeat))
$$;

-- Start or resume a run. `run` is a row of `pipeline_runs`, `languages` are rows of `run_languages`, `at` is the time
-- of the start: a start that arrives after a newer session started or ended does not reopen the run.
CREATE OR REPLACE FUNCTION start_run(run JSONB, languages JSONB, at TIMESTAMPTZ) RETURNS VOID
LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
  session pipeline_runs := jsonb_populate_record(NULL::pipeline_runs, run);
  heartbeat INTERVAL := make_interval(secs => COALESCE(session.heartbeat_s, 10));
BEGIN
  INSERT INTO pipeline_runs AS r (
    run_id, language, total_videos, started_at, resumed_at, output, config_digest, version, heartbeat_s)
  VALUES (
    session.run_id, session.language, session.total_videos, COALESCE(session.started_at, at),
    COALESCE(session.resumed_at, at), session.output, session.config_digest, session.version,
    COALESCE(session.heartbeat_s, 10))
  ON CONFLICT (run_id) DO UPDATE SET
    status = 'running', completed_at = NULL, language = excluded.language, total_videos = excluded.total_videos,
    output = excluded.output, config_digest = excluded.config_digest, version = excluded.version,
    heartbeat_s = excluded.heartbeat_s,
    -- A driver that joins a running run does not start a session, so the window of the rates keeps its start.
    resumed_at = CASE
      WHEN r.status = 'running' AND drivers_alive(r.run_id, at - 3 * heartbeat) THEN r.resumed_at ELSE at END
  WHERE at > r.resumed_at AND at > COALESCE(r.completed_at, '-infinity');

  INSERT INTO run_languages AS l (run_id, language, total_videos, total_shards)
  SELECT session.run_id, n.language, n.total_videos, COALESCE(n.total_shards, 0)
  FROM jsonb_populate_recordset(NULL::run_languages, languages) n
  ON CONFLICT (run_id, language) DO UPDATE SET
    total_videos = excluded.total_videos, total_shards = excluded.total_shards;
END $$;

-- End a run, unless another driver is alive or a newer session has started. The status 'done' requires all shards; a
-- run that lacks some becomes 'incomplete'.
CREATE OR REPLACE FUNCTION finish_run(run_id TEXT, status TEXT, at TIMESTAMPTZ) RETURNS VOID
LANGUAGE sql SET search_path = public AS $$
  UPDATE pipeline_runs r SET
    completed_at = $3,
    status = CASE
      WHEN $2 = 'done'
        AND (SELECT COALESCE(SUM(total_shards), 0) FROM run_languages l WHERE l.run_id = $1)
          > (SELECT COUNT(*) FROM shards s WHERE s.run_id = $1 AND s.status = 'done')
      THEN 'incomplete' ELSE $2 END
  WHERE r.run_id = $1 AND r.resumed_at <= $3
    AND NOT drivers_alive($1, $3 - make_interval(secs => 3 * r.heartbeat_s))
$$;

-- Apply a driver's updates in order, all or none. Repeating a call, or a part of it, changes nothing.
-- Returns the number of operations: the driver compares it, to detect a response that is not from this function.
CREATE OR REPLACE FUNCTION write_ledger(operations JSONB) RETURNS INT
LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
  operation JSONB;
BEGIN
  -- Refuse a key without write permission even if there is nothing to write: drivers check their key this way.
  IF NOT has_table_privilege('public.shards', 'INSERT') THEN
    RAISE EXCEPTION 'permission denied for the ledger' USING ERRCODE = 'insufficient_privilege';
  END IF;
  FOR operation IN
    SELECT value FROM jsonb_array_elements(decode_json(operations)) WITH ORDINALITY ORDER BY ordinality
  LOOP
    CASE operation ->> 'kind'
      WHEN 'start' THEN
        PERFORM start_run(operation -> 'run', operation -> 'languages', (operation ->> 'at')::TIMESTAMPTZ);
      WHEN 'shards' THEN PERFORM upsert_shards(operation -> 'rows');
      WHEN 'failures' THEN PERFORM record_failures(operation -> 'rows');
      WHEN 'workers' THEN PERFORM upsert_workers(operation -> 'rows');
      WHEN 'finish' THEN
        PERFORM finish_run(operation ->> 'run_id', operation ->> 'status', (operation ->> 'at')::TIMESTAMPTZ);
    END CASE;
  END LOOP;
  RETURN jsonb_array_length(decode_json(operations));
END $$;

-- Sum the finished shards of each language of a run.
CREATE OR REPLACE FUNCTION progress_by_language(run_id TEXT) RETURNS TABLE (
  language TEXT, total_videos INT, total_shards INT, processed BIGINT, failed BIGINT, shards_done BIGINT,
  segments BIGINT, kept BIGINT, audio_s FLOAT, kept_s FLOAT, bytes_in BIGINT, bytes_out BIGINT)
LANGUAGE sql STABLE SET search_path = public AS $$
  SELECT
    l.language, l.total_videos, l.total_shards, COALESCE(SUM(s.videos), 0), COALESCE(SUM(s.videos_failed), 0),
    COUNT(s.shard), COALESCE(SUM(s.segments), 0), COALESCE(SUM(s.segments_kept), 0), COALESCE(SUM(s.audio_s), 0),
    COALESCE(SUM(s.kept_s), 0), COALESCE(SUM(s.bytes_in), 0)::BIGINT, COALESCE(SUM(s.bytes_out), 0)::BIGINT
  FROM run_languages l
  LEFT JOIN shards s ON s.run_id = $1 AND s.language = l.language AND s.status = 'done'
  WHERE l.run_id = $1
  GROUP BY l.run_id, l.language, l.total_videos, l.total_shards
  ORDER BY l.language
$$;

REVOKE ALL ON FUNCTION upsert_shards(JSONB), record_failures(JSONB), upsert_workers(JSONB), write_ledger(JSONB),
  start_run(JSONB, JSONB, TIMESTAMPTZ), finish_run(TEXT, TEXT, TIMESTAMPTZ), drivers_alive(TEXT, TIMESTAMPTZ),
  progress_by_language(TEXT) FROM PUBLIC, anon, authenticated;
GRANT EXECUTE ON FUNCTION upsert_shards(JSONB), record_failures(JSONB), upsert_workers(JSONB), write_ledger(JSONB),
  start_run(JSONB, JSONB, TIMESTAMPTZ), finish_run(TEXT, TEXT, TIMESTAMPTZ), drivers_alive(TEXT, TIMESTAMPTZ),
  progress_by_language(TEXT) TO service_role;
GRANT EXECUTE ON FUNCTION progress_by_language(TEXT) TO authenticated;

-- Read what the monitor shows of a run in one consistent query; null if there is no such run. It runs with the
-- permissions of the caller, so the policies of the tables apply. Finished shards are read in one index-only scan.
CREATE OR REPLACE FUNCTION monitor_snapshot(run_id TEXT DEFAULT NULL, shards INT DEFAULT 300, errors INT DEFAULT 8)
RETURNS JSON
LANGUAGE sql STABLE SECURITY INVOKER SET search_path = public AS $$
  WITH r AS (
    SELECT * FROM pipeline_runs WHERE $1 IS NULL OR pipeline_runs.run_id = $1 ORDER BY started_at DESC LIMIT 1
  ), done AS (
    SELECT
      s.language, SUM(s.videos) AS processed, SUM(s.videos_failed) AS failed, COUNT(*) AS shards_done,
      SUM(s.segments) AS segments, SUM(s.segments_kept) AS kept, SUM(s.audio_s) AS audio_s, SUM(s.kept_s) AS kept_s,
      SUM(s.bytes_in) AS bytes_in, SUM(s.bytes_out) AS bytes_out
    FROM shards s WHERE s.run_id = (SELECT r.run_id FROM r) AND s.status = 'done' GROUP BY s.language
  ), by_language AS (
    SELECT
      l.language, l.total_videos, l.total_shards, COALESCE(d.processed, 0) AS processed,
      COALESCE(d.failed, 0) AS failed, COALESCE(d.shards_done, 0) AS shards_done, COALESCE(d.segments, 0) AS segments,
      COALESCE(d.kept, 0) AS kept, COALESCE(d.audio_s, 0) AS audio_s, COALESCE(d.kept_s, 0) AS kept_s,
      COALESCE(d.bytes_in, 0) AS bytes_in, COALESCE(d.bytes_out, 0) AS bytes_out
    FROM run_languages l LEFT JOIN done d ON d.language = l.language
    WHERE l.run_id = (SELECT r.run_id FROM r) ORDER BY l.language COLLATE "C"
  ), workers AS (
    SELECT * FROM worker_progress w WHERE w.run_id = (SELECT r.run_id FROM r) ORDER BY w.worker_id COLLATE "C"
  ), newest AS (
    -- Only the columns that rates and sparklines need.
    SELECT shard, language, status, videos, segments, audio_s, worker_id, finished_at FROM shards s
    WHERE s.run_id = (SELECT r.run_id FROM r) ORDER BY finished_at DESC NULLS LAST, shard LIMIT $2
  ), spans AS (
    -- Up to when the shards that started earlier were being processed; in the precision of the ledger.
    SELECT started, finished, MAX(finished) OVER (
      ORDER BY started, finished ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS covered_until
    FROM (
      SELECT date_trunc('milliseconds', s.started_at) AS started, date_trunc('milliseconds', s.finished_at) AS finished
      FROM shards s, r WHERE s.run_id = r.run_id AND s.status = 'done' AND r.status <> 'running'
    ) AS done_shards WHERE started IS NOT NULL AND finished IS NOT NULL
  ), last_errors AS (
    SELECT * FROM processing_errors e WHERE e.run_id = (SELECT r.run_id FROM r) ORDER BY id DESC LIMIT $3
  )
  SELECT json_build_object(
    'run', row_to_json(r),
    -- Counted as in the view run_progress: the finished shards, or the workers if there are none.
    'processed', COALESCE(
      (SELECT SUM(processed) FROM done), (SELECT SUM(videos_processed) FROM workers WHERE role = 'worker'), 0),
    'languages', (SELECT COALESCE(json_agg(by_language), '[]') FROM by_language),
    'workers', (SELECT COALESCE(json_agg(workers), '[]') FROM workers),
    'shards', (SELECT COALESCE(json_agg(newest), '[]') FROM newest),
    'errors', (SELECT COALESCE(json_agg(last_errors), '[]') FROM last_errors),
    -- Time in which a shard was being processed: pauses between sessions do not count.
    'busy_s', CASE WHEN r.status <> 'running' THEN (
      SELECT COALESCE(SUM(GREATEST(EXTRACT(EPOCH FROM finished - GREATEST(started, covered_until)), 0)), 0)
      FROM spans) END)
  FROM r
$$;

-- Return the size of the ledger's tables and indexes on disk.
CREATE OR REPLACE FUNCTION ledger_bytes() RETURNS BIGINT
LANGUAGE sql STABLE SECURITY INVOKER SET search_path = public AS $$
  SELECT SUM(pg_total_relation_size(name::REGCLASS))::BIGINT
  FROM unnest(ARRAY['pipeline_runs', 'run_languages', 'worker_progress', 'shards', 'processing_errors']) AS name
$$;

REVOKE ALL ON FUNCTION monitor_snapshot(TEXT, INT, INT), ledger_bytes() FROM PUBLIC, anon, authenticated;
GRANT EXECUTE ON FUNCTION monitor_snapshot(TEXT, INT, INT), ledger_bytes() TO authenticated, service_role;

-- The catalog. A table `videos` that exists keeps its columns, rows and policies; it only gets indexes.
DO $$
BEGIN
  IF to_regclass('public.videos') IS NULL THEN
    CREATE TABLE public.videos (
      youtube_id TEXT PRIMARY KEY,
      language TEXT NOT NULL,
      status TEXT NOT NULL DEFAULT 'PENDING',
      r2_tar_key TEXT,
      size_bytes BIGINT,
      duration_s FLOAT
    );
    ALTER TABLE public.videos ENABLE ROW LEVEL SECURITY;
    CREATE POLICY "readers read" ON public.videos FOR SELECT TO authenticated USING ((SELECT may_read_ledger()));
    REVOKE ALL ON public.videos FROM PUBLIC, anon, authenticated;
    GRANT SELECT ON public.videos TO authenticated;
    GRANT ALL ON public.videos TO service_role;
  END IF;
  -- For keyset pagination over one language or all; only if the columns have the names of the plan document.
  IF (
    SELECT COUNT(*) FROM pg_attribute
    WHERE attrelid = 'public.videos'::regclass AND attname IN ('youtube_id', 'language', 'status') AND NOT attisdropped
  ) = 3 THEN
    CREATE INDEX IF NOT EXISTS videos_completed_by_language ON public.videos (language, youtube_id)
      WHERE status = 'COMPLETED';
    CREATE INDEX IF NOT EXISTS videos_completed ON public.videos (youtube_id) WHERE status = 'COMPLETED';
  END IF;
END $$;

-- Read one page of the plan document's query: the completed videos of a language and partition after an id, by id.
-- `hashtext` is cast to BIGINT before `abs`, because `abs` of the smallest INT is out of range.
CREATE OR REPLACE FUNCTION videos_in_partition(
  language TEXT, partition_count INT, partition_index INT, after_id TEXT DEFAULT '', n INT DEFAULT 1000
) RETURNS TABLE (youtube_id TEXT, r2_tar_key TEXT)
LANGUAGE plpgsql STABLE SET search_path = public AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT youtube_id::TEXT, r2_tar_key::TEXT FROM videos
    WHERE language = videos_in_partition.language
      AND status = 'COMPLETED'
      AND youtube_id > videos_in_partition.after_id
      AND mod(abs(hashtext(youtube_id)::BIGINT), videos_in_partition.partition_count)
        = videos_in_partition.partition_index
    ORDER BY videos.youtube_id
    LIMIT videos_in_partition.n;
END $$;
REVOKE ALL ON FUNCTION videos_in_partition(TEXT, INT, INT, TEXT, INT) FROM PUBLIC, anon;
GRANT EXECUTE ON FUNCTION videos_in_partition(TEXT, INT, INT, TEXT, INT) TO authenticated, service_role;
