"""Check the arguments of kernels; a message names the argument and the allowed values."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 192_000


def check_rate(rate_hz: int, name: str = "sample_rate") -> int:
    """Return `rate_hz` as an int; raise ValueError unless it is a whole number of Hz from 8 to 192 kHz."""
    if isinstance(rate_hz, bool) or int(rate_hz) != rate_hz or not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise ValueError(f"{name} must be a whole number of Hz from {MIN_RATE_HZ} to {MAX_RATE_HZ}, not {rate_hz!r}")
    return int(rate_hz)


def check_samples(x: Tensor) -> Tensor:
    """Return `x` unchanged; raise ValueError unless it is a tensor of int16, float32 or float64."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.int16, torch.float32, torch.float64):
        actual = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be a tensor of int16, float32 or float64, not {actual}")
    return x


def check_channels(count: int, allowed: tuple[int, ...]) -> None:
    """Raise ValueError unless `count` is one of `allowed`, or at least 1 if `allowed` is empty."""
    if count < 1 or (allowed and count not in allowed):
        numbers = ", ".join(map(str, allowed)) or "at least 1"
        raise ValueError(f"x must have one of these numbers of channels: {numbers}; not {count}")


def check_lengths(lengths: Tensor | None, batch: int, samples: int) -> Tensor:
    """Return the lengths as int64 [B] on the host, all equal to `samples` if None.

    Raises:
        ValueError: the lengths are not whole numbers from 0 to `samples`, one for each item.
    """
    if lengths is None:
        return torch.full((batch,), samples, dtype=torch.int64)
    if not isinstance(lengths, Tensor) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError("lengths must be a tensor of whole numbers, one for each item of x")
    if lengths.shape != (batch,):
        raise ValueError(f"lengths must have shape [{batch}], one for each item of x, not {list(lengths.shape)}")
    host = lengths.detach().to("cpu", torch.int64)
    if batch and not (int(host.min()) >= 0 and int(host.max()) <= samples):
        raise ValueError(f"lengths must lie from 0 to {samples}, the samples of x, not {host.tolist()[:8]}")
    return host
