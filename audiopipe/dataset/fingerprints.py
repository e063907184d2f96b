"""Convert the events of fingerprints to the bytes in `videos_*.parquet`, and back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from audiopipe.kernels.fingerprint import MAX_EVENTS

__all__ = ["pack_events", "unpack_events"]

Events = npt.NDArray[np.int64]


def pack_events(events: torch.Tensor) -> bytes:
    """Convert events to the bytes of `videos_*.parquet`: little-endian uint32 in ascending order."""
    return events.numpy().astype("<u4").tobytes()


def unpack_events(fingerprints: Iterable[bytes]) -> Events:
    """Convert N fingerprints to [N, MAX_EVENTS] events, padded with -1."""
    rows = [np.frombuffer(data, "<u4") for data in fingerprints]
    events = np.full((len(rows), MAX_EVENTS), -1, np.int64)
    for target, row in zip(events, rows, strict=True):
        target[: len(row)] = row
    return events
