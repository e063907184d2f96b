"""Outages: the servers stop and start during a run, or the driver is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ledger_cases import (
    OFTEN_S,
    RUN,
    assert_same_contents,
    count_pending,
    environment,
    path,
    result,
    server,
    start,
    whole_run,
    worker_rows,
)
from supabase_server import Supabase, bring_back
from waiting import wait_until

from audiopipe.errors import LedgerError
from audiopipe.ledger import ErrorRow, RunStatus, SqliteLedger, WorkerStatus, default_path, open_ledger, sync_ledger
from audiopipe.ledger.supabase import SupabaseLedger, sync

__all__ = ["environment", "path", "server"]  # fixtures

pytestmark = pytest.mark.slow


@contextmanager
def serving(page: bytes) -> Iterator[str]:
    """Run a web server that answers every request with the same page; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join()


def test_sync_sends_a_whole_run_without_a_server_once(server: Supabase, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    server.stop()
    try:
        with open_ledger("supabase://", output) as ledger:
            started = time.monotonic()
            whole_run(ledger, shards=300)
            assert time.monotonic() - started < 10
        with pytest.raises(LedgerError, match=r"does not answer .* updates are pending in"):
            sync_ledger(output)
    finally:
        server.start()
    sent, refused = sync_ledger(output)
    # All shards, the failure, start and finish; of the 602 heartbeats only the last one of each worker.
    assert (sent, refused) == (300 + 1 + 2 + 2, 0)
    assert sync_ledger(output) == (0, 0)
    assert_same_contents(default_path(output))


def test_an_outage_neither_slows_the_driver_nor_loses_updates(
    server: Supabase, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SupabaseLedger(path, send_every_s=OFTEN_S) as ledger:
        start(ledger, 60)
        slowest = 0.0
        for index in range(60):
            if index == 20:
                server.postgres.stop()
            if index == 40:
                server.postgres.start()
                server.stop()
                server.start()
            begun = time.monotonic()
            ledger.record_shard(result(index))
            ledger.heartbeat(RUN, worker_rows())
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.02)
        wait_until(lambda: count_pending(path) == 0, timeout_s=20)
        ledger.heartbeat(RUN, worker_rows(WorkerStatus.DONE))
        ledger.finish_run(RUN, RunStatus.DONE)
    assert slowest < 1.0
    assert_same_contents(path)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("audiopipe")]
    assert any("updates are pending in" in message for message in messages)
    assert any("is back" in message for message in messages)
    assert len(messages) < 10


@pytest.mark.parametrize("seed", [1, 2])
def test_random_outages_under_load_end_with_the_same_ledger(server: Supabase, path: Path, seed: int) -> None:
    rng, outages = random.Random(seed), 0
    with SupabaseLedger(path, send_every_s=0.01) as ledger:
        start(ledger, 200)
        for index in range(200):
            ledger.record_shard(result(index))
            ledger.heartbeat(RUN, worker_rows(videos_processed=10 * index))
            if rng.random() < 0.05:
                outages += 1
                rng.choice([server.stop, server.postgres.stop])()
            elif rng.random() < 0.15:
                bring_back(server)
            time.sleep(0.005)
        assert outages > 3
        bring_back(server)
        ledger.heartbeat(RUN, worker_rows(WorkerStatus.DONE))
        ledger.finish_run(RUN, RunStatus.DONE)
        wait_until(lambda: count_pending(path) == 0, timeout_s=20)
    assert_same_contents(path)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import ledger_cases as cases
from audiopipe.ledger.supabase import SupabaseLedger
ledger = SupabaseLedger(sys.argv[2], send_every_s=0.01)
cases.start(ledger, 1000)
print("ready", flush=True)
for index in range(1000):
    ledger.record_shard(cases.result(index))
    ledger.heartbeat(cases.RUN, cases.worker_rows())
    time.sleep(0.002)
"""


@pytest.mark.parametrize("wait_s", [0.0, 0.05, 0.3])
def test_updates_of_a_killed_driver_are_sent_by_the_next_one(path: Path, wait_s: float) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(wait_s)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    process.stdout.close()
    # The next driver continues with the file.
    with SupabaseLedger(path) as ledger:
        ledger.record_shard(result(1001))
    assert count_pending(path) == 0
    assert_same_contents(path)


def test_a_run_started_without_supabase_is_sent_as_a_whole(path: Path) -> None:
    with SqliteLedger(path) as ledger:
        start(ledger)
        ledger.record_failure(RUN, ErrorRow.of_attempt("de-000001", 1, "host-0", "StoreError", "gone", "Traceback …"))
        for index in range(2):
            ledger.record_shard(result(index))
        ledger.heartbeat(RUN, worker_rows(WorkerStatus.FAILED))
        ledger.finish_run(RUN, RunStatus.INCOMPLETE)
    with SupabaseLedger(path):
        assert count_pending(path) == 1 + 1 + 2 + 2 + 1
    assert_same_contents(path)
    with SupabaseLedger(path) as ledger:
        assert count_pending(path) == 0
        start(ledger)
        ledger.record_shard(result(2))
    assert_same_contents(path)


def test_sync_sends_a_ledger_that_never_used_supabase(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    with open_ledger(None, output) as ledger:
        whole_run(ledger)
    assert sync_ledger(output) == (1 + 1 + 3 + 2 + 1, 0)
    assert sync_ledger(output) == (0, 0)
    assert_same_contents(default_path(output))


def test_a_response_of_another_server_is_not_trusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the outbox if a proxy answers with a page and status 200."""
    with SupabaseLedger(path, send_every_s=60) as ledger:
        start(ledger)
        with monkeypatch.context() as patch, serving(b"<html>Please sign in</html>") as url:
            patch.setenv("SUPABASE_URL", url)
            with pytest.raises(LedgerError, match="does not answer as Supabase does"):
                sync(path)
        assert count_pending(path) == 1
