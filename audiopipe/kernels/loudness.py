"""Loudness of EBU R 128: integrated, momentary, short-term, range, true peak (BS.1770-5, EBU Tech 3341 and 3342)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from audiopipe.kernels import gating
from audiopipe.kernels.audio import Audio, check_rate
from audiopipe.kernels.float32 import full_float32
from audiopipe.kernels.gating import Windows
from audiopipe.kernels.hop_energy import CHANNEL_WEIGHTS, Grid, hop_energies
from audiopipe.kernels.true_peak import true_and_sample_peak

_MOMENTARY_STEPS, _SHORT_TERM_STEPS = 4, 30  # of 100 ms


@dataclass(frozen=True)
class Loudness:
    """All of R 128 for a batch of B items.

    `momentary_lufs` and `short_term_lufs` hold one value for each window of 400 ms and 3 s, the first starting with the
    audio and each other `hop_s` after the one before it; NaN where the item has no complete window.
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
class Powers:
    """Hop energies [B, H] of a batch, how many hops each item has, and the windows that R 128 takes from them."""

    energies: Tensor
    hops: Tensor
    grid: Grid

    @classmethod
    def concat_tiles(cls, audio: Audio, energies: list[Tensor], grid: Grid) -> Powers:
        """From the `hop_energies` of all tiles."""
        return cls(audio.concat(energies, fill=0.0), grid.count(audio.lengths), grid)

    def momentary(self) -> Windows:
        return Windows.of(self.energies, self.hops, self.grid, _MOMENTARY_STEPS)

    def short_term(self) -> Windows:
        return Windows.of(self.energies, self.hops, self.grid, _SHORT_TERM_STEPS)

    def finite(self) -> Tensor:
        return torch.isfinite(self.energies).all(-1)


def decibels(amplitude: Tensor) -> Tensor:
    """20 log10, in float64; zero is -inf."""
    return 20 * torch.log10(amplitude.double())


@torch.no_grad()
def integrated_loudness(x: Tensor, sample_rate: int, lengths: Tensor | None = None) -> Tensor:
    """Integrated loudness of each item, in LUFS (ITU-R BS.1770-5).

    Args:
        x (Tensor): audio in float32 or float64 with full scale 1.0, or int16.
        sample_rate (int): from 8 to 192 kHz.
        lengths (Tensor, optional): valid samples of each item; what lies beyond is ignored. Best kept on the CPU.
    Shape:
        - x: [B, C, T] with C of 1 (mono), 2 (L R), 5 (L R C Ls Rs) or 6 (L R C LFE Ls Rs)
        - lengths: [B]
        - output: [B] float32, or float64 for float64 input
    Returns:
        LUFS; -inf where nothing is louder than -70 LUFS, NaN for an item shorter than one block of 400 ms or with a NaN
        or Inf sample.
    Errors:
        ValueError, naming the argument and what is allowed.

    >>> tone = torch.sin(2 * torch.pi * 997 / 48000 * torch.arange(96000)).expand(1, 1, -1)
    >>> f"{integrated_loudness(tone, 48000).item():.2f}"
    '-3.01'
    """
    sample_rate = check_rate(sample_rate)
    audio = Audio.checked(x, lengths, tuple(CHANNEL_WEIGHTS))
    grid = Grid.of(sample_rate)
    with full_float32():
        energies = [hop_energies(tile, grid) for _, tile in audio.tiles()]
    powers = Powers.concat_tiles(audio, energies, grid)
    lufs = gating.integrated_lufs(powers.momentary().every(grid.per_step))
    return torch.where(powers.finite(), lufs, torch.nan).to(audio.dtype)


def r128(powers: Powers) -> dict[str, Tensor]:
    """All that follows from hop energies, in float64, by the names of `Loudness`."""
    momentary, short_term, step = powers.momentary(), powers.short_term(), powers.grid.per_step
    return {
        "integrated_lufs": gating.integrated_lufs(momentary.every(step)),
        "momentary_lufs": momentary.lufs(),
        "short_term_lufs": short_term.lufs(),
        "momentary_max_lufs": momentary.max_lufs(),
        "short_term_max_lufs": short_term.max_lufs(),
        "range_lu": gating.range_lu(short_term.every(step)),
    }


@torch.no_grad()
def loudness(x: Tensor, sample_rate: int, lengths: Tensor | None = None) -> Loudness:
    """Everything that EBU R 128 measures, of each item.

    Args, Shape of the input and Errors as in `integrated_loudness`.

    Shape:
        - momentary_lufs: [B, F], F the 400 ms windows of the longest item, one every `hop_s` (at most 10 ms)
        - short_term_lufs: [B, G], likewise for 3 s
        - all others: [B]
    Returns:
        Levels of digital silence are -inf. NaN is what does not exist: integrated loudness and momentary maximum of
        less than 400 ms, short-term maximum of less than 3 s, a range with no 3 s window above its gates, any value of
        an item with a NaN or Inf sample. Peaks are the highest of all channels.

    >>> tone = torch.sin(2 * torch.pi * 997 / 48000 * torch.arange(192000)).expand(2, 1, -1)
    >>> loudness(tone, 48000)
    Loudness(integrated_lufs=[2], momentary_lufs=[2, 361], short_term_lufs=[2, 101], momentary_max_lufs=[2], \
short_term_max_lufs=[2], range_lu=[2], true_peak_dbtp=[2], sample_peak_dbfs=[2], hop_s=0.01)
    """
    sample_rate = check_rate(sample_rate)
    audio = Audio.checked(x, lengths, tuple(CHANNEL_WEIGHTS))
    grid = Grid.of(sample_rate)
    with full_float32():
        tiles = (tile.with_padding() for _, tile in audio.tiles())
        parts = [(hop_energies(tile, grid), true_and_sample_peak(tile)) for tile in tiles]
    powers = Powers.concat_tiles(audio, [energies for energies, _ in parts], grid)
    peaks = audio.concat([peaks for _, peaks in parts])
    values = r128(powers)
    values["true_peak_dbtp"], values["sample_peak_dbfs"] = decibels(peaks).unbind(1)
    finite = (torch.isfinite(peaks).all(-1) & powers.finite())[:, None]
    usable = {
        name: torch.where(finite if v.ndim == 2 else finite[:, 0], v, torch.nan).to(audio.dtype)
        for name, v in values.items()
    }
    return Loudness(**usable, hop_s=0.1 / grid.per_step)
