"""Check the size that a WAV file declares for its samples.

It has 32 bits. Recorders that write more than 4 GiB leave what remains modulo 2^32, and those that cannot seek back
leave 0, or the largest number. A decoder that believes it loses the rest of the file.
"""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["has_wrong_size"]

CHUNK = struct.Struct("<4sI")
RIFF_BYTES = 12  # "RIFF", its size, "WAVE"
MAX_CHUNKS = 1000


def has_wrong_size(path: Path, offset: int, size: int) -> bool:
    """Check whether the samples of a WAV file do not end where its header says.

    They do if the file ends there, or if more chunks follow. RF64 has a size of 64 bits, and is left alone.

    Args:
        offset, size: the byte range of the WAV file.
    """
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(4) != b"RIFF":
            return False
        position, has_data = RIFF_BYTES, False
        for _ in range(MAX_CHUNKS):
            if position + CHUNK.size > size:
                # Some writers pad the end of the file, none with as much as one sample of many channels.
                return False
            file.seek(offset + position)
            name, chunk_size = CHUNK.unpack(file.read(CHUNK.size))
            position += CHUNK.size + chunk_size + chunk_size % 2
            if has_data and not (name.isascii() and name.decode("ascii").isprintable() and position <= size + 1):
                return True
            if name == b"data":
                if position > size + 1:
                    return True
                has_data = True
    return False
