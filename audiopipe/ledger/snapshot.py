"""Read the progress of a run from any ledger.

Only the ledger is read, so this works on any machine that can reach it, during a run and after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from audiopipe.errors import LedgerError
from audiopipe.ledger import LanguageProgress, Ledger, Role, RunRow, RunRows, RunStatus, WorkerRow, WorkerStatus
from audiopipe.ledger.queries import STALE_HEARTBEATS
from audiopipe.ledger.rates import RECENT_SHARDS, Eta, Window, estimate_eta, select_window
from audiopipe.ledger.record import format_utc, parse_utc
from audiopipe.ledger.rows import describe_unknown_run

__all__ = ["take_snapshot"]

LAST_ERRORS = 8
HISTORY_BINS = 12
GONE_S = 600.0  # so long a silent worker is shown as stale; then it has left, as those of a spot market do


def take_snapshot(ledger: Ledger, run_id: str | None = None, now: datetime | None = None) -> dict[str, Any]:
    """A run's numbers as plain values that JSON can hold; `{"run": None}` for a ledger without runs.

    Times are UTC, rates are over the sliding window of `ledger.rates`, and an ETA is None while nothing is known of it.
    `stale` are workers and drivers that should be heard of and are not; `past` are those that have left: drivers whose
    partition another one has taken, with their workers, and workers silent for `GONE_S`.
    Raises `LedgerError` for a run that is not there.
    """
    now = now or datetime.now(UTC)
    look = ledger.run_rows(run_id, RECENT_SHARDS, LAST_ERRORS)
    if look is None and run_id is not None:
        raise LedgerError(describe_unknown_run("the ledger", run_id, ledger.runs()))
    if look is None:
        return {"run": None}
    run, seen = look.run, select_window(look.run, look.shards, now)
    totals = _totals(look, seen)
    workers = _workers(look, seen, now)
    return {
        "at": format_utc(now),
        "run": {**run.as_row(), "hours_elapsed": _hours(run, now)},
        "totals": totals,
        "window_s": seen.length_s,
        "eta": _eta(estimate_eta(seen, totals["total_videos"] - totals["processed"]), run),
        "languages": [_language(language, seen) for language in look.languages],
        "drivers": [row for row in workers if row["role"] == Role.DRIVER],
        "workers": [row for row in workers if row["role"] == Role.WORKER],
        "errors": [row.as_row() for row in look.errors],
    }


def _totals(look: RunRows, seen: Window) -> dict[str, Any]:
    summed = ("total_shards", "shards_done", "failed", "segments", "kept", "audio_s", "kept_s", "bytes_in", "bytes_out")
    return {
        "total_videos": look.run.total_videos,
        "processed": look.processed,
        **{name: sum(getattr(language, name) for language in look.languages) for name in summed},
        "videos_per_minute": seen.videos_per_minute(),
        "segments_per_second": seen.segments_per_second(),
        "times_real_time": seen.audio_per_second(),
    }


def _hours(run: RunRow, now: datetime) -> float:
    end = parse_utc(run.completed_at) if run.completed_at else now
    return (end - parse_utc(run.started_at or now)).total_seconds() / 3600


def _eta(expected: Eta | None, run: RunRow) -> dict[str, Any] | None:
    if expected is None or run.status is not RunStatus.RUNNING:
        return None
    return {"seconds": expected.seconds, "low_s": expected.low_s, "high_s": expected.high_s}


def _language(language: LanguageProgress, seen: Window) -> dict[str, Any]:
    left, rate = language.total_videos - language.processed, seen.videos_per_minute(language.language)
    return {**language.as_row(), "rate": rate, "eta_s": 60 * max(left, 0) / rate if rate > 0 else None}


def _workers(look: RunRows, seen: Window, now: datetime) -> list[dict[str, Any]]:
    drivers = [row for row in look.workers if row.role is Role.DRIVER]
    replaced = {row.worker_id for row in drivers if _replaced(row, drivers)}
    histories = _histories(seen)
    rows = []
    for row in look.workers:
        age_s = (now - parse_utc(row.last_heartbeat or now)).total_seconds()
        # A worker's id is its driver's and its own name, which may be an address.
        driver = next((one.worker_id for one in drivers if f"{row.worker_id}/".startswith(f"{one.worker_id}/")), "")
        past = driver in replaced or _left(row, look.run, age_s)
        fields = {"age_s": age_s, "stale": not past and _stale(row, look.run, age_s), "past": past}
        history = histories.get(row.worker_id, [0] * HISTORY_BINS)
        rows.append({**row.as_row(), **fields, "driver": driver, "history": history})
    return rows


def _replaced(driver: WorkerRow, drivers: Sequence[WorkerRow]) -> bool:
    """Whether a driver of its partition has begun since it was last heard of."""
    return any(
        (other.started_at or "") > (driver.last_heartbeat or "")
        for other in drivers
        if other.partition_index == driver.partition_index and other.worker_id != driver.worker_id
    )


def _left(row: WorkerRow, run: RunRow, age_s: float) -> bool:
    """Whether nobody waits for a worker any more. A driver is waited for until another one takes its partition."""
    return run.status is RunStatus.RUNNING and row.role is Role.WORKER and age_s > GONE_S


def _stale(row: WorkerRow, run: RunRow, age_s: float) -> bool:
    silent = row.status.alive and age_s > STALE_HEARTBEATS * run.heartbeat_s
    return run.status is RunStatus.RUNNING and (silent or row.status is WorkerStatus.STALE)


def _histories(seen: Window) -> Mapping[str, list[int]]:
    """Segments that each worker finished in each twelfth of the window, oldest first."""
    counts: dict[str, list[int]] = {}
    for shard in seen.shards:
        if shard.worker_id and shard.finished_at and seen.length_s > 0:
            part = (parse_utc(shard.finished_at) - seen.start).total_seconds() / seen.length_s
            bins = counts.setdefault(shard.worker_id, [0] * HISTORY_BINS)
            bins[min(int(part * HISTORY_BINS), HISTORY_BINS - 1)] += shard.segments
    return counts
