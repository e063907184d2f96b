import struct

import pytest
import torch

from audiopipe.models.onnx_weights import read_onnx_weights


def varint(number):
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def field(number, content):
    """Encode a field: a number as varint, anything else with its length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(name, dims, values, raw=True, packed=False, data_type=1):
    data = struct.pack(f"<{len(values)}f", *values)
    shape = field(1, b"".join(map(varint, dims))) if packed else b"".join(field(1, size) for size in dims)
    return shape + field(2, data_type) + field(8, name.encode()) + field(9 if raw else 4, data)


def model(*tensors):
    graph = field(2, b"graph") + b"".join(field(5, content) for content in tensors)
    opset = field(8, field(2, 300))
    fixed = varint(9 << 3 | 1) + bytes(8) + varint(10 << 3 | 5) + bytes(4)
    return field(1, 6) + opset + fixed + field(7, graph)


@pytest.mark.parametrize(("raw", "packed"), [(True, False), (False, True)])
def test_reads_tensors_however_they_are_stored(tmp_path, raw, packed):
    values = [float(number) for number in range(300)]
    path = tmp_path / "model.onnx"
    path.write_bytes(model(tensor("a/kernel:0", [3, 100], values, raw, packed), tensor("scalar", [], [2.5])))
    weights = read_onnx_weights(path)
    assert list(weights) == ["a/kernel:0", "scalar"]
    assert weights["a/kernel:0"].tolist() == torch.arange(300.0).reshape(3, 100).tolist()
    assert weights["scalar"].item() == 2.5


def test_skips_tensors_of_other_types(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model(tensor("shape", [1], [1.0], data_type=7), tensor("weight", [1], [1.0])))
    assert list(read_onnx_weights(path)) == ["weight"]


@pytest.mark.parametrize("size", [1, 5, 40, 200])
def test_refuses_a_file_that_is_cut_short(tmp_path, size):
    path = tmp_path / "model.onnx"
    path.write_bytes(model(tensor("weight", [60], [1.0] * 60))[:-size])
    with pytest.raises(ValueError, match=r"cut short|not an ONNX file|bytes"):
        read_onnx_weights(path)


def test_refuses_a_tensor_without_all_its_values(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model(tensor("weight", [3], [1.0])))
    with pytest.raises(ValueError, match=r"tensor weight of shape \[3\] has 4 bytes"):
        read_onnx_weights(path)
