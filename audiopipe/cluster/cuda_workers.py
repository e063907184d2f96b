"""Several Dask-CUDA workers for each GPU, on a machine with many cores per GPU."""

from __future__ import annotations

import logging
import os
from typing import Any

from dask_cuda import CUDAWorker
from dask_cuda.utils import get_n_gpus
from distributed.worker_memory import parse_memory_limit

from audiopipe.cluster.engines import useful_workers
from audiopipe.config.environment import WORKERS_PER_GPU

__all__ = ["CUDAWorkers"]


class CUDAWorkers(CUDAWorker):  # type: ignore[misc]
    """All workers of a machine, for engines that start one process on each machine.

    Args:
        scheduler: address of the scheduler.
        workers_per_gpu: by default as many as the machine's cores can use.
        name: name of the first worker, and prefix of the others' names.
        memory_limit: limit of each worker; 'auto' divides the machine's memory among them.
        options: arguments of CUDAWorker.
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
        per_gpu = workers_per_gpu or useful_workers(len(os.sched_getaffinity(0)), gpus)
        logger = logging.getLogger(__name__)
        limit = parse_memory_limit(memory_limit, nthreads=1, total_cores=gpus * per_gpu, logger=logger)
        super().__init__(scheduler, name=name, memory_limit=limit, **options)
        for number in range(1, per_gpu):
            worker_name = None if name is None else f"{name}.{number}"
            self.nannies += CUDAWorker(scheduler, name=worker_name, memory_limit=limit, **options).nannies
        for nanny in self.nannies:  # which have not started their workers yet
            nanny.env[WORKERS_PER_GPU] = str(per_gpu)
