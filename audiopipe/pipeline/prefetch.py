"""Run one stage ahead of the next, in order and within bounds.

All keep the order of their input whatever the timing, so that what a stage sees depends on the plan alone. All stop
what they started when the consumer stops early, and hand an exception on at the place where it arose.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

from audiopipe.pipeline.memory import MemoryBudget

__all__ = ["Prefetch", "interleave", "submit_ahead"]

T = TypeVar("T")
R = TypeVar("R")


class Prefetch(Generic[T]):
    """Iterate over `items` in a thread of its own, up to `limit` ahead of the consumer.

    Args:
        items: consumed by the thread alone, and closed by it if it is a generator.
        limit: how much may wait, in the units of `weight`; one item may always wait.
        weight: what an item counts for: 1, or its bytes.
        name: of the thread, for stack dumps.
        on_take: told how many items waited whenever one is asked for.
        budget: lends the waiting items' weight; an item of which nothing else waits is taken without asking it.
    """

    def __init__(
        self,
        items: Iterable[T],
        limit: float,
        weight: Callable[[T], float] = lambda item: 1,
        name: str = "prefetch",
        on_take: Callable[[int], None] = lambda depth: None,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._items = iter(items)
        self._budget = budget
        self._limit = limit
        self._weight = weight
        self._on_take = on_take
        self._waiting: deque[T] = deque()
        self._held = 0.0
        self._finished = False
        self._stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._produce, name=name, daemon=True)
        self._thread.start()

    def _produce(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                if not self._offer(item):
                    break
            if isinstance(self._items, Generator):
                self._items.close()
        except BaseException as caught:  # noqa: BLE001 - carried over to the consumer's thread, where it is raised
            error = caught
        with self._changed:
            self._error, self._finished = error, True
            self._changed.notify_all()

    def _offer(self, item: T) -> bool:
        """Wait for room and add the item; False once the consumer has gone."""
        weight = self._weight(item)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._waiting or self._held + weight <= self._limit)
        if self._budget is not None:
            self._budget.acquire(weight, lambda: self._stopped or not self._waiting)
        with self._changed:
            if self._stopped:
                self._give_back(weight)
                return False
            self._waiting.append(item)
            self._held += weight
            self._changed.notify_all()
            return True

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            if not self._finished:
                self._on_take(len(self._waiting))
            self._changed.wait_for(lambda: self._waiting or self._finished)
            if self._waiting:
                item = self._waiting.popleft()
                weight = self._weight(item)
                self._held -= weight
                self._changed.notify_all()
                self._give_back(weight)
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread, drop what waits, and return when the thread has let go of its items."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            held, self._held = self._held, 0.0
            self._changed.notify_all()
        self._give_back(held)
        self._thread.join()

    def _give_back(self, weight: float) -> None:
        if self._budget is not None:
            self._budget.release(weight)


def submit_ahead(
    pool: Executor,
    function: Callable[[T], R],
    items: Iterable[T],
    ahead: int,
    limit: float = math.inf,
    weight: Callable[[T], float] = lambda item: 0,
) -> Generator[tuple[T, Future[R]], None, None]:
    """Start `function` in `pool` for items before their futures are asked for, in order.

    Futures and not results, so that the failure of one item is raised where that item is looked at.

    Args:
        ahead: how many may have been started and not asked for.
        limit: how much these may weigh together; one item may always be under way.
    """
    under_way: deque[tuple[T, Future[R]]] = deque()
    held = 0.0
    try:
        for item in items:
            while under_way and (len(under_way) > ahead or held + weight(item) > limit):
                held -= weight(under_way[0][0])
                yield under_way.popleft()
            under_way.append((item, pool.submit(function, item)))
            held += weight(item)
        while under_way:
            yield under_way.popleft()
    finally:
        for _, future in under_way:
            future.cancel()


def interleave(
    streams: Iterable[Generator[T, None, None]],
    cycle_length: int,
    block_length: int,
    threads: int,
    limit: float,
    weight: Callable[[T], float],
    on_take: Callable[[int], None] = lambda depth: None,
    budget: MemoryBudget | None = None,
) -> Generator[T, None, None]:
    """The items of all streams, from `lanes` of them in turn; where one ends, the next takes its lane.

    The order depends on the streams, `lanes` and `turn` alone, and not on how fast any of them comes.

    Args:
        turn: items taken from a lane before it is the next one's turn.
        threads: lanes that run ahead in a thread of their own; the others are read when it is their turn.
        limit: what a thread may be ahead, in the units of `weight`.
        on_take, budget: as in `Prefetch`, for all lanes that have a thread.
    """
    waiting = iter(streams)
    under_way: list[Prefetch[T] | Generator[T, None, None]] = []

    def enter(lane: int) -> None:
        for stream in itertools.islice(waiting, 1):
            ahead = Prefetch(stream, limit, weight, "decode", on_take, budget) if lane < threads else stream
            under_way.insert(lane, ahead)

    try:
        for lane in range(cycle_length):
            enter(lane)
        lane = 0
        while under_way:
            lane %= len(under_way)
            taken = 0
            for item in itertools.islice(under_way[lane], block_length):
                taken += 1
                yield item
            if taken == block_length:
                lane += 1
            else:
                under_way.pop(lane).close()
                enter(lane)
    finally:
        for left in under_way:
            left.close()
