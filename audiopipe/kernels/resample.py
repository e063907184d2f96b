"""Sample rate conversion by any ratio: a windowed sinc filter, applied with the FFT by the overlap-save method.

The ratio in lowest terms is up / down. A block of k * down input samples lasts as long as a block of k * up output
samples, so their spectra have the same bins. The spectrum of the input block, low-pass filtered and truncated (or
extended with zeros), is the spectrum of the output block. Blocks overlap by the reach of the filter on both sides,
where the circular convolution is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, overload

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio, AudioBatch, to_batch, zero_padding_
from audiopipe.kernels.checks import check_lengths, check_rate, check_samples
from audiopipe.kernels.low_pass import filter_reach, frequency_response
from audiopipe.kernels.resample_items import resample_items

# A block is at least this many times as long as the reach of the filter; shorter ones stay in the caches of a core.
_REACHES = 24


class _BlockPlan(NamedTuple):
    """Block lengths in samples of input and output, the samples discarded at each end, and the filter gain per bin."""

    input_block: int
    output_block: int
    input_overlap: int
    output_overlap: int
    low_pass: Tensor


@lru_cache(maxsize=32)
def _plan_blocks(up: int, down: int, dtype: torch.dtype, device: torch.device) -> _BlockPlan:
    reach = filter_reach(up, down)
    overlap = math.ceil(reach / down)
    k = 1 << math.ceil(math.log2(max(_REACHES * reach / down, 4 * overlap)))
    gain = frequency_response(k, up, down)
    return _BlockPlan(k * down, k * up, overlap * down, overlap * up, gain.to(dtype=dtype, device=device))


@overload
def resampled_length(n: int, from_rate: int, to_rate: int) -> int: ...
@overload
def resampled_length(n: Tensor, from_rate: int, to_rate: int) -> Tensor: ...
def resampled_length(n: int | Tensor, from_rate: int, to_rate: int) -> int | Tensor:
    """Return the length of `n` samples after resampling: ceil(n * to_rate / from_rate), in integer arithmetic.

    >>> resampled_length(44100, 44100, 16000)
    16000
    """
    return -(-n * to_rate // from_rate)


def _overlap_save(audio: Audio, from_rate: int, to_rate: int, y: Tensor) -> None:
    """Resample the audio into y [b, C, T'], a few blocks at a time."""
    common = math.gcd(from_rate, to_rate)
    plan = _plan_blocks(to_rate // common, from_rate // common, audio.dtype, audio.device)
    rows = audio.samples.shape[0] * audio.samples.shape[1]
    input_step, output_step = plan.input_block - 2 * plan.input_overlap, plan.output_block - 2 * plan.output_overlap
    blocks = -(-y.shape[-1] // output_step)
    group = max(audio.tile_samples // (rows * plan.input_block), 1)
    for first in range(0, blocks, group):
        last = min(first + group, blocks)
        x = audio.read(first * input_step - plan.input_overlap, last * input_step + plan.input_overlap)
        spectrum = torch.fft.rfft(x.unfold(-1, plan.input_block, input_step))[..., : len(plan.low_pass)] * plan.low_pass
        result = torch.fft.irfft(spectrum, plan.output_block)
        result = result[..., plan.output_overlap : plan.output_block - plan.output_overlap]
        # Write complete blocks in one copy, then the part of the last block that fits.
        whole = min(last, y.shape[-1] // output_step)
        part = y[..., first * output_step : whole * output_step].unflatten(-1, (whole - first, output_step))
        part.copy_(result[..., : whole - first, :])
        if whole < last:
            rest = y[..., whole * output_step :]
            rest.copy_(result[..., -1, : rest.shape[-1]])


@torch.no_grad()
def resample(x: Tensor | Sequence[Tensor], from_rate: int, to_rate: int, lengths: Tensor | None = None) -> Tensor:
    """Convert the sample rate of audio.

    The filter has linear phase and no delay: output sample q is the signal at input sample q * from_rate / to_rate,
    with silence before and after the audio. It is flat within 0.01 dB to 0.91 of the lower Nyquist frequency, and
    aliases are 100 dB down. A NaN or Inf sample affects only samples near it in the same item.

    Args:
        x (Tensor, or a list of Tensors): audio in float32 or float64, or int16, which becomes float32 with full scale
            1.0; a list may have items of different lengths.
        from_rate (int), to_rate (int): from 8 to 192 kHz.
        lengths (Tensor, optional): valid samples of each item (the first dimension of x); samples beyond are ignored.
    Shape:
        - x: [*, T]; or a list of B items [C, T], which is treated as [B, C, T]
        - lengths: [B], B the first dimension of x
        - output: [*, ceil(T * to_rate / from_rate)], zero beyond each item's `resampled_length`
    Raises:
        ValueError: an argument is invalid; the message names it and the allowed values.

    >>> resample(torch.ones(1, 1, 48000), 48000, 16000).shape
    torch.Size([1, 1, 16000])
    """
    from_rate, to_rate = check_rate(from_rate, "from_rate"), check_rate(to_rate, "to_rate")
    audio, shape = _to_batch(x, lengths)
    y = empty_output(audio, audio.channels, from_rate, to_rate)
    for group, tile in audio.tiles():
        resample_into(tile, from_rate, to_rate, y[group])
    return y.view(*shape, y.shape[-1])


def empty_output(audio: AudioBatch, channels: int, from_rate: int, to_rate: int) -> Tensor:
    """Allocate the output of `resample_into`: [B, C, T']"""
    samples = resampled_length(audio.n_samples, from_rate, to_rate)
    return torch.empty(len(audio.lengths), channels, samples, dtype=audio.dtype, device=audio.device)


def resample_into(tile: Audio, from_rate: int, to_rate: int, y: Tensor) -> None:
    """Resample a tile into y [b, C, T'], with zeros after the end of each item; its mean if y has one channel."""
    if tile.is_compiled and resample_items(tile, from_rate, to_rate, y):
        return
    tile = tile.mono() if y.shape[1] == 1 else tile
    ends = resampled_length(tile.lengths, from_rate, to_rate)
    last = int(ends.max())
    target = y[..., :last]
    y[..., last:] = 0
    if from_rate == to_rate:
        target.copy_(tile.read(0, tile.n_samples))
    else:
        _overlap_save(tile, from_rate, to_rate, target)
        zero_padding_(target, ends)


def _to_batch(x: Tensor | Sequence[Tensor], lengths: Tensor | None) -> tuple[AudioBatch, tuple[int, ...]]:
    """Convert the input to a batch; return it with the leading dimensions of the output."""
    if not isinstance(x, Tensor):
        ragged = to_batch(x, lengths)
        return ragged, (len(x), ragged.channels)
    if check_samples(x).ndim < 1:
        raise ValueError("x must have at least one dimension; the last one is time")
    batch, channels = (x.shape[0], math.prod(x.shape[1:-1])) if x.ndim > 1 else (1, 1)
    samples = x.shape[-1]
    audio = Audio(x.detach().reshape(batch, channels, samples), check_lengths(lengths, batch, samples))
    return audio, x.shape[:-1]
