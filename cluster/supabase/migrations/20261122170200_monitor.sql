-- What the monitor shows of a run, in one question and of one moment; null where there is none. Read with the caller's
-- own rights, so that the policies of the tables hold. Finished shards are gone through once, in the index alone.
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
    -- Only what rates and sparklines are made of.
    SELECT shard, language, status, videos, segments, audio_s, worker_id, finished_at FROM shards s
    WHERE s.run_id = (SELECT r.run_id FROM r) ORDER BY finished_at DESC NULLS LAST, shard LIMIT $2
  ), last_errors AS (
    SELECT * FROM processing_errors e WHERE e.run_id = (SELECT r.run_id FROM r) ORDER BY id DESC LIMIT $3
  )
  SELECT json_build_object(
    'run', row_to_json(r),
    -- As the view run_progress counts: finished shards, or without any what workers say.
    'processed', COALESCE(
      (SELECT SUM(processed) FROM done), (SELECT SUM(videos_processed) FROM workers WHERE role = 'worker'), 0),
    'languages', (SELECT COALESCE(json_agg(by_language), '[]') FROM by_language),
    'workers', (SELECT COALESCE(json_agg(workers), '[]') FROM workers),
    'shards', (SELECT COALESCE(json_agg(newest), '[]') FROM newest),
    'errors', (SELECT COALESCE(json_agg(last_errors), '[]') FROM last_errors))
  FROM r
$$;

-- What the ledger's tables take on disk, with their indexes.
CREATE OR REPLACE FUNCTION ledger_bytes() RETURNS BIGINT
LANGUAGE sql STABLE SECURITY INVOKER SET search_path = public AS $$
  SELECT SUM(pg_total_relation_size(name::REGCLASS))::BIGINT
  FROM unnest(ARRAY['pipeline_runs', 'run_languages', 'worker_progress', 'shards', 'processing_errors']) AS name
$$;

REVOKE ALL ON FUNCTION monitor_snapshot(TEXT, INT, INT), ledger_bytes() FROM PUBLIC, anon, authenticated;
GRANT EXECUTE ON FUNCTION monitor_snapshot(TEXT, INT, INT), ledger_bytes() TO authenticated, service_role;
