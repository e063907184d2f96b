"""A GPU that is not there: tensors that say they are on another device, and are computed on the CPU.

A tensor that a kernel forgets to make on the device of its audio, or a stream that is used as it cannot be, fails on
every machine with a GPU and on none without. Here it fails as well; so a test may run anything that a GPU would run,
and count what it is asked to do and how often the host waits for it. The device calls itself `meta`, as PyTorch has no
driver to ask for that one. It shows neither speed nor what CUDA itself adds up in another order: that takes a GPU.
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

# What a GPU cannot answer before all that was launched is done, beside a copy to the host.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "repeat_interleave", "_unique2"}

# Those that take lengths from the host, and give some back.
PACKING = {"_pack_padded_sequence", "_pad_packed_sequence"}


class OnDevice(torch.Tensor):
    """What its `values` say, elsewhere."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values):
        layout = values.shape, values.stride(), values.storage_offset()
        with torch.inference_mode(False):  # or one made outside could not be looked at inside
            tensor = torch.Tensor._make_wrapper_subclass(cls, *layout, dtype=values.dtype, device=DEVICE)
        tensor.values = values
        return tensor

    def __repr__(self):
        return f"OnDevice({self.values!r})"

    def tolist(self):
        return self.cpu().tolist()

    def record_stream(self, stream):
        assert isinstance(stream, Stream)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func}: a tensor of the device outside of `absent_gpu`")


class _Launches(TorchDispatchMode):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # in inference mode even what consists of other operations comes here as one
            if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        leaves = tree_leaves((args, kwargs))
        there = [leaf for leaf in leaves if isinstance(leaf, OnDevice)]
        here = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, OnDevice)]
        to = kwargs.get("device")
        name = func.__name__.split(".")[0]
        if there:
            self.seen["operations"] += 1
            if any(tensor.dim() for tensor in here) and name not in PACKING | {"copy_", "index"}:
                raise RuntimeError(f"{name}: expected all tensors to be on the same device")
            self.seen["waits"] += name in WAITS or _by_mask(name, args) or (to is not None and to != DEVICE)
        result = func(*tree_map(_values, args), **tree_map(_values, kwargs | ({} if to is None else {"device": CPU})))
        if func._schema.is_mutable:  # what was written to is returned, and stays where it is
            return next((leaf for leaf in leaves if _values(leaf) is result), result)
        if name in PACKING:
            return _moved(result[0]), result[1]
        return tree_map(_moved, result) if (there if to is None else to == DEVICE) else result


def _by_mask(name, args):
    return name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])


def _values(leaf):
    return leaf.values if isinstance(leaf, OnDevice) else leaf


def _moved(leaf):
    return OnDevice(leaf) if isinstance(leaf, torch.Tensor) else leaf


class _Made(TorchFunctionMode):
    """Python's numbers reach a device without anything being launched, and no memory can be pinned."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or CPU) == DEVICE:
            return func(*args, **kwargs | {"device": CPU}).to(DEVICE)
        return args[0].clone() if func is torch.Tensor.pin_memory else func(*args, **kwargs)


class Event:
    def __init__(self, stream):
        self.stream = stream


class Stream:
    """What the code may ask of a stream of CUDA; `torch.cuda.stream` itself is PyTorch's own."""

    def __init__(self, device=DEVICE):
        self.device, self.waited_for = device, []

    def record_event(self):
        return Event(self)

    def wait_event(self, event):
        assert isinstance(event, Event)
        self.waited_for.append(event)


@contextmanager
def absent_gpu(monkeypatch):
    """In this thread there is a device; gives how much was asked of it, and how often the host waited."""
    seen, current = Counter(), threading.local()
    with monkeypatch.context() as patch, _modes(seen):
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: current.__dict__.setdefault("stream", Stream()))
        patch.setattr(torch.cuda, "set_stream", lambda stream: setattr(current, "stream", stream))
        patch.setattr(torch.cuda, "_get_device_index", lambda device, optional=False: 0)
        patch.setattr(torch.cuda, "synchronize", lambda: None)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda: 1)
        yield seen


def there(function, seen):
    """A function that finds the device of `absent_gpu` in whatever thread it runs."""

    def found(*arguments, **keywords):
        with _modes(seen):
            return function(*arguments, **keywords)

    return found


@contextmanager
def _modes(seen):
    with _Made(), _Launches(seen):
        yield
