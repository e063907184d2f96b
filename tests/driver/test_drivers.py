"""Several languages and several drivers in one run: the order of shards, and the ledger's totals."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import gethostname

import pytest
from distributed import Client
from output_factory import RUN_ID, config, content, corpus

from audiopipe.config import RunConfig
from audiopipe.dataset.verify import verify
from audiopipe.driver import run, session
from audiopipe.ledger import Ledger, Role, RunStatus, SqliteLedger, WorkerRow, WorkerStatus, open_ledger
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Shard, ShardResult


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "c", videos=8, missing=False)


@pytest.fixture(scope="module")
def client():
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        yield client


@pytest.fixture(autouse=True)
def fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "TICK_S", 0.05)


PROCESSED_LANGUAGES: list[str] = []


def record_language(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
    """Process a shard on an in-process worker, and note its language."""
    PROCESSED_LANGUAGES.append(shard.language)
    return process_shard(shard, config, run_id, worker)


def totals(ledger: Ledger) -> dict[str, tuple[int, int]]:
    return {row.language: (row.processed, row.total_videos) for row in ledger.languages(RUN_ID)}


@pytest.mark.parametrize(
    ("order", "processed"), [("sequential", ["en", "en", "de", "de"]), ("round_robin", ["de", "en", "de", "en"])]
)
def test_the_driver_takes_languages_in_the_order_of_the_config(
    catalog: Path, client: Client, tmp_path: Path, order: str, processed: list[str]
) -> None:
    PROCESSED_LANGUAGES.clear()
    settings = config(catalog, tmp_path / "out", language="en,de", language_order=order)
    assert run.run(settings, client=client, task=record_language).exit_code == 0
    assert processed == PROCESSED_LANGUAGES
    with open_ledger(None, settings.output, create=False) as ledger:
        assert totals(ledger) == {"de": (4, 4), "en": (4, 4)}


def test_the_order_of_languages_changes_no_byte_and_no_digest(catalog: Path, client: Client, tmp_path: Path) -> None:
    run.run(config(catalog, tmp_path / "a", language_order="sequential"), client=client)
    # A run with the other order can resume the same output.
    assert run.run(config(catalog, tmp_path / "a"), client=client).new.shards == 0
    run.run(config(catalog, tmp_path / "b"), client=client)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_run_of_all_languages_allows_a_driver_for_one_language(catalog: Path, client: Client, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run.run(config(catalog, out), client=client)
    for shard in ("de-000001", "en-000001"):
        (out / f"_commits/{shard}.json").unlink()
    part = run.run(config(catalog, out, language="en"), client=client)
    assert (part.new.shards, part.exit_code) == (1, 0)
    with open_ledger(None, str(out), create=False) as ledger:
        row = ledger.run(RUN_ID)
        assert row is not None
        assert (row.language, row.total_videos) == ("all", 8)
    assert run.run(config(catalog, out), client=client).new.shards == 1
    assert verify(str(out)).findings == ()


def test_a_run_grows_by_the_languages_of_later_drivers(catalog: Path, client: Client, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for requested, language, videos in (("en", "en", 4), ("de", "de,en", 8)):
        summary = run.run(config(catalog, out, language=requested, language_order="sequential"), client=client)
        assert (summary.exit_code, summary.total.videos) == (0, videos)
        with open_ledger(None, str(out), create=False) as ledger:
            row = ledger.run(RUN_ID)
            assert row is not None
            assert (row.language, row.total_videos, row.status) == (language, videos, RunStatus.DONE)
            assert ledger.progress(RUN_ID).processed == videos


def drivers(ledger: Ledger) -> list[WorkerRow]:
    return [row for row in ledger.workers(RUN_ID) if row.role is Role.DRIVER]


def test_two_drivers_of_one_run_have_separate_rows(catalog: Path, client: Client, tmp_path: Path) -> None:
    out, ledger_path = tmp_path / "out", tmp_path / "ledger.sqlite"
    halves = [
        config(catalog, out, partition_count=2, partition_index=index, ledger=str(ledger_path)) for index in (0, 1)
    ]
    with ThreadPoolExecutor(2) as pool:
        summaries = list(pool.map(lambda half: run.run(half, client=client), halves))
    assert {summary.status for summary in summaries} == {RunStatus.DONE}
    with SqliteLedger(ledger_path, create=False) as ledger:
        rows = drivers(ledger)
        host = gethostname()
        assert [row.worker_id.rpartition("/")[0] for row in rows] == [f"{host}/p0", f"{host}/p1"]
        assert [(row.hostname, row.partition_index, row.status) for row in rows] == [
            (host, 0, "done"),
            (host, 1, "done"),
        ]
        assert sum(row.videos_processed for row in rows) == 8
        assert ledger.run(RUN_ID).status is RunStatus.DONE  # type: ignore[union-attr]
        assert totals(ledger) == {"de": (4, 4), "en": (4, 4)}
    assert verify(str(out)).findings == ()


def test_two_drivers_of_a_partition_on_one_host_have_separate_rows(
    catalog: Path, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, work = threading.Barrier(2), session.Session.work

    def work_together(self: session.Session, client: Client | None) -> None:
        barrier.wait(60)  # both sessions have the same open shards
        work(self, client=client)

    monkeypatch.setattr(session.Session, "work", work_together)
    settings = config(catalog, tmp_path / "out")
    with ThreadPoolExecutor(2) as pool:
        summaries = list(pool.map(lambda _: run.run(settings, client=client), range(2)))
    assert [summary.exit_code for summary in summaries] == [0, 0]
    with open_ledger(None, settings.output, create=False) as ledger:
        rows = drivers(ledger)
        assert len({row.worker_id for row in rows}) == len(rows) == 2
        assert {row.status for row in rows} == {WorkerStatus.DONE}
        workers = [row for row in ledger.workers(RUN_ID) if row.role is Role.WORKER]
        assert {row.worker_id.rpartition("/")[0] for row in workers} == {row.worker_id for row in rows}
        assert ledger.run(RUN_ID).status is RunStatus.DONE  # type: ignore[union-attr]
        assert totals(ledger) == {"de": (4, 4), "en": (4, 4)}
    assert verify(settings.output).findings == ()
