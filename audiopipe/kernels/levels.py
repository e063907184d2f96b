"""Levels of the waveform: peak, RMS, crest, DC, and shares of clipped, silent and zero-crossing samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio
from audiopipe.kernels.true_peak import BLOCK, block_peaks

CLIPPED_FROM = 32767 / 32768  # the highest value of 16-bit audio; its lowest, -1, counts as well
SILENT_BELOW = 1e-3  # -60 dBFS
_STRETCH = 1024


@dataclass(frozen=True)
class Levels:
    """Levels of B items, each [B]. See `levels`."""

    sample_peak_dbfs: Tensor
    rms_dbfs: Tensor
    crest_db: Tensor
    dc_offset: Tensor
    clipping_ratio: Tensor
    silence_ratio: Tensor
    zero_crossing_rate: Tensor


def _exact_sum(x: Tensor) -> Tensor:
    """Sum of all but the first dimension in float64: [b, C, T] -> [b]

    Stretches of 1024 are added up in the type of x, which is exact for whole numbers and fast, the rest in float64.
    """
    whole = x.shape[-1] // _STRETCH * _STRETCH
    stretches = x[..., :whole].reshape(*x.shape[:2], -1, _STRETCH).sum(-1)
    return stretches.sum((1, 2), dtype=torch.float64) + x[..., whole:].sum((1, 2), dtype=torch.float64)


def _count(x: Tensor, magnitude: Tensor, before: Tensor, peaks: Tensor, valid: Tensor) -> Tensor:
    """What levels are made of: energy, sum, clipped, silent and crossings of some samples, summed over channels.

    Args:
        x (Tensor), magnitude (Tensor): the samples, and their magnitude, which is overwritten.
        before (Tensor): the sample before them.
        peaks (Tensor): the peaks of their blocks.
        valid (Tensor): how many of them are the item's.
    Shape:
        [b, C, T], [b, C, T], [b, C, 1], [b, C, K], [b] -> [b, 5] float64
    """
    clipped = _exact_sum(magnitude.ge_(CLIPPED_FROM))
    negative = torch.lt(x, 0, out=magnitude)
    turns = (negative[..., :1] - torch.lt(before, 0).to(x.dtype)).square().sum((1, 2), dtype=torch.float64)
    crossings = turns + _exact_sum((negative[..., 1:] - negative[..., :-1]).abs_())
    in_block = (valid[:, None, None] - BLOCK * torch.arange(peaks.shape[-1], device=x.device)).clamp(0, BLOCK)
    silent = (in_block * (peaks < SILENT_BELOW)).sum((1, 2), dtype=torch.float64)
    return torch.stack([_exact_sum(x.square()), _exact_sum(x), clipped, silent, crossings], 1)


def _turns_into_padding(audio: Audio) -> Tensor:
    """Crossings from an item's last sample, if negative, to the zeros after it: [b]"""
    if int(audio.lengths.min()) == audio.n_samples:
        return torch.zeros(len(audio.lengths), dtype=torch.float64, device=audio.device)
    lengths = audio.lengths.to(audio.device)[:, None, None]
    last = audio.samples.gather(-1, (lengths - 1).clamp(min=0).expand(-1, audio.samples.shape[1], 1))
    turns = (last < 0) & (lengths > 0) & (lengths < audio.n_samples)
    return turns.sum((1, 2), dtype=torch.float64)


def tally(audio: Audio) -> Tensor:
    """Sample peak, then `_count` per channel, of each item: [b, 6] float64."""
    batch, channels = audio.samples.shape[:2]
    peak = torch.zeros(batch, dtype=audio.dtype, device=audio.device)
    counts = torch.zeros(batch, 5, dtype=torch.float64, device=audio.device)
    for start, stop in audio.spans(BLOCK):
        x = audio.read(start, stop)
        before = audio.read(start - 1, start) if start else x[..., :1]
        magnitude = x.abs()
        peaks = block_peaks(magnitude)
        peak = torch.maximum(peak, peaks.amax((1, 2)))
        counts += _count(x, magnitude, before, peaks, (audio.lengths - start).to(audio.device))
    counts[:, -1] -= _turns_into_padding(audio)
    return torch.cat([peak.double()[:, None], counts / channels], 1)


def levels_of(counts: Tensor, lengths: Tensor) -> Levels:
    """The tallies [B, 6] of items of so many samples as levels, in float64."""
    peak, energy, total, clipped, silent, crossings = counts.unbind(1)
    samples = lengths.to(counts.device).double()
    finite = torch.isfinite(peak) & (samples > 0)
    rms = (energy / samples).sqrt()
    values = {
        "sample_peak_dbfs": 20 * peak.log10(),
        "rms_dbfs": 20 * rms.log10(),
        "crest_db": 20 * (peak / rms).log10(),
        "dc_offset": total / samples,
        "clipping_ratio": clipped / samples,
        "silence_ratio": silent / samples,
        "zero_crossing_rate": crossings / (samples - 1),
    }
    return Levels(**{name: torch.where(finite, value, torch.nan) for name, value in values.items()})


@torch.no_grad()
def levels(x: Tensor, lengths: Tensor | None = None) -> Levels:
    """Levels of each item, over all its channels.

    Args:
        x (Tensor): audio in float32 or float64 with full scale 1.0, or int16.
        lengths (Tensor, optional): valid samples of each item; what lies beyond is ignored.
    Shape:
        - x: [B, C, T]
        - lengths: [B]
        - output: [B] each, float32, or float64 for float64 input
    Returns:
        - sample_peak_dbfs: highest magnitude of any channel; -inf for silence
        - rms_dbfs: root mean square re full scale 1.0 (a full-scale sine is -3.01); -inf for silence
        - crest_db: sample peak over RMS; NaN for silence
        - dc_offset: mean of the samples, full scale 1.0
        - clipping_ratio: share of samples at or beyond 32767 / 32768 of full scale
        - silence_ratio: share of samples that lie in blocks of 32 whose peak is below -60 dBFS
        - zero_crossing_rate: share of neighbouring samples of which one is negative and one is not; NaN for one sample

        NaN for an item with no sample, or with a NaN or Inf sample.
    Errors:
        ValueError, naming the argument and what is allowed.

    >>> levels(torch.tensor([[[0.5, -0.5, 0.5, -0.5]]])).zero_crossing_rate
    tensor([1.])
    """
    audio = Audio.checked(x, lengths)
    counts = audio.joined([tally(tile) for _, tile in audio.tiles()])
    return Levels(**{name: value.to(audio.dtype) for name, value in vars(levels_of(counts, audio.lengths)).items()})
