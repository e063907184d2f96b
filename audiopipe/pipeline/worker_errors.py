"""Recognize the errors of the machine that a worker runs on: its GPU, memory, disk, libraries and processes.

Such an error says nothing about the video that the worker was processing.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Generator
from contextlib import contextmanager

import torch

from audiopipe.errors import BrokenWorker, MissingExtra, WorkerFailure
from audiopipe.store.retry import FULL_ERRNOS

__all__ = ["raise_worker_failures", "to_worker_failure"]

# A person must act: nothing that the worker or a retry does can change these.
BROKEN = re.compile(
    r"NVIDIA driver|no CUDA GPUs|CUDA driver (version|initialization)|not compiled with CUDA|no kernel image|"
    r"CUDA unknown error|cannot open shared object file|NVML",
    re.IGNORECASE,
)
# PyTorch raises RuntimeError for what its libraries report.
GPU = re.compile(r"\b(CUDA|cuDNN|CUDNN_|cuBLAS|CUBLAS_|cuFFT|CUFFT_|cuSOLVER|NCCL|NVRTC|nvrtc|HIP)", re.IGNORECASE)
NO_THREAD = "can't start new thread"
# The machine has no more files, processes or memory, or its disk fails.
MACHINE_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO})


def to_worker_failure(error: BaseException) -> WorkerFailure | None:
    """Convert an error of the machine; return None for any other error."""
    if isinstance(error, WorkerFailure):
        return error
    if isinstance(error, ImportError | MissingExtra):
        return BrokenWorker(f"a package or library cannot be loaded: {error}")
    if isinstance(error, MemoryError):
        return WorkerFailure(f"out of memory: {error or 'MemoryError'}")
    if isinstance(error, OSError):
        return _of_os_error(error)
    return _of_runtime_error(error) if isinstance(error, RuntimeError) else None


def _of_runtime_error(error: RuntimeError) -> WorkerFailure | None:
    """Convert an error that PyTorch raises for its libraries, or Python for the system."""
    text = str(error).strip().partition("\n")[0]
    if BROKEN.search(text):
        return BrokenWorker(f"its GPU cannot be used: {text}")
    if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError) or GPU.search(text):
        return WorkerFailure(f"its GPU failed: {text}")
    return WorkerFailure(text) if NO_THREAD in text else None


def _of_os_error(error: OSError) -> WorkerFailure | None:
    text = f"{type(error).__name__}: {error}"
    if error.errno in FULL_ERRNOS:
        return BrokenWorker(f"its disk is full or cannot be written: {error}")
    if BROKEN.search(str(error)):
        return BrokenWorker(text)
    if error.errno in MACHINE_ERRNOS or isinstance(error, ChildProcessError):
        return WorkerFailure(text)
    return None


@contextmanager
def raise_worker_failures() -> Generator[None, None, None]:
    """Raise the errors of the machine as `WorkerFailure`, and all others unchanged."""
    try:
        yield
    except Exception as error:
        failure = to_worker_failure(error)
        if failure is None or failure is error:
            raise
        raise failure from error
