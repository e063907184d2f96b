"""Time limits that count only while this process runs.

A process may be stopped (SIGSTOP, `docker pause`, a virtual machine that is moved), and what it waits for is then often
stopped too. When it continues, the time of a plain limit has passed, and a healthy decoder looks like one that hangs.
"""

from __future__ import annotations

import socket
import time

__all__ = ["RunningTimeLimit", "receive"]

SLICE_S = 1.0
# A process that waits for `SLICE_S` and looks at the clock this much later did not run in between.
MAX_DELAY_S = 4.0


class RunningTimeLimit:
    """A limit for a wait in short slices; it starts again if this process did not run during a slice."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._last = time.monotonic()
        self._end = self._last + timeout_s

    def next_slice_s(self) -> float:
        """Return how long to wait before the next call.

        Raises:
            TimeoutError: the time has passed.
        """
        now = time.monotonic()
        if now - self._last > SLICE_S + MAX_DELAY_S:
            self._end = now + self._timeout_s
        self._last = now
        if now >= self._end:
            raise TimeoutError(f"nothing came for {self._timeout_s:g} s")
        return min(SLICE_S, self._end - now)


def receive(source: socket.socket, size: int, limit: RunningTimeLimit) -> bytes:
    """Receive at most `size` bytes.

    Raises:
        TimeoutError: nothing came within the limit.
    """
    while True:
        source.settimeout(limit.next_slice_s())
        try:
            return source.recv(size)
        except TimeoutError:
            continue
