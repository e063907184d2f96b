"""A driver's ledger in Supabase, with the real servers stopped and started under it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from supabase_server import Supabase, apply_migrations, postgres_server, supabase_server

from audiopipe import monitor
from audiopipe.errors import ConfigError, LedgerError
from audiopipe.ledger import (
    LanguageTotal,
    Ledger,
    Role,
    RunRow,
    RunStatus,
    SqliteLedger,
    WorkerRow,
    WorkerStatus,
    default_path,
    open_ledger,
    sync_ledger,
)
from audiopipe.ledger.supabase import SupabaseLedger, sync
from audiopipe.ledger.supabase_reader import SupabaseReader
from audiopipe.types import DeadLetter, ShardResult

pytestmark = pytest.mark.slow

RUN = "nightly-1"
OFTEN_S = 0.05


@pytest.fixture(scope="module")
def server() -> Iterator[Supabase]:
    with postgres_server() as postgres:
        apply_migrations(postgres)
        with supabase_server(postgres) as running:
            yield running


@pytest.fixture(autouse=True)
def environment(server: Supabase, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_KEY", "SUPABASE_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUPABASE_URL", server.url)
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", server.secret_key)
    server.postgres.sql("TRUNCATE pipeline_runs, run_languages, worker_progress, shards, processing_errors")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "_ledger.sqlite"


def result(index: int, **changes: Any) -> ShardResult:
    """Ten videos, of which one is a dead letter."""
    values: dict[str, Any] = {
        "shard": f"de-{index:06d}", "language": "de", "partition": 0, "attempt": f"a{index}", "run_id": RUN,
        "worker": "host-0", "videos": 10, "videos_failed": 1, "segments": 200, "segments_kept": 150,
        "drops": {"noisy": 50}, "audio_s": 600.5, "kept_s": 450.25, "bytes_in": 5_000_000_000, "bytes_out": 500,
        "stage_s": {"decode": 1.5}, "wall_s": 3.0, "started_at": "2026-11-22T10:00:00+00:00",
        "finished_at": f"2026-11-22T10:{index % 60:02d}:00.125000+00:00", "device": "cuda",
        "dead_letters": (DeadLetter(f"bad-{index}", "de", "fetch", "NoAudio", "no audio “stream”"),),
    }  # fmt: skip
    return ShardResult(**{**values, **changes})


def start(ledger: Ledger, shards: int = 3) -> None:
    run = RunRow(RUN, "all", 10 * shards + 5, output="s3://b/out", config_digest="abc", version="1")
    ledger.start_run(run, [LanguageTotal("de", 10 * shards, shards), LanguageTotal("fr", 5)])


def beat(status: WorkerStatus = WorkerStatus.RUNNING, **changes: Any) -> list[WorkerRow]:
    driver = WorkerRow("node/p0", Role.DRIVER, status=status, last_error="x: y")
    busy = {"videos_processed": 20, "videos_per_minute": 8.5, "cpu_utilization": 91.5, "memory_bytes": 5_000_000_000}
    return [driver, replace(WorkerRow("node/p0/0", status=status, **busy), **changes)]  # type: ignore[arg-type]


def whole_run(ledger: Ledger, shards: int = 3) -> None:
    start(ledger, shards)
    ledger.record_failure(RUN, "de-000001", 1, "host-0", "StoreError", "gone", "Traceback …")
    for index in range(shards):
        ledger.record_shard(result(index))
        ledger.heartbeat(RUN, beat())
    ledger.heartbeat(RUN, beat(WorkerStatus.DONE))
    ledger.finish_run(RUN, RunStatus.DONE)


def contents(ledger: Ledger) -> dict[str, Any]:
    """All that a ledger tells of the run, but for the times that it makes up itself."""
    workers = [replace(row, started_at=None) for row in ledger.workers(RUN)]
    progress = replace(ledger.progress(RUN), hours_elapsed=0.0)
    errors = sorted((row.as_row() for row in ledger.errors(RUN)), key=lambda row: str(row["event_id"]))
    rows = (
        ledger.run(RUN),
        progress,
        ledger.languages(RUN),
        workers,
        ledger.shards(RUN),
        ledger.shards(RUN, 2),
        errors,
    )
    return dict(zip(("run", "progress", "languages", "workers", "shards", "newest", "errors"), rows, strict=True))


def waiting(path: Path) -> int:
    connection = sqlite3.connect(path)
    ((count,),) = connection.execute("SELECT COUNT(*) FROM outbox WHERE refused IS NULL")
    connection.close()
    return int(count)


def wait_for(check: Callable[[], bool], limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


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


def same_on_both_sides(path: Path) -> None:
    with SqliteLedger(path, create=False) as local, SupabaseReader() as remote:
        ours, theirs = contents(local), contents(remote)
        for part, expected in ours.items():
            assert theirs[part] == expected, part


def test_supabase_shows_what_the_local_ledger_shows(path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
    assert waiting(path) == 0
    same_on_both_sides(path)
    with SupabaseReader() as remote:
        assert remote.progress(RUN).processed == 30
        run = remote.run()
        assert run is not None
        assert (run.status, run.run_id) == (RunStatus.DONE, RUN)


def test_the_monitor_works_on_supabase_as_on_the_local_ledger(path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
        local = monitor.snapshot(ledger)
    with SupabaseReader() as remote:
        seen = monitor.snapshot(remote)
    for part in ("totals", "languages"):
        assert seen[part] == local[part]
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen


def test_updates_are_sent_every_few_seconds_and_not_at_the_end_alone(path: Path) -> None:
    with SupabaseLedger(path, send_every_s=OFTEN_S) as ledger, SupabaseReader() as remote:
        start(ledger)
        ledger.record_shard(result(0))
        wait_for(lambda: remote.run() is not None and remote.progress(RUN).processed == 10)


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


def test_what_is_sent_twice_has_its_effect_once(path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
        ledger.record_failure(RUN, "de-000099", 1, "host-0", "StoreError", "never done")
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("CREATE TABLE copy AS SELECT * FROM outbox")
        connection.close()
    with SupabaseReader() as remote:
        once = contents(remote)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT INTO outbox SELECT * FROM copy")
    connection.close()
    with SupabaseLedger(path):
        pass
    assert waiting(path) == 0
    with SupabaseReader() as remote:
        assert contents(remote) == once


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


def test_servers_stopped_at_random_under_load_end_with_the_same_ledger(server: Supabase, path: Path) -> None:
    with SupabaseLedger(path, send_every_s=0.01) as ledger:
        start(ledger, 200)
        for index in range(200):
            ledger.record_shard(result(index))
            ledger.heartbeat(RUN, beat(videos_processed=10 * index))
            if index % 40 == 13:
                server.stop()
            if index % 40 == 29:
                server.start()
            time.sleep(0.005)
        ledger.heartbeat(RUN, beat(WorkerStatus.DONE))
        ledger.finish_run(RUN, RunStatus.DONE)
        wait_for(lambda: waiting(path) == 0)
    same_on_both_sides(path)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import test_supabase_ledger as t
ledger = t.SupabaseLedger(sys.argv[2], send_every_s=0.01)
t.start(ledger, 1000)
print("ready", flush=True)
for index in range(1000):
    ledger.record_shard(t.result(index))
    ledger.heartbeat(t.RUN, t.beat())
    time.sleep(0.002)
"""


@pytest.mark.parametrize("wait_s", [0.0, 0.05, 0.3])
def test_a_driver_killed_at_any_time_has_told_all_or_leaves_it_to_be_sent(path: Path, wait_s: float) -> None:
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


def test_two_drivers_share_a_run_and_none_overwrites_the_other(tmp_path: Path) -> None:
    def beats(partition: int, status: WorkerStatus) -> list[WorkerRow]:
        driver = WorkerRow(f"node{partition}/p{partition}", Role.DRIVER, partition, 2, status=status)
        return [driver, WorkerRow(f"node{partition}/p{partition}/0", partition_index=partition, videos_processed=10)]

    ledgers = [SupabaseLedger(tmp_path / f"{index}.sqlite", send_every_s=OFTEN_S) for index in range(2)]
    for index, ledger in enumerate(ledgers):
        start(ledger, 2)
        ledger.heartbeat(RUN, beats(index, WorkerStatus.RUNNING))
    with SupabaseReader() as remote:
        wait_for(lambda: remote.run() is not None and len(remote.workers(RUN)) == 4)
        for index, ledger in enumerate(ledgers):
            run = remote.run()
            assert run is not None
            assert run.status is RunStatus.RUNNING
            ledger.record_shard(result(index, partition=index, worker=f"node{index}/p{index}/0"))
            ledger.heartbeat(RUN, beats(index, WorkerStatus.DONE))
            ledger.finish_run(RUN, RunStatus.DONE)
            ledger.close()
        run = remote.run()
        assert run is not None
        assert run.status is RunStatus.DONE
        assert remote.progress(RUN).processed == 20
        assert sorted(row.worker_id for row in remote.workers(RUN) if row.role is Role.DRIVER) == [
            "node0/p0",
            "node1/p1",
        ]
        assert {error.video_id for error in remote.errors(RUN)} == {"bad-0", "bad-1"}


def test_a_row_that_the_server_refuses_does_not_block_the_others(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SupabaseLedger(path) as ledger:
        start(ledger, 9)
        for index in range(9):
            # An int of PostgreSQL ends where one of SQLite does not.
            ledger.record_shard(result(index, **({"segments": 2**40} if index == 4 else {})))
    connection = sqlite3.connect(path)
    ((seq, refused),) = connection.execute("SELECT body ->> 'shard', refused FROM outbox")
    connection.close()
    assert seq == "de-000004"
    assert "refuses a row (22003" in refused
    assert any("1 updates in" in record.getMessage() for record in caplog.records)
    with SupabaseReader() as remote:
        assert [row.shard[-1] for row in remote.shards(RUN)] == ["0", "1", "2", "3", "5", "6", "7", "8"]


def test_a_run_that_began_without_supabase_is_told_from_its_start(path: Path) -> None:
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


def test_text_that_no_database_takes_is_told_without_the_odd_letters(path: Path) -> None:
    letter = DeadLetter("v\udc80", "de", "fetch", "BadTar", "a\x00b \ud800 c")
    with SupabaseLedger(path) as ledger:
        start(ledger)
        ledger.record_shard(result(0, dead_letters=(letter,)))
        ledger.record_failure(RUN, "de-000001", 1, "w", "X\x00", "\udfff", "\x00")
        ledger.heartbeat(RUN, [WorkerRow("w", videos_per_minute=float("nan"), segments_per_second=float("inf"))])
    assert waiting(path) == 0
    same_on_both_sides(path)
    with SupabaseReader() as remote:
        assert {row.error_message for row in remote.errors(RUN)} == {"ab ? c", "?"}


def test_an_answer_from_somebody_else_is_not_taken_for_the_servers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's page with status 200 must not empty the outbox."""
    with SupabaseLedger(path, send_every_s=60) as ledger:
        start(ledger)
        with monkeypatch.context() as patch, serving(b"<html>Please sign in</html>") as url:
            patch.setenv("SUPABASE_URL", url)
            with pytest.raises(LedgerError, match="does not answer as Supabase does"):
                sync(path)
        assert waiting(path) == 1


@pytest.mark.parametrize("key", ["wrong", "publishable", "signed-in"])
def test_a_key_that_may_not_write_fails_at_the_start_with_the_remedy(
    server: Supabase, path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    given = "sb_secret_doesnotexist" if key == "wrong" else server.publishable_key
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", given)
    if key == "signed-in":
        monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", server.token())
    with pytest.raises(LedgerError, match=r"refuses the key .* check SUPABASE_SERVICE_KEY") as caught:
        SupabaseLedger(path)
    assert given not in str(caught.value)
    assert not path.exists()


def test_missing_tables_fail_at_the_start_with_the_remedy(path: Path) -> None:
    with postgres_server() as empty, supabase_server(empty) as bare, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUPABASE_URL", bare.url)
        patch.setenv("SUPABASE_SERVICE_KEY", bare.secret_key)
        for opened in (lambda: SupabaseLedger(path), SupabaseReader):
            with pytest.raises(LedgerError, match=r"apply cluster/supabase/migrations \(supabase db push\)"):
                opened()


def test_a_reader_needs_only_a_signed_in_user_and_others_see_no_run(
    server: Supabase, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
        expected = contents(ledger)
    monkeypatch.delenv("SUPABASE_SERVICE_KEY")
    monkeypatch.setenv("SUPABASE_KEY", server.publishable_key)
    with SupabaseReader() as stranger:
        assert stranger.runs() == []
    monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", server.token())
    with open_ledger("supabase://", create=False) as reader:
        assert contents(reader) == expected
        for write in (
            lambda: start(reader),
            lambda: reader.record_shard(result(0)),
            lambda: reader.record_failure(RUN, "de-000001", 1, None, "x", "y"),
            lambda: reader.heartbeat(RUN, []),
            lambda: reader.finish_run(RUN, RunStatus.DONE),
        ):
            with pytest.raises(LedgerError, match="opened for reading alone"):
                write()
        with pytest.raises(LedgerError, match="has no run 'nope'"):
            reader.progress("nope")


def test_a_reader_of_more_than_a_page_of_shards_gets_them_all(server: Supabase) -> None:
    server.postgres.sql(f"""
        INSERT INTO pipeline_runs (run_id, language, total_videos) VALUES ('{RUN}', 'de', 1);
        INSERT INTO shards (run_id, shard, language, status, finished_at)
            SELECT '{RUN}', 's' || lpad(n::text, 6, '0'), 'de', 'done', now() FROM generate_series(1, 2300) n""")
    with SupabaseReader() as remote:
        assert [row.shard for row in remote.shards(RUN)] == [f"s{index:06d}" for index in range(1, 2301)]


def test_no_key_is_ever_logged_or_shown(
    server: Supabase, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    with SupabaseLedger(path, send_every_s=OFTEN_S) as ledger, SupabaseReader() as remote:
        start(ledger)
        server.stop()
        time.sleep(3 * OFTEN_S)
        shown = [repr(ledger), str(ledger), repr(remote), repr(ledger._sender), repr(remote._supabase)]
    server.start()
    monkeypatch.delenv("SUPABASE_SERVICE_KEY")
    with pytest.raises(ConfigError, match="SUPABASE_SERVICE_KEY") as caught:
        SupabaseReader()
    for text in (*shown, caplog.text, str(caught.value)):
        assert server.secret_key not in text
    assert server.secret_key.encode() not in path.read_bytes()
