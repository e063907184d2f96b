"""Metrics of the short-time spectrum: centroid, bandwidth, rolloff and flatness as in librosa, SNR, and bandwidth.

All metrics come from one STFT of the mean of the channels: Hann window, frames centered on every hop, zeros before and
after the audio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio
from audiopipe.kernels.bandwidth import compute_bandwidth_hz
from audiopipe.kernels.checks import check_rate
from audiopipe.kernels.fft_plan import plan_fft
from audiopipe.kernels.float32 import full_float32
from audiopipe.kernels.noise import band_powers, compute_snr_db
from audiopipe.kernels.spectral_items import summarize_items

ROLLOFF = 0.85  # librosa's default
FLATNESS_FLOOR = 1e-10  # librosa's default
_GROUP = 32
_CACHED_SAMPLES = {"cpu": 1 << 18}  # samples of the frames of one FFT call; other devices transform a whole tile


@dataclass(frozen=True)
class Spectral:
    """The spectral metrics of B items, each [B]; see `spectral`."""

    spectral_centroid_hz: Tensor
    spectral_bandwidth_hz: Tensor
    spectral_rolloff_hz: Tensor
    spectral_flatness: Tensor
    snr_db: Tensor
    bandwidth_hz: Tensor


def default_n_fft(sample_rate: int) -> int:
    """Return the power of two nearest to 43 ms: 2048 samples at 44.1 and 48 kHz, 512 at 16 kHz."""
    return int(2 ** round(math.log2(sample_rate * 2048 / 48_000)))


@lru_cache(maxsize=32)
def _hann(n_fft: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.hann_window(n_fft, dtype=dtype, device=device)


def _power_frames(audio: Audio, n_fft: int, hop_length: int) -> Iterator[Tensor]:
    """Yield |STFT|^2 of the channel mean in parts [b, F, n_fft / 2 + 1], frames in order."""
    window = _hann(n_fft, audio.dtype, audio.device)
    n_frames = 1 + audio.n_samples // hop_length
    step = max(audio.tile_samples // (audio.samples.shape[0] * hop_length), 1)
    for first in range(0, n_frames, step):
        last = min(first + step, n_frames)
        start = first * hop_length - n_fft // 2
        x = audio.read(start, start + (last - 1 - first) * hop_length + n_fft)
        mono = x[:, 0] if x.shape[1] == 1 else x.mean(1)
        yield _power_spectrum(mono.unfold(-1, n_fft, hop_length), window)


def _power_spectrum(frames: Tensor, window: Tensor) -> Tensor:
    """Compute |FFT|^2 of windowed frames: [b, F, N] -> [b, F, N / 2 + 1]

    Frames overlap in memory; after windowing they take twice the space and no longer fit into the caches of a core.
    Therefore a CPU transforms a few frames at a time.
    """
    power = frames.new_empty(*frames.shape[:2], frames.shape[2] // 2 + 1)
    step = max(_CACHED_SAMPLES.get(frames.device.type, power.numel()) // (frames.shape[0] * frames.shape[2]), 1)
    for part, target in zip(frames.split(step, 1), power.split(step, 1), strict=True):
        squares = torch.view_as_real(torch.fft.rfft(part * window)).square_()
        torch.add(squares[..., 0], squares[..., 1], out=target)
    return power


@lru_cache(maxsize=32)
def _group_moments_matrix(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix from a group of 32 bins to its sum and first two moments around its middle: [3, 32]."""
    offset = torch.arange(_GROUP, dtype=dtype, device=device) - (_GROUP - 1) / 2
    return torch.stack([torch.ones_like(offset), offset, offset.square()])


def _group_bins(bins: Tensor) -> Tensor:
    """Split bins into groups of 32, with zeros after the last bin: [b, F, N] -> [b, F, K, 32]"""
    missing = -bins.shape[-1] % _GROUP
    padded = torch.nn.functional.pad(bins, (0, missing)) if missing else bins
    groups: Tensor = padded.unflatten(-1, (-1, _GROUP))
    return groups


@lru_cache(maxsize=32)
def _total_moments_matrix(groups: int, device: torch.device) -> Tensor:
    """Return the matrices from the moments of K groups to the moments of all bins around bin 0: [3, K, 3] float64."""
    middle = torch.arange(groups, dtype=torch.float64, device=device) * _GROUP + (_GROUP - 1) / 2
    ones, zeros = torch.ones_like(middle), torch.zeros_like(middle)
    rows = [[ones, middle, middle.square()], [zeros, ones, 2 * middle], [zeros, zeros, ones]]
    return torch.stack([torch.stack(row, -1) for row in rows])


@lru_cache(maxsize=32)
def _bin_moments(k: int, device: torch.device) -> Tensor:
    """Return 1, k and k squared: the moments of bin k around bin 0, in float64."""
    return torch.tensor([1.0, k, k * k], dtype=torch.float64, device=device)


@lru_cache(maxsize=32)
def _cumsum_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix [n, n] of running sums; for many short rows the product is much faster than `cumsum`."""
    return torch.ones(n, n, dtype=dtype, device=device).triu()


def _rolloff_bin(groups: Tensor, sums: Tensor, total: Tensor) -> Tensor:
    """Find the first bin at which the running sum reaches 85 % of the total.

    A running sum over all bins is slow, so the search runs over the groups first, then within one group.

    Shape:
        - groups: [b, F, K, 32]
        - sums: [b, F, K]
        - total: [b, F]
        - output: [b, F]
    """
    running = sums @ _cumsum_matrix(sums.shape[-1], sums.dtype, sums.device)
    target = ROLLOFF * total[..., None]
    group = torch.searchsorted(running, target).clamp_(max=sums.shape[-1] - 1)
    target = target - running.gather(-1, group) + sums.gather(-1, group)
    bins = groups.gather(-2, group[..., None].expand(*group.shape, _GROUP))[..., 0, :]
    within = bins @ _cumsum_matrix(_GROUP, sums.dtype, sums.device)
    return (group * _GROUP + torch.searchsorted(within, target))[..., 0]


def _flatness(power: Tensor) -> Tensor:
    """Compute the ratio of the geometric to the arithmetic mean of each frame: [b, F, N] -> [b, F]

    Bins are multiplied in pairs (log a + log b = log ab), because logarithms are expensive. `power` is clamped to the
    floor in place.
    """
    floored = power.clamp_(min=FLATNESS_FLOOR)
    half = power.shape[-1] // 2
    pairs = (floored[..., :half] * floored[..., half : 2 * half]).log_().sum(-1)
    rest = floored[..., 2 * half :].log().sum(-1)
    return ((pairs + rest) / power.shape[-1]).exp() / floored.mean(-1)


def _features(power: Tensor, bin_hz: float) -> Tensor:
    """Compute centroid, bandwidth, rolloff and flatness of each frame: [b, F, N] -> [b, F, 4] float64

    The moments of the magnitude are combined from those of groups of 32 bins, so that the bins are read once. `power`
    is overwritten.
    """
    last = power.shape[-1] - 1  # the Nyquist bin is handled separately: the other bins are a power of two
    groups, nyquist = _group_bins(power[..., :last].sqrt()), power[..., last].sqrt()
    by_group = (_group_moments_matrix(power.dtype, power.device) @ groups.reshape(-1, _GROUP).mT).view(
        3, -1, groups.shape[-2]
    )
    # In float64, so that the variance can be computed as the mean of the squares minus the square of the mean.
    moments = (
        torch.bmm(by_group.double(), _total_moments_matrix(groups.shape[-2], power.device))
        .sum(0)
        .view(*nyquist.shape, 3)
    )
    total, first, second = (moments + nyquist[..., None] * _bin_moments(last, power.device)).unbind(-1)
    # librosa does not normalize an (almost) silent frame, so its centroid is 0.
    norm = torch.where(total > torch.finfo(power.dtype).tiny, total, 1.0)
    centroid = first / norm
    spread = (second / norm - centroid.square()).clamp_(min=0).sqrt_()
    rolloff = _rolloff_bin(groups, by_group[0].view(groups.shape[:-1]), total.to(power.dtype)).clamp_(max=last)
    return torch.stack([centroid * bin_hz, spread * bin_hz, rolloff * bin_hz, _flatness(power)], -1)


@dataclass(frozen=True)
class Summary:
    """The spectral summary of a tile.

    Shape:
        - features: [b, 4], means over frames of centroid, bandwidth, rolloff and flatness
        - spectrum: [b, N], mean power of each bin
        - bands: [b, K, F], power of each band in each frame
    """

    features: Tensor
    spectrum: Tensor
    bands: Tensor

    @classmethod
    def of(cls, audio: Audio, sample_rate: int, n_fft: int, hop_length: int) -> Summary:
        if audio.is_compiled and (plan := plan_fft(n_fft // 2)) is not None:
            window = _hann(n_fft, audio.dtype, audio.device)
            return cls(*summarize_items(audio, plan, sample_rate / n_fft, window, hop_length, ROLLOFF, FLATNESS_FLOOR))
        counts = torch.where(audio.lengths > 0, 1 + audio.lengths // hop_length, 0).to(audio.device)
        batch = audio.samples.shape[0]
        features = torch.zeros(batch, 4, dtype=torch.float64, device=audio.device)
        spectrum = torch.zeros(batch, n_fft // 2 + 1, dtype=torch.float64, device=audio.device)
        bands, first = [], 0
        for power in _power_frames(audio, n_fft, hop_length):
            frame = torch.arange(first, first + power.shape[1], device=audio.device)
            valid = frame < counts[:, None]
            spectrum += (valid.to(power.dtype)[:, None] @ power)[:, 0]
            bands.append(band_powers(power))
            features += torch.where(valid[..., None], _features(power, sample_rate / n_fft), 0.0).sum(1)
            first += power.shape[1]
        return cls(features / counts[:, None], spectrum / counts[:, None], torch.cat(bands, -1))


def compute_spectral(summary: Summary, lengths: Tensor, sample_rate: int, hop_length: int) -> Spectral:
    """Compute the metrics of a batch from its summary, in float64; spectral metrics of silence are NaN."""
    sounding = summary.spectrum.sum(-1) > 0
    centroid, spread, rolloff, flatness = torch.where(sounding[:, None], summary.features, torch.nan).unbind(-1)
    n_fft = 2 * (summary.spectrum.shape[-1] - 1)
    return Spectral(
        spectral_centroid_hz=centroid,
        spectral_bandwidth_hz=spread,
        spectral_rolloff_hz=rolloff,
        spectral_flatness=flatness,
        snr_db=compute_snr_db(summary.bands, lengths, n_fft, hop_length),
        bandwidth_hz=compute_bandwidth_hz(summary.spectrum, sample_rate),
    )


@torch.no_grad()
def spectral(
    x: Tensor,
    sample_rate: int,
    lengths: Tensor | None = None,
    *,
    n_fft: int | None = None,
    hop_length: int | None = None,
) -> Spectral:
    """Compute the spectral metrics of the mean of the channels of each item.

    Args:
        x (Tensor): audio in float32 or float64 with full scale 1.0, or int16.
        sample_rate (int): from 8 to 192 kHz.
        lengths (Tensor, optional): valid samples of each item; samples beyond are ignored.
        n_fft (int, optional): samples of a frame; default: the power of two nearest to 43 ms (`default_n_fft`).
        hop_length (int, optional): samples between frames; default: half of `n_fft`.
    Shape:
        - x: [B, C, T]
        - lengths: [B]
        - output: [B] each, float32, or float64 for float64 input
    Returns:
        - spectral_centroid_hz, spectral_bandwidth_hz, spectral_rolloff_hz, spectral_flatness: means over frames of
          the values of librosa 0.11 with the same `n_fft` and `hop_length`, `center=True, pad_mode="constant"` and
          otherwise default arguments
        - snr_db: ratio of signal to stationary noise, estimated from the quietest frames of each band; from -20 to 100,
          NaN for less than about 0.3 s
        - bandwidth_hz: highest frequency that carries signal; half the sample rate if the spectrum has no edge

        NaN for digital silence, and for an item with no sample or with a NaN or Inf sample.
    Raises:
        ValueError: an argument is invalid; the message names it and the allowed values.

    >>> tone = torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(16000)).view(1, 1, -1)
    >>> spectral(tone, 16000).spectral_flatness < 0.01
    tensor([True])
    """
    sample_rate = check_rate(sample_rate)
    audio = Audio.of(x, lengths)
    n_fft = default_n_fft(sample_rate) if n_fft is None else n_fft
    hop_length = n_fft // 2 if hop_length is None else hop_length
    if n_fft < 64 or n_fft % 2:
        raise ValueError(f"n_fft must be an even number of at least 64, not {n_fft}")
    if not 1 <= hop_length <= n_fft:
        raise ValueError(f"hop_length must lie from 1 to n_fft ({n_fft}), not {hop_length}")
    with full_float32():
        parts = [Summary.of(tile, sample_rate, n_fft, hop_length) for _, tile in audio.tiles()]
    summary = Summary(
        *(audio.concat(list(column)) for column in zip(*(vars(part).values() for part in parts), strict=True))
    )
    values = vars(compute_spectral(summary, audio.lengths, sample_rate, hop_length))
    return Spectral(**{name: value.to(audio.dtype) for name, value in values.items()})
