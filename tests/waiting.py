"""Wait in a test until a condition holds."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil


def wait_until(
    condition: Callable[[], object],
    message: str | Callable[[], str] = "",
    timeout_s: float = 120.0,
    poll_s: float = 0.01,
) -> None:
    """Return as soon as `condition()` is true; fail if it is not after `timeout_s`.

    Args:
        message: the message of the failure, or a function that returns it.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(
                f"timed out after {timeout_s:g} s: {message() if callable(message) else message or condition}"
            )
        time.sleep(poll_s)


def has_ended(process: psutil.Process | int) -> bool:
    """Check whether a process has ended; an orphan may stay a zombie in a container without an init process."""
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it was reaped between the two calls
        return True
