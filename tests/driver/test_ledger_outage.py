"""A run whose ledger cannot be used makes the same dataset."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from distributed import Client
from output_factory import config, content, corpus, make_output

from audiopipe.driver.run import resume, run
from audiopipe.errors import LedgerError
from audiopipe.ledger import Ledger, RunStatus, open_ledger, resilient
from audiopipe.ledger import address as ledger_address


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "c")


@pytest.fixture(autouse=True)
def short_waits(fast_ticks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_address, "DRIVER_BUSY_S", 0.05)
    monkeypatch.setattr(resilient, "RETRY_S", 0.2)


def read_run(ledger: Ledger, run_id: str) -> None:
    """Show progress as a user's function may do it: without any care for errors."""
    assert ledger.progress(run_id).run_id == run_id


def assert_recorded(out: Path, shards: int) -> None:
    with open_ledger(None, str(out), create=False) as ledger:
        recorded = ledger.run()
        assert recorded is not None
        assert recorded.status is RunStatus.DONE
        assert len(ledger.shards(recorded.run_id)) == shards


def test_a_run_with_a_locked_ledger_ends_and_resume_records_it(catalog: Path, client: Client, tmp_path: Path) -> None:
    make_output(config(catalog, tmp_path / "reference"))
    out = tmp_path / "out"
    out.mkdir()
    lock = sqlite3.connect(out / "_ledger.sqlite", isolation_level=None)
    lock.execute("PRAGMA locking_mode = EXCLUSIVE")
    lock.execute("BEGIN EXCLUSIVE")
    summary = run(config(catalog, out), client=client, on_tick=read_run)
    lock.execute("ROLLBACK")
    lock.close()
    assert summary.status is RunStatus.DONE
    assert content(out) == content(tmp_path / "reference")
    with pytest.raises(LedgerError), open_ledger(None, str(out), create=False) as ledger:
        ledger.progress(summary.run_id)
    assert resume(str(out), client=client).new.shards == 0
    assert_recorded(out, summary.shards_planned)


def test_a_damaged_ledger_is_rebuilt_from_the_commits(catalog: Path, client: Client, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run(config(catalog, out), client=client)
    for path in out.glob("_ledger.sqlite*"):
        path.write_bytes(b"\xff" * 9000)
    assert resume(str(out), client=client).new.shards == 0
    assert_recorded(out, summary.shards_planned)
    assert len(list(out.glob("_ledger.sqlite.damaged-*"))) >= 1
