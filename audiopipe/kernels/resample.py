"""Sample rate conversion by any ratio: a windowed sinc, applied as matrix products.

The ratio in lowest terms is up / down. Output q lies at time q * down / up of the input, and is the sum of the input
around it times a low-pass at that offset. Every `up` outputs the offsets repeat, `down` inputs later; so a run of
outputs is a matrix times the run of inputs that it sees, the same matrix for each period.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import overload

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio, check_lengths, check_rate, check_samples
from audiopipe.kernels.precision import full_float32

# As soxr's HQ: flat to 0.905 of the lower Nyquist frequency, and nothing above it.
PASS_BAND, STOP_BAND = 0.905, 1.0
STOP_DB = 84.0
_RUN = 64  # outputs of one product; more would multiply more zeros, fewer would read the input more often
_MAX_RUN = 512


@lru_cache(maxsize=32)
def _tables(
    up: int, down: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, int]:
    """Matrices [P, K, N] for P runs of N outputs, where in a period each begins to read [P], and its taps to the left."""
    scale = min(1.0, up / down)
    cutoff, width = (PASS_BAND + STOP_BAND) / 2 * scale, (STOP_BAND - PASS_BAND) / 2 * scale
    half = (STOP_DB - 7.95) / (14.36 * width) / 2
    beta = 0.1102 * (STOP_DB - 8.7)
    taps = math.ceil(half)
    run = up * max(1, _RUN // up) if up <= _MAX_RUN else _RUN
    runs = 1 if up <= _MAX_RUN else -(-up // run)
    first = torch.arange(runs) * run * down // up
    reach = -(-run * down // up) + 2 * taps
    output = (torch.arange(runs)[:, None] * run + torch.arange(run)).double() * down / up
    time = output[:, None, :] - (first[:, None, None] - taps + torch.arange(reach)[None, :, None]).double()
    inside = (1 - (time / half).square()).clamp(min=0)
    window = torch.special.i0(beta * inside.sqrt()) * (time.abs() < half)
    weights = torch.sinc(cutoff * time) * window
    # Each phase sums to one, so that DC passes without a ripple at the period.
    return (weights / weights.sum(1, keepdim=True)).to(dtype=dtype, device=device), first, taps


@overload
def resampled_length(n: int, from_rate: int, to_rate: int) -> int: ...
@overload
def resampled_length(n: Tensor, from_rate: int, to_rate: int) -> Tensor: ...
def resampled_length(n: int | Tensor, from_rate: int, to_rate: int) -> int | Tensor:
    """Samples that `n` become: ceil(n * to_rate / from_rate), in whole numbers.

    >>> resampled_length(44100, 44100, 16000)
    16000
    """
    return -(-n * to_rate // from_rate)


def _convert(x: Tensor, up: int, down: int, samples: int) -> Tensor:
    """[R, T] -> [R, samples]"""
    weights, first, taps = _tables(up, down, x.dtype, x.device)
    runs, reach, run = weights.shape
    periods = max(-(-samples // (run if runs == 1 else up)), 1)
    hop = run * down // up if runs == 1 else down
    span = (periods - 1) * hop + int(first[-1]) + reach
    padded = torch.nn.functional.pad(x, (taps, max(span - taps - x.shape[1], 0)))
    if runs == 1:
        return (padded.unfold(-1, reach, hop)[:, :periods] @ weights[0]).flatten(1)[:, :samples]
    parts = torch.stack([padded[:, s:].unfold(-1, reach, hop)[:, :periods] for s in first.tolist()])
    y = torch.bmm(parts.flatten(1, 2), weights).view(runs, x.shape[0], periods, run)
    return y.permute(1, 2, 0, 3).reshape(x.shape[0], periods, -1)[..., :up].flatten(1)[:, :samples]


@torch.no_grad()
def resample(x: Tensor, from_rate: int, to_rate: int, lengths: Tensor | None = None) -> Tensor:
    """Convert the sample rate.

    Linear phase and no delay: output q is the signal at q * from_rate / to_rate, silence being assumed around it. Flat
    within 0.01 dB to 0.9 of the lower Nyquist frequency; what would alias is 80 dB down.

    Args:
        x (Tensor): audio in float32 or float64, or int16, which becomes float32 with full scale 1.0.
        from_rate (int), to_rate (int): from 8 to 192 kHz.
        lengths (Tensor, optional): valid samples of each item (the first dimension of x); what lies beyond is ignored.
    Shape:
        - x: [*, T]
        - lengths: [B], B the first dimension of x
        - output: [*, ceil(T * to_rate / from_rate)], zero beyond each item's `resampled_length`
    Errors:
        ValueError, naming the argument and what is allowed. NaN spreads as far as the filter reaches, within its item.

    >>> resample(torch.ones(1, 1, 48000), 48000, 16000).shape
    torch.Size([1, 1, 16000])
    """
    from_rate, to_rate = check_rate(from_rate, "from_rate"), check_rate(to_rate, "to_rate")
    if check_samples(x).ndim < 1:
        raise ValueError("x must have at least one dimension, its last being time")
    batch = x.shape[0] if x.ndim > 1 else 1
    held = check_lengths(lengths, batch, x.shape[-1])
    channels = math.prod(x.shape[1:-1])
    audio = Audio(x.detach().reshape(batch, channels, x.shape[-1]), held)
    y = torch.zeros(batch, channels, resampled_length(x.shape[-1], from_rate, to_rate), dtype=audio.dtype, device=x.device)
    with full_float32():
        for items, tile in audio.tiles():
            converted = resample_tile(tile, from_rate, to_rate)
            y[items, :, : converted.shape[-1]] = converted
    return y.view(*x.shape[:-1], y.shape[-1])


def resample_tile(audio: Audio, from_rate: int, to_rate: int) -> Tensor:
    """`resample` of one tile: [b, C, T] -> [b, C, T']"""
    common = math.gcd(from_rate, to_rate)
    batch, channels, samples = audio.samples.shape
    x = audio.read(0, samples)
    if from_rate == to_rate:
        return x
    y = _convert(x.reshape(batch * channels, -1), to_rate // common, from_rate // common,
                 resampled_length(samples, from_rate, to_rate)).view(batch, channels, -1)
    ends = resampled_length(audio.lengths, from_rate, to_rate).to(y.device)
    return y.masked_fill_(torch.arange(y.shape[-1], device=y.device) >= ends[:, None, None], 0.0)
