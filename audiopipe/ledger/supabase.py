"""The ledger in Supabase. A run writes to a local SQLite ledger, and a thread tells Supabase of it every few seconds.

So the driver never waits for the network, its own view of the run is there while Supabase is not, and after an outage
of any length the updates that wait are sent in order (`Outbox`). Workers need no key and no connection. Who only looks
at a run (`SupabaseReader`) asks Supabase itself and sees all drivers.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

from audiopipe.errors import LedgerError
from audiopipe.ledger.outbox import Outbox, push
from audiopipe.ledger.rows import LanguageTotal, ShardStatus
from audiopipe.ledger.sqlite import SqliteLedger
from audiopipe.ledger.supabase_client import ErrorKind, SupabaseClient, SupabaseError

__all__ = ["SupabaseLedger", "sync"]

SEND_EVERY_S = 10.0
FINAL_SEND_S = 15.0  # how long the end of a run waits for a slow server; what is left is for `audiopipe sync`

NO_LIMIT = 2**62  # of SQLite's LIMIT

log = logging.getLogger(__name__)


def sync(path: Path) -> tuple[int, int]:
    """Send what waits in a local ledger; returns how many updates were sent, and how many the server refuses for good.

    A ledger that never knew of this Supabase is sent whole. Raises `LedgerError` when Supabase is down, the key is
    wrong or tables are missing; nothing is lost by that.
    """
    SqliteLedger(path, create=False).close()  # raises if there is none
    with SupabaseClient() as supabase, OutboxLedger(path, supabase.url), closing(Outbox(path)) as outbox:
        try:
            return outbox.send(supabase), outbox.count_refused()
        except SupabaseError as error:
            raise LedgerError(f"{error}; {outbox.count_pending()} updates wait in {path}") from None


class OutboxLedger(SqliteLedger):
    """A SQLite ledger that keeps in its outbox what the server at `url` has to be told."""

    def __init__(self, path: str | Path, url: str) -> None:
        super().__init__(path)
        self.url = url
        with self._transaction() as connection:
            if not connection.execute("SELECT 1 FROM sync_target WHERE url = ?", (url,)).fetchone():
                # The outbox is for one server; a new one is told from the start.
                connection.execute("DELETE FROM sync_target")
                connection.execute("DELETE FROM outbox")
                connection.execute("INSERT INTO sync_target (url) VALUES (?)", (url,))
                self._enqueue_all()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, {str(self.path)!r})"

    def _tell(self, kind: str, body: dict[str, Any], key: str | None = None) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO outbox (kind, key, body) VALUES (?, ?, ?)", (kind, key, json.dumps(body))
        )

    def _enqueue_all(self) -> None:
        """What the file holds from a time when the server was not told. The server knows it again if it knew it."""
        for run in reversed(self.runs()):
            of_run = {"run_id": run.run_id}
            languages = [LanguageTotal.from_row(language.as_row()).as_row() for language in self.languages(run.run_id)]
            self._tell("start", {"run": run.as_row(), "languages": languages, "at": run.resumed_at})
            letters: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
            for error in reversed(self.errors(run.run_id, NO_LIMIT)):
                if error.video_id is None:
                    self._tell("failure", {**of_run, **error.as_row()})
                else:
                    letters[error.shard].append(error.as_row())
            for shard in self.shards(run.run_id):
                if shard.status is ShardStatus.DONE:
                    self._tell("shard", {**of_run, **shard.as_row(), "dead_letters": letters[shard.shard]})
            for worker in self.workers(run.run_id):
                self._tell("worker", {**of_run, **worker.as_row()}, key=f"{run.run_id}/{worker.worker_id}")
            if run.completed_at:
                self._tell("finish", {**of_run, "status": str(run.status), "at": run.completed_at})


class SupabaseLedger(OutboxLedger):
    """A driver's ledger: a SQLite file that Supabase is told of.

    Raises `LedgerError` at once for a wrong key or missing tables; a server that is down is waited for, in the
    background, and without limit.
    """

    def __init__(self, path: str | Path, *, send_every_s: float = SEND_EVERY_S) -> None:
        with SupabaseClient(timeout_s=5) as supabase:
            _check_access(supabase)
        super().__init__(path, supabase.url)
        self._sender = _Sender(self.path, send_every_s)

    def close(self) -> None:
        """Send what waits, within a bounded time; the rest stays in the file."""
        self._sender.stop()
        super().close()


def _check_access(supabase: SupabaseClient) -> None:
    """Raise `LedgerError` for what a person has to mend before a run makes sense."""
    try:
        push(supabase, [])
    except SupabaseError as error:
        if error.kind is not ErrorKind.DOWN:
            raise LedgerError(str(error)) from None
        log.warning("%s; the run goes on, and its updates wait", error)


class _Sender(threading.Thread):
    """Sends the outbox of a file now and then, with its own connections."""

    def __init__(self, path: Path, every_s: float) -> None:
        super().__init__(name="supabase-ledger", daemon=True)
        self._path, self._every_s = path, every_s
        # As of now: while a cluster starts, the environment is without keys for a moment.
        self._environment = dict(os.environ)
        self._stopping = threading.Event()
        self._down = False
        self.start()

    def stop(self) -> None:
        self._stopping.set()
        self.join(FINAL_SEND_S)
        with closing(Outbox(self._path)) as outbox:
            waiting, refused = outbox.count_pending(), outbox.count_refused()
        if waiting:
            log.warning("%d updates wait in %s; `audiopipe sync` sends them", waiting, self._path)
        if refused:
            log.warning("%d updates in %s were refused; its table `outbox` has the reasons", refused, self._path)

    def run(self) -> None:
        with SupabaseClient(environment=self._environment) as supabase, closing(Outbox(self._path)) as outbox:
            while not self._stopping.wait(self._every_s):
                self._send(outbox, supabase)
            self._send(outbox, supabase)

    def _send(self, outbox: Outbox, supabase: SupabaseClient) -> None:
        """One attempt. An outage is told of when it begins and when it ends, not all the while."""
        try:
            sent = outbox.send(supabase)
        except (SupabaseError, sqlite3.Error) as error:
            if not self._down:
                log.warning("%s; updates wait in %s", error, self._path)
            self._down = True
            return
        if self._down:
            log.warning("%s is back; %d updates were sent", supabase.url, sent)
        self._down = False
