"""Levels of the waveform: peak, RMS, crest, DC, and shares of clipped, silent and zero-crossing samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio
from audiopipe.kernels.true_peak import BLOCK, block_peaks

CLIPPED_FROM = 32767 / 32768  # the highest value of 16-bit audio; its lowest, -1, counts as well
SILENT_BELOW = 1e-3  # -60 dBFS


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


@dataclass
class Tally:
    """What levels are made of, per item, in float64: whole numbers stay exact and long audio adds up without loss."""

    peak: Tensor
    energy: Tensor
    total: Tensor
    clipped: Tensor
    silent: Tensor
    crossings: Tensor

    @classmethod
    def empty(cls, batch: int, device: torch.device) -> Tally:
        return cls(*torch.zeros(6, batch, dtype=torch.float64, device=device).unbind())

    def add(self, x: Tensor, before: Tensor, peaks: Tensor, valid: Tensor) -> None:
        """Count the samples `x` [b, C, n] in, which follow `before` [b, C, 1].

        `peaks` are the peaks of their blocks, `valid` [b] how many of the n are the item's.
        """
        channels = x.shape[1]
        magnitude_clipped = torch.ge(x.abs(), CLIPPED_FROM).to(x.dtype)
        negative = torch.lt(torch.cat([before, x], -1), 0).to(x.dtype)
        in_block = (valid[:, None, None] - BLOCK * torch.arange(peaks.shape[-1], device=x.device)).clamp(0, BLOCK)
        self.peak = torch.maximum(self.peak, peaks.amax((1, 2)).double())
        self.energy += _sum(x.square()) / channels
        self.total += _sum(x) / channels
        self.clipped += _sum(magnitude_clipped) / channels
        self.silent += (in_block * (peaks < SILENT_BELOW)).sum((1, 2)).double() / channels
        self.crossings += _sum(negative.diff(dim=-1).abs_()) / channels

    def levels(self, lengths: Tensor) -> Levels:
        """The sums as levels of items of so many samples."""
        samples = lengths.to(self.peak.device).double()
        finite = torch.isfinite(self.peak) & (samples > 0)
        rms = (self.energy / samples).sqrt()
        values = Levels(
            sample_peak_dbfs=20 * self.peak.log10(),
            rms_dbfs=20 * rms.log10(),
            crest_db=20 * (self.peak / rms).log10(),
            dc_offset=self.total / samples,
            clipping_ratio=self.clipped / samples,
            silence_ratio=self.silent / samples,
            zero_crossing_rate=self.crossings / (samples - 1),
        )
        return Levels(**{name: torch.where(finite, value, torch.nan) for name, value in vars(values).items()})


def _sum(x: Tensor) -> Tensor:
    """Sum over all but the first dimension: in the input's precision along stretches of 1024, beyond that in float64."""
    n = x.shape[-1]
    if n % 1024:
        return x.sum((1, 2), dtype=torch.float64) if n < 1024 else _sum(x[..., : n - n % 1024]) + x[
            ..., n - n % 1024 :
        ].sum((1, 2), dtype=torch.float64)
    return x.unflatten(-1, (-1, 1024)).sum(-1).sum((1, 2), dtype=torch.float64)


def tally(audio: Audio) -> Tally:
    counts = Tally.empty(audio.samples.shape[0], audio.device)
    for start, stop in audio.spans(BLOCK):
        x = audio.read(start, stop)
        before = audio.read(start - 1, start) if start else x[..., :1]
        counts.add(x, before, block_peaks(x), (audio.lengths - start).to(audio.device))
    return counts


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
        - silence_ratio: share of samples that lie in blocks of 64 whose peak is below -60 dBFS
        - zero_crossing_rate: share of neighbouring samples of which one is negative and one is not; NaN for one sample

        NaN for an item with no sample, or with a NaN or Inf sample.
    Errors:
        ValueError, naming the argument and what is allowed.

    >>> levels(torch.tensor([[[0.5, -0.5, 0.5, -0.5]]])).zero_crossing_rate
    tensor([1.])
    """
    audio = Audio.checked(x, lengths)
    parts = [tally(tile).levels(tile.lengths) for _, tile in audio.tiles()]
    return Levels(**{name: audio.joined([getattr(p, name) for p in parts]) for name in vars(parts[0])})
