"""Compiled spectral metrics: the power spectra of eight frames at a time, and all sums over their bins."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiled_fft import transform
from audiopipe.kernels.compiled_frames import compute_power, fill_rows, mix_samples
from audiopipe.kernels.compiler import CompiledFunction
from audiopipe.kernels.vectors import exponent, load, mantissa, maximum, splat, square_root, store

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Whole = npt.NDArray[np.int64]


@CompiledFunction
def _sum_bins(power: _Floats, mask: _Floats, magnitude: _Floats, spectrum: _Floats, sums: _Floats) -> None:
    """Compute the magnitudes and, for each group of 32 bins, their sum, their first two moments and the power.

    The power of frames whose mask is 0 is set to 0; all others are added to `spectrum`.

    Shape:
        - power, magnitude, spectrum: [8 N]
        - mask: [8]
        - sums: [groups, 4 * 8]
    """
    bins, valid = len(power) // 8, load(mask, 0)
    for group in range(sums.shape[0]):
        zero = splat(np.float32(0))
        total, moment, square, energy = zero, zero, zero, zero
        first = 32 * group
        for k in range(first, min(first + 32, bins)):
            p = load(power, 8 * k) * valid
            store(power, 8 * k, p)
            store(spectrum, 8 * k, load(spectrum, 8 * k) + p)
            m, place = square_root(p), splat(np.float32(k - first))
            store(magnitude, 8 * k, m)
            total, energy = total + m, energy + p
            weighted = m * place
            moment, square = moment + weighted, square + weighted * place
        row = sums[group]
        store(row, 0, total)
        store(row, 8, moment)
        store(row, 16, square)
        store(row, 24, energy)


@CompiledFunction
def _sum_logarithms(power: _Floats, floor: np.float32, sums: _Floats) -> None:
    """Compute the product of all bins as mantissa and exponent, and their sum; a bin has at least the power `floor`.

    Bins are multiplied in pairs, after which the exponent of the product is taken away.

    Shape:
        - power: [8 N], N odd
        - sums: [3 * 8], mantissa, exponent and sum
    """
    bins, least = len(power) // 8, splat(floor)
    last = maximum(load(power, 8 * (bins - 1)), least)
    product, exponents, total = last, splat(np.float32(0)), last
    for k in range(0, bins - 1, 2):
        a, b = maximum(load(power, 8 * k), least), maximum(load(power, 8 * k + 8), least)
        total = total + (a + b)
        exponents = exponents + exponent(product)
        product = mantissa(product) * (a * b)
    store(sums, 0, mantissa(product))
    store(sums, 8, exponents + exponent(product))
    store(sums, 16, total)


@CompiledFunction
def _find_rolloff(magnitude: _Floats, sums: _Floats, lane: int, target: float, bins: int) -> int:
    """Find the first bin at which the running sum of a frame's magnitudes reaches the target."""
    groups = sums.shape[0]
    group, running = 0, np.float64(sums[0, lane])
    while running < target and group + 1 < groups:
        group += 1
        running += np.float64(sums[group, lane])
    running -= np.float64(sums[group, lane])
    k = 32 * group
    running += np.float64(magnitude[8 * k + lane])
    while running < target and k + 1 < min(32 * group + 32, bins):
        k += 1
        running += np.float64(magnitude[8 * k + lane])
    return k


@CompiledFunction
def _add_features(
    magnitude: _Floats, sums: _Floats, logarithms: _Floats, lane: int, bin_hz: float, rolloff: float, features: _Doubles
) -> None:
    """Add centroid, bandwidth, rolloff and flatness of a frame to sums."""
    bins = len(magnitude) // 8
    norm, first_moment, second_moment = 0.0, 0.0, 0.0
    for group in range(sums.shape[0]):
        base, total = 32.0 * group, np.float64(sums[group, lane])
        moment, square = np.float64(sums[group, 8 + lane]), np.float64(sums[group, 16 + lane])
        norm += total
        first_moment += moment + base * total
        second_moment += square + 2 * base * moment + base * base * total
    # librosa does not normalize an (almost) silent frame, so its centroid is 0.
    tiny = 1.1754943508222875e-38
    divisor = norm if norm > tiny else (1.0 if norm <= tiny else norm)
    centroid = first_moment / divisor
    variance = max(second_moment / divisor - centroid * centroid, 0.0)
    factors = bins // 2 + 1  # whose exponents were added
    powers_of_2 = np.float64(logarithms[8 + lane]) - 127.0 * factors
    logarithm = math.log(np.float64(logarithms[lane])) + powers_of_2 * math.log(2.0)
    features[0] += centroid * bin_hz
    features[1] += math.sqrt(variance) * bin_hz
    features[2] += _find_rolloff(magnitude, sums, lane, rolloff * norm, bins) * bin_hz
    features[3] += math.exp(logarithm / bins) / (np.float64(logarithms[16 + lane]) / bins)


@CompiledFunction
def _store_bands(power: _Floats, sums: _Floats, first: int, bands: _Floats) -> None:
    """Store the power of the bands: octaves of the first 32 bins, then groups of 32 bins."""
    band, low = 0, 0
    while low < 32:
        high = 2 if low == 0 else 2 * low
        total = load(power, 8 * low)
        for k in range(low + 1, high):
            total = total + load(power, 8 * k)
        store(bands[band], first, total)
        band, low = band + 1, high
    for group in range(1, sums.shape[0]):
        store(bands[band + group - 1], first, load(sums[group], 24))


@CompiledFunction
def summarize_frames(
    x: _Floats, count: int, step: int, window: _Floats, radices: _Whole, factors: _Floats, order: _Whole,
    turns: _Floats, bin_hz: float, rolloff: float, floor: float, features: _Doubles, spectrum: _Doubles,
    bands: _Floats,
) -> None:  # fmt: skip
    """Compute sums over the frames of an item, and the bands of each.

    Args:
        x: samples.
        count: number of frames; the first is centered on the first sample.
        step: samples between frames.
        window: times 1 / 2.
        radices, factors, order: of the transform of N values.
        turns: cosines and sines of 2 N samples, in turn.
        bin_hz: distance of bins.
        rolloff: share of the magnitude below the rolloff.
        floor: least power of a bin for the flatness.
        features: sums of centroid, bandwidth, rolloff and flatness.
        spectrum: sums of the power.
        bands: octaves of the first 32 bins, then 32 bins each; of `count` frames and up to seven others.

    Shape:
        - x: [C, T]
        - window: [2 N], N a multiple of 4
        - features: [4]
        - spectrum: [N + 1]
        - bands: [K, at least count rounded up to a multiple of 8]
    """
    size, bins, span = len(order), len(order) + 1, 7 * step + len(window)
    rows, mono = np.empty(16 * size, np.float32), np.empty(span, np.float32)
    power, magnitude = np.empty(8 * bins, np.float32), np.empty(8 * bins, np.float32)
    sums, logarithms = np.empty(((bins + 31) // 32, 32), np.float32), np.empty(24, np.float32)
    mask, partial = np.ones(8, np.float32), np.zeros(8 * bins, np.float32)
    for first in range(0, count, 8):
        start = first * step - size
        if x.shape[0] == 1 and start >= 0 and start + span <= x.shape[1]:
            fill_rows(x[0], start, step, window, rows, 8)
        else:
            mix_samples(x, start, mono)
            fill_rows(mono, 0, step, window, rows, 8)
        transform(rows, size, radices, factors)
        compute_power(rows, order, turns, 0, size // 2 + 1, power)
        valid = min(8, count - first)
        for lane in range(valid, 8):
            mask[lane] = 0
        _sum_bins(power, mask, magnitude, partial, sums)
        _sum_logarithms(power, np.float32(floor), logarithms)
        _store_bands(power, sums, first, bands)
        for lane in range(valid):
            _add_features(magnitude, sums, logarithms, lane, bin_hz, rolloff, features)
        if first % 512 == 504 or first + 8 >= count:  # float32 sums of at most 64 frames
            for k in range(bins):
                for lane in range(8):
                    spectrum[k] += np.float64(partial[8 * k + lane])
            partial[:] = 0
