"""The ledger of one driver and of several drivers in Supabase."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from ledger_cases import (
    OFTEN_S,
    RUN,
    assert_same_contents,
    contents,
    count_pending,
    environment,
    path,
    result,
    server,
    start,
    whole_run,
)
from supabase import ClientOptions, create_client
from supabase_server import Supabase
from waiting import wait_until

from audiopipe.ledger import ErrorRow, Role, RunStatus, WorkerRow, WorkerStatus, format_utc
from audiopipe.ledger.snapshot import take_snapshot
from audiopipe.ledger.supabase import SupabaseLedger
from audiopipe.ledger.supabase_reader import SupabaseReader
from audiopipe.types import DeadLetter

__all__ = ["environment", "path", "server"]  # fixtures

pytestmark = pytest.mark.slow


def test_supabase_has_the_same_rows_as_the_local_ledger(path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
    assert count_pending(path) == 0
    assert_same_contents(path)
    with SupabaseReader() as remote:
        assert remote.progress(RUN).processed == 30
        run = remote.run()
        assert run is not None
        assert (run.status, run.run_id) == (RunStatus.DONE, RUN)


def test_updates_are_sent_during_the_run(path: Path) -> None:
    with SupabaseLedger(path, send_every_s=OFTEN_S) as ledger, SupabaseReader() as remote:
        start(ledger)
        ledger.record_shard(result(0))
        wait_until(lambda: remote.run() is not None and remote.progress(RUN).processed == 10, timeout_s=20)


def test_a_second_node_sends_only_the_commits_that_supabase_lacks(tmp_path: Path) -> None:
    results = [result(index) for index in range(30)]
    with SupabaseLedger(tmp_path / "first.sqlite") as ledger:
        start(ledger, shards=30)
        ledger.record_shards(results[:25])
    with SupabaseLedger(tmp_path / "second.sqlite", send_every_s=3600) as ledger:
        start(ledger, shards=30)
        ledger.record_shards(results)
        with sqlite3.connect(tmp_path / "second.sqlite") as connection:
            rows = connection.execute("SELECT json_extract(body, '$.shard') FROM outbox WHERE kind = 'shard'")
            assert sorted(name for (name,) in rows) == [item.shard for item in results[25:]]
        connection.close()
        assert len(ledger.shards(RUN)) == 30  # the file has all of them
    with SupabaseReader() as remote:
        assert {row.shard: row.attempts for row in remote.shards(RUN)} == {item.shard: 1 for item in results}


def test_updates_that_are_sent_twice_have_their_effect_once(path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
        ledger.record_failure(RUN, ErrorRow.of_attempt("de-000099", 1, "host-0", "StoreError", "never done"))
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("CREATE TABLE copy AS SELECT * FROM outbox")
        connection.close()
    with SupabaseReader() as remote:
        before = contents(remote)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT INTO outbox SELECT * FROM copy")
    connection.close()
    with SupabaseLedger(path):
        pass
    assert count_pending(path) == 0
    with SupabaseReader() as remote:
        assert contents(remote) == before


def test_two_drivers_share_a_run_without_overwriting_rows(tmp_path: Path) -> None:
    def beats(partition: int, status: WorkerStatus) -> list[WorkerRow]:
        driver = WorkerRow(f"node{partition}/p{partition}", Role.DRIVER, partition, 2, status=status)
        return [driver, WorkerRow(f"node{partition}/p{partition}/0", partition_index=partition, videos_processed=10)]

    ledgers = [SupabaseLedger(tmp_path / f"{index}.sqlite", send_every_s=OFTEN_S) for index in range(2)]
    for index, ledger in enumerate(ledgers):
        start(ledger, 2)
        ledger.heartbeat(RUN, beats(index, WorkerStatus.RUNNING))
    with SupabaseReader() as remote:
        wait_until(lambda: remote.run() is not None and len(remote.workers(RUN)) == 4, timeout_s=20)
        for index, ledger in enumerate(ledgers):
            run = remote.run()
            assert run is not None
            assert run.status is RunStatus.RUNNING
            ledger.record_shard(result(index, partition=index, worker=f"node{index}/p{index}/0"))
            ledger.heartbeat(RUN, beats(index, WorkerStatus.DONE))
            ledger.finish_run(RUN, RunStatus.DONE)
            ledger.close()
        run = remote.run()
        assert run is not None
        assert run.status is RunStatus.DONE
        assert remote.progress(RUN).processed == 20
        assert sorted(row.worker_id for row in remote.workers(RUN) if row.role is Role.DRIVER) == [
            "node0/p0",
            "node1/p1",
        ]
        assert {error.video_id for error in remote.errors(RUN)} == {"bad-0", "bad-1"}


def test_a_rejected_row_does_not_block_the_others(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SupabaseLedger(path) as ledger:
        start(ledger, 9)
        for index in range(9):
            # 2**40 fits into an INTEGER of SQLite, but not into an INT of PostgreSQL.
            ledger.record_shard(result(index, **({"segments": 2**40} if index == 4 else {})))
    connection = sqlite3.connect(path)
    ((shard, reason),) = connection.execute("SELECT body ->> 'shard', refused FROM outbox")
    connection.close()
    assert shard == "de-000004"
    assert "rejects a row (22003" in reason
    assert any("rejected 1 updates in" in record.getMessage() for record in caplog.records)
    with SupabaseReader() as remote:
        assert [row.shard[-1] for row in remote.shards(RUN)] == ["0", "1", "2", "3", "5", "6", "7", "8"]


def test_text_is_sent_without_characters_that_databases_refuse(path: Path) -> None:
    letter = DeadLetter("v\udc80", "de", "fetch", "BadTar", "a\x00b \ud800 c")
    with SupabaseLedger(path) as ledger:
        start(ledger)
        ledger.record_shard(result(0, dead_letters=(letter,)))
        ledger.record_failure(RUN, ErrorRow.of_attempt("de-000001", 1, "w", "X\x00", "\udfff", "\x00"))
        ledger.heartbeat(RUN, [WorkerRow("w", videos_per_minute=float("nan"), segments_per_second=float("inf"))])
    assert count_pending(path) == 0
    assert_same_contents(path)
    with SupabaseReader() as remote:
        assert {row.error_message for row in remote.errors(RUN)} == {"ab ? c", "?"}


def test_the_documented_reporter_and_queries_work_over_rest(server: Supabase) -> None:
    """Insert a run, upsert a worker twice without naming the conflict, insert an error, and read the view."""
    with httpx.Client(timeout=10) as http:
        client = create_client(server.url, server.secret_key, ClientOptions(httpx_client=http))
        run = client.table("pipeline_runs").insert({"language": "de", "total_videos": 500}).execute().data
        run_id = run[0]["run_id"]
        for videos, rate in ((50, 10.0), (60, 12.0)):
            client.table("worker_progress").upsert(
                {
                    "worker_id": "w1",
                    "run_id": run_id,
                    "videos_processed": videos,
                    "segments_processed": 20 * videos,
                    "videos_per_minute": rate,
                    "segments_per_second": 3.5,
                    "last_heartbeat": datetime.now(UTC).replace(tzinfo=None).isoformat(),
                    "status": "running",
                }
            ).execute()
        error = {"worker_id": "w1", "run_id": run_id, "video_id": "v", "error_type": "NoAudio", "error_message": "none"}
        client.table("processing_errors").insert(error).execute()
        (row,) = client.table("run_progress").select("*").eq("run_id", run_id).execute().data
    assert (row["processed"], row["total_rate"], row["active_workers"], row["failed_workers"]) == (60, 12, 1, 0)
    assert float(row["hours_remaining"]) == pytest.approx(440 / 12 / 60)
    with SupabaseReader() as reader:
        snapshot = take_snapshot(reader, run_id)
    assert snapshot is not None
    assert (snapshot.totals.processed, snapshot.workers[0].videos_processed, len(snapshot.errors)) == (60, 60, 1)


def test_drivers_of_one_partition_are_distinct_as_in_sqlite(server: Supabase, path: Path) -> None:
    def driver(name: str, age_s: float, status: WorkerStatus = WorkerStatus.RUNNING) -> list[WorkerRow]:
        moment = format_utc(datetime.now(UTC) - timedelta(seconds=age_s))
        return [WorkerRow(f"n/p0/{name}", Role.DRIVER, status=status, last_heartbeat=moment, videos_per_minute=3.0)]

    with SupabaseLedger(path, send_every_s=OFTEN_S) as ledger, SupabaseReader() as reader:

        def read_statuses() -> tuple[str, dict[str, str]]:
            wait_until(lambda: count_pending(path) == 0, timeout_s=20)
            run = reader.run(RUN)
            assert run is not None
            assert run == ledger.run(RUN)
            assert reader.workers(RUN) == ledger.workers(RUN)
            return str(run.status), {row.worker_id[-1]: str(row.status) for row in reader.workers(RUN)}

        start(ledger)
        for name, age_s in (("x", 40), ("a", 1), ("b", 1), ("a", 0)):
            ledger.heartbeat(RUN, driver(name, age_s))
        assert read_statuses() == ("running", {"x": "stale", "a": "running", "b": "running"})
        ledger.heartbeat(RUN, driver("b", 0, WorkerStatus.DONE))
        ledger.finish_run(RUN, RunStatus.INCOMPLETE)
        assert read_statuses()[0] == "running"
        ledger.heartbeat(RUN, driver("a", -0.1, WorkerStatus.DONE))
        ledger.finish_run(RUN, RunStatus.INCOMPLETE)
        assert read_statuses() == ("incomplete", {"x": "stale", "a": "done", "b": "done"})
        ledger.heartbeat(RUN, driver("x", -10))
        assert read_statuses() == ("running", {"x": "running", "a": "done", "b": "done"})
