"""True peak: the highest magnitude of the continuous signal behind the samples (BS.1770-5, Annex 2; EBU Tech 3341).

Interpolating every block precisely would cost more than all other metrics together, and nearly all of that work would
not change the result. Therefore blocks of 32 samples are filtered in three steps. Blocks whose interpolation cannot
exceed the highest value so far are skipped. The others are interpolated at half a sample, and those that can still
exceed it at a quarter, both with 24 taps. The highest blocks are then interpolated 16 times with 512 taps, which is
accurate up to 0.49 of the sample rate.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio
from audiopipe.kernels.chunks import BLOCK, REACH, Chunk, chunks

COARSE_HALF, COARSE_BETA = 12, 5.0
FINE_HALF, FINE_BETA = REACH, 3.0
FINE_PHASES = tuple(p / 16 for p in range(1, 16))
FINE_BLOCKS = 12
# Values half a sample apart miss a peak by a factor of at most 1 / cos(pi / 4), reached by a tone at half the rate.
HALVES_MISS = 2**0.5


@lru_cache(maxsize=32)
def interpolator(phases: tuple[float, ...], half: int, beta: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix [BLOCK + 2 half, BLOCK * phases] from a block and its neighbors to the values between samples.

    The value at phase p after sample n is the sum of x[n + i] sinc(p - i) w(p - i) for i from 1 - half to half, with a
    Kaiser window w.
    """
    position = torch.arange(BLOCK, dtype=torch.float64)[:, None] + half + torch.tensor(phases, dtype=torch.float64)
    time = position - torch.arange(BLOCK + 2 * half, dtype=torch.float64)[:, None, None]
    inside = (1 - (time / half).square()).clamp(min=0)
    window = torch.special.i0(beta * inside.sqrt()) * (time.abs() < half)
    taps = torch.sinc(time) * window
    matrix: Tensor = taps / taps.sum(0)
    return matrix.flatten(1).to(dtype=dtype, device=device)


@lru_cache(maxsize=1)
def coarse_gain() -> float:
    """Return the largest ratio of a value that the coarse interpolation can find to the highest sample."""
    taps = interpolator((0.25, 0.5), COARSE_HALF, COARSE_BETA, torch.float64, torch.device("cpu"))
    return float(taps.abs().sum(0).max())


def _gather_blocks(chunk: Chunk, row: Tensor, block: Tensor, half: int) -> Tensor:
    """Gather blocks with `half` samples on both sides; a row is a channel of an item.

    Shape:
        - row, block: [n]
        - output: [n, 32 + 2 half]
    """
    # The width of a row is a multiple of 32, so in the flattened context all blocks are a multiple of 32 apart.
    windows = chunk.context.view(-1)[chunk.offset - half :].unfold(0, BLOCK + 2 * half, BLOCK)
    return windows.index_select(0, row * (chunk.context.shape[-1] // BLOCK) + block)


def _raise_peaks(chunk: Chunk, peaks: Tensor, possible: Tensor, phases: tuple[float, ...]) -> Tensor:
    """Raise `peaks` to the values at the phases, in the blocks whose `possible` peak exceeds the highest of the row."""
    row, block = torch.nonzero(possible > peaks.amax(-1, keepdim=True), as_tuple=True)
    taps = interpolator(phases, COARSE_HALF, COARSE_BETA, peaks.dtype, peaks.device)
    between = (_gather_blocks(chunk, row, block, COARSE_HALF) @ taps).abs_().amax(-1)
    return peaks.index_put((row, block), torch.maximum(between, peaks[row, block]))


def true_peak(chunk: Chunk) -> Tensor:
    """Compute the highest magnitude of the continuous signal in a chunk, over all channels: [b]"""
    peaks = chunk.peaks.flatten(0, 1)
    # The interpolation of a block reads 12 samples of its neighbors, so the highest of the three bounds its values.
    nearby = torch.nn.functional.max_pool1d(peaks[:, None], 3, stride=1, padding=1)[:, 0]
    halves = _raise_peaks(chunk, peaks, nearby * coarse_gain(), (0.5,))
    quarters = _raise_peaks(chunk, halves, halves * HALVES_MISS, (0.25, 0.75))
    block = quarters.topk(min(FINE_BLOCKS, peaks.shape[1]), dim=-1).indices
    row = torch.arange(len(peaks), device=peaks.device).repeat_interleave(block.shape[1])
    taps = interpolator(FINE_PHASES, FINE_HALF, FINE_BETA, peaks.dtype, peaks.device)
    between = (_gather_blocks(chunk, row, block.flatten(), FINE_HALF) @ taps).abs_()
    return torch.maximum(between.view(*chunk.peaks.shape[:2], -1).amax(-1), chunk.peaks.amax(-1)).amax(-1)


def compute_peaks(chunk: Chunk) -> Tensor:
    """Compute the true peak and sample peak of a chunk as amplitudes, over all channels: [b, 2]"""
    return torch.stack([true_peak(chunk), chunk.peaks.amax((1, 2))], -1)


def true_and_sample_peak(audio: Audio) -> Tensor:
    """Compute the true peak and sample peak of each item as amplitudes: [b, 2]; zero for an item without samples."""
    highest = torch.zeros(audio.samples.shape[0], 2, dtype=audio.dtype, device=audio.device)
    for chunk in chunks(audio):
        highest = torch.maximum(highest, compute_peaks(chunk))
    return highest
