"""All metrics of a segment at once, and the segment at another rate: see `measure` and `measure_and_resample`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio, Items, check_rate, checked_items
from audiopipe.kernels.chunks import chunks
from audiopipe.kernels.float32 import full_float32
from audiopipe.kernels.hop_energy import CHANNEL_WEIGHTS, Grid, hop_energies
from audiopipe.kernels.levels import accumulate_levels, levels_of
from audiopipe.kernels.loudness import Powers, decibels, r128
from audiopipe.kernels.resample import convert, empty_output
from audiopipe.kernels.spectral import Summary, default_n_fft, spectral_of
from audiopipe.kernels.true_peak import peaks_of


class Metric(NamedTuple):
    """What a metric is, for schemas and reports."""

    unit: str
    description: str


METRICS: dict[str, Metric] = {
    "loudness_lufs": Metric("LUFS", "integrated loudness (BS.1770-5, both gates)"),
    "momentary_max_lufs": Metric("LUFS", "loudest window of 400 ms"),
    "short_term_max_lufs": Metric("LUFS", "loudest window of 3 s"),
    "loudness_range_lu": Metric("LU", "loudness range (EBU Tech 3342)"),
    "true_peak_dbtp": Metric("dBTP", "highest value of the signal between the samples"),
    "sample_peak_dbfs": Metric("dBFS", "highest sample"),
    "rms_dbfs": Metric("dBFS", "root mean square, full scale 1.0"),
    "crest_db": Metric("dB", "sample peak over RMS"),
    "dc_offset": Metric("1", "mean of the samples, full scale 1.0"),
    "clipping_ratio": Metric("1", "share of samples at full scale"),
    "silence_ratio": Metric("1", "share of samples in blocks of 32 with a peak below -60 dBFS"),
    "snr_db": Metric("dB", "estimated level of the signal over its stationary noise"),
    "zero_crossing_rate": Metric("1", "share of neighbouring samples of different sign"),
    "spectral_centroid_hz": Metric("Hz", "mean frequency of the magnitude spectrum"),
    "spectral_bandwidth_hz": Metric("Hz", "spread of the magnitude spectrum around its centroid"),
    "spectral_rolloff_hz": Metric("Hz", "frequency below which 85 % of the magnitude lies"),
    "spectral_flatness": Metric("1", "geometric over arithmetic mean of the power spectrum: 1 is noise, 0 a tone"),
    "bandwidth_hz": Metric("Hz", "highest frequency that carries signal"),
}


@dataclass(frozen=True)
class Metrics:
    """One value per item for each of `METRICS`, in its order: tensors [B] on the device of the audio."""

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
        """[B, M], the columns in the order of `METRICS`."""
        return torch.stack([getattr(self, f.name) for f in fields(self)], 1)

    def to_numpy(self) -> npt.NDArray[np.floating]:
        """`stack` on the host, in one transfer."""
        return np.asarray(self.stack().cpu().numpy())


class _Parts(NamedTuple):
    """What one tile comes down to; everything after it is done once for the batch."""

    energies: Tensor
    peaks: Tensor
    counts: Tensor
    features: Tensor
    spectrum: Tensor
    bands: Tensor


def _waveform(tile: Audio) -> tuple[Tensor, Tensor]:
    """True and sample peaks [b, 2], and what levels are made of [b, 5]."""
    peaks = torch.zeros(len(tile.lengths), 2, dtype=tile.dtype, device=tile.device)
    counts = torch.zeros(len(tile.lengths), 5, dtype=torch.float64, device=tile.device)
    for stretch in chunks(tile):
        peaks = torch.maximum(peaks, peaks_of(stretch))
        counts += accumulate_levels(stretch, tile.lengths)
    return peaks, counts


def _reduce(tile: Audio, sample_rate: int, grid: Grid) -> _Parts:
    n_fft = default_n_fft(sample_rate)
    summary = Summary.of(tile, sample_rate, n_fft, n_fft // 2)
    return _Parts(hop_energies(tile, grid), *_waveform(tile), summary.features, summary.spectrum, summary.bands)


@torch.no_grad()
def measure(x: Tensor | Sequence[Tensor], sample_rate: int, lengths: Tensor | None = None) -> Metrics:
    """Every metric of each item in one pass.

    Args:
        x (Tensor, or a list of Tensors): audio in float32 or float64 with full scale 1.0, or int16. A list of items of
            their own lengths is as good as a padded batch, and on a CPU faster than making one.
        sample_rate (int): from 8 to 192 kHz.
        lengths (Tensor, optional): valid samples of each item; what lies beyond is ignored. Best kept on the CPU.
    Shape:
        - x: [B, C, T] with C of 1 (mono), 2 (L R), 5 (L R C Ls Rs) or 6 (L R C LFE Ls Rs); or B times [C, T]
        - lengths: [B]
        - output: [B] each, float32, or float64 for float64 input
    Returns:
        What each metric is and where it does not exist: `integrated_loudness`, `loudness`, `levels`, `spectral`. An
        item with a NaN or Inf sample, or without samples, is NaN throughout and leaves its neighbours untouched.
    Errors:
        ValueError, naming the argument and what is allowed.

    >>> measure(torch.zeros(2, 1, 16000), 16000)
    Metrics(batch=2, dtype=torch.float32)
    """
    sample_rate = check_rate(sample_rate)
    audio = checked_items(x, lengths, tuple(CHANNEL_WEIGHTS))
    grid = Grid.of(sample_rate)
    with full_float32():
        tiles = [_reduce(tile.with_padding(), sample_rate, grid) for _, tile in audio.tiles()]
    return _metrics(audio, tiles, grid)


@torch.no_grad()
def measure_and_resample(
    x: Tensor | Sequence[Tensor], sample_rate: int, to_rate: int, lengths: Tensor | None = None
) -> tuple[Metrics, Tensor]:
    """`measure`, and `resample` of the mean of the channels, with each sample brought to the caches once for both.

    Args:
        x (Tensor, or a list of Tensors), lengths (Tensor, optional): as for `measure`.
        sample_rate (int), to_rate (int): from 8 to 192 kHz.
    Shape:
        - x: [B, C, T], or B times [C, T]
        - output: [B] each, and [B, 1, ceil(T * to_rate / sample_rate)], zero beyond each item's `resampled_length`
    Errors:
        ValueError, naming the argument and what is allowed.

    >>> measure_and_resample(torch.zeros(2, 2, 48000), 48000, 16000)[1].shape
    torch.Size([2, 1, 16000])
    """
    sample_rate, to_rate = check_rate(sample_rate), check_rate(to_rate, "to_rate")
    audio = checked_items(x, lengths, tuple(CHANNEL_WEIGHTS))
    grid = Grid.of(sample_rate)
    y = empty_output(audio, 1, sample_rate, to_rate)
    tiles = []
    for items, each in audio.tiles():
        tile = each.with_padding()
        with full_float32():
            tiles.append(_reduce(tile, sample_rate, grid))
        convert(tile.mono(), sample_rate, to_rate, y[items])
    return _metrics(audio, tiles, grid), y


def _metrics(audio: Items, tiles: list[_Parts], grid: Grid) -> Metrics:
    """Of a batch, from what its tiles came down to."""
    sample_rate = grid.sample_rate
    parts = _Parts(*(audio.concat(list(column), fill=0.0) for column in zip(*tiles, strict=True)))
    powers = Powers(parts.energies, grid.count(audio.lengths), grid)
    summary = Summary(parts.features, parts.spectrum, parts.bands)
    r128_values = r128(powers)
    values = {
        "loudness_lufs": r128_values["integrated_lufs"],
        "momentary_max_lufs": r128_values["momentary_max_lufs"],
        "short_term_max_lufs": r128_values["short_term_max_lufs"],
        "loudness_range_lu": r128_values["range_lu"],
        "true_peak_dbtp": decibels(parts.peaks[:, 0]),
        **vars(levels_of(parts.peaks[:, 1], parts.counts, audio.lengths, audio.channels)),
        **vars(spectral_of(summary, audio.lengths, sample_rate, default_n_fft(sample_rate) // 2)),
    }
    table = torch.stack([values[name] for name in METRICS], 1)
    usable = torch.isfinite(values["dc_offset"]) & powers.finite()
    return Metrics(*torch.where(usable[:, None], table, torch.nan).to(audio.dtype).unbind(1))
