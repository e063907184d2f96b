"""What every ledger can do, whatever database is behind it."""

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
    """Runs, workers, shards and errors. A view for people: the object store is the truth, and this is rebuilt from it.

    Every write may be repeated without changing anything. A ledger belongs to the thread that opened it.
    What is read of a run raises `LedgerError` if it is not there.
    """

    def start_run(self, run: RunRow, languages: Sequence[LanguageTotal]) -> None:
        """Begin a run, or go on with it: status back to running, totals updated, first start kept."""

    def record_shard(self, result: ShardResult) -> None:
        """A commit: its counts, and its dead letters among the errors."""

    def record_failure(
        self,
        run_id: str,
        shard: str,
        attempt: int,
        worker: str | None,
        error_type: str,
        message: str,
        stack_trace: str | None = None,
    ) -> None:
        """A try at a shard that came to nothing; `attempt` counts from 1 within this session of the driver."""

    def heartbeat(self, run_id: str, workers: Sequence[WorkerRow]) -> None:
        """The state of workers, and of the driver itself; counters keep their highest value.

        Whoever has not been heard of for `STALE_BEATS` by then is marked stale, until it is heard of again.
        """

    def finish_run(self, run_id: str, status: RunStatus) -> None:
        """End a run. While other drivers are alive it stays running, and the last to end decides.

        Alive is who was heard of within `STALE_BEATS` and has no successor on its partition. Report the own driver's
        row as done or failed by `heartbeat` first. A driver that is heard of later makes the run running again.
        """

    def runs(self) -> list[RunRow]:
        """All runs, the newest start first."""

    def run(self, run_id: str | None = None) -> RunRow | None:
        """A run, or the newest without an id; None if there is none."""

    def run_rows(self, run_id: str | None = None, shards: int = RECENT_SHARDS, errors: int = 8) -> RunRows | None:
        """A run, or the newest without an id, as of one moment, with its last shards and errors; None if not there."""

    def progress(self, run_id: str) -> RunProgress:
        """The run's row of the plan's view `run_progress`."""

    def languages(self, run_id: str) -> list[LanguageProgress]:
        """Each language of the run, by name."""

    def workers(self, run_id: str) -> list[WorkerRow]:
        """Workers and drivers as they last reported, by id."""

    def shards(self, run_id: str, limit: int | None = None) -> list[ShardRow]:
        """Shards that were tried, by name; with a limit the last finished ones, newest first."""

    def errors(self, run_id: str, limit: int = 100) -> list[ErrorRow]:
        """The newest errors first."""

    def close(self) -> None:
        """Write what is still held, and let go of the database."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...
