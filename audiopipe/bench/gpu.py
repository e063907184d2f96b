"""The kernels on a CUDA device: from its memory, and from pinned host memory to results on the host."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from audiopipe import kernels

_SAMPLE_RATE, _TO_RATE, _SECONDS, _BATCH = 48_000, 16_000, 10, 128
_COPIED = 1 << 30  # bytes, to know what the device's memory can do


def _best_s(call: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def _copy_rate(size: int, to_device: bool, rounds: int, on: torch.device) -> float:
    """Bytes per second of one pinned copy."""
    host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(size, dtype=torch.uint8, device=on)
    target, source = (device, host) if to_device else (host, device)
    return size / _best_s(lambda: target.copy_(source, non_blocking=True), rounds)


def _memory_rate(size: int, rounds: int, on: torch.device) -> float:
    """Bytes per second that the device's memory reads and writes in a plain copy."""
    source = torch.empty(size, dtype=torch.uint8, device=on)
    target = torch.empty_like(source)
    return 2 * size / _best_s(lambda: target.copy_(source), rounds)


class _Streamed:
    """Batches from pinned memory to results on the host; the next batch is on its way while one is computed."""

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


def gpu_rows(quick: bool = False, on: torch.device | None = None) -> list[dict[str, str]]:
    """Rows of the GPU's table: 10 s at 48 kHz in int16, batch 128, `measure` and `resample` to 16 kHz."""
    on = on or torch.device("cuda")
    rounds, batches = (3, 4) if quick else (10, 24)
    streamed = _Streamed(batches, on)
    on_device: Tensor = streamed.source[0].to(on)

    def resident() -> None:
        kernels.measure(on_device, _SAMPLE_RATE).stack()
        kernels.resample(on_device, _SAMPLE_RATE, _TO_RATE)

    resident()
    torch.cuda.reset_peak_memory_stats()
    a_s = _best_s(resident, rounds) / _BATCH
    peak_gb = torch.cuda.max_memory_allocated() / 1e9
    streamed.run()
    b_s = _best_s(streamed.run, rounds) / (_BATCH * batches)
    to_device, to_host = (_copy_rate(streamed.bytes_in, way, rounds, on) for way in (True, False))
    memory = _memory_rate(_COPIED, rounds, on)
    # The least that the device's memory must move: the samples in, the new samples out as float32.
    least = (streamed.bytes_in + 2 * streamed.bytes_out) / _BATCH
    moved = (streamed.bytes_in + streamed.bytes_out) / _BATCH
    copy_s = streamed.bytes_in / _BATCH / to_device
    return [
        {"what": what, "value": value}
        for what, value in (
            ("(a) from device memory, segments/s", f"{1 / a_s:,.0f}"),
            ("(a) share of the memory bound", f"{least / memory / a_s:.3f}"),
            ("(a) peak memory, GB", f"{peak_gb:.2f}"),
            ("(b) pinned host to results on the host, segments/s", f"{1 / b_s:,.0f}"),
            ("(b) share of the pinned copy rate", f"{copy_s / b_s:.3f}"),
            ("bytes over the bus per segment", f"{moved:,.0f}"),
            ("bytes of device memory per segment, at least", f"{least:,.0f}"),
            ("pinned copy to the device, GB/s", f"{to_device / 1e9:.1f}"),
            ("pinned copy to the host, GB/s", f"{to_host / 1e9:.1f}"),
            ("device memory, GB/s", f"{memory / 1e9:,.0f}"),
        )
    ]
