"""`audiopipe monitor` on a real Supabase, as a person starts it: with a right key, a wrong one, and in an outage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ledger_cases import RUN, beat, environment, path, result, server, start, whole_run
from supabase_server import Supabase, postgres_server, supabase_server

from audiopipe.ledger import RunStatus, WorkerStatus
from audiopipe.ledger import snapshot as monitor
from audiopipe.ledger.supabase import SupabaseLedger
from audiopipe.ledger.supabase_reader import SupabaseReader

__all__ = ["environment", "path", "server"]  # fixtures

pytestmark = pytest.mark.slow

MONITOR = [str(Path(sys.executable).with_name("audiopipe")), "monitor", "--ledger", "supabase://"]


def look(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    told = {**os.environ, "COLUMNS": "140", **environment}
    return subprocess.run([*MONITOR, *options], capture_output=True, text=True, timeout=60, env=told, check=False)


@contextmanager
def watching(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A live view in a terminal of its own, whose letters go into a file."""
    told = {**os.environ, "COLUMNS": "140", "LINES": "50", "TERM": "xterm"}
    command = ["script", "--quiet", "--flush", "--command", " ".join(MONITOR), str(log)]
    process = subprocess.Popen(command, env=told, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def wait_for(log: Path, text: str, after: int = 0) -> int:
    """How long the log is when the text has come to stand in it, after so many letters."""
    end = time.monotonic() + 60
    while True:
        shown = log.read_text(errors="replace") if log.exists() else ""
        if text in shown[after:]:
            return len(shown)
        assert time.monotonic() < end, f"{text!r} is not shown: {shown[-3000:]}"
        time.sleep(0.1)


def test_once_and_json_show_the_same_numbers_as_the_driver_has(server: Supabase, path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
        local = monitor.take_snapshot(ledger)
    seen = json.loads(look("--json").stdout)
    assert seen["run"]["run_id"] == RUN
    for part in ("totals", "languages"):
        assert seen[part] == local[part]
    assert [row["event_id"] for row in seen["errors"]] == [row["event_id"] for row in local["errors"]]
    once = look("--once", "--run-id", RUN)
    assert once.returncode == 0
    for text in ("30 of 35 videos", "450 of 600 segments kept", "node/p0 (driver)", "NoAudio", "de-000001", "ended "):
        assert text in once.stdout, once.stdout


def test_a_signed_in_user_may_watch_and_others_read_what_they_lack(server: Supabase, path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
    public = {"SUPABASE_SERVICE_KEY": "", "SUPABASE_KEY": server.publishable_key}
    assert "30 of 35 videos" in look("--once", SUPABASE_ACCESS_TOKEN=server.token(), **public).stdout
    for refused in (
        look("--once", **public),
        look("--once", SUPABASE_SERVICE_KEY="sb_secret_doesnotexist"),
        look("--json", SUPABASE_SERVICE_KEY="sb_secret_doesnotexist"),
        look(SUPABASE_SERVICE_KEY="sb_secret_doesnotexist"),
    ):
        assert refused.returncode not in (0, None)
        assert "refuses the key" in refused.stderr
        assert "SUPABASE_SERVICE_KEY" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert "30 of 35" not in refused.stdout
    nothing = look("--once", SUPABASE_SERVICE_KEY="", SUPABASE_URL="")
    assert "needs the environment variables SUPABASE_URL" in nothing.stderr


def test_a_missing_table_run_or_server_is_an_error_with_advice(server: Supabase) -> None:
    assert "No run in this ledger yet" in look("--once").stdout
    unknown = look("--once", "--run-id", "nope")
    assert "has no run 'nope'" in unknown.stderr
    with postgres_server() as empty, supabase_server(empty) as bare:
        missing = look("--once", SUPABASE_URL=bare.url, SUPABASE_SERVICE_KEY=bare.secret_key)
    assert "apply cluster/supabase/migrations (supabase db push)" in missing.stderr
    away = look("--once", SUPABASE_URL=bare.url, SUPABASE_SERVICE_KEY=bare.secret_key)
    assert "does not answer" in away.stderr
    assert all(one.returncode for one in (unknown, missing, away))


def test_the_live_view_survives_an_outage_and_ends_with_the_run(server: Supabase, path: Path, tmp_path: Path) -> None:
    log = tmp_path / "terminal.log"
    with SupabaseLedger(path, send_every_s=0.1) as ledger:
        start(ledger)
        ledger.record_shard(result(0))
        ledger.heartbeat(RUN, beat())
        with SupabaseReader() as reader:
            while reader.run_rows() is None or not reader.run_rows(RUN).processed:  # type: ignore[union-attr]
                time.sleep(0.05)
        with watching(log) as terminal:
            seen = wait_for(log, "10 of 35 videos")
            server.stop()
            seen = wait_for(log, "does not answer", seen)
            ledger.record_shard(result(1))
            assert terminal.poll() is None
            # The last numbers stay on the screen.
            wait_for(log, "10 of 35 videos", seen)
            server.start()
            seen = wait_for(log, "20 of 35 videos", seen)
            ledger.heartbeat(RUN, beat(WorkerStatus.DONE))
            ledger.finish_run(RUN, RunStatus.INCOMPLETE)
            wait_for(log, "start it again to go on", seen)
            assert terminal.wait(30) == 0


def test_a_supabase_snapshot_equals_its_separate_queries(server: Supabase, path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
        local = ledger.run_rows()
    with SupabaseReader() as reader:
        seen = reader.run_rows()
        assert seen == local
        assert seen is not None
        assert seen.processed == reader.progress(RUN).processed
        assert list(seen.workers) == reader.workers(RUN)
        assert list(seen.errors) == reader.errors(RUN, 8)
        assert [row.shard for row in seen.shards] == [row.shard for row in reader.shards(RUN, 300)]
        assert reader.run_rows("nope") is None
