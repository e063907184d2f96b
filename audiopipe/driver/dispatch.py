"""Submit shards to a Dask cluster as tasks, and collect the tasks that have ended."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from distributed import Client, Future

from audiopipe.config import RunConfig
from audiopipe.driver.task import Task, run_task
from audiopipe.types import Shard, ShardResult

__all__ = ["Dispatcher", "ShardFuture"]

ShardFuture = Future[ShardResult]


@dataclass
class Dispatcher:
    """The submitted shards of a session.

    Attributes:
        driver: id of the driver, the first part of the workers' ids.
        running: submitted shards by Dask future; a shard that was started twice has two.
        finished: futures that have ended.
    """

    config: RunConfig
    run_id: str
    driver: str
    task: Task
    running: dict[ShardFuture, Shard] = field(default_factory=dict)
    finished: queue.SimpleQueue[ShardFuture] = field(default_factory=queue.SimpleQueue)
    _submissions: Counter[str] = field(default_factory=Counter)
    _workers: dict[ShardFuture, list[str]] = field(default_factory=dict)

    def start(
        self, client: Client, shard: Shard, workers: list[str] | None, isolated: bool, last_attempt: bool
    ) -> None:
        """Submit a shard.

        Args:
            workers: addresses of the only workers that may take it; None for all.
            isolated, last_attempt: as for `run_task`.
        """
        self._submissions[shard.name] += 1
        # The dashboard groups and colors tasks by the first part of their key. No two submissions share a key.
        key = (f"shard {shard.language}", shard.index, self._submissions[shard.name], self.run_id)
        arguments = (self.task, shard, self.config, self.run_id, self.driver, isolated, last_attempt)
        future = client.submit(run_task, *arguments, key=key, pure=False, workers=workers, allow_other_workers=False)
        self.running[future] = shard
        if workers is not None:
            self._workers[future] = workers
        future.add_done_callback(self.finished.put)

    def take_next(self, timeout_s: float) -> tuple[ShardFuture, Shard] | None:
        """Wait for the next future that has ended; None if there is none in time, or it was discarded."""
        try:
            future = self.finished.get(timeout=timeout_s)
        except queue.Empty:
            return None
        shard = self.running.get(future)
        self._remove(future)
        return None if shard is None else (future, shard)

    def others(self, name: str) -> list[ShardFuture]:
        """Return the futures of a shard."""
        return [future for future, shard in self.running.items() if shard.name == name]

    def discard(self, name: str) -> None:
        """Cancel the futures of a shard."""
        for future in self.others(name):
            self._remove(future)
            future.cancel()

    def take_stranded(self, addresses: Collection[str]) -> list[Shard]:
        """Cancel and return the shards whose workers have all left; Dask would wait for these workers.

        Args:
            addresses: of the workers that are there.
        """
        stranded = []
        for future, workers in list(self._workers.items()):
            if not set(workers) & set(addresses):
                stranded.append(self.running[future])
                self._remove(future)
                future.cancel()
        return [shard for shard in stranded if not self.others(shard.name)]

    def take_all(self) -> list[Shard]:
        """Remove and return all running shards, each once, in the order of their submission."""
        shards = {shard.name: shard for shard in self.running.values()}
        self.running.clear()
        self._workers.clear()
        return list(shards.values())

    def _remove(self, future: ShardFuture) -> None:
        self.running.pop(future, None)
        self._workers.pop(future, None)
