"""Two workers of which one fails: its shards move, no healthy video is lost, and the run names the worker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client, KilledWorker, LocalCluster
from output_factory import RUN_ID, config, content, corpus, make_output

from audiopipe.config import RunConfig
from audiopipe.driver import run, steering, task
from audiopipe.errors import BrokenWorker, PermanentStoreError, SourceUnavailable, StoreError, WorkerFailure
from audiopipe.ledger import WorkerStatus, open_ledger
from audiopipe.pipeline import self_check
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Shard, ShardResult

# Names of the in-process workers; the first one fails.
BROKEN, SOUND = "0", "1"
Check = Callable[..., WorkerFailure | None]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "c", videos=8, missing=False, seconds=0.5)


@pytest.fixture(scope="module")
def expected(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return content(make_output(config(catalog, tmp_path_factory.mktemp("expected") / "out", shard_videos=1)).url)


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(processes=False, n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def short_waits(fast_ticks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "HOLD_S", 0.2)


def settings_for(catalog: Path, folder: Path) -> RunConfig:
    return config(catalog, folder / "out", shard_videos=1, retries=1, heartbeat_s=0.2)


def failing_on(workers: str, error: Exception) -> task.Task:
    """Make a task that fails on the workers of these names."""

    def process(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
        if worker.rpartition("/")[2] in workers:
            raise error
        return process_shard(shard, config, run_id, worker)

    return process


def fail_check_on(monkeypatch: pytest.MonkeyPatch, workers: str, failure: WorkerFailure) -> None:
    """Let the self-check fail on the workers of these names."""

    def check(config: RunConfig, needed_bytes: int = 0) -> WorkerFailure | None:
        if str(task.get_worker().name) not in workers:
            return None
        failure.is_confirmed = True
        return failure

    def require(config: RunConfig) -> None:
        if reason := check(config):
            raise reason

    monkeypatch.setattr(self_check, "check_worker", check)
    monkeypatch.setattr(self_check, "require_sound_worker", require)


def test_a_worker_that_fails_its_check_is_retired(
    catalog: Path, expected: dict[str, bytes], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_check_on(monkeypatch, BROKEN, BrokenWorker("its GPU cannot be used: Found no NVIDIA driver"))
    failing = failing_on(BROKEN, RuntimeError("Found no NVIDIA driver"))
    summary = run.run(settings_for(catalog, tmp_path), client=client, task=failing)
    assert (summary.exit_code, summary.shards_failed, summary.total.videos_failed) == (0, {}, 0)
    assert list(summary.workers_retired) == [BROKEN]
    assert "Found no NVIDIA driver" in summary.workers_retired[BROKEN]
    assert content(tmp_path / "out") == expected
    assert [str(worker["name"]) for worker in client.scheduler_info()["workers"].values()] == [SOUND]
    with open_ledger(None, str(tmp_path / "out"), create=False) as ledger:
        rows = {row.worker_id.rpartition("/")[2]: row for row in ledger.workers(RUN_ID)}
        errors = ledger.errors(RUN_ID)
    assert rows[BROKEN].status is WorkerStatus.FAILED
    assert "Found no NVIDIA driver" in (rows[BROKEN].last_error or "")
    assert rows[SOUND].status is WorkerStatus.DONE
    assert {(error.error_type, (error.worker_id or "").rpartition("/")[2]) for error in errors} == {
        ("BrokenWorker", BROKEN)
    }


@pytest.mark.parametrize(
    ("failure", "code"), [(BrokenWorker("its disk is full"), 2), (WorkerFailure("its GPU failed: CUDA error"), 4)]
)
def test_without_a_sound_worker_the_run_ends_with_the_reason(
    catalog: Path, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: WorkerFailure, code: int
) -> None:
    fail_check_on(monkeypatch, BROKEN + SOUND, failure)
    settings = settings_for(catalog, tmp_path)
    summary = run.run(settings, client=client, task=failing_on(BROKEN + SOUND, MemoryError()))
    assert summary.exit_code == code
    assert summary.workers_retired.keys() == {BROKEN, SOUND}
    assert summary.stopped is not None
    assert summary.stopped.startswith("no worker can work; the last was ")
    assert str(failure) in summary.stopped
    assert len(summary.shards_failed) == 8
    assert len(client.scheduler_info()["workers"]) == 1, "the last worker stays, for the next run"


@pytest.mark.parametrize(
    "error", [PermanentStoreError("writing out: Read-only file system"), SourceUnavailable("/videos is not mounted")]
)
def test_a_refusal_that_only_one_worker_gets_retires_it(
    catalog: Path, expected: dict[str, bytes], client: Client, tmp_path: Path, error: Exception
) -> None:
    summary = run.run(settings_for(catalog, tmp_path), client=client, task=failing_on(BROKEN, error))
    assert (summary.exit_code, summary.shards_failed) == (0, {})
    assert f"{error}; worker {SOUND} has no such problem" in summary.workers_retired[BROKEN]
    assert content(tmp_path / "out") == expected


@pytest.mark.parametrize(
    ("error", "code"),
    [(PermanentStoreError("writing out: No space left"), 2), (SourceUnavailable("/videos is not mounted"), 4)],
)
def test_a_refusal_that_a_second_worker_gets_too_ends_the_run(
    catalog: Path,
    client: Client,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    code: int,
) -> None:
    summary = run.run(settings_for(catalog, tmp_path), client=client, task=failing_on(BROKEN + SOUND, error))
    assert (summary.exit_code, summary.workers_retired) == (code, {})
    assert summary.stopped == f"{type(error).__name__}: {error}"
    assert len(summary.shards_failed) == 8
    said = [record for record in caplog.records if "new shards wait" in record.message]
    assert len(said) == (code == 4), "the reason is said once"


def test_a_transient_error_of_one_worker_costs_no_shard(
    catalog: Path, expected: dict[str, bytes], client: Client, tmp_path: Path
) -> None:
    failing = failing_on(BROKEN, StoreError("the network is down"))
    summary = run.run(settings_for(catalog, tmp_path), client=client, task=failing)
    assert (summary.exit_code, summary.shards_failed, summary.workers_retired) == (0, {}, {})
    assert content(tmp_path / "out") == expected


def test_a_failure_names_the_worker_that_was_killed(client: Client) -> None:
    class Last:
        name, address = "gpu-0", "tcp://10.0.0.7:1"

    from audiopipe.driver.recorder import _find_attempt

    assert _find_attempt(KilledWorker("shard", Last(), 3)) == task.Attempt("gpu-0", "tcp://10.0.0.7:1")
    assert _find_attempt(ValueError()) is None
