import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from distributed import Client
from distributed.comm.core import CommClosedError

from audiopipe.run import watch


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        yield client


def test_a_driver_that_slept_itself_does_not_take_its_cluster_for_lost(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch.Watch()
    assert seen.workers(client)
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 10_000))
    assert seen.reached(client)
    assert seen.workers(client)
    seen.scheduler_away = time.monotonic()
    with pytest.raises(CommClosedError, match="its scheduler has not answered for 10000 s"):
        seen.reached(client)
