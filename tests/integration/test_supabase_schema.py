"""The migration on an empty PostgreSQL, and the SQL of the plan document run as written."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

import re
import uuid

import pytest
from migrated_postgres import RUN, call, postgres, server  # noqa: F401 - fixtures
from supabase_server import MIGRATIONS, Postgres, apply_migrations

pytestmark = pytest.mark.slow


def schema_of(postgres: Postgres) -> list[list[str]]:
    """Return columns, indexes, policies, functions and privileges in a form that can be compared."""
    return postgres.sql("""
        SELECT table_name, column_name, data_type, column_default FROM information_schema.columns
        WHERE table_schema = 'public'
        UNION ALL SELECT tablename, indexname, indexdef, '' FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT tablename, policyname, roles::text, cmd FROM pg_policies
        UNION ALL SELECT proname, pg_get_functiondef(oid),
            array(SELECT a::text FROM unnest(proacl) a ORDER BY 1)::text, '' FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT relname,
            array(SELECT a::text FROM unnest(relacl) a ORDER BY 1)::text, relrowsecurity::text, '' FROM pg_class
            WHERE relnamespace = 'public'::regnamespace
        ORDER BY 1, 2, 3, 4""")


def test_applying_the_migrations_twice_changes_nothing(postgres: Postgres) -> None:
    call(postgres, "start_run", {"run_id": RUN, "language": "de", "total_videos": 5}, [], "2026-11-22T10:00:00Z")
    before = schema_of(postgres)
    apply_migrations(postgres)
    assert schema_of(postgres) == before
    assert postgres.sql("SELECT run_id FROM pipeline_runs") == [[RUN]]


def test_migration_file_names_follow_supabases_convention() -> None:
    names = [path.name for path in sorted(MIGRATIONS.iterdir())]
    assert names
    assert all(re.fullmatch(r"\d{14}_[a-z_]+\.sql", name) for name in names)


def test_the_documented_statements_run_as_written(postgres: Postgres) -> None:
    """Run the INSERT of a run, the partition query, the upsert of the reporter, an error, and the resulting view."""
    postgres.sql("INSERT INTO pipeline_runs (language, total_videos) VALUES ('de', 500)")
    ((run_id,),) = postgres.sql("SELECT run_id FROM pipeline_runs WHERE status = 'running'")
    assert str(uuid.UUID(run_id)) == run_id
    for videos, rate in ((50, 10.0), (60, 12.0)):
        postgres.sql(f"""
            INSERT INTO worker_progress (worker_id, run_id, videos_processed, segments_processed, videos_per_minute,
                segments_per_second, last_heartbeat, status)
            VALUES ('w1', '{run_id}', {videos}, 1000, {rate}, 3.5, '2026-11-22T10:00:00.123456', 'running')
            ON CONFLICT (run_id, worker_id) DO UPDATE SET videos_processed = excluded.videos_processed,
                videos_per_minute = excluded.videos_per_minute""")
    postgres.sql(f"""
        INSERT INTO processing_errors (worker_id, run_id, video_id, error_type, error_message, stack_trace)
        VALUES ('w1', '{run_id}', 'v', 'NoAudio', 'none', '')""")
    progress = postgres.sql("""
        SELECT run_id, language, total_videos, processed, assigned, avg_rate, total_rate, active_workers,
            failed_workers, hours_elapsed < 1, round(hours_remaining::numeric, 6) FROM run_progress""")
    assert progress == [[run_id, "de", "500", "60", "0", "12", "12", "1", "0", "t", f"{440 / 12 / 60:.6f}"]]

    postgres.sql("""
        INSERT INTO videos (youtube_id, language, status, r2_tar_key)
        SELECT 'v' || n, 'de', 'COMPLETED', n || '.tar' FROM generate_series(1, 300) n""")
    query = """
        SELECT youtube_id, r2_tar_key
        FROM videos
        WHERE language = 'de'
          AND status = 'COMPLETED'
          AND mod(abs(hashtext(youtube_id)), 4) = {}"""
    parts = [postgres.sql(query.format(index)) for index in range(4)]
    assert sum(map(len, parts)) == 300
    assert all(50 < len(part) < 100 for part in parts)


def test_the_documented_view_reads_these_tables(postgres: Postgres) -> None:
    postgres.sql(f"""
        INSERT INTO pipeline_runs (run_id, language, total_videos) VALUES ('{RUN}', 'de', 100);
        INSERT INTO worker_progress (run_id, worker_id, partition_index, partition_count, status, videos_total,
            videos_processed, videos_per_minute)
        VALUES ('{RUN}', 'a', 0, 2, 'running', 50, 30, 4), ('{RUN}', 'b', 1, 2, 'failed', 50, 10, 0)""")
    documented = postgres.sql("""
        SELECT
          r.run_id,
          r.language,
          r.total_videos,
          SUM(w.videos_processed) as processed,
          SUM(w.videos_total) as assigned,
          AVG(w.videos_per_minute) as avg_rate,
          SUM(w.videos_per_minute) as total_rate,
          COUNT(*) FILTER (WHERE w.status = 'running') as active_workers,
          COUNT(*) FILTER (WHERE w.status = 'failed') as failed_workers,
          round(EXTRACT(EPOCH FROM (NOW() - r.started_at)) / 3600) as hours_elapsed,
          (r.total_videos - SUM(w.videos_processed)) / NULLIF(SUM(w.videos_per_minute), 0) / 60 as hours_remaining
        FROM pipeline_runs r
        LEFT JOIN worker_progress w ON w.run_id = r.run_id
        GROUP BY r.run_id""")
    shipped = postgres.sql(
        "SELECT run_id, language, total_videos, processed, assigned, avg_rate, total_rate, "
        "active_workers, failed_workers, round(hours_elapsed), hours_remaining FROM run_progress"
    )
    assert documented == shipped == [[RUN, "de", "100", "40", "100", "2", "4", "1", "1", "0", "0.25"]]


def test_a_dead_letter_keeps_its_number_of_attempts(postgres: Postgres) -> None:
    call(postgres, "start_run", {"run_id": RUN, "language": "de", "total_videos": 5}, [], "2026-11-22T10:00:00Z")
    letters = [{"event_id": "1", "video_id": "a", "attempts": 3}, {"event_id": "2", "video_id": "b"}]
    call(postgres, "upsert_shards", [{"run_id": RUN, "shard": "s", "language": "de", "dead_letters": letters}])
    call(postgres, "record_failures", [{"run_id": RUN, "shard": "t", "language": "de", "event_id": "3"}])
    assert postgres.sql("SELECT video_id, attempts FROM processing_errors ORDER BY event_id") == [
        ["a", "3"], ["b", "1"], ["", "1"]
    ]  # fmt: skip


def test_run_progress_sums_each_side_before_it_joins(postgres: Postgres) -> None:
    postgres.sql(f"""
        INSERT INTO pipeline_runs (run_id, language, total_videos, started_at, completed_at)
        VALUES ('{RUN}', 'all', 100, '2026-11-22T10:00:00Z', '2026-11-22T11:30:00Z');
        INSERT INTO worker_progress (run_id, worker_id, role, status, videos_total, videos_processed, videos_per_minute)
        VALUES ('{RUN}', 'a', 'worker', 'running', 30, 9, 4), ('{RUN}', 'b', 'worker', 'running', 20, 8, 2),
               ('{RUN}', 'c', 'worker', 'failed', 10, 7, 0), ('{RUN}', 'd', 'driver', 'running', 99, 9, 50);
        INSERT INTO shards (run_id, shard, language, status, videos)
        VALUES ('{RUN}', '1', 'de', 'done', 10), ('{RUN}', '2', 'de', 'done', 10), ('{RUN}', '3', 'de', 'done', 10),
               ('{RUN}', '4', 'de', 'failed', 5)""")
    (row,) = postgres.sql("SELECT * FROM run_progress")
    assert row[2:9] == ["100", "30", "60", "2", "6", "2", "1"]
    assert float(row[9]) == pytest.approx(1.5)
    assert float(row[10]) == pytest.approx(70 / 6 / 60)


def test_pages_of_a_partition_have_every_video_once(postgres: Postgres) -> None:
    postgres.sql("""
        INSERT INTO videos (youtube_id, language, status, r2_tar_key)
        SELECT md5(n::text), CASE n % 3 WHEN 0 THEN 'fr' ELSE 'de' END, CASE n % 10 WHEN 1 THEN 'FAILED' ELSE
            'COMPLETED' END, n || '.tar' FROM generate_series(1, 900) n""")
    video_ids: list[str] = []
    for index in range(3):
        after = ""
        while page := call(postgres, "videos_in_partition", "de", 3, index, after, 50):
            assert len(page) <= 50
            video_ids += [row[0] for row in page]
            after = page[-1][0]
    expected = postgres.sql("SELECT youtube_id FROM videos WHERE language = 'de' AND status = 'COMPLETED'")
    assert sorted(video_ids) == sorted(row[0] for row in expected)


def test_the_id_that_hashes_to_the_smallest_int_has_a_partition(postgres: Postgres) -> None:
    """Test `abs` only, because such an id is hard to find; `abs(hashtext(id))` of the plan document fails there."""
    with pytest.raises(RuntimeError, match="integer out of range"):
        postgres.sql("SELECT mod(abs((-2147483648)::int), 8)")
    assert postgres.sql("SELECT mod(abs((-2147483648)::int::bigint), 8)") == [["0"]]
    ((definition,),) = postgres.sql(
        "SELECT replace(pg_get_functiondef('videos_in_partition'::regproc), chr(10), ' ') FROM (SELECT 1) x"
    )
    assert "abs(hashtext(youtube_id)::BIGINT)" in definition


def test_an_existing_videos_table_keeps_columns_rows_and_policies(server: Postgres) -> None:
    server.sql("""
        DROP SCHEMA public CASCADE; CREATE SCHEMA public;
        CREATE TABLE videos (
            youtube_id VARCHAR(11) PRIMARY KEY, language TEXT, status TEXT, r2_tar_key TEXT, title TEXT);
        INSERT INTO videos VALUES ('abc', 'de', 'COMPLETED', 'abc.tar', 'kept')""")
    apply_migrations(server)
    assert server.sql("SELECT title FROM videos") == [["kept"]]
    assert server.sql("SELECT relrowsecurity FROM pg_class WHERE relname = 'videos'") == [["f"]]
    assert call(server, "videos_in_partition", "de", 1, 0) == [["abc", "abc.tar"]]


def test_an_existing_table_with_other_columns_can_be_migrated(server: Postgres) -> None:
    server.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE videos (id TEXT PRIMARY KEY, path TEXT)")
    apply_migrations(server)
    assert server.sql("SELECT count(*) FROM run_progress") == [["0"]]


def test_many_shards_are_written_at_once_and_only_once(postgres: Postgres) -> None:
    call(postgres, "start_run", {"run_id": RUN, "language": "de", "total_videos": 5}, [], "2026-11-22T10:00:00Z")
    rows = [
        {
            "run_id": RUN, "shard": f"de-{n:06d}", "language": "de", "attempt": "a", "videos": 10,
            "finished_at": "2026-11-22T10:01:00Z", "drops": {"noisy": n},
            "dead_letters": [{"event_id": f"{n}/v", "video_id": f"v{n}", "error_type": "NoAudio"}],
        }
        for n in range(1000)
    ]  # fmt: skip
    assert call(postgres, "upsert_shards", rows) == [["1000"]]
    assert call(postgres, "upsert_shards", rows + rows) == [["0"]]
    assert postgres.sql("SELECT count(*), sum(videos), max(attempts), sum((drops ->> 'noisy')::int) FROM shards") == [
        ["1000", "10000", "1", "499500"]
    ]
    assert postgres.sql("SELECT count(*), min(shard), max(run_id) FROM processing_errors") == [
        ["1000", "de-000000", RUN]
    ]

    part = {**rows[1], "videos": 9, "dead_letters": []}  # its dead letter was planned again
    assert call(postgres, "upsert_shards", [rows[1], part]) == [["1"]]
    assert call(postgres, "upsert_shards", [rows[1]]) == [["0"]]
    assert postgres.sql("SELECT videos, attempts FROM shards WHERE shard = 'de-000001'") == [["9", "1"]]
    assert postgres.sql("SELECT count(*) FROM processing_errors") == [["999"]]

    newer = {**rows[0], "attempt": "b", "videos": 7, "dead_letters": [], "finished_at": "2026-11-22T11:00:00Z"}
    assert call(postgres, "upsert_shards", [rows[0], newer]) == [["1"]]
    assert call(postgres, "upsert_shards", [rows[0]]) == [["0"]]
    assert postgres.sql("SELECT videos, attempt, attempts FROM shards WHERE shard = 'de-000000'") == [["7", "b", "2"]]
    assert postgres.sql("SELECT count(*) FROM processing_errors") == [["998"]]


def test_counters_never_decrease_and_old_heartbeats_are_ignored(postgres: Postgres) -> None:
    call(postgres, "start_run", {"run_id": RUN, "language": "de", "total_videos": 5}, [], "2026-11-22T10:00:00Z")
    worker = {"run_id": RUN, "worker_id": "w", "status": "running", "videos_processed": 50, "memory_bytes": 900}
    query = "SELECT videos_processed, memory_bytes, status, last_error FROM worker_progress"
    call(postgres, "upsert_workers", [{**worker, "last_heartbeat": "2026-11-22T10:00:10Z", "last_error": "x"}])
    less = {**worker, "videos_processed": 3, "memory_bytes": 100}
    call(postgres, "upsert_workers", [{**less, "last_heartbeat": "2026-11-22T10:00:20Z"}])
    assert postgres.sql(query) == [["50", "100", "running", "x"]]
    older = {**worker, "videos_processed": 60, "status": "failed", "last_heartbeat": "2026-11-22T10:00:15Z"}
    call(postgres, "upsert_workers", [older])
    assert postgres.sql(query) == [["50", "100", "running", "x"]]


def test_a_late_start_message_does_not_reopen_an_ended_run(postgres: Postgres) -> None:
    run = {"run_id": RUN, "language": "de", "total_videos": 5}
    call(postgres, "start_run", run, [], "2026-11-22T12:00:00Z")
    call(postgres, "finish_run", RUN, "done", "2026-11-22T13:00:00Z")
    call(postgres, "start_run", run, [], "2026-11-22T11:00:00Z")
    assert postgres.sql("SELECT status FROM pipeline_runs") == [["done"]]
    call(postgres, "start_run", run, [], "2026-11-22T14:00:00Z")
    call(postgres, "finish_run", RUN, "failed", "2026-11-22T12:30:00Z")
    assert postgres.sql("SELECT status FROM pipeline_runs") == [["running"]]


def test_queries_of_a_large_ledger_use_the_indexes(postgres: Postgres) -> None:
    postgres.sql(f"""
        INSERT INTO pipeline_runs (run_id, language, total_videos)
            SELECT CASE n WHEN 0 THEN '{RUN}' ELSE 'run-' || n END, 'all', 1 FROM generate_series(0, 4) n;
        INSERT INTO run_languages SELECT run_id, 'l' || n, 1, 1 FROM pipeline_runs, generate_series(0, 11) n;
        INSERT INTO shards (run_id, shard, language, status, videos, finished_at)
            SELECT run_id, 's' || n, 'l' || n % 12, 'done', 64, now() FROM pipeline_runs, generate_series(1, 8000) n;
        INSERT INTO videos
            SELECT md5(n::text), 'l' || n % 12, 'COMPLETED', n || '.tar' FROM generate_series(1, 50000) n;
        ANALYZE""")
    postgres.sql("VACUUM ANALYZE shards, videos")
    for query in (
        f"SELECT * FROM run_progress WHERE run_id = '{RUN}'",
        f"SELECT * FROM shards WHERE run_id = '{RUN}' ORDER BY finished_at DESC NULLS LAST, shard LIMIT 500",
        (
            "SELECT youtube_id FROM videos WHERE status = 'COMPLETED' AND language = 'l3' AND youtube_id > '8' "
            "ORDER BY youtube_id LIMIT 1000"
        ),
    ):
        plan = "\n".join(row[0] for row in postgres.sql(f"EXPLAIN {query}"))
        assert "Seq Scan on shards" not in plan, plan
        assert "Seq Scan on videos" not in plan, plan
    # Statistics reach the server before the next session resets them: a session that ends flushes its own later.
    flush = "SELECT pg_stat_force_next_flush()"
    assert postgres.sql(f"SELECT sum(processed) FROM progress_by_language('{RUN}'); {flush}") == [["512000"]]
    # The monitor scans the shards of its run once, in the index, and fetches only the rows that it shows.
    postgres.sql("SELECT pg_stat_reset()")
    assert postgres.sql(f"SELECT monitor_snapshot('{RUN}') ->> 'processed'; {flush}")
    scans = "SELECT seq_scan, idx_tup_fetch < 1000 FROM pg_stat_user_tables WHERE relname = 'shards'"
    assert postgres.sql(scans) == [["0", "t"]]
