"""Read the weights of an ONNX file with nothing but the format of protocol buffers.

The package `onnx` is 18 MB, has a pin on protobuf, and needs no less code here to get the same tensors. An ONNX file is
a `ModelProto`; the weights are the `initializer` tensors of its graph. Numbers are the fields of `onnx.proto` (IR 3+).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["read_onnx_weights"]

MODEL_GRAPH, GRAPH_INITIALIZER = 7, 5
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME, TENSOR_RAW = 1, 2, 4, 8, 9
FLOAT = 1  # TensorProto.DataType
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


def read_onnx_weights(path: Path) -> dict[str, Tensor]:
    """Read the float32 initializers of a model by name.

    Raises:
        ValueError: the file is not a protocol buffer, or a tensor has another number of values than its shape says.
    """
    weights = {}
    for graph in _select(path.read_bytes(), MODEL_GRAPH):
        for tensor in _select(graph, GRAPH_INITIALIZER):
            if _varints(tensor, TENSOR_TYPE) == [FLOAT]:
                name = b"".join(_select(tensor, TENSOR_NAME)).decode()
                weights[name] = _to_tensor(tensor, name)
    return weights


def _to_tensor(message: bytes, name: str) -> Tensor:
    """Return the values of a TensorProto; they are little endian in `raw_data`, or packed in `float_data`."""
    values = b"".join([*_select(message, TENSOR_RAW), *_select(message, TENSOR_FLOATS)])
    shape = _varints(message, TENSOR_DIMS)
    if len(values) != 4 * torch.Size(shape).numel():
        raise ValueError(f"the ONNX tensor {name} of shape {shape} has {len(values)} bytes")
    return torch.frombuffer(bytearray(values), dtype=torch.float32).reshape(shape)


def _varints(message: bytes, field: int) -> list[int]:
    """Return the numbers of a field, packed or not."""
    numbers: list[int] = []
    for number, value in _iterate_fields(message):
        if number == field:
            packed = value if isinstance(value, bytes) else None
            numbers += [value] if isinstance(value, int) else []
            position = 0
            while packed is not None and position < len(packed):
                item, position = _read_varint(packed, position)
                numbers.append(item)
    return numbers


def _select(message: bytes, field: int) -> list[bytes]:
    return [value for number, value in _iterate_fields(message) if number == field and isinstance(value, bytes)]


def _iterate_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Iterate over the fields of a message: numbers as int, everything else as bytes."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        wire = key & 7
        if wire == VARINT:
            value, position = _read_varint(message, position)
            yield key >> 3, value
            continue
        if wire == BYTES:
            size, position = _read_varint(message, position)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"not an ONNX file: wire type {wire} at byte {position}")
        if position + size > len(message):
            raise ValueError(f"not an ONNX file, or cut short: a field of {size} bytes at byte {position}")
        yield key >> 3, message[position : position + size]
        position += size


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a base-128 number; return it and the position after it."""
    number = shift = 0
    while position < len(data):
        byte = data[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position
    raise ValueError("not an ONNX file, or cut short: a number without an end")
