"""Run one stage ahead of the next, in order and within bounds.

All keep the order of their input whatever the timing, so that what a stage sees depends on the plan alone. All stop
what they started when the consumer stops early, and hand an exception on at the place where it arose.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

__all__ = ["Prefetch", "chain_ahead", "submit_ahead"]

T = TypeVar("T")
R = TypeVar("R")


class Prefetch(Generic[T]):
    """Iterate over `items` in a thread of its own, up to `limit` ahead of the consumer.

    Args:
        items: consumed by the thread alone, and closed by it if it is a generator.
        limit: how much may wait, in the units of `weight`; one item may always wait.
        weight: what an item counts for: 1, or its bytes.
        name: of the thread, for stack dumps.
    """

    def __init__(
        self, items: Iterable[T], limit: int, weight: Callable[[T], int] = lambda item: 1, name: str = "prefetch"
    ) -> None:
        self._items = iter(items)
        self._limit = limit
        self._weight = weight
        self._waiting: deque[T] = deque()
        self._held = 0
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
            if self._stopped:
                return False
            self._waiting.append(item)
            self._held += weight
            self._changed.notify_all()
            return True

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finished)
            if self._waiting:
                item = self._waiting.popleft()
                self._held -= self._weight(item)
                self._changed.notify_all()
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
            self._held = 0
            self._changed.notify_all()
        self._thread.join()


def submit_ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Generator[tuple[T, Future[R]], None, None]:
    """Start `function` in `pool` for up to `ahead` items before their futures are asked for, in order.

    Futures and not results, so that the failure of one item is raised where that item is looked at.
    """
    under_way: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            under_way.append((item, pool.submit(function, item)))
            if len(under_way) > ahead:
                yield under_way.popleft()
        while under_way:
            yield under_way.popleft()
    finally:
        for _, future in under_way:
            future.cancel()


def chain_ahead(
    streams: Iterable[Iterable[T]], at_once: int, limit: int, weight: Callable[[T], int]
) -> Generator[T, None, None]:
    """The items of all streams, one stream after the other, while up to `at_once` streams are being produced.

    `limit` bounds what waits of each stream, as in `Prefetch`.
    """
    running: deque[Prefetch[T]] = deque()
    try:
        for stream in streams:
            running.append(Prefetch(stream, limit, weight, name="decode"))
            if len(running) == at_once:
                yield from running[0]
                running.popleft()
        while running:
            yield from running[0]
            running.popleft()
    finally:
        for stream in running:
            stream.close()
