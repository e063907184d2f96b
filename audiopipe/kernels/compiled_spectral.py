"""Compiled steps around the FFTs of the spectral metrics: windowed frames, and all sums over bins in one pass."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiler import CompiledFunction

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]


@CompiledFunction
def fill_frames(x: _Floats, scale: float, start: int, step: int, window: _Floats, frames: _Floats) -> None:
    """Fill frames with the mean of the channels times a window; samples outside the audio are zero.

    Args:
        x: samples.
        scale: factor of the samples.
        start: first sample of the first frame; may be negative.
        step: samples between frames.

    Shape:
        - x: [C, T]
        - window: [N]
        - frames: [F, N]
    """
    channels, samples = x.shape
    size = frames.shape[1]
    factor = np.float32(scale)
    share = np.float32(1 / channels)
    for f in range(frames.shape[0]):
        frame = frames[f]
        first = start + f * step
        low, high = min(max(-first, 0), size), max(min(samples - first, size), 0)
        high = max(high, low)
        for i in range(low):
            frame[i] = 0.0
        for i in range(high, size):
            frame[i] = 0.0
        inner = frame[low:high]
        shape = window[low:high]
        if channels == 1:
            row = x[0, first + low : first + high]
            for i in range(high - low):
                inner[i] = np.float32(row[i]) * factor * shape[i]
        else:
            for i in range(high - low):
                inner[i] = 0.0
            for c in range(channels):
                row = x[c, first + low : first + high]
                for i in range(high - low):
                    inner[i] += np.float32(row[i]) * factor
            for i in range(high - low):
                inner[i] *= share * shape[i]


@CompiledFunction
def reduce_frames(
    spectra: _Floats, bin_hz: float, rolloff_share: float, floor: float, features: _Doubles, spectrum: _Doubles,
    bands: _Floats, first: int,
) -> None:  # fmt: skip
    """Add the features of frames and their power spectrum to sums; store the power of the bands.

    Args:
        spectra: real and imaginary parts in turn.
        bin_hz: distance of bins.
        rolloff_share: share of the magnitude below the rolloff.
        floor: least power of a bin for the flatness.
        features: sums of centroid, bandwidth, rolloff and flatness.
        spectrum: sums of the power.
        bands: octaves of the first 32 bins, then 32 bins each.
        first: number of the first frame in `bands`.

    Shape:
        - spectra: [F, 2 N]
        - features: [4]
        - spectrum: [N]
        - bands: [K, frames]
    """
    bins = spectra.shape[1] // 2
    groups = (bins + 31) // 32
    width = 32 * groups
    power, magnitude = np.zeros(width, np.float32), np.zeros(width, np.float32)
    mantissa_bits = np.zeros(width, np.int32)
    mantissa = mantissa_bits.view(np.float32)
    floored = np.zeros(width, np.float32)
    floored_bits = floored.view(np.int32)
    products = np.ones(32, np.float32)
    sums, group_sums = np.zeros(groups), np.zeros(groups)
    least = np.float32(floor)
    tiny = 1.1754943508222875e-38
    for f in range(spectra.shape[0]):
        row = spectra[f]
        for k in range(bins):
            re, im = row[2 * k], row[2 * k + 1]
            power[k] = re * re + im * im
        for k in range(bins):
            spectrum[k] += np.float64(power[k])
        for k in range(width):
            magnitude[k] = np.sqrt(power[k])
        # The moments around bin 0, from the sums over all groups of 1, g and g^2 for each place in a group of 32.
        first_moment, second_moment = 0.0, 0.0
        for g in range(groups):
            part, powers = magnitude[32 * g : 32 * g + 32], power[32 * g : 32 * g + 32]
            total, moment, square, band = 0.0, 0.0, 0.0, 0.0
            for i in range(32):
                v = np.float64(part[i])
                total += v
                moment += i * v
                square += (i * i) * v
                band += np.float64(powers[i])
            group_sums[g] = total
            sums[g] = band
            base = 32.0 * g
            first_moment += moment + base * total
            second_moment += square + 2 * base * moment + base * base * total
        norm = 0.0
        for g in range(groups):
            norm += group_sums[g]
        # librosa does not normalize an (almost) silent frame, so its centroid is 0.
        divisor = norm if norm > tiny else (1.0 if norm <= tiny else norm)
        centroid = first_moment / divisor
        variance = max(second_moment / divisor - centroid * centroid, 0.0)
        target = rolloff_share * norm
        group, running = 0, group_sums[0]
        while running < target and group + 1 < groups:
            group += 1
            running += group_sums[group]
        running -= group_sums[group]
        k = 32 * group
        running += np.float64(magnitude[k])
        while running < target and k + 1 < min(32 * group + 32, bins):
            k += 1
            running += np.float64(magnitude[k])
        # The logarithm of a product is the sum of the exponents of its factors and the logarithm of their mantissas.
        arithmetic = 0.0
        for i in range(bins):
            floored[i] = power[i] if power[i] > least else least
            arithmetic += np.float64(floored[i])
        exponents = 0
        for i in range(bins):
            exponents += floored_bits[i] >> 23
            mantissa_bits[i] = np.int32((floored_bits[i] & np.int32(0x7FFFFF)) | np.int32(0x3F800000))
        logarithms = (exponents - 127 * bins) * math.log(2.0)
        for start in range(0, bins, 1024):  # 32 factors below 2 for each product
            products[:] = 1
            size = min(1024, bins - start)
            whole = size // 32 * 32
            for g in range(0, whole, 32):
                part = mantissa[start + g : start + g + 32]
                for i in range(32):
                    products[i] *= part[i]
            for i in range(size - whole):
                products[i] *= mantissa[start + whole + i]
            for i in range(0, 32, 16):
                product = 1.0
                for j in range(i, i + 16):
                    product *= np.float64(products[j])
                logarithms += math.log(product)
        features[0] += centroid * bin_hz
        features[1] += math.sqrt(variance) * bin_hz
        features[2] += k * bin_hz
        features[3] += math.exp(logarithms / bins) / (arithmetic / bins)
        bands[0, first + f] = power[0] + power[1]
        bands[1, first + f] = power[2] + power[3]
        low, start = 4, 2
        while low < 32:
            band = 0.0
            for i in range(low, 2 * low):
                band += np.float64(power[i])
            bands[start, first + f] = band
            low, start = 2 * low, start + 1
        for g in range(1, groups):
            bands[start + g - 1, first + f] = sums[g]
