"""Find a second file that was appended to a WAV or MP4 file: FFmpeg reads only the first, and says nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["find_appended"]

MAX_BOXES = 200_000  # twelve hours in fragments of a second have half of it
RIFF_HEADER = 12  # "RIFF", its size, "WAVE"


def find_appended(container: str, path: Path, offset: int, size: int) -> int | None:
    """Return the position of a second file within a file, None if there is none or if the format permits it.

    Args:
        container: FFmpeg's first name of the format.
        offset, size: the byte range of the file.
    """
    blocks = {"wav": _riff_chunks, "mov": _mp4_boxes}.get(container)
    if blocks is None:
        return None
    with path.open("rb") as file:
        has_first = False
        for position, name in blocks(file, offset, size):
            if name in (b"RIFF", b"RF64", b"ftyp"):
                if has_first:
                    return position
                has_first = True
    return None


def _riff_chunks(file: IO[bytes], offset: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the positions and the names of the chunks of a WAV file, with that of the file itself as the first."""
    yield 0, b"RIFF"
    position = RIFF_HEADER
    for _ in range(MAX_BOXES):
        file.seek(offset + position)
        header = file.read(8)
        if position + 8 > size or len(header) < 8:
            return
        name, length = struct.unpack("<4sI", header)
        yield position, name
        position += 8 + length + length % 2


def _mp4_boxes(file: IO[bytes], offset: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the positions and the names of the boxes of an MP4 file."""
    position = 0
    for _ in range(MAX_BOXES):
        file.seek(offset + position)
        header = file.read(16)
        if position + 8 > size or len(header) < 8:
            return
        length, name = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        yield position, name
        if length < 8:  # 0: the box reaches to the end of the file
            return
        position += length
