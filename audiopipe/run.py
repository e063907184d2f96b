"""The driver: plan, submit, retry, record, finalise.

The object store is the truth: what has a commit and its objects is done, and a run is resumed by starting it again.
The ledger is written for people to look at. With `cluster.py` this is the only module that knows Dask.
"""

from __future__ import annotations

import queue
import socket
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from distributed import Client, Future, get_worker

from audiopipe import cluster, output
from audiopipe.commit import Commit
from audiopipe.config import RunConfig
from audiopipe.heartbeat import driver_row, worker_rows
from audiopipe.ledger import LanguageTotal, Ledger, RunRow, RunStatus, WorkerStatus, open_ledger
from audiopipe.output import Totals
from audiopipe.pipeline import process_shard
from audiopipe.plan import Plan, freeze, load
from audiopipe.store import Store
from audiopipe.types import Shard, ShardResult

__all__ = ["RunSummary", "run"]

BACKOFF_S = 2.0
MAX_BACKOFF_S = 60.0
TICK_S = 0.5

OnTick = Callable[[Ledger, str], None]


@dataclass(frozen=True)
class RunSummary:
    """How a run ended. `total` is over all commits of the output, `new` over this session's."""

    run_id: str
    output: str
    status: RunStatus
    total: Totals
    new: Totals
    shards_planned: int
    shards_failed: dict[str, str]
    wall_s: float

    @property
    def exit_code(self) -> int:
        """0 done, 3 done with dead letters, 4 not finished: run again."""
        if self.status is not RunStatus.DONE:
            return 4
        return 3 if self.total.videos_failed else 0


def run(config: RunConfig, client: Client | None = None, on_tick: OnTick | None = None) -> RunSummary:
    """Run or resume, until every shard of this partition is committed or has failed too often.

    Args:
        client: of the cluster to use; without one the config's profile is started, if there is anything to do.
        on_tick: called with the ledger and the run's id about twice a second, to show progress.

    Raises:
        ConfigError, CatalogError, PlanError: at the start, before any work.
        ClusterError: the workers did not come.
    """
    started = time.monotonic()
    store = Store(config.output)
    run_id = output.claim(store, config)
    plan = freeze(config, store)
    commits = _committed(store)
    todo = [shard for shard in plan.shards(config.partition_index) if shard.name not in commits]
    with open_ledger(config.ledger, config.output) as ledger:
        session = _Session(config, run_id, plan, ledger, commits, deque(todo), on_tick)
        session.open()
        if todo:
            session.work(client)
        status = session.close(store)
    return RunSummary(
        run_id=run_id,
        output=config.output,
        status=status,
        total=Totals.of(commit.result for commit in session.commits.values()),
        new=Totals.of(session.new),
        shards_planned=sum(total.shards for total in plan.totals().values()),
        shards_failed=session.failed,
        wall_s=time.monotonic() - started,
    )


def _committed(store: Store) -> dict[str, Commit]:
    """Commits whose objects are all there, by the sizes of one listing."""
    commits = output.read_commits(store)
    present = store.list() if commits else {}
    return {
        shard: commit
        for shard, commit in commits.items()
        if all(present.get(item.name) == item.size for item in commit.objects)
    }


def _task(shard: Shard, config: RunConfig, run_id: str, driver: str) -> ShardResult:
    """What runs on a worker."""
    return process_shard(shard, config, run_id, worker=f"{driver}/{get_worker().name}")


@dataclass
class _Session:
    """One driver's work on a run, from its start to its end."""

    config: RunConfig
    run_id: str
    plan: Plan
    ledger: Ledger
    commits: dict[str, Commit]
    todo: deque[Shard]
    on_tick: OnTick | None
    new: list[ShardResult] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    later: list[tuple[float, Shard]] = field(default_factory=list)
    running: dict[Future[ShardResult], Shard] = field(default_factory=dict)
    finished: queue.SimpleQueue[Future[ShardResult]] = field(default_factory=queue.SimpleQueue)
    width: int = 2
    next_beat: float = 0.0

    @property
    def driver(self) -> str:
        return f"{socket.gethostname()}/p{self.config.partition_index}"

    # -- the ledger

    def open(self) -> None:
        """Begin or go on with the run in the ledger, and tell it of commits that it may have missed.

        A run with nothing left to do, of which the ledger knows all, is not touched.
        """
        if not self.todo and self._recorded():
            return
        languages = [
            LanguageTotal(language, total.videos, total.shards) for language, total in self.plan.totals().items()
        ]
        run = RunRow(
            self.run_id,
            self.config.language,
            sum(language.total_videos for language in languages),
            output=self.config.output,
            config_digest=self.config.digest,
            heartbeat_s=self.config.heartbeat_s,
        )
        self.ledger.start_run(run, languages)
        for commit in self.commits.values():
            self.ledger.record_shard(commit.result)

    def _recorded(self) -> bool:
        known = self.ledger.run(self.run_id)
        if known is None or known.status is not RunStatus.DONE:
            return False
        done = {row.shard for row in self.ledger.shards(self.run_id) if row.status == "done"}
        return done >= self.commits.keys()

    def _beat(self, client: Client, status: WorkerStatus = WorkerStatus.RUNNING) -> None:
        now = datetime.now(UTC)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        self.width = max(2, 2 * sum(worker["nthreads"] for worker in workers.values()))
        rows = worker_rows(workers, self.driver, self.config, self.new, now, status)
        self.ledger.heartbeat(self.run_id, [self._driver_row(status, now), *rows])

    def _driver_row(self, status: WorkerStatus, now: datetime) -> Any:
        return driver_row(self.driver, self.config, self.new, self.failed, status, now)

    # -- the work

    def work(self, client: Client | None) -> None:
        """Submit shards in the plan's order, a bounded number at a time, until each is committed or given up."""
        mine = client or cluster.connect(
            self.config.cluster, n_workers=self.config.workers, threads_per_worker=self.config.shards_in_flight
        )
        ended = WorkerStatus.FAILED
        try:
            while self.todo or self.later or self.running:
                self._submit(mine)
                self._wait()
                self._tick(mine)
            ended = WorkerStatus.DONE
        finally:
            mine.cancel(list(self.running))
            self._beat(mine, ended)
            if client is None:
                cluster.close(mine)

    def _submit(self, client: Client) -> None:
        now = time.monotonic()
        self.todo.extend(shard for when, shard in self.later if when <= now)
        self.later = [(when, shard) for when, shard in self.later if when > now]
        while self.todo and len(self.running) < self.width:
            shard = self.todo.popleft()
            self.tries[shard.name] += 1
            # The dashboard groups and colours tasks by the first part of their key.
            key = (f"shard {shard.language}", shard.index, self.tries[shard.name], self.run_id)
            future = client.submit(_task, shard, self.config, self.run_id, self.driver, key=key, pure=False)
            self.running[future] = shard
            future.add_done_callback(self.finished.put)

    def _wait(self) -> None:
        try:
            future = self.finished.get(timeout=TICK_S)
        except queue.Empty:
            return
        shard = self.running.pop(future)
        if future.status == "finished":
            result: ShardResult = future.result()
            self.new.append(result)
            self.ledger.record_shard(result)
        else:
            self._failed(shard, future)

    def _failed(self, shard: Shard, future: Future[ShardResult]) -> None:
        """Record a try that came to nothing, and try again later unless that was the last time."""
        error = future.exception() if future.status == "error" else None
        kind, message = (
            type(error).__name__ if error else "Cancelled",
            str(error or f"the scheduler says {future.status}"),
        )
        stack = "".join(traceback.format_tb(future.traceback())) if error else None
        tries = self.tries[shard.name]
        self.ledger.record_failure(self.run_id, shard.name, tries, None, kind, message, stack)
        if tries <= self.config.retries:
            self.later.append((time.monotonic() + min(MAX_BACKOFF_S, BACKOFF_S * 2 ** (tries - 1)), shard))
        else:
            self.failed[shard.name] = f"{kind}: {message}"

    def _tick(self, client: Client) -> None:
        if time.monotonic() >= self.next_beat:
            self._beat(client)
            self.next_beat = time.monotonic() + self.config.heartbeat_s
        if self.on_tick:
            self.on_tick(self.ledger, self.run_id)

    # -- the end

    def close(self, store: Store) -> RunStatus:
        """Write the dataset's description if the whole plan is committed, and end the run in the ledger."""
        self.commits = output.read_commits(store) if self.new else self.commits
        mine = [shard.name for shard in self.plan.shards(self.config.partition_index)]
        status = RunStatus.DONE if all(name in self.commits for name in mine) else RunStatus.INCOMPLETE
        if all(shard.name in self.commits for shard in load(store).shards()):
            output.finalise(store, self.config, self.run_id, self.commits)
        if self.new or self.failed or not self._recorded():
            self.ledger.finish_run(self.run_id, status)
        if self.on_tick:
            self.on_tick(self.ledger, self.run_id)
        return status
