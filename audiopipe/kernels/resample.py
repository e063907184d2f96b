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

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio, AudioBatch, to_batch, zero_padding_
from audiopipe.kernels.checks import check_lengths, check_rate, check_samples
from audiopipe.kernels.compiled_resample import copy_pairs, fill_pairs, filter_pairs, filter_phases

# The bands of soxr's HQ preset: flat to 0.913 of the lower Nyquist frequency, and nothing above that frequency.
PASS_BAND, STOP_BAND = 0.913, 1.0
STOP_DB = 100.0
# A block is at least this many times as long as the reach of the filter; shorter ones stay in the caches of a core.
_REACHES, _COMPILED_REACHES = 24, 12
_COMPILED_SAMPLES = 1 << 17  # samples of the blocks of one FFT call between compiled functions


class _BlockPlan(NamedTuple):
    """Block lengths in samples of input and output, the samples discarded at each end, and the filter gain per bin."""

    input_block: int
    output_block: int
    input_overlap: int
    output_overlap: int
    low_pass: Tensor


@lru_cache(maxsize=32)
def _plan_blocks(up: int, down: int, dtype: torch.dtype, device: torch.device, reaches: int = _REACHES) -> _BlockPlan:
    scale = min(1.0, up / down)  # the lower Nyquist frequency as a share of the input's
    cutoff, width = (PASS_BAND + STOP_BAND) / 2 * scale, (STOP_BAND - PASS_BAND) / 2 * scale
    # Kaiser's formulas for the reach (in input samples) and the shape of a window with this stop-band attenuation.
    reach = (STOP_DB - 7.95) / (14.36 * width) / 2
    beta = 0.1102 * (STOP_DB - 8.7)
    overlap = math.ceil(reach / down)
    periods = max(reaches * reach / down, 4 * overlap)
    k = 1 << math.ceil(math.log2(periods))

    # The impulse response at the higher rate, centered at time zero with negative times at the end.
    n = k * max(up, down)
    index = torch.arange(n, dtype=torch.float64)
    time = torch.minimum(index, n - index) * min(1.0, down / up)
    inside = (1 - (time / reach).square()).clamp(min=0)
    response = torch.sinc(cutoff * time) * torch.special.i0(beta * inside.sqrt()) * (time < reach)
    gain = torch.fft.rfft(response).real[: k * min(up, down) // 2 + 1]
    gain = gain / gain[0] * (up / down)
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
    if tile.is_compiled:
        _resample_items(tile, from_rate, to_rate, y)
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


def _resample_items(tile: Audio, from_rate: int, to_rate: int, y: Tensor) -> None:
    """Compute `resample_into` with compiled functions."""
    # An empty batch has a tile of one empty item and no output.
    for target, (x, scale) in zip(y, tile.items(), strict=False):
        rows = [x] if len(target) == 1 else list(x[:, None])
        end = resampled_length(x.shape[1], from_rate, to_rate)
        target[:, end:] = 0
        for output, row in zip(target[:, :end], rows, strict=True):
            if from_rate == to_rate:
                torch.mul(torch.from_numpy(row).to(tile.dtype).mean(0), scale, out=output)
            else:
                _overlap_save_pairs(row, scale, from_rate, to_rate, output)


@lru_cache(maxsize=32)
def _phase_gains(down: int) -> Tensor:
    """Return the gain of the filter for each of the phases of a block, with the delay of the phase: [down, 2 M]

    The bin at M / 2 is the mean of the frequency and its negative.
    """
    plan = _plan_blocks(1, down, torch.float64, torch.device("cpu"), _COMPILED_REACHES)
    size = plan.output_block
    bins = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    turns = torch.arange(down, dtype=torch.float64)[:, None] * bins / plan.input_block
    gains = torch.polar(plan.low_pass[bins.abs().long()].expand(down, -1).contiguous(), -2 * torch.pi * turns)
    gains[:, size // 2] = gains[:, size // 2].real
    return torch.view_as_real(gains).flatten(1).float().contiguous()


def _overlap_save_pairs(x: npt.NDArray[np.float32], scale: float, from_rate: int, to_rate: int, y: Tensor) -> None:
    """Resample the mean of the channels [C, T] into y [T'], two blocks in one complex FFT."""
    up, down = to_rate // math.gcd(from_rate, to_rate), from_rate // math.gcd(from_rate, to_rate)
    plan = _plan_blocks(up, down, torch.float32, torch.device("cpu"), _COMPILED_REACHES)
    input_step, output_step = plan.input_block - 2 * plan.input_overlap, plan.output_block - 2 * plan.output_overlap
    pairs = -(-y.shape[-1] // (2 * output_step))
    group = min(max(_COMPILED_SAMPLES // (2 * max(plan.input_block, plan.output_block)), 1), max(pairs, 1))
    # A whole number of input samples for each output sample: the block is transformed in so many parts.
    phases = down if up == 1 else 1
    blocks, spectra = (
        torch.empty(group, phases, plan.input_block // phases, 2),
        torch.empty(group, plan.output_block, 2),
    )
    for first in range(0, pairs, group):
        count = min(group, pairs - first)
        part, filtered = blocks[:count], spectra[:count]
        fill_pairs(x, scale, 2 * first * input_step - plan.input_overlap, input_step, part.flatten(2).numpy())
        spectrum = torch.view_as_real(torch.fft.fft(torch.view_as_complex(part))).flatten(2)
        if phases > 1:
            filter_phases(spectrum.numpy(), _phase_gains(down).numpy(), filtered.flatten(1).numpy())
        else:
            filter_pairs(spectrum.flatten(1).numpy(), plan.low_pass.numpy(), filtered.flatten(1).numpy())
        result = torch.view_as_real(torch.fft.ifft(torch.view_as_complex(filtered)))
        copy_pairs(result.flatten(1).numpy(), plan.output_overlap, output_step, 2 * first, y.numpy())


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
