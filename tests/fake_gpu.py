"""A fake GPU: tensors that claim to be on another device and are computed on the CPU.

A tensor that a kernel forgets to create on the device of its audio, or a stream that is used wrongly, fails on every
machine with a GPU and on no machine without. With this module it fails there as well. A test may run anything that a
GPU would run, and count the operations and how often the host waits for the device. The device calls itself `meta`,
because PyTorch does not look for a driver of that device. It shows neither speed nor the other order in which CUDA sums
values; these need a GPU.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
CPU = torch.device("cpu")

# Operations that make the host wait until all launched work is done, in addition to copies to the host.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "repeat_interleave", "_unique2"}

# Operations that take lengths from the host, and return some to it.
PACKING = {"_pack_padded_sequence", "_pad_packed_sequence"}


class DeviceTensor(torch.Tensor):
    """A tensor of the fake device; its `values` are on the CPU."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values):
        layout = values.shape, values.stride(), values.storage_offset()
        with torch.inference_mode(False):  # a tensor made in inference mode could not be used outside of it
            tensor = torch.Tensor._make_wrapper_subclass(cls, *layout, dtype=values.dtype, device=DEVICE)
        tensor.values = values
        return tensor

    def __repr__(self):
        return f"DeviceTensor({self.values!r})"

    def tolist(self):
        return self.cpu().tolist()

    def record_stream(self, stream):
        assert isinstance(stream, Stream)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func}: a tensor of the device outside of `fake_gpu`")


class _Launches(TorchDispatchMode):
    """Runs operations on the CPU, counts those of the device, and refuses to mix the devices."""

    def __init__(self, counts):
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # in inference mode a composite operation arrives as one, too
            if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        leaves = tree_leaves((args, kwargs))
        on_device = [leaf for leaf in leaves if isinstance(leaf, DeviceTensor)]
        on_host = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, DeviceTensor)]
        target = kwargs.get("device")
        name = func.__name__.split(".")[0]
        if on_device:
            self.counts["operations"] += 1
            if any(tensor.dim() for tensor in on_host) and name not in PACKING | {"copy_", "index"}:
                raise RuntimeError(f"{name}: expected all tensors to be on the same device")
            is_copy_to_host = target is not None and target != DEVICE
            self.counts["waits"] += name in WAITS or _is_index_by_mask(name, args) or is_copy_to_host
        cpu_target = {} if target is None else {"device": CPU}
        result = func(*tree_map(_values, args), **tree_map(_values, kwargs | cpu_target))
        if func._schema.is_mutable:  # an in-place operation returns the tensor that it wrote to
            return next((leaf for leaf in leaves if _values(leaf) is result), result)
        if name in PACKING:
            return (_to_device(result[0]) if on_device else result[0]), result[1]
        stays_on_device = on_device if target is None else target == DEVICE
        return tree_map(_to_device, result) if stays_on_device else result


def _is_index_by_mask(name, args):
    return name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])


def _values(leaf):
    return leaf.values if isinstance(leaf, DeviceTensor) else leaf


def _to_device(leaf):
    return DeviceTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf


class _Constructors(TorchFunctionMode):
    """Copies Python's numbers to the device without an operation, and ignores requests for pinned memory."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or CPU) == DEVICE:
            return func(*args, **kwargs | {"device": CPU}).to(DEVICE)
        return args[0].clone() if func is torch.Tensor.pin_memory else func(*args, **kwargs)


class Event:
    """A CUDA event."""

    def __init__(self, stream):
        self.stream = stream


class Stream:
    """The part of a CUDA stream that the code uses; `torch.cuda.stream` itself is PyTorch's."""

    def __init__(self, device=DEVICE):
        self.device, self.waited_for = device, []

    def record_event(self):
        return Event(self)

    def wait_event(self, event):
        assert isinstance(event, Event)
        self.waited_for.append(event)


@contextmanager
def fake_gpu(monkeypatch):
    """Give this thread a device; yield the counts of `operations` and of `waits` of the host."""
    counts, current = Counter(), threading.local()
    with monkeypatch.context() as patch, _modes(counts):
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: current.__dict__.setdefault("stream", Stream()))
        patch.setattr(torch.cuda, "set_stream", lambda stream: setattr(current, "stream", stream))
        patch.setattr(torch.cuda, "_get_device_index", lambda device, optional=False: 0)
        patch.setattr(torch.cuda, "synchronize", lambda: None)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda: 1)
        yield counts


def with_fake_gpu(function, counts):
    """Wrap a function so that it has the device of `fake_gpu` in any thread that runs it."""

    def wrapped(*arguments, **keywords):
        with _modes(counts):
            return function(*arguments, **keywords)

    return wrapped


@contextmanager
def _modes(counts):
    with _Constructors(), _Launches(counts):
        yield


class SharedDevice:
    """The memory of a GPU that several processes share, each with a limit, as CUDA and PyTorch's allocator count it."""

    def __init__(self, total_bytes):
        self.total_bytes, self.processes = total_bytes, []

    def process(self, fraction, context_bytes=0):
        """Add a process that may allocate a fraction of the memory, in addition to its context."""
        self.processes.append(DeviceProcess(self, fraction * self.total_bytes, context_bytes))
        return self.processes[-1]


class DeviceProcess:
    """A process that uses a `SharedDevice`."""

    def __init__(self, device, limit_bytes, context_bytes):
        self.device, self.limit_bytes, self.context_bytes, self.bytes = device, limit_bytes, context_bytes, 0.0

    def allocate(self, size):
        used = sum(process.bytes + process.context_bytes for process in self.device.processes)
        if self.bytes + size > self.limit_bytes or used + size > self.device.total_bytes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.bytes += size

    def free(self):
        self.bytes = 0.0
