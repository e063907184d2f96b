"""Convert the events of fingerprints to the bytes in `videos_*.parquet` and back, and compare them.

Nothing here imports PyTorch, because a driver compares the fingerprints of all videos, and does not compute otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_EVENTS", "compare_events", "pack_events", "unpack_events"]

MAX_EVENTS = 128  # that of `kernels.fingerprint`
# Of the 24 signs around an event that may differ in a copy; the 8 signs of the event's frame may not.
TOLERATED_BITS = 4

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


def compare_events(a: Events, b: Events) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Compute the similarity of pairs of recordings: the share of events that two fingerprints have in common.

    Two events match if the signs of their frames are equal and at most 4 of the 24 signs around them differ. A full
    fingerprint does not include events above its last one, so both are compared up to the lower of the two last events.

    Args:
        a, b: events in ascending order, padded with -1 at the end; shapes [P, K] and [P, L].

    Returns:
        The Jaccard index of the events (0 if there are none), and the number of common events; shape [P] each.
    """
    limit = np.minimum(_complete_up_to(a), _complete_up_to(b))[:, None]
    in_a, in_b = (a >= 0) & (a <= limit), (b >= 0) & (b <= limit)
    # Few events have equal signs in their frames; all further steps process only those.
    frames_a = np.where(in_a, a >> 24, -1).astype(np.int16)
    frames_b = np.where(in_b, b >> 24, -2).astype(np.int16)
    pair, i, j = (frames_a[:, :, None] == frames_b[:, None, :]).nonzero()
    match = np.bitwise_count(a[pair, i] ^ b[pair, j]) <= TOLERATED_BITS
    matched_a, matched_b = np.zeros_like(in_a), np.zeros_like(in_b)
    matched_a[pair[match], i[match]] = True
    matched_b[pair[match], j[match]] = True
    common = np.minimum(matched_a.sum(1), matched_b.sum(1))
    union = in_a.sum(1) + in_b.sum(1) - common
    return (common / np.maximum(union, 1)).astype(np.float32), common


def _complete_up_to(events: Events) -> Events:
    """Return the event up to which each fingerprint is complete: [P, K] -> [P]"""
    is_full = (events >= 0).sum(1) == MAX_EVENTS
    last = events[:, -1] if events.shape[1] else np.zeros(len(events), np.int64)
    return np.where(is_full, last, np.int64(1) << 32)
