"""Compute peaks and the sums that levels derive from with compiled functions, item by item."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiopipe.kernels import true_peak
from audiopipe.kernels.audio import Audio
from audiopipe.kernels.chunks import BLOCK
from audiopipe.kernels.compiled_waveform import find_true_peak, measure_blocks, raise_peaks
from audiopipe.kernels.levels import CLIPPED_FROM, SILENT_BELOW

# Values a quarter of a sample apart miss a peak by a factor of at most 1 / cos(pi / 8) = 1.08.
_QUARTERS_MISS = 1.1


@lru_cache(maxsize=8)
def _taps(phases: tuple[float, ...], half: int, beta: float) -> npt.NDArray[np.float64]:
    """Return the taps of each phase, which are those of the first sample of a block: [phases, 2 half]"""
    matrix = true_peak.interpolator(phases, half, beta, torch.float64, torch.device("cpu"))
    return np.ascontiguousarray(matrix[1 : 2 * half + 1, : len(phases)].T.numpy())


@lru_cache(maxsize=8)
def _coarse_taps(*phases: float) -> npt.NDArray[np.float32]:
    return _taps(phases, true_peak.COARSE_HALF, true_peak.COARSE_BETA).astype(np.float32)


def _highest_between_samples(x: npt.NDArray[np.float32], peaks: npt.NDArray[np.float32], sample_peak: float) -> float:
    """Compute the true peak of a channel [T] by the steps of `true_peak`; overwrite the peaks of its blocks."""
    raise_peaks(x, _coarse_taps(0.5), true_peak.coarse_gain(), 1, peaks)
    raise_peaks(x, _coarse_taps(0.25, 0.75), true_peak.HALVES_MISS, 0, peaks)
    fine = _taps(true_peak.FINE_PHASES, true_peak.FINE_HALF, true_peak.FINE_BETA)
    return find_true_peak(x, fine, peaks, _QUARTERS_MISS, true_peak.FINE_BLOCKS, sample_peak)


def reduce_items(audio: Audio) -> tuple[Tensor, Tensor]:
    """Compute the true peak and sample peak [b, 2] as amplitudes, and the sums [b, 5] of `accumulate_levels`."""
    highest, counts = np.zeros((len(audio.lengths), 2)), np.zeros((len(audio.lengths), 5))
    for highest_row, counts_row, x in zip(highest, counts, audio.items(), strict=True):
        for channel in x if x.shape[1] else ():
            peaks = np.zeros(-(-len(channel) // BLOCK), np.float32)
            measure_blocks(channel, CLIPPED_FROM, SILENT_BELOW, peaks, counts_row)
            sample_peak = float(peaks.max())
            true = _highest_between_samples(channel, peaks, sample_peak)
            highest_row[0] = max(highest_row[0], true)
            highest_row[1] = max(highest_row[1], sample_peak)
    return torch.from_numpy(highest).to(audio.dtype), torch.from_numpy(counts)
