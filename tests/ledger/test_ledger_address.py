from __future__ import annotations

from pathlib import Path

import pytest

from audiopipe.errors import LedgerError
from audiopipe.ledger import SqliteLedger, default_path, open_ledger


def test_a_local_output_contains_its_ledger(tmp_path: Path) -> None:
    assert default_path(str(tmp_path)) == tmp_path / "_ledger.sqlite"
    assert default_path(f"file://{tmp_path}/a%20b") == tmp_path / "a b" / "_ledger.sqlite"


def test_the_ledger_of_a_remote_output_is_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = default_path("s3://bucket/out/")
    assert path.is_relative_to(tmp_path)
    assert path.suffix == ".sqlite"
    assert path == default_path("s3://bucket/out") != default_path("s3://bucket/other")
    with open_ledger(None, "s3://bucket/out") as ledger:
        assert ledger.runs() == []
    assert path.is_file()


def test_a_named_file_overrides_the_outputs_ledger(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "new" / "x.sqlite"), "/elsewhere") as ledger:
        assert isinstance(ledger, SqliteLedger)
        assert ledger.path == tmp_path / "new" / "x.sqlite"


def test_a_reader_creates_no_file_and_names_the_missing_one(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="does not exist: start a run"):
        open_ledger(None, str(tmp_path / "out"), create=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(LedgerError, match="with --ledger"):
        open_ledger(None)


def test_an_unknown_database_is_refused_without_its_password() -> None:
    with pytest.raises(LedgerError) as caught:
        open_ledger("mysql://user:secret@host/db", "/out")
    assert "secret" not in str(caught.value)
    assert "mysql" in str(caught.value)
