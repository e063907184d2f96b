"""The rows of the ledger and their statuses. A field has the name of its column; counts and units as named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from audiopipe.ledger.record import Row
from audiopipe.types import DeadLetter, Seconds, ShardResult

__all__ = [
    "ErrorRow",
    "LanguageProgress",
    "LanguageTotal",
    "Role",
    "RunProgress",
    "RunRow",
    "RunRows",
    "RunStatus",
    "ShardRow",
    "ShardStatus",
    "WorkerRow",
    "WorkerStatus",
    "describe_unknown_run",
]


class RunStatus(StrEnum):
    """`incomplete` ended with shards left to do and can be started again; `failed` ended by an error of its own."""

    RUNNING = "running"
    DONE = "done"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


class WorkerStatus(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    IDLE = "idle"
    STALE = "stale"
    FAILED = "failed"
    DONE = "done"

    @property
    def alive(self) -> bool:
        """Whether heartbeats are expected of it."""
        return self in (WorkerStatus.STARTING, WorkerStatus.RUNNING, WorkerStatus.IDLE)


class ShardStatus(StrEnum):
    FAILED = "failed"
    DONE = "done"


class Role(StrEnum):
    WORKER = "worker"
    DRIVER = "driver"


@dataclass(frozen=True, slots=True)
class LanguageTotal(Row):
    """What a run has to do in one language."""

    language: str
    total_videos: int
    total_shards: int = 0


@dataclass(frozen=True, slots=True)
class RunRow(Row):
    """A run. `resumed_at` is the start of its last session; `heartbeat_s` says when a worker counts as stale."""

    run_id: str
    language: str
    total_videos: int
    started_at: str | None = None
    completed_at: str | None = None
    status: RunStatus = RunStatus.RUNNING
    resumed_at: str | None = None
    output: str | None = None
    config_digest: str | None = None
    version: str | None = None
    heartbeat_s: Seconds = 10.0


@dataclass(frozen=True, slots=True)
class WorkerRow(Row):
    """A worker's state, or a driver's (`role`). `worker_id` holds host and partition; counters never decrease.

    Utilizations are percentages of the worker's own cores and GPU; a worker that is not alive should report rates of 0.
    """

    worker_id: str
    role: Role = Role.WORKER
    partition_index: int = 0
    partition_count: int = 1
    hostname: str | None = None
    instance_type: str | None = None
    videos_total: int = 0
    videos_processed: int = 0
    segments_total: int = 0
    segments_processed: int = 0
    segments_dropped: int = 0
    videos_per_minute: float = 0.0
    segments_per_second: float = 0.0
    gpu_utilization: float = 0.0
    cpu_utilization: float = 0.0
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0
    status: WorkerStatus = WorkerStatus.STARTING
    last_heartbeat: str | None = None
    last_error: str | None = None
    error_count: int = 0
    started_at: str | None = None


@dataclass(frozen=True, slots=True)
class ShardRow(Row):
    """The state of one shard. `attempts` counts tries over all sessions; `attempt` names the one that is the shard."""

    shard: str
    language: str
    status: ShardStatus
    partition_index: int = 0
    attempts: int = 0
    attempt: str | None = None
    worker_id: str | None = None
    device: str | None = None
    videos: int = 0
    videos_failed: int = 0
    segments: int = 0
    segments_kept: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    audio_s: Seconds = 0.0
    kept_s: Seconds = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    stage_s: dict[str, Seconds] = field(default_factory=dict)
    wall_s: Seconds = 0.0
    error: str | None = None
    started_at: str | None = None
    finished_at: str | None = None

    @classmethod
    def from_result(cls, result: ShardResult) -> ShardRow:
        """The row of a commit; its `attempts` is the database's to count."""
        return cls.from_row(
            {
                **asdict(result),
                "status": ShardStatus.DONE,
                "partition_index": result.partition,
                "worker_id": result.worker,
            }
        )


@dataclass(frozen=True, slots=True)
class ErrorRow(Row):
    """A dead letter (`video_id` set, tried `attempts` times) or a failed attempt at a shard (`attempt` set)."""

    event_id: str
    error_type: str
    error_message: str
    worker_id: str | None = None
    video_id: str | None = None
    stack_trace: str | None = None
    created_at: str | None = None
    language: str | None = None
    shard: str | None = None
    stage: str | None = None
    attempt: int | None = None
    retriable: bool | None = None
    attempts: int = 1

    @classmethod
    def from_dead_letter(cls, letter: DeadLetter, result: ShardResult) -> ErrorRow:
        """The same dead letter always has the same `event_id`, however often its commit is recorded."""
        return cls(
            event_id=f"{result.shard}/{letter.video_id}",
            error_type=letter.error_type,
            error_message=letter.message,
            worker_id=result.worker,
            video_id=letter.video_id,
            created_at=result.finished_at,
            language=letter.language,
            shard=result.shard,
            stage=letter.stage,
            retriable=letter.retriable,
            attempts=letter.attempts,
        )


@dataclass(frozen=True, slots=True)
class RunProgress(Row):
    """A row of the view `run_progress`: videos, videos per minute, hours."""

    run_id: str
    language: str
    total_videos: int
    processed: int
    assigned: int
    avg_rate: float | None
    total_rate: float | None
    active_workers: int
    failed_workers: int
    hours_elapsed: float
    hours_remaining: float | None


@dataclass(frozen=True, slots=True)
class LanguageProgress(Row):
    """What is done of one language. `rate` is videos per minute now (see `rates`); the rest are sums of its shards."""

    language: str
    total_videos: int
    total_shards: int
    processed: int = 0
    failed: int = 0
    shards_done: int = 0
    segments: int = 0
    kept: int = 0
    audio_s: Seconds = 0.0
    kept_s: Seconds = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class RunRows:
    """All that the monitor shows of a run, as of one moment.

    Attributes:
        processed: videos, as the view `run_progress` counts them.
        shards: the last finished ones, newest first; only language, videos, segments, audio, worker and end are filled.
        errors: the newest first.
    """

    run: RunRow
    processed: int
    languages: Sequence[LanguageProgress]
    workers: Sequence[WorkerRow]
    shards: Sequence[ShardRow]
    errors: Sequence[ErrorRow]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> RunRows:
        """From rows by the names of these attributes."""
        return cls(
            RunRow.from_row(body["run"]),
            int(body["processed"]),
            [LanguageProgress.from_row(row) for row in body["languages"]],
            [WorkerRow.from_row(row) for row in body["workers"]],
            [ShardRow.from_row(row) for row in body["shards"]],
            [ErrorRow.from_row(row) for row in body["errors"]],
        )


def describe_unknown_run(ledger: str, run_id: str, runs: Sequence[RunRow]) -> str:
    """What to say to somebody who asks for a run that is not there."""
    known = ", ".join(run.run_id for run in runs[:5]) or "none"
    return f"{ledger} has no run {run_id!r}; its newest are {known}: leave the id out for the newest"
