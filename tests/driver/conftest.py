"""Fixtures of drivers on a cluster in this process."""

from collections.abc import Iterator

import pytest
from distributed import Client

from audiopipe.driver import retry, session


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as client:
        yield client


@pytest.fixture
def fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the driver's waits."""
    monkeypatch.setattr(retry, "BACKOFF_S", 0.05)
    monkeypatch.setattr(session, "TICK_S", 0.05)
