"""List the windows of 9.01 s that DNSMOS rates, exactly as Microsoft's script and `speechmos` do.

Audio shorter than a window is appended to itself, which doubles it, until it is long enough. Windows start each second.
Both programs compute a window's end as `int((index + 9.01) * 16000)`. In float64 the product is a little too small for
the indices 7 to 23 and 119 to 122; the window is then a sample short, and both skip it. So of 30 s only the first 7 of
21 windows count. Published thresholds rest on these values, and so do the ones here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FRAMES", "HOP_FRAMES", "RATE_HZ", "WINDOW", "WindowSpan", "cut_span", "list_spans", "window_indices"]

RATE_HZ = 16_000
WINDOW_S = 9.01
WINDOW = 144_160  # samples of a window
FRAMES, HOP_FRAMES = 900, 100  # frames of 10 ms in a window, and from the start of a window to that of the next
HOP = 160  # samples between frames
PERIOD_MARGIN = 100  # frames by which a period must be shorter than a window to save time
MAX_WINDOWS = 16  # of a span: bounds the memory for a long segment


@dataclass(frozen=True, slots=True)
class WindowSpan:
    """Windows of one segment that follow each other.

    Args:
        first: the second at which the first window starts.
        count: the number of windows.
        period: frames after which a segment that is repeated to fill its window has the same frames again, an even
            number; 0 for a segment that is long enough, or whose frames are not the same.
    """

    segment: int
    first: int
    count: int
    period: int = 0


def window_indices(samples: int) -> list[int]:
    """List the seconds at which the windows of a segment start.

    Args:
        samples: the number of samples at 16 kHz, at least 1.
    """
    while samples < WINDOW:
        samples *= 2
    hops = int(samples // RATE_HZ - WINDOW_S) + 1
    return [index for index in range(hops) if int((index + WINDOW_S) * RATE_HZ) - index * RATE_HZ == WINDOW]


def list_spans(lengths: Sequence[int]) -> Iterator[WindowSpan]:
    """Group the windows of segments with these numbers of samples into spans."""
    for segment, samples in enumerate(lengths):
        indices = window_indices(samples)
        first = indices[0]
        for index, following in zip(indices, [*indices[1:], -1], strict=True):
            if following != index + 1 or following - first == MAX_WINDOWS:
                yield WindowSpan(segment, first, index + 1 - first, _period(samples))
                first = following


def _period(samples: int) -> int:
    """Return the period in frames of a segment that is repeated to fill a window; see `WindowSpan`."""
    frames, rest = divmod(samples, HOP)
    period = frames * (1 + frames % 2)
    return period if rest == 0 and period + PERIOD_MARGIN <= FRAMES else 0


def cut_span(wave: Tensor, span: WindowSpan) -> Tensor:
    """Cut the samples of a span's windows from a segment, repeated where it is short: [T] -> [samples]"""
    start, size = span.first * RATE_HZ, (span.count - 1) * RATE_HZ + WINDOW
    if start + size <= len(wave):
        return wave[start : start + size]
    return wave[torch.arange(start, start + size, device=wave.device) % len(wave)]
