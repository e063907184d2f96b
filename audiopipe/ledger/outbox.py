"""What a server has not been told yet: rows of the local ledger's own file, written in the same transactions.

So a killed driver has told either both or neither, and what is left is sent by whoever opens the ledger next, or by
`audiopipe sync`. Sending is in order and at least once; the server takes a repetition as nothing new, so the effect is
once.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from audiopipe.ledger.supabase_client import ErrorKind, SupabaseClient, SupabaseError

__all__ = ["Outbox", "push"]

BATCH = 500
BATCH_KINDS = {"shard": "shards", "failure": "failures", "worker": "workers"}


class Outbox:
    """The unsent operations of one ledger file, for one thread."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)

    def close(self) -> None:
        self._connection.close()

    def count_pending(self) -> int:
        """Operations that are still to be sent."""
        return int(self._connection.execute("SELECT COUNT(*) FROM outbox WHERE refused IS NULL").fetchone()[0])

    def count_refused(self) -> int:
        """Operations that the server will never take."""
        return int(self._connection.execute("SELECT COUNT(*) FROM outbox WHERE refused IS NOT NULL").fetchone()[0])

    def send(self, supabase: SupabaseClient) -> int:
        """Send all that waits, the oldest first; returns how many the server took.

        Raises `SupabaseError` when it is down or refuses the key; what it has not taken by then goes on waiting.
        """
        sent = 0
        sql = "SELECT seq, kind, body FROM outbox WHERE refused IS NULL ORDER BY seq LIMIT ?"
        while rows := self._connection.execute(sql, (BATCH,)).fetchall():
            sent += self._send_rows(supabase, rows)
        return sent

    def _send_rows(self, supabase: SupabaseClient, rows: Sequence[tuple[int, str, str]]) -> int:
        try:
            push(supabase, _to_operations(rows))
        except SupabaseError as error:
            if error.kind is not ErrorKind.ROW:
                raise
            return self._bisect(supabase, rows, error)
        self._connection.execute(
            "DELETE FROM outbox WHERE seq IN (SELECT value FROM json_each(?))", (_encode_seqs(rows),)
        )
        return len(rows)

    def _bisect(self, supabase: SupabaseClient, rows: Sequence[tuple[int, str, str]], error: SupabaseError) -> int:
        """Halve a refused batch, so that one bad row neither blocks the others nor changes their order."""
        if len(rows) == 1:
            self._connection.execute("UPDATE outbox SET refused = ? WHERE seq = ?", (str(error), rows[0][0]))
            return 0
        middle = len(rows) // 2
        return self._send_rows(supabase, rows[:middle]) + self._send_rows(supabase, rows[middle:])


def push(supabase: SupabaseClient, operations: list[dict[str, Any]]) -> None:
    """Have Supabase do the operations, all or none. Raises `SupabaseError`, also if somebody else has answered."""
    if supabase.rpc("write_ledger", operations=operations) != len(operations):
        raise SupabaseError(ErrorKind.DOWN, f"{supabase.url} does not answer as Supabase does")


def _to_operations(rows: Sequence[tuple[int, str, str]]) -> list[dict[str, Any]]:
    """Arguments of the function `write_ledger`; neighbours of one kind go together."""
    operations: list[dict[str, Any]] = []
    for kind, same in groupby(rows, key=lambda row: row[1]):
        bodies = [json.loads(body) for _, _, body in same]
        if kind in BATCH_KINDS:
            operations.append({"kind": BATCH_KINDS[kind], "rows": bodies})
        else:
            operations.extend({"kind": kind, **body} for body in bodies)
    return operations


def _encode_seqs(rows: Sequence[tuple[int, str, str]]) -> str:
    return json.dumps([seq for seq, _, _ in rows])
