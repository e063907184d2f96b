"""Bandwidth: the highest frequency that carries signal.

Audio that was low-passed, coded at a low bit rate or upsampled has an edge in its long-term spectrum that no voice
produces: the level falls much faster than that of speech or colored noise. The kernel locates the sharpest such edge,
then the point on it that identifies the filter: for a brick wall the frequency at which the level is 40 dB down, for a
gentle slope the frequency at which the fall begins.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

_WINDOW_HZ, _WINDOW_SHARE = 300.0, 0.04  # width of the windows around an edge: 300 Hz, or 4 % of the frequency if wider
_NATURAL_DB_PER_OCTAVE = 18.0  # steepest slope of a natural spectrum
_EDGE_DB = 10.0  # an edge falls by this much more than the natural slope
_ABOVE_DB = 6.0  # and the level above it stays at least this far below the level before it
_FLOOR_DB = -100.0  # relative to the highest peak; anything below is rounding noise
_CLIMB_DB, _CLIMB_DB_PER_OCTAVE = 3.0, 20.0  # the top of an edge is where the level stops falling this fast
_BEGIN_DB, _SHARP_DB, _END_DB = 8.0, 20.0, 40.0
_SHARP_RATIO = 1.025  # a brick wall falls from 20 to 40 dB within less than this ratio of frequencies


class _Windows(NamedTuple):
    """The windows on both sides of each bin as a candidate edge.

    `far_*` are the ranges [start, stop) of bins one window width away from the edge, `near_*` those adjacent to it.
    """

    far_below: tuple[Tensor, Tensor]
    far_above: tuple[Tensor, Tensor]
    near_below: tuple[Tensor, Tensor]
    near_above: tuple[Tensor, Tensor]
    width: Tensor
    far_octaves: Tensor
    near_octaves: Tensor
    possible: Tensor


@lru_cache(maxsize=32)
def _windows(bins: int, bin_hz: float, device: torch.device) -> _Windows:
    k = torch.arange(bins, device=device)
    width = (_WINDOW_SHARE * k).round().long().clamp(min=max(round(_WINDOW_HZ / bin_hz), 1))

    def clip(start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
        start = start.clamp(0, bins - 1)
        return start, torch.maximum(stop.clamp(max=bins), start + 1)

    def octaves(distance: Tensor) -> Tensor:
        return torch.log2((k + distance) / (k - distance).clamp(min=1))

    return _Windows(
        clip(k - 2 * width, k - width),
        clip(k + width, k + 2 * width),
        clip(k - width, k),
        clip(k, k + width),
        width,
        octaves(1.5 * width),
        octaves(0.5 * width),
        (k >= 4 * width) & (k + width < bins - 1),
    )


def _last_true(flags: Tensor) -> Tensor:
    """Return the index of the last true value of each row, 0 if there is none: [B, N] -> [B, 1]"""
    return (flags * torch.arange(flags.shape[-1], device=flags.device)).amax(-1, keepdim=True)


def compute_bandwidth_hz(spectrum: Tensor, sample_rate: int) -> Tensor:
    """Compute the highest frequency that carries signal, in Hz.

    Args:
        spectrum (Tensor): mean power of each bin over time.
        sample_rate (int): of the audio, in Hz.
    Shape:
        - spectrum: [B, N] float64
        - output: [B] float64
    Returns:
        Half the sample rate if the spectrum has no edge, NaN for silence.
    """
    bins = spectrum.shape[-1]
    bin_hz = sample_rate / (2 * (bins - 1))
    windows = _windows(bins, bin_hz, spectrum.device)
    padded = torch.nn.functional.pad(spectrum, (1, 1))
    smooth = padded[:, :-2] / 4 + padded[:, 1:-1] / 2 + padded[:, 2:] / 4
    peak = smooth.amax(-1, keepdim=True)
    level = 10 * (smooth / peak).clamp(min=10 ** (_FLOOR_DB / 10)).log10()
    running = torch.nn.functional.pad(level.cumsum(-1), (1, 0))

    def mean(window: tuple[Tensor, Tensor]) -> Tensor:
        start, stop = window
        return (running[:, stop] - running[:, start]) / (stop - start)

    below, above = mean(windows.far_below), mean(windows.far_above)
    fall = below - above - _NATURAL_DB_PER_OCTAVE * windows.far_octaves
    highest_above = above.flip(-1).cummax(-1).values.flip(-1)
    fall = torch.where(windows.possible & (highest_above < below - _ABOVE_DB), fall, -torch.inf)
    deepest, edge = fall.max(-1, keepdim=True)

    k = torch.arange(bins, device=spectrum.device)
    near_below = mean(windows.near_below)
    slope = near_below - mean(windows.near_above) - _CLIMB_DB_PER_OCTAVE * windows.near_octaves
    top = _last_true((k <= edge - windows.width[edge]) & (slope < _CLIMB_DB))
    plateau = near_below.gather(-1, top)
    on_edge = (k >= top - windows.width[top]) & (k <= edge + 2 * windows.width[edge])
    depth = (plateau - above.gather(-1, edge) - 6).clamp(max=_END_DB)
    begin, sharp, end = (
        _last_true(on_edge & (level > plateau - depth.clamp(max=down_db)))
        for down_db in (_BEGIN_DB, _SHARP_DB, _END_DB)
    )
    edge_hz = torch.where(end < _SHARP_RATIO * sharp, end, begin) * bin_hz
    hz = torch.where(deepest >= _EDGE_DB, edge_hz, sample_rate / 2)
    return torch.where(peak > 0, hz, torch.nan)[:, 0].to(spectrum.dtype)
