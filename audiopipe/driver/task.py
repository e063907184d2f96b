"""The Dask task of a run: one shard, processed on a worker."""

from __future__ import annotations

from collections.abc import Callable

from distributed import get_worker
from distributed.metrics import context_meter

from audiopipe.config import RunConfig
from audiopipe.pipeline.quarantine import process_isolated
from audiopipe.types import Shard, ShardResult

__all__ = ["Task", "run_task"]

# Commits a shard and returns its result: task(shard, config, run_id, worker), called on a worker.
Task = Callable[[Shard, RunConfig, str, str], ShardResult]


def run_task(
    task: Task, shard: Shard, config: RunConfig, run_id: str, driver: str, isolated: bool = False
) -> ShardResult:
    """Process a shard on the worker that calls this, and add its stage times to Dask's fine performance metrics.

    Args:
        driver: id of the driver; `<driver>/<worker's name>` becomes the result's `worker`.
        isolated: try each video in a child process instead of calling `task`, because a video may kill its worker.
    """
    process = process_isolated if isolated else task
    result = process(shard, config, run_id, f"{driver}/{get_worker().name}")
    for stage, seconds in result.stage_s.items():
        context_meter.digest_metric(stage, seconds, "seconds")
    return result
