"""The ledger in a SQLite file: many readers and several writers at once, without a server.

Every write is one transaction that takes the write lock first, so a killed process leaves all of it or nothing. The
journal is a WAL, which needs a local disk: for an output on a network share, give `--ledger` a local path.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from audiopipe.errors import LedgerError
from audiopipe.ledger.migrate import migrate, require_current, transaction
from audiopipe.ledger.queries import (
    COUNTERS,
    FINISH_RUN,
    MARK_STALE,
    REOPEN_RUN,
    RESUME_RUN,
    build_assignments,
    build_insert,
)
from audiopipe.ledger.record import RowValues, utc_now
from audiopipe.ledger.rows import ErrorRow, LanguageTotal, RunRow, RunStatus, ShardRow, WorkerRow
from audiopipe.ledger.sqlite_reader import BUSY_CODES, PRIMARY_CODE, SqliteReader
from audiopipe.types import ShardResult

__all__ = ["SqliteLedger"]

BUSY_S = 30.0  # longest wait for another process that writes
BATCH = 256  # shards of one transaction


class SqliteLedger(SqliteReader):
    """A `Ledger` in a file. Without `create` it is opened read-only.

    Args:
        busy_s: longest wait for another process that writes.

    Raises:
        LedgerError: the file is missing, or another version created it.
        LedgerUnavailable: the file is locked, damaged or not a ledger, or its disk is full or read-only.
    """

    def __init__(self, path: str | Path, *, create: bool = True, busy_s: float = BUSY_S) -> None:
        self.path = Path(path)
        self._busy_s = busy_s
        if not create and not self.path.is_file():
            raise LedgerError(f"{self.path} does not exist: start a run first, or give its path with --ledger")
        if self.path.is_dir():
            raise LedgerError(f"{self.path} is a folder: give the path of a file with --ledger")
        with self._convert_errors():
            self._connection = self._connect(create)

    def __repr__(self) -> str:
        return f"SqliteLedger({str(self.path)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def start_run(self, run: RunRow, languages: Sequence[LanguageTotal]) -> None:
        now = utc_now()
        row = {**run.as_row(), "started_at": run.started_at or now, "resumed_at": run.resumed_at or now}
        with self._transaction() as connection:
            self._enqueue("start", {"run": row, "languages": [language.as_row() for language in languages], "at": now})
            if not connection.execute("SELECT 1 FROM pipeline_runs WHERE run_id = ?", (run.run_id,)).fetchone():
                connection.execute(*build_insert("pipeline_runs", {**row, "status": "running", "completed_at": None}))
            else:
                connection.execute(RESUME_RUN, {**row, "now": now})
            for language in languages:
                sql, values = build_insert("run_languages", {"run_id": run.run_id, **language.as_row()})
                connection.execute(
                    f"{sql} ON CONFLICT (run_id, language) DO UPDATE SET {build_assignments(language.as_row())}", values
                )

    def record_shard(self, result: ShardResult) -> None:
        self._record_batch([result])

    def _record_batch(self, results: Sequence[ShardResult]) -> None:
        """Record shards in one transaction."""
        with self._transaction() as connection:
            for result in results:
                self._record(connection, result)

    def _record(self, connection: sqlite3.Connection, result: ShardResult) -> None:
        row = {"run_id": result.run_id, **ShardRow.from_result(result).as_row(), "attempts": 1}
        key = (result.run_id, result.shard)
        finished = self._finished_shard(key)
        if finished and (_is_recorded(result, finished) or finished["finished_at"] > row["finished_at"]):
            return
        repeated = finished is not None and finished["attempt"] == result.attempt
        connection.execute("DELETE FROM processing_errors WHERE run_id = ? AND shard = ? AND video_id IS NOT NULL", key)
        sql, values = build_insert("shards", row, keep_null=True)
        update = build_assignments(row, attempts=f"shards.attempts + {int(not repeated)}")
        connection.execute(f"{sql} ON CONFLICT (run_id, shard) DO UPDATE SET {update}", values)
        letters = [ErrorRow.from_dead_letter(letter, result) for letter in result.dead_letters]
        for letter in letters:
            self._record_error(result.run_id, letter)
        self._enqueue("shard", {**row, "dead_letters": [letter.as_row() for letter in letters]})

    def record_shards(self, results: Sequence[ShardResult]) -> None:
        if not results:
            return
        sql = "SELECT shard, attempt, videos FROM shards WHERE run_id = ? AND status = 'done'"
        recorded = {row["shard"]: row for row in self._query(sql, (results[0].run_id,))}
        missing = [result for result in results if not _is_recorded(result, recorded.get(result.shard))]
        for start in range(0, len(missing), BATCH):  # a short transaction does not keep other drivers waiting
            self._record_batch(missing[start : start + BATCH])

    def record_failure(self, run_id: str, error: ErrorRow) -> None:
        error_row = {"run_id": run_id, **error.as_row()}
        row = {name: error_row[name] for name in ("run_id", "shard", "language", "worker_id")}
        row |= {"status": "failed", "attempts": 1, "finished_at": error_row["created_at"]}
        row |= {"error": f"{error_row['error_type']}: {error_row['error_message']}"}
        with self._transaction() as connection:
            self._record_error(run_id, error)
            sql, values = build_insert("shards", row, keep_null=True)
            # An attempt that fails after the commit of another one does not change the finished shard.
            update = build_assignments(row, attempts="shards.attempts + 1")
            sql = f"{sql} ON CONFLICT (run_id, shard) DO UPDATE SET {update} WHERE shards.status <> 'done'"
            connection.execute(sql, values)
            self._enqueue("failure", error_row)

    def heartbeat(self, run_id: str, workers: Sequence[WorkerRow]) -> None:
        with self._transaction() as connection:
            # After the wait for the lock, so that the last writer has the last time.
            now = utc_now()
            rows = [{"run_id": run_id, **worker.as_row(), "updated_at": now} for worker in workers]
            for row in rows:
                row["last_heartbeat"] = row["last_heartbeat"] or now
                sql, values = build_insert("worker_progress", row)
                counters = {name: f"MAX(worker_progress.{name}, excluded.{name})" for name in COUNTERS}
                update = build_assignments(values, started_at="worker_progress.started_at", **counters)
                sql = f"{sql} ON CONFLICT (run_id, worker_id) DO UPDATE SET {update}"
                newer = f"{sql} WHERE excluded.last_heartbeat >= worker_progress.last_heartbeat RETURNING *"
                # The stored row is sent, because it has the highest counters of all heartbeats, sent or not.
                for stored in connection.execute(newer, values).fetchall():
                    self._enqueue("worker", dict(stored), key=f"{run_id}/{row['worker_id']}")
            latest = {"run_id": run_id, "now": max((row["last_heartbeat"] for row in rows), default=now)}
            connection.execute(MARK_STALE, latest)
            connection.execute(REOPEN_RUN, latest)

    def finish_run(self, run_id: str, status: RunStatus) -> None:
        now = utc_now()
        with self._transaction() as connection:
            connection.execute(FINISH_RUN, {"run_id": run_id, "status": str(status), "now": now})
            self._enqueue("finish", {"run_id": run_id, "status": str(status), "at": now})

    def _enqueue(self, kind: str, body: RowValues, key: str | None = None) -> None:
        """Queue an update for a server, in the transaction of the write; a ledger without a server ignores it."""

    def _connect(self, create: bool) -> sqlite3.Connection:
        if create:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        uri = f"{self.path.absolute().as_uri()}?mode={'rwc' if create else 'ro'}"
        connection = sqlite3.connect(uri, uri=True, timeout=self._busy_s, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        try:
            if not create:
                require_current(connection)
                return connection
            _use_wal(connection, self._busy_s)
            # A killed process loses nothing; a power cut may lose the last transactions, which the commits can restore.
            connection.execute("PRAGMA synchronous = NORMAL")
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _finished_shard(self, key: tuple[str, str]) -> RowValues | None:
        sql = "SELECT attempt, videos, finished_at FROM shards WHERE run_id = ? AND shard = ? AND status = 'done'"
        rows = self._query(sql, key)
        return rows[0] if rows else None

    def _record_error(self, run_id: str, error: ErrorRow) -> None:
        sql, values = build_insert("processing_errors", {"run_id": run_id, **error.as_row()})
        self._connection.execute(f"{sql} ON CONFLICT DO NOTHING", values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._convert_errors(), transaction(self._connection):
            yield self._connection


def _is_recorded(result: ShardResult, row: RowValues | None) -> bool:
    """Check whether a row has this result, or one without the dead letters that were planned again since."""
    return row is not None and bool(row["attempt"] == result.attempt and row["videos"] <= result.videos)


def _use_wal(connection: sqlite3.Connection, busy_s: float) -> None:
    """Switch the journal to a WAL; SQLite does not wait for other processes that open the file, so this retries."""
    deadline = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & PRIMARY_CODE not in BUSY_CODES or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
