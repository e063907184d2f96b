"""One driver's work on a run: a bounded window of shards on a Dask cluster, retried, recorded, and told of."""

from __future__ import annotations

import logging
import queue
import secrets
import socket
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from distributed import Client, Future, KilledWorker, get_worker
from distributed.comm.core import CommClosedError
from distributed.metrics import context_meter

from audiopipe import __version__
from audiopipe.cluster import connect as cluster
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit
from audiopipe.driver.cluster_health import CLUSTER_LOST, ClusterHealth, ClusterStalledError
from audiopipe.driver.heartbeat import driver_row, worker_rows
from audiopipe.driver.speculation import SpeculationPolicy
from audiopipe.errors import AudiopipeError, StoreRefused
from audiopipe.ledger import LanguageTotal, Ledger, RunRow, RunStatus, WorkerStatus
from audiopipe.pipeline.quarantine import process_isolated
from audiopipe.pipeline.shard import process_shard
from audiopipe.plan.plan import Plan
from audiopipe.types import Shard, ShardResult

__all__ = ["OnTick", "Session"]

LOG = logging.getLogger(__name__)

BACKOFF_S = 2.0
MAX_BACKOFF_S = 60.0
TICK_S = 0.5
# Keys, permissions, a missing bucket, a full disk: after so many shards in a row the rest would fare no better.
REFUSALS = 3
CLUSTERS = 3  # that stand still, one after the other

OnTick = Callable[[Ledger, str], None]


def _task(shard: Shard, config: RunConfig, run_id: str, driver: str, isolate: bool) -> ShardResult:
    """What runs on a worker."""
    process = process_isolated if isolate else process_shard
    result = process(shard, config, run_id, f"{driver}/{get_worker().name}")
    # The dashboard's fine performance metrics: stages beside one another, for each language.
    for stage, seconds in result.stage_s.items():
        context_meter.digest_metric(stage, seconds, "seconds")
    return result


@dataclass
class Session:
    """From the start of a driver to its end.

    Attributes:
        commits: what was there at the start.
        shards: that this driver is to bring to their commits.
        new: results of this session.
        failed: shards that were given up, and why.
        suspects: shards that were there when workers died.
        doubled: shards that were late and are tried by two workers.
    """

    config: RunConfig
    run_id: str
    plan: Plan
    ledger: Ledger
    commits: Mapping[str, Commit]
    shards: Sequence[Shard]
    on_tick: OnTick | None
    new: list[ShardResult] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    suspects: set[str] = field(default_factory=set)
    tries: Counter[str] = field(default_factory=Counter)
    later: list[tuple[float, Shard]] = field(default_factory=list)
    running: dict[Future[ShardResult], Shard] = field(default_factory=dict)
    finished: queue.SimpleQueue[Future[ShardResult]] = field(default_factory=queue.SimpleQueue)
    width: int = 2
    next_beat: float = 0.0
    refusals: int = 0
    watch: ClusterHealth = field(default_factory=ClusterHealth)
    stragglers: SpeculationPolicy = field(default_factory=SpeculationPolicy)
    doubled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        # Of this session alone: several drivers may work on one partition, and on one host.
        self.driver = f"{socket.gethostname()}/p{self.config.partition_index}/{secrets.token_hex(3)}"
        self.todo = deque(shard for shard in self.shards if shard.name not in self.commits)
        for commit in self.commits.values():
            self.stragglers.record(commit.result.wall_s)

    # -- the ledger

    def open(self) -> None:
        """Begin or go on with the run in the ledger, and tell it of commits that it may have missed.

        A run with nothing left to do, of which the ledger knows all, is not touched.
        """
        if not self.todo and self._recorded(self.commits):
            return
        languages = [
            LanguageTotal(language, total.videos, total.shards) for language, total in self.plan.totals().items()
        ]
        run = RunRow(
            self.run_id,
            self._language(),
            sum(language.total_videos for language in languages),
            output=self.config.output,
            config_digest=self.config.digest,
            version=__version__,
            heartbeat_s=self.config.heartbeat_s,
        )
        self.ledger.start_run(run, languages)
        for commit in self.commits.values():
            self.ledger.record_shard(commit.result)

    def _language(self) -> str:
        """What the run as a whole is about: all, or every language that a driver of it was ever asked for."""
        known = self.ledger.run(self.run_id)
        everything = self.config.language == "all" or (known is not None and known.language == "all")
        return "all" if everything else ",".join(self.plan.languages())

    def close(self, commits: Mapping[str, Commit]) -> RunStatus:
        """End the run in the ledger; `commits` are those that are there now."""
        done = all(shard.name in commits for shard in self.shards)
        status = RunStatus.DONE if done else RunStatus.INCOMPLETE
        if self.new or self.failed or not self._recorded(commits):
            self.ledger.finish_run(self.run_id, status)
        if self.on_tick:
            self.on_tick(self.ledger, self.run_id)
        return status

    def _recorded(self, commits: Mapping[str, Commit]) -> bool:
        known = self.ledger.run(self.run_id)
        if known is None or known.status is not RunStatus.DONE:
            return False
        done = {row.shard for row in self.ledger.shards(self.run_id) if row.status == "done"}
        return done >= commits.keys()

    def _heartbeat(self, client: Client, status: WorkerStatus = WorkerStatus.RUNNING) -> None:
        now = datetime.now(UTC)
        workers = self.watch.workers(client)
        self.width = max(2, 2 * sum(worker["nthreads"] for worker in workers.values()))
        rows = worker_rows(workers, self.driver, self.config, self.new, now, status)
        mine = driver_row(self.driver, self.config, self.new, self.failed, status, now)
        self.ledger.heartbeat(self.run_id, [mine, *rows])

    # -- the work

    def work(self, client: Client | None) -> None:
        """Submit shards in the plan's order, a bounded number at a time, until each is committed or given up.

        A cluster that goes away takes what was under way with it, and nothing else: the shards stay open. One of this
        driver's own that stands still is replaced.
        """
        for _ in range(1 if client else CLUSTERS):
            try:
                mine = client or cluster.connect_for(self.config)
            except (CommClosedError, TimeoutError) as error:
                self._give_up(f"the cluster was lost: {error or type(error).__name__}")
                return
            ended = WorkerStatus.FAILED
            try:
                self._work_on(mine)
                ended = WorkerStatus.DONE
                return
            except CLUSTER_LOST as error:
                lost = f"the cluster was lost: {error or type(error).__name__}"
                if client or not isinstance(error, ClusterStalledError):
                    self._give_up(lost)
                    return
                LOG.info("%s; its shards are given to a new one", lost)
            finally:
                with suppress(*CLUSTER_LOST):
                    mine.cancel(list(self.running))
                    self._heartbeat(mine, ended)
                if client is None:
                    cluster.close(mine)
            self._requeue()
        self._give_up(f"not gone on with after {CLUSTERS} clusters that stood still")

    def _work_on(self, client: Client) -> None:
        LOG.info("Dask dashboard: %s", client.dashboard_link)
        self.watch = ClusterHealth()
        while (self.todo or self.later or self.running) and self.refusals < REFUSALS:
            if self.watch.is_connected(client):
                self._submit(client)
                self._speculate(client)
                self._tick(client)
                if self.running:
                    self.watch.check_stalled(client)
            self._wait()
        self._give_up(f"not gone on with after {REFUSALS} shards that were refused")

    def _requeue(self) -> None:
        """What a cluster was given and did not do is to do again, and counts for no try."""
        under_way = {shard.name: shard for shard in self.running.values()}
        self.tries.subtract(under_way.keys())
        self.todo.extendleft(reversed(under_way.values()))
        self.running.clear()
        self.doubled.clear()

    def _give_up(self, reason: str) -> None:
        """Leave open what is still to do."""
        for shard in [*self.running.values(), *self.todo, *(shard for _, shard in self.later)]:
            self.failed[shard.name] = reason

    def _submit(self, client: Client) -> None:
        now = time.monotonic()
        # Before those that nobody has tried: what a person must mend is to show early.
        self.todo.extendleft([shard for when, shard in self.later if when <= now][::-1])
        self.later = [(when, shard) for when, shard in self.later if when > now]
        while self.todo and len(self.running) < self.width:
            shard = self.todo.popleft()
            self.tries[shard.name] += 1
            self._start(client, shard)

    def _start(self, client: Client, shard: Shard, running_on: list[str] | None = None) -> None:
        """Submit a shard; where it is under way already, for these workers, or any if these go away meanwhile."""
        suspected, elsewhere = shard.name in self.suspects, running_on is not None
        # The dashboard groups and colours tasks by the first part of their key.
        key = (f"shard {shard.language}", shard.index, self.tries[shard.name], int(elsewhere), self.run_id)
        task = (_task, shard, self.config, self.run_id, self.driver, suspected)
        future = client.submit(*task, key=key, pure=False, workers=running_on, allow_other_workers=elsewhere)
        self.running[future] = shard
        self.watch.mark_progress()
        future.add_done_callback(self.finished.put)

    def _speculate(self, client: Client) -> None:
        """Try shards that are late on another worker as well."""
        idle = not self.todo and not self.later and 2 * len(self.running) < self.width
        late = set(self.stragglers.overdue([shard.name for shard in self.running.values()], idle)) - self.doubled
        if not late:
            return
        at_work = client.processing()
        for future, shard in list(self.running.items()):
            elsewhere = [worker for worker, keys in at_work.items() if future.key not in keys]
            if shard.name in late and elsewhere:
                LOG.info("shard %s takes far longer than any other did: it is tried elsewhere as well", shard.name)
                self.doubled.add(shard.name)
                self._start(client, shard, running_on=elsewhere)

    def _wait(self) -> None:
        try:
            future = self.finished.get(timeout=TICK_S)
        except queue.Empty:
            return
        self.watch.mark_progress()
        shard = self.running.pop(future, None)
        if shard is None:  # another was faster
            return
        others = [other for other, same in self.running.items() if same.name == shard.name]
        if future.status == "finished":
            try:
                result: ShardResult = future.result()
            except CLUSTER_LOST:  # its commit is there; whether the scheduler comes back is for the watch to say
                self.later.append((time.monotonic() + BACKOFF_S, shard))
                return
            self.stragglers.record(result.wall_s)
            self.new.append(result)
            self.refusals = 0
            self.ledger.record_shard(result)
            for other in others:
                del self.running[other]
                other.cancel()
        elif others:
            LOG.info("shard %s: one of its two tries %s; the other goes on", shard.name, future.status)
        else:
            self._failed(shard, future)

    def _failed(self, shard: Shard, future: Future[ShardResult]) -> None:
        """Record a try that came to nothing, and try again later unless that was the last time."""
        error = future.exception() if future.status == "error" else None
        kind = type(error).__name__ if error else "Cancelled"
        message = str(error or f"the scheduler says {future.status}")
        stack = "".join(traceback.format_tb(future.traceback())) if error else None
        tries = self.tries[shard.name]
        self.doubled.discard(shard.name)
        LOG.info("shard %s, try %d of %d: %s: %s", shard.name, tries, self.config.retries + 1, kind, message)
        self.ledger.record_failure(self.run_id, shard.name, tries, None, kind, message, stack)
        if self._suspect(shard, error, tries):
            self.suspects.add(shard.name)
            self.todo.append(shard)
        elif tries <= self.config.retries:
            self.later.append((time.monotonic() + min(MAX_BACKOFF_S, BACKOFF_S * 2 ** (tries - 1)), shard))
        else:
            self.failed[shard.name] = f"{kind}: {message}"
            self.refusals += isinstance(error, StoreRefused)

    def _suspect(self, shard: Shard, error: BaseException | None, tries: int) -> bool:
        """Whether one of a shard's videos may be to blame, which is found out once, by trying each alone.

        It is if workers died of the shard, or if to the last it raised what neither a store nor a disk raises.
        """
        if shard.name in self.suspects or error is None:
            return False
        unforeseen = not isinstance(error, AudiopipeError | OSError) and tries > self.config.retries
        return isinstance(error, KilledWorker) or unforeseen

    def _tick(self, client: Client) -> None:
        if time.monotonic() >= self.next_beat:
            self._heartbeat(client)
            self.next_beat = time.monotonic() + self.config.heartbeat_s
        if self.on_tick:
            self.on_tick(self.ledger, self.run_id)
