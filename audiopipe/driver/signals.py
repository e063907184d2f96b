"""Stop a driver by a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import ParamSpec, Self

__all__ = ["SignalGuard"]

P = ParamSpec("P")
Handler = Callable[[int, FrameType | None], object]


class SignalGuard:
    """A context in which the given signals act like Ctrl-C: running shards are canceled, commits stay.

    The handler raises KeyboardInterrupt wherever the program is; Python drops the exception inside a finalizer or a
    callback from C. So the request is also stored, and `before` checks it at each tick.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self.numbers = numbers
        self.handlers: dict[signal.Signals, Handler | int | None] = {}
        self.requested = False

    def __enter__(self) -> Self:
        self.handlers = {number: signal.signal(number, self._interrupt) for number in self.numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        raise KeyboardInterrupt

    def before(self, work: Callable[P, None]) -> Callable[P, None]:
        """Wrap a function so that it raises KeyboardInterrupt once a signal has arrived."""

        def checked(*arguments: P.args, **options: P.kwargs) -> None:
            if self.requested:
                raise KeyboardInterrupt
            work(*arguments, **options)

        return checked
