"""Sample rate conversion by any ratio: a windowed sinc, applied through the FFT.

The ratio in lowest terms is up / down. A block of k * down samples and a block of k * up samples last equally long, so
their spectra have the same bins: the spectrum of the one, low-passed and cut (or filled with zeros), is the spectrum of
the other. Blocks overlap by the reach of the low-pass on both sides, where the circular convolution is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, overload

import torch
from torch import Tensor

from audiopipe.kernels.audio import (
    Audio,
    Items,
    check_lengths,
    check_rate,
    check_samples,
    checked_items,
    zero_padding_,
)

# As soxr's HQ: flat to 0.913 of the lower Nyquist frequency, and nothing above it.
PASS_BAND, STOP_BAND = 0.913, 1.0
STOP_DB = 100.0
_REACHES = 24  # a block is at least so many times as long as the low-pass reaches


class _PhasePlan(NamedTuple):
    """Block lengths before and after, how much of both is lost at each end, and the low-pass for their common bins."""

    before: int
    after: int
    lost_before: int
    lost_after: int
    low_pass: Tensor


@lru_cache(maxsize=32)
def _plan(up: int, down: int, dtype: torch.dtype, device: torch.device) -> _PhasePlan:
    scale = min(1.0, up / down)  # the lower Nyquist frequency as a share of the input's
    cutoff, width = (PASS_BAND + STOP_BAND) / 2 * scale, (STOP_BAND - PASS_BAND) / 2 * scale
    # Kaiser's formulas for the reach (in input samples) and the shape of a window with this stop band.
    reach = (STOP_DB - 7.95) / (14.36 * width) / 2
    beta = 0.1102 * (STOP_DB - 8.7)
    lost = math.ceil(reach / down)
    periods = max(_REACHES * reach / down, 4 * lost)
    k = 1 << math.ceil(math.log2(periods))

    # The impulse response at the higher rate, around time zero of a circle.
    n = k * max(up, down)
    index = torch.arange(n, dtype=torch.float64)
    time = torch.minimum(index, n - index) * min(1.0, down / up)
    inside = (1 - (time / reach).square()).clamp(min=0)
    response = torch.sinc(cutoff * time) * torch.special.i0(beta * inside.sqrt()) * (time < reach)
    gain = torch.fft.rfft(response).real[: k * min(up, down) // 2 + 1]
    gain = gain / gain[0] * (up / down)
    return _PhasePlan(k * down, k * up, lost * down, lost * up, gain.to(dtype=dtype, device=device))


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


def _convert(audio: Audio, from_rate: int, to_rate: int, y: Tensor) -> None:
    """Write the audio at the new rate into y [b, C, T'], a few blocks at a time."""
    common = math.gcd(from_rate, to_rate)
    plan = _plan(to_rate // common, from_rate // common, audio.dtype, audio.device)
    rows = audio.samples.shape[0] * audio.samples.shape[1]
    step_before, step_after = plan.before - 2 * plan.lost_before, plan.after - 2 * plan.lost_after
    blocks = -(-y.shape[-1] // step_after)
    group = max(audio.tile_samples // (rows * plan.before), 1)
    for first in range(0, blocks, group):
        last = min(first + group, blocks)
        x = audio.read(first * step_before - plan.lost_before, last * step_before + plan.lost_before)
        spectrum = torch.fft.rfft(x.unfold(-1, plan.before, step_before))[..., : len(plan.low_pass)] * plan.low_pass
        after = torch.fft.irfft(spectrum, plan.after)[..., plan.lost_after : plan.after - plan.lost_after]
        # Blocks up to `whole` are written in one go, and what is wanted of the one after it.
        whole = min(last, y.shape[-1] // step_after)
        part = y[..., first * step_after : whole * step_after].unflatten(-1, (whole - first, step_after))
        part.copy_(after[..., : whole - first, :])
        if whole < last:
            rest = y[..., whole * step_after :]
            rest.copy_(after[..., -1, : rest.shape[-1]])


@torch.no_grad()
def resample(x: Tensor | Sequence[Tensor], from_rate: int, to_rate: int, lengths: Tensor | None = None) -> Tensor:
    """Convert the sample rate.

    Linear phase and no delay: output q is the signal at q * from_rate / to_rate, silence being assumed around it. Flat
    within 0.01 dB to 0.91 of the lower Nyquist frequency; what would alias is 100 dB down.

    Args:
        x (Tensor, or a list of Tensors): audio in float32 or float64, or int16, which becomes float32 with full scale
            1.0; a batch may be a list of items of their own lengths.
        from_rate (int), to_rate (int): from 8 to 192 kHz.
        lengths (Tensor, optional): valid samples of each item (the first dimension of x); what lies beyond is ignored.
    Shape:
        - x: [*, T]; or B times [C, T], which is as good as [B, C, T]
        - lengths: [B], B the first dimension of x
        - output: [*, ceil(T * to_rate / from_rate)], zero beyond each item's `resampled_length`
    Errors:
        ValueError, naming the argument and what is allowed. A NaN or Inf sample spoils a stretch of its own item.

    >>> resample(torch.ones(1, 1, 48000), 48000, 16000).shape
    torch.Size([1, 1, 16000])
    """
    from_rate, to_rate = check_rate(from_rate, "from_rate"), check_rate(to_rate, "to_rate")
    audio, shape = _items(x, lengths)
    y = empty_output(audio, audio.channels, from_rate, to_rate)
    for items, tile in audio.tiles():
        convert(tile, from_rate, to_rate, y[items])
    return y.view(*shape, y.shape[-1])


def empty_output(audio: Items, channels: int, from_rate: int, to_rate: int) -> Tensor:
    """Where `convert` writes: [B, C, T']"""
    after = resampled_length(audio.n_samples, from_rate, to_rate)
    return torch.empty(len(audio.lengths), channels, after, dtype=audio.dtype, device=audio.device)


def convert(tile: Audio, from_rate: int, to_rate: int, y: Tensor) -> None:
    """Write a tile at the new rate into y [b, C, T'], and zeros after the end of each item."""
    ends = resampled_length(tile.lengths, from_rate, to_rate)
    last = int(ends.max())
    target = y[..., :last]
    y[..., last:] = 0
    if from_rate == to_rate:
        target.copy_(tile.read(0, tile.n_samples))
    else:
        _convert(tile, from_rate, to_rate, target)
        zero_padding_(target, ends)


def _items(x: Tensor | Sequence[Tensor], lengths: Tensor | None) -> tuple[Items, tuple[int, ...]]:
    """The batch, and what comes before time in the shape of what it becomes."""
    if not isinstance(x, Tensor):
        clips = checked_items(x, lengths)
        return clips, (len(x), clips.channels)
    if check_samples(x).ndim < 1:
        raise ValueError("x must have at least one dimension, its last being time")
    batch, channels = (x.shape[0], math.prod(x.shape[1:-1])) if x.ndim > 1 else (1, 1)
    samples = x.shape[-1]
    audio = Audio(x.detach().reshape(batch, channels, samples), check_lengths(lengths, batch, samples))
    return audio, x.shape[:-1]
