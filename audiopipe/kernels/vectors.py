"""Operations on vectors of eight float32 values, for compiled functions.

A function that computes one value of eight items at a time needs no sum across a vector, so its results do not depend
on the width of a machine's vectors, nor its speed on which loops the compiler can vectorize. `vector_types.py` defines
the operations for Numba.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiler import VectorOperation

WIDTH = 8

_Floats = npt.NDArray[np.float32]


class Vector(Protocol):
    """Eight float32 values."""

    def __add__(self, other: Vector) -> Vector: ...
    def __sub__(self, other: Vector) -> Vector: ...
    def __mul__(self, other: Vector) -> Vector: ...


Eight = tuple[Vector, Vector, Vector, Vector, Vector, Vector, Vector, Vector]


# Read or write eight values from an index on, which is not checked.
load = VectorOperation[[_Floats, int], Vector]("load")
store = VectorOperation[[_Floats, int, Vector], None]("store")
# Eight equal values.
splat = VectorOperation[[np.float32], Vector]("splat")
# The larger values of two vectors; those of the second where one of the two is NaN.
maximum = VectorOperation[[Vector, Vector], Vector]("maximum")
square_root = VectorOperation[[Vector], Vector]("square_root")
# Of positive normal numbers: the mantissas, from 1 to 2, and the exponents plus 127.
mantissa = VectorOperation[[Vector], Vector]("mantissa")
exponent = VectorOperation[[Vector], Vector]("exponent")
# The columns of eight rows.
transpose = VectorOperation[[Eight], Eight]("transpose")
