"""Take a snapshot of a run: its totals, rates, ETA, languages, workers and last errors.

It reads the ledger only, so it works on any machine that can reach the ledger, during and after the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from audiopipe.errors import LedgerError
from audiopipe.ledger.protocol import Ledger
from audiopipe.ledger.queries import STALE_HEARTBEATS
from audiopipe.ledger.rates import RECENT_SHARDS, Eta, Window, estimate_eta, select_window
from audiopipe.ledger.record import RowValues, format_utc, parse_utc
from audiopipe.ledger.rows import (
    ErrorRow,
    LanguageProgress,
    Role,
    RunRow,
    RunRows,
    RunStatus,
    WorkerRow,
    WorkerStatus,
    describe_unknown_run,
)
from audiopipe.types import Seconds

__all__ = ["LanguageSnapshot", "RunSnapshot", "RunTotals", "WorkerSnapshot", "take_snapshot"]

LAST_ERRORS = 8
HISTORY_BINS = 12
LEFT_AFTER_S = (
    600.0  # a silent worker is shown as stale for this long; then it counts as left, like a reclaimed spot machine
)


@dataclass(frozen=True, slots=True)
class RunTotals:
    """Sums over the languages of a run, and its rates.

    Attributes:
        busy_s: seconds in which a shard was being processed, once the run has ended; the rates are then over all of
            them. None during the run, whose rates are those of the window.
    """

    total_videos: int
    processed: int
    total_shards: int
    shards_done: int
    failed: int
    segments: int
    kept: int
    audio_s: Seconds
    kept_s: Seconds
    bytes_in: int
    bytes_out: int
    videos_per_minute: float
    segments_per_second: float
    times_real_time: float
    busy_s: Seconds | None = None


@dataclass(frozen=True, slots=True)
class LanguageSnapshot(LanguageProgress):
    """Progress of one language, with its rate in the window and the time until its end."""

    eta_s: Seconds | None = None


@dataclass(frozen=True, slots=True)
class WorkerSnapshot(WorkerRow):
    """State of a worker or driver, compared with the time of the snapshot.

    Attributes:
        age_s: time since its last heartbeat.
        stale: its heartbeats are overdue.
        past: it has left: a driver whose partition has a newer driver, a worker of such a driver, or a worker that was
            silent for `LEFT_AFTER_S`.
        driver: id of its driver, a driver's own id, or "".
        history: segments that it finished in each twelfth of the window, oldest first.
    """

    age_s: Seconds = 0.0
    stale: bool = False
    past: bool = False
    driver: str = ""
    history: tuple[int, ...] = (0,) * HISTORY_BINS


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """A run at one moment.

    Attributes:
        at: time of the snapshot, UTC in the text form of the ledger.
        hours_elapsed: time since the first start, until the end or the snapshot.
        window_s: length of the time of the rates: a window that ends now, or `totals.busy_s` after the end.
        eta: time until the end; None while nothing finishes, and for a run that is not running.
        errors: the last errors, newest first.
    """

    at: str
    run: RunRow
    hours_elapsed: float
    totals: RunTotals
    window_s: Seconds
    eta: Eta | None
    languages: tuple[LanguageSnapshot, ...]
    drivers: tuple[WorkerSnapshot, ...]
    workers: tuple[WorkerSnapshot, ...]
    errors: tuple[ErrorRow, ...]

    def as_json(self) -> RowValues:
        """Return an object that `json.dumps` accepts, without NaN and infinities."""
        return {
            "at": self.at,
            "run": {**self.run.as_row(), "hours_elapsed": self.hours_elapsed},
            "totals": asdict(self.totals),
            "window_s": self.window_s,
            "eta": None if self.eta is None else asdict(self.eta),
            "languages": [language.as_row() for language in self.languages],
            "drivers": [driver.as_row() for driver in self.drivers],
            "workers": [worker.as_row() for worker in self.workers],
            "errors": [error.as_row() for error in self.errors],
        }


def take_snapshot(ledger: Ledger, run_id: str | None = None, now: datetime | None = None) -> RunSnapshot | None:
    """Take a snapshot of a run, by default the newest; None if the ledger has no run yet.

    Raises:
        LedgerError: the ledger cannot be read, or does not have the run.
    """
    now = now or datetime.now(UTC)
    rows = ledger.run_rows(run_id, RECENT_SHARDS, LAST_ERRORS)
    if rows is None and run_id is not None:
        raise LedgerError(describe_unknown_run("the ledger", run_id, ledger.runs()))
    if rows is None:
        return None
    window = select_window(rows.run, rows.shards, now)
    workers = _snapshot_workers(rows, window, now)
    running = rows.run.status is RunStatus.RUNNING
    busy_s = rows.busy_s
    totals = _sum_totals(rows, window)
    return RunSnapshot(
        at=format_utc(now),
        run=rows.run,
        hours_elapsed=_elapsed_hours(rows.run, now),
        totals=totals if busy_s is None else _with_final_rates(totals, busy_s),
        window_s=window.length_s if busy_s is None else busy_s,
        eta=estimate_eta(window, rows.run.total_videos - rows.processed) if running else None,
        languages=tuple(_snapshot_language(language, window, busy_s) for language in rows.languages),
        drivers=tuple(worker for worker in workers if worker.role is Role.DRIVER),
        workers=tuple(worker for worker in workers if worker.role is Role.WORKER),
        errors=tuple(rows.errors),
    )


def _sum_totals(rows: RunRows, window: Window) -> RunTotals:
    languages = rows.languages
    return RunTotals(
        total_videos=rows.run.total_videos,
        processed=rows.processed,
        total_shards=sum(language.total_shards for language in languages),
        shards_done=sum(language.shards_done for language in languages),
        failed=sum(language.failed for language in languages),
        segments=sum(language.segments for language in languages),
        kept=sum(language.kept for language in languages),
        audio_s=sum(language.audio_s for language in languages),
        kept_s=sum(language.kept_s for language in languages),
        bytes_in=sum(language.bytes_in for language in languages),
        bytes_out=sum(language.bytes_out for language in languages),
        videos_per_minute=window.videos_per_minute(),
        segments_per_second=window.segments_per_second(),
        times_real_time=window.audio_per_second(),
    )


def _with_final_rates(totals: RunTotals, busy_s: Seconds) -> RunTotals:
    """Return the totals of a run that has ended, with its rates over the time in which it worked."""
    return replace(
        totals,
        busy_s=busy_s,
        videos_per_minute=60 * totals.processed / busy_s if busy_s else 0.0,
        segments_per_second=totals.segments / busy_s if busy_s else 0.0,
        times_real_time=totals.audio_s / busy_s if busy_s else 0.0,
    )


def _elapsed_hours(run: RunRow, now: datetime) -> float:
    end = parse_utc(run.completed_at) if run.completed_at else now
    return (end - parse_utc(run.started_at or now)).total_seconds() / 3600


def _snapshot_language(language: LanguageProgress, window: Window, busy_s: Seconds | None) -> LanguageSnapshot:
    remaining, rate = language.total_videos - language.processed, window.videos_per_minute(language.language)
    if busy_s is not None:
        rate = 60 * language.processed / busy_s if busy_s else 0.0
    eta_s = 60 * max(remaining, 0) / rate if rate > 0 else None
    return LanguageSnapshot.from_row({**asdict(language), "rate": rate, "eta_s": eta_s})


def _snapshot_workers(rows: RunRows, window: Window, now: datetime) -> list[WorkerSnapshot]:
    drivers = [worker for worker in rows.workers if worker.role is Role.DRIVER]
    replaced = {driver.worker_id for driver in drivers if _is_replaced(driver, drivers)}
    histories = _count_segments(window)
    snapshots = []
    for worker in rows.workers:
        age_s = (now - parse_utc(worker.last_heartbeat or now)).total_seconds()
        driver = _find_driver(worker.worker_id, drivers)
        past = driver in replaced or _has_left(worker, rows.run, age_s)
        comparison = {"age_s": age_s, "stale": not past and _is_stale(worker, rows.run, age_s), "past": past}
        history = tuple(histories.get(worker.worker_id, [0] * HISTORY_BINS))
        values = {**asdict(worker), **comparison, "driver": driver, "history": history}
        snapshots.append(WorkerSnapshot.from_row(values))
    return snapshots


def _find_driver(worker_id: str, drivers: Sequence[WorkerRow]) -> str:
    """Return the id of a worker's driver: the id of a worker starts with it, and may end with an address."""
    matches = (driver.worker_id for driver in drivers if f"{worker_id}/".startswith(f"{driver.worker_id}/"))
    return next(matches, "")


def _is_replaced(driver: WorkerRow, drivers: Sequence[WorkerRow]) -> bool:
    """Check whether another driver of its partition started after its last heartbeat."""
    return any(
        (other.started_at or "") > (driver.last_heartbeat or "")
        for other in drivers
        if other.partition_index == driver.partition_index and other.worker_id != driver.worker_id
    )


def _has_left(worker: WorkerRow, run: RunRow, age_s: Seconds) -> bool:
    """Check whether a worker was silent for too long to come back; a driver stays until another takes its partition."""
    return run.status is RunStatus.RUNNING and worker.role is Role.WORKER and age_s > LEFT_AFTER_S


def _is_stale(worker: WorkerRow, run: RunRow, age_s: Seconds) -> bool:
    overdue = worker.status.alive and age_s > STALE_HEARTBEATS * run.heartbeat_s
    return run.status is RunStatus.RUNNING and (overdue or worker.status is WorkerStatus.STALE)


def _count_segments(window: Window) -> Mapping[str, list[int]]:
    """Count the segments that each worker finished in each bin of the window, oldest first."""
    counts: dict[str, list[int]] = {}
    for shard in window.shards:
        if shard.worker_id and shard.finished_at and window.length_s > 0:
            position = (parse_utc(shard.finished_at) - window.start).total_seconds() / window.length_s
            bins = counts.setdefault(shard.worker_id, [0] * HISTORY_BINS)
            bins[min(int(position * HISTORY_BINS), HISTORY_BINS - 1)] += shard.segments
    return counts
