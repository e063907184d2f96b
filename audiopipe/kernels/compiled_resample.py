"""Compiled resampler: overlap-save with transforms of sixteen blocks at a time.

The low-pass filter has a real impulse response, so a complex transform filters two blocks of real samples at once: one
as the real and one as the imaginary part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiled_fft import transform
from audiopipe.kernels.compiled_frames import fill_rows, mix_samples
from audiopipe.kernels.compiler import CompiledFunction
from audiopipe.kernels.vectors import load, splat, store, transpose

_Floats = npt.NDArray[np.float32]
_Whole = npt.NDArray[np.int64]


@CompiledFunction
def _fill_blocks(x: _Floats, start: int, step: int, ones: _Floats, mono: _Floats, rows: _Floats) -> None:
    """Fill the real or imaginary parts of rows with the mean of the channels in eight blocks."""
    span = 7 * step + len(ones)
    if x.shape[0] == 1 and start >= 0 and start + span <= x.shape[1]:
        fill_rows(x[0], start, step, ones, rows, 16)
    else:
        mix_samples(x, start, mono)
        fill_rows(mono, 0, step, ones, rows, 16)


@CompiledFunction
def _scale_bin(rows: _Floats, source: int, gain: np.float32, output: _Floats, target: int) -> None:
    """Store a bin times a gain, with its real and imaginary parts exchanged."""
    factor = splat(gain)
    store(output, target + 8, load(rows, source) * factor)
    store(output, target, load(rows, source + 8) * factor)


@CompiledFunction
def _filter_rows(rows: _Floats, size: int, order: _Whole, gains: _Floats, output: _Floats, output_size: int) -> None:
    """Multiply spectra by real gains, and truncate or extend them to the length of the output.

    Real and imaginary parts are exchanged, because a transform of exchanged parts is an inverse transform.

    Shape:
        - rows: [16 size]
        - order: [size]
        - gains: [min(size, output_size) / 2 + 1]
        - output: [16 output_size]
    """
    top = len(gains) - 1
    for k in range(top):
        _scale_bin(rows, 16 * order[k], gains[k], output, 16 * k)
    for k in range(1, top):
        _scale_bin(rows, 16 * order[size - k], gains[k], output, 16 * (output_size - k))
    output[16 * top : 16 * (output_size - top + 1)] = 0
    # The bin at half the shorter length is the mean of the frequency and its negative.
    if output_size < size:
        a, b, half = 16 * order[top], 16 * order[size - top], splat(gains[top] * np.float32(0.5))
        store(output, 16 * top + 8, (load(rows, a) + load(rows, b)) * half)
        store(output, 16 * top, (load(rows, a + 8) + load(rows, b + 8)) * half)
    else:
        _scale_bin(rows, 16 * order[top], gains[top], output, 16 * top)
        _scale_bin(rows, 16 * order[top], gains[top], output, 16 * (output_size - top))


@CompiledFunction
def _store_blocks(
    rows: _Floats, part: int, order: _Whole, offset: int, count: int, place: int, step: int, y: _Floats
) -> None:
    """Store samples of eight blocks.

    Args:
        rows: of the transform; only one part of each is read.
        part: 0 or 8.
        order: row of each sample.
        offset: first sample of a block that is stored.
        count: samples of a block to store, a multiple of 8.
        place: of the first sample of the first block in `y`; samples outside of `y` are not stored.
        step: samples of `y` between blocks.
    """
    rest = np.empty(8, np.float32)
    for i in range(0, count, 8):
        n = offset + i
        columns = transpose((
            load(rows, 16 * order[n] + part), load(rows, 16 * order[n + 1] + part),
            load(rows, 16 * order[n + 2] + part), load(rows, 16 * order[n + 3] + part),
            load(rows, 16 * order[n + 4] + part), load(rows, 16 * order[n + 5] + part),
            load(rows, 16 * order[n + 6] + part), load(rows, 16 * order[n + 7] + part),
        ))  # fmt: skip
        for block in range(8):
            first = place + block * step + i
            if first >= 0 and first + 8 <= len(y):
                store(y, first, columns[block])
            elif first > -8 and first < len(y):
                store(rest, 0, columns[block])
                for j in range(max(-first, 0), min(len(y) - first, 8)):
                    y[first + j] = rest[j]


@CompiledFunction
def resample_blocks(
    x: _Floats, size: int, radices: _Whole, factors: _Floats, order: _Whole, gains: _Floats, output_size: int,
    output_radices: _Whole, output_factors: _Floats, output_order: _Whole, input_step: int, output_step: int,
    offset: int, lead: int, y: _Floats,
) -> None:  # fmt: skip
    """Resample the mean of the channels of an item.

    Args:
        x: samples.
        size, radices, factors, order: of the transform of input blocks.
        gains: of the bins from 0 to half the shorter length.
        output_size, output_radices, output_factors, output_order: of the transform of output blocks.
        input_step, output_step: samples between blocks.
        offset: samples at the start of an output block that are not valid.
        lead: samples of the first input block before the audio.

    Shape:
        - x: [C, T]
        - y: [T']
    """
    rows, filtered = np.empty(16 * size, np.float32), np.empty(16 * output_size, np.float32)
    mono, ones = np.empty(14 * input_step + size, np.float32), np.ones(size, np.float32)
    place = offset - lead * output_step // input_step
    first = 0
    while place + first * output_step < len(y):
        for part in range(2):
            start = (first + part) * input_step - lead
            _fill_blocks(x, start, 2 * input_step, ones, mono, rows[8 * part :])
        transform(rows, size, radices, factors)
        _filter_rows(rows, size, order, gains, filtered, output_size)
        transform(filtered, output_size, output_radices, output_factors)
        for part in range(2):
            target = place + (first + part) * output_step
            _store_blocks(filtered, 8 - 8 * part, output_order, offset, output_step, target, 2 * output_step, y)
        first += 16
