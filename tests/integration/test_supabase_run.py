"""Whole runs with catalog and ledger in a real Supabase, with and without outages."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from output_factory import content, corpus
from s3_server import BUCKET, S3Server, s3_server
from supabase_server import Supabase, apply_migrations, bring_back, postgres_server, supabase_server

from audiopipe.config import RunConfig
from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.totals import Totals
from audiopipe.dataset.verify import verify
from audiopipe.driver import run, session
from audiopipe.ledger import Ledger, Role, RunStatus, SqliteLedger, WorkerStatus, default_path, supabase
from audiopipe.ledger.supabase_reader import SupabaseReader
from audiopipe.store.objects import Store

__all__ = ["s3_server"]  # a fixture

pytestmark = pytest.mark.slow

KINDS = ("audio", "segments", "videos", "manifest")  # of the objects of a shard
AUDIOPIPE = str(Path(sys.executable).parent / "audiopipe")


@pytest.fixture(scope="module")
def server(tiny_corpus: Path) -> Iterator[Supabase]:
    rows = pq.read_table(tiny_corpus / "catalog.parquet").to_pylist()
    with postgres_server() as postgres:
        apply_migrations(postgres)
        postgres.sql(f"""
            INSERT INTO videos (youtube_id, language, status, r2_tar_key, size_bytes, duration_s)
            SELECT youtube_id, language, status, r2_tar_key, size_bytes, duration_s
            FROM jsonb_populate_recordset(NULL::videos, $${json.dumps(rows, default=str)}$$)""")
        with supabase_server(postgres) as running:
            yield running


@pytest.fixture(autouse=True)
def environment(server: Supabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profiles.yaml").write_text("local-cpu: {dashboard_address: '127.0.0.1:0'}")
    monkeypatch.setenv("AUDIOPIPE_PROFILES", str(tmp_path / "profiles.yaml"))
    for name in ("SUPABASE_KEY", "SUPABASE_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUPABASE_URL", server.url)
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", server.secret_key)
    monkeypatch.setattr(supabase, "SEND_EVERY_S", 0.2)
    monkeypatch.setattr(session, "TICK_S", 0.05)
    server.postgres.sql("TRUNCATE pipeline_runs, run_languages, worker_progress, shards, processing_errors")


def config(corpus: Path, output: Path, **parameters: Any) -> RunConfig:
    inputs = {"catalog": "supabase://videos", "ledger": "supabase://", "source_prefix": f"{corpus}/"}
    execution = {"cluster": "local-cpu", "workers": 1, "shard_videos": 2, "device": "cpu", "heartbeat_s": 0.5}
    execution |= {"max_failed_share": 1.0}
    return RunConfig.of(**(inputs | execution | {"output": str(output)} | parameters))


def read_totals(output: Path) -> Totals:
    return Totals.of(commit.result for commit in read_commits(Store(str(output))).values())


def assert_ledger_equals_commits(server: Supabase, output: Path, run_id: str) -> None:
    committed = read_totals(output)
    ((processed, total),) = server.postgres.sql(
        f"SELECT processed, total_videos FROM run_progress WHERE run_id = '{run_id}'"
    )
    assert int(processed) == int(total) == committed.videos
    with SupabaseReader() as reader:
        languages = reader.languages(run_id)
        assert sum(row.segments for row in languages) == committed.segments
        assert sum(row.kept for row in languages) == committed.segments_kept
        assert sum(row.failed for row in languages) == committed.videos_failed
        assert sum(row.bytes_out for row in languages) == committed.bytes_out
        assert {error.video_id for error in reader.errors(run_id)} == {
            letter.video_id
            for commit in read_commits(Store(str(output))).values()
            for letter in commit.result.dead_letters
        }
        assert reader.run(run_id).status == "done"  # type: ignore[union-attr]


def test_a_supabase_run_is_complete_and_its_workers_have_no_key(
    server: Supabase, tiny_corpus: Path, tmp_path: Path
) -> None:
    workers: dict[int, dict[str, str]] = {}

    def record_environments(_ledger: Ledger, _run_id: str) -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # the process may have ended
                if "spawn_main" in " ".join(process.cmdline()):
                    workers[process.pid] = process.environ()

    summary = run.run(config(tiny_corpus, tmp_path / "out"), on_tick=record_environments)
    assert summary.exit_code == 3  # the corpus has unreadable videos
    assert workers
    assert all("SUPABASE_URL" in environment for environment in workers.values())
    assert not any(server.secret_key in value for environment in workers.values() for value in environment.values())
    assert verify(str(tmp_path / "out")).findings == ()
    assert_ledger_equals_commits(server, tmp_path / "out", summary.run_id)

    from_files = run.run(
        config(tiny_corpus, tmp_path / "files", catalog=str(tiny_corpus / "catalog.parquet"), ledger=None)
    )
    objects, expected = content(tmp_path / "out"), content(tmp_path / "files")
    tars = [name for name in objects if name.endswith(".tar")]
    assert tars
    assert {name: objects[name] for name in tars} == {name: expected[name] for name in tars}
    assert from_files.total.videos == summary.total.videos


def test_sync_sends_all_updates_after_an_outage(server: Supabase, tiny_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stop_server(ledger: Ledger, run_id: str) -> None:
        if server.process is not None and ledger.shards(run_id):
            server.stop()

    try:
        summary = run.run(config(tiny_corpus, out), on_tick=stop_server)
        assert server.process is None
    finally:
        if server.process is None:
            server.start()
    assert summary.exit_code == 3
    assert verify(str(out)).findings == ()
    with SupabaseReader() as reader:
        stale = reader.run(summary.run_id)
        assert stale is None or stale.status == "running"
    command = [AUDIOPIPE, "sync", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ", 0 refused" in done.stdout
    assert int(done.stdout.split()[0]) > 0
    assert_ledger_equals_commits(server, out, summary.run_id)
    with SqliteLedger(default_path(str(out)), create=False) as local, SupabaseReader() as reader:
        assert reader.shards(summary.run_id) == local.shards(summary.run_id)


def test_a_run_resumes_under_its_row_in_supabase(server: Supabase, tiny_corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run.run(config(tiny_corpus, out))
    (out / "_commits/en-000001.json").unlink()
    resumed = run.run(config(tiny_corpus, out))
    assert (resumed.run_id, resumed.new.shards) == (first.run_id, 1)
    assert server.postgres.sql("SELECT COUNT(*), MIN(status) FROM pipeline_runs") == [["1", "done"]]
    assert_ledger_equals_commits(server, out, first.run_id)


def test_the_monitor_counts_the_rows_of_the_parquets(server: Supabase, tiny_corpus: Path, tmp_path: Path) -> None:
    summary = run.run(config(tiny_corpus, tmp_path / "out"))
    command = [AUDIOPIPE, "monitor", "--ledger", "supabase://", "--json", "--run-id", summary.run_id]
    snapshot = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    tars = (tmp_path / "out" / "tars.txt").read_text().split()  # without those that only complete NeMo's pattern
    for language in snapshot["languages"]:
        folder = tmp_path / "out" / language["language"]
        videos, segments = (
            [row for path in sorted(folder.glob(f"{kind}_*.parquet")) for row in pq.read_table(path).to_pylist()]
            for kind in ("videos", "segments")
        )
        kept = [row for row in segments if row["kept"]]
        written = [path for kind in KINDS for path in folder.glob(f"{kind}_*") if kind != "audio"]
        written += [tmp_path / "out" / tar for tar in tars if tar.startswith(f"{folder.name}/")]
        assert (language["processed"], language["total_videos"]) == (len(videos), len(videos))
        assert language["failed"] == sum(row["status"] == "failed" for row in videos)
        assert (language["segments"], language["kept"]) == (len(segments), len(kept))
        assert language["kept_s"] == pytest.approx(sum(row["duration_s"] for row in kept))
        assert language["bytes_out"] == sum(path.stat().st_size for path in written)
    assert snapshot["totals"]["processed"] == sum(row["processed"] for row in snapshot["languages"]) > 0


def test_a_run_is_recorded_completely_despite_outages(server: Supabase, tiny_corpus: Path, tmp_path: Path) -> None:
    rng, ended, outages = random.Random(7), threading.Event(), []

    def stop_and_start() -> None:
        while not ended.wait(rng.uniform(0.1, 0.6)):
            outages.append(rng.choice([server.stop, server.postgres.stop]))
            outages[-1]()
            ended.wait(rng.uniform(0.1, 1.0))
            bring_back(server)

    # The catalog comes from a file, because a run cannot start if the catalog is unavailable.
    settings = config(tiny_corpus, tmp_path / "out", catalog=str(tiny_corpus / "catalog.parquet"), shard_videos=1)
    saboteur = threading.Thread(target=stop_and_start)
    try:
        summary = run.run(settings, on_tick=lambda *_: None if saboteur.is_alive() else saboteur.start())
    finally:
        ended.set()
        saboteur.join(60)
        bring_back(server)
    assert summary.exit_code == 3
    assert len(outages) > 2
    assert verify(settings.output).findings == ()
    subprocess.run([AUDIOPIPE, "sync", settings.output], check=True, timeout=60, capture_output=True)
    assert_ledger_equals_commits(server, tmp_path / "out", summary.run_id)
    with SqliteLedger(default_path(settings.output), create=False) as local, SupabaseReader() as reader:
        assert reader.shards(summary.run_id) == local.shards(summary.run_id)


def test_two_independent_nodes_record_their_parts_of_one_run(
    server: Supabase, s3_server: S3Server, tmp_path: Path
) -> None:
    """Two processes share only an object store; each has a separate ledger file."""
    catalog = corpus(tmp_path / "corpus", videos=12, missing=False)
    output = f"s3://{BUCKET}/nodes"
    options = ["--output", output, "--catalog", str(catalog), "--ledger", "supabase://", "--cluster", "local-cpu"]
    options += ["--workers", "1", "--shard-videos", "1", "--device", "cpu", "--heartbeat-s", "0.5", "--run-id", "nodes"]
    options += ["--min-snr-db", "none", "--max-silence-ratio", "none", "--partition-count", "2", "--quiet"]

    def start_node(index: int) -> subprocess.Popen[bytes]:
        variables = {"XDG_STATE_HOME": str(tmp_path / f"node{index}"), **s3_server.environment()}
        command = [AUDIOPIPE, "run", *options, "--partition-index", str(index)]
        return subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)

    nodes = [start_node(0), start_node(1)]
    observed: set[str] = set()
    with SupabaseReader() as reader:
        while any(node.poll() is None for node in nodes):
            if rows := reader.run_rows("nodes"):
                observed |= {row.worker_id for row in rows.workers if row.role is Role.DRIVER}
            time.sleep(0.2)
        assert [node.returncode for node in nodes] == [0, 0]
        drivers = [row for row in reader.workers("nodes") if row.role is Role.DRIVER]
        assert observed <= {row.worker_id for row in drivers}
        assert sorted(row.partition_index for row in drivers) == [0, 1]
        assert {(row.status, row.partition_count) for row in drivers} == {(WorkerStatus.DONE, 2)}
        assert all(row.videos_processed for row in drivers)
        assert sum(row.videos_processed for row in drivers) == 12
        done = reader.run("nodes")
        assert done is not None
        assert (done.status, done.total_videos) == (RunStatus.DONE, 12)
        assert reader.progress("nodes").processed == 12
        assert {row.partition_index for row in reader.shards("nodes")} == {0, 1}
    ledgers = list(tmp_path.glob("node*/audiopipe/ledgers/*.sqlite"))
    assert len(ledgers) == 2
    assert server.postgres.sql("SELECT COUNT(*) FROM run_languages WHERE run_id = 'nodes'") == [["2"]]
