"""Whether a cluster is still there: its scheduler, and any worker. A driver must not wait for ever for what is gone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from distributed import Client
from distributed.comm.core import CommClosedError

__all__ = ["CLUSTER_LOST", "Watch"]

# What Dask's client raises when the scheduler is gone.
CLUSTER_LOST = (CommClosedError, OSError, TimeoutError)

# A scheduler that was restarted is found again within seconds; one that is gone would be looked for all the while
# that Dask's client was given to connect. Workers are waited for longer: spot machines come back.
SCHEDULER_AWAY_S = 30.0
WORKERS_AWAY_S = 900.0
ANSWER_S = 10.0


@dataclass
class Watch:
    """When the scheduler, and a worker, were last seen. `heartbeat_s` is how often the scheduler is asked."""

    heartbeat_s: float = 0.0
    scheduler_seen: float = field(default_factory=time.monotonic)
    workers_seen: float = field(default_factory=time.monotonic)

    def workers(self, client: Client) -> dict[str, Any]:
        """The cluster's workers by address, and what they say of themselves; none if the scheduler does not answer."""
        if client.status != "running":
            return {}
        try:
            identity = client.scheduler.identity  # type: ignore[union-attr] # only a closed client has none
            known = client.sync(identity, n_workers=-1, callback_timeout=ANSWER_S)
        except CLUSTER_LOST:
            return {}
        self.scheduler_seen = time.monotonic()
        if known["workers"]:
            self.workers_seen = self.scheduler_seen
        return dict(known["workers"])

    def reached(self, client: Client) -> bool:
        """Whether the scheduler is there just now.

        Raises:
            CommClosedError: it, or every worker, has been away for too long.
        """
        now = time.monotonic()
        if client.status == "closed" or now - self.scheduler_seen > SCHEDULER_AWAY_S + self.heartbeat_s:
            raise CommClosedError(f"its scheduler has not answered for {now - self.scheduler_seen:.0f} s")
        if now - self.workers_seen > WORKERS_AWAY_S:
            raise CommClosedError(f"it has had no worker for {WORKERS_AWAY_S:.0f} s")
        return bool(client.status == "running")
