"""Levels of the waveform: peak, RMS, crest, DC offset, and shares of clipped, silent and zero-crossing samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio
from audiopipe.kernels.chunks import BLOCK, SUM_BLOCK, Chunk, chunks

CLIPPED_FROM = 32767 / 32768  # the highest value of 16-bit audio; the lowest, -1, counts as clipped too
SILENT_BELOW = 1e-3  # -60 dBFS


@dataclass(frozen=True)
class Levels:
    """The levels of B items, each [B]; see `levels`."""

    sample_peak_dbfs: Tensor
    rms_dbfs: Tensor
    crest_db: Tensor
    dc_offset: Tensor
    clipping_ratio: Tensor
    silence_ratio: Tensor
    zero_crossing_rate: Tensor


def _sum_samples(x: Tensor) -> Tensor:
    """Sum over channels and time in float64: [b, C, T] -> [b], T a multiple of SUM_BLOCK"""
    total: Tensor = x.unflatten(-1, (-1, SUM_BLOCK)).sum(-1).sum((1, 2), dtype=torch.float64)
    return total


def _sum_squares(x: Tensor) -> Tensor:
    """Sum the squares of each SUM_BLOCK samples in float64: [b, C, T] -> [b, C, K], T a multiple of SUM_BLOCK"""
    norms: Tensor = torch.linalg.vector_norm(x.unflatten(-1, (-1, SUM_BLOCK)), dim=-1)
    return norms.double().square_()


def _count_clipped(chunk: Chunk) -> Tensor:
    """Count clipped samples: [b]. Only blocks with a clipped peak are read, which are few."""
    item, channel, block = torch.nonzero(chunk.peaks >= CLIPPED_FROM, as_tuple=True)
    candidates = chunk.samples.unflatten(-1, (-1, BLOCK))[item, channel, block]
    counts = torch.zeros(len(chunk.peaks), dtype=torch.float64, device=item.device)
    return counts.index_add_(0, item, (candidates.abs_() >= CLIPPED_FROM).sum(-1).double())


def _count_silent(chunk: Chunk, lengths: Tensor) -> Tensor:
    """Count samples in silent blocks: [b]"""
    blocks = torch.arange(chunk.peaks.shape[-1], device=chunk.peaks.device)
    remaining = (lengths - chunk.start).to(blocks.device)[:, None, None]
    return ((remaining - BLOCK * blocks).clamp_(0, BLOCK) * (chunk.peaks < SILENT_BELOW)).sum(
        (1, 2), dtype=torch.float64
    )


def _count_crossings(chunk: Chunk, lengths: Tensor) -> Tensor:
    """Count samples that differ in sign from the previous sample: [b]"""
    x = chunk.context[..., chunk.offset - 1 : chunk.offset + chunk.stop - chunk.start]
    negative = torch.lt(x, 0, out=torch.empty_like(x, memory_format=torch.contiguous_format))
    if chunk.start == 0:
        negative[..., 0] = negative[..., 1]  # the first sample of an item has no predecessor
    # A change is 1 or -1, so the squares of a block add up to a whole number.
    crossings = _sum_squares(negative[..., 1:] - negative[..., :-1]).round_().sum((1, 2))
    # A negative last sample differs from the zero after it, which does not belong to the item.
    ends = (lengths > 0) & (lengths >= chunk.start) & (lengths < chunk.stop)
    if not bool(ends.any()):
        return crossings
    index = (lengths - chunk.start + chunk.offset - 1).clamp_(0, chunk.context.shape[-1] - 1).to(x.device)
    last = chunk.context.gather(-1, index[:, None, None].expand(-1, x.shape[1], 1))
    return crossings - ((last < 0) & ends.to(x.device)[:, None, None]).sum((1, 2))


def accumulate_levels(chunk: Chunk, lengths: Tensor) -> Tensor:
    """Compute the sums that levels are derived from: energy, sum, clipped, silent and zero-crossing samples.

    Args:
        chunk (Chunk): samples of b items.
        lengths (Tensor): samples of each item, on the host.
    Shape:
        - lengths: [b]
        - output: [b, 5] float64, over all channels; the sums of an item are the totals over its chunks
    """
    x = chunk.samples
    counts = [
        _sum_squares(x).sum((1, 2)),
        _sum_samples(x),
        _count_clipped(chunk),
        _count_silent(chunk, lengths),
        _count_crossings(chunk, lengths),
    ]
    return torch.stack(counts, 1)


def compute_levels(peak: Tensor, counts: Tensor, lengths: Tensor, channels: int) -> Levels:
    """Compute levels in float64 from sample peaks [B], sums [B, 5] of `accumulate_levels`, and lengths [B]."""
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


def _reduce(audio: Audio) -> tuple[Tensor, Tensor]:
    """Compute the sample peaks [b] and sums [b, 5] of one tile."""
    peak = torch.zeros(len(audio.lengths), dtype=audio.dtype, device=audio.device)
    counts = torch.zeros(len(audio.lengths), 5, dtype=torch.float64, device=audio.device)
    for chunk in chunks(audio):
        peak = torch.maximum(peak, chunk.peaks.amax((1, 2)))
        counts += accumulate_levels(chunk, audio.lengths)
    return peak, counts


@torch.no_grad()
def levels(x: Tensor, lengths: Tensor | None = None) -> Levels:
    """Compute the levels of each item over all its channels.

    Args:
        x (Tensor): audio in float32 or float64 with full scale 1.0, or int16.
        lengths (Tensor, optional): valid samples of each item; samples beyond are ignored.
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
        - silence_ratio: share of samples in blocks of 32 whose peak is below -60 dBFS
        - zero_crossing_rate: share of pairs of successive samples of which exactly one is negative; NaN for one sample

        NaN for an item with no sample, or with a NaN or Inf sample.
    Raises:
        ValueError: an argument is invalid; the message names it and the allowed values.

    >>> levels(torch.tensor([[[0.5, -0.5, 0.5, -0.5]]])).zero_crossing_rate
    tensor([1.])
    """
    audio = Audio.of(x, lengths)
    peak, counts = map(audio.concat, map(list, zip(*(_reduce(tile) for _, tile in audio.tiles()), strict=True)))
    values = vars(compute_levels(peak, counts, audio.lengths, audio.samples.shape[1]))
    return Levels(**{name: value.to(audio.dtype) for name, value in values.items()})
