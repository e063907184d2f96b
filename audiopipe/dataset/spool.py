"""Hold the encoded segments of a shard on scratch disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Spool", "SpoolRange"]


@dataclass(frozen=True, slots=True)
class SpoolRange:
    """A byte range of a spool."""

    offset: int
    size: int


class Spool:
    """Holds encoded segments on scratch disk until their video is complete and the next to be written to the tar.

    A clip of a rare length may wait for its batch until the end of the shard, and all later videos of the plan wait
    with it: too much for memory.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._end = 0

    def append(self, data: bytes) -> SpoolRange:
        """Store bytes and return where they are."""
        self._file.seek(self._end)
        self._file.write(data)
        stored = SpoolRange(self._end, len(data))
        self._end += len(data)
        return stored

    def read(self, stored: SpoolRange) -> bytes:
        """Read bytes back."""
        self._file.seek(stored.offset)
        return self._file.read(stored.size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
