"""From hop powers to loudness: sliding windows, the gates of BS.1770-5, the range of EBU Tech 3342.

All of it in float64 and on little data: a hundred numbers a second of audio.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiopipe.kernels.hop_energy import Grid

OFFSET_DB = -0.691  # BS.1770-5: makes a 997 Hz tone at 0 dBFS in one channel read -3.01
ABSOLUTE_GATE_LUFS = -70.0
INTEGRATED_GATE_LU = -10.0
RANGE_GATE_LU = -20.0
RANGE_PERCENTILES = (0.10, 0.95)


def to_lufs(power: Tensor) -> Tensor:
    """Loudness of a K-weighted, channel-weighted mean square; zero is -inf."""
    return OFFSET_DB + 10 * torch.log10(power)


def _to_power(lufs: float) -> float:
    return float(10 ** ((lufs - OFFSET_DB) / 10))


def sliding_sum(x: Tensor, width: int) -> Tensor:
    """Sums of `width` neighbours along the last axis: [*, T] -> [*, T - width + 1], empty if T < width.

    Built from sums of 1, 2, 4, ... neighbours and not from differences of a running sum, so that silence after a loud
    passage sums to exactly zero.
    """
    count = x.shape[-1] - width + 1
    if count <= 0:
        return x[..., :0]
    total, offset, power = torch.zeros_like(x[..., :count]), 0, x
    for bit in range(width.bit_length()):
        if width >> bit & 1:
            total = total + power[..., offset : offset + count]
            offset += 1 << bit
        if width >> (bit + 1):
            power = power[..., : power.shape[-1] - (1 << bit)] + power[..., 1 << bit :]
    return total


@dataclass(frozen=True)
class Windows:
    """Mean powers [B, F] float64 of all windows of one length, and which of them each item has."""

    power: Tensor
    exists: Tensor

    @classmethod
    def of(cls, energies: Tensor, hops: Tensor, grid: Grid, steps: int) -> Windows:
        """Windows of `steps` times 100 ms, one from every hop, from hop energies [B, H] and complete hops [B]."""
        width = steps * grid.per_step
        sums = sliding_sum(energies, width)
        first = torch.arange(sums.shape[1])
        samples = grid.edge(first + width) - grid.edge(first)
        exists = first + width <= hops[:, None]
        return cls(sums / samples.to(sums.device), exists.to(sums.device))

    def every(self, hops: int) -> Windows:
        return Windows(self.power[:, ::hops], self.exists[:, ::hops])

    def lufs(self) -> Tensor:
        """Loudness of each window, NaN where the item has none."""
        return torch.where(self.exists, to_lufs(self.power), torch.nan)

    def max_lufs(self) -> Tensor:
        """The loudest window, NaN for an item that has none."""
        if self.power.shape[1] == 0:
            return self.power.new_full(self.power.shape[:1], torch.nan)
        loudest = to_lufs(torch.where(self.exists, self.power, 0.0).amax(-1))
        return torch.where(self.exists.any(-1), loudest, torch.nan)


def _mean_where(values: Tensor, keep: Tensor) -> Tensor:
    """Mean along the last axis of what is kept, NaN where nothing is."""
    return torch.where(keep, values, 0.0).sum(-1) / keep.sum(-1)


def integrated_lufs(blocks: Windows) -> Tensor:
    """Integrated loudness: the mean of the 400 ms blocks above both gates (BS.1770-5, Annex 1, equations 3 to 7).

    -inf if no block passes the gates, NaN if the item has no block.
    """
    power, exists = blocks.power, blocks.exists
    audible = exists & (power > _to_power(ABSOLUTE_GATE_LUFS))
    gate = _mean_where(power, audible) * 10 ** (INTEGRATED_GATE_LU / 10)
    passed = audible & (power > gate[:, None])
    lufs = to_lufs(_mean_where(power, passed))
    lufs = torch.where(passed.any(-1), lufs, -torch.inf)
    return torch.where(exists.any(-1), lufs, torch.nan)


def range_lu(windows: Windows) -> Tensor:
    """Loudness range: between the 10th and 95th percentile, nearest rank, of the gated short-term loudness.

    EBU Tech 3342, section 2 and its reference code. NaN if no 3 s window passes.
    """
    power, exists = windows.power, windows.exists
    audible = exists & (power >= _to_power(ABSOLUTE_GATE_LUFS))
    gate = _mean_where(power, audible) * 10 ** (RANGE_GATE_LU / 10)
    passed = audible & (power >= gate[:, None])
    if power.shape[-1] == 0:
        return power.new_full(power.shape[:1], torch.nan)
    ranked = torch.where(passed, power, torch.inf).sort(-1).values
    last = (passed.sum(-1, keepdim=True) - 1).clamp(min=0)
    low, high = (ranked.gather(-1, (last * q + 0.5).floor().long())[:, 0] for q in RANGE_PERCENTILES)
    return torch.where(passed.any(-1), to_lufs(high) - to_lufs(low), torch.nan)
