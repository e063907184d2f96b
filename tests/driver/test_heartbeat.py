import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from factories import config

from audiopipe.driver.counters import RATE_WINDOW, SessionCounters
from audiopipe.driver.heartbeat import WorkerInfo, driver_row, worker_rows
from audiopipe.ledger.rows import WorkerStatus

NOW = datetime(2026, 11, 27, 10, tzinfo=UTC)


def row_of(**metrics):
    """Return the ledger row of a worker with these metrics."""
    worker = {"name": "gpu-0", "host": "10.0.0.7", "last_seen": NOW.timestamp(), "metrics": metrics}
    (row,) = worker_rows(
        [WorkerInfo.parse("tcp://10.0.0.7:1", worker)], "driver", config(), SessionCounters(), NOW, WorkerStatus.RUNNING
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


@dataclass
class Result:
    """The part of a shard's result that counts."""

    worker: str
    videos: int
    segments: int
    segments_kept: int
    started_at: str
    finished_at: str


def expected_rates(results, now):
    """Return videos per minute and segments per second from all results, as the definition says it."""
    recent = [item for item in results if now - datetime.fromisoformat(item.finished_at) < RATE_WINDOW]
    first = min((datetime.fromisoformat(item.started_at) for item in recent), default=now)
    minutes = max((now - max(first, now - RATE_WINDOW)).total_seconds() / 60, 1 / 60)
    return sum(item.videos for item in recent) / minutes, sum(item.segments for item in recent) / minutes / 60


def test_counters_are_those_of_all_results_of_a_worker():
    rng, counters, results, now = random.Random(0), SessionCounters(), [], NOW
    for _ in range(400):
        now += timedelta(seconds=rng.choice([1, 5, 60, 900]))
        finished = now - timedelta(seconds=rng.choice([0, 0, 3, 700]))  # a commit may be known late
        started = finished - timedelta(seconds=rng.uniform(1, 1500))
        worker = f"driver/gpu-{rng.randrange(3)}"
        result = Result(worker, 64, rng.randrange(100, 200), 90, started.isoformat(), finished.isoformat())
        results.append(result)
        counters.add(result)
        infos = [WorkerInfo.parse("tcp://h:1", {"name": f"gpu-{number}"}) for number in range(3)]
        rows = worker_rows(infos, "driver", config(), counters, now, WorkerStatus.RUNNING)
        rows.append(driver_row("driver", config(), counters, {}, WorkerStatus.RUNNING, now))
        for row in rows:
            counted = [item for item in results if row.worker_id in (item.worker, "driver")]
            assert row.videos_processed == sum(item.videos for item in counted)
            assert row.segments_processed == sum(item.segments for item in counted)
            assert row.segments_dropped == sum(item.segments - item.segments_kept for item in counted)
            assert (row.videos_per_minute, row.segments_per_second) == pytest.approx(expected_rates(counted, now))


def test_a_heartbeat_does_not_read_old_results():
    counters = SessionCounters()
    for number in range(20_000):
        finished = NOW + timedelta(seconds=number)
        times = (finished - timedelta(seconds=30)).isoformat(), finished.isoformat()
        counters.add(Result(f"driver/gpu-{number % 8}", 64, 100, 90, *times))
    now = NOW + timedelta(seconds=20_000)
    assert counters.total.rates(now)[0] == pytest.approx(64 * 599 / 10)
    assert len(counters.total._recent) < 601
    assert counters.total.videos == 20_000 * 64
