import logging
import threading
from collections.abc import Iterator

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.utils import LoopRunner, sync
from tornado.ioloop import IOLoop

from audiopipe.cluster import dask_patches
from audiopipe.cluster.dask_patches import StopProfiler, hide_interrupted_sync

TORNADO = logging.getLogger("tornado.application")


@pytest.fixture
def loop() -> Iterator[IOLoop]:
    runner = LoopRunner(asynchronous=False)
    runner.start()
    yield runner.loop
    runner.stop()


def interrupt_request(loop: IOLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt Dask's `sync` while the loop is busy, and let the loop go on."""
    blocked, freed, done = threading.Event(), threading.Event(), threading.Event()
    loop.add_callback(lambda: (blocked.set(), freed.wait(60)))
    assert blocked.wait(60)

    def interrupt(self: threading.Event, timeout: float | None = None) -> bool:
        raise KeyboardInterrupt

    async def request() -> None:
        pass

    real = threading.Event.wait
    monkeypatch.setattr(threading.Event, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sync(loop, request)
    monkeypatch.setattr(threading.Event, "wait", real)
    loop.add_callback(done.set)
    freed.set()
    assert done.wait(60)


def test_an_interrupted_request_leaves_no_traceback(
    loop: IOLoop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    TORNADO.removeFilter(dask_patches._INTERRUPTED_SYNC)
    interrupt_request(loop, monkeypatch)
    assert "NameError" in caplog.text, "Dask is corrected: the filter can go"
    caplog.clear()
    hide_interrupted_sync()
    interrupt_request(loop, monkeypatch)
    assert not caplog.text
    TORNADO.error("Exception in callback %s", "other", exc_info=ValueError("other"))
    assert "Exception in callback other" in caplog.text


def test_the_profiler_of_a_plain_worker_is_stopped() -> None:
    with (
        dask.config.set({"distributed.worker.profile.enabled": True}),
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        (worker,) = cluster.workers.values()
        callbacks = [worker.periodic_callbacks[name] for name in ("profile", "profile-cycle")]
        assert all(callback.is_running() for callback in callbacks)
        client.register_plugin(StopProfiler())
        assert not any(callback.is_running() for callback in callbacks)
        assert not {"profile", "profile-cycle"} & worker.periodic_callbacks.keys()
