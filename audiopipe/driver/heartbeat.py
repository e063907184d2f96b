"""The rows that a driver writes about itself and its workers, from the scheduler's own metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from audiopipe.config import RunConfig
from audiopipe.ledger import Role, WorkerRow, WorkerStatus, utc
from audiopipe.types import ShardResult

__all__ = ["driver_row", "worker_rows"]

RATE_WINDOW = timedelta(minutes=10)


def worker_rows(
    workers: Mapping[str, Mapping[str, Any]],
    driver: str,
    config: RunConfig,
    results: Sequence[ShardResult],
    now: datetime,
    status: WorkerStatus,
) -> list[WorkerRow]:
    """One row for each worker of `Client.scheduler_info()["workers"]`.

    Args:
        driver: put before the worker's name, as in the results' `worker`.
        results: of this session.
        status: of the driver; workers that have no task are idle while it runs, and done when it is.
    """
    rows = []
    for worker in workers.values():
        metrics, worker_id = worker.get("metrics", {}), f"{driver}/{worker['name']}"
        gpu = metrics.get("gpu", {})  # None for what it cannot tell: a part of one, or one without memory of its own
        busy = bool(metrics.get("task_counts", {}).get("executing"))
        state = status if status is not WorkerStatus.RUNNING or busy else WorkerStatus.IDLE
        rows.append(
            WorkerRow(
                worker_id,
                hostname=str(worker.get("host", "")),
                status=state,
                last_heartbeat=utc(datetime.fromtimestamp(worker.get("last_seen", now.timestamp()), UTC)),
                cpu_utilization=float(metrics.get("cpu", 0.0)),
                memory_bytes=int(metrics.get("memory", 0)),
                gpu_utilization=float(gpu.get("utilization") or 0.0),
                gpu_memory_bytes=int(gpu.get("memory-used") or 0),
                **_sums([result for result in results if result.worker == worker_id], config, now),
            )
        )
    return rows


def driver_row(
    driver: str,
    config: RunConfig,
    results: Sequence[ShardResult],
    failed: Mapping[str, str],
    status: WorkerStatus,
    now: datetime,
) -> WorkerRow:
    """The driver's own row: its last heartbeat is how one sees that it is alive."""
    return WorkerRow(
        driver,
        role=Role.DRIVER,
        hostname=driver.split("/", maxsplit=1)[0],
        status=status,
        last_heartbeat=utc(now),
        last_error=next(reversed(list(failed.values())), None),
        error_count=len(failed),
        **_sums(results, config, now),
    )


def _sums(results: Sequence[ShardResult], config: RunConfig, now: datetime) -> dict[str, Any]:
    recent = [result for result in results if now - datetime.fromisoformat(result.finished_at) < RATE_WINDOW]
    first = min((datetime.fromisoformat(result.started_at) for result in recent), default=now)
    minutes = max((now - max(first, now - RATE_WINDOW)).total_seconds() / 60, 1 / 60)
    return {
        "partition_index": config.partition_index,
        "partition_count": config.partition_count,
        "videos_processed": _total(result.videos for result in results),
        "segments_total": _total(result.segments for result in results),
        "segments_processed": _total(result.segments for result in results),
        "segments_dropped": _total(result.segments - result.segments_kept for result in results),
        "videos_per_minute": _total(result.videos for result in recent) / minutes,
        "segments_per_second": _total(result.segments for result in recent) / minutes / 60,
    }


def _total(amounts: Iterable[int]) -> int:
    return sum(amounts)
