"""Energy of the K-weighted signal per hop of about 10 ms: the input of all windows of EBU R 128."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiopipe.kernels.audio import GROUP_SAMPLES, MARGIN, Audio
from audiopipe.kernels.compiled_filter import LANES, filter_hops
from audiopipe.kernels.kweighting import sections
from audiopipe.kernels.statespace import k_weight

# Orders L R C Ls Rs and L R C LFE Ls Rs: surround channels weigh 1.41, LFE is excluded (BS.1770-5, table 3).
CHANNEL_WEIGHTS = {1: (1.0,), 2: (1.0, 1.0), 5: (1.0, 1.0, 1.0, 1.41, 1.41), 6: (1.0, 1.0, 1.0, 0.0, 1.41, 1.41)}
IntOrTensor = TypeVar("IntOrTensor", int, Tensor)
_WARM_UP_S = 0.2  # after this long a filter state has decayed to 1e-15 of itself
_COMPILED_WARM_UP_S = 0.12  # to 1e-9 of itself


@dataclass(frozen=True)
class HopGrid:
    """The division of time into hops: hop k spans the samples `edge(k)` to `edge(k + 1)`.

    `hops_per_step` hops make the gating step of 100 ms. If 100 ms can be divided into 10 to 20 hops of a whole number
    of samples, all hops are equal. At other rates (11.025 kHz) hops are 10 ms rounded to whole samples, so that windows
    never drift from their nominal times by more than half a sample.
    """

    sample_rate: int
    hops_per_step: int

    @classmethod
    def of(cls, sample_rate: int) -> HopGrid:
        step = sample_rate // 10 if sample_rate % 10 == 0 else 1
        divisors = [n for n in range(10, 21) if step % n == 0]
        return cls(sample_rate, divisors[0] if divisors else 10)

    @property
    def is_uniform(self) -> bool:
        """Return whether all hops have the same length."""
        return self.sample_rate % (10 * self.hops_per_step) == 0

    @property
    def max_hop(self) -> int:
        """Return the length of the longest hop in samples."""
        return -(-self.sample_rate // (10 * self.hops_per_step))

    def edge(self, hop: IntOrTensor) -> IntOrTensor:
        """Return the first sample of a hop: round(hop * rate / (10 * hops_per_step)), in integer arithmetic."""
        per_second = 10 * self.hops_per_step
        return (2 * hop * self.sample_rate + per_second) // (2 * per_second)

    def count(self, samples: IntOrTensor) -> IntOrTensor:
        """Return the number of complete hops in `samples` samples."""
        estimate = samples * 10 * self.hops_per_step // self.sample_rate
        estimate = estimate + 1 * (self.edge(estimate + 1) <= samples)
        return estimate - 1 * (self.edge(estimate) > samples)


def _hop_norms(y: Tensor, grid: HopGrid, first: int, last: int) -> Tensor:
    """Compute the root of the energy of hops `first` to `last` of `y` [R, T], which starts with hop `first`."""
    if grid.is_uniform:
        hops = y[:, : (last - first) * grid.max_hop].unflatten(-1, (last - first, grid.max_hop))
    else:
        hops = _gather_hops(y, grid, first, last)
    norms: Tensor = torch.linalg.vector_norm(hops, dim=-1)
    return norms


def _gather_hops(y: Tensor, grid: HopGrid, first: int, last: int) -> Tensor:
    """Gather hops of different lengths, padded with zeros: [R, T] -> [R, last - first, max_hop]"""
    edges = grid.edge(torch.arange(first, last + 1)) - grid.edge(first)
    index = edges[:-1, None] + torch.arange(grid.max_hop)
    inside = (index < edges[1:, None]).to(y.device)
    gathered = y.index_select(-1, index.clamp(max=y.shape[-1] - 1).flatten().to(y.device))
    return gathered.view(-1, *index.shape).where(inside, 0.0)


@lru_cache(maxsize=32)
def _channel_weights(channels: int, device: torch.device) -> Tensor:
    return torch.tensor(CHANNEL_WEIGHTS[channels], dtype=torch.float64, device=device)[:, None]


def hop_energies(audio: Audio, grid: HopGrid) -> Tensor:
    """Compute the energy of the K-weighted signal in each complete hop, as the weighted sum over channels.

    Long audio is processed in spans of one tile.

    Shape:
        - audio: B items of C channels
        - output: [B, H] float64
    """
    if audio.is_compiled:
        return _compiled_energies(audio, grid)
    batch, channels, samples = audio.samples.shape
    hops = grid.count(samples)
    weights = _channel_weights(channels, audio.device)
    energies = torch.empty(batch, hops, dtype=torch.float64, device=audio.device)
    span = max(audio.tile_samples // (batch * channels * grid.max_hop), 4 * _warm_up_samples(grid) // grid.max_hop, 1)
    for first in range(0, hops, span):
        last = min(first + span, hops)
        y = _filter(audio, grid, grid.edge(first), grid.edge(last))
        by_channel = _hop_norms(y, grid, first, last).view(batch, channels, last - first)
        energies[:, first:last] = (by_channel.double().square_() * weights).sum(1)
    return energies


@lru_cache(maxsize=32)
def _filter_coefficients(sample_rate: int) -> npt.NDArray[np.float64]:
    """Return b0, b1, b2, a1, a2 of both sections: [10]"""
    return np.concatenate([part for b, a in sections(sample_rate) for part in (b, a[1:])])


@lru_cache(maxsize=64)
def _lane_edges(grid: HopGrid, warm_up: int, per_lane: int) -> npt.NDArray[np.int64]:
    """Return the first samples of the hops that a lane filters, relative to the first that counts."""
    edges: npt.NDArray[np.int64] = grid.edge(torch.arange(-warm_up, per_lane + 1)).numpy()
    return edges


def _compiled_energies(audio: Audio, grid: HopGrid) -> Tensor:
    """Compute `hop_energies` with compiled functions."""
    batch, channels, samples = audio.samples.shape
    energies = np.zeros((batch, grid.count(samples)))
    # Hops of different lengths come in the same order again after a second.
    period = 1 if grid.is_uniform else 10 * grid.hops_per_step
    warm_up = -(-math.ceil(_COMPILED_WARM_UP_S * grid.sample_rate) // grid.max_hop) if grid.is_uniform else period
    for row, x in zip(energies, audio.items(), strict=True):
        hops = grid.count(x.shape[1])
        per_lane = -(-hops // (LANES * period)) * period
        edges = _lane_edges(grid, warm_up, per_lane)
        for channel, weight in zip(x, CHANNEL_WEIGHTS[channels], strict=True):
            part = np.zeros(hops)
            filter_hops(channel, _filter_coefficients(grid.sample_rate), edges, warm_up, per_lane, part)
            row[:hops] += weight * part
    return torch.from_numpy(energies)


def _warm_up_samples(grid: HopGrid) -> int:
    return int(_WARM_UP_S * grid.sample_rate)


def _filter(audio: Audio, grid: HopGrid, begin: int, end: int) -> Tensor:
    """Compute the K-weighted signal from sample `begin` to at least `end`: [B C, T].

    Padded audio is filtered as a whole, with its margins. Other audio is filtered from 0.2 s before `begin`, so that
    the filter states have settled.
    """
    if audio.padded is not None:
        return k_weight(audio.padded.flatten(0, 1), grid.sample_rate)[:, MARGIN + begin :]
    start = max(begin - _warm_up_samples(grid), 0)
    x = audio.read(start, start + -(-(end - start) // GROUP_SAMPLES) * GROUP_SAMPLES).flatten(0, 1)
    return k_weight(x, grid.sample_rate)[:, begin - start :]
