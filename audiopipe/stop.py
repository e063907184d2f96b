"""A stop that a person asks for, by a signal, while a driver works."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Stop"]


class Stop:
    """Within this context a signal ends like Ctrl-C: what is under way is given up, what is committed stays.

    The interrupt is raised where the signal finds the program; Python drops it if that is a finaliser or a callback
    from C. So the request is kept too, for the driver to ask at each tick.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self.numbers = numbers
        self.before: dict[signal.Signals, Any] = {}
        self.asked = False

    def __enter__(self) -> Self:
        self.before = {number: signal.signal(number, self._ask) for number in self.numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raises: KeyboardInterrupt, if a stop was asked for."""
        if self.asked:
            raise KeyboardInterrupt
