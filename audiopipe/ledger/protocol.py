"""The protocol of a ledger, independent of the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from audiopipe.ledger.rates import RECENT_SHARDS
from audiopipe.ledger.rows import (
    ErrorRow,
    LanguageProgress,
    LanguageTotal,
    RunProgress,
    RunRow,
    RunRows,
    RunStatus,
    ShardRow,
    WorkerRow,
)
from audiopipe.types import ShardResult

__all__ = ["Ledger"]


class Ledger(Protocol):
    """Runs, workers, shards and errors: a view for people, rebuilt from the object store, which is the truth.

    Every write may be repeated without effect. A ledger belongs to the thread that opened it. All methods that read a
    run raise `LedgerError` if the ledger does not have it.
    """

    def start_run(self, run: RunRow, languages: Sequence[LanguageTotal]) -> None:
        """Start or resume a run: set its status to running, update its totals, keep its first start."""

    def record_shard(self, result: ShardResult) -> None:
        """Record a committed shard: its counts, and its dead letters as errors.

        A result of the same attempt with fewer videos replaces the recorded one: the others count in another shard.
        """

    def record_shards(self, results: Sequence[ShardResult]) -> None:
        """Record those of a run's committed shards that the ledger lacks, which one query finds out."""

    def record_failure(self, run_id: str, error: ErrorRow) -> None:
        """Record a failed attempt at a shard."""

    def heartbeat(self, run_id: str, workers: Sequence[WorkerRow]) -> None:
        """Record the state of workers and of the driver; counters keep their highest value.

        A worker or driver without a heartbeat for `STALE_HEARTBEATS` periods is marked stale until its next heartbeat.
        """

    def finish_run(self, run_id: str, status: RunStatus) -> None:
        """End a run. While other drivers are alive it keeps running, and the last driver to end sets the status.

        A driver is alive if it sent a heartbeat within `STALE_HEARTBEATS` periods and has no successor on its
        partition. Before this call, report the calling driver as done or failed by `heartbeat`. A later heartbeat of
        another driver sets the run back to running.
        """

    def runs(self) -> list[RunRow]:
        """Return all runs, the newest start first."""

    def run(self, run_id: str | None = None) -> RunRow | None:
        """Return a run, by default the newest; None if the ledger does not have it."""

    def run_rows(self, run_id: str | None = None, shards: int = RECENT_SHARDS, errors: int = 8) -> RunRows | None:
        """Read a run, by default the newest, with its last shards and errors, in one transaction.

        Returns None if the ledger does not have the run.
        """

    def progress(self, run_id: str) -> RunProgress:
        """Return the run's row of the view `run_progress`."""

    def languages(self, run_id: str) -> list[LanguageProgress]:
        """Return the progress of each language of the run, by name."""

    def workers(self, run_id: str) -> list[WorkerRow]:
        """Return the last reported state of workers and drivers, by id."""

    def shards(self, run_id: str, limit: int | None = None) -> list[ShardRow]:
        """Return the attempted shards by name; with a limit, the last finished ones, newest first."""

    def errors(self, run_id: str, limit: int = 100) -> list[ErrorRow]:
        """Return the last errors, newest first."""

    def close(self) -> None:
        """Write pending updates and close the database."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...
