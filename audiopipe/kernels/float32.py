"""Compute matrix products and networks in full float32, whatever precision the process has configured.

TF32 and bfloat16 products cost 0.5 LU and more in a recursive filter with a pole at 38 Hz, and PyTorch runs
convolutions and recurrent cells in TF32 on CUDA by default. The switches are global to the process, so entries are
counted: the first one sets full precision, the last one restores the previous settings.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Protocol

import torch


class _Switch(Protocol):
    """A backend of `torch.backends` with a precision setting."""

    fp32_precision: str


class _PrecisionGuard:
    """A group of precision settings with a count of the blocks that need full precision."""

    def __init__(self, *names: str) -> None:
        self.switches: list[_Switch] = [attrgetter(name)(torch.backends) for name in names]
        self.lock = threading.Lock()
        self.entries = 0
        self.saved: list[str] = []

    def enter(self) -> bool:
        """Set full precision; return whether `leave` must be called, which is not the case if it was set already."""
        with self.lock:
            if self.entries == 0:
                self.saved = [switch.fp32_precision for switch in self.switches]
                if all(precision in ("none", "ieee") for precision in self.saved):
                    return False
                self._set(["ieee"] * len(self.switches))
            self.entries += 1
            return True

    def leave(self) -> None:
        with self.lock:
            self.entries -= 1
            if self.entries == 0:
                self._set(self.saved)

    def _set(self, precisions: list[str]) -> None:
        for switch, precision in zip(self.switches, precisions, strict=True):
            switch.fp32_precision = precision


_products = _PrecisionGuard("cuda.matmul", "mkldnn.matmul")
_networks = _PrecisionGuard("cudnn.conv", "cudnn.rnn", "mkldnn.conv", "mkldnn.rnn")


@contextmanager
def full_float32(*, networks: bool = False) -> Iterator[None]:
    """Compute float32 matrix products in full precision inside the block; safe in concurrent threads.

    Args:
        networks: also compute convolutions and recurrent cells in full precision.
    """
    active = [guard for guard in ((_products, _networks) if networks else (_products,)) if guard.enter()]
    try:
        yield
    finally:
        for guard in active:
            guard.leave()
