"""The steering policy of a session: which workers may take a shard, and which of them are retired.

A retry avoids the workers on which its shard has failed. A worker is held back after a failure, so that one that fails
fast does not attract more work. A worker that fails its own check is retired, and so is one to which a store or the
place of the sources was closed while another worker could process the same shard.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from audiopipe.driver.heartbeat import WorkerInfo

__all__ = ["SteeringPolicy"]

HOLD_S = 2.0
MAX_HOLD_S = 60.0
# A worker of this name that came back so often, as a new process, gets no further shards.
MAX_RETIREMENTS = 2


@dataclass
class SteeringPolicy:
    """The workers' failures. A worker is known by its name, which a new process of it keeps, and by its address.

    Attributes:
        retired: reason by name of the workers that were retired.
    """

    retired: dict[str, str] = field(default_factory=dict)
    _retirements: Counter[str] = field(default_factory=Counter)
    _retired_addresses: set[str] = field(default_factory=set)
    _failures: Counter[str] = field(default_factory=Counter)  # in a row
    _held_until: dict[str, float] = field(default_factory=dict)
    _failed_on: dict[str, set[str]] = field(default_factory=dict)
    _refused: dict[str, dict[str, str]] = field(default_factory=dict)  # reason by shard and worker

    def record_failure(self, shard: str, worker: str, refusal: str | None = None) -> None:
        """Note a failed attempt, and hold the worker back, for longer with each failure in a row.

        Args:
            refusal: the message, if a store or the place of the sources has refused the worker.
        """
        self._failed_on.setdefault(shard, set()).add(worker)
        if refusal is not None:
            self._refused.setdefault(shard, {})[worker] = refusal
        self._failures[worker] += 1
        hold_s = min(MAX_HOLD_S, HOLD_S * 2 ** (self._failures[worker] - 1))
        self._held_until[worker] = time.monotonic() + hold_s

    def record_success(self, shard: str, worker: str) -> dict[str, str]:
        """Note a committed shard; return the workers that were refused at this same shard, by name, with the reason."""
        self._failures.pop(worker, None)
        self._held_until.pop(worker, None)
        self._failed_on.pop(shard, None)
        refused = self._refused.pop(shard, {})
        return {name: reason for name, reason in refused.items() if name != worker and name not in self.retired}

    def count_refusals(self, shard: str) -> int:
        """Return how many workers were refused at a shard; one that is retired does not confirm another's refusal."""
        return len(self._refused.get(shard, {}).keys() - self.retired.keys())

    def retire(self, worker: str, address: str, reason: str) -> None:
        """Exclude a worker from further shards."""
        self.retired[worker] = reason
        self._retirements[worker] += address not in self._retired_addresses
        self._retired_addresses.add(address)

    def sound(self, workers: Iterable[WorkerInfo]) -> list[WorkerInfo]:
        """Return the workers that are not retired; a new process of a retired one counts until it fails again."""
        return [
            worker
            for worker in workers
            if worker.address not in self._retired_addresses and self._retirements[worker.name] < MAX_RETIREMENTS
        ]

    def untried(self, shard: str, workers: Iterable[WorkerInfo]) -> list[WorkerInfo]:
        """Return the sound workers on which a shard has not failed."""
        failed_on = self._failed_on.get(shard, set())
        return [worker for worker in self.sound(workers) if worker.name not in failed_on]

    def choose(self, shard: str, workers: Sequence[WorkerInfo]) -> list[str] | None:
        """Return the addresses of the workers that may take a shard; None for all.

        These are the sound ones on which it has not failed and that are not held back. If most are held, all have met
        the same outage: then holds do not count, because what the few others are given stays with them. A shard that
        has failed on all workers may try them all again.
        """
        now = time.monotonic()
        sound, untried = self.sound(workers), self.untried(shard, workers)
        ready = [worker for worker in untried if self._held_until.get(worker.name, now) <= now]
        chosen = (ready if 2 * len(ready) >= len(untried) else untried) or sound
        return None if not chosen or len(chosen) == len(workers) else [worker.address for worker in chosen]
