"""Levels of the waveform: peak, RMS, crest, DC, and shares of clipped, silent and zero-crossing samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio
from audiopipe.kernels.chunks import BLOCK, PIECE, Chunk, chunks

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


def _sum(x: Tensor) -> Tensor:
    """Sum of all but the first dimension in float64: [b, C, T] -> [b], T whole pieces"""
    total: Tensor = x.unflatten(-1, (-1, PIECE)).sum(-1).sum((1, 2), dtype=torch.float64)
    return total


def _squares(x: Tensor) -> Tensor:
    """Sums of the squares of pieces in float64: [b, C, T] -> [b, C, K], T whole pieces"""
    norms: Tensor = torch.linalg.vector_norm(x.unflatten(-1, (-1, PIECE)), dim=-1)
    return norms.double().square_()


def _clipped(stretch: Chunk) -> Tensor:
    """How many samples are clipped: [b]. Few blocks hold any, and only those are looked at."""
    item, channel, block = torch.nonzero(stretch.peaks >= CLIPPED_FROM, as_tuple=True)
    suspects = stretch.samples.unflatten(-1, (-1, BLOCK))[item, channel, block]
    counts = torch.zeros(len(stretch.peaks), dtype=torch.float64, device=item.device)
    return counts.index_add_(0, item, (suspects.abs_() >= CLIPPED_FROM).sum(-1).double())


def _silent(stretch: Chunk, lengths: Tensor) -> Tensor:
    """How many samples lie in silent blocks: [b]"""
    blocks = torch.arange(stretch.peaks.shape[-1], device=stretch.peaks.device)
    left = (lengths - stretch.start).to(blocks.device)[:, None, None]
    return ((left - BLOCK * blocks).clamp_(0, BLOCK) * (stretch.peaks < SILENT_BELOW)).sum((1, 2), dtype=torch.float64)


def _crossings(stretch: Chunk, lengths: Tensor) -> Tensor:
    """How many samples differ in sign from the one before them: [b]"""
    x = stretch.around[..., stretch.before - 1 : stretch.before + stretch.stop - stretch.start]
    negative = torch.lt(x, 0, out=torch.empty_like(x, memory_format=torch.contiguous_format))
    if stretch.start == 0:
        negative[..., 0] = negative[..., 1]  # nothing is before the first of all
    # A change is 1 or -1, and the squares of a piece add up to a whole number.
    crossings = _squares(negative[..., 1:] - negative[..., :-1]).round_().sum((1, 2))
    # A negative last sample differs from the zero after it, which is none of the item's.
    ends = (lengths > 0) & (lengths >= stretch.start) & (lengths < stretch.stop)
    if not bool(ends.any()):
        return crossings
    index = (lengths - stretch.start + stretch.before - 1).clamp_(0, stretch.around.shape[-1] - 1).to(x.device)
    last = stretch.around.gather(-1, index[:, None, None].expand(-1, x.shape[1], 1))
    return crossings - ((last < 0) & ends.to(x.device)[:, None, None]).sum((1, 2))


def accumulate_levels(stretch: Chunk, lengths: Tensor) -> Tensor:
    """What levels are made of: energy, sum, clipped, silent and crossings, summed over channels.

    Args:
        stretch (Stretch): of b items.
        lengths (Tensor): samples of each item, on the host.
    Shape:
        [b] -> [b, 5] float64, to be added up over stretches
    """
    x = stretch.samples
    counts = [
        _squares(x).sum((1, 2)),
        _sum(x),
        _clipped(stretch),
        _silent(stretch, lengths),
        _crossings(stretch, lengths),
    ]
    return torch.stack(counts, 1)


def levels_of(peak: Tensor, counts: Tensor, lengths: Tensor, channels: int) -> Levels:
    """Sample peaks [B] and tallies [B, 5] of items of so many samples as levels, in float64."""
    peak = peak.double()
    energy, total, clipped, silent, crossings = (counts / channels).unbind(1)
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


def _tile(audio: Audio) -> tuple[Tensor, Tensor]:
    """Sample peaks [b] and tallies [b, 5] of one tile."""
    peak = torch.zeros(len(audio.lengths), dtype=audio.dtype, device=audio.device)
    counts = torch.zeros(len(audio.lengths), 5, dtype=torch.float64, device=audio.device)
    for stretch in chunks(audio):
        peak = torch.maximum(peak, stretch.peaks.amax((1, 2)))
        counts += accumulate_levels(stretch, audio.lengths)
    return peak, counts


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
    peak, counts = map(audio.concat, map(list, zip(*(_tile(tile) for _, tile in audio.tiles()), strict=True)))
    values = vars(levels_of(peak, counts, audio.lengths, audio.samples.shape[1]))
    return Levels(**{name: value.to(audio.dtype) for name, value in values.items()})
