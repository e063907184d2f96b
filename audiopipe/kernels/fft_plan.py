"""Plan the passes of a Fourier transform for `compiled_fft.transform`."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["FftPlan", "plan_fft"]

_RADICES = (13, 11, 7, 5, 3)


class FftPlan(NamedTuple):
    """The constants of a transform of `size` values.

    Args:
        radices: of the passes.
        factors: of each pass: for an odd radix the cosines and sines of its roots of unity; then for each butterfly
            the real and imaginary parts of the factors of its outputs but the first.
        order: the row of each bin after the last pass.

    Shape:
        - radices: [passes]
        - order: [size]
    """

    size: int
    radices: npt.NDArray[np.int64]
    factors: npt.NDArray[np.float32]
    order: npt.NDArray[np.int64]


@lru_cache(maxsize=32)
def plan_fft(size: int) -> FftPlan | None:
    """Plan a transform; return None for a size with a prime factor above 13, or which is not a multiple of 4."""
    radices, rest = [], size
    if size % 4 or size == 0:
        return None
    for radix in _RADICES:
        while rest % radix == 0:
            radices.append(radix)
            rest //= radix
    if rest & (rest - 1):
        return None
    if rest.bit_length() % 2 == 0:
        radices.append(2)
        rest //= 2
    while rest > 1:
        radices.append(4)
        rest //= 4
    factors, order, stride, length = [], np.zeros(size, np.int64), 1, size
    for radix in radices:
        if radix % 2:
            roots = np.exp(2j * np.pi * np.arange(radix) / radix)
            factors += [roots.real, roots.imag]
        step = length // radix
        angles = np.outer(np.arange(step), np.arange(1, radix)) / length
        turns = np.exp(-2j * np.pi * angles).reshape(-1)
        factors.append(np.stack([turns.real, turns.imag], -1).reshape(-1))
        # The bins of block j after the pass are those that are j modulo the radix.
        order += np.arange(size) // stride % radix * step
        stride, length = stride * radix, step
    return FftPlan(size, np.array(radices), np.concatenate(factors).astype(np.float32), order)
