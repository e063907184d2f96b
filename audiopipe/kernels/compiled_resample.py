"""Compiled steps around the FFTs of the resampler.

The low-pass filter has a real impulse response, so a complex FFT filters two blocks of real samples at once: one as the
real and one as the imaginary part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiler import CompiledFunction

_Floats = npt.NDArray[np.float32]


@CompiledFunction
def fill_pairs(x: _Floats, scale: float, start: int, step: int, pairs: _Floats) -> None:
    """Fill pairs of blocks with the mean of the channels; samples outside the audio are zero.

    Args:
        x: samples.
        scale: factor of the samples.
        start: first sample of the first block; may be negative.
        step: samples between blocks.
        pairs: samples of two blocks in turn; of the samples of a block, every R-th is in the same row.

    Shape:
        - x: [C, T]
        - pairs: [P, R, 2 N / R]
    """
    channels, samples = x.shape
    phases, size = pairs.shape[1], pairs.shape[2] // 2
    factor = np.float32(scale)
    share = np.float32(1 / channels)
    for p in range(pairs.shape[0]):
        first, second = start + 2 * p * step, start + (2 * p + 1) * step
        for phase in range(phases):
            row = pairs[p, phase]
            if channels == 1 and first >= 0 and second + phases * size <= samples:
                a, b = x[0, first + phase : first + phases * size], x[0, second + phase : second + phases * size]
                if phases == 3:
                    for i in range(size):
                        row[2 * i] = np.float32(a[3 * i]) * factor
                        row[2 * i + 1] = np.float32(b[3 * i]) * factor
                else:
                    for i in range(size):
                        row[2 * i] = np.float32(a[phases * i]) * factor
                        row[2 * i + 1] = np.float32(b[phases * i]) * factor
            else:
                for part in range(2):
                    begin = second + phase if part == 1 else first + phase
                    for i in range(size):
                        total = np.float32(0)
                        place = begin + phases * i
                        if place >= 0 and place < samples:
                            for c in range(channels):
                                total += np.float32(x[c, place]) * factor
                            if channels > 1:
                                total *= share
                        row[2 * i + part] = total


@CompiledFunction
def filter_pairs(spectra: _Floats, gain: _Floats, output: _Floats) -> None:
    """Multiply spectra by a real gain, and truncate or extend them to the length of the output.

    Args:
        spectra: real and imaginary parts in turn.
        gain: of the bins from 0 to half the shorter length.
        output: real and imaginary parts in turn.

    Shape:
        - spectra: [P, 2 N]
        - gain: [min(N, M) / 2 + 1]
        - output: [P, 2 M]
    """
    size, output_size = spectra.shape[1] // 2, output.shape[1] // 2
    top = len(gain) - 1
    short = min(size, output_size)
    for p in range(spectra.shape[0]):
        row, target = spectra[p], output[p]
        for k in range(top + 1):
            g = gain[k]
            target[2 * k] = row[2 * k] * g
            target[2 * k + 1] = row[2 * k + 1] * g
        for i in range(2 * top + 2, 2 * (output_size - top)):
            target[i] = 0.0
        below, above = row[2 * (size - top) :], target[2 * (output_size - top) :]
        if short % 2 == 0:
            # The bin at half the shorter length is the sum of a frequency and its negative.
            g = gain[top]
            half = np.float32(0.5) if output_size <= size else np.float32(1)
            for part in range(2):
                if output_size < size:
                    target[2 * top + part] = (row[2 * top + part] + below[part]) * g * half
                elif output_size > size:
                    above[part] = target[2 * top + part]
        else:
            above[0], above[1] = below[0] * gain[top], below[1] * gain[top]
        for k in range(1, top):
            g = gain[top - k]
            above[2 * k] = below[2 * k] * g
            above[2 * k + 1] = below[2 * k + 1] * g


@CompiledFunction
def filter_phases(spectra: _Floats, gains: _Floats, output: _Floats) -> None:
    """Add the spectra of R phases of blocks, each times its gains; the spectrum of every R-th filtered sample.

    The bins of the spectrum of a block from -M / 2 to M / 2 are such a sum, since the spectrum of a phase repeats
    after M bins. So they need transforms of length M only.

    Args:
        spectra: real and imaginary parts in turn.
        gains: real and imaginary parts in turn.
        output: real and imaginary parts in turn.

    Shape:
        - spectra: [P, R, 2 M]
        - gains: [R, 2 M]
        - output: [P, 2 M]
    """
    pairs, phases, size = spectra.shape[0], spectra.shape[1], spectra.shape[2] // 2
    for p in range(pairs):
        target = output[p]
        for k in range(2 * size):
            target[k] = 0.0
        for phase in range(phases):
            row, gain = spectra[p, phase], gains[phase]
            for k in range(size):
                re, im = row[2 * k], row[2 * k + 1]
                target[2 * k] += re * gain[2 * k] - im * gain[2 * k + 1]
                target[2 * k + 1] += re * gain[2 * k + 1] + im * gain[2 * k]


@CompiledFunction
def copy_pairs(pairs: _Floats, overlap: int, step: int, first: int, y: _Floats) -> None:
    """Copy the valid samples of blocks to the output, from block `first` on.

    Args:
        pairs: samples of two blocks in turn.
        overlap: samples at the start of a block that are not valid.
        step: valid samples of a block.

    Shape:
        - pairs: [P, 2 M]
        - y: [T']
    """
    samples = len(y)
    for p in range(pairs.shape[0]):
        row = pairs[p]
        for part in range(2):
            start = (first + 2 * p + part) * step
            size = min(step, samples - start)
            if size > 0:
                target = y[start : start + size]
                source = row[2 * overlap + part :]
                for i in range(size):
                    target[i] = source[2 * i]
