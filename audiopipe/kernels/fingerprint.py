"""What a recording is recognised by after another codec, gain, sample rate or a cut start: an acoustic fingerprint.

The powers of nine bands, smoothed over 0.4 s, rise and fall. What is looked at is how the balance between neighbouring
bands changes within a third of a second: eight numbers, whose signs survive a codec unless a number is near zero. So
the moments are taken at which the *smallest* of the eight is at its largest: these moments find themselves again in
every copy, wherever it starts, and their eight signs are firm. The signs at three moments around one tell it from the
others. That makes 32 bits, an *event*, of which speech has about two a second.

The fingerprint is the set of the 128 lowest events. Of two recordings that share most of their events the lowest are
mostly the same ones, so a fixed number of bytes compares recordings of any length (bottom-k sampling, Cohen and Kaplan
2007). Signs of band differences as a fingerprint: Haitsma and Kalker, "A highly robust audio fingerprinting system",
2002; the choice of firm moments and the sampling are our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from audiopipe.kernels.audio import INT16_FULL_SCALE, check_rate, check_samples
from audiopipe.kernels.float32 import full_float32

MAX_EVENTS = 128

BANDS, LOWEST_HZ, HIGHEST_HZ = 9, 200.0, 3000.0
HOP_S = 0.032
# In frames of HOP_S: the smoothing, half the distance over which a change is seen, how far a moment's margin must be
# the largest, the reach of the mean level, and where the other signs are read.
SMOOTHING, CHANGE, RIVALS, LEVEL = 13, 5, 8, 30
AROUND = (-16, 16, 32)
REACH = max(map(abs, AROUND)) + CHANGE + max(LEVEL, SMOOTHING // 2) + RIVALS
LEAST_MARGIN = 0.02
# Mean power of a bin, full scale 32768, at about -85 dBFS: below it there is nothing to be recognised.
NOTHING = 100.0
# Fixed, so that the size of the blocks that come in never changes a bit of what comes out.
CHUNK_FRAMES, WINDOW_FRAMES = 512, 1024
EIGHT = 8  # values thinned out at once: hops are whole eights of them
# Of the 24 signs around a moment that may differ in a copy; the 8 of the moment itself may not.
TOLERATED_BITS = 4


class _BandPlan(NamedTuple):
    """How samples become band powers: every `step`-th of a low-passed signal, then frames of 2 * `hop`.

    `thinned` [8 step C, 8] takes samples to eight values of that signal, but for what the next `step` samples add to
    the last of them, which is `falling` [step C]. `weights` [2 N, BANDS] take the squares of the real and imaginary
    parts of N bins to the bands.
    """

    step: int
    hop: int
    thinned: Tensor
    falling: Tensor
    window: Tensor
    first_bin: int
    weights: Tensor


@lru_cache(maxsize=32)
def _plan(sample_rate: int, channels: int) -> _BandPlan:
    step = sample_rate // 8000
    rate = sample_rate / step
    # Whole eights: a transform of a length with a large prime factor takes six times as long.
    hop = 8 * round(HOP_S * rate / 8)
    # A triangle over two steps: deep notches around all that would fold onto the bands.
    ramp = ((torch.arange(step, dtype=torch.float32) + 0.5) / step**2 / channels).repeat_interleave(channels)
    rising, falling = ramp, ramp.flip(0)
    thinned = torch.block_diag(*[rising[:, None]] * EIGHT)
    thinned[len(ramp) :, :-1] += torch.block_diag(*[falling[:, None]] * (EIGHT - 1))
    bins = torch.arange(hop + 1, dtype=torch.float64) * rate / (2 * hop)
    width = rate / (2 * hop)
    edges = LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** (torch.arange(BANDS + 1, dtype=torch.float64) / BANDS)
    overlap = torch.minimum(bins[:, None] + width / 2, edges[1:]) - torch.maximum(bins[:, None] - width / 2, edges[:-1])
    weights = (overlap.clamp(min=0) / (edges[1:] - edges[:-1])).to(torch.float32)
    used = weights.sum(1).nonzero().flatten()
    first, last = int(used[0]), int(used[-1]) + 1
    # Squares of this window add up to one at half its length: the powers do not depend on where frames begin.
    window = torch.hann_window(2 * hop, dtype=torch.float64).sqrt().to(torch.float32)
    return _BandPlan(step, hop, thinned, falling, window, first, weights[first:last].repeat_interleave(2, 0))


def _band_powers(x: Tensor, plan: _BandPlan) -> Tensor:
    """Mean power of a bin in each band, of the mean of the channels: x [T, C] to [frames, BANDS]."""
    samples, width = x.flatten(), len(plan.thinned)
    low = torch.mm(samples[: -len(plan.falling)].view(-1, width), plan.thinned)
    low[:, -1] += torch.mv(samples[width:].unfold(0, len(plan.falling), width), plan.falling)
    spectrum = torch.fft.rfft(low.view(-1).unfold(0, 2 * plan.hop, plan.hop) * plan.window)
    parts = torch.view_as_real(spectrum).flatten(1)  # real and imaginary, one after the other, are squared in one go
    used = parts[:, 2 * plan.first_bin : 2 * plan.first_bin + len(plan.weights)]
    return torch.mm(used.square(), plan.weights)


def _around(values: Tensor, reach: int) -> Tensor:
    """Each value [M] and its neighbours: [M - 2 * reach, 2 * reach + 1]."""
    return values.unfold(0, 2 * reach + 1, 1)


def _events(powers: Tensor) -> Tensor:
    """The events of the frames [REACH, M - REACH) of powers [M, BANDS], as int64 [N] below 2^32."""
    weights = torch.hann_window(SMOOTHING + 2, periodic=False)[1:-1]
    edge = SMOOTHING // 2
    smooth = torch.nn.functional.pad(_around(powers, edge) @ (weights / weights.sum()), (0, 0, edge, edge))
    level = torch.nn.functional.pad(_around(smooth.sum(1), LEVEL).mean(1), (LEVEL, LEVEL))
    # The fourth root weighs bands much as the ear does; two square roots are the same on every machine, a power is not.
    loudness = (smooth / (level + NOTHING)[:, None]).sqrt().sqrt()
    balance = loudness[:, 1:] - loudness[:, :-1]
    change = torch.zeros_like(balance)
    change[CHANGE:-CHANGE] = balance[2 * CHANGE :] - balance[: -2 * CHANGE]
    margin = change.abs().amin(1)
    inner = slice(REACH, len(powers) - REACH)
    largest = _around(margin, RIVALS).amax(1)[REACH - RIVALS : len(powers) - REACH - RIVALS]
    at = ((margin[inner] == largest) & (margin[inner] > LEAST_MARGIN)).nonzero().flatten() + REACH
    bits = ((change > 0).to(torch.int64) << torch.arange(BANDS - 1)).sum(1)
    event = bits[at]
    for offset in AROUND:
        event = event << (BANDS - 1) | bits[at + offset]
    return event


class Fingerprint:
    """The fingerprint of a recording that comes in blocks of any size, in constant memory.

    Args:
        sample_rate (int): from 8 to 192 kHz.
        channels (int): of every block; the mean of them is what is heard.
    """

    def __init__(self, sample_rate: int, channels: int = 1) -> None:
        self._plan = plan = _plan(check_rate(sample_rate), channels)
        self._advance = CHUNK_FRAMES * plan.hop * plan.step
        # Interleaved as they come from a decoder, so that channels are mixed and samples thinned out in one product.
        self._samples = torch.zeros(self._advance + (plan.hop + 1) * plan.step, channels)
        self._held = 0
        # Silence before the start and after the end, so that a short recording has events up to its edges.
        self._powers = [torch.zeros(REACH, BANDS)]
        self._kept = torch.zeros(0, dtype=torch.int64)

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """The next samples: [C, T] in int16, float32 or float64; fastest if x.T is contiguous."""
        channels = self._samples.shape[1]
        if check_samples(x).ndim != 2 or x.shape[0] != channels:
            raise ValueError(f"x must have two dimensions, [{channels} channels, samples], not {list(x.shape)}")
        # Not x.T of a single channel: its stride is none of memory, and torch copies such one by one.
        for part in self._parts(x.T if channels > 1 else x.reshape(-1, 1)):
            target = self._samples[self._held : self._held + len(part)]
            if x.dtype == torch.int16:
                target.copy_(part)
            else:
                torch.mul(part, INT16_FULL_SCALE, out=target)
            self._held += len(part)
            if self._held == len(self._samples):
                self._measure()

    def _parts(self, x: Tensor) -> Iterator[Tensor]:
        """As much as there is room for, until there is nothing left."""
        while len(x):
            room = len(self._samples) - self._held
            yield x[:room]
            x = x[room:]

    def _measure(self) -> None:
        """The powers of a full chunk; what the next one begins with stays."""
        with full_float32():
            self._powers.append(_band_powers(self._samples, self._plan))
        self._held = len(self._samples) - self._advance
        self._samples[: self._held] = self._samples[self._advance :].clone()
        if sum(map(len, self._powers)) >= WINDOW_FRAMES:
            powers = torch.cat(self._powers)
            self._keep(powers)
            self._powers = [powers[-2 * REACH :].clone()]

    def _keep(self, powers: Tensor) -> None:
        with full_float32():
            self._kept = torch.unique(torch.cat([self._kept, _events(powers)]))[:MAX_EVENTS]

    @torch.no_grad()
    def finish(self) -> Tensor:
        """The lowest events of all that came in, ascending: int64 [K], K at most `MAX_EVENTS`, each below 2^32."""
        self._samples[self._held :] = 0.0
        self._measure()
        self._keep(torch.cat([*self._powers, torch.zeros(REACH, BANDS)]))
        return self._kept


@lru_cache(maxsize=1)
def _ones() -> Tensor:
    """How many bits are set in each number of 16 bits."""
    bits = torch.arange(1 << 16)[:, None] >> torch.arange(16)
    return (bits & 1).sum(1).to(torch.int16)


def similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """How alike recordings are, from their fingerprints: the share of events that two of them have in common.

    Two events are one if the signs of their moments are the same and those around differ in 4 of 24 at most. Where a
    fingerprint is full, nothing is known of events above its last, so both are compared up to the lower of these.

    Args:
        a (Tensor), b (Tensor): events in ascending order; what is not there is -1 at the end.
    Shape:
        - a: [P, K], b: [P, L], int64
        - output: [P] each
    Returns:
        The share of common events among all (Jaccard's index, 0 where there are none), and their number.
    """
    known = torch.minimum(_known(a), _known(b))[:, None]
    in_a, in_b = (a >= 0) & (a <= known), (b >= 0) & (b <= known)
    # Few have the same moment: what comes after is done for these alone.
    moments_a = torch.where(in_a, a >> 24, -1).to(torch.int16)
    moments_b = torch.where(in_b, b >> 24, -2).to(torch.int16)
    pair, i, j = (moments_a[:, :, None] == moments_b[:, None, :]).nonzero().unbind(1)
    around = a[pair, i] ^ b[pair, j]
    near = _ones()[around & 0xFFFF] + _ones()[around >> 16] <= TOLERATED_BITS
    met_a, met_b = torch.zeros_like(in_a), torch.zeros_like(in_b)
    met_a[pair[near], i[near]] = True
    met_b[pair[near], j[near]] = True
    common = torch.minimum(met_a.sum(1), met_b.sum(1))
    union = in_a.sum(1) + in_b.sum(1) - common
    return common / union.clamp(min=1), common


def _known(events: Tensor) -> Tensor:
    """Up to which event each fingerprint [P, K] is complete."""
    full = (events >= 0).sum(1) == MAX_EVENTS
    return torch.where(full, events[:, -1] if events.shape[1] else torch.zeros(()), 1 << 32)
