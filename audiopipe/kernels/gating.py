"""Loudness from the energies of hops: sliding windows, the gates of BS.1770-5, the range of EBU Tech 3342.

All computations are in float64; the input is at most 200 numbers per second of audio.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiopipe.kernels.hop_energy import HopGrid

OFFSET_DB = -0.691  # BS.1770-5, Annex 1: a 997 Hz tone at 0 dBFS in one channel reads -3.01 LUFS
ABSOLUTE_GATE_LUFS = -70.0
INTEGRATED_GATE_LU = -10.0
RANGE_GATE_LU = -20.0
RANGE_PERCENTILES = (0.10, 0.95)


def to_lufs(power: Tensor) -> Tensor:
    """Convert a K-weighted, channel-weighted mean square to LUFS (BS.1770-5, Annex 1, equation 2); zero is -inf."""
    return OFFSET_DB + 10 * torch.log10(power)


def _to_power(lufs: float) -> float:
    return float(10 ** ((lufs - OFFSET_DB) / 10))


def sliding_sum(x: Tensor, width: int) -> Tensor:
    """Compute the sums of `width` neighbors along the last axis: [*, T] -> [*, T - width + 1], empty if T < width.

    The sums are built from sums of 1, 2, 4, ... neighbors and not from differences of a running sum, so that silence
    after a loud passage sums to exactly zero.
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
    """The mean powers of all windows of one length, and a mask of the windows that lie inside each item.

    Shape:
        - power: [B, F] float64
        - exists: [B, F] bool
    """

    power: Tensor
    exists: Tensor

    @classmethod
    def of(cls, energies: Tensor, hops: Tensor, grid: HopGrid, steps: int) -> Windows:
        """Compute windows of `steps` times 100 ms, one per hop, from hop energies [B, H] and hop counts [B]."""
        width = steps * grid.hops_per_step
        sums = sliding_sum(energies, width)
        first = torch.arange(sums.shape[1])
        samples = grid.edge(first + width) - grid.edge(first)
        exists = first + width <= hops[:, None]
        return cls(sums / samples.to(sums.device), exists.to(sums.device))

    def subsample(self, hops: int) -> Windows:
        """Return the windows that start at every `hops`-th hop."""
        return Windows(self.power[:, ::hops], self.exists[:, ::hops])

    def lufs(self) -> Tensor:
        """Compute the loudness of each window, NaN beyond the end of an item."""
        return torch.where(self.exists, to_lufs(self.power), torch.nan)

    def max_lufs(self) -> Tensor:
        """Compute the loudness of the loudest window, NaN for an item without a complete window."""
        if self.power.shape[1] == 0:
            return self.power.new_full(self.power.shape[:1], torch.nan)
        loudest = to_lufs(torch.where(self.exists, self.power, 0.0).amax(-1))
        return torch.where(self.exists.any(-1), loudest, torch.nan)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean of the masked values along the last axis, NaN if there are none."""
    return torch.where(mask, values, 0.0).sum(-1) / mask.sum(-1)


def compute_integrated_lufs(blocks: Windows) -> Tensor:
    """Compute the integrated loudness: the mean of the 400 ms blocks above both gates.

    Source: BS.1770-5, Annex 1, equations 3 to 7.

    Returns:
        LUFS; -inf if no block passes the gates, NaN if the item has no block.
    """
    power, exists = blocks.power, blocks.exists
    audible = exists & (power > _to_power(ABSOLUTE_GATE_LUFS))
    gate = _mean_where(power, audible) * 10 ** (INTEGRATED_GATE_LU / 10)
    above_gates = audible & (power > gate[:, None])
    lufs = to_lufs(_mean_where(power, above_gates))
    lufs = torch.where(above_gates.any(-1), lufs, -torch.inf)
    return torch.where(exists.any(-1), lufs, torch.nan)


def compute_range_lu(windows: Windows) -> Tensor:
    """Compute the loudness range: the distance of the 10th and 95th percentiles of the gated short-term loudness.

    Source: EBU Tech 3342, section 2; percentiles by nearest rank, as in its reference code.

    Returns:
        LU; NaN if no window of 3 s passes the gates. libebur128 returns 0 then, which would be the range of a steady
        signal.
    """
    power, exists = windows.power, windows.exists
    audible = exists & (power >= _to_power(ABSOLUTE_GATE_LUFS))
    gate = _mean_where(power, audible) * 10 ** (RANGE_GATE_LU / 10)
    above_gates = audible & (power >= gate[:, None])
    if power.shape[-1] == 0:
        return power.new_full(power.shape[:1], torch.nan)
    ranked = torch.where(above_gates, power, torch.inf).sort(-1).values
    last = (above_gates.sum(-1, keepdim=True) - 1).clamp(min=0)
    low, high = (ranked.gather(-1, (last * q + 0.5).floor().long())[:, 0] for q in RANGE_PERCENTILES)
    return torch.where(above_gates.any(-1), to_lufs(high) - to_lufs(low), torch.nan)
