"""Summarize the spectrum with compiled functions, item by item."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio
from audiopipe.kernels.compiled_spectral import summarize_frames
from audiopipe.kernels.fft_plan import FftPlan
from audiopipe.kernels.noise import band_count

__all__ = ["real_turns", "summarize_items"]


@lru_cache(maxsize=8)
def real_turns(size: int) -> npt.NDArray[np.float32]:
    """Return the cosines and sines of the first bins of frames of `2 size` samples, in turn: [size + 2]"""
    angles = np.pi * np.arange(size // 2 + 1) / size
    return np.stack([np.cos(angles), np.sin(angles)], 1).reshape(-1).astype(np.float32)


def summarize_items(
    audio: Audio, plan: FftPlan, bin_hz: float, window: Tensor, hop_length: int, rolloff: float, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the features [b, 4], the spectrum [b, N] and the bands [b, K, F] of `Summary`.

    Args:
        plan: of the transform of half the samples of a frame.
    """
    size, batch = plan.size, len(audio.lengths)
    features, spectrum = np.zeros((batch, 4)), np.zeros((batch, size + 1))
    n_frames = 1 + audio.n_samples // hop_length
    bands = np.zeros((batch, band_count(size + 1), -(-n_frames // 8) * 8), np.float32)
    counts = np.where(audio.lengths.numpy() > 0, 1 + audio.lengths.numpy() // hop_length, 0)
    for i, x in enumerate(audio.items()):
        count = int(counts[i])
        summarize_frames(
            x, count, hop_length, window.numpy() * np.float32(0.5), plan.radices, plan.factors, plan.order,
            real_turns(size), bin_hz, rolloff, floor, features[i], spectrum[i], bands[i],
        )  # fmt: skip
        bands[i, :, count:] = 0
    with np.errstate(invalid="ignore"):
        means = features / counts[:, None], spectrum / counts[:, None]
    return torch.from_numpy(means[0]), torch.from_numpy(means[1]), torch.from_numpy(bands[:, :, :n_frames])
