"""Summarize the spectrum with compiled functions, item by item."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio
from audiopipe.kernels.compiled_spectral import fill_frames, reduce_frames
from audiopipe.kernels.noise import band_count

_FFT_SAMPLES = 1 << 17  # samples of the frames of one FFT call; they and their spectra stay in the caches of a core


def summarize_items(
    audio: Audio, bin_hz: float, window: Tensor, hop_length: int, rolloff: float, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the features [b, 4], the spectrum [b, N] and the bands [b, K, F] of `Summary`."""
    n_fft, batch = len(window), len(audio.lengths)
    bins, n_frames = n_fft // 2 + 1, 1 + audio.n_samples // hop_length
    features, spectrum = np.zeros((batch, 4)), np.zeros((batch, bins))
    bands = np.zeros((batch, band_count(bins), n_frames), np.float32)
    counts = torch.where(audio.lengths > 0, 1 + audio.lengths // hop_length, 0)
    frames = torch.empty(max(_FFT_SAMPLES // n_fft, 1), n_fft)
    for i, (x, scale) in enumerate(audio.items()):
        count = int(counts[i])
        for first in range(0, count, len(frames)):
            part = frames[: count - first]
            fill_frames(x, scale, first * hop_length - n_fft // 2, hop_length, window.numpy(), part.numpy())
            spectra = torch.view_as_real(torch.fft.rfft(part)).flatten(1).numpy()
            reduce_frames(spectra, bin_hz, rolloff, floor, features[i], spectrum[i], bands[i], first)
    mean_features, mean_spectrum = (torch.from_numpy(values) / counts[:, None] for values in (features, spectrum))
    return mean_features, mean_spectrum, torch.from_numpy(bands)
