"""Apply the migrations of the SQLite ledger: numbered, forward-only scripts `migrations/NNNN_name.sql`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

from audiopipe.errors import LedgerError

__all__ = ["migrate", "read_applied", "require_current", "split_statements", "transaction"]


def migrate(connection: sqlite3.Connection) -> list[str]:
    """Apply the missing migrations, each with its row of `_migrations` in one transaction; return their names.

    Several processes may call this at the same time.

    Raises:
        LedgerError: a newer version of audiopipe created the ledger.
    """
    with transaction(connection):
        connection.execute(
            "CREATE TABLE IF NOT EXISTS _migrations (name TEXT PRIMARY KEY NOT NULL, "
            "applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))"
        )
    _refuse_newer(connection)
    return [name for name, script in _load_migrations() if _apply(connection, name, script)]


def require_current(connection: sqlite3.Connection) -> None:
    """Check, without writing, that the ledger has exactly the migrations of this version.

    Raises:
        LedgerError: it has fewer, or more.
    """
    _refuse_newer(connection)
    missing = [name for name, _ in _load_migrations() if name not in read_applied(connection)]
    if missing:
        raise LedgerError(
            f"the ledger lacks the migrations {', '.join(missing)}: an older audiopipe created it; "
            "start its run again to update it"
        )


def read_applied(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the migrations that a database has."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_migrations'").fetchone():
        return set()
    return {row[0] for row in connection.execute("SELECT name FROM _migrations")}


def split_statements(script: str) -> Iterator[str]:
    """Split a script into its statements, because `executescript` would commit the open transaction first.

    Raises:
        ValueError: the last statement has no semicolon.
    """
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if any(line.strip() and not line.strip().startswith("--") for line in pending.splitlines()):
        raise ValueError(f"a statement has no semicolon at its end: {pending.strip()[:80]}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run a block from BEGIN IMMEDIATE to COMMIT: the write lock comes first, so that rows read inside stay current."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # on a full disk SQLite has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def _apply(connection: sqlite3.Connection, name: str, script: str) -> bool:
    with transaction(connection):
        # Read again under the lock, because another process may have applied it in the meantime.
        if name in read_applied(connection):
            return False
        for statement in split_statements(script):
            connection.execute(statement)
        connection.execute("INSERT INTO _migrations (name) VALUES (?)", (name,))
        return True


def _refuse_newer(connection: sqlite3.Connection) -> None:
    unknown = read_applied(connection) - {name for name, _ in _load_migrations()}
    if unknown:
        raise LedgerError(
            f"the ledger has the migrations {', '.join(sorted(unknown))}, unknown here: upgrade audiopipe to read it"
        )


def _load_migrations() -> list[tuple[str, str]]:
    folder = resources.files("audiopipe.ledger") / "migrations"
    files = [item for item in folder.iterdir() if item.name.endswith(".sql")]
    return [(item.name.removesuffix(".sql"), item.read_text("utf-8")) for item in sorted(files, key=lambda i: i.name)]
