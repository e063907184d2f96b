"""Rows of the ledger and their statuses. A field has the name of its column, with the unit as suffix."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from audiopipe.ledger.record import Row, RowValues, utc_now
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

ANNOTATION = "-annotate-"  # in the id of a run that adds columns, between the id of the output's run and their name


class RunStatus(StrEnum):
    """Status of a run: `incomplete` ended with shards missing and can be resumed; `failed` ended by an error."""

    RUNNING = "running"
    DONE = "done"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


class WorkerStatus(StrEnum):
    """Status of a worker or driver; `stale` means that its heartbeats have stopped."""

    STARTING = "starting"
    RUNNING = "running"
    IDLE = "idle"
    STALE = "stale"
    FAILED = "failed"
    DONE = "done"

    @property
    def alive(self) -> bool:
        """Check whether heartbeats are expected in this status."""
        return self in (WorkerStatus.STARTING, WorkerStatus.RUNNING, WorkerStatus.IDLE)


class ShardStatus(StrEnum):
    """Status of a shard that was attempted at least once."""

    FAILED = "failed"
    DONE = "done"


class Role(StrEnum):
    """Kind of process that sends a heartbeat."""

    WORKER = "worker"
    DRIVER = "driver"


@dataclass(frozen=True, slots=True)
class LanguageTotal(Row):
    """Videos and shards of one language in the plan of a run."""

    language: str
    total_videos: int
    total_shards: int = 0


@dataclass(frozen=True, slots=True)
class RunRow(Row):
    """A run. `resumed_at` is the start of its last session; `heartbeat_s` is the period of its heartbeats."""

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

    @property
    def is_annotation(self) -> bool:
        """Check whether the run adds columns to the output of another run."""
        return ANNOTATION in self.run_id


@dataclass(frozen=True, slots=True)
class WorkerRow(Row):
    """State of a worker, or of a driver (`role`). `worker_id` contains host and partition; counters never decrease.

    Utilizations are percentages of the worker's cores and GPU. A worker that has ended reports rates of 0.
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
    """State of one shard. `attempts` counts over all sessions; `attempt` is the id of the committed one."""

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
        """Build the row of a committed shard; the database counts its `attempts`."""
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
    """A dead letter (`video_id` is set, tried `attempts` times), or a failed attempt at a shard (`attempt` is set)."""

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
    def of_attempt(
        cls,
        shard: str,
        attempt: int,
        worker: str | None,
        error_type: str,
        message: str,
        stack_trace: str | None = None,
    ) -> ErrorRow:
        """Build the row of an attempt at a shard that has just failed; `attempt` counts from 1 within a session."""
        event_id, language = str(uuid.uuid4()), shard.rpartition("-")[0]
        return cls(
            event_id, error_type, message, worker, None, stack_trace, utc_now(), language, shard, attempt=attempt
        )

    @classmethod
    def from_dead_letter(cls, letter: DeadLetter, result: ShardResult) -> ErrorRow:
        """Build the row of a dead letter; its `event_id` is the same each time its commit is recorded."""
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
    """Progress of one language: sums over its finished shards, and `rate` in videos per minute (see `rates`)."""

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
    """Rows of a run, read in one transaction.

    Attributes:
        processed: number of videos, counted as in the view `run_progress`.
        shards: the last finished shards, newest first, with `shard`, `language`, `status`, `videos`, `segments`,
            `audio_s`, `worker_id` and `finished_at` only.
        errors: the last errors, newest first.
        busy_s: seconds in which a shard was being processed; None while the run is running.
    """

    run: RunRow
    processed: int
    languages: Sequence[LanguageProgress]
    workers: Sequence[WorkerRow]
    shards: Sequence[ShardRow]
    errors: Sequence[ErrorRow]
    busy_s: Seconds | None

    @classmethod
    def from_json(cls, body: RowValues) -> RunRows:
        """Build the rows from decoded JSON, an object with the names of these attributes."""
        return cls(
            RunRow.from_row(body["run"]),
            int(body["processed"]),
            [LanguageProgress.from_row(row) for row in body["languages"]],
            [WorkerRow.from_row(row) for row in body["workers"]],
            [ShardRow.from_row(row) for row in body["shards"]],
            [ErrorRow.from_row(row) for row in body["errors"]],
            None if body["busy_s"] is None else float(body["busy_s"]),
        )


def describe_unknown_run(ledger: str, run_id: str, runs: Sequence[RunRow]) -> str:
    """Return the message for a run id that is not in a ledger."""
    known = ", ".join(run.run_id for run in runs[:5]) or "none"
    return f"{ledger} has no run {run_id!r}; its newest runs are {known}: omit the run id to use the newest"
