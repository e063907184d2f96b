"""Stream a dataset's segments into training: shuffled, split among readers without overlap or loss, resumable."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from audiopipe.dataset.epoch import EpochOrder
from audiopipe.dataset.read_ahead import read_ahead
from audiopipe.dataset.schema import TAR_URL
from audiopipe.errors import ConfigError

if TYPE_CHECKING:
    from audiopipe.dataset.reader import Dataset

__all__ = ["SegmentStream", "StreamOptions", "find_rank", "stream_columns"]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The arguments of `Dataset.iterate`, with the rank and the number of ranks filled in."""

    shuffle: bool
    seed: int
    rank: int
    world_size: int
    worker: tuple[int, int] | None
    buffer: int
    threads: int
    drop_last: bool
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank {self.rank} is not one of {self.world_size} ranks, which are numbered from 0")
        if self.worker is not None and not 0 <= self.worker[0] < self.worker[1]:
            raise ConfigError(f"worker {self.worker[0]} is not one of {self.worker[1]} workers, numbered from 0")
        if self.seed < 0 or self.buffer < 1 or self.threads < 1:
            raise ConfigError("seed must be at least 0, and buffer and threads at least 1")


def find_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return the rank and the number of ranks: each as given, else of torch.distributed or torchrun, else 0 and 1."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        defaults = torch.distributed.get_rank(), torch.distributed.get_world_size()
    else:
        defaults = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return defaults[0] if rank is None else rank, defaults[1] if world_size is None else world_size


class SegmentStream(IterableDataset[Any]):
    """The kept segments of a dataset, for a `torch.utils.data.DataLoader`; `Dataset.iterate` makes it.

    Each worker of each rank gets its part: none in common, none missing, at most one more than another. The state that
    `state_dict` returns resumes an epoch where it was, also through torchdata's `StatefulDataLoader`, which asks each
    of its workers. The same seed and epoch give the same order; `set_epoch` gives another one.
    """

    def __init__(self, dataset: Dataset, options: StreamOptions) -> None:
        super().__init__()
        self.options = options
        self._dataset = dataset
        self._process = os.getpid()
        counts = dataset.count_by_shard()
        self._shards = tuple(counts)
        self._counts = tuple(counts.values())
        self._functions: tuple[Callable[[Any], Any], ...] = ()
        # In shared memory, so that `set_epoch` reaches persistent workers of a DataLoader.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        # An epoch and a position in it: where the next iteration starts, and how far the last one is.
        self._start = self._reached = (0, 0)

    def __repr__(self) -> str:
        return f"SegmentStream({self._dataset.url!r}): {len(self):,} segments, {self.options}"

    def __len__(self) -> int:
        """Return the number of segments that this rank gets, by all its workers."""
        parts = self._workers()
        return sum(last - first for first, last in (self._positions(worker, parts) for worker in range(parts)))

    def map(self, function: Callable[[Any], Any]) -> SegmentStream:
        """Return a stream of what a function makes of each segment, in the worker that reads it."""
        stream = copy.copy(self)
        stream._functions = (*self._functions, function)
        return stream

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration. Call it before each epoch; the first is 0.

        Raises:
            ConfigError: the epoch is negative.
        """
        if epoch < 0:
            raise ConfigError(f"epoch {epoch} is negative: the first is 0")
        self._epoch.fill_(epoch)

    @property
    def epoch(self) -> int:
        """The epoch that `set_epoch` chose."""
        return int(self._epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the position in it, with all that the order depends on."""
        return {"epoch": self.epoch, "position": self._position_in(self._reached), **self._order_of()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a position in the next iteration, if it is of the same epoch.

        Raises:
            ConfigError: the state is that of another dataset, seed, split or part.
        """
        order = self._order_of()
        differences = [
            f"{name}: {state.get(name)} there, {order[name]} here" for name in order if state.get(name) != order[name]
        ]
        if differences:
            raise ConfigError(f"the state is that of another iteration ({'; '.join(differences)}): use the same again")
        self.set_epoch(state["epoch"])
        self._start = self._reached = (state["epoch"], state["position"])

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the part of this worker, from where a loaded state was."""
        epoch, start = self.epoch, self._position_in(self._start)
        self._start, self._reached = (epoch, 0), (epoch, start)
        return self._iterate(epoch, start)

    def _position_in(self, place: tuple[int, int]) -> int:
        """Return the position of a place if it is in the chosen epoch, else the start."""
        epoch, position = place
        return position if epoch == self.epoch else 0

    def _iterate(self, epoch: int, start: int) -> Iterator[Any]:
        first, last = self._positions(*self._part())
        seed = self.options.seed if self.options.shuffle else None
        order = EpochOrder(self._counts, seed, epoch, first, last, self.options.buffer)
        segments = read_ahead(self._local_dataset(), self._shards, order.batches(start), self.options)
        for position, segment in enumerate(segments, start + 1):
            item: Any = segment
            for function in self._functions:
                item = function(item)
            self._reached = (epoch, position)
            yield item

    def _local_dataset(self) -> Dataset:
        """Return the dataset with a connection to its store that this process made: a fork cannot use its parent's."""
        if os.getpid() != self._process:
            self._dataset, self._process = self._dataset.reopen(), os.getpid()
        return self._dataset

    def _workers(self) -> int:
        info = get_worker_info()
        return self.options.worker[1] if self.options.worker else info.num_workers if info else 1

    def _part(self) -> tuple[int, int]:
        """Return the number of the worker, and of how many."""
        info = get_worker_info()
        return self.options.worker or ((info.id, info.num_workers) if info else (0, 1))

    def _positions(self, worker: int, workers: int) -> tuple[int, int]:
        """Return the first and the last position of a worker of this rank, the last one exclusive."""
        part, parts = self.options.rank * workers + worker, self.options.world_size * workers
        total = sum(self._counts)
        if self.options.drop_last:
            total -= total % parts
        return total * part // parts, total * (part + 1) // parts

    def _order_of(self) -> dict[str, Any]:
        worker, workers = self._part()
        options = asdict(self.options)
        names = ("shuffle", "seed", "rank", "world_size", "buffer", "drop_last")
        total = {"segments": sum(self._counts), "shards": len(self._counts)}
        return {name: options[name] for name in names} | {"worker": worker, "workers": workers} | total


def stream_columns(columns: Sequence[str] | None, all_columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that a stream reads: the given ones and those that a segment needs."""
    needed = ("key", "language", "shard", "tar_offset", "audio_bytes")
    if columns is None:
        return tuple(all_columns)
    if unknown := set(columns) - set(all_columns):
        raise ConfigError(f"the dataset has no column {', '.join(sorted(unknown))}")
    # A virtual selection has the address of the tar.
    wanted = dict.fromkeys([*needed, TAR_URL, *columns])
    return tuple(name for name in wanted if name in all_columns)
