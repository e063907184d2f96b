"""A clock that a test sets, in place of the time of a module."""

from types import ModuleType, SimpleNamespace

import pytest


class Clock:
    """The monotonic time of a module."""

    now = 1000.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
