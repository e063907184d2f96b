"""What the short-time spectrum tells: centroid, bandwidth, rolloff and flatness as librosa defines them, noise, cut-off.

All come from one STFT of the mean of the channels: Hann window, frames centred on every hop, zeros around the audio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio, check_rate
from audiopipe.kernels.precision import full_float32

ROLLOFF = 0.85  # librosa's defaults
FLATNESS_FLOOR = 1e-10


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
    return int(2 ** round(torch.log2(torch.tensor(sample_rate * 2048 / 48_000)).item()))


@lru_cache(maxsize=32)
def _hann(n_fft: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.hann_window(n_fft, dtype=dtype, device=device)


def powers(audio: Audio, n_fft: int, hop_length: int) -> Iterator[Tensor]:
    """|STFT|^2 of the channel mean in pieces [b, F, n_fft / 2 + 1], frames in order."""
    window = _hann(n_fft, audio.dtype, audio.device)
    n_frames = 1 + audio.n_samples // hop_length
    step = max(audio.tile_samples // (audio.samples.shape[0] * n_fft), 1)
    for first in range(0, n_frames, step):
        last = min(first + step, n_frames)
        start = first * hop_length - n_fft // 2
        x = audio.read(start, start + (last - 1 - first) * hop_length + n_fft)
        mono = x[:, 0] if x.shape[1] == 1 else x.mean(1)
        spectrum = torch.fft.rfft(mono.unfold(-1, n_fft, hop_length) * window)
        yield spectrum.real.square() + spectrum.imag.square()


def _features(power: Tensor, bin_hz: float) -> Tensor:
    """Centroid, bandwidth, rolloff and flatness of each frame: [b, F, N] -> [b, F, 4]"""
    bins = torch.arange(power.shape[-1], dtype=power.dtype, device=power.device)
    magnitude = power.sqrt()
    total = magnitude.sum(-1)
    # librosa leaves a frame of (almost) nothing as it is, so its centroid is 0.
    norm = torch.where(total > torch.finfo(power.dtype).tiny, total, 1.0)
    centroid = (magnitude @ bins) / norm
    spread = ((bins - centroid[..., None]).square_() * magnitude).sum(-1) / norm
    rolloff = (magnitude.cumsum(-1) < ROLLOFF * total[..., None]).sum(-1)
    floored = power.clamp(min=FLATNESS_FLOOR)
    flatness = floored.log().mean(-1).exp() / floored.mean(-1)
    return torch.stack([centroid * bin_hz, spread.sqrt() * bin_hz, rolloff * bin_hz, flatness], -1)


def describe(audio: Audio, sample_rate: int, n_fft: int, hop_length: int) -> Spectral:
    """`spectral` of one tile, in float64."""
    frames = [_features(p, sample_rate / n_fft) for p in powers(audio, n_fft, hop_length)]
    features = torch.cat(frames, 1).double()
    counts = torch.where(audio.lengths > 0, 1 + audio.lengths // hop_length, 0).to(features.device)
    valid = torch.arange(features.shape[1], device=features.device) < counts[:, None]
    means = torch.where(valid[..., None], features, 0.0).sum(1) / counts[:, None]
    nothing = torch.full_like(means[:, 0], torch.nan)
    return Spectral(*means.unbind(-1), snr_db=nothing, bandwidth_hz=nothing)


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
        The first four are means over frames of what librosa 0.11 computes with the same `n_fft` and `hop_length`,
        `center=True, pad_mode="constant"` and its defaults otherwise.
    Errors:
        ValueError, naming the argument and what is allowed.

    >>> tone = torch.sin(2 * torch.pi * 1000 / 16000 * torch.arange(16000)).view(1, 1, -1)
    >>> round(spectral(tone, 16000).spectral_rolloff_hz.item())
    1000
    """
    sample_rate = check_rate(sample_rate)
    audio = Audio.checked(x, lengths)
    n_fft = default_n_fft(sample_rate) if n_fft is None else n_fft
    hop_length = n_fft // 2 if hop_length is None else hop_length
    if n_fft < 16 or n_fft % 2:
        raise ValueError(f"n_fft must be an even number of at least 16, not {n_fft}")
    if not 1 <= hop_length <= n_fft:
        raise ValueError(f"hop_length must lie from 1 to n_fft ({n_fft}), not {hop_length}")
    with full_float32():
        parts = [describe(tile, sample_rate, n_fft, hop_length) for _, tile in audio.tiles()]
    return Spectral(**{name: audio.joined([getattr(p, name) for p in parts]) for name in vars(parts[0])})
