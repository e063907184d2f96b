"""A driver's session: submit shards to a Dask cluster within a bounded window, retry, record and report them."""

from __future__ import annotations

import itertools
import logging
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from distributed import Client
from distributed.comm.core import CommClosedError

from audiopipe.cluster.connect import close, connect_for
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit
from audiopipe.driver.cluster_health import CLUSTER_LOST, ClusterHealth, ClusterStalledError, retire_worker
from audiopipe.driver.dispatch import Dispatcher, ShardFuture
from audiopipe.driver.heartbeat import WorkerInfo
from audiopipe.driver.outcome import SessionOutcome
from audiopipe.driver.queue import ShardQueue
from audiopipe.driver.recorder import Failure, RunRecorder
from audiopipe.driver.retry import Decision, RetryPolicy, is_refusal
from audiopipe.driver.speculation import SpeculationPolicy
from audiopipe.driver.steering import SteeringPolicy
from audiopipe.driver.task import Task, process_videos
from audiopipe.ledger import Ledger, RunStatus, WorkerStatus
from audiopipe.plan.plan import Plan
from audiopipe.plan.planned import PlannedShards
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
        outcome: results of this session, and reasons of the shards that it leaves open.
        pending: shards to submit.
        workers: the cluster's workers at the last heartbeat.
        window: maximum number of submitted shards; twice the worker threads.
        speculated: names of the shards that run on two workers.
    """

    config: RunConfig
    run_id: str
    plan: Plan
    ledger: Ledger
    commits: Mapping[str, Commit]
    shards: PlannedShards
    on_tick: OnTick | None = None
    task: Task = process_videos
    outcome: SessionOutcome = field(default_factory=SessionOutcome)
    workers: list[WorkerInfo] = field(default_factory=list)
    window: int = 2
    next_heartbeat: float = 0.0
    health: ClusterHealth = field(default_factory=ClusterHealth)
    speculation: SpeculationPolicy = field(default_factory=SpeculationPolicy)
    steering: SteeringPolicy = field(default_factory=SteeringPolicy)
    speculated: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        # Unique for each session, because several drivers may work on one partition and on one host.
        self.driver = f"{socket.gethostname()}/p{self.config.partition_index}/{secrets.token_hex(3)}"
        self.recorder = RunRecorder(self.ledger, self.run_id, self.plan, self.config, self.driver)
        self.dispatcher = Dispatcher(self.config, self.run_id, self.driver, self.task)
        self.retry = RetryPolicy(self.config.retries)
        self.pending = ShardQueue.of(self.shards, self.commits)
        for name, size in self.shards.sizes.items():
            if name in self.commits:
                self.speculation.record(self.commits[name].result.wall_s, *size)

    def open(self) -> None:
        """Start or resume the run in the ledger."""
        self.recorder.start(self.commits, nothing_to_do=not self.pending)

    def close(self, commits: Mapping[str, Commit]) -> RunStatus:
        """End the run in the ledger.

        Args:
            commits: commits that exist now.
        """
        done = self.shards.sizes.keys() <= commits.keys()
        status = RunStatus.DONE if done else RunStatus.INCOMPLETE
        self.recorder.finish(commits, status, changed=bool(self.outcome.new.shards or self.outcome.failed))
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
                    active.cancel(list(self.dispatcher.running))
                    self._heartbeat(active, status)
                if client is None:
                    close(active)
            self._requeue()
        self._leave_open(f"stopped: {MAX_CLUSTERS} clusters in a row stalled")

    def _work_on(self, client: Client) -> None:
        LOG.info("Dask dashboard: %s", client.dashboard_link)
        self.health = ClusterHealth()
        running = self.dispatcher.running
        while (self.pending or self.retry.delayed or running) and self.outcome.stopped is None:
            if self.health.is_connected(client):
                self._submit(client)
                self._speculate(client)
                self._tick(client)
                if running:
                    self.health.check_stalled(client)
            self._wait(client)
        if self.outcome.stopped is not None:
            LOG.warning("stopped: %s", self.outcome.stopped)
            self._leave_open(f"stopped: {self.outcome.stopped}")

    def _requeue(self) -> None:
        """Put the shards of a stalled cluster back at the front of the queue, without counting their attempts."""
        unfinished = self.dispatcher.take_all()
        self.retry.undo_attempts(shard.name for shard in unfinished)
        self.pending.return_all(unfinished)
        self.speculated.clear()

    def _leave_open(self, reason: str) -> None:
        shards = itertools.chain(self.dispatcher.running.values(), self.retry.delayed, self.pending.take_all())
        self.outcome.leave_open((shard for shard in shards if shard.name not in self.outcome.failed), reason)

    def _submit(self, client: Client) -> None:
        # Retries go first, so that an error that a person must fix shows early.
        self.pending.return_all(self.retry.take_due())
        while len(self.dispatcher.running) < self.window and (shard := self.pending.take(self.retry.probe)):
            self.retry.attempts[shard.name] += 1
            self._start(client, shard, self.steering.choose(shard.name, self.workers))

    def _start(self, client: Client, shard: Shard, workers: list[str] | None) -> None:
        is_suspect = shard.name in self.retry.suspects
        self.dispatcher.start(client, shard, workers, is_suspect, is_suspect or self.retry.is_last(shard))
        self.health.mark_progress()

    def _speculate(self, client: Client) -> None:
        """Start overdue shards on a second worker."""
        running = self.dispatcher.running
        idle = not self.pending and not self.retry.delayed and 2 * len(running) < self.window
        overdue = set(self.speculation.overdue(running.values(), idle)) - self.speculated
        if not overdue:
            return
        processing = client.processing()
        for future, shard in list(running.items()):
            sound = {worker.address for worker in self.steering.untried(shard.name, self.workers)}
            others = [worker for worker, keys in processing.items() if future.key not in keys and worker in sound]
            if shard.name in overdue and others:
                LOG.info("shard %s runs far longer than expected: starting it on a second worker too", shard.name)
                self.speculated.add(shard.name)
                self._start(client, shard, others)

    def _wait(self, client: Client) -> None:
        """Wait for the next finished future, at most one tick."""
        ended = self.dispatcher.take_next(TICK_S)
        if ended is None:
            return
        future, shard = ended
        self.health.mark_progress()
        if future.status == "finished":
            self._succeeded(client, shard, future)
        else:
            self._failed(client, shard, Failure.of(future))

    def _succeeded(self, client: Client, shard: Shard, future: ShardFuture) -> None:
        """Record a committed shard and cancel its other attempt."""
        try:
            result: ShardResult = future.result()
        except CLUSTER_LOST:  # the commit exists, and `health` decides whether the scheduler comes back
            self.retry.delay(shard)
            return
        self.dispatcher.discard(shard.name)
        self.speculation.record(result.wall_s, *self.shards.sizes[shard.name])
        self.outcome.new.add(result)
        if self.retry.probe is not None:
            LOG.info("the sources can be read again: shard %s is done, the others follow", shard.name)
        self.retry.record_success()
        self.recorder.success(result)
        worker = result.worker.rpartition("/")[2]
        for name, reason in self.steering.record_success(shard.name, worker).items():
            self._retire(client, name, f"{reason}; worker {worker} has no such problem")

    def _failed(self, client: Client, shard: Shard, failure: Failure) -> None:
        """Record a failed attempt; retire its worker if that is broken; and run the shard again if it may succeed."""
        name, number = shard.name, self.retry.attempts[shard.name]
        LOG.info("shard %s, attempt %d of %d failed: %s", name, number, self.config.retries + 1, failure)
        self.recorder.failure(name, number, failure)
        attempt = failure.attempt
        is_unsound = attempt is not None and attempt.is_unsound
        if is_unsound or is_refusal(failure.error):
            self.workers = self.health.workers(client) or self.workers
        if attempt is not None:
            self.steering.record_failure(name, attempt.worker, str(failure) if is_refusal(failure.error) else None)
            if is_unsound:
                self._retire(client, attempt.worker, str(failure), attempt.address)
        if self.dispatcher.others(name):
            LOG.info("shard %s: one of its two attempts failed; the other continues", name)
            return
        self.speculated.discard(name)
        others, refused_by = len(self.steering.untried(name, self.workers)), self.steering.count_refusals(name)
        is_probing = self.retry.probe is not None
        match self.retry.decide(shard, failure.error, is_unsound, others, refused_by):
            case Decision.MOVE if is_unsound and self.workers and not self.steering.sound(self.workers):
                self.outcome.stop(shard, failure, f"no worker can work; the last was {failure.worker}: {failure}")
            case Decision.MOVE:
                self.pending.return_all([shard])
            case Decision.ISOLATE:
                self.pending.postpone(shard)
            case Decision.PAUSE if not is_probing:
                LOG.warning("the sources cannot be read; new shards wait until %s succeeds: %s", name, failure)
                self.retry.delay(shard)
            case Decision.RETRY | Decision.PAUSE:
                self.retry.delay(shard)
            case Decision.LEAVE:
                self.outcome.leave(shard, failure)
            case Decision.STOP:
                self.outcome.stop(shard, failure, str(failure))

    def _retire(self, client: Client, name: str, reason: str, address: str | None = None) -> None:
        """Give a worker no further shards, and close it unless it is the last one."""
        known = {worker.name: worker.address for worker in self.workers}
        address = address or known.get(name, "")
        if name not in self.steering.retired:
            LOG.warning("worker %s is retired: %s", name, reason)
        self.steering.retire(name, address, reason)
        if self.steering.sound(self.workers):
            retire_worker(client, address)
        self.next_heartbeat = 0.0

    def _tick(self, client: Client) -> None:
        if time.monotonic() >= self.next_heartbeat:
            self._heartbeat(client, WorkerStatus.RUNNING)
            self.next_heartbeat = time.monotonic() + self.config.heartbeat_s
        if self.on_tick:
            self.on_tick(self.ledger, self.run_id)

    def _heartbeat(self, client: Client, status: WorkerStatus) -> None:
        self.workers = self.health.workers(client)
        sound = self.steering.sound(self.workers)
        self.window = max(2, 2 * sum(worker.threads for worker in sound))
        self.recorder.heartbeat(self.workers, self.outcome.failed, status, self.steering.retired)
        if self.workers:
            for shard in self.dispatcher.take_stranded([worker.address for worker in self.workers]):
                self.retry.record_stranded(shard)
                self.pending.return_all([shard])


def _lost(error: BaseException) -> str:
    return f"the cluster was lost: {error or type(error).__name__}"
