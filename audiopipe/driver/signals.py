"""A stop that a person asks for, by a signal, while a driver works."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, ParamSpec, Self

__all__ = ["SignalGuard"]

P = ParamSpec("P")


class SignalGuard:
    """Within this context a signal ends like Ctrl-C: what is under way is given up, what is committed stays.

    The interrupt is raised where the signal finds the program; Python drops it if that is a finaliser or a callback
    from C. So the request is kept too, for the driver to ask at each tick.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self.numbers = numbers
        self.handlers: dict[signal.Signals, Any] = {}
        self.requested = False

    def __enter__(self) -> Self:
        self.handlers = {number: signal.signal(number, self._ask) for number in self.numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        raise KeyboardInterrupt

    def before(self, work: Callable[P, None]) -> Callable[P, None]:
        """The same work, but for a KeyboardInterrupt if a stop was asked for."""

        def checked(*arguments: P.args, **named: P.kwargs) -> None:
            if self.requested:
                raise KeyboardInterrupt
            work(*arguments, **named)

        return checked
