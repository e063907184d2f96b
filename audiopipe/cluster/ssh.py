"""Supervise the hosts of an `SSHCluster`: read their output, and restart a worker that has ended.

Upstream: Dask reads the output of a remote process only until it has found an address there. SSH then buffers two
megabytes, and the process blocks at its next log line (dask/distributed#9033). And SSHCluster does not restart a worker
process that has ended, by design (dask/distributed#3118): a worker that lost its scheduler ends, and would be missing
until the end of the run.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Callable, Hashable
from functools import wraps

from distributed import SpecCluster
from distributed.core import Status
from distributed.deploy.ssh import Process

from audiopipe.errors import ClusterError

__all__ = ["supervised"]

LOG = logging.getLogger(__name__)
DASK_LOG = logging.getLogger("distributed.deploy.ssh")  # Dask logs the lines that it reads here
RESTART_S = 15.0


def supervised(start: Callable[..., SpecCluster]) -> Callable[..., SpecCluster]:
    """Wrap `SSHCluster` so that its hosts are supervised until it is closed.

    The function that is returned raises:
        ClusterError: a host was not reached or refused the login, or a process there ended; with its last log lines.
    """

    @wraps(start)
    def start_supervised(**arguments: object) -> SpecCluster:
        with LogTail() as tail:
            try:
                cluster = start(**arguments)
            except Exception as error:  # noqa: BLE001 - Dask raises plain exceptions
                # If only some hosts had started, Dask fails with an assertion while it closes them.
                cause = error.__context__ if isinstance(error, AssertionError) else error
                output = f"; last output: {' | '.join(tail.lines)}" if tail.lines else ""
                raise ClusterError(f"not all hosts of the cluster could be started: {cause}{output}") from None
        loop = cluster.loop
        assert loop is not None
        loop.add_callback(_drain, cluster.scheduler)
        for name in cluster.worker_spec:
            loop.add_callback(_supervise, cluster, name)
        return cluster

    return start_supervised


async def _supervise(cluster: SpecCluster, name: Hashable) -> None:
    """Restart a host's worker whenever it has ended, until the cluster is closed."""
    host = cluster.worker_spec[name]["options"]["address"]
    while True:
        process = cluster.workers[name]
        await _drain(process)
        if cluster.status != Status.running:
            return
        if process.status == Status.running:
            LOG.info("the worker on %s has ended: restarting it every %.0f s", host, RESTART_S)
        await _discard(process)
        cluster.workers.pop(name, None)
        await asyncio.sleep(RESTART_S)
        starting = cluster._correct_state()  # starts the workers of the specification that are missing
        await asyncio.wait([starting])
        if error := starting.exception():
            DASK_LOG.info("%s: %s", host, error or type(error).__name__)
        if name not in cluster.workers:
            return  # the cluster was closed
        if cluster.workers[name].status == Status.running:
            LOG.info("the worker on %s has restarted", host)


async def _drain(process: Process) -> None:
    """Read a process's output until it has ended, or its host is silent for longer than SSH's keepalive allows."""
    if process.proc is not None:  # None if the host was not reached
        streams = process.proc.stdout, process.proc.stderr
        await asyncio.gather(*map(_log_lines, streams), return_exceptions=True)  # a lost connection is an end too


async def _log_lines(stream: AsyncIterable[str]) -> None:
    async for line in stream:
        DASK_LOG.info(line.strip())


async def _discard(process: Process) -> None:
    """Close a process's connection; over a lost connection SSH cannot send the kill that Dask sends first."""
    try:
        await process.close()
    except OSError:
        process.status = Status.closed


class LogTail(logging.Handler):
    """The last lines that Dask has read from its hosts, even while its log is silenced."""

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
