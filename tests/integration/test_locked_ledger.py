"""A whole run of the command while another process holds the ledger's lock: for a while, and until after its end."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from output_factory import content, corpus
from waiting import wait_until

from audiopipe.ledger import RunStatus, SqliteLedger

BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
"""


@contextmanager
def locked(ledger: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold an exclusive lock in another process until it is closed."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-c", HOLD, str(ledger)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield holder
    finally:
        release(holder)


def release(holder: subprocess.Popen[str]) -> None:
    if holder.poll() is None:
        holder.communicate("\n", timeout=60)


def start(catalog: Path, output: Path, log: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [str(BIN / "audiopipe"), "run", "--catalog", str(catalog), "--output", str(output), "--workers", "1"]
    command += ["--shard-videos", "1", "--device", "cpu", "--heartbeat-s", "1", "--max-failed-share", "1", *more]
    command += ["--min-snr-db", "none", "--max-silence-ratio", "none", "--run-id", "locked", "--quiet", "--json"]
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=dict(os.environ), cwd=log.parent)


def shards_recorded(ledger: Path) -> int:
    with SqliteLedger(ledger, create=False) as reader:
        run = reader.run()
        assert run is not None
        assert run.status is RunStatus.DONE
        return len(reader.shards(run.run_id))


def test_a_run_does_not_need_its_ledger(tmp_path: Path) -> None:
    catalog = corpus(tmp_path / "c", videos=4)
    for name in ("free", "released", "kept"):
        (tmp_path / name).mkdir()
    assert start(catalog, tmp_path / "free/out", tmp_path / "free/log").wait(300) == 3

    # The lock is released as soon as a shard is committed.
    output, log = tmp_path / "released/out", tmp_path / "released/log"
    with locked(output / "_ledger.sqlite") as holder:
        driver = start(catalog, output, log)
        wait_until(lambda: driver.poll() is not None or list(output.glob("_commits/*.json")), log.read_text, 300)
        release(holder)
        assert driver.wait(300) == 3, log.read_text()
    assert "the run continues, and its updates are written" in log.read_text().replace("\n", " ")
    assert shards_recorded(output / "_ledger.sqlite") == len(list(output.glob("_commits/*.json")))
    assert content(output) == content(tmp_path / "free/out")

    # The lock is held until after the end; the next command writes the ledger.
    output, log = tmp_path / "kept/out", tmp_path / "kept/log"
    with locked(output / "_ledger.sqlite"):
        assert start(catalog, output, log).wait(300) == 3, log.read_text()
    assert "the next run or resume writes them" in log.read_text()
    assert json.loads(log.read_text().splitlines()[-1])["status"] == "done"
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        sqlite3.connect(output / "_ledger.sqlite").execute("SELECT * FROM shards")
    assert start(catalog, output, log).wait(300) == 3, log.read_text()
    assert shards_recorded(output / "_ledger.sqlite") == len(list(output.glob("_commits/*.json")))
    assert content(output) == content(tmp_path / "free/out")
