"""The Dask task of a run: one shard, processed on a worker.

The pipeline is imported when a task starts: a driver does not compute, and PyTorch takes 0.5 GB and seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from distributed import get_worker
from distributed.metrics import context_meter

from audiopipe.config import RunConfig
from audiopipe.errors import AudiopipeError, DecoderCrash, DecoderTimeout, WorkerFailure
from audiopipe.redaction import redact_causes
from audiopipe.types import Shard, ShardResult

__all__ = ["Attempt", "Task", "copy_segments", "get_attempt", "process_videos", "run_task"]

# Commits a shard and returns its result: task(shard, config, run_id, worker), called on a worker.
Task = Callable[[Shard, RunConfig, str, str], ShardResult]

# Errors that may be the worker's: the machine's, those that no store and no video raises, and ends of decoders.
SUSPICIOUS = (WorkerFailure, DecoderCrash, DecoderTimeout)


@dataclass(frozen=True)
class Attempt:
    """The worker of a failed attempt, which its error carries to the driver.

    Attributes:
        worker, address: name and address of the Dask worker.
        is_unsound: the worker has failed its own check, so the error says nothing about the shard.
    """

    worker: str
    address: str
    is_unsound: bool = False


def get_attempt(error: BaseException) -> Attempt | None:
    """Return the attempt that `run_task` attached to an error; None if another process lost it."""
    attempt = vars(error).get("attempt")
    return attempt if isinstance(attempt, Attempt) else None


def run_task(
    task: Task,
    shard: Shard,
    config: RunConfig,
    run_id: str,
    driver: str,
    isolated: bool = False,
    last_attempt: bool = False,
) -> ShardResult:
    """Process a shard on the worker that calls this, and add its stage times to Dask's fine performance metrics.

    If that fails in a way that may be the worker's fault, the worker is checked before it takes another shard. It is
    also checked before an attempt that may make dead letters of errors of this kind.

    Args:
        driver: id of the driver; `<driver>/<worker's name>` becomes the result's `worker`.
        isolated: try each video in a child process instead of `process_shard`, because one may kill its worker.
        last_attempt: no attempt follows, so a transient error that belongs to one video makes it a dead letter.

    Raises:
        Exception: as the task; with an `Attempt` attached.
    """
    from audiopipe.pipeline.self_check import require_sound_worker  # noqa: PLC0415 - imports torch

    worker = get_worker()
    attempt = Attempt(str(worker.name), worker.address)
    try:
        if isolated or last_attempt:
            require_sound_worker(config)
        result = _process(task, shard, config, run_id, f"{driver}/{worker.name}", isolated, last_attempt)
    except Exception as error:
        failure = _check(error, shard, config)
        redact_causes(error)
        vars(failure or error)["attempt"] = replace(attempt, is_unsound=failure is not None)
        if failure is None or failure is error:
            raise
        raise failure from error
    for stage, seconds in result.stage_s.items():
        context_meter.digest_metric(stage, seconds, "seconds")
    return result


def process_videos(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
    """Process and commit a shard of videos, as `pipeline.shard.process_shard`."""
    return _process(process_videos, shard, config, run_id, worker, isolated=False, last_attempt=False)


def copy_segments(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
    """Copy the segments of a selection's shard from its parent and commit them, as `pipeline.copy.copy_shard`."""
    from audiopipe.pipeline.copy import copy_shard  # noqa: PLC0415 - imports torch

    return copy_shard(shard, config, run_id, worker)


def _process(
    task: Task, shard: Shard, config: RunConfig, run_id: str, worker: str, isolated: bool, last_attempt: bool
) -> ShardResult:
    if task is not process_videos:
        return task(shard, config, run_id, worker)
    from audiopipe.pipeline.quarantine import process_isolated  # noqa: PLC0415 - imports torch
    from audiopipe.pipeline.self_check import require_sound_worker  # noqa: PLC0415 - imports torch
    from audiopipe.pipeline.shard import process_shard  # noqa: PLC0415 - imports torch

    if isolated:
        return process_isolated(shard, config, run_id, worker, last_attempt=last_attempt)
    confirm = partial(require_sound_worker, config)
    return process_shard(shard, config, run_id, worker, last_attempt=last_attempt, confirm=confirm)


def _check(error: Exception, shard: Shard, config: RunConfig) -> WorkerFailure | None:
    """Return why the worker cannot work; None if the error is not the worker's or the worker passes its check."""
    if isinstance(error, WorkerFailure) and error.is_confirmed:
        return error
    if isinstance(error, AudiopipeError) and not isinstance(error, SUSPICIOUS):
        return None
    from audiopipe.pipeline.self_check import check_worker  # noqa: PLC0415 - imports torch

    return check_worker(config, _needed_bytes(error, shard, config))


def _needed_bytes(error: Exception, shard: Shard, config: RunConfig) -> int:
    """Return the free space that the worker must have: after a full disk, that of the videos it fetches ahead."""
    from audiopipe.pipeline.self_check import MIN_FREE_BYTES  # noqa: PLC0415 - imports torch

    if not isinstance(error, WorkerFailure) or not isinstance(error.__cause__, OSError):
        return MIN_FREE_BYTES
    sources = sum(video.size_bytes or 0 for video in shard.videos)
    return MIN_FREE_BYTES + min(config.prefetch_mb << 20, sources)
