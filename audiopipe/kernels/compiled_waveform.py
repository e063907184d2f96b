"""Compiled levels and true peak: one pass over the samples, then a few blocks again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiler import CompiledFunction

_Floats = npt.NDArray[np.float32]


@CompiledFunction
def measure_blocks(
    x: _Floats, clipped_from: float, silent_below: float, peaks: _Floats, counts: npt.NDArray[np.float64]
) -> None:
    """Compute the highest magnitude of each block of 32 samples; add to the sums of `accumulate_levels`.

    Args:
        x: samples of one channel.
        clipped_from: magnitude from which on a sample is clipped.
        silent_below: magnitude below which all samples of a silent block are.

    Shape:
        - x: [T]
        - peaks: [ceil(T / 32)]
        - counts: [5]
    """
    samples = len(x)
    tile = np.zeros(1025, np.float32)  # the first is the last sample of the previous tile
    a, b = np.zeros(512, np.float32), np.zeros(256, np.float32)
    if samples > 0:
        tile[0] = x[0]
    energy, total = 0.0, 0.0
    clipped, silent, crossings = 0, 0, 0
    for start in range(0, samples, 1024):
        size = min(1024, samples - start)
        part, current, previous = x[start : start + size], tile[1:1025], tile[:1024]
        if start > 0:
            tile[0] = tile[1024]
        for i in range(size):
            current[i] = part[i]
        changes = np.float32(0)
        for i in range(size):
            changes += np.float32(1) if (current[i] < 0) != (previous[i] < 0) else np.float32(0)
        crossings += int(changes)
        for i in range(size, 1024):
            current[i] = 0.0
        for i in range(1024):
            v = np.float64(current[i])
            total += v
            energy += v * v
        # The highest of 32 by pairs, which is a vector operation at each step.
        for i in range(512):
            u, v = abs(current[2 * i]), abs(current[2 * i + 1])
            a[i] = u if u > v else v
        for i in range(256):
            u, v = a[2 * i], a[2 * i + 1]
            b[i] = u if u > v else v
        for i in range(128):
            u, v = b[2 * i], b[2 * i + 1]
            a[i] = u if u > v else v
        for i in range(64):
            u, v = a[2 * i], a[2 * i + 1]
            b[i] = u if u > v else v
        for i in range((size + 31) // 32):
            u, v = b[2 * i], b[2 * i + 1]
            peak = u if u > v else v
            peaks[start // 32 + i] = peak
            if peak >= clipped_from:
                for j in range(32 * i, 32 * i + 32):
                    clipped += abs(current[j]) >= clipped_from
            if peak < silent_below:
                silent += min(32, size - 32 * i)
    counts[0] += energy
    counts[1] += total
    counts[2] += clipped
    counts[3] += silent
    counts[4] += crossings


@CompiledFunction
def raise_peaks(x: _Floats, taps: _Floats, factor: float, neighbors: int, peaks: _Floats) -> None:
    """Raise the peaks of blocks to the values that an interpolation finds between their samples.

    A block is interpolated only if its peak, or the highest peak of it and its neighbors, times `factor` exceeds the
    highest peak of all.

    Args:
        x: samples of one channel.
        taps: of each phase; a multiple of 8.
        neighbors: blocks on each side whose peaks count, 0 or 1.

    Shape:
        - x: [T]
        - taps: [phases, 2 half]
        - peaks: [ceil(T / 32)]
    """
    blocks, samples, half = len(peaks), len(x), taps.shape[1] // 2
    highest, before = np.float32(0), np.float32(0)
    for block in range(blocks):
        highest = max(highest, peaks[block])
    window, sums = np.zeros(32 + 2 * half, np.float32), np.zeros(32, np.float32)
    for block in range(blocks):
        peak = peaks[block]
        possible = peak
        if neighbors > 0:
            possible = max(possible, before)
            if block + 1 < blocks:
                possible = max(possible, peaks[block + 1])
        before = peak
        if not possible * factor > highest:
            continue
        first = 32 * block - half
        for i in range(32 + 2 * half):
            inside = first + i >= 0 and first + i < samples
            window[i] = x[first + i] if inside else np.float32(0)
        for phase in range(taps.shape[0]):
            sums[:] = 0
            for tap in range(0, 2 * half, 8):
                part = window[tap + 1 : tap + 40]
                a, b, c, d = taps[phase, tap], taps[phase, tap + 1], taps[phase, tap + 2], taps[phase, tap + 3]
                e, f, g, h = taps[phase, tap + 4], taps[phase, tap + 5], taps[phase, tap + 6], taps[phase, tap + 7]
                for i in range(32):
                    low = a * part[i] + b * part[i + 1] + c * part[i + 2] + d * part[i + 3]
                    sums[i] += low + e * part[i + 4] + f * part[i + 5] + g * part[i + 6] + h * part[i + 7]
            for i in range(32):
                peak = max(peak, abs(sums[i]))
        peaks[block] = peak


@CompiledFunction
def find_true_peak(
    x: _Floats, taps: npt.NDArray[np.float64], peaks: _Floats, factor: float, n_blocks: int, highest: float
) -> float:
    """Return the highest magnitude that a fine interpolation finds, or `highest` if it finds less.

    It is computed in the blocks with the highest peaks, at most `n_blocks`, which are set to zero in `peaks`.

    Between two samples it is computed first at every fourth phase, and at the others only if the highest value there,
    times `factor`, exceeds the highest value so far.

    Args:
        x: samples of one channel.
        taps: of each phase.
        peaks: of all blocks by coarse interpolation; overwritten.

    Shape:
        - x: [T]
        - taps: [phases, 2 half]
        - peaks: [ceil(T / 32)]
    """
    samples, half = len(x), taps.shape[1] // 2
    window = np.zeros(32 + 2 * half)
    bits = peaks.view(np.int32)  # in the order of the values, and their maximum is a vector operation
    result = highest
    for _ in range(min(n_blocks, len(peaks))):
        most = bits[0]
        for i in range(len(bits)):
            most = bits[i] if bits[i] > most else most
        block = 0
        while bits[block] != most:
            block += 1
        if not peaks[block] > 0:
            break
        peaks[block] = 0
        first = 32 * block - half
        for i in range(32 + 2 * half):
            inside = first + i >= 0 and first + i < samples
            window[i] = np.float64(x[first + i]) if inside else 0.0
        for n in range(32):
            possible = max(abs(window[half + n]), abs(window[half + n + 1]))
            near = window[n + 1 : n + 1 + 2 * half]
            for step in (4, 1):
                for phase in range(step - 1, taps.shape[0], step):
                    value = 0.0
                    for i in range(2 * half):
                        value += taps[phase, i] * near[i]
                    possible = max(possible, abs(value))
                if not possible * factor > result:
                    break
            result = max(result, possible)
    return result
