"""The signal as power per hop: all that the windows of R 128 need of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from audiopipe.kernels.audio import GROUP_SAMPLES, MARGIN, Audio
from audiopipe.kernels.statespace import k_weighted

# L R C Ls Rs and L R C LFE Ls Rs: the surrounds weigh 1.41, the LFE is left out (BS.1770-5, table 3).
CHANNEL_WEIGHTS = {1: (1.0,), 2: (1.0, 1.0), 5: (1.0, 1.0, 1.0, 1.41, 1.41), 6: (1.0, 1.0, 1.0, 0.0, 1.41, 1.41)}
Whole = TypeVar("Whole", int, Tensor)
_WARM_UP_S = 0.2  # what is left of a filter state after this long is 1e-15 of it


@dataclass(frozen=True)
class Grid:
    """Where hops begin: hop k is samples `edge(k)` to `edge(k + 1)`, and `per_step` hops are 100 ms, the gating step.

    Where a tenth of a second has a divisor of at most 10 ms, all hops are equal. At other rates (11.025 kHz) hops are
    10 ms rounded to whole samples, so that windows never drift from their nominal times by more than half a sample.
    """

    sample_rate: int
    per_step: int

    @classmethod
    def of(cls, sample_rate: int) -> Grid:
        step = sample_rate // 10 if sample_rate % 10 == 0 else 1
        even = [n for n in range(10, 21) if step % n == 0]
        return cls(sample_rate, even[0] if even else 10)

    @property
    def even(self) -> bool:
        return self.sample_rate % (10 * self.per_step) == 0

    @property
    def longest(self) -> int:
        return -(-self.sample_rate // (10 * self.per_step))

    def edge(self, hop: Whole) -> Whole:
        """round(hop * rate / (10 * per_step)) in whole numbers."""
        per_second = 10 * self.per_step
        return (2 * hop * self.sample_rate + per_second) // (2 * per_second)

    def count(self, samples: Whole) -> Whole:
        """How many complete hops fit into so many samples."""
        near = samples * 10 * self.per_step // self.sample_rate
        near = near + 1 * (self.edge(near + 1) <= samples)
        return near - 1 * (self.edge(near) > samples)


def _hop_norms(y: Tensor, grid: Grid, first: int, last: int) -> Tensor:
    """Root of the energy of hops `first` to `last` of `y` [R, T], whose first sample is the first hop's."""
    if grid.even:
        hops = y[:, : (last - first) * grid.longest].unflatten(-1, (last - first, grid.longest))
    else:
        hops = _gathered(y, grid, first, last)
    norms: Tensor = torch.linalg.vector_norm(hops, dim=-1)
    return norms


def _gathered(y: Tensor, grid: Grid, first: int, last: int) -> Tensor:
    """Hops of different lengths side by side, with zeros after the shorter ones: [R, last - first, longest]"""
    edges = grid.edge(torch.arange(first, last + 1)) - grid.edge(first)
    index = edges[:-1, None] + torch.arange(grid.longest)
    inside = (index < edges[1:, None]).to(y.device)
    gathered = y.index_select(-1, index.clamp(max=y.shape[-1] - 1).flatten().to(y.device))
    return gathered.view(-1, *index.shape).where(inside, 0.0)


@lru_cache(maxsize=32)
def _weights(channels: int, device: torch.device) -> Tensor:
    return torch.tensor(CHANNEL_WEIGHTS[channels], dtype=torch.float64, device=device)[:, None]


def hop_energies(audio: Audio, grid: Grid) -> Tensor:
    """Energy of the K-weighted signal in each complete hop, summed over channels by weight: [B, H] float64.

    Long audio goes in spans.
    """
    batch, channels, samples = audio.samples.shape
    hops = grid.count(samples)
    weights = _weights(channels, audio.device)
    energies = torch.empty(batch, hops, dtype=torch.float64, device=audio.device)
    span = max(audio.tile_samples // (batch * channels * grid.longest), 4 * _warm_up(grid) // grid.longest, 1)
    for first in range(0, hops, span):
        last = min(first + span, hops)
        y = _weighted(audio, grid, grid.edge(first), grid.edge(last))
        by_channel = _hop_norms(y, grid, first, last).view(batch, channels, last - first)
        energies[:, first:last] = (by_channel.double().square_() * weights).sum(1)
    return energies


def _warm_up(grid: Grid) -> int:
    return int(_WARM_UP_S * grid.sample_rate)


def _weighted(audio: Audio, grid: Grid, begin: int, end: int) -> Tensor:
    """The K-weighted signal from sample `begin` to at least `end`, a row for each channel of each item.

    What is padded is filtered as it is, margins and all. Of other audio the 0.2 s before are filtered too, after which
    the states are what they would be anyway.
    """
    if audio.padded is not None:
        return k_weighted(audio.padded.flatten(0, 1), grid.sample_rate)[:, MARGIN + begin :]
    start = max(begin - _warm_up(grid), 0)
    x = audio.read(start, start + -(-(end - start) // GROUP_SAMPLES) * GROUP_SAMPLES).flatten(0, 1)
    return k_weighted(x, grid.sample_rate)[:, begin - start :]
