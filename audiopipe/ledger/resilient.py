"""Keep a run independent of its ledger: what cannot be written now is kept in memory and written later, in order.

The object store is the truth, and the ledger is a view for people. A locked file, a full or read-only disk or a damaged
database therefore costs a warning and not the run. No call waits longer than the ledger waits for a lock. While the
ledger fails, it is tried again after `RETRY_S` seconds, and then less and less often. What a driver could not write
until its end is written by the next run from the commits.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar

from audiopipe.errors import LedgerError, LedgerUnavailable
from audiopipe.ledger.protocol import Ledger
from audiopipe.ledger.rates import RECENT_SHARDS
from audiopipe.ledger.rows import (
    ErrorRow,
    LanguageProgress,
    LanguageTotal,
    RunProgress,
    RunRow,
    RunRows,
    RunStatus,
    ShardRow,
    WorkerRow,
)
from audiopipe.ledger.sqlite_reader import DAMAGED_CODES, PRIMARY_CODE
from audiopipe.types import ShardResult

__all__ = ["ResilientLedger", "set_aside"]

RETRY_S, MAX_RETRY_S = 15.0, 240.0  # an attempt may wait for a lock, so a long outage is looked at less often
DATABASE_SUFFIXES = (".sqlite", ".sqlite3", ".db")

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Update:
    """A write to the ledger that may be repeated; a new ledger needs all that are `lasting`."""

    write: Callable[[Ledger], None]
    lasting: bool = False
    is_heartbeat: bool = False


class ResilientLedger:
    """The ledger of a driver, which continues if the ledger cannot be used.

    Args:
        open_ledger: opens the ledger; it is called again after an error.
        path: the SQLite file, which is set aside if it is damaged.

    Raises:
        LedgerError: a person must correct the ledger's address, key, tables or version before the start.
    """

    def __init__(self, open_ledger: Callable[[], Ledger], path: Path) -> None:
        self.path = path
        self._open = open_ledger
        self._ledger: Ledger | None = None
        self._pending: deque[_Update] = deque()
        self._lasting: list[_Update] = []
        self._failure: LedgerError | None = None
        self._next_attempt, self._retry_s = 0.0, RETRY_S
        try:
            self._ledger = self._open_or_replace()
        except LedgerUnavailable as error:
            self._note_failure(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start_run(self, run: RunRow, languages: Sequence[LanguageTotal]) -> None:
        self._lasting.clear()
        self._write(_Update(lambda ledger: ledger.start_run(run, languages), lasting=True))

    def record_shard(self, result: ShardResult) -> None:
        self._write(_Update(lambda ledger: ledger.record_shard(result), lasting=True))

    def record_shards(self, results: Sequence[ShardResult]) -> None:
        self._write(_Update(lambda ledger: ledger.record_shards(results), lasting=True))

    def record_failure(self, run_id: str, error: ErrorRow) -> None:
        self._write(_Update(lambda ledger: ledger.record_failure(run_id, error)))

    def heartbeat(self, run_id: str, workers: Sequence[WorkerRow]) -> None:
        # Only the last one is kept, because it has the highest counters.
        self._pending = deque(update for update in self._pending if not update.is_heartbeat)
        self._write(_Update(lambda ledger: ledger.heartbeat(run_id, workers), is_heartbeat=True))

    def finish_run(self, run_id: str, status: RunStatus) -> None:
        self._write(_Update(lambda ledger: ledger.finish_run(run_id, status)))

    def runs(self) -> list[RunRow]:
        return self._read(lambda ledger: ledger.runs())

    def run(self, run_id: str | None = None) -> RunRow | None:
        return self._read(lambda ledger: ledger.run(run_id))

    def run_rows(self, run_id: str | None = None, shards: int = RECENT_SHARDS, errors: int = 8) -> RunRows | None:
        return self._read(lambda ledger: ledger.run_rows(run_id, shards, errors))

    def progress(self, run_id: str) -> RunProgress:
        return self._read(lambda ledger: ledger.progress(run_id))

    def languages(self, run_id: str) -> list[LanguageProgress]:
        return self._read(lambda ledger: ledger.languages(run_id))

    def workers(self, run_id: str) -> list[WorkerRow]:
        return self._read(lambda ledger: ledger.workers(run_id))

    def shards(self, run_id: str, limit: int | None = None) -> list[ShardRow]:
        return self._read(lambda ledger: ledger.shards(run_id, limit))

    def errors(self, run_id: str, limit: int = 100) -> list[ErrorRow]:
        return self._read(lambda ledger: ledger.errors(run_id, limit))

    def close(self) -> None:
        """Write what is pending, if the ledger can be used by now, and close it."""
        if self._pending:
            self._next_attempt = 0.0
            self._flush()
        if self._pending:
            log.warning("the ledger lacks %d updates; the next run or resume writes them", len(self._pending))
        self._disconnect()

    def _write(self, update: _Update) -> None:
        if update.lasting:
            self._lasting.append(update)
        self._pending.append(update)
        self._flush()

    def _read(self, read: Callable[[Ledger], T]) -> T:
        """Read from the ledger.

        Raises:
            LedgerUnavailable: it cannot be used at the moment.
            LedgerError: as the method of `Ledger`.
        """
        self._flush()
        if self._ledger is None or self._failure is not None:
            raise LedgerUnavailable(str(self._failure))
        try:
            return read(self._ledger)
        except LedgerUnavailable as error:
            if error.is_damaged:
                self._replace()
            else:
                self._note_failure(error)
            raise

    def _flush(self) -> None:
        """Write the pending updates, unless the ledger failed a moment ago."""
        if self._failure is not None and time.monotonic() < self._next_attempt:
            return
        try:
            self._write_pending()
        except LedgerError as error:
            if isinstance(error, LedgerUnavailable) and error.is_damaged:
                self._replace()
            else:
                self._note_failure(error)
        else:
            self._note_success()

    def _write_pending(self) -> None:
        if self._ledger is None:
            self._ledger = self._open_or_replace()
            # The file may be another one than before. Updates that it has already change nothing.
            rest = [update for update in self._pending if not update.lasting]
            self._pending = deque([*self._lasting, *rest])
        while self._pending:
            update = self._pending[0]
            try:
                update.write(self._ledger)
            except LedgerUnavailable:
                raise
            except LedgerError as error:  # the update is wrong, so that it would fail again and block the others
                log.warning("%s; this update is left out", error)
            self._pending.popleft()

    def _replace(self) -> None:
        """Set aside a ledger that turns out to be damaged, and write a new one from the start."""
        self._disconnect()
        try:
            set_aside(self.path)
            self._write_pending()
        except LedgerError as error:
            self._note_failure(error)
        else:
            self._note_success()

    def _open_or_replace(self) -> Ledger:
        try:
            return self._open()
        except LedgerUnavailable as error:
            if not error.is_damaged:
                raise
            set_aside(self.path)
            return self._open()

    def _disconnect(self) -> None:
        if self._ledger is not None:
            with suppress(LedgerError, sqlite3.Error):
                self._ledger.close()
        self._ledger = None

    def _note_failure(self, error: LedgerError) -> None:
        if self._failure is None:
            log.warning("%s; the run continues, and its updates are written when the ledger can be used again", error)
        self._failure = error
        self._next_attempt = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)

    def _note_success(self) -> None:
        if self._failure is not None:
            log.warning("the ledger can be used again; the pending updates are written")
        self._failure, self._retry_s = None, RETRY_S


def set_aside(path: Path) -> None:
    """Rename a damaged ledger with its journal, and warn; do nothing if another driver has replaced it already.

    Raises:
        LedgerError: a file of another kind is at the address that a user gave; it is left alone.
        LedgerUnavailable: the file cannot be renamed.
    """
    if not _is_damaged(path):
        return
    if path.suffix not in DATABASE_SUFFIXES:
        raise LedgerError(f"{path} is not a ledger: give another path with --ledger, or remove the file")
    name = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    try:
        path.rename(path.with_name(name))
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(path.with_name(name + suffix))
    except OSError as error:
        raise LedgerUnavailable(f"{path} is damaged and cannot be renamed: {error}") from error
    log.warning("the ledger %s is damaged: it is set aside as %s, and written again from the commits", path, name)


def _is_damaged(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
    except sqlite3.DatabaseError as error:
        return error.sqlite_errorcode & PRIMARY_CODE in DAMAGED_CODES
