"""Fourier transforms of eight signals at a time, in place: decimation in frequency with small radices.

A row is the complex values of eight signals: eight real parts, then eight imaginary parts. All operations work on whole
rows, so the order of rows after the last pass (`FftPlan.order`) costs nothing to undo where rows are read.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiler import CompiledFunction
from audiopipe.kernels.vectors import Vector, load, splat, store

_Floats = npt.NDArray[np.float32]


@CompiledFunction
def _store_product(rows: _Floats, place: int, re: Vector, im: Vector, factors: _Floats, k: int) -> None:
    """Store a complex vector times a factor."""
    factor_re, factor_im = splat(factors[k]), splat(factors[k + 1])
    store(rows, place, re * factor_re - im * factor_im)
    store(rows, place + 8, re * factor_im + im * factor_re)


@CompiledFunction
def _pass_2(rows: _Floats, size: int, length: int, factors: _Floats) -> None:
    """Run a pass of radix 2 over blocks of `length` rows."""
    step = 16 * (length // 2)
    for block in range(0, 16 * size, 2 * step):
        for p in range(length // 2):
            i = block + 16 * p
            a_re, a_im, b_re, b_im = load(rows, i), load(rows, i + 8), load(rows, i + step), load(rows, i + step + 8)
            store(rows, i, a_re + b_re)
            store(rows, i + 8, a_im + b_im)
            _store_product(rows, i + step, a_re - b_re, a_im - b_im, factors, 2 * p)


@CompiledFunction
def _pass_4(rows: _Floats, size: int, length: int, factors: _Floats) -> None:
    """Run a pass of radix 4 over blocks of `length` rows."""
    step = 16 * (length // 4)
    for block in range(0, 16 * size, 4 * step):
        for p in range(length // 4):
            i = block + 16 * p
            j, k, l = i + step, i + 2 * step, i + 3 * step  # noqa: E741
            a_re, a_im, b_re, b_im = load(rows, i), load(rows, i + 8), load(rows, j), load(rows, j + 8)
            c_re, c_im, d_re, d_im = load(rows, k), load(rows, k + 8), load(rows, l), load(rows, l + 8)
            even_re, even_im, odd_re, odd_im = a_re + c_re, a_im + c_im, b_re + d_re, b_im + d_im
            store(rows, i, even_re + odd_re)
            store(rows, i + 8, even_im + odd_im)
            x_re, x_im, y_re, y_im = a_re - c_re, a_im - c_im, b_re - d_re, b_im - d_im
            if length == 4:  # the factors of the last pass are 1
                store(rows, j, x_re + y_im)
                store(rows, j + 8, x_im - y_re)
                store(rows, k, even_re - odd_re)
                store(rows, k + 8, even_im - odd_im)
                store(rows, l, x_re - y_im)
                store(rows, l + 8, x_im + y_re)
            else:
                _store_product(rows, j, x_re + y_im, x_im - y_re, factors, 6 * p)
                _store_product(rows, k, even_re - odd_re, even_im - odd_im, factors, 6 * p + 2)
                _store_product(rows, l, x_re - y_im, x_im + y_re, factors, 6 * p + 4)


@CompiledFunction
def _pass_odd(rows: _Floats, size: int, length: int, radix: int, factors: _Floats) -> None:
    """Run a pass of an odd radix over blocks of `length` rows.

    The sums and differences of inputs j and R - j are multiplied by cosines and sines; outputs k and R - k share the
    products.
    """
    half, step = (radix - 1) // 2, 16 * (length // radix)
    cosines, sines = factors[:radix], factors[radix : 2 * radix]
    turns = factors[2 * radix :]
    parts = np.empty(32 * half, np.float32)
    for block in range(0, 16 * size, radix * step):
        for p in range(length // radix):
            i = block + 16 * p
            first_re, first_im = load(rows, i), load(rows, i + 8)
            total_re, total_im = first_re, first_im
            for j in range(half):
                a, b = i + (j + 1) * step, i + (radix - 1 - j) * step
                a_re, a_im, b_re, b_im = load(rows, a), load(rows, a + 8), load(rows, b), load(rows, b + 8)
                total_re, total_im = total_re + (a_re + b_re), total_im + (a_im + b_im)
                store(parts, 32 * j, a_re + b_re)
                store(parts, 32 * j + 8, a_im + b_im)
                store(parts, 32 * j + 16, a_re - b_re)
                store(parts, 32 * j + 24, a_im - b_im)
            store(rows, i, total_re)
            store(rows, i + 8, total_im)
            for k in range(1, half + 1):
                even_re, even_im = first_re, first_im
                odd_re, odd_im = splat(np.float32(0)), splat(np.float32(0))
                turn = 0
                for j in range(half):
                    turn += k
                    if turn >= radix:
                        turn -= radix
                    cosine, sine = splat(cosines[turn]), splat(sines[turn])
                    even_re, even_im = (
                        even_re + load(parts, 32 * j) * cosine,
                        even_im + load(parts, 32 * j + 8) * cosine,
                    )
                    odd_re = odd_re + load(parts, 32 * j + 16) * sine
                    odd_im = odd_im + load(parts, 32 * j + 24) * sine
                place = 2 * (radix - 1) * p + 2 * (k - 1)
                _store_product(rows, i + k * step, even_re + odd_im, even_im - odd_re, turns, place)
                place = 2 * (radix - 1) * p + 2 * (radix - k - 1)
                _store_product(rows, i + (radix - k) * step, even_re - odd_im, even_im + odd_re, turns, place)


@CompiledFunction
def _run_pass(rows: _Floats, size: int, length: int, radix: int, factors: _Floats) -> int:
    """Run one pass over blocks of `length` rows; return how many factors it has used."""
    turns = 2 * (radix - 1) * (length // radix)
    if radix == 4:
        _pass_4(rows, size, length, factors)
    elif radix == 2:
        _pass_2(rows, size, length, factors)
    else:
        _pass_odd(rows, size, length, radix, factors)
        turns += 2 * radix
    return turns


@CompiledFunction
def transform(rows: _Floats, size: int, radices: npt.NDArray[np.int64], factors: _Floats) -> None:
    """Transform eight signals of `size` complex values; the bins are in the order of the plan.

    Blocks of at most 512 rows, which fit into the first cache of a core, run through all their passes one by one.

    Args:
        radices, factors: of the plan.

    Shape:
        - rows: [16 size]
    """
    length, first, used = size, 0, 0
    while first < len(radices) and length > 512:
        used += _run_pass(rows, size, length, radices[first], factors[used:])
        length //= radices[first]
        first += 1
    for start in range(0, size, length):
        part = rows[16 * start : 16 * (start + length)]
        inner, place = length, used
        for i in range(first, len(radices)):
            place += _run_pass(part, length, inner, radices[i], factors[place:])
            inner //= radices[i]
