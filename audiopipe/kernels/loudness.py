"""Loudness of EBU R 128: integrated, momentary, short-term, range, true peak (BS.1770-5, EBU Tech 3341 and 3342)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from audiopipe.kernels import gating
from audiopipe.kernels.audio import Audio
from audiopipe.kernels.checks import check_rate
from audiopipe.kernels.float32 import full_float32
from audiopipe.kernels.gating import Windows
from audiopipe.kernels.hop_energy import CHANNEL_WEIGHTS, HopGrid, hop_energies
from audiopipe.kernels.true_peak import true_and_sample_peak

_MOMENTARY_STEPS, _SHORT_TERM_STEPS = 4, 30  # of 100 ms


@dataclass(frozen=True)
class Loudness:
    """The EBU R 128 measurements of a batch of B items.

    `momentary_lufs` and `short_term_lufs` have one value for each window of 400 ms and 3 s. The first window starts
    with the audio, the others follow every `hop_s` seconds; values are NaN where the item has no complete window.
    """

    integrated_lufs: Tensor
    momentary_lufs: Tensor
    short_term_lufs: Tensor
    momentary_max_lufs: Tensor
    short_term_max_lufs: Tensor
    range_lu: Tensor
    true_peak_dbtp: Tensor
    sample_peak_dbfs: Tensor
    hop_s: float

    def __repr__(self) -> str:
        shapes = (f"{f.name}={list(getattr(self, f.name).shape)}" for f in fields(self) if f.name != "hop_s")
        return f"Loudness({', '.join(shapes)}, hop_s={self.hop_s:g})"


@dataclass(frozen=True)
class HopPowers:
    """The hop energies [B, H] and hop counts [B] of a batch, and the windows that EBU R 128 derives from them."""

    energies: Tensor
    hops: Tensor
    grid: HopGrid

    @classmethod
    def concat_tiles(cls, audio: Audio, energies: list[Tensor], grid: HopGrid) -> HopPowers:
        """Concatenate the `hop_energies` of all tiles."""
        return cls(audio.concat(energies, fill=0.0), grid.count(audio.lengths), grid)

    def momentary(self) -> Windows:
        """Compute the windows of 400 ms."""
        return Windows.of(self.energies, self.hops, self.grid, _MOMENTARY_STEPS)

    def short_term(self) -> Windows:
        """Compute the windows of 3 s."""
        return Windows.of(self.energies, self.hops, self.grid, _SHORT_TERM_STEPS)

    def finite(self) -> Tensor:
        """Return a mask [B] of the items without a NaN or Inf sample."""
        return torch.isfinite(self.energies).all(-1)


def to_decibels(amplitude: Tensor) -> Tensor:
    """Convert an amplitude to decibels in float64; zero is -inf."""
    return 20 * torch.log10(amplitude.double())


@torch.no_grad()
def integrated_loudness(x: Tensor, sample_rate: int, lengths: Tensor | None = None) -> Tensor:
    """Compute the integrated loudness of each item in LUFS (ITU-R BS.1770-5, Annex 1).

    Args:
        x (Tensor): audio in float32 or float64 with full scale 1.0, or int16.
        sample_rate (int): from 8 to 192 kHz.
        lengths (Tensor, optional): valid samples of each item; samples beyond are ignored. Fastest on the CPU.
    Shape:
        - x: [B, C, T] with C of 1 (mono), 2 (L R), 5 (L R C Ls Rs) or 6 (L R C LFE Ls Rs)
        - lengths: [B]
        - output: [B] float32, or float64 for float64 input
    Returns:
        LUFS; -inf if no block is louder than -70 LUFS, NaN for an item shorter than one block of 400 ms or with a NaN
        or Inf sample.
    Raises:
        ValueError: an argument is invalid; the message names it and the allowed values.

    >>> tone = torch.sin(2 * torch.pi * 997 / 48000 * torch.arange(96000)).expand(1, 1, -1)
    >>> f"{integrated_loudness(tone, 48000).item():.2f}"
    '-3.01'
    """
    sample_rate = check_rate(sample_rate)
    audio = Audio.of(x, lengths, tuple(CHANNEL_WEIGHTS))
    grid = HopGrid.of(sample_rate)
    with full_float32():
        energies = [hop_energies(tile, grid) for _, tile in audio.tiles()]
    powers = HopPowers.concat_tiles(audio, energies, grid)
    lufs = gating.compute_integrated_lufs(powers.momentary().subsample(grid.hops_per_step))
    return torch.where(powers.finite(), lufs, torch.nan).to(audio.dtype)


def compute_r128(powers: HopPowers) -> dict[str, Tensor]:
    """Compute all values of `Loudness` that derive from hop energies, in float64, by name."""
    momentary, short_term, step = powers.momentary(), powers.short_term(), powers.grid.hops_per_step
    return {
        "integrated_lufs": gating.compute_integrated_lufs(momentary.subsample(step)),
        "momentary_lufs": momentary.lufs(),
        "short_term_lufs": short_term.lufs(),
        "momentary_max_lufs": momentary.max_lufs(),
        "short_term_max_lufs": short_term.max_lufs(),
        "range_lu": gating.compute_range_lu(short_term.subsample(step)),
    }


@torch.no_grad()
def loudness(x: Tensor, sample_rate: int, lengths: Tensor | None = None) -> Loudness:
    """Compute all measurements of EBU R 128 for each item (BS.1770-5, EBU Tech 3341, EBU Tech 3342).

    Arguments and errors are those of `integrated_loudness`.

    Shape:
        - x: as in `integrated_loudness`
        - momentary_lufs: [B, F], F the 400 ms windows of the longest item, one every `hop_s` (at most 10 ms)
        - short_term_lufs: [B, G], G the 3 s windows
        - other values: [B]
    Returns:
        - integrated_lufs (`loudness_lufs` of `measure`): -inf if no block is louder than -70 LUFS; NaN for less than
          400 ms
        - momentary_max_lufs: -inf for digital silence; NaN for less than 400 ms
        - short_term_max_lufs: -inf for digital silence; NaN for less than 3 s
        - range_lu (`loudness_range_lu` of `measure`): NaN if no window of 3 s passes the gates
        - true_peak_dbtp, sample_peak_dbfs: highest of all channels; -inf for digital silence

        NaN for an item with a NaN or Inf sample.

    >>> tone = torch.sin(2 * torch.pi * 997 / 48000 * torch.arange(192000)).expand(2, 1, -1)
    >>> loudness(tone, 48000)
    Loudness(integrated_lufs=[2], momentary_lufs=[2, 361], short_term_lufs=[2, 101], momentary_max_lufs=[2], \
short_term_max_lufs=[2], range_lu=[2], true_peak_dbtp=[2], sample_peak_dbfs=[2], hop_s=0.01)
    """
    sample_rate = check_rate(sample_rate)
    audio = Audio.of(x, lengths, tuple(CHANNEL_WEIGHTS))
    grid = HopGrid.of(sample_rate)
    with full_float32():
        tiles = (tile.with_padding() for _, tile in audio.tiles())
        parts = [(hop_energies(tile, grid), true_and_sample_peak(tile)) for tile in tiles]
    powers = HopPowers.concat_tiles(audio, [energies for energies, _ in parts], grid)
    peaks = audio.concat([peaks for _, peaks in parts])
    values = compute_r128(powers)
    values["true_peak_dbtp"], values["sample_peak_dbfs"] = to_decibels(peaks).unbind(1)
    finite = (torch.isfinite(peaks).all(-1) & powers.finite())[:, None]
    masked = {
        name: torch.where(finite if value.ndim == 2 else finite[:, 0], value, torch.nan).to(audio.dtype)
        for name, value in values.items()
    }
    return Loudness(**masked, hop_s=0.1 / grid.hops_per_step)
