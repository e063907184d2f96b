"""An `SSHCluster` whose hosts are kept: what their processes say is read, and a worker that ended is started again.

Dask reads what a remote process logs until it has found an address there, and never again; SSH holds two megabytes of
it back, and then the process stands still at its next line. And nobody but SSH knows when such a process has ended: a
worker that lost its scheduler ends itself, and would be missed until the run's end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import Any

from distributed import SpecCluster
from distributed.core import Status

from audiopipe.errors import ClusterError

__all__ = ["supervised"]

LOG = logging.getLogger(__name__)
DASK_LOG = logging.getLogger("distributed.deploy.ssh")  # where Dask puts what it reads itself
AGAIN_S = 15.0


def supervised(start: Callable[..., SpecCluster]) -> Callable[..., SpecCluster]:
    """`SSHCluster` with its processes followed until it is closed.

    The function that comes back raises:
        ClusterError: a host was not reached, refused the login, or what was started there ended; with its last words.
    """

    @wraps(start)
    def begin(**arguments: Any) -> SpecCluster:
        with LogTail() as words:
            try:
                cluster = start(**arguments)
            except Exception as error:  # noqa: BLE001 - Dask raises just that
                # Closing what had started, it stumbles over what had not.
                first = error.__context__ if isinstance(error, AssertionError) else error
                said = f", and said: {' | '.join(words.lines)}" if words.lines else ""
                raise ClusterError(f"not all hosts of the cluster could be started: {first}{said}") from None
        loop: Any = cluster.loop
        loop.add_callback(_read, cluster.scheduler)
        for name in cluster.worker_spec:
            loop.add_callback(_keep, cluster, name)
        return cluster

    return begin


async def _keep(cluster: SpecCluster, name: Any) -> None:
    """Have a host's worker started again whenever it has ended."""
    host = cluster.worker_spec[name]["options"]["address"]
    while True:
        process = cluster.workers[name]
        await _read(process)
        if cluster.status != Status.running:
            return
        if process.status == Status.running:
            LOG.info("the worker on %s is away: tried again every %.0f s", host, AGAIN_S)
        await _forget(process)
        cluster.workers.pop(name, None)
        await asyncio.sleep(AGAIN_S)
        starting = cluster._correct_state()  # starts whoever is in the specification and not among the workers
        await asyncio.wait([starting])
        if error := starting.exception():
            DASK_LOG.info("%s: %s", host, error or type(error).__name__)
        if name not in cluster.workers:
            return  # closed meanwhile
        if cluster.workers[name].status == Status.running:
            LOG.info("the worker on %s is back", host)


async def _read(process: Any) -> None:
    """Until it has ended, or its host is out of reach for longer than SSH waits (`keepalive_interval`)."""
    if process.proc is not None:  # its host was reached
        streams = process.proc.stdout, process.proc.stderr
        await asyncio.gather(*map(_log, streams), return_exceptions=True)  # a lost connection is an end as well


async def _log(stream: Any) -> None:
    async for line in stream:
        DASK_LOG.info(line.strip())


async def _forget(process: Any) -> None:
    """Close what is left of it; where nothing is, SSH cannot send the kill that comes first."""
    try:
        await process.close()
    except OSError:
        process.status = Status.closed


class LogTail(logging.Handler):
    """The last lines that Dask has read from its hosts, also where its log is silenced."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=3)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> LogTail:
        self.before = DASK_LOG.level, DASK_LOG.propagate
        DASK_LOG.propagate = DASK_LOG.isEnabledFor(logging.INFO)
        DASK_LOG.setLevel(logging.INFO)
        DASK_LOG.addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        DASK_LOG.removeHandler(self)
        level, DASK_LOG.propagate = self.before
        DASK_LOG.setLevel(level)
