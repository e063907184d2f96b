from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from audiopipe.errors import LedgerError
from audiopipe.ledger import (
    ErrorRow,
    LanguageTotal,
    Role,
    RunProgress,
    RunRow,
    RunStatus,
    ShardRow,
    ShardStatus,
    SqliteLedger,
    WorkerRow,
    WorkerStatus,
    format_utc,
)
from audiopipe.types import ShardResult

Make = Callable[..., ShardResult]


def start(ledger: SqliteLedger, run_id: str, videos: int = 100, shards: int = 0) -> None:
    run = RunRow(run_id, "all", videos, output="/data/out", config_digest="abc", version="0.1.0")
    ledger.start_run(run, [LanguageTotal("de", videos // 2, shards), LanguageTotal("fr", videos - videos // 2)])


def dump_sql(ledger: SqliteLedger) -> list[str]:
    """Dump the database as SQL text."""
    with sqlite3.connect(ledger.path) as connection:
        dump = list(connection.iterdump())
    connection.close()
    return dump


def query(ledger: SqliteLedger, sql: str, *values: object) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(ledger.path, timeout=5)
    with connection:
        rows = connection.execute(sql, values).fetchall()
    connection.close()
    return rows


def test_run_progress_has_the_numbers_computed_by_hand(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    start(ledger, run_id, videos=100)
    # Three workers and three shards: a join before the sums would triple each sum.
    ledger.heartbeat(
        run_id,
        [
            WorkerRow("a", status=WorkerStatus.RUNNING, videos_total=30, videos_processed=9, videos_per_minute=4.0),
            WorkerRow("b", status=WorkerStatus.RUNNING, videos_total=20, videos_processed=8, videos_per_minute=2.0),
            WorkerRow("c", status=WorkerStatus.FAILED, videos_total=10, videos_processed=7),
            WorkerRow("d", role=Role.DRIVER, status=WorkerStatus.RUNNING, videos_total=99, videos_per_minute=50.0),
        ],
    )
    for index in range(3):
        ledger.record_shard(make_result(index, videos=10, failed=1))
    ledger.record_failure(run_id, ErrorRow.of_attempt("de-000009", 1, "a", "StoreError", "gone"))
    query(ledger, "UPDATE pipeline_runs SET started_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-90 minutes')")

    progress = ledger.progress(run_id)

    assert (progress.total_videos, progress.processed, progress.assigned) == (100, 30, 60)
    assert (progress.avg_rate, progress.total_rate) == (2.0, 6.0)
    assert (progress.active_workers, progress.failed_workers) == (2, 1)
    assert progress.hours_elapsed == pytest.approx(1.5, abs=0.01)
    assert progress.hours_remaining == pytest.approx(70 / 6 / 60)


def test_run_progress_has_the_documented_columns(ledger: SqliteLedger) -> None:
    columns = [str(row[1]) for row in query(ledger, "PRAGMA table_info(run_progress)")]
    assert columns == [item.name for item in fields(RunProgress)]


def test_a_run_without_workers_has_no_rate_and_no_eta(ledger: SqliteLedger, run_id: str) -> None:
    start(ledger, run_id)
    progress = ledger.progress(run_id)
    assert (progress.processed, progress.avg_rate, progress.hours_remaining) == (0, None, None)


def test_the_documented_upsert_works_as_written(ledger: SqliteLedger) -> None:
    """Write the columns and values of the plan document's ProgressReporter and INSERT, as PostgREST would."""
    query(ledger, "INSERT INTO pipeline_runs (language, total_videos) VALUES ('de', 500)")
    (run,) = ledger.runs()
    upsert = (
        "INSERT INTO worker_progress (worker_id, run_id, videos_processed, segments_processed, videos_per_minute, "
        "segments_per_second, last_heartbeat, status) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, worker_id) "
        "DO UPDATE SET videos_processed = excluded.videos_processed, videos_per_minute = excluded.videos_per_minute, "
        "last_heartbeat = excluded.last_heartbeat, status = excluded.status"
    )
    naive = datetime(2026, 11, 22, 10, 0, 0, 123456).isoformat()
    query(ledger, upsert, "w1", run.run_id, 50, 1000, 10.0, 3.5, naive, "running")
    query(ledger, upsert, "w1", run.run_id, 60, 1200, 12.0, 4.5, naive, "running")

    assert len(run.run_id) == 36
    (worker,) = ledger.workers(run.run_id)
    assert (worker.partition_index, worker.partition_count, worker.videos_processed) == (0, 1, 60)
    assert worker.last_heartbeat == "2026-11-22T10:00:00.123Z"
    progress = ledger.progress(run.run_id)
    assert (progress.processed, progress.active_workers, progress.hours_remaining) == (60, 1, 440 / 12.0 / 60)


def test_recording_a_commit_twice_changes_nothing(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    start(ledger, run_id)
    ledger.record_shard(make_result(0, failed=2))
    before = dump_sql(ledger)
    ledger.record_shard(make_result(0, failed=2))
    assert dump_sql(ledger) == before
    assert len(ledger.errors(run_id)) == 2


def test_of_many_commits_only_those_that_are_missing_are_recorded(
    ledger: SqliteLedger, run_id: str, make_result: Make
) -> None:
    start(ledger, run_id)
    results = [make_result(index) for index in range(20)]
    for result in results[:15]:
        ledger.record_shard(result)
    statements: list[str] = []
    ledger._connection.set_trace_callback(statements.append)
    rebuilt = replace(results[3], attempt="rebuilt", finished_at="2026-11-23T10:00:00+00:00")
    ledger.record_shards([rebuilt if result is results[3] else result for result in results])
    assert len([text for text in statements if text.startswith("INSERT INTO shards")]) == 6
    assert len([text for text in statements if text.startswith("SELECT shard, attempt, videos FROM shards")]) == 1
    assert {row.shard: row.attempt for row in ledger.shards(run_id)} == {
        result.shard: "rebuilt" if result is results[3] else result.attempt for result in results
    }
    ledger.record_shards([])


def test_two_runs_can_have_the_same_dead_letter(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    for name in (run_id, "another"):
        start(ledger, name)
        ledger.record_shard(make_result(0, failed=1, run_id=name))
    assert [len(ledger.errors(name)) for name in (run_id, "another")] == [1, 1]


def test_a_repeated_shard_replaces_its_row_and_dead_letters(
    ledger: SqliteLedger, run_id: str, make_result: Make
) -> None:
    start(ledger, run_id)
    old = make_result(0, failed=2)
    new = make_result(0, failed=1, attempt="second", finished_at="2026-11-22T12:00:00Z")
    for result in (old, new, old):
        ledger.record_shard(result)
    (shard,) = ledger.shards(run_id)
    assert (shard.attempt, shard.videos_failed, len(ledger.errors(run_id))) == ("second", 1, 1)


def test_videos_that_were_planned_again_leave_their_first_shard(
    ledger: SqliteLedger, run_id: str, make_result: Make
) -> None:
    start(ledger, run_id)
    whole = make_result(0, failed=2)
    (letter, _) = whole.dead_letters
    part = replace(whole, videos=whole.videos - 1, videos_failed=1, dead_letters=(letter,))
    for results in ([whole], [part], [whole]):  # a driver that does not know the retry may record the whole again
        ledger.record_shards(results)
    (shard,), (error,) = ledger.shards(run_id), ledger.errors(run_id)
    assert (shard.videos, shard.videos_failed, shard.attempts) == (whole.videos - 1, 1, 1)
    assert error.video_id == letter.video_id


def test_a_failure_is_counted_until_the_shard_is_committed(
    ledger: SqliteLedger, run_id: str, make_result: Make
) -> None:
    start(ledger, run_id)
    # Two sessions of the driver: the second counts from 1, and the attempts of both are summed.
    for attempt in (1, 2, 1):
        ledger.record_failure(
            run_id, ErrorRow.of_attempt("de-000000", attempt, "host-0", "StoreError", "time-out", "Traceback …")
        )
    (shard,) = ledger.shards(run_id)
    assert (shard.status, shard.attempts, shard.error) == (ShardStatus.FAILED, 3, "StoreError: time-out")
    assert ledger.progress(run_id).processed == 0

    ledger.record_shard(make_result(0))
    (shard,) = ledger.shards(run_id)
    assert (shard.status, shard.attempts, shard.error) == (ShardStatus.DONE, 4, None)
    newest, *_ = ledger.errors(run_id)
    assert (newest.shard, newest.attempt, newest.stack_trace) == ("de-000000", 1, "Traceback …")


def test_a_late_failure_does_not_change_a_finished_shard(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    start(ledger, run_id)
    ledger.record_shard(make_result(0))
    (before,) = ledger.shards(run_id)
    ledger.record_failure(run_id, ErrorRow.of_attempt("de-000000", 2, "host-1", "StoreError", "the store was away"))
    assert ledger.shards(run_id) == [before]


def test_languages_are_summed_over_finished_shards_only(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    start(ledger, run_id, shards=5)
    ledger.record_shard(make_result(0, "de", videos=10, failed=1))
    ledger.record_shard(make_result(1, "de", videos=6))
    ledger.record_failure(run_id, ErrorRow.of_attempt("fr-000000", 1, None, "StoreError", "gone"))
    german, french = ledger.languages(run_id)
    assert (german.processed, german.failed, german.shards_done, german.total_shards) == (16, 1, 2, 5)
    assert (german.segments, german.kept, german.audio_s, german.kept_s) == (300, 225, 1500.0, 1125.0)
    assert (german.bytes_in, german.bytes_out) == (16_000, 7_500)
    assert (french.processed, french.shards_done, french.total_videos) == (0, 0, 50)


def test_a_result_is_read_as_it_was_recorded(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    start(ledger, run_id)
    result = make_result(3, "fr", failed=1, partition=4, worker="host-1", device="cuda")
    ledger.record_shard(result)
    (shard,) = ledger.shards(run_id)
    assert shard == replace(ShardRow.from_result(result), attempts=1)
    assert (shard.drops, shard.stage_s, shard.partition_index) == (result.drops, result.stage_s, 4)
    (error,) = ledger.errors(run_id)
    assert error == ErrorRow.from_dead_letter(result.dead_letters[0], result).from_row(error.as_row())
    assert error.retriable is False


def test_limited_shards_come_newest_first(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    start(ledger, run_id)
    for index in (2, 0, 1):
        ledger.record_shard(make_result(index))
    assert [shard.shard for shard in ledger.shards(run_id)] == ["de-000000", "de-000001", "de-000002"]
    assert [shard.shard for shard in ledger.shards(run_id, limit=2)] == ["de-000002", "de-000001"]


def test_the_newest_run_is_the_default(ledger: SqliteLedger, run_id: str) -> None:
    assert ledger.run() is None
    ledger.start_run(RunRow("old", "de", 1, started_at="2026-01-01T00:00:00Z"), [])
    start(ledger, run_id)
    newest = ledger.run()
    assert newest is not None
    assert newest.run_id == run_id
    assert ledger.run("nope") is None
    for read in (ledger.progress, ledger.workers, ledger.shards, ledger.errors, ledger.languages):
        with pytest.raises(LedgerError, match="no run 'nope'"):
            read("nope")


def test_rows_without_a_run_are_refused_with_the_reason(ledger: SqliteLedger, make_result: Make) -> None:
    with pytest.raises(LedgerError, match="call start_run before"):
        ledger.record_shard(make_result(0))
    with pytest.raises(LedgerError, match="call start_run before"):
        ledger.heartbeat("nope", [WorkerRow("w")])


def test_a_reader_does_not_see_an_open_transaction(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    start(ledger, run_id)
    ledger.record_shard(make_result(0))
    writer = sqlite3.connect(ledger.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE shards SET videos = 999")
    with SqliteLedger(ledger.path, create=False) as reader:
        assert reader.progress(run_id).processed == 10
        writer.execute("COMMIT")
        assert reader.progress(run_id).processed == 999
    writer.close()


def test_a_reader_cannot_write(ledger: SqliteLedger, run_id: str) -> None:
    with SqliteLedger(ledger.path, create=False) as reader, pytest.raises(LedgerError, match="readonly"):
        start(reader, run_id)


def test_times_in_the_ledger_are_utc_iso_text(ledger: SqliteLedger, run_id: str, make_result: Make) -> None:
    start(ledger, run_id)
    ledger.record_shard(make_result(0, failed=1, finished_at="2026-11-22T12:30:00.5+02:00"))
    ledger.heartbeat(run_id, [WorkerRow("w")])
    ledger.finish_run(run_id, RunStatus.DONE)
    times = query(
        ledger,
        "SELECT started_at, completed_at, resumed_at FROM pipeline_runs UNION ALL "
        "SELECT last_heartbeat, started_at, updated_at FROM worker_progress UNION ALL "
        "SELECT started_at, finished_at, finished_at FROM shards UNION ALL "
        "SELECT created_at, created_at, created_at FROM processing_errors",
    )
    for time in (time for row in times for time in row):
        assert time == format_utc(str(time))
    assert ledger.shards(run_id)[0].finished_at == "2026-11-22T10:30:00.500Z"
    run = ledger.run(run_id)
    assert run is not None
    assert run.started_at is not None
    age = datetime.now(UTC) - datetime.fromisoformat(run.started_at)
    assert 0 <= age.total_seconds() < 60


def test_a_file_that_is_not_a_database_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "_ledger.sqlite"
    path.write_bytes(b"this is not a database, it is a file of notes" * 50)
    with pytest.raises(LedgerError, match=r"_ledger\.sqlite cannot be used as a ledger"):
        SqliteLedger(path)
    assert path.read_bytes().startswith(b"this is not")
