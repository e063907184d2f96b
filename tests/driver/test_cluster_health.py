import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from distributed import Client, Event
from distributed.comm.core import CommClosedError

from audiopipe.driver import cluster_health


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        yield client


def test_a_suspended_driver_does_not_declare_its_cluster_lost(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    health = cluster_health.ClusterHealth()
    assert health.workers(client)
    monkeypatch.setattr(cluster_health, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 10_000))
    assert health.is_connected(client)
    assert health.workers(client)
    health.scheduler_lost_since = time.monotonic()
    with pytest.raises(CommClosedError, match="its scheduler has not answered for 10000 s"):
        health.is_connected(client)


def test_an_inactive_cluster_is_stalled_and_a_busy_one_is_not(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_health, "STALL_CHECK_S", 0.05)
    health = cluster_health.ClusterHealth()
    may_end = Event("may-end", client)
    task = client.submit(lambda: Event("may-end").wait(60), pure=False)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        health.check_stalled(client)
        time.sleep(0.02)
    may_end.set()
    assert task.result()
    health.mark_progress()
    time.sleep(0.06)
    health.check_stalled(client)
    assert health.idle_checks == 1, "one look may fall between two tasks"
    time.sleep(0.06)
    with pytest.raises(cluster_health.ClusterStalledError, match="no worker has executed a shard for 0 s"):
        health.check_stalled(client)


class Unreachable:
    _run = None

    def sync(self, *_: object, **__: object) -> None:
        raise TimeoutError


def test_an_unreachable_worker_is_not_treated_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_health, "STALL_CHECK_S", 0.0)
    health = cluster_health.ClusterHealth()
    for unanswered in (SimpleNamespace(sync=lambda *_, **__: {}, _run=None), Unreachable()):
        for _ in range(3):
            health.check_stalled(unanswered)  # type: ignore[arg-type]
