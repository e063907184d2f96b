"""Keep a ledger in Supabase: a run writes to a local SQLite ledger, and a thread sends the updates every few seconds.

The driver never waits for the network and can read its ledger during an outage. After an outage of any length the
pending updates are sent in order (`Outbox`). Workers need neither a key nor a connection. A reader (`SupabaseReader`)
queries Supabase and sees all drivers.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from audiopipe.errors import LedgerError, LedgerUnavailable
from audiopipe.ledger.outbox import Outbox, push
from audiopipe.ledger.record import RowValues
from audiopipe.ledger.rows import LanguageTotal, RunRow, ShardStatus
from audiopipe.ledger.sqlite import BUSY_S, SqliteLedger
from audiopipe.ledger.supabase_client import Query, SupabaseClient, SupabaseError
from audiopipe.types import ShardResult

__all__ = ["SupabaseLedger", "sync"]

SEND_EVERY_S = 10.0
FINAL_SEND_S = 15.0  # maximum wait for a slow server at the end of a run; `audiopipe sync` sends the rest

NO_LIMIT = 2**62  # as a LIMIT of SQLite

log = logging.getLogger(__name__)


def sync(path: Path) -> tuple[int, int]:
    """Send the pending updates of a local ledger; return how many Supabase accepted and how many it rejected.

    If the ledger was never connected to this Supabase, all its rows are sent.

    Raises:
        LedgerError: the key is wrong or tables are missing; the updates stay pending.
        LedgerUnavailable: Supabase is down; the updates stay pending.
    """
    SqliteLedger(path, create=False).close()  # raises if the file is missing
    with SupabaseClient() as supabase, OutboxLedger(path, supabase.url), closing(Outbox(path)) as outbox:
        try:
            return outbox.send(supabase), outbox.count_refused()
        except SupabaseError as error:
            kind = LedgerUnavailable if error.is_temporary else LedgerError
            raise kind(f"{error}; {outbox.count_pending()} updates are pending in {path}") from None


class OutboxLedger(SqliteLedger):
    """A SQLite ledger that also queues every update in its outbox, for the server at `url`."""

    def __init__(self, path: str | Path, url: str, busy_s: float = BUSY_S) -> None:
        super().__init__(path, busy_s=busy_s)
        self.url = url
        with self._transaction() as connection:
            if not connection.execute("SELECT 1 FROM sync_target WHERE url = ?", (url,)).fetchone():
                # The outbox serves one server, so a new server starts with all rows.
                connection.execute("DELETE FROM sync_target")
                connection.execute("DELETE FROM outbox")
                connection.execute("INSERT INTO sync_target (url) VALUES (?)", (url,))
                self._enqueue_all()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, {str(self.path)!r})"

    def _enqueue(self, kind: str, body: RowValues, key: str | None = None) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO outbox (kind, key, body) VALUES (?, ?, ?)", (kind, key, json.dumps(body))
        )

    def _enqueue_all(self) -> None:
        """Queue all rows of the file; the server ignores those that it has already."""
        for run in reversed(self.runs()):
            self._enqueue_run(run)

    def _enqueue_run(self, run: RunRow) -> None:
        key_columns = {"run_id": run.run_id}
        languages = [LanguageTotal.from_row(language.as_row()).as_row() for language in self.languages(run.run_id)]
        self._enqueue("start", {"run": run.as_row(), "languages": languages, "at": run.resumed_at})
        letters: dict[str | None, list[RowValues]] = defaultdict(list)
        for error in reversed(self.errors(run.run_id, NO_LIMIT)):
            if error.video_id is None:
                self._enqueue("failure", {**key_columns, **error.as_row()})
            else:
                letters[error.shard].append(error.as_row())
        for shard in self.shards(run.run_id):
            if shard.status is ShardStatus.DONE:
                self._enqueue("shard", {**key_columns, **shard.as_row(), "dead_letters": letters[shard.shard]})
        for worker in self.workers(run.run_id):
            self._enqueue("worker", {**key_columns, **worker.as_row()}, key=f"{run.run_id}/{worker.worker_id}")
        if run.completed_at:
            self._enqueue("finish", {**key_columns, "status": str(run.status), "at": run.completed_at})


class SupabaseLedger(OutboxLedger):
    """The ledger of a driver: a SQLite file whose updates a background thread sends to Supabase.

    While the server is down, the thread retries without limit.

    Raises:
        LedgerError: the key is wrong or tables are missing.
    """

    def __init__(self, path: str | Path, *, send_every_s: float = SEND_EVERY_S, busy_s: float = BUSY_S) -> None:
        with SupabaseClient(timeout_s=5) as supabase:
            _check_access(supabase)
        self._recorded: frozenset[tuple[str, str, int]] = frozenset()
        super().__init__(path, supabase.url, busy_s)  # queues the rows of a file that another server had
        self._sender = _Sender(self.path, send_every_s)

    def record_shards(self, results: Sequence[ShardResult]) -> None:
        """Record the shards that the file lacks; send those that the server lacks, since other nodes send too."""
        if not results:
            return
        self._recorded = _read_recorded(results[0].run_id)
        try:
            super().record_shards(results)
        finally:
            self._recorded = frozenset()

    def _enqueue(self, kind: str, body: RowValues, key: str | None = None) -> None:
        if kind != "shard" or (body["shard"], body["attempt"], body["videos"]) not in self._recorded:
            super()._enqueue(kind, body, key)

    def close(self) -> None:
        """Send the pending updates within a bounded time; the rest stays in the file."""
        self._sender.stop()
        super().close()


def _read_recorded(run_id: str) -> frozenset[tuple[str, str, int]]:
    """Read which attempts at shards the server has as done, with so many videos; none if it fails: all are sent."""
    recorded: list[tuple[str, str, int]] = []

    def refine(query: Query) -> Query:
        return query.eq("run_id", run_id).eq("status", str(ShardStatus.DONE))

    try:
        with SupabaseClient(timeout_s=5) as supabase:
            last = None
            while rows := supabase.page("shards", "shard", "shard,attempt,videos", refine, after=last):
                recorded += [(row["shard"], row["attempt"], row["videos"]) for row in rows]
                last = rows[-1]["shard"]
    except SupabaseError as error:
        log.warning("%s; all committed shards of the run are sent again", error)
        return frozenset()
    return frozenset(recorded)


def _check_access(supabase: SupabaseClient) -> None:
    """Check that the key may write and the tables exist; a server that fails is only logged.

    Raises:
        LedgerError: the key is wrong or tables are missing.
    """
    try:
        push(supabase, [])
    except SupabaseError as error:
        if not error.is_temporary:
            raise LedgerError(str(error)) from None
        log.warning("%s; the run continues, its updates are sent when the server is back", error)


class _Sender(threading.Thread):
    """A thread that sends the outbox of a file periodically, with its own connections."""

    def __init__(self, path: Path, every_s: float) -> None:
        super().__init__(name="supabase-ledger", daemon=True)
        self._path, self._every_s = path, every_s
        # Copied now, because the keys are removed from the environment for a moment while a cluster starts.
        self._environment = dict(os.environ)
        self._stopping = threading.Event()
        self._down = False
        self.start()

    def stop(self) -> None:
        self._stopping.set()
        self.join(FINAL_SEND_S)
        try:
            with closing(Outbox(self._path)) as outbox:
                pending, refused = outbox.count_pending(), outbox.count_refused()
        except sqlite3.Error as error:
            log.warning("%s: %s; `audiopipe sync` sends the updates that are pending there", self._path, error)
            return
        if pending:
            log.warning("%d updates are pending in %s; `audiopipe sync` sends them", pending, self._path)
        if refused:
            log.warning("Supabase rejected %d updates in %s; see its table `outbox` for reasons", refused, self._path)

    def run(self) -> None:
        with SupabaseClient(environment=self._environment) as supabase, closing(Outbox(self._path)) as outbox:
            while not self._stopping.wait(self._every_s):
                self._send(outbox, supabase)
            self._send(outbox, supabase)

    def _send(self, outbox: Outbox, supabase: SupabaseClient) -> None:
        """Try to send once; an outage is logged when it starts and when it ends."""
        try:
            sent = outbox.send(supabase)
        except (SupabaseError, sqlite3.Error) as error:
            if not self._down:
                log.warning("%s; updates are pending in %s", error, self._path)
            self._down = True
            return
        if self._down:
            log.warning("%s is back; %d updates were sent", supabase.url, sent)
        self._down = False
