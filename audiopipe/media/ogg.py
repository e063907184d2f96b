"""Find the links of a chained Ogg file: complete Ogg files that follow each other, as recordings of radio streams have.

FFmpeg's demuxer reads a chain as one stream: it keeps the pre-skip of the first link for all of them and loses those
whose codec or rate differs. Decoded separately, each link has its own header, delay and clock.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

__all__ = ["find_links"]

CAPTURE = b"OggS"
HEADER = struct.Struct("<4sBBqIIIB")  # RFC 3533: pattern, version, type, granule, serial, sequence, CRC, segments
FIRST_PAGE = 2


def find_links(path: Path, offset: int, size: int) -> list[tuple[int, int]]:
    """Return the start and the end of each link of an Ogg file, as offsets in `path`.

    A link starts with first pages of its streams, which follow pages of another kind.

    Args:
        offset, size: the byte range of the Ogg file.
    """
    end = offset + size
    starts = [offset]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position, was_first = offset, True
        while 0 <= position <= end - HEADER.size:
            pattern, version, page_type, _, _, _, _, segments = HEADER.unpack_from(data, position)
            if pattern != CAPTURE or version != 0:
                position = data.find(CAPTURE, position + 1, end)
                continue
            is_first = bool(page_type & FIRST_PAGE)
            if is_first and not was_first:
                starts.append(position)
            was_first = is_first
            table = position + HEADER.size
            position = table + segments + sum(data[table : table + segments])
    return list(zip(starts, [*starts[1:], end], strict=True))
