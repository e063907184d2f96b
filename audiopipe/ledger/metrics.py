"""Serve the numbers of a driver to Prometheus: what it records in its ledger, as counters and gauges.

Counters begin with what the driver's partition had committed before, so that they do not fall when a run is resumed,
and that the sum over all drivers is the whole output. `cluster/grafana/` has a dashboard for them.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, start_http_server

from audiopipe.errors import ConfigError
from audiopipe.ledger.protocol import Ledger
from audiopipe.ledger.resilient import ResilientLedger
from audiopipe.ledger.rows import ErrorRow, LanguageTotal, Role, RunRow, RunStatus, WorkerRow, WorkerStatus
from audiopipe.redaction import redact
from audiopipe.types import ShardResult

__all__ = ["MeteredLedger", "RunMetrics"]

SHARD_SECONDS = (5, 10, 30, 60, 120, 300, 600, 1200, 3600)


class RunMetrics:
    """The metrics of one driver, in base units of Prometheus: seconds, bytes, ratios from 0 to 1.

    Args:
        partition: index of the driver's partition, and the number of partitions.
    """

    def __init__(self, partition: tuple[int, int] = (0, 1)) -> None:
        self.registry = CollectorRegistry()
        self._partition, self._partitions = partition
        ProcessCollector(registry=self.registry)
        self._run = Info("audiopipe_run", "The run of this driver.", registry=self.registry)
        self._running = self._gauge("run_running", "1 while the driver works, 0 after its end.")
        self._heartbeat = self._gauge("heartbeat_timestamp_seconds", "Time of the driver's last heartbeat.")
        self._planned_videos = self._gauge("planned_videos", "Videos of the whole run.", "language")
        self._planned_shards = self._gauge("planned_shards", "Shards of the whole run.", "language")
        self._shards = self._counter("shards", "Committed shards.", "language")
        self._videos = self._counter("videos", "Processed videos.", "language", "outcome")
        self._segments = self._counter("segments", "Processed segments.", "language", "outcome")
        self._audio = self._counter("audio_seconds", "Seconds of audio that were read, and kept.", "language", "kind")
        self._bytes = self._counter("bytes", "Bytes that were read from sources, and written.", "direction")
        self._drops = self._counter("dropped_segments", "Dropped segments by reason.", "reason")
        self._failed = self._counter("failed_videos", "Videos that failed permanently, by error.", "error")
        self._attempts = self._counter("failed_attempts", "Failed attempts at shards, by error.", "error")
        self._stage_s = self._counter("stage_seconds", "Seconds of work of each stage.", "stage")
        self._stage_cpu_s = self._counter("stage_cpu_seconds", "CPU seconds of each stage.", "stage")
        self._stage_items = self._counter("stage_items", "Items of each stage.", "stage")
        self._queues = self._gauge("queue_depth", "Mean length of a queue in the last committed shard.", "queue")
        self._durations = Histogram(
            "audiopipe_shard_duration_seconds",
            "Duration of the shards of this session.",
            registry=self.registry,
            buckets=SHARD_SECONDS,
        )
        self._workers = self._gauge("workers", "Workers by status.", "status")
        self._cpu = self._gauge("worker_cpu_ratio", "CPU use of a worker; 1 is one core.", "worker")
        self._memory = self._gauge("worker_memory_bytes", "Memory of a worker.", "worker")
        self._gpu = self._gauge("worker_gpu_ratio", "Utilization of a worker's GPU.", "worker")
        self._gpu_memory = self._gauge("worker_gpu_memory_bytes", "Used memory of a worker's GPU.", "worker")

    def start(self, run: RunRow, languages: Iterable[LanguageTotal]) -> None:
        """Set the run and what is planned."""
        info = {"run_id": run.run_id, "output": redact(run.output or ""), "version": run.version or ""}
        self._run.info(info | {"config_digest": run.config_digest or "", "partition": str(self._partition)})
        self._running.set(1)
        for language in languages:
            self._planned_videos.labels(language.language).set(language.total_videos)
            self._planned_shards.labels(language.language).set(language.total_shards)

    def add_before(self, results: Iterable[ShardResult]) -> None:
        """Count the shards of the partition that were committed before."""
        for result in results:
            if self._partitions == 1 or result.partition == self._partition:
                self._add(result)

    def add(self, result: ShardResult) -> None:
        """Count a shard that was committed now."""
        self._add(result)
        self._durations.observe(result.wall_s)
        for name, depth in result.queue_depths.items():
            self._queues.labels(name).set(depth)

    def add_failure(self, error: str) -> None:
        """Count a failed attempt at a shard."""
        self._attempts.labels(error).inc()

    def set_workers(self, rows: Iterable[WorkerRow], now: float) -> None:
        """Set the state of the workers; those that left are forgotten."""
        workers = [row for row in rows if row.role is Role.WORKER]
        states = Tally(row.status for row in workers)
        for status in WorkerStatus:
            self._workers.labels(status).set(states[status])
        for family in (self._cpu, self._memory, self._gpu, self._gpu_memory):
            family.clear()
        for row in workers:
            if row.status.alive:
                name = row.worker_id.rpartition("/")[2]
                self._cpu.labels(name).set(row.cpu_utilization / 100)
                self._memory.labels(name).set(row.memory_bytes)
                self._gpu.labels(name).set(row.gpu_utilization / 100)
                self._gpu_memory.labels(name).set(row.gpu_memory_bytes)
        self._heartbeat.set(now)

    def finish(self) -> None:
        """Note the end of the driver."""
        self._running.set(0)

    def _add(self, result: ShardResult) -> None:
        language = result.language
        self._shards.labels(language).inc()
        self._videos.labels(language, "done").inc(result.videos - result.videos_failed)
        self._videos.labels(language, "failed").inc(result.videos_failed)
        self._segments.labels(language, "kept").inc(result.segments_kept)
        self._segments.labels(language, "dropped").inc(result.segments - result.segments_kept)
        self._audio.labels(language, "read").inc(result.audio_s)
        self._audio.labels(language, "kept").inc(result.kept_s)
        self._bytes.labels("read").inc(result.bytes_in)
        self._bytes.labels("written").inc(result.bytes_out)
        for reason, count in result.drops.items():
            self._drops.labels(reason).inc(count)
        for letter in result.dead_letters:
            self._failed.labels(letter.error_type).inc()
        for family, values in (
            (self._stage_s, result.stage_s),
            (self._stage_cpu_s, result.stage_cpu_s),
            (self._stage_items, result.stage_items),
        ):
            for stage, value in values.items():
                family.labels(stage).inc(value)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"audiopipe_{name}", description, labels, registry=self.registry)

    def _gauge(self, name: str, description: str, *labels: str) -> Gauge:
        return Gauge(f"audiopipe_{name}", description, labels, registry=self.registry)


class MeteredLedger(ResilientLedger):
    """The ledger of a driver that also serves its numbers over HTTP, at `/metrics`.

    Args:
        open_ledger, path: as for `ResilientLedger`.
        address: host and port of the endpoint; port 0 takes a free one.
        partition: index of the driver's partition, and the number of partitions.

    Raises:
        ConfigError: the endpoint cannot be opened.
        LedgerError: as `ResilientLedger`.
    """

    def __init__(
        self, open_ledger: Callable[[], Ledger], path: Path, address: tuple[str, int], partition: tuple[int, int]
    ) -> None:
        self.metrics = RunMetrics(partition)
        host, port = address
        try:
            self._server, self._thread = start_http_server(port, host, self.metrics.registry)
        except OSError as error:
            raise ConfigError(
                f"metrics_address {host}:{port} cannot be opened: {error.strerror or error}; choose another port"
            ) from error
        try:
            super().__init__(open_ledger, path)
        except BaseException:
            self._stop()
            raise

    @property
    def port(self) -> int:
        """The port of the endpoint."""
        return self._server.server_port

    def start_run(self, run: RunRow, languages: Sequence[LanguageTotal]) -> None:
        self.metrics.start(run, languages)
        super().start_run(run, languages)

    def record_shard(self, result: ShardResult) -> None:
        self.metrics.add(result)
        super().record_shard(result)

    def record_shards(self, results: Sequence[ShardResult]) -> None:
        self.metrics.add_before(results)
        super().record_shards(results)

    def record_failure(self, run_id: str, error: ErrorRow) -> None:
        self.metrics.add_failure(error.error_type)
        super().record_failure(run_id, error)

    def heartbeat(self, run_id: str, workers: Sequence[WorkerRow]) -> None:
        self.metrics.set_workers(workers, time.time())
        super().heartbeat(run_id, workers)

    def finish_run(self, run_id: str, status: RunStatus) -> None:
        self.metrics.finish()
        super().finish_run(run_id, status)

    def close(self) -> None:
        super().close()
        self._stop()

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
