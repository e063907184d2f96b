"""A batch of audio as every kernel reads it: checked, float, and zero outside each item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 192_000
INT16_FULL_SCALE = 32768.0
# Samples that one pass works on. On a CPU two megabytes of float32 stay in the caches between the steps of a kernel; on
# a GPU launches must be long. The number depends on the kind of device alone, so a result never depends on free memory.
TILE_SAMPLES = {"cpu": 1 << 19, "cuda": 1 << 26}
# Zeros on both sides of a tile, so that frames and filters that reach over its ends read it without another copy.
MARGIN = 4096


def check_rate(rate_hz: int, name: str = "sample_rate") -> int:
    """`rate_hz` as an int, or ValueError if it is not a whole number of Hz between 8 and 192 kHz."""
    if isinstance(rate_hz, bool) or int(rate_hz) != rate_hz or not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise ValueError(f"{name} must be a whole number of Hz from {MIN_RATE_HZ} to {MAX_RATE_HZ}, not {rate_hz!r}")
    return int(rate_hz)


def check_samples(x: Tensor) -> Tensor:
    """`x` unchanged, or ValueError if it is no tensor of int16, float32 or float64."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.int16, torch.float32, torch.float64):
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be a tensor of int16, float32 or float64, not {found}")
    return x


def check_lengths(lengths: Tensor | None, batch: int, samples: int) -> Tensor:
    """The lengths on the host as int64 [B] (all `samples` if None), or ValueError if they do not fit the batch."""
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


def to_float(x: Tensor) -> Tensor:
    """Full scale 1.0: int16 becomes float32, floats stay what they are."""
    return x.to(torch.float32).mul_(1 / INT16_FULL_SCALE) if x.dtype == torch.int16 else x


def silence_beyond(x: Tensor, lengths: Tensor) -> None:
    """Zero `x` [B, C, T] in place where an item of so many samples has ended (none below zero, all from T on)."""
    first = min(max(int(lengths.min()), 0), x.shape[-1])
    if first < x.shape[-1]:
        index = torch.arange(first, x.shape[-1], device=x.device)
        x[..., first:].masked_fill_(index >= lengths.to(x.device)[:, None, None], 0.0)


@dataclass(frozen=True)
class Audio:
    """Audio of a batch. `samples` is [B, C, T] as it came; `read` is how a kernel gets at it.

    Padding is masked, not multiplied, for it may hold anything, NaN included. `padded` are the same samples in float,
    masked, between margins of zeros, if they are few enough for that: those of a tile.
    """

    samples: Tensor
    lengths: Tensor
    padded: Tensor | None = None

    @classmethod
    def checked(cls, x: Tensor, lengths: Tensor | None = None, channels: tuple[int, ...] = ()) -> Audio:
        """Raises ValueError, naming the argument, for anything but [B, C, T] audio with fitting lengths."""
        if check_samples(x).ndim != 3:
            raise ValueError(f"x must have three dimensions, [batch, channels, samples], not {list(x.shape)}")
        if x.shape[1] < 1 or (channels and x.shape[1] not in channels):
            allowed = ", ".join(map(str, channels)) or "at least 1"
            raise ValueError(f"x must have one of these numbers of channels: {allowed}; not {x.shape[1]}")
        return cls(x.detach(), check_lengths(lengths, x.shape[0], x.shape[2]))

    @property
    def device(self) -> torch.device:
        return self.samples.device

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in and returned: float64 for float64 input, else float32."""
        return torch.float64 if self.samples.dtype == torch.float64 else torch.float32

    @property
    def tile_samples(self) -> int:
        return TILE_SAMPLES.get(self.device.type, TILE_SAMPLES["cuda"])

    def tiles(self) -> Iterator[tuple[slice, Audio]]:
        """Groups of items, each small enough for one pass where an item is; cut to the longest item.

        An empty batch is one tile of one empty item, for `joined` to cut off again: so no kernel meets zero rows.
        """
        batch, channels, samples = self.samples.shape
        if batch == 0:
            yield slice(0, 0), Audio(self.samples.new_zeros(1, channels, 0), torch.zeros(1, dtype=torch.int64))
            return
        per_item = max(channels * samples, 1)
        size = max(self.tile_samples // per_item, 1)
        for start in range(0, batch, size):
            items = slice(start, min(start + size, batch))
            lengths = self.lengths[items]
            yield items, Audio(self.samples[items, :, : int(lengths.max())], lengths)

    def between_margins(self) -> Audio:
        """The same with `padded`, for several kernels to read; itself if it is too long to be copied."""
        if self.samples.numel() > self.tile_samples:
            return self
        padded = self.samples.new_empty(*self.samples.shape[:2], self.n_samples + 2 * MARGIN, dtype=self.dtype)
        padded[..., :MARGIN] = 0
        padded[..., MARGIN + self.n_samples :] = 0
        inner = padded[..., MARGIN : MARGIN + self.n_samples].copy_(self.samples)
        if self.samples.dtype == torch.int16:
            inner.mul_(1 / INT16_FULL_SCALE)
        silence_beyond(inner, self.lengths)
        return Audio(inner, self.lengths, padded)

    def joined(self, parts: list[Tensor], fill: float = torch.nan) -> Tensor:
        """Results [b, ...] of all tiles as [B, ...]; where tiles differ in width, `fill` makes up for it."""
        width = max(p.shape[-1] for p in parts)
        if parts[0].ndim > 1:
            parts = [torch.nn.functional.pad(p, (0, width - p.shape[-1]), value=fill) for p in parts]
        return torch.cat(parts)[: self.samples.shape[0]]

    def spans(self, step: int) -> Iterator[tuple[int, int]]:
        """Stretches of time of one tile each, whose starts are multiples of `step`."""
        rows = max(self.samples.shape[0] * self.samples.shape[1], 1)
        size = max(self.tile_samples // (rows * step), 1) * step
        for start in range(0, self.n_samples, size):
            yield start, min(start + size, self.n_samples)

    @property
    def n_samples(self) -> int:
        return self.samples.shape[2]

    def read(self, start: int, stop: int) -> Tensor:
        """Samples `start` to `stop` (either may lie outside the audio) as float [B, C, stop - start]; do not write."""
        if self.padded is not None and start >= -MARGIN and stop <= self.n_samples + MARGIN:
            return self.padded[..., MARGIN + start : MARGIN + stop]
        low, high = max(start, 0), min(max(stop, 0), self.n_samples)
        x = to_float(self.samples[..., low : max(high, low)])
        if self.padded is None and int(self.lengths.min()) < high:
            x = x.clone() if x.data_ptr() == self.samples[..., low:high].data_ptr() else x
            silence_beyond(x, self.lengths - low)
        before, after = low - start, stop - max(high, low)
        return torch.nn.functional.pad(x, (before, after)) if before > 0 or after > 0 else x
