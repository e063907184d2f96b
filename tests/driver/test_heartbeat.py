from datetime import UTC, datetime

import pytest
from factories import config

from audiopipe.driver.heartbeat import WorkerInfo, worker_rows
from audiopipe.ledger.rows import WorkerStatus

NOW = datetime(2026, 11, 27, 10, tzinfo=UTC)


def row_of(**metrics):
    """Return the ledger row of a worker with these metrics."""
    worker = {"name": "gpu-0", "host": "10.0.0.7", "last_seen": NOW.timestamp(), "metrics": metrics}
    (row,) = worker_rows(
        [WorkerInfo.parse("tcp://10.0.0.7:1", worker)], "driver", config(), [], NOW, WorkerStatus.RUNNING
    )
    return row


def test_a_row_has_the_workers_report_of_its_machine():
    row = row_of(cpu=312.5, memory=7_000, gpu={"utilization": 41, "memory-used": 9_000}, task_counts={"executing": 2})
    assert (row.worker_id, row.hostname, row.status) == ("driver/gpu-0", "10.0.0.7", WorkerStatus.RUNNING)
    assert (row.cpu_utilization, row.memory_bytes) == (312.5, 7_000)
    assert (row.gpu_utilization, row.gpu_memory_bytes) == (41.0, 9_000)


@pytest.mark.parametrize("gpu", [{"utilization": None, "memory-used": 9_000}, {"utilization": 41, "memory-used": None}])
def test_a_gpu_with_missing_values_still_has_a_row(gpu):
    row = row_of(gpu=gpu)
    assert (row.gpu_utilization, row.gpu_memory_bytes) == (gpu["utilization"] or 0, gpu["memory-used"] or 0)


def test_a_worker_without_a_gpu_or_a_task_is_idle_and_uses_none():
    row = row_of(cpu=1.0)
    assert (row.status, row.gpu_utilization, row.gpu_memory_bytes) == (WorkerStatus.IDLE, 0.0, 0)
