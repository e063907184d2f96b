"""Design the low-pass filter of the resampler: a sinc with Kaiser's window."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["filter_reach", "frequency_response"]

# The bands of soxr's HQ preset: flat to 0.913 of the lower Nyquist frequency, and nothing above that frequency.
PASS_BAND, STOP_BAND = 0.913, 1.0
STOP_DB = 100.0


def filter_reach(up: int, down: int) -> float:
    """Return half the length of the filter in input samples, by Kaiser's formula, for a ratio of up / down."""
    width = (STOP_BAND - PASS_BAND) / 2 * min(1.0, up / down)
    return (STOP_DB - 7.95) / (14.36 * width) / 2


def frequency_response(k: int, up: int, down: int) -> Tensor:
    """Compute the gain of each bin of blocks of k * down input and k * up output samples, in float64.

    Shape:
        - output: [k * min(up, down) / 2 + 1]
    """
    scale = min(1.0, up / down)  # the lower Nyquist frequency as a share of the input's
    cutoff, reach = (PASS_BAND + STOP_BAND) / 2 * scale, filter_reach(up, down)
    beta = 0.1102 * (STOP_DB - 8.7)
    # The impulse response at the higher rate, centered at time zero with negative times at the end.
    n = k * max(up, down)
    index = torch.arange(n, dtype=torch.float64)
    time = torch.minimum(index, n - index) * min(1.0, down / up)
    inside = (1 - (time / reach).square()).clamp(min=0)
    impulse: Tensor = torch.sinc(cutoff * time) * torch.special.i0(beta * inside.sqrt()) * (time < reach)
    gain = torch.fft.rfft(impulse).real[: k * min(up, down) // 2 + 1]
    response: Tensor = gain / gain[0] * (up / down)
    return response
