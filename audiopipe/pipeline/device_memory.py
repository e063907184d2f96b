"""Give each worker process a fixed part of its GPU's memory.

Several workers share a GPU. Without limits, whether a batch fits would depend on what the other processes hold at that
moment, and with it into how many tiles it is divided. A process with a fixed part runs out of memory for its own
allocations only.
"""

from __future__ import annotations

import os
from functools import cache

import torch

from audiopipe.config.environment import WORKERS_PER_GPU
from audiopipe.errors import BrokenWorker

__all__ = ["limit_device_memory", "memory_fraction"]

# Each process needs this much outside of PyTorch's allocator: for its CUDA context, loaded kernels and libraries.
CONTEXT_BYTES = 1 << 30


@cache
def limit_device_memory(device: torch.device) -> None:
    """Limit this process to its part of a GPU's memory, once; later allocations beyond it raise `OutOfMemoryError`.

    The launcher of the workers sets AUDIOPIPE_WORKERS_PER_GPU to how many share a GPU; default: one.

    Raises:
        BrokenWorker: so many workers do not fit on the GPU.
    """
    workers = int(os.environ.get(WORKERS_PER_GPU, "1"))
    total_bytes = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(memory_fraction(total_bytes, workers), device)


def memory_fraction(total_bytes: int, workers: int) -> float:
    """Return the share of a GPU's memory that the allocator of each of its workers may use.

    Raises:
        BrokenWorker: nothing would be left.
    """
    free_bytes = total_bytes - workers * CONTEXT_BYTES
    if free_bytes <= 0:
        raise BrokenWorker(
            f"{workers} workers share a GPU of {total_bytes / 2**30:.0f} GB, and each needs more than 1 GB: set "
            "workers_per_gpu in the cluster profile"
        )
    return free_bytes / total_bytes / workers
