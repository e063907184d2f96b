"""Ledger rows of a driver and its workers, from the metrics that Dask's scheduler holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from audiopipe.config import RunConfig
from audiopipe.ledger import Role, WorkerRow, WorkerStatus, format_utc
from audiopipe.types import ShardResult

__all__ = ["WorkerInfo", "driver_row", "worker_rows"]

RATE_WINDOW = timedelta(minutes=10)


@dataclass(frozen=True)
class WorkerInfo:
    """A worker as Dask's scheduler describes it.

    Attributes:
        last_heartbeat: UNIX time; None if the scheduler has received none.
        executing: tasks that run now.
        cpu: percent of one core.
    """

    address: str
    name: str
    host: str
    threads: int
    last_heartbeat: float | None
    executing: int
    cpu: float
    memory_bytes: int
    gpu_utilization: float
    gpu_memory_bytes: int

    @classmethod
    def parse(cls, address: str, info: Mapping[str, Any]) -> WorkerInfo:
        """Read an item of `Client.scheduler_info()["workers"]`."""
        metrics = info.get("metrics", {})
        # A MIG instance has no utilization, and an integrated GPU no memory: Dask reports None.
        gpu = metrics.get("gpu", {})
        return cls(
            address=address,
            name=str(info["name"]),
            host=str(info.get("host", "")),
            threads=int(info.get("nthreads", 0)),
            last_heartbeat=info.get("last_seen"),
            executing=int(metrics.get("task_counts", {}).get("executing", 0)),
            cpu=float(metrics.get("cpu", 0.0)),
            memory_bytes=int(metrics.get("memory", 0)),
            gpu_utilization=float(gpu.get("utilization") or 0.0),
            gpu_memory_bytes=int(gpu.get("memory-used") or 0),
        )


def worker_rows(
    workers: Iterable[WorkerInfo],
    driver: str,
    config: RunConfig,
    results: Sequence[ShardResult],
    now: datetime,
    status: WorkerStatus,
    retired: Mapping[str, str] = MappingProxyType({}),
) -> list[WorkerRow]:
    """Return a row for each worker.

    Args:
        driver: id of the driver, the first part of each worker's id, as in `ShardResult.worker`.
        results: results of this session.
        status: status of the driver; while it is running, a worker without a task is idle.
        retired: reason by name of the workers that get no further shards; they have failed.
    """
    rows = []
    for name, reason in retired.items():
        row = _retired_row(f"{driver}/{name}", reason, now)
        rows.append(_with_counters(row, config, _results_of(row.worker_id, results), now))
    for worker in workers:
        worker_id = f"{driver}/{worker.name}"
        if worker.name in retired:
            continue
        idle = status is WorkerStatus.RUNNING and not worker.executing
        heartbeat = now if worker.last_heartbeat is None else datetime.fromtimestamp(worker.last_heartbeat, UTC)
        row = WorkerRow(
            worker_id,
            hostname=worker.host,
            gpu_utilization=worker.gpu_utilization,
            cpu_utilization=worker.cpu,
            memory_bytes=worker.memory_bytes,
            gpu_memory_bytes=worker.gpu_memory_bytes,
            status=WorkerStatus.IDLE if idle else status,
            last_heartbeat=format_utc(heartbeat),
        )
        rows.append(_with_counters(row, config, _results_of(worker_id, results), now))
    return rows


def _results_of(worker_id: str, results: Sequence[ShardResult]) -> list[ShardResult]:
    return [result for result in results if result.worker == worker_id]


def _retired_row(worker_id: str, reason: str, now: datetime) -> WorkerRow:
    return WorkerRow(
        worker_id, status=WorkerStatus.FAILED, last_heartbeat=format_utc(now), last_error=reason, error_count=1
    )


def driver_row(
    driver: str,
    config: RunConfig,
    results: Sequence[ShardResult],
    failed: Mapping[str, str],
    status: WorkerStatus,
    now: datetime,
) -> WorkerRow:
    """Return the driver's own row; its last heartbeat shows that the driver is alive."""
    row = WorkerRow(
        driver,
        role=Role.DRIVER,
        hostname=driver.split("/", maxsplit=1)[0],
        status=status,
        last_heartbeat=format_utc(now),
        last_error=next(reversed(list(failed.values())), None),
        error_count=len(failed),
    )
    return _with_counters(row, config, results, now)


def _with_counters(row: WorkerRow, config: RunConfig, results: Sequence[ShardResult], now: datetime) -> WorkerRow:
    """Add the partition, the totals over results, and the rates of the last `RATE_WINDOW`."""
    recent = [result for result in results if now - datetime.fromisoformat(result.finished_at) < RATE_WINDOW]
    first = min((datetime.fromisoformat(result.started_at) for result in recent), default=now)
    minutes = max((now - max(first, now - RATE_WINDOW)).total_seconds() / 60, 1 / 60)
    segments = sum(result.segments for result in results)
    return replace(
        row,
        partition_index=config.partition_index,
        partition_count=config.partition_count,
        videos_processed=sum(result.videos for result in results),
        segments_total=segments,
        segments_processed=segments,
        segments_dropped=sum(result.segments - result.segments_kept for result in results),
        videos_per_minute=sum(result.videos for result in recent) / minutes,
        segments_per_second=sum(result.segments for result in recent) / minutes / 60,
    )
