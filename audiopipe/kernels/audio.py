"""A batch of audio as every kernel reads it: checked, float, and zero outside each item."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 192_000
INT16_FULL_SCALE = 32768.0
# Samples that one pass works on. On a CPU four megabytes of float32 stay in the caches between the steps of a kernel,
# and launches weigh little; on a GPU they must be long. The number depends on the kind of device alone, so a result
# never depends on free memory.
TILE_SAMPLES = {"cpu": 1 << 20, "cuda": 1 << 26}
# Zeros on both sides of a tile, so that frames and filters that reach over its ends read it without another copy; and
# whole groups of so many samples, so that its rows end to end are one row of them.
MARGIN, GROUP_SAMPLES = 4096, 256


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


def check_channels(count: int, known: tuple[int, ...]) -> None:
    """ValueError if there are no channels, or not one of the `known` numbers of them."""
    if count < 1 or (known and count not in known):
        allowed = ", ".join(map(str, known)) or "at least 1"
        raise ValueError(f"x must have one of these numbers of channels: {allowed}; not {count}")


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


def zero_padding_(x: Tensor, lengths: Tensor) -> None:
    """Zero `x` [B, C, T] in place where an item of so many samples has ended (none below zero, all from T on)."""
    first = min(max(int(lengths.min()), 0), x.shape[-1])
    if first < x.shape[-1]:
        index = torch.arange(first, x.shape[-1], device=x.device)
        x[..., first:].masked_fill_(index >= lengths.to(x.device)[:, None, None], 0.0)


class Items(ABC):
    """Audio of a batch, of whatever form, as kernels take it: in tiles."""

    lengths: Tensor

    @property
    @abstractmethod
    def channels(self) -> int: ...

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """What is computed in and returned: float64 for float64 input, else float32."""

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def n_samples(self) -> int:
        """Of the longest item, or of a padded batch."""

    @abstractmethod
    def tiles(self) -> Iterator[tuple[slice, Audio]]:
        """Groups of items, each small enough for one pass where an item is; cut to the longest item.

        An empty batch is one tile of one empty item, for `joined` to cut off again: so no kernel meets zero rows.
        """

    @property
    def tile_samples(self) -> int:
        return TILE_SAMPLES.get(self.device.type, TILE_SAMPLES["cuda"])

    def groups(self, item_samples: int) -> Iterator[slice]:
        """As many items of such a size as are one tile, in order."""
        size = max(self.tile_samples // max(item_samples, 1), 1)
        for start in range(0, len(self.lengths), size):
            yield slice(start, min(start + size, len(self.lengths)))

    def concat(self, parts: list[Tensor], fill: float = torch.nan) -> Tensor:
        """Results [b, ...] of all tiles as [B, ...]; where tiles differ in width, `fill` makes up for it."""
        width = max(p.shape[-1] for p in parts)
        if parts[0].ndim > 1 and any(p.shape[-1] < width for p in parts):
            parts = [torch.nn.functional.pad(p, (0, width - p.shape[-1]), value=fill) for p in parts]
        return torch.cat(parts)[: len(self.lengths)]


def computed_in(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Audio(Items):
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
        check_channels(x.shape[1], channels)
        return cls(x.detach(), check_lengths(lengths, x.shape[0], x.shape[2]))

    @property
    def channels(self) -> int:
        return self.samples.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return computed_in(self.samples)

    @property
    def device(self) -> torch.device:
        return self.samples.device

    def tiles(self) -> Iterator[tuple[slice, Audio]]:
        batch, channels, samples = self.samples.shape
        if batch == 0:
            yield slice(0, 0), Audio(self.samples.new_zeros(1, channels, 0), torch.zeros(1, dtype=torch.int64))
        for items in self.groups(channels * samples):
            lengths = self.lengths[items]
            yield items, Audio(self.samples[items, :, : int(lengths.max())], lengths)

    def with_padding(self) -> Audio:
        """The same with `padded`, for several kernels to read; itself if it has that, or is too long to be copied."""
        if self.padded is not None or self.samples.numel() > self.tile_samples:
            return self
        padded = new_padded(self.samples, *self.samples.shape)
        padded[..., :MARGIN] = 0
        padded[..., MARGIN + self.n_samples :] = 0
        inner = padded[..., MARGIN : MARGIN + self.n_samples].copy_(self.samples)
        if self.samples.dtype == torch.int16:
            inner.mul_(1 / INT16_FULL_SCALE)
        zero_padding_(inner, self.lengths)
        return Audio(inner, self.lengths, padded)

    def mono(self) -> Audio:
        """The mean of the channels; itself if there is one."""
        if self.channels == 1:
            return self
        if self.padded is None:
            return Audio(to_float(self.samples).mean(1, keepdim=True), self.lengths)
        padded = self.padded.mean(1, keepdim=True)
        return Audio(padded[..., MARGIN : MARGIN + self.n_samples], self.lengths, padded)

    def spans(self, step: int) -> Iterator[tuple[int, int]]:
        """Stretches of time of one tile each, whose starts are multiples of `step`."""
        rows = max(len(self.lengths) * self.channels, 1)
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
            zero_padding_(x, self.lengths - low)
        before, after = low - start, stop - max(high, low)
        return torch.nn.functional.pad(x, (before, after)) if before > 0 or after > 0 else x


def new_padded(like: Tensor, batch: int, channels: int, samples: int) -> Tensor:
    """Room for samples between margins: [B, C, MARGIN + T + at least MARGIN]"""
    width = -(-(samples + 2 * MARGIN) // GROUP_SAMPLES) * GROUP_SAMPLES
    return like.new_empty(batch, channels, width, dtype=computed_in(like))


@dataclass(frozen=True)
class Clips(Items):
    """Audio of items of their own lengths, [C, T] each: put side by side a tile at a time."""

    clips: Sequence[Tensor]
    lengths: Tensor

    @classmethod
    def checked(cls, clips: Sequence[Tensor], channels: tuple[int, ...] = ()) -> Clips:
        """Raises ValueError for anything but [C, T] tensors of one type, number of channels and device."""
        if not clips:
            raise ValueError("x must be a tensor or hold at least one item: of none nobody knows the device")
        for clip in clips:
            if check_samples(clip).ndim != 2:
                raise ValueError(f"items of x must have two dimensions, [channels, samples], not {list(clip.shape)}")
        kinds = {(clip.shape[0], clip.dtype, clip.device) for clip in clips}
        if len(kinds) > 1:
            raise ValueError(
                f"items of x must have one number of channels, type and device, not {sorted(map(str, kinds))}"
            )
        check_channels(clips[0].shape[0], channels)
        return cls(clips, torch.tensor([clip.shape[1] for clip in clips]))

    @property
    def channels(self) -> int:
        return self.clips[0].shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return computed_in(self.clips[0])

    @property
    def device(self) -> torch.device:
        return self.clips[0].device

    @property
    def n_samples(self) -> int:
        return int(self.lengths.max())

    def tiles(self) -> Iterator[tuple[slice, Audio]]:
        for items in self.groups(self.channels * self.n_samples):
            clips, lengths = self.clips[items], self.lengths[items]
            alone = Audio(clips[0].detach()[None], lengths)
            yield items, alone.with_padding() if len(clips) == 1 else self._side_by_side(clips, lengths)

    def _side_by_side(self, clips: Sequence[Tensor], lengths: Tensor) -> Audio:
        longest = int(lengths.max())
        padded = new_padded(clips[0], len(clips), self.channels, longest)
        padded[..., :MARGIN] = 0
        for row, clip in zip(padded, clips, strict=True):
            # One channel after the other: a single one that comes from interleaved samples has a stride that is none of
            # memory, and torch copies such one by one.
            for target, source in zip(row, clip, strict=True):
                target[MARGIN : MARGIN + len(source)] = source.detach()
            row[:, MARGIN + clip.shape[1] :] = 0
        if clips[0].dtype == torch.int16:
            padded.mul_(1 / INT16_FULL_SCALE)
        return Audio(padded[..., MARGIN : MARGIN + longest], lengths, padded)


def checked_items(x: Tensor | Sequence[Tensor], lengths: Tensor | None, channels: tuple[int, ...] = ()) -> Items:
    """A batch in either form, or ValueError, naming the argument and what is allowed."""
    if isinstance(x, Tensor):
        return Audio.checked(x, lengths, channels)
    if lengths is not None:
        raise ValueError("lengths belong to a padded batch; items of a list have their own")
    return Clips.checked(x, channels)
