"""Bring batches to the device, and control which passes may use it at the same time.

On CUDA a batch goes through pinned memory over a separate stream, so that the next batch is copied while the device
works on this one. It is copied as the type it was decoded to: 16-bit samples stay 16 bits on the bus.

A pass that runs out of memory is repeated with the same shape while no other pass of the process uses the device, and
other processes have their own parts of its memory (`device_memory.py`). Whether it fits then depends on its shape and
the size of the part, and not on other shards or workers. The same holds for the smaller tiles that it is divided into
if it does not fit. A tile has the padding of its batch, so each clip is computed from the same samples in any tiling.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import torch

from audiopipe.pipeline.batch import Batch
from audiopipe.types import Clip

__all__ = ["DeviceBatch", "SharedExclusiveLock", "get_device_lock", "transfer"]

# cuBLAS reads this when it is initialized, before the first batch. With workspaces of several sizes the sums in the
# recurrent cell of the voice model may be computed in another order (cuDNN's notes on reproducibility), which would
# change the output's bytes.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@dataclass(frozen=True)
class DeviceBatch:
    """A batch for the device: samples [B, C, T] and lengths [B], on the device or, if it had no memory, on the host.

    For a CPU the samples are those of the clips, [C, T] each: its kernels pad a few of them at a time, so that a tensor
    as large as the batch is never written. `ready` is the event after which the device has the samples.
    """

    clips: tuple[Clip, ...]
    samples: torch.Tensor | list[torch.Tensor] = field(repr=False)
    lengths: torch.Tensor | None = field(default=None, repr=False)
    ready: torch.cuda.Event | None = field(default=None, repr=False)

    def tile(self, device: torch.device, items: slice) -> tuple[torch.Tensor | list[torch.Tensor], torch.Tensor | None]:
        """Return the samples and lengths of some items, on the device, for kernels."""
        self._wait_until_ready()
        if isinstance(self.samples, list) or self.lengths is None:
            return self.samples[items], None
        return self.samples[items].to(device, non_blocking=True), self.lengths[items]

    def _wait_until_ready(self) -> None:
        """Make this thread's further work on the device wait for the samples; the thread itself does not wait."""
        if self.ready is not None and isinstance(self.samples, torch.Tensor):
            stream = torch.cuda.current_stream(self.samples.device)
            stream.wait_event(self.ready)
            self.samples.record_stream(stream)


def transfer(batch: Batch, device: torch.device) -> DeviceBatch:
    """Start copying a batch to the device."""
    if device.type == "cpu":
        return DeviceBatch(batch.clips, [torch.from_numpy(clip.pcm) for clip in batch.clips])
    # The batch is collated directly in the pinned memory that it is copied from.
    host = torch.from_numpy(batch.clips[0].pcm).new_empty(batch.shape, pin_memory=True)
    lengths = torch.tensor(batch.collate(host.numpy()))
    stream = _copy_stream(device)
    try:
        with torch.cuda.stream(stream):
            return DeviceBatch(batch.clips, host.to(device, non_blocking=True), lengths, stream.record_event())
    except torch.OutOfMemoryError:
        return DeviceBatch(batch.clips, host, lengths)


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class SharedExclusiveLock:
    """Lets any number of threads in together, or one thread alone. A waiting exclusive user has precedence."""

    def __init__(self) -> None:
        self._sharing = 0
        self._exclusive_waiting = 0
        self._is_exclusive = False
        self._changed = threading.Condition()

    @contextmanager
    def shared(self) -> Generator[None, None, None]:
        """Hold the lock together with other shared users."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_exclusive and not self._exclusive_waiting)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Generator[None, None, None]:
        """Hold the lock alone."""
        with self._changed:
            self._exclusive_waiting += 1
            self._changed.wait_for(lambda: not self._is_exclusive and not self._sharing)
            self._exclusive_waiting, self._is_exclusive = self._exclusive_waiting - 1, True
        try:
            yield
        finally:
            with self._changed:
                self._is_exclusive = False
                self._changed.notify_all()


@cache
def get_device_lock(device: torch.device) -> SharedExclusiveLock:
    """Return this process's lock of a device."""
    return SharedExclusiveLock()
