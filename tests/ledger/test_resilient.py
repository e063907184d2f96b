"""A run's ledger that is locked, full, read-only or damaged costs updates' time and not the run."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_rows import RUN, shard_result

from audiopipe.errors import LedgerError, LedgerUnavailable
from audiopipe.ledger import (
    ErrorRow,
    LanguageTotal,
    Ledger,
    RunRow,
    RunStatus,
    SqliteLedger,
    WorkerRow,
    open_run_ledger,
    resilient,
)
from audiopipe.ledger import address as ledger_address


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_address, "DRIVER_BUSY_S", 0.02)
    monkeypatch.setattr(resilient, "RETRY_S", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "_ledger.sqlite"


class Lock:
    """An exclusive lock of another process on a ledger."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.connection.execute("BEGIN EXCLUSIVE")

    def release(self) -> None:
        self.connection.execute("ROLLBACK")
        self.connection.close()


@pytest.fixture
def lock(path: Path) -> Iterator[Lock]:
    lock = Lock(path)
    yield lock
    lock.connection.close()


def whole_run(ledger: Ledger, shards: range = range(3)) -> None:
    ledger.start_run(RunRow(RUN, "de", 30), [LanguageTotal("de", 30, 3)])
    for index in shards:
        ledger.record_shard(shard_result(index))
        ledger.heartbeat(RUN, [WorkerRow("w", videos_processed=10 * index)])
    ledger.record_failure(RUN, ErrorRow.of_attempt("de-000001", 1, "w", "StoreError", "gone"))
    ledger.finish_run(RUN, RunStatus.DONE)


def assert_complete(path: Path) -> None:
    with SqliteLedger(path, create=False) as ledger:
        run = ledger.run(RUN)
        assert run is not None
        assert run.status is RunStatus.DONE
        assert len(ledger.shards(RUN)) == 3
        assert ledger.progress(RUN).processed == 30


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_updates_wait_until_the_lock_is_released(path: Path, lock: Lock, caplog: pytest.LogCaptureFixture) -> None:
    with open_run_ledger(None, str(path.parent)) as ledger:
        whole_run(ledger)
        with pytest.raises(LedgerUnavailable, match="another process holds its lock"):
            ledger.run(RUN)
        lock.release()
        assert ledger.run(RUN) is not None
    assert_complete(path)
    first, last = warnings_of(caplog)
    assert "locked" in first
    assert "the run continues" in first
    assert "can be used again" in last


def test_a_failure_that_waits_has_the_time_when_it_happened(path: Path, lock: Lock) -> None:
    error = replace(
        ErrorRow.of_attempt("de-000001", 1, "w", "StoreError", "gone"), created_at="2026-11-21T09:30:00.000Z"
    )
    with open_run_ledger(None, str(path.parent)) as ledger:
        ledger.start_run(RunRow(RUN, "de", 30), [LanguageTotal("de", 30, 3)])
        ledger.record_failure(RUN, error)
        lock.release()
    with SqliteLedger(path, create=False) as ledger:
        assert ledger.errors(RUN) == [error]
        assert [shard.finished_at for shard in ledger.shards(RUN)] == [error.created_at]


def test_a_ledger_that_is_locked_forever_is_left_to_the_next_run(
    path: Path, lock: Lock, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run_ledger(None, str(path.parent)) as ledger:
        whole_run(ledger)
    assert any("the ledger lacks 7 updates; the next run or resume writes them" in line for line in warnings_of(caplog))
    assert len(warnings_of(caplog)) == 2
    lock.release()
    with open_run_ledger(None, str(path.parent)) as ledger:
        whole_run(ledger)
    assert_complete(path)


def test_a_lock_in_the_middle_of_a_run_changes_no_row(path: Path) -> None:
    with open_run_ledger(None, str(path.parent)) as ledger:
        ledger.start_run(RunRow(RUN, "de", 30), [LanguageTotal("de", 30, 3)])
        ledger.record_shard(shard_result(0))
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        ledger.record_shard(shard_result(1))
        writer.execute("ROLLBACK")
        writer.close()
        ledger.record_shard(shard_result(2))
        ledger.finish_run(RUN, RunStatus.DONE)
    assert_complete(path)


def test_a_call_during_an_outage_does_not_wait_again(path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resilient, "RETRY_S", 3600.0)
    attempts: list[int] = []

    def open_locked() -> Ledger:
        attempts.append(1)
        return SqliteLedger(path, busy_s=0.01)

    ledger = resilient.ResilientLedger(open_locked, path)
    whole_run(ledger)
    assert len(attempts) == 1
    ledger.close()
    assert len(attempts) == 2


def test_a_full_disk_delays_the_updates(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run_ledger(None, str(path.parent)) as ledger:
        assert isinstance(ledger, resilient.ResilientLedger)
        inner = ledger._ledger
        assert isinstance(inner, SqliteLedger)
        (pages,) = inner._connection.execute("PRAGMA page_count").fetchone()
        inner._connection.execute(f"PRAGMA max_page_count = {pages}")  # as on a full disk: SQLITE_FULL
        many = [WorkerRow(f"worker-{index}", last_error="x" * 500) for index in range(200)]
        whole_run(ledger)
        ledger.heartbeat(RUN, many)
        with pytest.raises(LedgerUnavailable, match="full"):
            ledger.workers(RUN)
        inner._connection.execute("PRAGMA max_page_count = 100000")
        assert len(ledger.workers(RUN)) == 201


@pytest.mark.parametrize("damage", [b"not a database", None], ids=["header", "pages"])
def test_a_damaged_ledger_is_set_aside_and_written_again(
    path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run_ledger(None, str(path.parent)) as ledger:
        whole_run(ledger)
    body = path.read_bytes()
    path.write_bytes(damage * 1000 if damage else body[:4096] + b"\xff" * (len(body) - 4096))
    with open_run_ledger(None, str(path.parent)) as ledger:
        whole_run(ledger)
    assert_complete(path)
    (kept,) = path.parent.glob("_ledger.sqlite.damaged-*[0-9]")
    assert kept.read_bytes()[4096:5000] == path.parent.joinpath(kept.name).read_bytes()[4096:5000]
    assert any("is damaged: it is set aside as" in line for line in warnings_of(caplog))


def test_damage_in_the_middle_of_a_run_rebuilds_the_whole_ledger(path: Path) -> None:
    with open_run_ledger(None, str(path.parent)) as ledger:
        ledger.start_run(RunRow(RUN, "de", 30), [LanguageTotal("de", 30, 3)])
        ledger.record_shard(shard_result(0))
        assert isinstance(ledger, resilient.ResilientLedger)
        assert ledger._ledger is not None
        ledger._ledger.close()
        path.with_name(path.name + "-wal").unlink(missing_ok=True)
        path.write_bytes(b"\xff" * path.stat().st_size)
        ledger._ledger = None
        for index in (1, 2):
            ledger.record_shard(shard_result(index))
        ledger.finish_run(RUN, RunStatus.DONE)
    assert_complete(path)


def test_another_file_at_the_address_is_refused_and_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_bytes(b"these are notes" * 100)
    with pytest.raises(LedgerError, match="is not a ledger: give another path") as caught:
        open_run_ledger(str(notes), str(tmp_path / "out"))
    assert not isinstance(caught.value, LedgerUnavailable)
    assert caught.value.exit_code == 2
    assert notes.read_bytes() == b"these are notes" * 100
    with pytest.raises(LedgerError, match="is a folder"):
        open_run_ledger(str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(LedgerError, match="is not supported"):
        open_run_ledger("mysql://host/db", str(tmp_path / "out"))


def test_a_ledger_whose_folder_cannot_be_made_does_not_stop_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with open_run_ledger(str(tmp_path / "file" / "x.sqlite"), str(tmp_path / "out")) as ledger:
        whole_run(ledger)
    assert "the run continues" in warnings_of(caplog)[0]


def test_an_update_that_the_ledger_rejects_does_not_block_the_others(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run_ledger(None, str(path.parent)) as ledger:
        ledger.heartbeat("unknown-run", [WorkerRow("w")])
        whole_run(ledger)
    assert_complete(path)
    assert "this update is left out" in warnings_of(caplog)[0]


def test_a_long_outage_is_tried_less_and_less_often(path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(resilient.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(resilient, "RETRY_S", 15.0)
    attempts: list[float] = []

    def open_locked() -> Ledger:
        attempts.append(now[0])
        raise LedgerUnavailable("locked")

    ledger = resilient.ResilientLedger(open_locked, path)
    for second in range(1200):
        now[0] = float(second)
        ledger.heartbeat(RUN, [WorkerRow("w")])
    assert attempts == [0.0, 15.0, 45.0, 105.0, 225.0, 465.0, 705.0, 945.0, 1185.0]
