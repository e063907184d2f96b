"""Compiled steps of the fingerprint around its FFT: decimation, windowed frames and the power of the bands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiler import CompiledFunction

_Floats = npt.NDArray[np.float32]


@CompiledFunction
def decimate(x: _Floats, weights: _Floats, unit: float, low: _Floats) -> None:
    """Filter samples with a triangle over two steps, and keep one per step.

    A step of 5 or 6 samples, of one channel at 44.1 and 48 kHz, is written out, because it is then a vector operation.

    Args:
        x: interleaved samples.
        weights: of the samples of a step in the rising half of the triangle.
        unit: factor of the sums.

    Shape:
        - x: [(M + 1) W]
        - weights: [W]
        - low: [M]
    """
    width, steps = len(weights), len(low) + 1
    rising, falling = np.zeros(257, np.float32), np.zeros(257, np.float32)
    factor = np.float32(unit)
    for first in range(0, steps - 1, 256):
        count = min(257, steps - first)
        part = x[first * width : (first + count) * width]
        if width == 6:
            a, b, c, d, e, f = weights[0], weights[1], weights[2], weights[3], weights[4], weights[5]
            for i in range(count):
                u, v, w = part[6 * i], part[6 * i + 1], part[6 * i + 2]
                x3, y3, z3 = part[6 * i + 3], part[6 * i + 4], part[6 * i + 5]
                rising[i] = a * u + b * v + c * w + d * x3 + e * y3 + f * z3
                falling[i] = f * u + e * v + d * w + c * x3 + b * y3 + a * z3
        elif width == 5:
            a, b, c, d, e = weights[0], weights[1], weights[2], weights[3], weights[4]
            for i in range(count):
                u, v, w, x3, y3 = part[5 * i], part[5 * i + 1], part[5 * i + 2], part[5 * i + 3], part[5 * i + 4]
                rising[i] = a * u + b * v + c * w + d * x3 + e * y3
                falling[i] = e * u + d * v + c * w + b * x3 + a * y3
        else:
            for i in range(count):
                step = part[i * width : (i + 1) * width]
                up, down = np.float32(0), np.float32(0)
                for j in range(width):
                    up += weights[j] * step[j]
                    down += weights[width - 1 - j] * step[j]
                rising[i], falling[i] = up, down
        target = low[first : first + count - 1]
        for i in range(count - 1):
            target[i] = (rising[i] + falling[i + 1]) * factor


@CompiledFunction
def fill_windows(low: _Floats, window: _Floats, frames: _Floats) -> None:
    """Fill frames that overlap by half with samples times a window.

    Shape:
        - low: [(F + 1) N / 2]
        - window: [N]
        - frames: [F, N]
    """
    size = frames.shape[1]
    for f in range(frames.shape[0]):
        source, target = low[f * (size // 2) : f * (size // 2) + size], frames[f]
        for i in range(size):
            target[i] = source[i] * window[i]


@CompiledFunction
def sum_bands(spectra: _Floats, first_bin: int, weights: _Floats, powers: _Floats) -> None:
    """Compute the weighted power of bins in each band.

    Args:
        spectra: real and imaginary parts in turn.
        first_bin: the bin of the first weights.

    Shape:
        - spectra: [F, 2 N]
        - weights: [bands, bins]
        - powers: [F, bands]
    """
    bands, bins = weights.shape
    power = np.zeros(bins, np.float32)
    for f in range(spectra.shape[0]):
        row = spectra[f, 2 * first_bin : 2 * (first_bin + bins)]
        for k in range(bins):
            power[k] = row[2 * k] * row[2 * k] + row[2 * k + 1] * row[2 * k + 1]
        for band in range(bands):
            total = 0.0
            for k in range(bins):
                total += np.float64(weights[band, k]) * np.float64(power[k])
            powers[f, band] = total
