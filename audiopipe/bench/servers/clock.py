"""Give processes a wall clock that can be set while they run, as a bad time server does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from audiopipe.errors import ConfigError

__all__ = ["MovableClock"]

SOURCE = Path(__file__).with_name("clock.c")


class MovableClock:
    """The wall clock of the processes that are started with its environment; needs gcc.

    Raises:
        ConfigError: gcc is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("gcc") is None:
            raise ConfigError("a clock that can be set needs gcc: install it")
        self._jump, library = folder / "clock", folder / "clock.so"
        if not library.exists():
            subprocess.run(["gcc", "-shared", "-fPIC", str(SOURCE), "-o", str(library)], check=True)
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_JUMP": str(self._jump)}

    def set(self, seconds: int) -> None:
        """Set the clock so many seconds ahead of the true time."""
        self._jump.write_text(str(seconds))
