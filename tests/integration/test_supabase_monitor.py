"""The command `audiopipe monitor` on a real Supabase: with a valid key, with wrong ones, and during an outage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ledger_cases import RUN, environment, path, result, server, start, whole_run, worker_rows
from supabase_server import Supabase, apply_migrations, postgres_server, supabase_server
from waiting import wait_until

from audiopipe.ledger import RunStatus, WorkerStatus
from audiopipe.ledger.snapshot import take_snapshot
from audiopipe.ledger.supabase import SupabaseLedger
from audiopipe.ledger.supabase_reader import SupabaseReader

__all__ = ["environment", "path", "server"]  # fixtures

pytestmark = pytest.mark.slow

MONITOR = [str(Path(sys.executable).with_name("audiopipe")), "monitor", "--ledger", "supabase://"]


def run_monitor(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "COLUMNS": "140", **environment}
    command = [*MONITOR, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables, check=False)


@contextmanager
def watching(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the live view in a new terminal that logs its output to a file."""
    variables = {**os.environ, "COLUMNS": "140", "LINES": "50", "TERM": "xterm"}
    command = ["script", "--quiet", "--flush", "--command", " ".join(MONITOR), str(log)]
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)


def wait_for_text(log: Path, text: str, after: int = 0) -> int:
    """Wait until the log has a text after a position; return the length of the log."""

    def shown() -> str:
        return log.read_text(errors="replace") if log.exists() else ""

    wait_until(lambda: text in shown()[after:], lambda: f"{text!r} is not shown: {shown()[-3000:]}")
    return len(shown())


def test_once_and_json_show_the_numbers_of_the_driver(server: Supabase, path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
        local = take_snapshot(ledger)
    assert local is not None
    shown, expected = json.loads(run_monitor("--json").stdout), local.as_json()
    assert shown["run"]["run_id"] == RUN
    for key in ("totals", "languages"):
        assert shown[key] == expected[key]
    assert [row["event_id"] for row in shown["errors"]] == [row["event_id"] for row in expected["errors"]]
    once = run_monitor("--once", "--run-id", RUN)
    assert once.returncode == 0
    for text in (
        "27 / 35 videos done",
        "450 / 600 segments kept",
        "node/p0 (driver)",
        "NoAudio",
        "de-000001",
        "ended ",
    ):
        assert text in once.stdout, once.stdout


def test_a_signed_in_user_can_watch_and_others_get_advice(server: Supabase, path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
    public = {"SUPABASE_SERVICE_KEY": "", "SUPABASE_KEY": server.publishable_key}
    assert "27 / 35 videos done" in run_monitor("--once", SUPABASE_ACCESS_TOKEN=server.token(), **public).stdout
    for refused in (
        run_monitor("--once", **public),
        run_monitor("--once", SUPABASE_SERVICE_KEY="sb_secret_doesnotexist"),
        run_monitor("--json", SUPABASE_SERVICE_KEY="sb_secret_doesnotexist"),
        run_monitor(SUPABASE_SERVICE_KEY="sb_secret_doesnotexist"),
    ):
        assert refused.returncode not in (0, None)
        assert "refuses the key" in refused.stderr
        assert "SUPABASE_SERVICE_KEY" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert "30 of 35" not in refused.stdout
    unconfigured = run_monitor("--once", SUPABASE_SERVICE_KEY="", SUPABASE_URL="")
    assert "needs the environment variables SUPABASE_URL" in unconfigured.stderr


# As of a migration of another version, whose result lacks what this one reads.
OLDER_FUNCTION = """
ALTER FUNCTION monitor_snapshot RENAME TO newer;
CREATE FUNCTION monitor_snapshot(run_id TEXT DEFAULT NULL, shards INT DEFAULT 300, errors INT DEFAULT 8) RETURNS JSON
LANGUAGE sql AS $$ SELECT '{"run": {"run_id": "a", "language": "en", "total_videos": 1}}'::JSON $$;
"""


def test_a_missing_table_run_or_server_is_an_error_with_advice(server: Supabase) -> None:
    assert "No run in this ledger yet" in run_monitor("--once").stdout
    unknown = run_monitor("--once", "--run-id", "nope")
    assert "has no run 'nope'" in unknown.stderr
    with postgres_server() as empty:
        with supabase_server(empty) as bare:
            missing = run_monitor("--once", SUPABASE_URL=bare.url, SUPABASE_SERVICE_KEY=bare.secret_key)
        apply_migrations(empty)
        empty.sql(OLDER_FUNCTION)
        with supabase_server(empty) as bare:
            older = run_monitor("--once", SUPABASE_URL=bare.url, SUPABASE_SERVICE_KEY=bare.secret_key)
    assert "apply cluster/supabase/migrations (supabase db push)" in missing.stderr
    assert "monitor_snapshot of another version, without 'processed': apply cluster/supabase/migrations" in older.stderr
    assert "Traceback" not in older.stderr
    away = run_monitor("--once", SUPABASE_URL=bare.url, SUPABASE_SERVICE_KEY=bare.secret_key)
    assert "does not answer" in away.stderr
    assert all(result.returncode for result in (unknown, missing, older, away))


def test_the_live_view_survives_an_outage_and_ends_with_the_run(server: Supabase, path: Path, tmp_path: Path) -> None:
    log = tmp_path / "terminal.log"
    with SupabaseLedger(path, send_every_s=0.1) as ledger:
        start(ledger)
        ledger.record_shard(result(0))
        ledger.heartbeat(RUN, worker_rows())
        with SupabaseReader() as reader:
            wait_until(lambda: (rows := reader.run_rows()) is not None and rows.processed > 0)
        with watching(log) as terminal:
            position = wait_for_text(log, "9 / 35 videos done")
            server.stop()
            position = wait_for_text(log, "does not answer", position)
            ledger.record_shard(result(1))
            assert terminal.poll() is None
            # The last snapshot stays on the screen.
            wait_for_text(log, "9 / 35 videos done", position)
            server.start()
            position = wait_for_text(log, "18 / 35 videos done", position)
            ledger.heartbeat(RUN, worker_rows(WorkerStatus.DONE))
            ledger.finish_run(RUN, RunStatus.INCOMPLETE)
            wait_for_text(log, "run it again to resume", position)
            assert terminal.wait(60) == 0


def test_a_supabase_snapshot_equals_its_separate_queries(server: Supabase, path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
        # After a pause, two shards at once, of which one starts and ends during the other.
        ledger.record_shard(result(5, started_at="2026-11-22T10:04:30.0019Z"))
        ledger.record_shard(result(6, started_at="2026-11-22T10:04:40Z", finished_at="2026-11-22T10:04:50Z"))
        local = ledger.run_rows()
    with SupabaseReader() as reader:
        rows = reader.run_rows()
        assert rows == local
        assert rows is not None
        assert rows.busy_s == 2 * 60 + 0.125 + 30 + 0.124
        assert rows.processed == reader.progress(RUN).processed
        assert list(rows.workers) == reader.workers(RUN)
        assert list(rows.errors) == reader.errors(RUN, 8)
        assert [row.shard for row in rows.shards] == [row.shard for row in reader.shards(RUN, 300)]
        assert reader.run_rows("nope") is None
