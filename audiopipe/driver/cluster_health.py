"""The health of a cluster: whether its scheduler answers, it has workers, and shards make progress.

The driver checks it at every tick, so that a lost cluster ends the run instead of blocking it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

from distributed import Client, Worker
from distributed.comm.core import CommClosedError

from audiopipe.driver.heartbeat import WorkerInfo

__all__ = ["CLUSTER_LOST", "ClusterHealth", "ClusterStalledError", "retire_worker"]

# Errors that Dask's client raises when the scheduler is gone.
CLUSTER_LOST = (CommClosedError, OSError, TimeoutError)

# A restarted scheduler, or one on a busy host, answers within seconds. Workers get longer: spot machines come back.
SCHEDULER_TIMEOUT_S = 60.0
WORKERS_TIMEOUT_S = 900.0
REPLY_TIMEOUT_S = 10.0
# Without progress for this long, the workers are asked how many tasks they execute; one such check may fall between
# two tasks, so several must find none.
STALL_CHECK_S = 60.0
MAX_IDLE_CHECKS = 2


class ClusterStalledError(CommClosedError):
    """Shards are submitted, but no worker executes one: messages between the processes are stuck.

    Dask times its message batches by the wall clock (dask/distributed#4528): if the clock is set back just after a
    batch, the next one waits until the clock has caught up.
    """


@dataclass
class ClusterHealth:
    """The times at which a cluster last failed to answer and last made progress.

    Times are taken before each request, so a driver that was suspended, or waited for its disk, counts no silence.

    Attributes:
        scheduler_lost_since: time of the first unanswered request; None while the scheduler answers.
        workers_lost_since: time of the first request that found no worker; None while there is one.
        last_progress: time at which a shard was last submitted or finished.
        idle_checks: checks in a row that found no executing task.
    """

    scheduler_lost_since: float | None = None
    workers_lost_since: float | None = None
    last_progress: float = field(default_factory=time.monotonic)
    idle_checks: int = 0

    def workers(self, client: Client) -> list[WorkerInfo]:
        """Ask the scheduler for its workers; empty if it does not answer."""
        requested = time.monotonic()
        workers = self._request_workers(client)
        self.scheduler_lost_since = None if workers is not None else self.scheduler_lost_since or requested
        self.workers_lost_since = None if workers else self.workers_lost_since or requested
        return workers or []

    @staticmethod
    def _request_workers(client: Client) -> list[WorkerInfo] | None:
        """Return None if the scheduler does not answer."""
        if client.status != "running":
            return None
        try:
            identity = client.scheduler.identity  # type: ignore[union-attr] # only a closed client has none
            answer = client.sync(identity, n_workers=-1, callback_timeout=REPLY_TIMEOUT_S)
        except CLUSTER_LOST:
            return None
        return [WorkerInfo.parse(address, worker) for address, worker in answer["workers"].items()]

    def is_connected(self, client: Client) -> bool:
        """Return whether the client has a connection to the scheduler now.

        Raises:
            CommClosedError: the scheduler has not answered, or had no worker, for too long.
        """
        now = time.monotonic()
        if client.status != "running":
            self.scheduler_lost_since = self.scheduler_lost_since or now
        if client.status == "closed" or _elapsed(self.scheduler_lost_since, now) > SCHEDULER_TIMEOUT_S:
            silence = _elapsed(self.scheduler_lost_since, now)
            raise CommClosedError(f"its scheduler has not answered for {silence:.0f} s")
        if _elapsed(self.workers_lost_since, now) > WORKERS_TIMEOUT_S:
            raise CommClosedError(f"it has had no worker for {WORKERS_TIMEOUT_S:.0f} s")
        return bool(client.status == "running")

    def mark_progress(self) -> None:
        """Note that a shard was submitted or finished."""
        self.last_progress, self.idle_checks = time.monotonic(), 0

    def check_stalled(self, client: Client) -> None:
        """Check that workers execute tasks, if shards are submitted and made no progress for long.

        Raises:
            ClusterStalledError: several checks in a row found no executing task.
        """
        if time.monotonic() - self.last_progress < STALL_CHECK_S * (1 + self.idle_checks):
            return
        if self._count_executing(client) != 0:
            self.mark_progress()
            return
        self.idle_checks += 1
        if self.idle_checks == MAX_IDLE_CHECKS:
            idle = time.monotonic() - self.last_progress
            raise ClusterStalledError(f"no worker has executed a shard for {idle:.0f} s")

    @staticmethod
    def _count_executing(client: Client) -> int | None:
        """Ask all workers for their executing tasks; None if the workers do not answer."""
        try:
            counts = client.sync(client._run, _executing, callback_timeout=REPLY_TIMEOUT_S)
        except CLUSTER_LOST:
            return None
        return sum(counts.values()) if counts else None


def retire_worker(client: Client, address: str) -> None:
    """Close a worker; the scheduler moves the tasks that it has to others. Nothing happens if it has left already."""
    retire = client.scheduler.retire_workers  # type: ignore[union-attr] # only a closed client has none
    with suppress(*CLUSTER_LOST):
        client.sync(retire, workers=[address], close_workers=True, callback_timeout=REPLY_TIMEOUT_S)


def _executing(dask_worker: Worker) -> int:
    return dask_worker.state.executing_count


def _elapsed(start: float | None, now: float) -> float:
    return 0.0 if start is None else now - start
