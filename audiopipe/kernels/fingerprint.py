"""Acoustic fingerprint: recognize a recording after another codec, gain, sample rate or a cut start.

The kernel measures the power of nine bands, smoothed over 0.4 s, and how the ratios of neighboring bands change within
a third of a second: eight numbers per frame. Their signs survive a codec unless a number is near zero. Therefore it
selects the frames at which the smallest of the eight magnitudes has a local maximum. A copy has the same maxima
wherever it starts, and their eight signs are reliable. The signs at three frames around a maximum distinguish it from
others. Together they form a number of 32 bits, an *event*; speech has about two events per second.

The fingerprint is the set of the 128 lowest events. Two recordings that share most events share most of the lowest
ones, so a fixed number of bytes compares recordings of any duration (bottom-k sampling, Cohen and Kaplan 2007).
Signs of band differences as a fingerprint: Haitsma and Kalker, "A highly robust audio fingerprinting system", 2002.
The selection of frames and the sampling are specific to this implementation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from audiopipe.kernels import compiler
from audiopipe.kernels.audio import INT16_FULL_SCALE
from audiopipe.kernels.checks import check_rate, check_samples
from audiopipe.kernels.compiled_bands import decimate, fill_windows, sum_bands
from audiopipe.kernels.float32 import full_float32

MAX_EVENTS = 128

BANDS, LOWEST_HZ, HIGHEST_HZ = 9, 200.0, 3000.0
HOP_S = 0.032
# In frames of HOP_S: width of the smoothing window, half the distance over which a change is measured, distance within
# which a margin must be the largest, reach of the mean level, and offsets of the frames whose signs complete an event.
SMOOTHING, CHANGE, PEAK_REACH, LEVEL = 13, 5, 8, 30
CONTEXT_OFFSETS = (-16, 16, 32)
REACH = max(map(abs, CONTEXT_OFFSETS)) + CHANGE + max(LEVEL, SMOOTHING // 2) + PEAK_REACH
MIN_MARGIN = 0.02
# Mean power of a bin with full scale 32768, at about -85 dBFS; quieter audio has no events.
SILENCE_POWER = 100.0
# Constant, so that the size of the input blocks never changes a bit of the result. A chunk is large enough to hide the
# cost of a call and small enough for the caches of a core.
CHUNK_FRAMES, WINDOW_FRAMES = 256, 4096
UNROLL = 8  # output values per row of the decimation matrix; hops are multiples of it
# Of the 24 signs around an event that may differ in a copy; the 8 signs of the event's own frame may not.
TOLERATED_BITS = 4


class _BandPlan(NamedTuple):
    """The constants that map samples to band powers: decimation by `step`, then frames of 2 * `hop` samples.

    `decimate` maps samples to 8 values of the decimated signal, except for the contribution of the next `step` samples
    to the last value, which is the reverse of `rising`, the weights of a step. They are whole numbers, so that sums of
    samples of 16 bits are exact up to 48 kHz; `unit` is their factor. `weights` map the squared real and imaginary
    parts of N bins to the bands.

    Shape:
        - decimate: [8 step C, 8]
        - rising: [step C]
        - weights: [2 N, BANDS]
        - band_weights: [BANDS, N]
    """

    step: int
    hop: int
    decimate: Tensor
    rising: Tensor
    unit: float
    window: Tensor
    first_bin: int
    weights: Tensor
    band_weights: Tensor


@lru_cache(maxsize=32)
def _plan_bands(sample_rate: int, channels: int) -> _BandPlan:
    step = sample_rate // 8000
    rate = sample_rate / step
    # A multiple of 8: an FFT whose length has a large prime factor takes six times as long.
    hop = 8 * round(HOP_S * rate / 8)
    # A triangle over two steps has deep notches around all frequencies that would alias onto the bands.
    rising = (2.0 * torch.arange(step, dtype=torch.float32) + 1.0).repeat_interleave(channels)
    decimate = torch.block_diag(*[rising[:, None]] * UNROLL)
    decimate[len(rising) :, :-1] += torch.block_diag(*[rising.flip(0)[:, None]] * (UNROLL - 1))
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
    both = weights[first:last].repeat_interleave(2, 0)
    return _BandPlan(step, hop, decimate, rising, unit, window, first, both, weights[first:last].T.contiguous())


def _decimate(samples: Tensor, plan: _BandPlan) -> Tensor:
    """Decimate interleaved samples: [(M + 1) step C] -> [M]"""
    size, width = len(plan.rising), len(plan.decimate)
    if compiler.is_available():
        result = torch.empty(len(samples) // size - 1)
        decimate(samples.numpy(), plan.rising.numpy(), plan.unit, result.numpy())
        return result
    low = torch.mm(samples[:-size].view(-1, width), plan.decimate)
    low[:, -1] += torch.mv(samples[width:].unfold(0, size, width), plan.rising.flip(0))
    return low.view(-1) * plan.unit


def _band_powers(x: Tensor, plan: _BandPlan) -> Tensor:
    """Compute the mean power of a bin in each band for the mean of the channels: [T, C] -> [frames, BANDS]"""
    low = _decimate(x.flatten(), plan)
    if compiler.is_available():
        frames = torch.empty(len(low) // plan.hop - 1, 2 * plan.hop)
        fill_windows(low.numpy(), plan.window.numpy(), frames.numpy())
        powers = torch.empty(len(frames), BANDS)
        spectra = torch.view_as_real(torch.fft.rfft(frames)).flatten(1).numpy()
        sum_bands(spectra, plan.first_bin, plan.band_weights.numpy(), powers.numpy())
        return powers
    spectrum = torch.fft.rfft(low.unfold(0, 2 * plan.hop, plan.hop) * plan.window)
    parts = torch.view_as_real(spectrum).flatten(1)  # real and imaginary parts alternate
    band_parts = parts[:, 2 * plan.first_bin : 2 * plan.first_bin + len(plan.weights)]
    return torch.mm(band_parts.square(), plan.weights)


def _windows(values: Tensor, reach: int) -> Tensor:
    """Return each value with its neighbors: [M] -> [M - 2 reach, 2 reach + 1]"""
    return values.unfold(0, 2 * reach + 1, 1)


def _events(powers: Tensor) -> Tensor:
    """Compute the events of the frames [REACH, M - REACH): powers [M, BANDS] -> [N] int64 below 2^32"""
    weights = torch.hann_window(SMOOTHING + 2, periodic=False)[1:-1]
    edge = SMOOTHING // 2
    smooth = torch.nn.functional.pad(_windows(powers, edge) @ (weights / weights.sum()), (0, 0, edge, edge))
    level = torch.nn.functional.pad(_windows(smooth.sum(1), LEVEL).mean(1), (LEVEL, LEVEL))
    # The fourth root approximates loudness. Two square roots are bit-exact on every machine; a power function is not.
    loudness = (smooth / (level + SILENCE_POWER)[:, None]).sqrt().sqrt()
    balance = loudness[:, 1:] - loudness[:, :-1]
    change = torch.zeros_like(balance)
    change[CHANGE:-CHANGE] = balance[2 * CHANGE :] - balance[: -2 * CHANGE]
    margin = change.abs().amin(1)
    inner = slice(REACH, len(powers) - REACH)
    largest = _windows(margin, PEAK_REACH).amax(1)[REACH - PEAK_REACH : len(powers) - REACH - PEAK_REACH]
    frames = ((margin[inner] == largest) & (margin[inner] > MIN_MARGIN)).nonzero().flatten() + REACH
    bits = ((change > 0).to(torch.int64) << torch.arange(BANDS - 1)).sum(1)
    event = bits[frames]
    for offset in CONTEXT_OFFSETS:
        event = event << (BANDS - 1) | bits[frames + offset]
    return event


class Fingerprint:
    """Compute the fingerprint of a recording from blocks of any size, in constant memory.

    Args:
        sample_rate (int): from 8 to 192 kHz.
        channels (int): of every block; the fingerprint is that of their mean.
    """

    def __init__(self, sample_rate: int, channels: int = 1) -> None:
        self._plan = plan = _plan_bands(check_rate(sample_rate), channels)
        self._advance = CHUNK_FRAMES * plan.hop * plan.step
        # Interleaved as a decoder returns them, so that one product mixes the channels and decimates the samples.
        self._samples = torch.zeros(self._advance + (plan.hop + 1) * plan.step, channels)
        self._filled = 0
        # Start and end with silence, so that a short recording has events up to its edges.
        self._powers = [torch.zeros(REACH, BANDS)]
        self._lowest = torch.zeros(0, dtype=torch.int64)

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Add the next samples: [C, T] in int16, float32 or float64; fastest if x.T is contiguous.

        Raises:
            ValueError: `x` has another shape or dtype.
        """
        channels = self._samples.shape[1]
        if check_samples(x).ndim != 2 or x.shape[0] != channels:
            raise ValueError(f"x must have two dimensions, [{channels} channels, samples], not {list(x.shape)}")
        # Reshape a single channel: torch copies x.T element by element because of its unusual stride.
        for part in self._split(x.T if channels > 1 else x.reshape(-1, 1)):
            target = self._samples[self._filled : self._filled + len(part)]
            if x.dtype == torch.int16:
                target.copy_(part)
            else:
                torch.mul(part, INT16_FULL_SCALE, out=target)
            self._filled += len(part)
            if self._filled == len(self._samples):
                self._measure()

    def _split(self, x: Tensor) -> Iterator[Tensor]:
        """Yield parts that fit into the buffer; the caller empties the buffer whenever it is full."""
        while len(x):
            free = len(self._samples) - self._filled
            yield x[:free]
            x = x[free:]

    def _measure(self) -> None:
        """Compute the powers of a full chunk; keep the samples that the next chunk starts with."""
        with full_float32():
            self._powers.append(_band_powers(self._samples, self._plan))
        self._filled = len(self._samples) - self._advance
        self._samples[: self._filled] = self._samples[self._advance :].clone()
        if sum(map(len, self._powers)) >= WINDOW_FRAMES:
            powers = torch.cat(self._powers)
            self._update_lowest(powers)
            self._powers = [powers[-2 * REACH :].clone()]

    def _update_lowest(self, powers: Tensor) -> None:
        with full_float32():
            self._lowest = torch.unique(torch.cat([self._lowest, _events(powers)]))[:MAX_EVENTS]

    @torch.no_grad()
    def finish(self) -> Tensor:
        """Return the lowest events in ascending order: int64 [K], K at most `MAX_EVENTS`, each below 2^32."""
        self._samples[self._filled :] = 0.0
        self._measure()
        self._update_lowest(torch.cat([*self._powers, torch.zeros(REACH, BANDS)]))
        return self._lowest


@lru_cache(maxsize=1)
def _popcounts() -> Tensor:
    """Return the number of set bits of each number of 16 bits: [65536] int16"""
    bits = torch.arange(1 << 16)[:, None] >> torch.arange(16)
    return (bits & 1).sum(1).to(torch.int16)


def similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the similarity of pairs of recordings: the share of events that two fingerprints have in common.

    Two events match if the signs of their frames are equal and at most 4 of the 24 signs around them differ. A full
    fingerprint does not include events above its last one, so both are compared up to the lower of the two last events.

    Args:
        a (Tensor), b (Tensor): events in ascending order, padded with -1 at the end.
    Shape:
        - a: [P, K], b: [P, L], int64
        - output: [P] each
    Returns:
        The Jaccard index of the events (0 if there are none), and the number of common events.
    """
    limit = torch.minimum(_complete_up_to(a), _complete_up_to(b))[:, None]
    in_a, in_b = (a >= 0) & (a <= limit), (b >= 0) & (b <= limit)
    # Few events have equal signs in their frames; all further steps process only those.
    frames_a = torch.where(in_a, a >> 24, -1).to(torch.int16)
    frames_b = torch.where(in_b, b >> 24, -2).to(torch.int16)
    pair, i, j = (frames_a[:, :, None] == frames_b[:, None, :]).nonzero().unbind(1)
    difference = a[pair, i] ^ b[pair, j]
    match = _popcounts()[difference & 0xFFFF] + _popcounts()[difference >> 16] <= TOLERATED_BITS
    matched_a, matched_b = torch.zeros_like(in_a), torch.zeros_like(in_b)
    matched_a[pair[match], i[match]] = True
    matched_b[pair[match], j[match]] = True
    common = torch.minimum(matched_a.sum(1), matched_b.sum(1))
    union = in_a.sum(1) + in_b.sum(1) - common
    return common / union.clamp(min=1), common


def _complete_up_to(events: Tensor) -> Tensor:
    """Return the event up to which each fingerprint is complete: [P, K] -> [P]"""
    full = (events >= 0).sum(1) == MAX_EVENTS
    return torch.where(full, events[:, -1] if events.shape[1] else torch.zeros(()), 1 << 32)
