"""Whether a cluster is still there: its scheduler, any worker, and what is said between them.

A driver must not wait for ever for what is gone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, Worker
from distributed.comm.core import CommClosedError

__all__ = ["CLUSTER_LOST", "ClusterHealth", "ClusterStalledError"]

# What Dask's client raises when the scheduler is gone.
CLUSTER_LOST = (CommClosedError, OSError, TimeoutError)

# A scheduler that was restarted is found again within seconds, and one on a busy host answers within as many; one that
# is gone would be looked for all the while that Dask's client was given to connect. Workers are waited for longer: spot
# machines come back.
SCHEDULER_AWAY_S = 60.0
WORKERS_AWAY_S = 900.0
ANSWER_S = 10.0
# Workers are asked what they are at when nothing has happened for so long, and once more as long after that.
STILL_S = 60.0
IDLE_LOOKS = 2


class ClusterStalledError(CommClosedError):
    """Shards are under way, and no worker knows of one: what they should be told is stuck.

    Dask times its messages by the wall clock: where that is set back within milliseconds of one, the next ones wait
    until it has caught up.
    """


@dataclass
class ClusterHealth:
    """Since when the scheduler has not answered, or had no worker to name; None while it does and has.

    Counted from a question: a driver that was suspended itself, or waited long for its disk, has asked nobody.
    """

    scheduler_away: float | None = None
    workers_away: float | None = None
    moved: float = field(default_factory=time.monotonic)
    idle_looks: int = 0

    def workers(self, client: Client) -> dict[str, Any]:
        """The cluster's workers by address, and what they say of themselves; none if the scheduler does not answer."""
        asked = time.monotonic()
        known = self._ask(client)
        self.scheduler_away = None if known is not None else self.scheduler_away or asked
        self.workers_away = None if known else self.workers_away or asked
        return known or {}

    @staticmethod
    def _ask(client: Client) -> dict[str, Any] | None:
        """None without an answer."""
        if client.status != "running":
            return None
        try:
            identity = client.scheduler.identity  # type: ignore[union-attr] # only a closed client has none
            known = client.sync(identity, n_workers=-1, callback_timeout=ANSWER_S)
        except CLUSTER_LOST:
            return None
        return dict(known["workers"])

    def is_connected(self, client: Client) -> bool:
        """Whether the scheduler is there just now.

        Raises:
            CommClosedError: it, or every worker, has been away for too long.
        """
        now = time.monotonic()
        if client.status != "running":
            self.scheduler_away = self.scheduler_away or now
        if client.status == "closed" or _since(self.scheduler_away, now) > SCHEDULER_AWAY_S:
            raise CommClosedError(f"its scheduler has not answered for {_since(self.scheduler_away, now):.0f} s")
        if _since(self.workers_away, now) > WORKERS_AWAY_S:
            raise CommClosedError(f"it has had no worker for {WORKERS_AWAY_S:.0f} s")
        return bool(client.status == "running")

    def mark_progress(self) -> None:
        """Note that a shard was given to the cluster, or came back."""
        self.moved, self.idle_looks = time.monotonic(), 0

    def check_stalled(self, client: Client) -> None:
        """Look whether anything is done, if shards are under way and nothing was heard of them for long.

        Raises:
            StandsStillError: nothing is.
        """
        if time.monotonic() - self.moved < STILL_S * (1 + self.idle_looks):
            return
        if self._at_work(client) != 0:
            self.mark_progress()
            return
        self.idle_looks += 1
        if self.idle_looks == IDLE_LOOKS:
            raise ClusterStalledError(f"no worker has had a shard to work on for {time.monotonic() - self.moved:.0f} s")

    @staticmethod
    def _at_work(client: Client) -> int | None:
        """How many tasks all workers execute just now; None if it cannot be told."""
        try:
            counts = client.sync(client._run, _executing, callback_timeout=ANSWER_S)
        except CLUSTER_LOST:
            return None
        return sum(counts.values()) if counts else None


def _executing(dask_worker: Worker) -> int:
    return dask_worker.state.executing_count


def _since(moment: float | None, now: float) -> float:
    return 0.0 if moment is None else now - moment
