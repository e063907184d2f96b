"""Define the operations of `vectors.py` for Numba as instructions of LLVM; imported when a function is compiled."""

from __future__ import annotations

import operator
from collections.abc import Callable
from importlib import import_module
from typing import Any

from audiopipe.kernels.vectors import WIDTH

ir: Any = import_module("llvmlite.ir")
types: Any = import_module("numba.core.types")
cgutils: Any = import_module("numba.core.cgutils")
extending: Any = import_module("numba.extending")

__all__ = ["exponent", "load", "mantissa", "maximum", "splat", "square_root", "store", "transpose"]

_FLOATS, _INTS = ir.VectorType(ir.FloatType(), WIDTH), ir.VectorType(ir.IntType(32), WIDTH)
_FLAGS = ("contract", "nsz")  # a product and a sum may be fused


class _VectorType(types.Type):  # type: ignore[misc]
    """Numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__(name="Vector8xFloat32")


_VECTOR = _VectorType()
_EIGHT = types.UniTuple(_VECTOR, 8)


@extending.register_model(_VectorType)
class _VectorModel(extending.models.PrimitiveModel):  # type: ignore[misc]
    """A vector is one register, or two half as wide."""

    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _FLOATS)


def _define(arguments: tuple[Any, ...], result: Any, build: Callable[..., Any]) -> Any:
    """Define an operation on vectors; `build` is called with LLVM's builder and the arguments."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return build(builder, *values)

    if len(arguments) == 1:
        return extending.intrinsic(lambda typing, a: (result(*arguments), generate))
    return extending.intrinsic(lambda typing, a, b: (result(*arguments), generate))


def _address(context: Any, builder: Any, array_type: Any, array: Any, start: Any, vector: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), vector.as_pointer())


@extending.intrinsic  # type: ignore[untyped-decorator]
def load(typing: Any, x: Any, start: Any) -> Any:
    """Read float32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_address(context, builder, x, values[0], values[1], _FLOATS), align=4)

    return _VECTOR(x, types.intp), generate


@extending.intrinsic  # type: ignore[untyped-decorator]
def store(typing: Any, x: Any, start: Any, value: Any) -> Any:
    """Write float32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _address(context, builder, x, values[0], values[1], _FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(x, types.intp, _VECTOR), generate


def _splat(builder: Any, value: Any) -> Any:
    first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, [0] * WIDTH))


def _maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _square_root(builder: Any, a: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{WIDTH}f32"), [a])


def _constant(value: int) -> Any:
    return ir.Constant(_INTS, [value] * WIDTH)


def _mantissa(builder: Any, a: Any) -> Any:
    bits = builder.and_(builder.bitcast(a, _INTS), _constant(0x7FFFFF))
    return builder.bitcast(builder.or_(bits, _constant(0x3F800000)), _FLOATS)


def _exponent(builder: Any, a: Any) -> Any:
    return builder.sitofp(builder.lshr(builder.bitcast(a, _INTS), _constant(23)), _FLOATS)


splat = _define((types.float32,), _VECTOR, _splat)
maximum = _define((_VECTOR, _VECTOR), _VECTOR, _maximum)
square_root = _define((_VECTOR,), _VECTOR, _square_root)
mantissa = _define((_VECTOR,), _VECTOR, _mantissa)
exponent = _define((_VECTOR,), _VECTOR, _exponent)


def _shuffle(builder: Any, rows: list[Any], distance: int, low: list[int], high: list[int]) -> list[Any]:
    """Exchange parts of rows that are `distance` from each other."""
    mixed = list(rows)
    for i in (i for i in range(8) if not i & distance):
        for place, mask in ((i, low), (i + distance, high)):
            mixed[place] = builder.shuffle_vector(rows[i], rows[i + distance], ir.Constant(_INTS, mask))
    return mixed


@extending.intrinsic  # type: ignore[untyped-decorator]
def transpose(typing: Any, rows: Any) -> Any:
    """Exchange single values of rows 1 apart, pairs of rows 2 apart and halves of rows 4 apart."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        mixed = [builder.extract_value(values[0], i) for i in range(8)]
        mixed = _shuffle(builder, mixed, 1, [0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15])
        mixed = _shuffle(builder, mixed, 2, [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15])
        mixed = _shuffle(builder, mixed, 4, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
        return context.make_tuple(builder, signature.return_type, mixed)

    return _EIGHT(_EIGHT), generate


def _overload(function: Any, build: Callable[..., Any]) -> None:
    operation = _define((_VECTOR, _VECTOR), _VECTOR, build)

    def choose(a: Any, b: Any) -> Any:
        return (lambda a, b: operation(a, b)) if a == _VECTOR and b == _VECTOR else None  # noqa: PLW0108

    extending.overload(function, strict=False)(choose)


_overload(operator.add, lambda builder, a, b: builder.fadd(a, b, flags=_FLAGS))
_overload(operator.sub, lambda builder, a, b: builder.fsub(a, b, flags=_FLAGS))
_overload(operator.mul, lambda builder, a, b: builder.fmul(a, b, flags=_FLAGS))
