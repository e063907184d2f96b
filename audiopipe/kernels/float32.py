"""Full float32 in matrix products and networks, whatever the process has chosen for its own.

TF32 and bfloat16 products cost 0.5 LU and more in a recursive filter with a pole at 38 Hz; and convolutions and
recurrent cells are TF32 on CUDA unless somebody says otherwise. The switches are global to the process, so entries are
counted: the first one in turns them off, the last one out restores what it found.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch


class _Guard:
    """Switches of `torch.backends`; counts who is inside, and remembers what to restore."""

    def __init__(self, *names: str) -> None:
        self.switches: list[Any] = [attrgetter(name)(torch.backends) for name in names]
        self.lock = threading.Lock()
        self.inside = 0
        self.found: list[str] = []

    def enter(self) -> bool:
        """Whether this entry counts: not where nothing had to be switched off."""
        with self.lock:
            if self.inside == 0:
                self.found = [switch.fp32_precision for switch in self.switches]
                if all(precision in ("none", "ieee") for precision in self.found):
                    return False
                self._set(["ieee"] * len(self.switches))
            self.inside += 1
            return True

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self._set(self.found)

    def _set(self, precisions: list[str]) -> None:
        for switch, precision in zip(self.switches, precisions, strict=True):
            switch.fp32_precision = precision


_products = _Guard("cuda.matmul", "mkldnn.matmul")
_networks = _Guard("cudnn.conv", "cudnn.rnn", "mkldnn.conv", "mkldnn.rnn")


@contextmanager
def full_float32(*, networks: bool = False) -> Iterator[None]:
    """Keep float32 in float32 inside the block, from any number of threads at once.

    Args:
        networks: in convolutions and recurrent cells as well, not in matrix products alone.
    """
    counting = [guard for guard in ((_products, _networks) if networks else (_products,)) if guard.enter()]
    try:
        yield
    finally:
        for guard in counting:
            guard.leave()
