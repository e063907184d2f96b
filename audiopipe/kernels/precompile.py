"""Fill Numba's cache: `python -m audiopipe.kernels.precompile`. Processes that start later load the functions."""

from __future__ import annotations

import torch

from audiopipe.kernels.fingerprint import Fingerprint
from audiopipe.kernels.measure import measure_and_resample

__all__ = ["precompile"]

_RATE_HZ = 48_000


def precompile() -> None:
    """Call every compiled function, about 15 s of CPU time."""
    signal = torch.zeros(1, 1, _RATE_HZ)
    measure_and_resample(signal, _RATE_HZ, 16_000)
    fingerprint = Fingerprint(_RATE_HZ)
    fingerprint.add(signal[0])
    fingerprint.finish()


if __name__ == "__main__":
    precompile()
