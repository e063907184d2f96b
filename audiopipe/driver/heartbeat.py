"""Ledger rows of a driver and its workers, from the metrics that Dask's scheduler holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from audiopipe.config import RunConfig
from audiopipe.driver.counters import Counter, SessionCounters
from audiopipe.ledger import Role, WorkerRow, WorkerStatus, format_utc

__all__ = ["WorkerInfo", "driver_row", "worker_rows"]


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
    counters: SessionCounters,
    now: datetime,
    status: WorkerStatus,
    retired: Mapping[str, str] = MappingProxyType({}),
) -> list[WorkerRow]:
    """Return a row for each worker.

    Args:
        driver: id of the driver, the first part of each worker's id, as in `ShardResult.worker`.
        counters: of this session.
        status: status of the driver; while it is running, a worker without a task is idle.
        retired: reason by name of the workers that get no further shards; they have failed.
    """
    rows = []
    for name, reason in retired.items():
        row = _retired_row(f"{driver}/{name}", reason, now)
        rows.append(_with_counters(row, config, counters.of(row.worker_id), now))
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
        rows.append(_with_counters(row, config, counters.of(worker_id), now))
    return rows


def _retired_row(worker_id: str, reason: str, now: datetime) -> WorkerRow:
    return WorkerRow(
        worker_id, status=WorkerStatus.FAILED, last_heartbeat=format_utc(now), last_error=reason, error_count=1
    )


def driver_row(
    driver: str,
    config: RunConfig,
    counters: SessionCounters,
    failed: dict[str, str],
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
        last_error=next(reversed(failed.values()), None),
        error_count=len(failed),
    )
    return _with_counters(row, config, counters.total, now)


def _with_counters(row: WorkerRow, config: RunConfig, counter: Counter, now: datetime) -> WorkerRow:
    """Add the partition, the totals over results, and the rates of the last `RATE_WINDOW`."""
    videos_per_minute, segments_per_second = counter.rates(now)
    return replace(
        row,
        partition_index=config.partition_index,
        partition_count=config.partition_count,
        videos_processed=counter.videos,
        segments_total=counter.segments,
        segments_processed=counter.segments,
        segments_dropped=counter.dropped,
        videos_per_minute=videos_per_minute,
        segments_per_second=segments_per_second,
    )
