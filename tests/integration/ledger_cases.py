"""Fixtures and a synthetic run for tests of the ledger in Supabase."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from supabase_server import Supabase, apply_migrations, postgres_server, supabase_server

from audiopipe.ledger import (
    ErrorRow,
    LanguageTotal,
    Ledger,
    Role,
    RunRow,
    RunStatus,
    SqliteLedger,
    WorkerRow,
    WorkerStatus,
)
from audiopipe.ledger.supabase_reader import SupabaseReader
from audiopipe.types import DeadLetter, ShardResult

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
    """Build a shard of ten videos, of which one is a dead letter."""
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


def worker_rows(status: WorkerStatus = WorkerStatus.RUNNING, **changes: Any) -> list[WorkerRow]:
    driver = WorkerRow("node/p0", Role.DRIVER, status=status, last_error="x: y")
    busy = {"videos_processed": 20, "videos_per_minute": 8.5, "cpu_utilization": 91.5, "memory_bytes": 5_000_000_000}
    return [driver, replace(WorkerRow("node/p0/0", status=status, **busy), **changes)]  # type: ignore[arg-type]


def whole_run(ledger: Ledger, shards: int = 3) -> None:
    start(ledger, shards)
    ledger.record_failure(RUN, ErrorRow.of_attempt("de-000001", 1, "host-0", "StoreError", "gone", "Traceback …"))
    for index in range(shards):
        ledger.record_shard(result(index))
        ledger.heartbeat(RUN, worker_rows())
    ledger.heartbeat(RUN, worker_rows(WorkerStatus.DONE))
    ledger.finish_run(RUN, RunStatus.DONE)


def contents(ledger: Ledger) -> dict[str, Any]:
    """Read all rows of the run, without the times that the ledger sets."""
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


def count_pending(path: Path) -> int:
    connection = sqlite3.connect(path)
    ((count,),) = connection.execute("SELECT COUNT(*) FROM outbox WHERE refused IS NULL")
    connection.close()
    return int(count)


def assert_same_contents(path: Path) -> None:
    with SqliteLedger(path, create=False) as local, SupabaseReader() as remote:
        expected, rows = contents(local), contents(remote)
        for name, value in expected.items():
            assert rows[name] == value, name
