from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from audiopipe.errors import LedgerError
from audiopipe.ledger import SqliteLedger, migrate


def open_raw(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def dump(path: Path) -> list[str]:
    connection = open_raw(path)
    lines = list(connection.iterdump())
    connection.close()
    return lines


def test_migrating_twice_does_nothing(tmp_path: Path) -> None:
    connection = open_raw(tmp_path / "x.sqlite")
    assert migrate.migrate(connection) == [name for name, _ in migrate._load_migrations()]
    before = dump(tmp_path / "x.sqlite")
    assert migrate.migrate(connection) == []
    assert dump(tmp_path / "x.sqlite") == before
    connection.close()


def test_a_failed_migration_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = "CREATE TABLE one (x);", "CREATE TABLE two (x);\nCREATE TABLE one (x);"
    monkeypatch.setattr(migrate, "_load_migrations", lambda: [("0001_good", good), ("0002_bad", bad)])
    connection = open_raw(tmp_path / "x.sqlite")
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate.migrate(connection)
    assert not connection.in_transaction
    assert migrate.read_applied(connection) == {"0001_good"}
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"_migrations", "one"}
    connection.close()


def test_a_reader_refuses_an_older_or_newer_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.sqlite"
    SqliteLedger(path).close()
    migrations = migrate._load_migrations()
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_load_migrations", lambda: [*migrations, ("9999_later", "CREATE TABLE later (x);")])
        with pytest.raises(LedgerError, match="lacks the migrations 9999_later"):
            SqliteLedger(path, create=False)
        SqliteLedger(path).close()
    with pytest.raises(LedgerError, match="9999_later, unknown here: upgrade audiopipe"):
        SqliteLedger(path, create=False)
    with pytest.raises(LedgerError, match="upgrade audiopipe"):
        SqliteLedger(path)


def test_semicolons_in_strings_and_comments_are_ignored() -> None:
    script = "-- a; b\nSELECT ';'\n  || 'x';\n\nSELECT 2;\n-- the end\n"
    assert [part.strip() for part in migrate.split_statements(script)] == [
        "-- a; b\nSELECT ';'\n  || 'x';",
        "SELECT 2;",
    ]
    with pytest.raises(ValueError, match="has no semicolon"):
        list(migrate.split_statements("SELECT 1;\nSELECT 2"))


def test_migrations_are_numbered_without_gaps() -> None:
    names = [name for name, _ in migrate._load_migrations()]
    assert [name[:5] for name in names] == [f"{number:04d}_" for number in range(1, len(names) + 1)]


def test_a_transaction_takes_the_write_lock_first(tmp_path: Path) -> None:
    """Two writers that both read first would deadlock, because neither could upgrade its lock."""
    first, second = open_raw(tmp_path / "x.sqlite"), sqlite3.connect(tmp_path / "x.sqlite", timeout=0)
    with migrate.transaction(first), pytest.raises(sqlite3.OperationalError, match="locked"):
        second.execute("BEGIN IMMEDIATE")
    first.close()
    second.close()
