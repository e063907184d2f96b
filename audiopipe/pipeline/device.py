"""Who uses the device, and how samples get there.

On CUDA a batch goes through pinned memory over a stream of its own, so that the next one travels while the device works
on this one, as the type it was decoded to: 16-bit samples stay 16 bits on the bus.

A pass that runs out of memory is tried again, in the same shape, with the device to itself. Whether it fits then is a
matter of its shape and of the device, and no longer of what the worker's other shards happen to do; so are the smaller
tiles that it is cut into if it does not, and with them the last bits of the results.
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

__all__ = ["DeviceBatch", "SharedExclusiveLock", "device_lock", "transfer"]

# Read by cuBLAS when it begins, before any batch comes. With workspaces of several sizes the sums of the recurrent cell
# that finds voice may come out in another order (cuDNN's notes on reproducibility), and with them the output's bytes.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@dataclass(frozen=True)
class DeviceBatch:
    """A batch for the device: samples [B, C, T] and lengths [B] on it or, where it has no room, on the host.

    For a CPU the samples are those of the clips, [C, T] each: its kernels put them side by side a few at a time, so
    that nothing as large as a batch is ever written.
    """

    clips: tuple[Clip, ...]
    samples: torch.Tensor | list[torch.Tensor] = field(repr=False)
    lengths: torch.Tensor | None = field(default=None, repr=False)
    ready: torch.cuda.Event | None = field(default=None, repr=False)

    def tile(self, device: torch.device, items: slice) -> tuple[torch.Tensor | list[torch.Tensor], torch.Tensor | None]:
        """Samples and lengths of some items, for kernels."""
        self._wait()
        if isinstance(self.samples, list) or self.lengths is None:
            return self.samples[items], None
        return self.samples[items].to(device, non_blocking=True), self.lengths[items]

    def _wait(self) -> None:
        """Let what is asked of the device from now on by this thread begin when the samples are there."""
        if self.ready is not None and isinstance(self.samples, torch.Tensor):
            stream = torch.cuda.current_stream(self.samples.device)
            stream.wait_event(self.ready)
            self.samples.record_stream(stream)


def transfer(batch: Batch, device: torch.device) -> DeviceBatch:
    """Start a batch on its way to the device."""
    if device.type == "cpu":
        return DeviceBatch(batch.clips, [torch.from_numpy(clip.pcm) for clip in batch.clips])
    # Where the copy starts from, at once: a batch that was put together elsewhere would have to be copied here first.
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
    """Passes over one device: any number side by side, or one alone."""

    def __init__(self) -> None:
        self._under_way = 0
        self._waiting = 0  # to be alone
        self._alone = False
        self._changed = threading.Condition()

    @contextmanager
    def shared(self) -> Generator[None, None, None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Generator[None, None, None]:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._alone and not self._under_way)
            self._waiting, self._alone = self._waiting - 1, True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


@cache
def device_lock(device: torch.device) -> SharedExclusiveLock:
    """Those of this process."""
    return SharedExclusiveLock()
