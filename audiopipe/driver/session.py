"""A driver's session: submit shards to a Dask cluster within a bounded window, retry, record and report them."""

from __future__ import annotations

import logging
import queue
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from distributed import Client, Future
from distributed.comm.core import CommClosedError

from audiopipe.cluster.connect import close, connect_for
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit
from audiopipe.driver.cluster_health import CLUSTER_LOST, ClusterHealth, ClusterStalledError
from audiopipe.driver.recorder import Failure, RunRecorder
from audiopipe.driver.retry import Decision, RetryPolicy
from audiopipe.driver.speculation import SpeculationPolicy
from audiopipe.driver.task import Task, run_task
from audiopipe.ledger import Ledger, RunStatus, WorkerStatus
from audiopipe.pipeline.shard import process_shard
from audiopipe.plan.plan import Plan
from audiopipe.types import Shard, ShardResult

__all__ = ["OnTick", "Session"]

LOG = logging.getLogger(__name__)

TICK_S = 0.5
MAX_CLUSTERS = 3  # started one after the other, if each stalls

OnTick = Callable[[Ledger, str], None]


@dataclass
class Session:
    """The state of a driver from its start to its end.

    Attributes:
        plan: the plan of the whole output.
        commits: commits that existed at the start.
        shards: shards that this driver must bring to their commits.
        on_tick: called with the ledger and the run's id about twice a second, and at the end.
        task: runs on a worker for each shard.
        new: results of this session.
        failed: reason by shard name, for shards that are left open.
        pending: shards to submit, in this order.
        running: submitted shards by Dask future.
        window: maximum number of submitted shards; twice the worker threads.
        speculated: names of the shards that run on two workers.
    """

    config: RunConfig
    run_id: str
    plan: Plan
    ledger: Ledger
    commits: Mapping[str, Commit]
    shards: Sequence[Shard]
    on_tick: OnTick | None = None
    task: Task = process_shard
    new: list[ShardResult] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    pending: deque[Shard] = field(default_factory=deque)
    running: dict[Future[ShardResult], Shard] = field(default_factory=dict)
    finished: queue.SimpleQueue[Future[ShardResult]] = field(default_factory=queue.SimpleQueue)
    window: int = 2
    next_heartbeat: float = 0.0
    health: ClusterHealth = field(default_factory=ClusterHealth)
    speculation: SpeculationPolicy = field(default_factory=SpeculationPolicy)
    speculated: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        # Unique for each session, because several drivers may work on one partition and on one host.
        self.driver = f"{socket.gethostname()}/p{self.config.partition_index}/{secrets.token_hex(3)}"
        self.recorder = RunRecorder(self.ledger, self.run_id, self.plan, self.config, self.driver)
        self.retry = RetryPolicy(self.config.retries)
        self.pending.extend(shard for shard in self.shards if shard.name not in self.commits)
        for commit in self.commits.values():
            self.speculation.record(commit.result.wall_s)

    def open(self) -> None:
        """Start or resume the run in the ledger."""
        self.recorder.start(self.commits, nothing_to_do=not self.pending)

    def close(self, commits: Mapping[str, Commit]) -> RunStatus:
        """End the run in the ledger.

        Args:
            commits: commits that exist now.
        """
        done = all(shard.name in commits for shard in self.shards)
        status = RunStatus.DONE if done else RunStatus.INCOMPLETE
        self.recorder.finish(commits, status, changed=bool(self.new or self.failed))
        if self.on_tick:
            self.on_tick(self.ledger, self.run_id)
        return status

    def work(self, client: Client | None) -> None:
        """Submit shards in plan order until each is committed or has failed too often.

        If the cluster is lost, its unfinished shards stay open. A stalled cluster is replaced, unless `client` was
        given.
        """
        for _ in range(1 if client else MAX_CLUSTERS):
            try:
                active = client or connect_for(self.config)
            except (CommClosedError, TimeoutError) as error:
                self._leave_open(_lost(error))
                return
            status = WorkerStatus.FAILED
            try:
                self._work_on(active)
                status = WorkerStatus.DONE
                return
            except CLUSTER_LOST as error:
                if client or not isinstance(error, ClusterStalledError):
                    self._leave_open(_lost(error))
                    return
                LOG.info("%s; a new cluster takes over its shards", _lost(error))
            finally:
                with suppress(*CLUSTER_LOST):
                    active.cancel(list(self.running))
                    self._heartbeat(active, status)
                if client is None:
                    close(active)
            self._requeue()
        self._leave_open(f"stopped: {MAX_CLUSTERS} clusters in a row stalled")

    def _work_on(self, client: Client) -> None:
        LOG.info("Dask dashboard: %s", client.dashboard_link)
        self.health = ClusterHealth()
        while (self.pending or self.retry.delayed or self.running) and not self.retry.exhausted:
            if self.health.is_connected(client):
                self._submit(client)
                self._speculate(client)
                self._tick(client)
                if self.running:
                    self.health.check_stalled(client)
            self._wait()
        self._leave_open(f"stopped: the store refused {self.retry.refusals} shards in a row")

    def _requeue(self) -> None:
        """Put the shards of a stalled cluster back at the front of the queue, without counting their attempts."""
        unfinished = {shard.name: shard for shard in self.running.values()}
        self.retry.undo_attempts(unfinished.keys())
        self.pending.extendleft(reversed(unfinished.values()))
        self.running.clear()
        self.speculated.clear()

    def _leave_open(self, reason: str) -> None:
        """Note why the unfinished shards were not committed; the next run processes them."""
        for shard in [*self.running.values(), *self.pending, *self.retry.delayed]:
            self.failed[shard.name] = reason

    def _submit(self, client: Client) -> None:
        # Retries go first, so that an error that a person must fix shows early.
        self.pending.extendleft(reversed(self.retry.take_due()))
        while self.pending and len(self.running) < self.window:
            shard = self.pending.popleft()
            self.retry.attempts[shard.name] += 1
            self._start(client, shard)

    def _start(self, client: Client, shard: Shard, workers: list[str] | None = None) -> None:
        """Submit a shard.

        Args:
            workers: addresses of the preferred workers, for a shard that already runs on another one.
        """
        speculative = workers is not None
        # The dashboard groups and colors tasks by the first part of their key.
        key = (f"shard {shard.language}", shard.index, self.retry.attempts[shard.name], int(speculative), self.run_id)
        arguments = (self.task, shard, self.config, self.run_id, self.driver, shard.name in self.retry.suspects)
        future = client.submit(
            run_task, *arguments, key=key, pure=False, workers=workers, allow_other_workers=speculative
        )
        self.running[future] = shard
        self.health.mark_progress()
        future.add_done_callback(self.finished.put)

    def _speculate(self, client: Client) -> None:
        """Start overdue shards on a second worker."""
        idle = not self.pending and not self.retry.delayed and 2 * len(self.running) < self.window
        overdue = set(self.speculation.overdue([shard.name for shard in self.running.values()], idle)) - self.speculated
        if not overdue:
            return
        processing = client.processing()
        for future, shard in list(self.running.items()):
            others = [worker for worker, keys in processing.items() if future.key not in keys]
            if shard.name in overdue and others:
                LOG.info("shard %s runs far longer than any other: starting it on a second worker too", shard.name)
                self.speculated.add(shard.name)
                self._start(client, shard, workers=others)

    def _wait(self) -> None:
        """Wait for the next finished future, at most one tick."""
        try:
            future = self.finished.get(timeout=TICK_S)
        except queue.Empty:
            return
        self.health.mark_progress()
        shard = self.running.pop(future, None)
        if shard is None:  # the other attempt of a speculated shard was faster
            return
        others = [other for other, running in self.running.items() if running.name == shard.name]
        if future.status == "finished":
            self._succeeded(shard, future, others)
        elif others:
            LOG.info("shard %s: one of its two attempts ended as %s; the other continues", shard.name, future.status)
        else:
            self._failed(shard, Failure.of(future))

    def _succeeded(self, shard: Shard, future: Future[ShardResult], others: Sequence[Future[ShardResult]]) -> None:
        """Record a committed shard and cancel its other attempt."""
        try:
            result: ShardResult = future.result()
        except CLUSTER_LOST:  # the commit exists, and `health` decides whether the scheduler comes back
            self.retry.delay(shard)
            return
        self.speculation.record(result.wall_s)
        self.new.append(result)
        self.retry.record_success()
        self.recorder.success(result)
        for other in others:
            del self.running[other]
            other.cancel()

    def _failed(self, shard: Shard, failure: Failure) -> None:
        """Record a failed attempt, and run the shard again unless it has no attempt left."""
        attempt = self.retry.attempts[shard.name]
        self.speculated.discard(shard.name)
        LOG.info("shard %s, attempt %d of %d failed: %s", shard.name, attempt, self.config.retries + 1, failure)
        self.recorder.failure(shard.name, attempt, failure)
        match self.retry.decide(shard, failure.error):
            case Decision.ISOLATE:
                self.pending.append(shard)
            case Decision.RETRY:
                self.retry.delay(shard)
            case Decision.STOP:
                self.failed[shard.name] = str(failure)

    def _tick(self, client: Client) -> None:
        if time.monotonic() >= self.next_heartbeat:
            self._heartbeat(client, WorkerStatus.RUNNING)
            self.next_heartbeat = time.monotonic() + self.config.heartbeat_s
        if self.on_tick:
            self.on_tick(self.ledger, self.run_id)

    def _heartbeat(self, client: Client, status: WorkerStatus) -> None:
        workers = self.health.workers(client)
        self.window = max(2, 2 * sum(worker.threads for worker in workers))
        self.recorder.heartbeat(workers, self.new, self.failed, status)


def _lost(error: BaseException) -> str:
    return f"the cluster was lost: {error or type(error).__name__}"
