"""Compute all metrics of a batch in one pass, and optionally resample it in the same pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio, AudioBatch, to_batch
from audiopipe.kernels.checks import check_rate
from audiopipe.kernels.chunks import chunks
from audiopipe.kernels.float32 import full_float32
from audiopipe.kernels.hop_energy import CHANNEL_WEIGHTS, HopGrid, hop_energies
from audiopipe.kernels.levels import accumulate_levels, compute_levels
from audiopipe.kernels.loudness import HopPowers, compute_r128, to_decibels
from audiopipe.kernels.resample import empty_output, resample_into
from audiopipe.kernels.spectral import Summary, compute_spectral, default_n_fft
from audiopipe.kernels.true_peak import compute_peaks
from audiopipe.kernels.waveform import reduce_items
from audiopipe.metrics import METRICS


@dataclass(frozen=True)
class Metrics:
    """The metrics of B items in the order of `METRICS`: tensors [B] on the device of the audio."""

    loudness_lufs: Tensor
    momentary_max_lufs: Tensor
    short_term_max_lufs: Tensor
    loudness_range_lu: Tensor
    true_peak_dbtp: Tensor
    sample_peak_dbfs: Tensor
    rms_dbfs: Tensor
    crest_db: Tensor
    dc_offset: Tensor
    clipping_ratio: Tensor
    silence_ratio: Tensor
    snr_db: Tensor
    zero_crossing_rate: Tensor
    spectral_centroid_hz: Tensor
    spectral_bandwidth_hz: Tensor
    spectral_rolloff_hz: Tensor
    spectral_flatness: Tensor
    bandwidth_hz: Tensor

    def __repr__(self) -> str:
        return f"Metrics(batch={len(self.loudness_lufs)}, dtype={self.loudness_lufs.dtype})"

    def stack(self) -> Tensor:
        """Stack the metrics to [B, M], with columns in the order of `METRICS`."""
        return torch.stack([getattr(self, field.name) for field in fields(self)], 1)

    def to_numpy(self) -> npt.NDArray[np.floating]:
        """Copy the stacked metrics to the host in one transfer: [B, M]."""
        return np.asarray(self.stack().cpu().numpy())


class _TileSummary(NamedTuple):
    """The intermediate results of one tile; the metrics are computed from them once per batch."""

    energies: Tensor
    peaks: Tensor
    counts: Tensor
    features: Tensor
    spectrum: Tensor
    bands: Tensor


def _reduce_waveform(tile: Audio) -> tuple[Tensor, Tensor]:
    """Compute true and sample peaks [b, 2] and the sums [b, 5] of `accumulate_levels`."""
    if tile.is_compiled:
        return reduce_items(tile)
    peaks = torch.zeros(len(tile.lengths), 2, dtype=tile.dtype, device=tile.device)
    counts = torch.zeros(len(tile.lengths), 5, dtype=torch.float64, device=tile.device)
    for chunk in chunks(tile):
        peaks = torch.maximum(peaks, compute_peaks(chunk))
        counts += accumulate_levels(chunk, tile.lengths)
    return peaks, counts


def _reduce_tile(tile: Audio, sample_rate: int, grid: HopGrid) -> _TileSummary:
    n_fft = default_n_fft(sample_rate)
    summary = Summary.of(tile, sample_rate, n_fft, n_fft // 2)
    return _TileSummary(
        hop_energies(tile, grid), *_reduce_waveform(tile), summary.features, summary.spectrum, summary.bands
    )


@torch.no_grad()
def measure(x: Tensor | Sequence[Tensor], sample_rate: int, lengths: Tensor | None = None) -> Metrics:
    """Compute all metrics of each item in one pass.

    Args:
        x (Tensor, or a list of Tensors): audio in float32 or float64 with full scale 1.0, or int16; a list may
            have items of different lengths, and on a CPU is faster than padding them first.
        sample_rate (int): from 8 to 192 kHz.
        lengths (Tensor, optional): valid samples of each item; samples beyond are ignored. Fastest on the CPU.
    Shape:
        - x: [B, C, T] with C of 1 (mono), 2 (L R), 5 (L R C Ls Rs) or 6 (L R C LFE Ls Rs); or B times [C, T]
        - lengths: [B]
        - output: [B] each, float32, or float64 for float64 input
    Returns:
        Metrics as documented in `integrated_loudness`, `loudness`, `levels` and `spectral`. All metrics of an item with
        a NaN or Inf sample, or without samples, are NaN; other items are not affected.
    Raises:
        ValueError: an argument is invalid; the message names it and the allowed values.

    >>> measure(torch.zeros(2, 1, 16000), 16000)
    Metrics(batch=2, dtype=torch.float32)
    """
    sample_rate = check_rate(sample_rate)
    audio = to_batch(x, lengths, tuple(CHANNEL_WEIGHTS))
    grid = HopGrid.of(sample_rate)
    with full_float32():
        tiles = [_reduce_tile(tile.with_padding(), sample_rate, grid) for _, tile in audio.tiles()]
    return _combine(audio, tiles, grid)


@torch.no_grad()
def measure_and_resample(
    x: Tensor | Sequence[Tensor], sample_rate: int, to_rate: int, lengths: Tensor | None = None
) -> tuple[Metrics, Tensor]:
    """Compute `measure`, and `resample` the mean of the channels; each tile is loaded into the caches only once.

    Args:
        x (Tensor, or a list of Tensors), lengths (Tensor, optional): as for `measure`.
        sample_rate (int), to_rate (int): from 8 to 192 kHz.
    Shape:
        - x: [B, C, T], or B times [C, T]
        - output: [B] each, and [B, 1, ceil(T * to_rate / sample_rate)], zero beyond each item's `resampled_length`
    Raises:
        ValueError: an argument is invalid; the message names it and the allowed values.

    >>> measure_and_resample(torch.zeros(2, 2, 48000), 48000, 16000)[1].shape
    torch.Size([2, 1, 16000])
    """
    sample_rate, to_rate = check_rate(sample_rate), check_rate(to_rate, "to_rate")
    audio = to_batch(x, lengths, tuple(CHANNEL_WEIGHTS))
    grid = HopGrid.of(sample_rate)
    y = empty_output(audio, 1, sample_rate, to_rate)
    tiles = []
    for group, samples in audio.tiles():
        tile = samples.with_padding()
        with full_float32():
            tiles.append(_reduce_tile(tile, sample_rate, grid))
        resample_into(tile, sample_rate, to_rate, y[group])
    return _combine(audio, tiles, grid), y


def _combine(audio: AudioBatch, tiles: list[_TileSummary], grid: HopGrid) -> Metrics:
    """Compute the metrics of a batch from the summaries of its tiles."""
    sample_rate = grid.sample_rate
    parts = _TileSummary(*(audio.concat(list(column), fill=0.0) for column in zip(*tiles, strict=True)))
    powers = HopPowers(parts.energies, grid.count(audio.lengths), grid)
    summary = Summary(parts.features, parts.spectrum, parts.bands)
    r128_values = compute_r128(powers)
    values = {
        "loudness_lufs": r128_values["integrated_lufs"],
        "momentary_max_lufs": r128_values["momentary_max_lufs"],
        "short_term_max_lufs": r128_values["short_term_max_lufs"],
        "loudness_range_lu": r128_values["range_lu"],
        "true_peak_dbtp": to_decibels(parts.peaks[:, 0]),
        **vars(compute_levels(parts.peaks[:, 1], parts.counts, audio.lengths, audio.channels)),
        **vars(compute_spectral(summary, audio.lengths, sample_rate, default_n_fft(sample_rate) // 2)),
    }
    table = torch.stack([values[name] for name in METRICS], 1)
    finite = torch.isfinite(values["dc_offset"]) & powers.finite()
    return Metrics(*torch.where(finite[:, None], table, torch.nan).to(audio.dtype).unbind(1))
