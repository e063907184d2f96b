"""Several processes write one file; a process is killed between or inside its writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audiopipe.ledger import LanguageTotal, RunRow, SqliteLedger, WorkerRow
from audiopipe.types import ShardResult

Make = Callable[..., ShardResult]

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from ledger_rows import RUN, shard_result
from audiopipe.ledger import ErrorRow, LanguageTotal, RunRow, SqliteLedger, WorkerRow
name, path, first, last = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
ledger = SqliteLedger(path)
ledger.start_run(RunRow(RUN, "de", 1000), [LanguageTotal("de", 1000)])
print("ready", flush=True)
for index in range(first, last):
    ledger.record_shard(shard_result(index, failed=2))
    ledger.record_failure(RUN, ErrorRow.of_attempt(f"de-{index:06d}", 1, name, "StoreError", "gone"))
    ledger.heartbeat(RUN, [WorkerRow(name, videos_processed=index), WorkerRow("both", videos_processed=index)])
"""


def start_writer(path: Path, name: str, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), name, str(path), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_neither_lose_nor_double_rows(tmp_path: Path, run_id: str) -> None:
    path = tmp_path / "_ledger.sqlite"
    # Both create the file and record shards 40 to 79.
    processes = [start_writer(path, "a", 0, 80), start_writer(path, "b", 40, 120)]
    assert [process.wait(60) for process in processes] == [0, 0]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    with SqliteLedger(path, create=False) as ledger:
        assert ledger.progress(run_id).processed == 1200
        assert len([error for error in ledger.errors(run_id, 10_000) if error.video_id]) == 240
        assert len([error for error in ledger.errors(run_id, 10_000) if error.attempt]) == 160
        assert {row.worker_id: row.videos_processed for row in ledger.workers(run_id)} == {
            "a": 79,
            "b": 119,
            "both": 119,
        }


def test_a_killed_writer_leaves_whole_transactions(tmp_path: Path, run_id: str, make_result: Make) -> None:
    path = tmp_path / "_ledger.sqlite"
    for wait_s in (0.0, 0.005, 0.02, 0.06):
        process = start_writer(path, "a", 0, 100_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(wait_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        process.stdout.close()
        with SqliteLedger(path) as ledger:
            done = ledger.shards(run_id)
            letters = [error.shard for error in ledger.errors(run_id, 10**6) if error.video_id]
            assert sorted(letters) == sorted(2 * [shard.shard for shard in done])
            assert [shard.shard for shard in done] == [f"de-{index:06d}" for index in range(len(done))]
    assert done

    with SqliteLedger(path) as ledger:
        ledger.start_run(RunRow(run_id, "de", 1000), [LanguageTotal("de", 1000)])
        for index in range(len(done) + 1):
            ledger.record_shard(make_result(index, failed=2))
        ledger.heartbeat(run_id, [WorkerRow("a", videos_processed=1)])
        assert ledger.progress(run_id).processed == 10 * (len(done) + 1)


def test_many_threads_can_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    """Open at once: SQLite's busy timeout does not cover the switch to a WAL, so one in 100 fails without a retry."""

    def open_at_once(path: Path, barrier: threading.Barrier) -> None:
        barrier.wait(60)
        SqliteLedger(path).close()

    with ThreadPoolExecutor(4) as pool:
        for index in range(150):
            barrier = threading.Barrier(4)
            openings = [pool.submit(open_at_once, tmp_path / f"{index}.sqlite", barrier) for _ in range(4)]
            for opening in openings:
                opening.result(60)
