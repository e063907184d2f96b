"""Sessions of a run: drivers start, join, end, crash and are replaced; the rows of their workers follow."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from audiopipe.ledger import LanguageTotal, Role, RunRow, RunStatus, SqliteLedger, WorkerRow, WorkerStatus, format_utc
from audiopipe.types import ShardResult

Make = Callable[..., ShardResult]


def start(ledger: SqliteLedger, run_id: str, videos: int = 100, shards: int = 0) -> None:
    run = RunRow(run_id, "all", videos, output="/data/out", config_digest="abc", version="0.1.0")
    ledger.start_run(run, [LanguageTotal("de", videos // 2, shards), LanguageTotal("fr", videos - videos // 2)])


def query(ledger: SqliteLedger, sql: str, *values: object) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(ledger.path, timeout=5)
    with connection:
        rows = connection.execute(sql, values).fetchall()
    connection.close()
    return rows


def driver(name: str, status: WorkerStatus = WorkerStatus.RUNNING, age_s: float = 0.0, **columns: Any) -> WorkerRow:
    """Build the row of a driver with a heartbeat `age_s` seconds ago."""
    moment = datetime.now(UTC) - timedelta(seconds=age_s)
    return WorkerRow(name, Role.DRIVER, status=status, last_heartbeat=format_utc(moment), **columns)


def status_of(ledger: SqliteLedger, run_id: str) -> RunStatus:
    run = ledger.run(run_id)
    assert run is not None
    return run.status


def test_a_second_start_resumes_the_run_and_keeps_its_start(
    ledger: SqliteLedger, run_id: str, make_result: Make
) -> None:
    start(ledger, run_id, videos=100)
    ledger.record_shard(make_result(0))
    first = ledger.run(run_id)
    ledger.finish_run(run_id, RunStatus.FAILED)
    start(ledger, run_id, videos=140)

    resumed = ledger.run(run_id)
    assert first is not None
    assert resumed is not None
    assert (resumed.status, resumed.completed_at, resumed.total_videos) == (RunStatus.RUNNING, None, 140)
    assert resumed.started_at == first.started_at
    assert resumed.resumed_at is not None
    assert first.resumed_at is not None
    assert resumed.resumed_at >= first.resumed_at
    assert [row.total_videos for row in ledger.languages(run_id)] == [70, 70]
    assert ledger.progress(run_id).processed == 10


def test_a_driver_that_joins_does_not_start_a_new_session(ledger: SqliteLedger, run_id: str) -> None:
    start(ledger, run_id)
    query(ledger, "UPDATE pipeline_runs SET resumed_at = '2026-11-22T10:00:00.000Z'")
    ledger.heartbeat(run_id, [WorkerRow("n0/driver", Role.DRIVER, 0, 2, status=WorkerStatus.RUNNING)])
    start(ledger, run_id)
    run = ledger.run(run_id)
    assert run is not None
    assert run.resumed_at == "2026-11-22T10:00:00.000Z"

    query(ledger, "UPDATE worker_progress SET last_heartbeat = '2026-11-22T10:00:00.000Z'")
    start(ledger, run_id)
    run = ledger.run(run_id)
    assert run is not None
    assert run.resumed_at is not None
    assert run.resumed_at > "2026-11-22T10:00:00.000Z"


def test_a_run_is_done_with_all_shards_and_no_live_driver(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    def beat(partition: int, status: WorkerStatus) -> None:
        ledger.heartbeat(run_id, [WorkerRow(f"n{partition}/driver", Role.DRIVER, partition, 2, status=status)])

    def status() -> RunStatus:
        run = ledger.run(run_id)
        assert run is not None
        return run.status

    start(ledger, run_id, shards=2)
    beat(0, WorkerStatus.RUNNING)
    beat(1, WorkerStatus.RUNNING)
    ledger.record_shard(make_result(0))
    beat(0, WorkerStatus.DONE)
    ledger.finish_run(run_id, RunStatus.DONE)
    assert status() is RunStatus.RUNNING

    beat(1, WorkerStatus.DONE)
    ledger.finish_run(run_id, RunStatus.DONE)
    assert status() is RunStatus.INCOMPLETE

    ledger.record_shard(make_result(1))
    ledger.finish_run(run_id, RunStatus.DONE)
    assert status() is RunStatus.DONE


def test_a_crashed_driver_does_not_block_its_successors_end(ledger: SqliteLedger, run_id: str) -> None:
    start(ledger, run_id)
    first, second = "2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"
    crashed = WorkerRow("n0/driver", Role.DRIVER, status=WorkerStatus.RUNNING, last_heartbeat=first)
    ledger.heartbeat(run_id, [crashed])
    ledger.heartbeat(run_id, [replace(crashed, worker_id="n7/driver", status=WorkerStatus.DONE, last_heartbeat=second)])
    ledger.finish_run(run_id, RunStatus.DONE)
    run = ledger.run(run_id)
    assert run is not None
    assert run.status is RunStatus.DONE
    assert run.completed_at is not None


def test_counters_never_decrease_and_old_heartbeats_are_ignored(ledger: SqliteLedger, run_id: str) -> None:
    start(ledger, run_id)
    worker = WorkerRow(
        "w", status=WorkerStatus.RUNNING, videos_processed=50, error_count=2, last_error="x", memory_bytes=900,
        last_heartbeat="2026-11-22T10:00:10Z",
    )  # fmt: skip
    ledger.heartbeat(run_id, [worker])
    restarted = replace(worker, videos_processed=3, memory_bytes=100, last_heartbeat="2026-11-22T10:00:20Z")
    ledger.heartbeat(run_id, [replace(restarted, last_error=None, error_count=0)])
    (now,) = ledger.workers(run_id)
    assert (now.videos_processed, now.error_count, now.memory_bytes, now.last_error) == (50, 2, 100, "x")

    ledger.heartbeat(run_id, [replace(worker, videos_processed=60, status=WorkerStatus.FAILED)])
    assert ledger.workers(run_id) == [now]


def test_a_workers_second_run_does_not_change_its_first(ledger: SqliteLedger, run_id: str) -> None:
    for name, videos in ((run_id, 5), ("second", 7)):
        start(ledger, name)
        ledger.heartbeat(name, [WorkerRow("host-0", videos_processed=videos)])
    assert [ledger.workers(name)[0].videos_processed for name in (run_id, "second")] == [5, 7]


def test_a_long_dead_driver_does_not_hold_a_run_open(ledger: SqliteLedger, run_id: str) -> None:
    start(ledger, run_id, shards=2)
    ledger.heartbeat(run_id, [driver("n1/p1/a", age_s=31, partition_index=1)])
    ledger.heartbeat(run_id, [driver("n0/p0/a", WorkerStatus.DONE)])
    ledger.finish_run(run_id, RunStatus.DONE)
    assert status_of(ledger, run_id) is RunStatus.INCOMPLETE


def test_the_last_driver_of_a_partition_sets_the_status(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    start(ledger, run_id, shards=1)
    ledger.record_shard(make_result(0))
    for name in ("n0/p0/a", "n0/p0/b", "n0/p0/a"):
        ledger.heartbeat(run_id, [driver(name, age_s=-0.1 if name.endswith("a") else 0)])
    ledger.heartbeat(run_id, [driver("n0/p0/b", WorkerStatus.DONE)])
    ledger.finish_run(run_id, RunStatus.DONE)
    assert status_of(ledger, run_id) is RunStatus.RUNNING
    ledger.heartbeat(run_id, [driver("n0/p0/a", WorkerStatus.DONE, age_s=-1)])
    ledger.finish_run(run_id, RunStatus.DONE)
    assert status_of(ledger, run_id) is RunStatus.DONE


def test_a_heartbeat_after_the_end_reopens_the_run(ledger: SqliteLedger, run_id: str) -> None:
    start(ledger, run_id)
    ledger.heartbeat(run_id, [driver("n1/p1/a", age_s=60, partition_index=1)])
    ledger.finish_run(run_id, RunStatus.INCOMPLETE)
    assert status_of(ledger, run_id) is RunStatus.INCOMPLETE
    # A delayed heartbeat from before the end changes nothing.
    ledger.heartbeat(run_id, [driver("n1/p1/a", age_s=50, partition_index=1)])
    assert status_of(ledger, run_id) is RunStatus.INCOMPLETE
    ledger.heartbeat(run_id, [driver("n1/p1/a", age_s=-1, partition_index=1)])
    assert status_of(ledger, run_id) is RunStatus.RUNNING
    assert ledger.run(run_id).completed_at is None  # type: ignore[union-attr]


def test_a_process_silent_for_three_heartbeats_is_stale(ledger: SqliteLedger, run_id: str) -> None:
    def worker(name: str, age_s: float, status: WorkerStatus = WorkerStatus.RUNNING) -> WorkerRow:
        moment = format_utc(datetime.now(UTC) - timedelta(seconds=age_s))
        return WorkerRow(name, status=status, last_heartbeat=moment, videos_per_minute=4.0)

    start(ledger, run_id)
    ledger.heartbeat(run_id, [worker("a", 45), worker("b", 5), worker("c", 900, WorkerStatus.DONE)])
    ledger.heartbeat(run_id, [driver("d")])
    rows = {row.worker_id: (row.status, row.videos_per_minute) for row in ledger.workers(run_id)}
    assert rows == {"a": ("stale", 0), "b": ("running", 4), "c": ("done", 4), "d": ("running", 0)}
    assert ledger.progress(run_id).active_workers == 1
    ledger.heartbeat(run_id, [worker("a", 0)])
    assert ledger.progress(run_id).active_workers == 2


def test_a_snapshot_equals_its_separate_queries(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    assert ledger.run_rows() is None
    start(ledger, run_id)
    for index in range(4):
        ledger.record_shard(make_result(index, failed=1))
    ledger.heartbeat(run_id, [driver("d"), WorkerRow("d/0")])
    rows = ledger.run_rows(shards=3, errors=2)
    assert rows is not None
    assert rows.run == ledger.run(run_id)
    assert (rows.processed, len(rows.errors)) == (ledger.progress(run_id).processed, 2)
    assert list(rows.languages) == [replace(row, rate=0.0) for row in ledger.languages(run_id)]
    assert (list(rows.workers), list(rows.errors)) == (ledger.workers(run_id), ledger.errors(run_id, 2))
    assert [row.shard for row in rows.shards] == [row.shard for row in ledger.shards(run_id, 3)]
    assert ledger.run_rows("nope") is None


def test_working_time_is_known_when_the_run_has_ended(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    start(ledger, run_id)
    for index, minute in enumerate((0, 1, 5)):
        times = {"started_at": f"2026-11-22T10:0{minute}:00Z", "finished_at": f"2026-11-22T10:0{minute + 2}:00Z"}
        ledger.record_shard(make_result(index, **times))
    rows = ledger.run_rows()
    assert rows is not None
    assert rows.busy_s is None
    ledger.finish_run(run_id, RunStatus.INCOMPLETE)
    rows = ledger.run_rows()
    assert rows is not None
    assert rows.busy_s == 5 * 60
