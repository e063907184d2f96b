-- What REST cannot say: many rows at once, in order, in one transaction, each of them as often as one likes.
-- Functions run with the caller's rights, so the policies of the tables hold for them too.

-- JSON that a server hands on as text (`@supabase/lite` does) is read as what it says.
CREATE OR REPLACE FUNCTION unquoted(value JSONB) RETURNS JSONB
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE jsonb_typeof(value) WHEN 'string' THEN (value #>> '{}')::JSONB ELSE value END
$$;

-- Finished shards. An array of rows of `shards`, each with `dead_letters`, rows of `processing_errors`.
-- The same attempt again changes nothing; a newer one replaces the shard and its dead letters. Returns what it wrote.
CREATE OR REPLACE FUNCTION upsert_shards(shards JSONB) RETURNS INT
LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
  rows JSONB := unquoted(upsert_shards.shards);
  written JSONB;
BEGIN
  WITH given AS (
    -- One row of each shard: a statement may not touch a row twice.
    SELECT DISTINCT ON (run_id, shard) *
    FROM jsonb_populate_recordset(NULL::public.shards, rows)
    ORDER BY run_id, shard, finished_at DESC
  ), done AS (
    INSERT INTO public.shards AS s (
      run_id, shard, language, partition_index, status, attempts, attempt, worker_id, device, videos, videos_failed,
      segments, segments_kept, drops, audio_s, kept_s, bytes_in, bytes_out, stage_s, wall_s, started_at, finished_at)
    SELECT
      run_id, shard, language, COALESCE(partition_index, 0), 'done', 1, attempt, worker_id, device, COALESCE(videos, 0),
      COALESCE(videos_failed, 0), COALESCE(segments, 0), COALESCE(segments_kept, 0), COALESCE(drops, '{}'),
      COALESCE(audio_s, 0), COALESCE(kept_s, 0), COALESCE(bytes_in, 0), COALESCE(bytes_out, 0),
      COALESCE(stage_s, '{}'), COALESCE(wall_s, 0), started_at, finished_at
    FROM given
    ON CONFLICT (run_id, shard) DO UPDATE SET
      language = excluded.language, partition_index = excluded.partition_index, status = 'done',
      attempts = s.attempts + 1, attempt = excluded.attempt, worker_id = excluded.worker_id, device = excluded.device,
      videos = excluded.videos, videos_failed = excluded.videos_failed, segments = excluded.segments,
      segments_kept = excluded.segments_kept, drops = excluded.drops, audio_s = excluded.audio_s,
      kept_s = excluded.kept_s, bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out,
      stage_s = excluded.stage_s, wall_s = excluded.wall_s, error = NULL, started_at = excluded.started_at,
      finished_at = excluded.finished_at
    WHERE s.status <> 'done'
      OR (s.attempt IS DISTINCT FROM excluded.attempt AND s.finished_at <= excluded.finished_at)
    RETURNING s.run_id, s.shard, s.attempt
  )
  SELECT COALESCE(jsonb_agg(to_jsonb(done)), '[]') INTO written FROM done;

  DELETE FROM processing_errors e USING jsonb_to_recordset(written) AS w (run_id TEXT, shard TEXT)
  WHERE e.run_id = w.run_id AND e.shard = w.shard AND e.video_id IS NOT NULL;

  INSERT INTO processing_errors (
    worker_id, run_id, video_id, error_type, error_message, created_at, language, shard, stage, retriable, event_id)
  SELECT
    e.worker_id, w.run_id, e.video_id, e.error_type, e.error_message, COALESCE(e.created_at, NOW()), e.language,
    w.shard, e.stage, e.retriable, e.event_id
  FROM jsonb_array_elements(rows) given
  JOIN jsonb_to_recordset(written) AS w (run_id TEXT, shard TEXT, attempt TEXT)
    ON w.run_id = given ->> 'run_id' AND w.shard = given ->> 'shard' AND w.attempt IS NOT DISTINCT FROM given ->> 'attempt'
  CROSS JOIN jsonb_populate_recordset(
    NULL::processing_errors, COALESCE(NULLIF(given -> 'dead_letters', 'null'), '[]')) e
  ON CONFLICT (run_id, event_id) DO NOTHING;

  RETURN jsonb_array_length(written);
END $$;

-- Tries that came to nothing: rows of `processing_errors` with their own `event_id`. A finished shard stays finished.
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

-- Heartbeats: rows of `worker_progress`. Counters keep their highest value, and an older heartbeat changes nothing.
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
    hostname = COALESCE(excluded.hostname, p.hostname), instance_type = COALESCE(excluded.instance_type, p.instance_type),
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
$$;

-- Drivers of a run that still beat: the newest row of each partition, so that a crashed driver's successor speaks for it.
CREATE OR REPLACE FUNCTION drivers_alive(run_id TEXT, since TIMESTAMPTZ) RETURNS BOOLEAN
LANGUAGE sql STABLE SET search_path = public AS $$
  SELECT EXISTS (
    SELECT 1 FROM (
      SELECT DISTINCT ON (partition_index) status, last_heartbeat FROM worker_progress
      WHERE worker_progress.run_id = $1 AND role = 'driver' ORDER BY partition_index, last_heartbeat DESC
    ) newest WHERE status IN ('starting', 'running', 'idle') AND last_heartbeat > $2)
$$;

-- Begin a run or go on with it. `run` is a row of `pipeline_runs`, `languages` rows of `run_languages`, `at` the time
-- that it happened: told late, after a newer session began or ended, it no longer opens the run.
CREATE OR REPLACE FUNCTION start_run(run JSONB, languages JSONB, at TIMESTAMPTZ) RETURNS VOID
LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
  given pipeline_runs := jsonb_populate_record(NULL::pipeline_runs, run);
  beat INTERVAL := make_interval(secs => COALESCE(given.heartbeat_s, 10));
BEGIN
  INSERT INTO pipeline_runs AS r (
    run_id, language, total_videos, started_at, resumed_at, output, config_digest, version, heartbeat_s)
  VALUES (
    given.run_id, given.language, given.total_videos, COALESCE(given.started_at, at), COALESCE(given.resumed_at, at),
    given.output, given.config_digest, given.version, COALESCE(given.heartbeat_s, 10))
  ON CONFLICT (run_id) DO UPDATE SET
    status = 'running', completed_at = NULL, language = excluded.language, total_videos = excluded.total_videos,
    output = excluded.output, config_digest = excluded.config_digest, version = excluded.version,
    heartbeat_s = excluded.heartbeat_s,
    -- A driver that joins a run under way is no new session, so it must not shorten the window of the rates.
    resumed_at = CASE WHEN r.status = 'running' AND drivers_alive(r.run_id, at - 3 * beat) THEN r.resumed_at ELSE at END
  WHERE at > r.resumed_at AND at > COALESCE(r.completed_at, '-infinity');

  INSERT INTO run_languages AS l (run_id, language, total_videos, total_shards)
  SELECT given.run_id, n.language, n.total_videos, COALESCE(n.total_shards, 0)
  FROM jsonb_populate_recordset(NULL::run_languages, languages) n
  ON CONFLICT (run_id, language) DO UPDATE SET
    total_videos = excluded.total_videos, total_shards = excluded.total_shards;
END $$;

-- End a run, unless another driver still works on it or a newer session began. 'done' asks for all of its shards.
CREATE OR REPLACE FUNCTION finish_run(run_id TEXT, status TEXT, at TIMESTAMPTZ) RETURNS VOID
LANGUAGE sql SET search_path = public AS $$
  UPDATE pipeline_runs r SET
    completed_at = $3,
    status = CASE
      WHEN $2 = 'done'
        AND (SELECT COALESCE(SUM(total_shards), 0) FROM run_languages l WHERE l.run_id = $1)
          > (SELECT COUNT(*) FROM shards s WHERE s.run_id = $1 AND s.status = 'done')
      THEN 'incomplete' ELSE $2 END
  WHERE r.run_id = $1 AND r.resumed_at <= $3 AND NOT drivers_alive($1, '-infinity')
$$;

-- A driver's updates in their order, all or none. Repeating a call, or a part of it, changes nothing.
-- Returns the number of operations, by which the driver knows that it was this function that answered.
CREATE OR REPLACE FUNCTION write_ledger(operations JSONB) RETURNS INT
LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
  operation JSONB;
BEGIN
  -- A key that may not write is told so even when there is nothing to write.
  IF NOT has_table_privilege('public.shards', 'INSERT') THEN
    RAISE EXCEPTION 'permission denied for the ledger' USING ERRCODE = 'insufficient_privilege';
  END IF;
  FOR operation IN SELECT value FROM jsonb_array_elements(unquoted(operations)) WITH ORDINALITY ORDER BY ordinality LOOP
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
  RETURN jsonb_array_length(unquoted(operations));
END $$;

-- What is done of each language of a run.
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
