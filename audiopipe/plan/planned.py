"""The shards that a driver must bring to their commits, created one after the other: all videos at once take 0.3 GB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.plan.plan import Order, Plan
from audiopipe.types import Seconds, Shard, shard_name

__all__ = ["PlannedShards", "ShardSize", "shard_sizes"]


class ShardSize(NamedTuple):
    """The sums over a shard's videos, as far as the catalog knows them."""

    size_bytes: int
    audio_s: Seconds


def shard_sizes(
    plan: Plan, partition: int | None = None, languages: Iterable[str] | None = None
) -> dict[str, ShardSize]:
    """Return the sizes of the shards of a partition and of some languages, or of all, by name."""
    return {
        shard_name(language, index): size
        for language in plan.select(languages)
        for index, size in _sizes(plan.tables[language], partition)
    }


def _sizes(table: pa.Table, partition: int | None) -> Iterator[tuple[int, ShardSize]]:
    """Yield the index and the size of each shard."""
    rows = table if partition is None else table.filter(pc.field("partition") == partition)
    sums = rows.group_by("shard", use_threads=False).aggregate([("size_bytes", "sum"), ("duration_s", "sum")])
    columns = (sums[name].to_pylist() for name in ("shard", "size_bytes_sum", "duration_s_sum"))
    for index, size_bytes, audio_s in zip(*columns, strict=True):
        yield index, ShardSize(size_bytes or 0, audio_s or 0.0)


@dataclass(frozen=True)
class PlannedShards:
    """The shards of a plan that a driver processes.

    Attributes:
        partition: None for all.
        languages, order: as for `Plan.shards`.
        only: names of the shards, if not all that the other attributes select.
    """

    plan: Plan
    partition: int | None = None
    languages: tuple[str, ...] | None = None
    order: Order = "round_robin"
    only: Set[str] | None = None

    @cached_property
    def sizes(self) -> dict[str, ShardSize]:
        """The sizes of the shards by name."""
        sizes = shard_sizes(self.plan, self.partition, self.languages)
        return {name: size for name, size in sizes.items() if self.only is None or name in self.only}

    def create(self, without: Set[str] = frozenset()) -> Iterator[Shard]:
        """Yield the shards, but for some names, in the order in which they are to be processed."""
        for shard in self.plan.shards(self.partition, self.languages, self.order, without):
            if self.only is None or shard.name in self.only:
                yield shard
