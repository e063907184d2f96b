"""Power of the fingerprint's bands in each frame of a recording, from blocks of any size in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiopipe.kernels import compiler
from audiopipe.kernels.audio import INT16_FULL_SCALE
from audiopipe.kernels.compiled_bands import decimate, measure_bands
from audiopipe.kernels.fft_plan import FftPlan, plan_fft
from audiopipe.kernels.float32 import full_float32
from audiopipe.kernels.spectral_items import real_turns

__all__ = ["BANDS", "BandMeter", "create_meter"]

BANDS, LOWEST_HZ, HIGHEST_HZ = 9, 200.0, 3000.0
HOP_S = 0.032
# Constant, so that the size of the input blocks never changes a bit of the result. A chunk is large enough to hide the
# cost of a call and small enough for the caches of a core.
CHUNK_FRAMES = 256
UNROLL = 8  # output values per row of the decimation matrix; hops are multiples of it


class _BandPlan(NamedTuple):
    """The constants that map samples to band powers: decimation by `step`, then frames of 2 * `hop` samples.

    `decimate` maps samples to 8 values of the decimated signal, except for the contribution of the next `step` samples
    to the last value, which is the reverse of `rising`, the weights of a step. They are whole numbers, so that sums of
    samples of 16 bits are exact up to 48 kHz; `unit` is their factor. `weights` map the power of N bins to the bands.

    Shape:
        - decimate: [8 step C, 8]
        - rising: [step C]
        - weights: [N, BANDS]
    """

    step: int
    hop: int
    decimate: Tensor
    rising: Tensor
    unit: float
    window: Tensor
    first_bin: int
    weights: Tensor


@lru_cache(maxsize=32)
def _plan_bands(sample_rate: int, channels: int) -> _BandPlan:
    step = sample_rate // 8000
    rate = sample_rate / step
    # A multiple of 8: an FFT whose length has a large prime factor takes six times as long.
    hop = 8 * round(HOP_S * rate / 8)
    # A triangle over two steps has deep notches around all frequencies that would alias onto the bands.
    rising = (2.0 * torch.arange(step, dtype=torch.float32) + 1.0).repeat_interleave(channels)
    matrix = torch.block_diag(*[rising[:, None]] * UNROLL)
    matrix[len(rising) :, :-1] += torch.block_diag(*[rising.flip(0)[:, None]] * (UNROLL - 1))
    bins = torch.arange(hop + 1, dtype=torch.float64) * rate / (2 * hop)
    width = rate / (2 * hop)
    edges = LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** (torch.arange(BANDS + 1, dtype=torch.float64) / BANDS)
    overlap = torch.minimum(bins[:, None] + width / 2, edges[1:]) - torch.maximum(bins[:, None] - width / 2, edges[:-1])
    weights = (overlap.clamp(min=0) / (edges[1:] - edges[:-1])).to(torch.float32)
    nonzero = weights.sum(1).nonzero().flatten()
    first, last = int(nonzero[0]), int(nonzero[-1]) + 1
    # The squares of this window add up to 1 at an overlap of half, so powers do not depend on where frames begin.
    window = torch.hann_window(2 * hop, dtype=torch.float64).sqrt().to(torch.float32)
    unit = 1 / (2 * step**2 * channels)
    return _BandPlan(step, hop, matrix, rising, unit, window, first, weights[first:last])


class BandMeter(Protocol):
    """Measures the powers of chunks of frames: [CHUNK_FRAMES, BANDS], the mean of the bins of a band."""

    def add(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the powers of the chunks that the next samples [T, C] complete."""
        ...

    def finish(self) -> Tensor:
        """Return the powers of the last chunk, with silence after the samples."""
        ...


def create_meter(sample_rate: int, channels: int) -> BandMeter:
    """Create a meter; a compiled one where there is a transform for the rate."""
    plan = _plan_bands(sample_rate, channels)
    fft = plan_fft(plan.hop) if compiler.is_available() else None
    return _PlainMeter(plan, channels) if fft is None else _CompiledMeter(plan, fft)


class _PlainMeter:
    """Measures with torch. Buffers the samples of a chunk, so that one product mixes their channels and decimates."""

    def __init__(self, plan: _BandPlan, channels: int) -> None:
        self._plan = plan
        self._advance = CHUNK_FRAMES * plan.hop * plan.step
        # Interleaved as a decoder returns them.
        self._samples = torch.zeros(self._advance + (plan.hop + 1) * plan.step, channels)
        self._filled = 0

    def add(self, x: Tensor) -> Iterator[Tensor]:
        while len(x):
            free = len(self._samples) - self._filled
            part, x = x[:free], x[free:]
            target = self._samples[self._filled : self._filled + len(part)]
            if part.dtype == torch.int16:
                target.copy_(part)
            else:
                torch.mul(part, INT16_FULL_SCALE, out=target)
            self._filled += len(part)
            if self._filled == len(self._samples):
                yield self._measure()

    def finish(self) -> Tensor:
        self._samples[self._filled :] = 0.0
        return self._measure()

    def _measure(self) -> Tensor:
        """Compute the powers of a full chunk; keep the samples that the next chunk starts with."""
        plan = self._plan
        with full_float32():
            frames = _decimate(self._samples.flatten(), plan).unfold(0, 2 * plan.hop, plan.hop) * plan.window
            parts = torch.view_as_real(torch.fft.rfft(frames)[:, plan.first_bin :][:, : len(plan.weights)]).square()
            powers = torch.mm(parts.flatten(1), plan.weights.repeat_interleave(2, 0))
        self._filled = len(self._samples) - self._advance
        self._samples[: self._filled] = self._samples[self._advance :].clone()
        return powers


def _decimate(samples: Tensor, plan: _BandPlan) -> Tensor:
    """Decimate interleaved samples: [(M + 1) step C] -> [M]"""
    size, width = len(plan.rising), len(plan.decimate)
    low = torch.mm(samples[:-size].view(-1, width), plan.decimate)
    low[:, -1] += torch.mv(samples[width:].unfold(0, size, width), plan.rising.flip(0))
    return low.view(-1) * plan.unit


class _CompiledMeter:
    """Measures with compiled functions. Buffers the decimated signal of a chunk."""

    def __init__(self, plan: _BandPlan, fft: FftPlan) -> None:
        self._plan, self._fft = plan, fft
        self._rising, self._window = plan.rising.numpy(), plan.window.numpy() * np.float32(0.5)
        self._turns, self._weights = real_turns(fft.size), np.ascontiguousarray(plan.weights.T.numpy())
        self._low = np.zeros((CHUNK_FRAMES + 1) * plan.hop, np.float32)
        self._filled = 0
        # Samples that the next values are computed from: less than two steps, interleaved.
        self._rest = np.zeros(0, np.float32)

    def add(self, x: Tensor) -> Iterator[Tensor]:
        samples = x.to(torch.float32).flatten().numpy()
        # A full scale of 32768, also for samples that are decimated where they are.
        factor = 1.0 if x.dtype == torch.int16 else INT16_FULL_SCALE
        width = len(self._rising)
        if len(self._rest):
            # Complete a step and one more, with which the other samples start; so these are not copied.
            taken = -len(self._rest) % width + width
            joined = np.concatenate([self._rest, samples[:taken] * np.float32(factor)])
            yield from self._decimate(joined, 1.0)
            if len(samples) <= taken:
                return
            samples = samples[taken - width :]
        yield from self._decimate(samples, factor)
        self._rest = self._rest * np.float32(factor)

    def finish(self) -> Tensor:
        width, count = len(self._rising), min(2, len(self._low) - self._filled)
        self._low[self._filled :] = 0
        padded = np.concatenate([self._rest, np.zeros(3 * width - len(self._rest), np.float32)])
        decimate(padded[: (count + 1) * width], self._rising, self._plan.unit, self._low[self._filled :][:count])
        return self._measure()

    def _decimate(self, samples: npt.NDArray[np.float32], factor: float) -> Iterator[Tensor]:
        """Decimate samples times a factor from the start of a step on, and set the rest, without the factor."""
        width = len(self._rising)
        steps = max(len(samples) // width - 1, 0)
        first = 0
        while first < steps:
            count = min(steps - first, len(self._low) - self._filled)
            part = samples[first * width : (first + count + 1) * width]
            decimate(part, self._rising, factor * self._plan.unit, self._low[self._filled : self._filled + count])
            first, self._filled = first + count, self._filled + count
            if self._filled == len(self._low):
                yield self._measure()
        self._rest = samples[steps * width :]

    def _measure(self) -> Tensor:
        """Compute the powers of a full chunk; keep the values that the next chunk starts with."""
        powers = np.empty((CHUNK_FRAMES, BANDS), np.float32)
        measure_bands(
            self._low, self._window, self._fft.radices, self._fft.factors, self._fft.order, self._turns,
            self._plan.first_bin, self._weights, powers,
        )  # fmt: skip
        self._filled = self._plan.hop
        self._low[: self._filled] = self._low[-self._filled :]
        return torch.from_numpy(powers)
