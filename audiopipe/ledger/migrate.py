"""Numbered, forward-only migrations of the SQLite ledger: `migrations/NNNN_name.sql`, in the order of their names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

from audiopipe.errors import LedgerError

__all__ = ["migrate", "read_applied", "require_current", "split_statements", "transaction"]


def migrate(connection: sqlite3.Connection) -> list[str]:
    """Apply what is missing, each with its 'applied' row in one transaction; returns the names applied.

    Safe to run from several processes at once. Raises `LedgerError` on a ledger of a newer version.
    """
    with transaction(connection):
        connection.execute(
            "CREATE TABLE IF NOT EXISTS _migrations (name TEXT PRIMARY KEY NOT NULL, "
            "applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))"
        )
    _refuse_newer(connection)
    return [name for name, text in _load_migrations() if _apply(connection, name, text)]


def require_current(connection: sqlite3.Connection) -> None:
    """For a reader, which changes nothing: raises `LedgerError` unless the schema is exactly ours."""
    _refuse_newer(connection)
    missing = [name for name, _ in _load_migrations() if name not in read_applied(connection)]
    if missing:
        raise LedgerError(
            f"the ledger lacks {', '.join(missing)}; it was made by an older audiopipe: start its run again"
        )


def read_applied(connection: sqlite3.Connection) -> set[str]:
    """Names of the migrations that a database has."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_migrations'").fetchone():
        return set()
    return {row[0] for row in connection.execute("SELECT name FROM _migrations")}


def split_statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit the open transaction first."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if any(line.strip() and not line.strip().startswith("--") for line in pending.splitlines()):
        raise ValueError(f"a statement has no end: {pending.strip()[:80]}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE to COMMIT: takes the write lock first, so that what is read inside stays true."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _apply(connection: sqlite3.Connection, name: str, text: str) -> bool:
    with transaction(connection):
        # Asked again under the lock: another process may have been faster.
        if name in read_applied(connection):
            return False
        for statement in split_statements(text):
            connection.execute(statement)
        connection.execute("INSERT INTO _migrations (name) VALUES (?)", (name,))
        return True


def _refuse_newer(connection: sqlite3.Connection) -> None:
    unknown = read_applied(connection) - {name for name, _ in _load_migrations()}
    if unknown:
        raise LedgerError(f"the ledger has {', '.join(sorted(unknown))}, unknown here: upgrade audiopipe to read it")


def _load_migrations() -> list[tuple[str, str]]:
    folder = resources.files("audiopipe.ledger") / "migrations"
    files = [item for item in folder.iterdir() if item.name.endswith(".sql")]
    return [(item.name.removesuffix(".sql"), item.read_text("utf-8")) for item in sorted(files, key=lambda i: i.name)]
