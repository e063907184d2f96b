"""Operations on vectors of eight float32 values, for compiled functions.

A function that computes one value of eight items at a time needs no sum across a vector, so its results are the same
on every machine, and its speed does not depend on which loops the compiler can vectorize. `vector_types.py` defines
the operations for Numba.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiler import VectorOperation

WIDTH = 8


class Vector(Protocol):
    """Eight float32 values."""

    def __add__(self, other: Vector) -> Vector: ...
    def __sub__(self, other: Vector) -> Vector: ...
    def __mul__(self, other: Vector) -> Vector: ...


Eight = tuple[Vector, Vector, Vector, Vector, Vector, Vector, Vector, Vector]


@VectorOperation
def load(x: npt.NDArray[np.float32], start: int) -> Vector:
    """Read eight values. The range is not checked."""
    raise NotImplementedError


@VectorOperation
def store(x: npt.NDArray[np.float32], start: int, values: Vector) -> None:
    """Write eight values. The range is not checked."""
    raise NotImplementedError


@VectorOperation
def splat(value: np.float32) -> Vector:
    """Return a vector of eight equal values."""
    raise NotImplementedError


@VectorOperation
def maximum(a: Vector, b: Vector) -> Vector:
    """Return the larger values of two vectors; `b` where one of the two is NaN."""
    raise NotImplementedError


@VectorOperation
def square_root(a: Vector) -> Vector:
    """Return the square roots."""
    raise NotImplementedError


@VectorOperation
def mantissa(a: Vector) -> Vector:
    """Return the mantissas of positive normal numbers, from 1 to 2."""
    raise NotImplementedError


@VectorOperation
def exponent(a: Vector) -> Vector:
    """Return the exponents of positive normal numbers plus 127."""
    raise NotImplementedError


@VectorOperation
def transpose(rows: Eight) -> Eight:
    """Return the columns of eight rows."""
    raise NotImplementedError
