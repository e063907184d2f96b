-- How often a video was tried before it became a dead letter.
ALTER TABLE processing_errors ADD COLUMN IF NOT EXISTS attempts INT NOT NULL DEFAULT 1;

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
    worker_id, run_id, video_id, error_type, error_message, created_at, language, shard, stage, retriable, attempts,
    event_id)
  SELECT
    e.worker_id, w.run_id, e.video_id, e.error_type, e.error_message, COALESCE(e.created_at, NOW()), e.language,
    w.shard, e.stage, e.retriable, COALESCE(e.attempts, 1), e.event_id
  FROM jsonb_array_elements(rows) given
  JOIN jsonb_to_recordset(written) AS w (run_id TEXT, shard TEXT, attempt TEXT)
    ON w.run_id = given ->> 'run_id' AND w.shard = given ->> 'shard' AND w.attempt IS NOT DISTINCT FROM given ->> 'attempt'
  CROSS JOIN jsonb_populate_recordset(
    NULL::processing_errors, COALESCE(NULLIF(given -> 'dead_letters', 'null'), '[]')) e
  ON CONFLICT (run_id, event_id) DO NOTHING;

  RETURN jsonb_array_length(written);
END $$;
