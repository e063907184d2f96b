"""Dask-CUDA's workers, several for a GPU that many cores feed."""

from __future__ import annotations

import logging
import os
from typing import Any

from dask_cuda import CUDAWorker
from dask_cuda.utils import get_n_gpus
from distributed.worker_memory import parse_memory_limit

from audiopipe.cluster.engines import useful_workers

__all__ = ["CUDAWorkers"]


class CUDAWorkers(CUDAWorker):  # type: ignore[misc]
    """All workers of a machine, for engines that start one thing on each.

    Args:
        scheduler: its address.
        workers_per_gpu: if not by the machine's cores.
        name: of the first worker; those of the others begin with it.
        memory_limit: of each; 'auto' shares out what the machine has.
        options: CUDAWorker's.
    """

    def __init__(
        self,
        scheduler: str | None = None,
        *,
        workers_per_gpu: int | None = None,
        name: str | None = None,
        memory_limit: str | float | None = "auto",
        **options: Any,
    ) -> None:
        gpus = get_n_gpus()
        each = workers_per_gpu or useful_workers(len(os.sched_getaffinity(0)), gpus)
        logger = logging.getLogger(__name__)
        limit = parse_memory_limit(memory_limit, nthreads=1, total_cores=gpus * each, logger=logger)
        super().__init__(scheduler, name=name, memory_limit=limit, **options)
        for number in range(1, each):
            also = None if name is None else f"{name}.{number}"
            self.nannies += CUDAWorker(scheduler, name=also, memory_limit=limit, **options).nannies
