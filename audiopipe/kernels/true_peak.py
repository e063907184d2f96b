"""True peak: the highest value of the continuous signal behind the samples (BS.1770-5, Annex 2; EBU Tech 3341, 2.6).

Interpolating everything precisely would cost more than all other metrics together, almost all of it for nothing. So the
signal goes through sieves, in blocks. What no interpolation could carry above the highest value so far is left out; the
rest is interpolated at half a sample, what then is still in the running at quarters, both with 24 taps. The highest
blocks of that are interpolated 16 times with 512 taps, which holds up to 0.49 of the rate.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio
from audiopipe.kernels.chunks import BLOCK, REACH, Chunk, chunks

_COARSE_HALF, _COARSE_BETA = 12, 5.0
_FINE_HALF, _FINE_BETA = REACH, 3.0
_FINE_PHASES = tuple(p / 16 for p in range(1, 16))
_FINE_BLOCKS = 12
# Values half a sample apart miss a peak by at most 1 / cos(pi / 4), which a tone at half the sample rate reaches.
_HALVES_MISS = 2**0.5


@lru_cache(maxsize=32)
def _interpolator(
    phases: tuple[float, ...], half: int, beta: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Matrix [BLOCK + 2 half, BLOCK * phases]: from a block with its surroundings to the values between its samples.

    The value p after sample n is the sum of x[n + i] sinc(p - i) w(p - i), i from 1 - half to half.
    """
    position = torch.arange(BLOCK, dtype=torch.float64)[:, None] + half + torch.tensor(phases, dtype=torch.float64)
    time = position - torch.arange(BLOCK + 2 * half, dtype=torch.float64)[:, None, None]
    inside = (1 - (time / half).square()).clamp(min=0)
    window = torch.special.i0(beta * inside.sqrt()) * (time.abs() < half)
    taps = torch.sinc(time) * window
    matrix: Tensor = taps / taps.sum(0)
    return matrix.flatten(1).to(dtype=dtype, device=device)


@lru_cache(maxsize=1)
def _coarse_gain() -> float:
    """How many times as high as the samples anything between them can be found."""
    taps = _interpolator((0.25, 0.5), _COARSE_HALF, _COARSE_BETA, torch.float64, torch.device("cpu"))
    return float(taps.abs().sum(0).max())


def _around(stretch: Chunk, row: Tensor, block: Tensor, half: int) -> Tensor:
    """Some blocks with `half` samples on both sides: [n], [n] -> [n, 32 + 2 half], a row being a channel of an item."""
    # Rows are whole numbers of blocks long, so over all rows end to end the blocks still are 32 apart.
    windows = stretch.around.view(-1)[stretch.before - half :].unfold(0, BLOCK + 2 * half, BLOCK)
    return windows.index_select(0, row * (stretch.around.shape[-1] // BLOCK) + block)


def _sieve(stretch: Chunk, peaks: Tensor, possible: Tensor, phases: tuple[float, ...]) -> Tensor:
    """`peaks` raised to what is found at the phases, in the blocks whose `possible` peak exceeds the row's highest."""
    row, block = torch.nonzero(possible > peaks.amax(-1, keepdim=True), as_tuple=True)
    taps = _interpolator(phases, _COARSE_HALF, _COARSE_BETA, peaks.dtype, peaks.device)
    found = (_around(stretch, row, block, _COARSE_HALF) @ taps).abs_().amax(-1)
    return peaks.index_put((row, block), torch.maximum(found, peaks[row, block]))


def true_peak(stretch: Chunk) -> Tensor:
    """Highest magnitude in a stretch of the signal behind the samples, over all channels: [b]"""
    peaks = stretch.peaks.flatten(0, 1)
    # A block sees 12 samples of its neighbours, so the highest of the three bounds what is between its samples.
    nearby = torch.nn.functional.max_pool1d(peaks[:, None], 3, stride=1, padding=1)[:, 0]
    halves = _sieve(stretch, peaks, nearby * _coarse_gain(), (0.5,))
    quarters = _sieve(stretch, halves, halves * _HALVES_MISS, (0.25, 0.75))
    block = quarters.topk(min(_FINE_BLOCKS, peaks.shape[1]), dim=-1).indices
    row = torch.arange(len(peaks), device=peaks.device).repeat_interleave(block.shape[1])
    taps = _interpolator(_FINE_PHASES, _FINE_HALF, _FINE_BETA, peaks.dtype, peaks.device)
    between = (_around(stretch, row, block.flatten(), _FINE_HALF) @ taps).abs_()
    return torch.maximum(between.view(*stretch.peaks.shape[:2], -1).amax(-1), stretch.peaks.amax(-1)).amax(-1)


def peaks_of(stretch: Chunk) -> Tensor:
    """True peak and sample peak, linear, over all channels of each item: [b, 2]"""
    return torch.stack([true_peak(stretch), stretch.peaks.amax((1, 2))], -1)


def true_and_sample_peak(audio: Audio) -> Tensor:
    """Both peaks, linear, over all channels of each item: [b, 2]; zero where there is no sample."""
    highest = torch.zeros(audio.samples.shape[0], 2, dtype=audio.dtype, device=audio.device)
    for stretch in chunks(audio):
        highest = torch.maximum(highest, peaks_of(stretch))
    return highest
