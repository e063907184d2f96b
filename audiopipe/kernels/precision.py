"""Full float32 in matrix products, whatever the process has chosen for its own.

TF32 and bfloat16 products cost 0.5 LU and more in a recursive filter with a pole at 38 Hz. The switches are global
to the process, so entries are counted: the first one in turns them off, the last one out restores what it found.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch

_CUDA = torch.backends.cuda.matmul
_CPU: Any = attrgetter("matmul")(torch.backends.mkldnn)  # which the type stubs do not know


class _Guard:
    """Counts who is inside, and remembers what to restore."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.found: tuple[str, str] = ("none", "none")

    def enter(self) -> bool:
        """Whether this entry counts: not where nothing had to be switched off."""
        with self.lock:
            if self.inside == 0:
                self.found = _get()
                if all(precision in ("none", "ieee") for precision in self.found):
                    return False
                _set("ieee", "ieee")
            self.inside += 1
            return True

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                _set(*self.found)


def _get() -> tuple[str, str]:
    return _CUDA.fp32_precision, _CPU.fp32_precision


def _set(cuda: str, cpu: str) -> None:
    _CUDA.fp32_precision = cuda
    _CPU.fp32_precision = cpu


_guard = _Guard()


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep float32 matrix products in float32 inside the block, from any number of threads at once."""
    counts = _guard.enter()
    try:
        yield
    finally:
        if counts:
            _guard.leave()
