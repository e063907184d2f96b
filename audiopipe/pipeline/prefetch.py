"""Run one stage ahead of the next, in order and within bounds.

All functions here keep the order of their input whatever the timing, so that the input of a stage depends on the plan
alone. They stop what they started when the consumer stops early, and raise an exception at the item that caused it.
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

__all__ = ["Prefetcher", "interleave", "submit_ahead"]

T = TypeVar("T")
R = TypeVar("R")


class Prefetcher(Generic[T]):
    """Iterates over `items` in a separate thread, up to `limit` ahead of the consumer.

    Args:
        items: consumed by the thread alone, and closed by it if it is a generator.
        limit: the most that may wait, in the units of `weight`; one item may always wait.
        weight: function that returns the weight of an item: 1, or its bytes.
        name: of the thread, for stack dumps.
        on_take: called with the number of waiting items whenever one is taken.
        budget: the waiting items' weight is acquired from it; an item is not held back while no other waits.
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
        self._waiting_weight = 0.0
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
                if not self._put(item):
                    break
            if isinstance(self._items, Generator):
                self._items.close()
        except BaseException as caught:  # noqa: BLE001 - raised in the consumer's thread
            error = caught
        with self._changed:
            self._error, self._finished = error, True
            self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Wait until the item may be added, and add it; return False if the consumer has stopped."""
        weight = self._weight(item)
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or not self._waiting or self._waiting_weight + weight <= self._limit
            )
        if self._budget is not None:
            self._budget.acquire(weight, lambda: self._stopped or not self._waiting)
        with self._changed:
            if self._stopped:
                self._release(weight)
                return False
            self._waiting.append(item)
            self._waiting_weight += weight
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
                self._waiting_weight -= weight
                self._changed.notify_all()
                self._release(weight)
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread, discard the waiting items, and return when the thread has ended."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            discarded, self._waiting_weight = self._waiting_weight, 0.0
            self._changed.notify_all()
        self._release(discarded)
        self._thread.join()

    def _release(self, weight: float) -> None:
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
    """Start `function` in `pool` for items ahead of the consumer; yield items and futures in order.

    Yields futures and not results, so that the failure of an item is raised when the consumer uses this item.

    Args:
        ahead: how many may be started before the consumer takes them.
        limit: the most that these may weigh together; one item may always be started.
    """
    started: deque[tuple[T, Future[R]]] = deque()
    total_weight = 0.0
    try:
        for item in items:
            while started and (len(started) > ahead or total_weight + weight(item) > limit):
                total_weight -= weight(started[0][0])
                yield started.popleft()
            started.append((item, pool.submit(function, item)))
            total_weight += weight(item)
        while started:
            yield started.popleft()
    finally:
        for _, future in started:
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
    """Yield the items of all streams, taking turns among `cycle_length` of them; a new stream replaces a finished one.

    The order depends on the streams, `cycle_length` and `block_length` alone, and not on the streams' speed.

    Args:
        cycle_length: how many streams take turns.
        block_length: how many items are taken from a stream in its turn.
        threads: how many of these streams run ahead in separate threads; the others are read in their turn.
        limit: the most that such a thread may be ahead, in the units of `weight`.
        on_take, budget: as in `Prefetcher`, for all streams that have a thread.
    """
    remaining = iter(streams)
    active: list[Prefetcher[T] | Generator[T, None, None]] = []

    def start_next(position: int) -> None:
        for stream in itertools.islice(remaining, 1):
            in_thread = position < threads
            ahead = Prefetcher(stream, limit, weight, "decode", on_take, budget) if in_thread else stream
            active.insert(position, ahead)

    try:
        for position in range(cycle_length):
            start_next(position)
        position = 0
        while active:
            position %= len(active)
            taken = 0
            for item in itertools.islice(active[position], block_length):
                taken += 1
                yield item
            if taken == block_length:
                position += 1
            else:
                active.pop(position).close()
                start_next(position)
    finally:
        for stream in active:
            stream.close()
