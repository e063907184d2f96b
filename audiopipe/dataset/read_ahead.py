"""Read the audio of batches of segments ahead of their use, by few and large ranged reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from audiopipe.dataset.epoch import Batch, Slice
from audiopipe.dataset.segment import Segment
from audiopipe.dataset.virtual import open_tar
from audiopipe.errors import VerifyError
from audiopipe.store.objects import Store

if TYPE_CHECKING:
    from audiopipe.dataset.reader import Dataset

__all__ = ["Range", "coalesce", "read_ahead"]

MAX_RANGE_BYTES = 8 << 20
# Bytes between two segments that are read and thrown away rather than asked for separately: about what a request costs.
MAX_GAP_BYTES = 16 << 10
MAX_GAP_BYTES_REMOTE = 256 << 10
BATCHES_AHEAD = 1  # in addition to the one that is used

Place = tuple[str, int, int]  # a tar, and the offset and size of a member's data


class ReadOptions(Protocol):
    """The options that reading depends on."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def threads(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Range:
    """A byte range of a tar, with the numbers of the places in it."""

    tar: str
    start: int
    stop: int
    members: tuple[int, ...]


def coalesce(places: Sequence[Place], max_gap: int) -> list[Range]:
    """Join places that are near each other in their tar; return the ranges in the order in which they are needed."""
    ranges: list[Range] = []
    for number in sorted(range(len(places)), key=lambda number: places[number]):
        tar, offset, size = places[number]
        last = ranges[-1] if ranges else None
        if (
            last is not None
            and last.tar == tar
            and offset - last.stop <= max_gap
            and offset + size - last.start <= MAX_RANGE_BYTES
        ):
            ranges[-1] = Range(tar, last.start, max(last.stop, offset + size), (*last.members, number))
        else:
            ranges.append(Range(tar, offset, offset + size, (number,)))
    return sorted(ranges, key=lambda item: min(item.members))


def read_ahead(
    dataset: Dataset, shards: Sequence[str], batches: Iterator[Batch], options: ReadOptions
) -> Iterator[Segment]:
    """Yield the segments of batches in their order, while the next batch is read.

    Args:
        shards: the names of the shards, by the numbers in the batches.
    """
    with ThreadPoolExecutor(options.threads, "audiopipe-read") as readers, ThreadPoolExecutor(1) as preparer:
        fetcher = _Fetcher(dataset, shards, options.columns, readers)
        pending: deque[Future[_FetchedBatch | None]] = deque()
        try:
            for _ in range(1 + BATCHES_AHEAD):
                pending.append(preparer.submit(fetcher.fetch_next, batches))
            while (fetched := pending.popleft().result()) is not None:
                pending.append(preparer.submit(fetcher.fetch_next, batches))
                yield from fetched.segments(dataset)
        finally:
            preparer.shutdown(wait=True, cancel_futures=True)
            readers.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _FetchedBatch:
    """The rows of a batch, and the reads of their audio under way."""

    rows: list[dict[str, Any]]
    places: list[Place]
    ranges: list[Range]
    reads: list[Future[bytes]]

    def segments(self, dataset: Dataset) -> Iterator[Segment]:
        """Yield the segments; the bytes of a range are released after its last segment."""
        range_of = {number: index for index, item in enumerate(self.ranges) for number in item.members}
        remaining = [len(item.members) for item in self.ranges]
        for number, (row, (_, offset, size)) in enumerate(zip(self.rows, self.places, strict=True)):
            index = range_of[number]
            start = offset - self.ranges[index].start
            data = self.reads[index].result()[start : start + size]
            remaining[index] -= 1
            if not remaining[index]:
                self.reads[index] = Future()
            yield dataset.segment_of(row, data)


class _Fetcher:
    """Reads the tables of groups of shards, and starts the reads of audio."""

    def __init__(
        self, dataset: Dataset, shards: Sequence[str], columns: tuple[str, ...], readers: ThreadPoolExecutor
    ) -> None:
        self.dataset = dataset
        self.shards = shards
        self.columns = columns
        self.readers = readers
        self._group: tuple[Slice, ...] = ()
        self._table: pa.Table | None = None

    def fetch_next(self, batches: Iterator[Batch]) -> _FetchedBatch | None:
        """Start to read the next batch; return None after the last."""
        batch = next(batches, None)
        if batch is None:
            return None
        if batch.group is not self._group:
            self._table, self._group = self._read_group(batch.group), batch.group
        assert self._table is not None
        rows = self._table.take(pa.array(batch.rows)).to_pylist()
        places = [self.dataset.place_of(row) for row in rows]
        store = self.dataset.store
        ranges = coalesce(places, MAX_GAP_BYTES if store.local_folder is not None else MAX_GAP_BYTES_REMOTE)
        reads = [self.readers.submit(_read_range, store, item) for item in ranges]
        return _FetchedBatch(rows, places, ranges, reads)

    def _read_group(self, group: tuple[Slice, ...]) -> pa.Table:
        names = [self.shards[part.shard] for part in group]
        tables = self.dataset.select_shards(names).kept_by_shard(self.columns)
        parts = []
        for part, name in zip(group, names, strict=True):
            if tables[name].num_rows < part.stop:
                raise VerifyError(f"the table of {name} has fewer segments than before: the dataset has changed")
            parts.append(tables[name].slice(part.start, part.stop - part.start))
        return pa.concat_tables(parts)


def _read_range(store: Store, item: Range) -> bytes:
    place, name = open_tar(store, item.tar)
    data = place.read_range(name, item.start, item.stop - item.start)
    if len(data) < item.stop - item.start:
        raise VerifyError(f"{item.tar} is shorter than its table says; `audiopipe verify {store.url}` checks all tars")
    return data
