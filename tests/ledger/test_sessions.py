"""Sessions of a run: drivers that start, join, end, die and are replaced, and what their workers' rows say."""

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


def driver(name: str, status: WorkerStatus = WorkerStatus.RUNNING, heard_s: float = 0.0, **more: Any) -> WorkerRow:
    """A driver's row as of `heard_s` seconds ago."""
    moment = datetime.now(UTC) - timedelta(seconds=heard_s)
    return WorkerRow(name, Role.DRIVER, status=status, last_heartbeat=format_utc(moment), **more)


def status_of(ledger: SqliteLedger, run_id: str) -> RunStatus:
    run = ledger.run(run_id)
    assert run is not None
    return run.status


def test_starting_again_resumes_the_run_and_keeps_its_first_start(
    ledger: SqliteLedger, run_id: str, make_result: Make
) -> None:
    start(ledger, run_id, videos=100)
    ledger.record_shard(make_result(0))
    first = ledger.run(run_id)
    ledger.finish_run(run_id, RunStatus.FAILED)
    start(ledger, run_id, videos=140)

    again = ledger.run(run_id)
    assert first is not None
    assert again is not None
    assert (again.status, again.completed_at, again.total_videos) == (RunStatus.RUNNING, None, 140)
    assert again.started_at == first.started_at
    assert again.resumed_at is not None
    assert first.resumed_at is not None
    assert again.resumed_at >= first.resumed_at
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


def test_a_run_is_done_when_all_shards_are_there_and_drivers_ended(
    ledger: SqliteLedger, run_id: str, make_result: Make
) -> None:
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


def test_a_crashed_driver_does_not_keep_open_what_its_successor_ends(ledger: SqliteLedger, run_id: str) -> None:
    start(ledger, run_id)
    early, late = "2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"
    crashed = WorkerRow("n0/driver", Role.DRIVER, status=WorkerStatus.RUNNING, last_heartbeat=early)
    ledger.heartbeat(run_id, [crashed])
    ledger.heartbeat(run_id, [replace(crashed, worker_id="n7/driver", status=WorkerStatus.DONE, last_heartbeat=late)])
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


def test_a_workers_second_run_leaves_its_first_alone(ledger: SqliteLedger, run_id: str) -> None:
    for name, videos in ((run_id, 5), ("second", 7)):
        start(ledger, name)
        ledger.heartbeat(name, [WorkerRow("host-0", videos_processed=videos)])
    assert [ledger.workers(name)[0].videos_processed for name in (run_id, "second")] == [5, 7]


def test_a_long_dead_driver_does_not_hold_a_run_open(ledger: SqliteLedger, run_id: str) -> None:
    start(ledger, run_id, shards=2)
    ledger.heartbeat(run_id, [driver("n1/p1/a", heard_s=31, partition_index=1)])
    ledger.heartbeat(run_id, [driver("n0/p0/a", WorkerStatus.DONE)])
    ledger.finish_run(run_id, RunStatus.DONE)
    assert status_of(ledger, run_id) is RunStatus.INCOMPLETE


def test_of_two_drivers_of_one_partition_the_last_to_end_decides(
    ledger: SqliteLedger, run_id: str, make_result: Make
) -> None:
    start(ledger, run_id, shards=1)
    ledger.record_shard(make_result(0))
    for name in ("n0/p0/a", "n0/p0/b", "n0/p0/a"):
        ledger.heartbeat(run_id, [driver(name, heard_s=-0.1 if name.endswith("a") else 0)])
    ledger.heartbeat(run_id, [driver("n0/p0/b", WorkerStatus.DONE)])
    ledger.finish_run(run_id, RunStatus.DONE)
    assert status_of(ledger, run_id) is RunStatus.RUNNING
    ledger.heartbeat(run_id, [driver("n0/p0/a", WorkerStatus.DONE, heard_s=-1)])
    ledger.finish_run(run_id, RunStatus.DONE)
    assert status_of(ledger, run_id) is RunStatus.DONE


def test_a_heartbeat_after_the_end_reopens_the_run(ledger: SqliteLedger, run_id: str) -> None:
    start(ledger, run_id)
    ledger.heartbeat(run_id, [driver("n1/p1/a", heard_s=60, partition_index=1)])
    ledger.finish_run(run_id, RunStatus.INCOMPLETE)
    assert status_of(ledger, run_id) is RunStatus.INCOMPLETE
    # What is told late of a time before the end changes nothing.
    ledger.heartbeat(run_id, [driver("n1/p1/a", heard_s=50, partition_index=1)])
    assert status_of(ledger, run_id) is RunStatus.INCOMPLETE
    ledger.heartbeat(run_id, [driver("n1/p1/a", heard_s=-1, partition_index=1)])
    assert status_of(ledger, run_id) is RunStatus.RUNNING
    assert ledger.run(run_id).completed_at is None  # type: ignore[union-attr]


def test_a_process_silent_for_three_heartbeats_is_stale(ledger: SqliteLedger, run_id: str) -> None:
    def worker(name: str, heard_s: float, status: WorkerStatus = WorkerStatus.RUNNING) -> WorkerRow:
        moment = format_utc(datetime.now(UTC) - timedelta(seconds=heard_s))
        return WorkerRow(name, status=status, last_heartbeat=moment, videos_per_minute=4.0)

    start(ledger, run_id)
    ledger.heartbeat(run_id, [worker("a", 45), worker("b", 5), worker("c", 900, WorkerStatus.DONE)])
    ledger.heartbeat(run_id, [driver("d")])
    found = {row.worker_id: (row.status, row.videos_per_minute) for row in ledger.workers(run_id)}
    assert found == {"a": ("stale", 0), "b": ("running", 4), "c": ("done", 4), "d": ("running", 0)}
    assert ledger.progress(run_id).active_workers == 1
    ledger.heartbeat(run_id, [worker("a", 0)])
    assert ledger.progress(run_id).active_workers == 2


def test_a_snapshot_equals_its_separate_queries(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    assert ledger.run_rows() is None
    start(ledger, run_id)
    for index in range(4):
        ledger.record_shard(make_result(index, failed=1))
    ledger.heartbeat(run_id, [driver("d"), WorkerRow("d/0")])
    seen = ledger.run_rows(shards=3, errors=2)
    assert seen is not None
    assert seen.run == ledger.run(run_id)
    assert (seen.processed, len(seen.errors)) == (ledger.progress(run_id).processed, 2)
    assert list(seen.languages) == [replace(row, rate=0.0) for row in ledger.languages(run_id)]
    assert (list(seen.workers), list(seen.errors)) == (ledger.workers(run_id), ledger.errors(run_id, 2))
    assert [row.shard for row in seen.shards] == [row.shard for row in ledger.shards(run_id, 3)]
    assert ledger.run_rows("nope") is None
