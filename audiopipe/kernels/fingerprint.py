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

import torch
from torch import Tensor

from audiopipe.kernels.band_power import BANDS, create_meter
from audiopipe.kernels.checks import check_rate, check_samples
from audiopipe.kernels.float32 import full_float32

MAX_EVENTS = 128

# In frames: width of the smoothing window, half the distance over which a change is measured, distance within
# which a margin must be the largest, reach of the mean level, and offsets of the frames whose signs complete an event.
SMOOTHING, CHANGE, PEAK_REACH, LEVEL = 13, 5, 8, 30
CONTEXT_OFFSETS = (-16, 16, 32)
REACH = max(map(abs, CONTEXT_OFFSETS)) + CHANGE + max(LEVEL, SMOOTHING // 2) + PEAK_REACH
MIN_MARGIN = 0.02
# Mean power of a bin with full scale 32768, at about -85 dBFS; quieter audio has no events.
SILENCE_POWER = 100.0
WINDOW_FRAMES = 4096  # events are computed from so many frames at a time


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
        self._channels = channels
        self._meter = create_meter(check_rate(sample_rate), channels)
        # Start and end with silence, so that a short recording has events up to its edges.
        self._powers = [torch.zeros(REACH, BANDS)]
        self._lowest = torch.zeros(0, dtype=torch.int64)

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Add the next samples: [C, T] in int16, float32 or float64; fastest if x.T is contiguous.

        Raises:
            ValueError: `x` has another shape or dtype.
        """
        if check_samples(x).ndim != 2 or x.shape[0] != self._channels:
            raise ValueError(f"x must have two dimensions, [{self._channels} channels, samples], not {list(x.shape)}")
        # Reshape a single channel: torch copies x.T element by element because of its unusual stride.
        for powers in self._meter.add(x.T if self._channels > 1 else x.reshape(-1, 1)):
            self._append(powers)

    def _append(self, powers: Tensor) -> None:
        self._powers.append(powers)
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
        self._append(self._meter.finish())
        self._update_lowest(torch.cat([*self._powers, torch.zeros(REACH, BANDS)]))
        return self._lowest
