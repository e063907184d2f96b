"""Time the kernels on a CUDA device: from device memory, and from pinned host memory to results on the host."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from audiopipe import kernels

_SAMPLE_RATE, _TO_RATE, _SECONDS, _BATCH = 48_000, 16_000, 10, 128
_COPY_BYTES = 1 << 30  # copied to measure the bandwidth of the device's memory


@dataclass(frozen=True)
class GpuResult:
    """A labeled number, as text."""

    label: str
    value: str


def _measure_best_s(call: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def _measure_copy_rate(size: int, to_device: bool, rounds: int, on: torch.device) -> float:
    """Measure the rate of a pinned copy in bytes per second."""
    host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(size, dtype=torch.uint8, device=on)
    target, source = (device, host) if to_device else (host, device)
    return size / _measure_best_s(lambda: target.copy_(source, non_blocking=True), rounds)


def _measure_memory_rate(size: int, rounds: int, on: torch.device) -> float:
    """Measure the rate at which the device's memory is read and written in a copy, in bytes per second."""
    source = torch.empty(size, dtype=torch.uint8, device=on)
    target = torch.empty_like(source)
    return 2 * size / _measure_best_s(lambda: target.copy_(source), rounds)


class _Stream:
    """Batches from pinned memory to results on the host; a batch is copied while the previous one is computed."""

    def __init__(self, batches: int, on: torch.device) -> None:
        samples = _SAMPLE_RATE * _SECONDS
        out = kernels.resampled_length(samples, _SAMPLE_RATE, _TO_RATE)
        generator = torch.Generator().manual_seed(0)
        noise = (torch.randn(_BATCH, 1, samples, generator=generator) * 3000).to(torch.int16)
        self.source = [noise.clone().pin_memory() for _ in range(2)]
        self.arrived = [torch.empty_like(noise, device=on) for _ in range(2)]
        self.audio = [torch.empty(_BATCH, 1, out, dtype=torch.int16, pin_memory=True) for _ in range(2)]
        self.metrics = [torch.empty(_BATCH, len(kernels.METRICS), pin_memory=True) for _ in range(2)]
        self.copies, self.batches = torch.cuda.Stream(on), batches
        self.bytes_in, self.bytes_out = noise.nbytes, self.audio[0].nbytes + self.metrics[0].nbytes

    def _fetch(self, slot: int, free: torch.cuda.Event | None) -> torch.cuda.Event:
        with torch.cuda.stream(self.copies):
            if free is not None:
                self.copies.wait_event(free)
            self.arrived[slot].copy_(self.source[slot], non_blocking=True)
            arrived: torch.cuda.Event = self.copies.record_event()
            return arrived

    def run(self) -> None:
        """Process all batches and wait for the last result."""
        ready = self._fetch(0, None)
        free: list[torch.cuda.Event | None] = [None, None]
        for i in range(self.batches):
            slot = i % 2
            torch.cuda.current_stream().wait_event(ready)
            if i + 1 < self.batches:
                ready = self._fetch(1 - slot, free[1 - slot])
            x = self.arrived[slot]
            self.metrics[slot].copy_(kernels.measure(x, _SAMPLE_RATE).stack(), non_blocking=True)
            y = kernels.resample(x, _SAMPLE_RATE, _TO_RATE)
            free[slot] = torch.cuda.current_stream().record_event()
            pcm = (
                y.mul_(kernels.INT16_FULL_SCALE)
                .round_()
                .clamp_(-kernels.INT16_FULL_SCALE, kernels.INT16_FULL_SCALE - 1)
                .to(torch.int16)
            )
            self.audio[slot].copy_(pcm, non_blocking=True)
        torch.cuda.synchronize()


def measure_gpu(quick: bool = False, on: torch.device | None = None) -> list[GpuResult]:
    """Time `measure` and `resample` to 16 kHz on batches of 128 items of 10 s at 48 kHz in int16."""
    on = on or torch.device("cuda")
    rounds, batches = (3, 4) if quick else (10, 24)
    stream = _Stream(batches, on)
    on_device: Tensor = stream.source[0].to(on)

    def resident() -> None:
        kernels.measure(on_device, _SAMPLE_RATE).stack()
        kernels.resample(on_device, _SAMPLE_RATE, _TO_RATE)

    resident()
    torch.cuda.reset_peak_memory_stats()
    resident_s = _measure_best_s(resident, rounds) / _BATCH
    peak_gb = torch.cuda.max_memory_allocated() / 1e9
    stream.run()
    stream_s = _measure_best_s(stream.run, rounds) / (_BATCH * batches)
    to_device, to_host = (_measure_copy_rate(stream.bytes_in, way, rounds, on) for way in (True, False))
    memory = _measure_memory_rate(_COPY_BYTES, rounds, on)
    # The fewest bytes that the device's memory must move: the samples in, the new samples out as float32.
    min_bytes = (stream.bytes_in + 2 * stream.bytes_out) / _BATCH
    bus_bytes = (stream.bytes_in + stream.bytes_out) / _BATCH
    copy_s = stream.bytes_in / _BATCH / to_device
    return [
        GpuResult(label, value)
        for label, value in (
            ("(a) from device memory, segments/s", f"{1 / resident_s:,.0f}"),
            ("(a) share of the memory bound", f"{min_bytes / memory / resident_s:.3f}"),
            ("(a) peak memory, GB", f"{peak_gb:.2f}"),
            ("(b) pinned host to results on the host, segments/s", f"{1 / stream_s:,.0f}"),
            ("(b) share of the pinned copy rate", f"{copy_s / stream_s:.3f}"),
            ("bytes over the bus per segment", f"{bus_bytes:,.0f}"),
            ("bytes of device memory per segment, at least", f"{min_bytes:,.0f}"),
            ("pinned copy to the device, GB/s", f"{to_device / 1e9:.1f}"),
            ("pinned copy to the host, GB/s", f"{to_host / 1e9:.1f}"),
            ("device memory, GB/s", f"{memory / 1e9:,.0f}"),
        )
    ]
