"""Bytes from one process to another, in order, through memory that both have.

A pipe holds a megabyte at most, and of such a user without special rights gets 64 on a machine: 16 workers of four
decoders have no more than that. And what goes through a pipe is copied twice, page by page, into pages that are new
every time.

Each side tells the other over a socket how many bytes it has written, or read. Its end is the end of the bytes.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from array import array
from contextlib import suppress

__all__ = ["RING_BYTES", "Reader", "Writer"]

RING_BYTES = 1 << 20
COUNT = struct.Struct("=I")
COUNTS_AT_ONCE = 1 << 12  # bytes, of whole counts


def _counted(value: bytes) -> int:
    return sum(array("I", value))


class Reader:
    """The side that makes the ring. `descriptors` are for the other: its memory, and its end of the socket."""

    def __init__(self, size: int = RING_BYTES) -> None:
        self._descriptor = os.memfd_create("audiopipe-ring")
        os.ftruncate(self._descriptor, size)
        self._memory = mmap.mmap(self._descriptor, size)
        self._view = memoryview(self._memory)
        self._news, self._theirs = socket.socketpair()
        self._at = self._there = self._taken = 0

    @property
    def descriptors(self) -> tuple[int, int]:
        return self._descriptor, self._theirs.fileno()

    def close_writer_end(self) -> None:
        """The other side has its descriptors: once it ends, so do the bytes."""
        self._theirs.close()

    def read_into(self, target: memoryview, timeout_s: float) -> int:
        """Fill `target`, or as much of it as bytes are left; their number.

        Raises:
            TimeoutError: it was not filled in time.
        """
        deadline = time.monotonic() + timeout_s
        done = 0
        while done < len(target) and (self._there or self._wait(deadline)):
            count = min(len(target) - done, self._there, len(self._view) - self._at)
            target[done : done + count] = self._view[self._at : self._at + count]
            done += count
            self._at = (self._at + count) % len(self._view)
            self._there -= count
            self._taken += count
            # In large pieces alone: the writer listens only when it is out of room, and a full socket would block both.
            if self._taken >= len(self._view) // 4:
                self._give_back()
        return done

    def _wait(self, deadline: float) -> bool:
        """For more bytes; False if there will be none. A writer does not wait for the little not yet given back."""
        self._news.settimeout(max(deadline - time.monotonic(), 1e-3))
        told = b""
        with suppress(ConnectionError):  # what was given back is not read by one that has ended
            told = self._news.recv(COUNTS_AT_ONCE)
        self._there += _counted(told)
        return bool(told)

    def _give_back(self) -> None:
        with suppress(ConnectionError):
            self._news.sendall(COUNT.pack(self._taken))
        self._taken = 0

    def close(self) -> None:
        self._view.release()
        self._memory.close()
        os.close(self._descriptor)
        self._theirs.close()
        self._news.close()


class Writer:
    """The other side, from what `Reader.descriptors` become in its process."""

    def __init__(self, memory: int, notify: int) -> None:
        self._memory = mmap.mmap(memory, 0)
        self._news = socket.socket(fileno=notify)
        self._room, self._at = len(self._memory), 0

    def write(self, data: memoryview) -> int:
        """All of it, as soon as there is room; the number of bytes.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        done = 0
        while done < len(data):
            if not self._room:
                self._wait()
            count = min(len(data) - done, self._room, len(self._memory) - self._at)
            self._memory[self._at : self._at + count] = data[done : done + count]
            done += count
            self._at = (self._at + count) % len(self._memory)
            self._room -= count
            self._news.sendall(COUNT.pack(count))
        return done

    def _wait(self) -> None:
        told = self._news.recv(COUNTS_AT_ONCE)
        if not told:
            raise BrokenPipeError("nobody reads any more")
        self._room += _counted(told)

    def close(self) -> None:
        """There will be no more bytes."""
        self._memory.close()
        self._news.close()
