"""What the short-time spectrum tells: centroid, bandwidth, rolloff and flatness as in librosa, noise, cut-off.

All come from one STFT of the mean of the channels: Hann window, frames centred on every hop, zeros around the audio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio, check_rate
from audiopipe.kernels.bandwidth import bandwidth_hz
from audiopipe.kernels.float32 import full_float32
from audiopipe.kernels.noise import band_powers, snr_db

ROLLOFF = 0.85  # librosa's defaults
FLATNESS_FLOOR = 1e-10
_GROUP = 32
_CACHED_SAMPLES = {"cpu": 1 << 18}  # in frames that are transformed at once; elsewhere all of a tile


@dataclass(frozen=True)
class Spectral:
    """Spectral metrics of B items, each [B]. See `spectral`."""

    spectral_centroid_hz: Tensor
    spectral_bandwidth_hz: Tensor
    spectral_rolloff_hz: Tensor
    spectral_flatness: Tensor
    snr_db: Tensor
    bandwidth_hz: Tensor


def default_n_fft(sample_rate: int) -> int:
    """The power of two next to 43 ms: 2048 at 44.1 and 48 kHz, 512 at 16 kHz."""
    return int(2 ** round(math.log2(sample_rate * 2048 / 48_000)))


@lru_cache(maxsize=32)
def _hann(n_fft: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.hann_window(n_fft, dtype=dtype, device=device)


def _frames(audio: Audio, n_fft: int, hop_length: int) -> Iterator[Tensor]:
    """|STFT|^2 of the channel mean in pieces [b, F, n_fft / 2 + 1], frames in order."""
    window = _hann(n_fft, audio.dtype, audio.device)
    n_frames = 1 + audio.n_samples // hop_length
    step = max(audio.tile_samples // (audio.samples.shape[0] * hop_length), 1)
    for first in range(0, n_frames, step):
        last = min(first + step, n_frames)
        start = first * hop_length - n_fft // 2
        x = audio.read(start, start + (last - 1 - first) * hop_length + n_fft)
        mono = x[:, 0] if x.shape[1] == 1 else x.mean(1)
        yield _powers(mono.unfold(-1, n_fft, hop_length), window)


def _powers(frames: Tensor, window: Tensor) -> Tensor:
    """|FFT|^2 of windowed frames: [b, F, N] -> [b, F, N / 2 + 1]

    Frames overlap in memory, so what they are multiplied out to is twice as large and no longer fits a core's caches: a
    CPU takes a few at a time.
    """
    power = frames.new_empty(*frames.shape[:2], frames.shape[2] // 2 + 1)
    at_once = max(_CACHED_SAMPLES.get(frames.device.type, power.numel()) // (frames.shape[0] * frames.shape[2]), 1)
    for some, target in zip(frames.split(at_once, 1), power.split(at_once, 1), strict=True):
        squares = torch.view_as_real(torch.fft.rfft(some * window)).square_()
        torch.add(squares[..., 0], squares[..., 1], out=target)
    return power


@lru_cache(maxsize=32)
def _moments(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What takes a group of bins to its sum and its first and second moment around its middle: [3, 32]."""
    offset = torch.arange(_GROUP, dtype=dtype, device=device) - (_GROUP - 1) / 2
    return torch.stack([torch.ones_like(offset), offset, offset.square()])


def _in_groups(bins: Tensor) -> Tensor:
    """[b, F, N] -> [b, F, K, 32], with zeros after the last bin where 32 does not divide N."""
    missing = -bins.shape[-1] % _GROUP
    padded = torch.nn.functional.pad(bins, (0, missing)) if missing else bins
    groups: Tensor = padded.unflatten(-1, (-1, _GROUP))
    return groups


@lru_cache(maxsize=32)
def _whole_moments(groups: int, device: torch.device) -> Tensor:
    """What takes the moments of groups of bins to those of all bins around zero: [3, K, 3] float64."""
    middle = torch.arange(groups, dtype=torch.float64, device=device) * _GROUP + (_GROUP - 1) / 2
    one, none = torch.ones_like(middle), torch.zeros_like(middle)
    rows = [[one, middle, middle.square()], [none, one, 2 * middle], [none, none, one]]
    return torch.stack([torch.stack(row, -1) for row in rows])


@lru_cache(maxsize=32)
def _powers_of(k: int, device: torch.device) -> Tensor:
    """1, k and k squared: the moments of bin k around zero, in float64."""
    return torch.tensor([1.0, k, k * k], dtype=torch.float64, device=device)


@lru_cache(maxsize=32)
def _running(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What takes n values to their running sums, much faster than `cumsum` where they are many times a few: [n, n]"""
    return torch.ones(n, n, dtype=dtype, device=device).triu()


def _rolloff_bin(groups: Tensor, sums: Tensor, total: Tensor) -> Tensor:
    """First bin at which the running sum reaches 85 % of the total: [b, F, K, 32], [b, F, K], [b, F] -> [b, F]

    A running sum over all bins is slow, so first one over the groups, then one within the group that it ends in.
    """
    until = sums @ _running(sums.shape[-1], sums.dtype, sums.device)
    target = ROLLOFF * total[..., None]
    group = torch.searchsorted(until, target).clamp_(max=sums.shape[-1] - 1)
    target = target - until.gather(-1, group) + sums.gather(-1, group)
    ends_in = groups.gather(-2, group[..., None].expand(*group.shape, _GROUP))[..., 0, :]
    within = ends_in @ _running(_GROUP, sums.dtype, sums.device)
    return (group * _GROUP + torch.searchsorted(within, target))[..., 0]


def _flatness(power: Tensor) -> Tensor:
    """Geometric over arithmetic mean of each frame. Logarithms are dear: bins go in pairs: log a + log b = log ab.

    Raises what lies below the floor in `power` itself.
    """
    floored = power.clamp_(min=FLATNESS_FLOOR)
    half = power.shape[-1] // 2
    pairs = (floored[..., :half] * floored[..., half : 2 * half]).log_().sum(-1)
    rest = floored[..., 2 * half :].log().sum(-1)
    return ((pairs + rest) / power.shape[-1]).exp() / floored.mean(-1)


def _features(power: Tensor, bin_hz: float) -> Tensor:
    """Centroid, bandwidth, rolloff and flatness of each frame: [b, F, N] -> [b, F, 4] float64

    The moments of the magnitude come from those of groups of 32 bins, so the bins are read once for all of them. What
    `power` holds is spent.
    """
    last = power.shape[-1] - 1  # the Nyquist bin goes by itself: without it, a power of two is left
    groups, nyquist = _in_groups(power[..., :last].sqrt()), power[..., last].sqrt()
    by_group = (_moments(power.dtype, power.device) @ groups.reshape(-1, _GROUP).mT).view(3, -1, groups.shape[-2])
    # In float64, where the square of the mean may be taken from the mean of the squares.
    of_all = torch.bmm(by_group.double(), _whole_moments(groups.shape[-2], power.device)).sum(0).view(*nyquist.shape, 3)
    total, first, second = (of_all + nyquist[..., None] * _powers_of(last, power.device)).unbind(-1)
    # librosa leaves a frame of (almost) nothing as it is, so its centroid is 0.
    norm = torch.where(total > torch.finfo(power.dtype).tiny, total, 1.0)
    centroid = first / norm
    spread = (second / norm - centroid.square()).clamp_(min=0).sqrt_()
    rolloff = _rolloff_bin(groups, by_group[0].view(groups.shape[:-1]), total.to(power.dtype)).clamp_(max=last)
    return torch.stack([centroid * bin_hz, spread * bin_hz, rolloff * bin_hz, _flatness(power)], -1)


@dataclass(frozen=True)
class Summary:
    """What a tile's frames come down to: mean features [b, 4], mean power of each bin [b, N], band powers [b, K, F]."""

    features: Tensor
    spectrum: Tensor
    bands: Tensor

    @classmethod
    def of(cls, audio: Audio, sample_rate: int, n_fft: int, hop_length: int) -> Summary:
        counts = torch.where(audio.lengths > 0, 1 + audio.lengths // hop_length, 0).to(audio.device)
        batch = audio.samples.shape[0]
        features = torch.zeros(batch, 4, dtype=torch.float64, device=audio.device)
        spectrum = torch.zeros(batch, n_fft // 2 + 1, dtype=torch.float64, device=audio.device)
        bands, done = [], 0
        for power in _frames(audio, n_fft, hop_length):
            frame = torch.arange(done, done + power.shape[1], device=audio.device)
            valid = frame < counts[:, None]
            spectrum += (valid.to(power.dtype)[:, None] @ power)[:, 0]
            bands.append(band_powers(power))
            features += torch.where(valid[..., None], _features(power, sample_rate / n_fft), 0.0).sum(1)
            done += power.shape[1]
        return cls(features / counts[:, None], spectrum / counts[:, None], torch.cat(bands, -1))


def spectral_of(summary: Summary, lengths: Tensor, sample_rate: int, hop_length: int) -> Spectral:
    """The summary of a batch as metrics, in float64. What silence has no frequency of is NaN."""
    sounding = summary.spectrum.sum(-1) > 0
    centroid, spread, rolloff, flatness = torch.where(sounding[:, None], summary.features, torch.nan).unbind(-1)
    n_fft = 2 * (summary.spectrum.shape[-1] - 1)
    return Spectral(
        spectral_centroid_hz=centroid,
        spectral_bandwidth_hz=spread,
        spectral_rolloff_hz=rolloff,
        spectral_flatness=flatness,
        snr_db=snr_db(summary.bands, lengths, n_fft, hop_length),
        bandwidth_hz=bandwidth_hz(summary.spectrum, sample_rate),
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
    """Spectral metrics of the mean of the channels of each item.

    Args:
        x (Tensor): audio in float32 or float64 with full scale 1.0, or int16.
        sample_rate (int): from 8 to 192 kHz.
        lengths (Tensor, optional): valid samples of each item; what lies beyond is ignored.
        n_fft (int, optional): samples of a frame; the power of two next to 43 ms if not given (`default_n_fft`).
        hop_length (int, optional): samples between frames; half of `n_fft` if not given.
    Shape:
        - x: [B, C, T]
        - lengths: [B]
        - output: [B] each, float32, or float64 for float64 input
    Returns:
        - spectral_centroid_hz, spectral_bandwidth_hz, spectral_rolloff_hz, spectral_flatness: means over frames of what
          librosa 0.11 computes with the same `n_fft` and `hop_length`, `center=True, pad_mode="constant"` and its
          defaults otherwise
        - snr_db: signal over stationary noise, estimated from the quietest moments of each band; from -20 to 100, NaN
          for less than about 0.3 s
        - bandwidth_hz: the highest frequency that carries signal, half the sample rate if no edge is found

        NaN for digital silence, and for an item with no sample or with a NaN or Inf sample.
    Errors:
        ValueError, naming the argument and what is allowed.

    >>> tone = torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(16000)).view(1, 1, -1)
    >>> spectral(tone, 16000).spectral_flatness < 0.01
    tensor([True])
    """
    sample_rate = check_rate(sample_rate)
    audio = Audio.checked(x, lengths)
    n_fft = default_n_fft(sample_rate) if n_fft is None else n_fft
    hop_length = n_fft // 2 if hop_length is None else hop_length
    if n_fft < 64 or n_fft % 2:
        raise ValueError(f"n_fft must be an even number of at least 64, not {n_fft}")
    if not 1 <= hop_length <= n_fft:
        raise ValueError(f"hop_length must lie from 1 to n_fft ({n_fft}), not {hop_length}")
    with full_float32():
        parts = [Summary.of(tile, sample_rate, n_fft, hop_length) for _, tile in audio.tiles()]
    summary = Summary(*(audio.concat(list(column)) for column in zip(*(vars(p).values() for p in parts), strict=True)))
    values = vars(spectral_of(summary, audio.lengths, sample_rate, hop_length))
    return Spectral(**{name: value.to(audio.dtype) for name, value in values.items()})
