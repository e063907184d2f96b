import errno

import pytest
import torch

from audiopipe.errors import (
    AudiopipeError,
    BrokenWorker,
    DecoderCrash,
    MissingExtra,
    PermanentStoreError,
    StoreError,
    UndecodableMedia,
    WorkerFailure,
)
from audiopipe.pipeline.worker_errors import raise_worker_failures, to_worker_failure

BROKEN = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EROFS, "Read-only file system"),
    OSError("libcuda.so.1: cannot open shared object file: No such file or directory"),
    RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
    RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."),
    RuntimeError("No CUDA GPUs are available"),
    ModuleNotFoundError("No module named 's3fs'"),
    ImportError("libsndfile.so: undefined symbol"),
    MissingExtra("reading s3:// needs s3fs"),
]
FAILURES = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700),
    RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("can't start new thread"),
    OSError(errno.EMFILE, "Too many open files"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    ChildProcessError("the fork server of the decoders could not be started"),
]
OTHERS = [
    ZeroDivisionError(),
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    ValueError("negative length"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    StoreError("the store does not answer"),
    PermanentStoreError("not permitted"),
    UndecodableMedia("not one sample"),
    DecoderCrash("killed by signal 9"),
]


@pytest.mark.parametrize("error", BROKEN, ids=str)
def test_what_a_person_must_repair_is_a_broken_worker(error: Exception) -> None:
    assert isinstance(to_worker_failure(error), BrokenWorker)


@pytest.mark.parametrize("error", FAILURES, ids=str)
def test_an_error_of_the_machine_is_a_worker_failure(error: Exception) -> None:
    failure = to_worker_failure(error)
    assert type(failure) is WorkerFailure
    assert "\n" not in str(failure)


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_errors_of_videos_stores_and_code_are_unchanged(error: Exception) -> None:
    assert to_worker_failure(error) is None
    with pytest.raises(type(error)) as raised, raise_worker_failures():
        raise error
    assert raised.value is error


def test_the_cause_stays_with_the_failure() -> None:
    with pytest.raises(WorkerFailure, match="out of memory") as raised, raise_worker_failures():
        raise MemoryError
    assert isinstance(raised.value.__cause__, MemoryError)
    assert isinstance(raised.value, AudiopipeError)
