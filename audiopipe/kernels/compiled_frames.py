"""Compiled steps before and after a transform of eight signals: fill its rows from samples, and read real spectra."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiler import CompiledFunction
from audiopipe.kernels.vectors import load, splat, store, transpose

_Floats = npt.NDArray[np.float32]


@CompiledFunction
def mix_samples(x: _Floats, start: int, mono: _Floats) -> None:
    """Compute the mean of the channels from sample `start` on; samples outside the audio are zero.

    Shape:
        - x: [C, T]
        - mono: [N]
    """
    channels, samples = x.shape
    size = len(mono)
    low = min(max(-start, 0), size)
    high = max(min(samples - start, size), low)
    for i in range(low):
        mono[i] = 0.0
    for i in range(high, size):
        mono[i] = 0.0
    inner = mono[low:high]
    row = x[0, start + low : start + high]
    for i in range(high - low):
        inner[i] = row[i]
    if channels > 1:
        for c in range(1, channels):
            row = x[c, start + low : start + high]
            for i in range(high - low):
                inner[i] += row[i]
        share = np.float32(1 / channels)
        for i in range(high - low):
            inner[i] *= share


@CompiledFunction
def fill_rows(x: _Floats, start: int, step: int, window: _Floats, rows: _Floats, distance: int) -> None:
    """Fill rows with samples of eight signals times a window: row i has sample i of each.

    Args:
        x: samples of all signals.
        start: first sample of the first signal.
        step: samples between the starts of signals.
        distance: values between rows; 8 for the real and the imaginary parts in turn, 16 for one of them.

    Shape:
        - x: [T]
        - window: [N], N a multiple of 8
        - rows: [distance N]
    """
    for i in range(0, len(window), 8):
        shape, s = load(window, i), start + i
        columns = transpose((
            load(x, s) * shape, load(x, s + step) * shape, load(x, s + 2 * step) * shape,
            load(x, s + 3 * step) * shape, load(x, s + 4 * step) * shape, load(x, s + 5 * step) * shape,
            load(x, s + 6 * step) * shape, load(x, s + 7 * step) * shape,
        ))  # fmt: skip
        for j in range(8):
            store(rows, distance * (i + j), columns[j])


@CompiledFunction
def compute_power(
    rows: _Floats, order: npt.NDArray[np.int64], turns: _Floats, first: int, last: int, power: _Floats
) -> None:
    """Compute the power of the bins `first` to `last` and their mirror images of eight real signals of 2 N samples.

    The transform of N complex values, whose real and imaginary parts are the even and the odd samples, has the sum of
    the spectra of both at bin k and their difference at bin N - k.

    Args:
        rows: transform of half the samples: the even ones are real, the odd ones imaginary parts.
        order: row of each bin.
        turns: cosines and sines of the bins of 2 N samples, in turn.
        first, last: from 0 to N / 2 + 1.
        power: of the bins 0 to N.

    Shape:
        - rows: [16 N]
        - order: [N]
        - turns: [N + 2]
        - power: [8 (N + 1)]
    """
    size = len(order)
    if first == 0:
        re, im = load(rows, 0), load(rows, 8)
        low, high = (re + im) * splat(np.float32(2)), (re - im) * splat(np.float32(2))
        store(power, 0, low * low)
        store(power, 8 * size, high * high)
    for k in range(max(first, 1), last):
        a, b = 16 * order[k], 16 * order[size - k]
        a_re, a_im, b_re, b_im = load(rows, a), load(rows, a + 8), load(rows, b), load(rows, b + 8)
        even_re, even_im, odd_re, odd_im = a_re + b_re, a_im - b_im, a_im + b_im, b_re - a_re
        cosine, sine = splat(turns[2 * k]), splat(turns[2 * k + 1])
        turned_re, turned_im = odd_re * cosine + odd_im * sine, odd_im * cosine - odd_re * sine
        re, im = even_re + turned_re, even_im + turned_im
        store(power, 8 * k, re * re + im * im)
        re, im = even_re - turned_re, even_im - turned_im
        store(power, 8 * (size - k), re * re + im * im)
