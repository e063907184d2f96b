"""Check the size that a WAV file declares for its samples.

It has 32 bits. Recorders that write more than 4 GiB leave what remains modulo 2^32, and those that cannot seek back
leave 0 or nearly the largest number. A decoder that believes it loses the rest of the file, or misses what never was.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["SampleBytes", "read_sample_bytes"]

CHUNK = struct.Struct("<4sI")
RIFF_BYTES = 12  # "RIFF", its size, "WAVE"
MAX_CHUNKS = 1000
PLACEHOLDERS = (1 << 31, 1 << 32)  # writers that cannot seek back leave these, rounded down
PLACEHOLDER_ROUNDING = 1 << 16
MAX_TRAILER_BYTES = 4096  # bytes after the last chunk that are padding


@dataclass(frozen=True)
class SampleBytes:
    """The size of a WAV file's samples in bytes: as declared, None if that is wrong, and as there are in the file.

    `end` is an offset in the local file after which nothing is needed, None for the end of the file. FFmpeg takes what
    follows for a chunk, and with some sizes it never returns from reading the header.
    """

    declared: int | None
    available: int
    end: int | None = None


def read_sample_bytes(path: Path, offset: int, size: int) -> SampleBytes | None:
    """Compare the declared size of a WAV file's samples with the file; None if it has no samples, or 64-bit sizes.

    The declared size is wrong if it is a placeholder, or if neither the end of the file nor another chunk follows the
    samples. A file that is shorter than a plausible size is cut short.

    Args:
        offset, size: the byte range of the WAV file.
    """
    if not path.is_file():  # opening a pipe would wait for its writer
        return None
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(4) != b"RIFF":
            return None
        position, samples = RIFF_BYTES, None
        for _ in range(MAX_CHUNKS):
            if position + (MAX_TRAILER_BYTES if samples else CHUNK.size) > size:
                break
            file.seek(offset + position)
            name, chunk_size = CHUNK.unpack(file.read(CHUNK.size))
            start, position = position + CHUNK.size, position + CHUNK.size + chunk_size + chunk_size % 2
            if name == b"data" and samples is None:
                samples = SampleBytes(chunk_size, size - start)
                if _is_placeholder(chunk_size) and (position > size + 1 or chunk_size == 0):
                    return SampleBytes(None, size - start)
            elif samples and not (_is_chunk_name(name) and position <= size + 1):
                return SampleBytes(None, samples.available)
    return replace(samples, end=offset + position) if samples and position < size else samples


def _is_placeholder(size: int) -> bool:
    return size == 0 or any(0 < limit - size <= PLACEHOLDER_ROUNDING for limit in PLACEHOLDERS)


def _is_chunk_name(name: bytes) -> bool:
    return name.isascii() and name.decode("ascii").isprintable()
