-- Several drivers on one run, each with rows of its own: who of them is alive, and what becomes of the rows of the dead.

-- Drivers of a run that beat after `since`, without those whose successor on the same partition has begun since.
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

-- Heartbeats: rows of `worker_progress`. Counters keep their highest value, and an older heartbeat changes nothing.
-- Whoever was not heard of for three beats by then is stale, with a rate of 0, until it is heard of again; and a run
-- that was ended without one of its drivers is running again when that driver is heard of.
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

  WITH beats AS (
    SELECT run_id, MAX(last_heartbeat) AS at FROM jsonb_populate_recordset(NULL::worker_progress, $1) GROUP BY run_id
  )
  UPDATE worker_progress p SET status = 'stale', videos_per_minute = 0, segments_per_second = 0, updated_at = NOW()
  FROM beats b JOIN pipeline_runs r USING (run_id)
  WHERE p.run_id = b.run_id AND p.status IN ('starting', 'running', 'idle')
    AND p.last_heartbeat < b.at - make_interval(secs => 3 * r.heartbeat_s);

  UPDATE pipeline_runs r SET status = 'running', completed_at = NULL
  FROM jsonb_populate_recordset(NULL::worker_progress, $1) d
  WHERE d.run_id = r.run_id AND d.role = 'driver' AND d.status IN ('starting', 'running', 'idle')
    AND d.last_heartbeat > r.completed_at;
$$;

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
  WHERE r.run_id = $1 AND r.resumed_at <= $3
    AND NOT drivers_alive($1, $3 - make_interval(secs => 3 * r.heartbeat_s))
$$;
