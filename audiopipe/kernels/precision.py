"""Full float32 in matrix products, whatever the process has chosen for its own.

TF32 and bfloat16 products cost 0.5 LU and more in a recursive filter with a pole at 38 Hz. The switches are global
to the process, so entries are counted: the first one in turns them off, the last one out restores what it found.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_inside = 0
_found: tuple[str, str] = ("none", "none")


def _reduced() -> bool:
    cuda, cpu = torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision
    return cuda not in ("none", "ieee") or cpu not in ("none", "ieee")


def _set(cuda: str, cpu: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = cuda
    torch.backends.mkldnn.matmul.fp32_precision = cpu  # type: ignore[assignment]


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep float32 matrix products in float32 inside the block, from any number of threads at once."""
    global _inside, _found
    with _lock:
        if _inside > 0 or _reduced():
            if _inside == 0:
                _found = (torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision)
                _set("ieee", "ieee")
            _inside += 1
            counted = True
        else:
            counted = False
    try:
        yield
    finally:
        if counted:
            with _lock:
                _inside -= 1
                if _inside == 0:
                    _set(*_found)
