"""Compiled steps of the fingerprint: decimation, and the power of the bands in eight frames at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiled_fft import transform
from audiopipe.kernels.compiled_frames import compute_power, fill_rows
from audiopipe.kernels.compiler import CompiledFunction
from audiopipe.kernels.vectors import load, splat, store

_Floats = npt.NDArray[np.float32]
_Whole = npt.NDArray[np.int64]


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
                u, v, w = part[5 * i], part[5 * i + 1], part[5 * i + 2]
                x3, y3 = part[5 * i + 3], part[5 * i + 4]
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
def measure_bands(
    low: _Floats, window: _Floats, radices: _Whole, factors: _Floats, order: _Whole, turns: _Floats, first_bin: int,
    weights: _Floats, powers: _Floats,
) -> None:  # fmt: skip
    """Compute the weighted power of bins in each band, in frames that overlap by half.

    Args:
        window: times 1 / 2.
        radices, factors, order: of the transform of N values.
        turns: cosines and sines of 2 N samples, in turn.
        first_bin: the bin of the first weights.

    Shape:
        - low: [(F + 1) N], F a multiple of 8
        - window: [2 N]
        - weights: [bands, bins]
        - powers: [F, bands]
    """
    size, (bands, bins) = len(order), weights.shape
    rows, power, band_rows = (
        np.empty(16 * size, np.float32),
        np.empty(8 * size + 8, np.float32),
        np.empty(8, np.float32),
    )
    for first in range(0, len(powers), 8):
        fill_rows(low, first * size, size, window, rows, 8)
        transform(rows, size, radices, factors)
        compute_power(rows, order, turns, 0, size // 2 + 1, power)
        for band in range(bands):
            total = splat(np.float32(0))
            for k in range(bins):
                if weights[band, k] > 0:
                    total = total + load(power, 8 * (first_bin + k)) * splat(weights[band, k])
            store(band_rows, 0, total)
            for lane in range(8):
                powers[first + lane, band] = band_rows[lane]
