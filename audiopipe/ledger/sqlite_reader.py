"""Read a SQLite ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from audiopipe.errors import LedgerError, LedgerUnavailable
from audiopipe.ledger.queries import LANGUAGES, NEWEST_SHARDS
from audiopipe.ledger.rates import RECENT_SHARDS, measure_busy_time, select_window
from audiopipe.ledger.record import RowValues
from audiopipe.ledger.rows import (
    ErrorRow,
    LanguageProgress,
    RunProgress,
    RunRow,
    RunRows,
    RunStatus,
    ShardRow,
    WorkerRow,
    describe_unknown_run,
)
from audiopipe.types import Seconds

__all__ = ["SqliteReader"]

PRIMARY_CODE = 0xFF  # the rest of an error code of SQLite is a detail
DAMAGED_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
BUSY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
ADVICE = dict.fromkeys(BUSY_CODES, "another process holds its lock") | {sqlite3.SQLITE_FULL: "make room on its disk"}


class SqliteReader:
    """Reading methods of `Ledger`, on the connection that `SqliteLedger` opens."""

    path: Path
    _connection: sqlite3.Connection

    def runs(self) -> list[RunRow]:
        return [
            RunRow.from_row(row)
            for row in self._query("SELECT * FROM pipeline_runs ORDER BY started_at DESC, rowid DESC")
        ]

    def run(self, run_id: str | None = None) -> RunRow | None:
        return next((run for run in self.runs() if run_id in (None, run.run_id)), None)

    def run_rows(self, run_id: str | None = None, shards: int = RECENT_SHARDS, errors: int = 8) -> RunRows | None:
        with self._read_transaction():
            run = self.run(run_id)
            if run is None:
                return None
            return RunRows(
                run,
                self.progress(run.run_id).processed,
                self._languages(run.run_id),
                self.workers(run.run_id),
                self._newest_shards(run.run_id, shards),
                self.errors(run.run_id, errors),
                None if run.status is RunStatus.RUNNING else self._measure_busy_time(run.run_id),
            )

    def progress(self, run_id: str) -> RunProgress:
        self._require_run(run_id)
        return RunProgress.from_row(self._query("SELECT * FROM run_progress WHERE run_id = ?", (run_id,))[0])

    def languages(self, run_id: str) -> list[LanguageProgress]:
        run = self._require_run(run_id)
        window = select_window(run, self._newest_shards(run_id, RECENT_SHARDS), datetime.now(UTC))
        return [replace(row, rate=window.videos_per_minute(row.language)) for row in self._languages(run_id)]

    def workers(self, run_id: str) -> list[WorkerRow]:
        self._require_run(run_id)
        sql = "SELECT * FROM worker_progress WHERE run_id = ? ORDER BY worker_id"
        return [WorkerRow.from_row(row) for row in self._query(sql, (run_id,))]

    def shards(self, run_id: str, limit: int | None = None) -> list[ShardRow]:
        self._require_run(run_id)
        order = "shard" if limit is None else "finished_at DESC, shard LIMIT ?"
        values = (run_id,) if limit is None else (run_id, limit)
        return [
            ShardRow.from_row(row)
            for row in self._query(f"SELECT * FROM shards WHERE run_id = ? ORDER BY {order}", values)
        ]

    def errors(self, run_id: str, limit: int = 100) -> list[ErrorRow]:
        self._require_run(run_id)
        sql = "SELECT * FROM processing_errors WHERE run_id = ? ORDER BY id DESC LIMIT ?"
        return [ErrorRow.from_row(row) for row in self._query(sql, (run_id, limit))]

    def _require_run(self, run_id: str) -> RunRow:
        run = self.run(run_id)
        if run is None:
            raise LedgerError(describe_unknown_run(str(self.path), run_id, self.runs()))
        return run

    def _languages(self, run_id: str) -> list[LanguageProgress]:
        return [LanguageProgress.from_row(row) for row in self._query(LANGUAGES, {"run_id": run_id})]

    def _measure_busy_time(self, run_id: str) -> Seconds:
        sql = "SELECT started_at, finished_at FROM shards WHERE run_id = ? AND status = 'done'"
        return measure_busy_time((row["started_at"], row["finished_at"]) for row in self._query(sql, (run_id,)))

    def _newest_shards(self, run_id: str, limit: int) -> list[ShardRow]:
        return [ShardRow.from_row(row) for row in self._query(NEWEST_SHARDS, (run_id, limit))]

    def _query(self, sql: str, values: Sequence[str | int] | Mapping[str, str] = ()) -> list[RowValues]:
        with self._convert_errors():
            return [dict(row) for row in self._connection.execute(sql, values)]

    @contextmanager
    def _read_transaction(self) -> Iterator[None]:
        """Run a block in a read transaction: its queries see one state, even if others write in the meantime."""
        with self._convert_errors():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise LedgerError(f"{self.path} rejected a row ({error}): call start_run before other writes") from error
        except (sqlite3.Error, OSError) as error:
            raise _to_ledger_error(self.path, error) from error


def _to_ledger_error(path: Path, error: sqlite3.Error | OSError) -> LedgerError:
    """Convert an error of the file or its database."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & PRIMARY_CODE
    advice = ADVICE.get(code, "permit writing there, or give a local path with --ledger")
    unavailable = LedgerUnavailable(f"{path} cannot be used as a ledger: {error}; {advice}")
    unavailable.is_damaged = code in DAMAGED_CODES
    return unavailable
