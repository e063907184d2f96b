"""Read a shard's tar as a stream of blocks, with its sha256: memory holds one block and one member."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["HashingReader", "TarMember", "read_members"]


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of a tar, and the position of its data."""

    name: str
    data: bytes
    offset: int


class HashingReader:
    """A stream of blocks whose sha256 is computed while they are read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = memoryview(b"")
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, fewer at the end; all that is left if it is negative."""
        if 0 <= size <= len(self._block):  # the usual case, with one copy
            whole, self._block = bytes(self._block[:size]), self._block[size:]
            return whole
        parts: list[memoryview] = []
        missing = size
        while missing != 0 and (self._block or self._next_block()):
            part = self._block if size < 0 else self._block[:missing]
            self._block = self._block[len(part) :]
            parts.append(part)
            missing = missing if size < 0 else missing - len(part)
        return b"".join(parts)

    def _next_block(self) -> bool:
        block = next(self._blocks, b"")
        self._digest.update(block)
        self._block = memoryview(block)
        return bool(block)

    def finish(self) -> str:
        """Read the rest, and return the sha256 of all."""
        while self._next_block():
            pass
        return self._digest.hexdigest()


def read_members(reader: HashingReader) -> Iterator[TarMember]:
    """Yield the members of a tar as audiopipe writes it: plain USTAR headers, one block each.

    `tarfile` itself would copy each byte of a stream three times.
    """
    offset = 0
    while (header := reader.read(tarfile.BLOCKSIZE)).strip(b"\0"):
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        data = reader.read(info.size)
        offset += tarfile.BLOCKSIZE
        if not info.isreg() or len(data) < info.size:
            raise tarfile.ReadError(f"member {info.name} is not a whole file")
        yield TarMember(info.name, data, offset)
        padding = -info.size % tarfile.BLOCKSIZE
        reader.read(padding)
        offset += info.size + padding
