"""Compile all functions for Numba's cache: `python -m audiopipe.kernels.precompile`; load them when a worker starts."""

from __future__ import annotations

import threading
from functools import cache

import torch

from audiopipe.kernels.compiler import is_available
from audiopipe.kernels.fingerprint import Fingerprint
from audiopipe.kernels.measure import measure_and_resample

__all__ = ["load_compiled", "precompile"]

_RATE_HZ = 48_000
_lock = threading.Lock()


def precompile(device_type: str = "cpu") -> None:
    """Call every compiled function that a worker with such a device needs: about 15 s of CPU time at the first time."""
    signal = torch.zeros(1, 1, _RATE_HZ)
    fingerprint = Fingerprint(_RATE_HZ)
    fingerprint.add(signal[0])
    fingerprint.finish()
    if device_type == "cpu":
        measure_and_resample(signal, _RATE_HZ, 16_000)


def load_compiled(device: torch.device) -> None:
    """Load the compiled functions once in this process, before its threads wait for each other to do so."""
    if is_available():
        with _lock:
            _load(device.type)


@cache
def _load(device_type: str) -> None:
    precompile(device_type)


if __name__ == "__main__":
    precompile()
