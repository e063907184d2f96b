"""The real servers stopped and started under a driver's ledger, and the driver killed."""

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
    beat,
    environment,
    path,
    result,
    same_on_both_sides,
    server,
    start,
    wait_for,
    waiting,
    whole_run,
)
from supabase_server import Supabase, bring_back

from audiopipe.errors import LedgerError
from audiopipe.ledger import RunStatus, SqliteLedger, WorkerStatus, default_path, open_ledger, sync_ledger
from audiopipe.ledger.supabase import SupabaseLedger, sync

__all__ = ["environment", "path", "server"]  # fixtures

pytestmark = pytest.mark.slow


@contextmanager
def serving(page: bytes) -> Iterator[str]:
    """The address of a web server that says the same to everything."""

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


def test_a_whole_run_without_the_server_is_replayed_once_by_sync(server: Supabase, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    server.stop()
    try:
        with open_ledger("supabase://", output) as ledger:
            started = time.monotonic()
            whole_run(ledger, shards=300)
            assert time.monotonic() - started < 10
        with pytest.raises(LedgerError, match=r"does not answer .* updates wait in"):
            sync_ledger(output)
    finally:
        server.start()
    sent, refused = sync_ledger(output)
    # Every shard and the failure, start and finish; of the 602 heartbeats only the last of each worker.
    assert (sent, refused) == (300 + 1 + 2 + 2, 0)
    assert sync_ledger(output) == (0, 0)
    same_on_both_sides(default_path(output))


def test_an_outage_in_the_middle_slows_nothing_down_and_loses_nothing(
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
            ledger.heartbeat(RUN, beat())
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.02)
        wait_for(lambda: waiting(path) == 0)
        ledger.heartbeat(RUN, beat(WorkerStatus.DONE))
        ledger.finish_run(RUN, RunStatus.DONE)
    assert slowest < 1.0
    same_on_both_sides(path)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("audiopipe")]
    assert any("updates wait in" in message for message in told)
    assert any("is back" in message for message in told)
    assert len(told) < 10


@pytest.mark.parametrize("seed", [1, 2])
def test_random_server_stops_under_load_end_with_the_same_ledger(server: Supabase, path: Path, seed: int) -> None:
    dice, away = random.Random(seed), 0
    with SupabaseLedger(path, send_every_s=0.01) as ledger:
        start(ledger, 200)
        for index in range(200):
            ledger.record_shard(result(index))
            ledger.heartbeat(RUN, beat(videos_processed=10 * index))
            if dice.random() < 0.05:
                away += 1
                dice.choice([server.stop, server.postgres.stop])()
            elif dice.random() < 0.15:
                bring_back(server)
            time.sleep(0.005)
        assert away > 3
        bring_back(server)
        ledger.heartbeat(RUN, beat(WorkerStatus.DONE))
        ledger.finish_run(RUN, RunStatus.DONE)
        wait_for(lambda: waiting(path) == 0)
    same_on_both_sides(path)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import ledger_cases as t
from audiopipe.ledger.supabase import SupabaseLedger
ledger = SupabaseLedger(sys.argv[2], send_every_s=0.01)
t.start(ledger, 1000)
print("ready", flush=True)
for index in range(1000):
    ledger.record_shard(t.result(index))
    ledger.heartbeat(t.RUN, t.beat())
    time.sleep(0.002)
"""


@pytest.mark.parametrize("wait_s", [0.0, 0.05, 0.3])
def test_a_killed_driver_has_sent_its_updates_or_leaves_them_queued(path: Path, wait_s: float) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(wait_s)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    # The next driver goes on with the file.
    with SupabaseLedger(path) as ledger:
        ledger.record_shard(result(1001))
    assert waiting(path) == 0
    same_on_both_sides(path)


def test_a_run_begun_without_supabase_is_sent_from_its_start(path: Path) -> None:
    with SqliteLedger(path) as ledger:
        start(ledger)
        ledger.record_failure(RUN, "de-000001", 1, "host-0", "StoreError", "gone", "Traceback …")
        for index in range(2):
            ledger.record_shard(result(index))
        ledger.heartbeat(RUN, beat(WorkerStatus.FAILED))
        ledger.finish_run(RUN, RunStatus.INCOMPLETE)
    with SupabaseLedger(path):
        assert waiting(path) == 1 + 1 + 2 + 2 + 1
    same_on_both_sides(path)
    with SupabaseLedger(path) as ledger:
        assert waiting(path) == 0
        start(ledger)
        ledger.record_shard(result(2))
    same_on_both_sides(path)


def test_sync_sends_a_ledger_that_never_knew_of_supabase(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    with open_ledger(None, output) as ledger:
        whole_run(ledger)
    assert sync_ledger(output) == (1 + 1 + 3 + 2 + 1, 0)
    assert sync_ledger(output) == (0, 0)
    same_on_both_sides(default_path(output))


def test_a_response_of_another_server_is_not_trusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's page with status 200 must not empty the outbox."""
    with SupabaseLedger(path, send_every_s=60) as ledger:
        start(ledger)
        with monkeypatch.context() as patch, serving(b"<html>Please sign in</html>") as url:
            patch.setenv("SUPABASE_URL", url)
            with pytest.raises(LedgerError, match="does not answer as Supabase does"):
                sync(path)
        assert waiting(path) == 1
