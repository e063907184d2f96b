"""Wait in a test until something has happened."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], what: str = "", timeout_s: float = 10.0, poll_s: float = 0.002) -> None:
    """Return as soon as `condition()` is true; fail with `what` if it is not after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {timeout_s:g} s: {what or condition}"
        time.sleep(poll_s)
