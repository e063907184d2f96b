"""Fill Numba's cache: `python -m audiopipe.kernels.precompile`. Processes that start later load the functions."""

from __future__ import annotations

import torch

from audiopipe.kernels.fingerprint import Fingerprint
from audiopipe.kernels.measure import measure_and_resample

__all__ = ["precompile"]

_RATE_HZ = 48_000


def precompile() -> None:
    """Call every compiled function with each type of samples that decoders return, about 10 s of CPU time."""
    for dtype in (torch.int16, torch.float32):
        signal = torch.zeros(1, 1, _RATE_HZ, dtype=dtype)
        measure_and_resample(signal, _RATE_HZ, 16_000)
        fingerprint = Fingerprint(_RATE_HZ)
        fingerprint.add(signal[0])
        fingerprint.finish()


if __name__ == "__main__":
    precompile()
