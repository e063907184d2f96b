"""Give kernels one view of all forms of a batch: tiles of float samples that are zero outside each item."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiopipe.kernels import compiler
from audiopipe.kernels.checks import check_channels, check_lengths, check_samples

INT16_FULL_SCALE = 32768.0
# Samples that one pass processes. On a CPU four megabytes of float32 stay in the caches between the steps of a kernel;
# on a GPU a pass must be long to hide the cost of kernel launches. The number depends only on the kind of device, so
# results never depend on free memory.
TILE_SAMPLES = {"cpu": 1 << 20, "cuda": 1 << 26}
# MARGIN: zeros on both sides of a padded tile, so that frames and filters that reach beyond its ends need no copy.
# GROUP_SAMPLES: the width of a padded tile is a multiple of this, so that all rows together form whole groups.
MARGIN, GROUP_SAMPLES = 4096, 256


def to_float(x: Tensor) -> Tensor:
    """Convert int16 to float32 with full scale 1.0; return float samples unchanged."""
    return x.to(torch.float32).mul_(1 / INT16_FULL_SCALE) if x.dtype == torch.int16 else x


def zero_padding_(x: Tensor, lengths: Tensor) -> None:
    """Zero the samples of `x` [B, C, T] after the end of each item, in place.

    Lengths below 0 zero the whole item, lengths of T or more none of it.
    """
    first = min(max(int(lengths.min()), 0), x.shape[-1])
    if first < x.shape[-1]:
        index = torch.arange(first, x.shape[-1], device=x.device)
        x[..., first:].masked_fill_(index >= lengths.to(x.device)[:, None, None], 0.0)


class AudioBatch(ABC):
    """A batch of items that kernels read in tiles."""

    lengths: Tensor

    @property
    @abstractmethod
    def channels(self) -> int: ...

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Return the dtype of computation and results: float64 for float64 input, else float32."""

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def n_samples(self) -> int:
        """Return the length of the longest item, or of the padded batch."""

    @abstractmethod
    def tiles(self) -> Iterator[tuple[slice, Audio]]:
        """Yield slices of the batch with their audio, cut to the longest item of the slice.

        A slice has as many items as fit into one pass, and at least one. An empty batch yields one empty item, which
        `concat` removes, so that kernels never see zero rows.
        """

    @property
    def tile_samples(self) -> int:
        return TILE_SAMPLES.get(self.device.type, TILE_SAMPLES["cuda"])

    @property
    def is_compiled(self) -> bool:
        """Return whether compiled functions process this batch, item by item: in float32 on a CPU."""
        return self.device.type == "cpu" and self.dtype == torch.float32 and compiler.is_available()

    def groups(self, item_samples: int) -> Iterator[slice]:
        """Yield consecutive slices of as many items of `item_samples` samples as fit into one tile."""
        size = 1 if self.is_compiled else max(self.tile_samples // max(item_samples, 1), 1)
        for start in range(0, len(self.lengths), size):
            yield slice(start, min(start + size, len(self.lengths)))

    def concat(self, parts: list[Tensor], fill: float = torch.nan) -> Tensor:
        """Concatenate results [b, ...] of all tiles to [B, ...]; extend narrower tiles with `fill`."""
        width = max(part.shape[-1] for part in parts)
        if parts[0].ndim > 1 and any(part.shape[-1] < width for part in parts):
            parts = [torch.nn.functional.pad(part, (0, width - part.shape[-1]), value=fill) for part in parts]
        return torch.cat(parts)[: len(self.lengths)]


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return float64 for float64 input, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Audio(AudioBatch):
    """A batch as one tensor. Kernels get float samples from `read`, which masks what lies beyond an item's length.

    Samples beyond the length are overwritten and not multiplied by zero, because they may hold NaN.

    Args:
        samples: the input of the caller.
        lengths: valid samples of each item, on the host.
        padded: the same samples as float, masked, between margins of zeros; only for a tile.
    Shape:
        - samples: [B, C, T]
        - lengths: [B]
        - padded: [B, C, MARGIN + T + at least MARGIN]
    """

    samples: Tensor
    lengths: Tensor
    padded: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, lengths: Tensor | None = None, channels: tuple[int, ...] = ()) -> Audio:
        """Validate the arguments; raise ValueError unless `x` is [B, C, T] audio and the lengths fit it."""
        if check_samples(x).ndim != 3:
            raise ValueError(f"x must have three dimensions, [batch, channels, samples], not {list(x.shape)}")
        check_channels(x.shape[1], channels)
        return cls(x.detach(), check_lengths(lengths, x.shape[0], x.shape[2]))

    @property
    def channels(self) -> int:
        return self.samples.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return compute_dtype(self.samples)

    @property
    def device(self) -> torch.device:
        return self.samples.device

    def tiles(self) -> Iterator[tuple[slice, Audio]]:
        batch, channels, samples = self.samples.shape
        if batch == 0:
            yield slice(0, 0), Audio(self.samples.new_zeros(1, channels, 0), torch.zeros(1, dtype=torch.int64))
        for group in self.groups(channels * samples):
            lengths = self.lengths[group]
            yield group, Audio(self.samples[group, :, : int(lengths.max())], lengths)

    def with_padding(self) -> Audio:
        """Return this audio with `padded`, so that several kernels share one conversion to float.

        Return it unchanged if it has `padded` already or is longer than a tile. Compiled functions need no `padded`.
        """
        if self.padded is not None or (self.samples.numel() > self.tile_samples and not self.is_compiled):
            return self
        if self.is_compiled:
            return Audio(to_float(self.samples), self.lengths)
        padded = empty_padded(self.samples, *self.samples.shape)
        padded[..., :MARGIN] = 0
        padded[..., MARGIN + self.n_samples :] = 0
        inner = padded[..., MARGIN : MARGIN + self.n_samples].copy_(self.samples)
        if self.samples.dtype == torch.int16:
            inner.mul_(1 / INT16_FULL_SCALE)
        zero_padding_(inner, self.lengths)
        return Audio(inner, self.lengths, padded)

    def items(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the valid samples [C, n] of each item, for compiled functions."""
        for item, length in zip(self.samples, self.lengths.tolist(), strict=True):
            yield np.ascontiguousarray(to_float(item[:, :length]).numpy())

    def mono(self) -> Audio:
        """Return the mean of the channels, or this audio unchanged if it has one channel."""
        if self.channels == 1:
            return self
        if self.padded is None:
            return Audio(to_float(self.samples).mean(1, keepdim=True), self.lengths)
        padded = self.padded.mean(1, keepdim=True)
        return Audio(padded[..., MARGIN : MARGIN + self.n_samples], self.lengths, padded)

    def spans(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield time ranges (start, stop) of at most one tile each, whose starts are multiples of `step`."""
        rows = max(len(self.lengths) * self.channels, 1)
        size = max(self.tile_samples // (rows * step), 1) * step
        for start in range(0, self.n_samples, size):
            yield start, min(start + size, self.n_samples)

    @property
    def n_samples(self) -> int:
        return self.samples.shape[2]

    def read(self, start: int, stop: int) -> Tensor:
        """Return the samples from `start` to `stop` as float [B, C, stop - start]; do not write to them.

        Both ends may lie outside the audio; samples there are zero.
        """
        if self.padded is not None and start >= -MARGIN and stop <= self.n_samples + MARGIN:
            return self.padded[..., MARGIN + start : MARGIN + stop]
        low, high = max(start, 0), min(max(stop, 0), self.n_samples)
        x = to_float(self.samples[..., low : max(high, low)])
        if self.padded is None and int(self.lengths.min()) < high:
            x = x.clone() if x.data_ptr() == self.samples[..., low:high].data_ptr() else x
            zero_padding_(x, self.lengths - low)
        left, right = low - start, stop - max(high, low)
        return torch.nn.functional.pad(x, (left, right)) if left > 0 or right > 0 else x


def empty_padded(like: Tensor, batch: int, channels: int, samples: int) -> Tensor:
    """Allocate space for samples between margins: [B, C, MARGIN + T + at least MARGIN]"""
    width = -(-(samples + 2 * MARGIN) // GROUP_SAMPLES) * GROUP_SAMPLES
    return like.new_empty(batch, channels, width, dtype=compute_dtype(like))


@dataclass(frozen=True)
class RaggedAudio(AudioBatch):
    """A batch as a list of items [C, T] of different lengths; each tile is copied into one padded tensor."""

    items: Sequence[Tensor]
    lengths: Tensor

    @classmethod
    def of(cls, items: Sequence[Tensor], channels: tuple[int, ...] = ()) -> RaggedAudio:
        """Validate the items; raise ValueError unless they are [C, T] of the same dtype, channels and device."""
        if not items:
            raise ValueError("x must be a tensor or a list of at least one item; an empty list has no device")
        for item in items:
            if check_samples(item).ndim != 2:
                raise ValueError(f"items of x must have two dimensions, [channels, samples], not {list(item.shape)}")
        kinds = {(item.shape[0], item.dtype, item.device) for item in items}
        if len(kinds) > 1:
            raise ValueError(
                f"all items of x must have the same number of channels, dtype and device, not {sorted(map(str, kinds))}"
            )
        check_channels(items[0].shape[0], channels)
        return cls(items, torch.tensor([item.shape[1] for item in items]))

    @property
    def channels(self) -> int:
        return self.items[0].shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return compute_dtype(self.items[0])

    @property
    def device(self) -> torch.device:
        return self.items[0].device

    @property
    def n_samples(self) -> int:
        return int(self.lengths.max())

    def tiles(self) -> Iterator[tuple[slice, Audio]]:
        for group in self.groups(self.channels * self.n_samples):
            items, lengths = self.items[group], self.lengths[group]
            if len(items) == 1:
                yield group, Audio(items[0].detach()[None], lengths).with_padding()
            else:
                yield group, self._copy_to_padded(items, lengths)

    def _copy_to_padded(self, items: Sequence[Tensor], lengths: Tensor) -> Audio:
        longest = int(lengths.max())
        padded = empty_padded(items[0], len(items), self.channels, longest)
        padded[..., :MARGIN] = 0
        for row, item in zip(padded, items, strict=True):
            # Copy each channel separately: torch copies a [1, T] view of interleaved samples element by element,
            # because the stride of its first dimension is unusual.
            for target, source in zip(row, item, strict=True):
                target[MARGIN : MARGIN + len(source)] = source.detach()
            row[:, MARGIN + item.shape[1] :] = 0
        if items[0].dtype == torch.int16:
            padded.mul_(1 / INT16_FULL_SCALE)
        return Audio(padded[..., MARGIN : MARGIN + longest], lengths, padded)


def to_batch(x: Tensor | Sequence[Tensor], lengths: Tensor | None, channels: tuple[int, ...] = ()) -> AudioBatch:
    """Convert a tensor or a list of items to a batch; raise ValueError if it is not valid audio."""
    if isinstance(x, Tensor):
        return Audio.of(x, lengths, channels)
    if lengths is not None:
        raise ValueError("lengths are for a padded batch; the items of a list have lengths already")
    return RaggedAudio.of(x, channels)
