"""The ledger's record of a session: its run, commits, failures and heartbeats."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from distributed import Future, KilledWorker

from audiopipe import __version__
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.totals import effective_result, effective_results
from audiopipe.driver.counters import SessionCounters
from audiopipe.driver.heartbeat import WorkerInfo, driver_row, worker_rows
from audiopipe.driver.task import Attempt, get_attempt
from audiopipe.errors import LedgerError, LedgerUnavailable
from audiopipe.ledger import ErrorRow, LanguageTotal, Ledger, RunRow, RunStatus, ShardStatus, WorkerStatus
from audiopipe.plan.plan import Plan
from audiopipe.redaction import redact
from audiopipe.types import ShardResult

__all__ = ["Failure", "RunRecorder", "without_ledger_errors"]


@dataclass(frozen=True)
class Failure:
    """A failed attempt: its exception, or None and a message if the task was canceled; and its worker, if known."""

    error: BaseException | None
    kind: str
    message: str
    stack: str | None
    attempt: Attempt | None = None

    @property
    def worker(self) -> str:
        """The name of the worker, for messages."""
        return "unknown" if self.attempt is None else self.attempt.worker

    @classmethod
    def of(cls, future: Future[ShardResult]) -> Failure:
        error = future.exception() if future.status == "error" else None
        if error is None:
            return cls(None, "Canceled", f"Dask reports the task as {future.status}", None)
        stack = "".join(traceback.format_tb(future.traceback()))
        message = redact(str(error)) or f"Dask reports the task as {future.status}"
        return cls(error, type(error).__name__, message, stack, _find_attempt(error))

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def without_ledger_errors(on_tick: Callable[[Ledger, str], None]) -> Callable[[Ledger, str], None]:
    """Wrap a function that shows progress: an error of the ledger must not end the run."""

    def tick(ledger: Ledger, run_id: str) -> None:
        with suppress(LedgerError):
            on_tick(ledger, run_id)

    return tick


def _find_attempt(error: BaseException) -> Attempt | None:
    if isinstance(error, KilledWorker):
        return Attempt(str(error.last_worker.name), error.last_worker.address)
    return get_attempt(error)


@dataclass
class RunRecorder:
    """Writes what a session does to the ledger.

    Attributes:
        plan: the plan of the whole output, even if the session processes a part of it.
        driver: id of the driver.
        counters: of the shards that this session committed.
    """

    ledger: Ledger
    run_id: str
    plan: Plan
    config: RunConfig
    driver: str
    counters: SessionCounters = field(default_factory=SessionCounters)

    def start(self, commits: Mapping[str, Commit], nothing_to_do: bool) -> None:
        """Start or resume the run, and record the commits that the ledger may have missed.

        A finished run that has nothing to do, and all of whose commits are recorded, is not touched.
        """
        if nothing_to_do and self._is_recorded(commits):
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
        self.ledger.record_shards(list(effective_results(commits, self.plan).values()))

    def _language(self) -> str:
        """Return 'all' if any driver of the run was started with it, else all languages of the plan."""
        recorded = self._recorded_run()
        unrestricted = self.config.language == "all" or (recorded is not None and recorded.language == "all")
        return "all" if unrestricted else ",".join(self.plan.languages())

    def _is_recorded(self, commits: Mapping[str, Commit]) -> bool:
        """Check whether the ledger has the run as finished, with all these commits."""
        recorded = self._recorded_run()
        if recorded is None or recorded.status is not RunStatus.DONE:
            return False
        try:
            rows = self.ledger.shards(self.run_id)
        except LedgerUnavailable:
            return False
        return {row.shard for row in rows if row.status == ShardStatus.DONE} >= commits.keys()

    def _recorded_run(self) -> RunRow | None:
        """Read the run; None if the ledger does not have it or cannot be read."""
        try:
            return self.ledger.run(self.run_id)
        except LedgerUnavailable:
            return None

    def finish(self, commits: Mapping[str, Commit], status: RunStatus, changed: bool) -> None:
        """End the run, unless the session changed nothing and the ledger already has it as finished."""
        if changed or not self._is_recorded(commits):
            self.ledger.finish_run(self.run_id, status)

    def success(self, result: ShardResult) -> None:
        """Record a committed shard of this session."""
        self.counters.add(result)
        self.ledger.record_shard(effective_result(result, self.plan))

    def failure(self, shard: str, attempt: int, failure: Failure) -> None:
        """Record a failed attempt."""
        worker = None if failure.attempt is None else f"{self.driver}/{failure.attempt.worker}"
        error = ErrorRow.of_attempt(shard, attempt, worker, failure.kind, failure.message, failure.stack)
        self.ledger.record_failure(self.run_id, error)

    def heartbeat(
        self,
        workers: Sequence[WorkerInfo],
        failed: dict[str, str],
        status: WorkerStatus,
        retired: Mapping[str, str],
    ) -> None:
        """Write the rows of the driver and its workers; those that were retired have failed, with the reason."""
        now = datetime.now(UTC)
        driver = driver_row(self.driver, self.config, self.counters, failed, status, now)
        rows = worker_rows(workers, self.driver, self.config, self.counters, now, status, retired)
        self.ledger.heartbeat(self.run_id, [driver, *rows])
