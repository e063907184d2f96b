"""Decide the order of the segments of an epoch, and which of them a part of the readers gets.

All segments of all shards are laid out one after the other, the shards in the order of their names or shuffled. Part i
of P gets the positions from `total * i // P` to `total * (i + 1) // P`, so that the parts have no segment in common,
miss none, and differ by at most one, whatever the number of shards.

Shuffled, the randomness has three levels, all of which depend on seed and epoch alone: the order of the shards; the
order of the blocks of 32 neighbors in groups of 8 shards; and the order of the segments in pools of `buffer` segments.
So a batch mixes segments from up to 8 shards, and a reader holds one pool and the next in memory, not the dataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Batch", "EpochOrder", "Slice"]

BLOCK = 32  # neighbors in a tar that are read together: about 2.5 MB
GROUP_SHARDS = 8  # whose tables a reader holds, and whose blocks are mixed

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Slice:
    """The segments `start` to `stop` of a shard, in the order of its tar."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The segments that a reader fetches together: numbers of rows in the tables of a group's slices.

    Args:
        group: the slices, whose rows are numbered one after the other.
        rows: [N] in the order in which they are yielded.
    """

    group: tuple[Slice, ...]
    rows: Numbers


@dataclass(frozen=True, slots=True)
class EpochOrder:
    """The order of one epoch for one part of the readers.

    Args:
        counts: the number of segments of each shard.
        seed: None for the order of the tars.
        first, last: the positions of the part.
        buffer: segments that are fetched and mixed together.
    """

    counts: Sequence[int]
    seed: int | None
    epoch: int
    first: int
    last: int
    buffer: int

    def batches(self, skip: int) -> Iterator[Batch]:
        """Yield what is to be fetched, without the first `skip` segments of the part."""
        for position, group in self._groups():
            size = sum(part.stop - part.start for part in group)
            if position + size <= self.first + skip:
                continue
            rows = np.arange(size) if self.seed is None else self._shuffle(position, size)
            yield from self._pools(group, rows, max(0, self.first + skip - position))

    def _pools(self, group: tuple[Slice, ...], rows: Numbers, skip: int) -> Iterator[Batch]:
        for start in range(skip // self.buffer * self.buffer, len(rows), self.buffer):
            yield Batch(group, rows[max(start, skip) : start + self.buffer])

    def _groups(self) -> Iterator[tuple[int, tuple[Slice, ...]]]:
        """Yield the part's slices of shards, several at a time, each with the position of its first segment."""
        position, begin, group = 0, self.first, list[Slice]()
        for shard in self._shard_order().tolist():
            count = self.counts[shard]
            start, stop = max(self.first - position, 0), min(self.last - position, count)
            if start < stop:
                begin = begin if group else position + start
                group.append(Slice(shard, start, stop))
            if len(group) == GROUP_SHARDS:
                yield begin, tuple(group)
                group = []
            position += count
            if position >= self.last:
                break
        if group:
            yield begin, tuple(group)

    def _shard_order(self) -> Numbers:
        return np.arange(len(self.counts)) if self.seed is None else self._permutation(len(self.counts), 0)

    def _shuffle(self, position: int, size: int) -> Numbers:
        """Return the rows of a group: its blocks shuffled, and the rows of each pool of them."""
        blocks = self._permutation(-(-size // BLOCK), 1, position)
        rows = (blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        rows = rows[rows < size]
        for start in range(0, size, self.buffer):
            pool = rows[start : start + self.buffer]
            rows[start : start + self.buffer] = pool[self._permutation(len(pool), 2, position + start)]
        return rows

    def _permutation(self, size: int, *purpose: int) -> Numbers:
        """Return a permutation that depends on the arguments alone, whatever the version of numpy."""
        assert self.seed is not None
        generator = np.random.PCG64(np.random.SeedSequence([self.seed, self.epoch, *purpose]))
        return np.argsort(generator.random_raw(size), kind="stable")
