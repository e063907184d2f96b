"""The shards that a session has still to submit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Self

from audiopipe.plan.planned import PlannedShards
from audiopipe.types import Shard

__all__ = ["ShardQueue"]


class ShardQueue:
    """Shards in the order in which they are submitted: returned ones, then the planned ones, then postponed ones.

    A planned shard is created when it is taken, because the videos of a whole catalog need much memory.
    """

    def __init__(self, planned: Iterable[Shard], count: int) -> None:
        """Hold `count` planned shards."""
        self._first: deque[Shard] = deque()
        self._planned, self._count = iter(planned), count
        self._last: deque[Shard] = deque()

    @classmethod
    def of(cls, shards: PlannedShards, committed: Iterable[str]) -> Self:
        """Hold the planned shards that are not committed."""
        without = shards.sizes.keys() & set(committed)
        return cls(shards.create(without), len(shards.sizes) - len(without))

    def __len__(self) -> int:
        return len(self._first) + self._count + len(self._last)

    def return_all(self, shards: Iterable[Shard]) -> None:
        """Put shards first, in their order."""
        self._first.extendleft(reversed(list(shards)))

    def postpone(self, shard: Shard) -> None:
        """Put a shard last."""
        self._last.append(shard)

    def take(self, name: str | None = None) -> Shard | None:
        """Remove and return the next shard, or the one of a name that was taken before; None if there is none."""
        if name is not None:
            return self._take_named(name)
        if self._first:
            return self._first.popleft()
        if self._count:
            self._count -= 1
            return next(self._planned)
        return self._last.popleft() if self._last else None

    def take_all(self) -> Iterator[Shard]:
        """Remove and yield all shards."""
        while (shard := self.take()) is not None:
            yield shard

    def _take_named(self, name: str) -> Shard | None:
        for shards in (self._first, self._last):
            for shard in shards:
                if shard.name == name:
                    shards.remove(shard)
                    return shard
        return None
