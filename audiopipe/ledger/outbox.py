"""Updates not yet sent: rows of the table `outbox` in the local ledger, written in the same transactions as the data.

After a crash the file has both the data and its update, or neither. Pending updates are sent by the next process that
opens the ledger, or by `audiopipe sync`. They are sent in order and at least once; the server ignores repetitions, so
each has its effect once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from audiopipe.ledger.record import RowValues
from audiopipe.ledger.supabase_client import ErrorKind, SupabaseClient, SupabaseError

__all__ = ["Outbox", "push"]

BATCH = 500  # rows of one request; fewer for a while after a request was too large or took too long
LARGE_ROW_BYTES = 100_000  # a server that refuses a smaller row is out of order, and may accept it later
BUSY_S = 5.0
BATCH_KINDS = {"shard": "shards", "failure": "failures", "worker": "workers"}
OutboxRow = tuple[int, str, str]  # seq, kind, body as JSON


class Outbox:
    """The pending updates of one ledger file, for use in one thread."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        self._batch = BATCH

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def count_pending(self) -> int:
        """Count the updates that are still to be sent."""
        return int(self._connection.execute("SELECT COUNT(*) FROM outbox WHERE refused IS NULL").fetchone()[0])

    def count_refused(self) -> int:
        """Count the updates that the server rejected permanently."""
        return int(self._connection.execute("SELECT COUNT(*) FROM outbox WHERE refused IS NOT NULL").fetchone()[0])

    def send(self, supabase: SupabaseClient) -> int:
        """Send all pending updates, the oldest first; return how many the server accepted.

        Raises:
            SupabaseError: the server is down or rejects the key; the remaining updates stay pending.
        """
        sent = 0
        sql = "SELECT seq, kind, body FROM outbox WHERE refused IS NULL ORDER BY seq LIMIT ?"
        while rows := self._connection.execute(sql, (self._batch,)).fetchall():
            try:
                sent += self._send_rows(supabase, rows)
                self._batch = min(2 * self._batch, BATCH)
            except SupabaseError as error:
                if error.kind not in (ErrorKind.SIZE, ErrorKind.TIME) or len(rows) == 1:
                    raise
                self._batch = len(rows) // 2
        return sent

    def _send_rows(self, supabase: SupabaseClient, rows: Sequence[OutboxRow]) -> int:
        try:
            push(supabase, _to_operations(rows))
        except SupabaseError as error:
            # One row that is too large is rejected like a row with bad values: it would block all others.
            is_too_large = error.kind is ErrorKind.SIZE and len(rows) == 1 and len(rows[0][2]) > LARGE_ROW_BYTES
            if error.kind is ErrorKind.ROW or is_too_large:
                return self._bisect(supabase, rows, error)
            raise
        sql = "DELETE FROM outbox WHERE seq IN (SELECT value FROM json_each(?))"
        self._connection.execute(sql, (json.dumps([seq for seq, _, _ in rows]),))
        return len(rows)

    def _bisect(self, supabase: SupabaseClient, rows: Sequence[OutboxRow], error: SupabaseError) -> int:
        """Halve a rejected batch, so that one bad row neither blocks the others nor changes their order."""
        if len(rows) == 1:
            self._connection.execute("UPDATE outbox SET refused = ? WHERE seq = ?", (str(error), rows[0][0]))
            return 0
        middle = len(rows) // 2
        return self._send_rows(supabase, rows[:middle]) + self._send_rows(supabase, rows[middle:])


def push(supabase: SupabaseClient, operations: list[RowValues]) -> None:
    """Apply operations in Supabase, all or none.

    Raises:
        SupabaseError: Supabase failed, or the response does not come from its function `write_ledger`.
    """
    if supabase.rpc("write_ledger", operations=operations) != len(operations):
        raise SupabaseError(ErrorKind.DOWN, f"{supabase.url} does not answer as Supabase does")


def _to_operations(rows: Sequence[OutboxRow]) -> list[RowValues]:
    """Build the arguments of `write_ledger`; consecutive rows of one kind become one operation."""
    operations: list[RowValues] = []
    for kind, group in groupby(rows, key=lambda row: row[1]):
        bodies = [json.loads(body) for _, _, body in group]
        if kind in BATCH_KINDS:
            operations.append({"kind": BATCH_KINDS[kind], "rows": bodies})
        else:
            operations.extend({"kind": kind, **body} for body in bodies)
    return operations
