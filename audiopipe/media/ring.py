"""Send bytes from one process to another, in order, through a ring buffer in shared memory.

A pipe holds at most 1 MB, and an unprivileged user gets at most 64 pipes of that size on a machine: 16 workers with
four decoders each need all of them. A pipe also copies every byte twice, page by page, into pages that are newly
allocated each time.

Each side sends the number of bytes that it has written, or read, to the other side through a socket. The end of the
socket is the end of the bytes.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
from array import array
from contextlib import suppress

from audiopipe.media.running_time import RunningTimeLimit, receive

__all__ = ["RING_BYTES", "Reader", "Writer"]

RING_BYTES = 1 << 20
COUNT = struct.Struct("=I")
MAX_COUNT_BYTES = 1 << 12  # read from the socket in one call; a multiple of the size of a count


def _sum_counts(data: bytes) -> int:
    return sum(array("I", data))


class Reader:
    """The reading side, which creates the ring. It passes `descriptors` to the writing side."""

    def __init__(self, size: int = RING_BYTES) -> None:
        self._descriptor = os.memfd_create("audiopipe-ring")
        os.ftruncate(self._descriptor, size)
        self._memory = mmap.mmap(self._descriptor, size)
        self._view = memoryview(self._memory)
        self._socket, self._writer_socket = socket.socketpair()
        self._position = self._available = self._unreported = 0

    @property
    def descriptors(self) -> tuple[int, int]:
        """The file descriptors of the shared memory and of the writer's end of the socket."""
        return self._descriptor, self._writer_socket.fileno()

    def close_writer_end(self) -> None:
        """Close this process's copy of the writer's socket, so that the bytes end when the writer ends."""
        self._writer_socket.close()

    def read_into(self, target: memoryview, timeout_s: float) -> int:
        """Fill `target`, or as much of it as there are bytes left; return the number of bytes read.

        Raises:
            TimeoutError: the target was not filled in this time, in which this process ran.
        """
        limit = RunningTimeLimit(timeout_s)
        done = 0
        while done < len(target) and (self._available or self._wait(limit)):
            count = min(len(target) - done, self._available, len(self._view) - self._position)
            target[done : done + count] = self._view[self._position : self._position + count]
            done += count
            self._position = (self._position + count) % len(self._view)
            self._available -= count
            self._unreported += count
            # Report in large steps only: the writer reads its socket only when the ring is full, and a full socket
            # would block both sides.
            if self._unreported >= len(self._view) // 4:
                self._report()
        return done

    def _wait(self, limit: RunningTimeLimit) -> bool:
        """Wait for more bytes; return False at their end. A writer never waits for the part that is unreported."""
        counts = b""
        with suppress(ConnectionError):  # the writer ended without reading the last reports
            counts = receive(self._socket, MAX_COUNT_BYTES, limit)
        self._available += _sum_counts(counts)
        return bool(counts)

    def _report(self) -> None:
        """Send the number of bytes read since the last report."""
        with suppress(ConnectionError):
            self._socket.sendall(COUNT.pack(self._unreported))
        self._unreported = 0

    def close(self) -> None:
        """Release the memory and both ends of the socket."""
        self._view.release()
        self._memory.close()
        os.close(self._descriptor)
        self._writer_socket.close()
        self._socket.close()


class Writer:
    """The writing side, made from `Reader.descriptors` as they are numbered in this process."""

    def __init__(self, memory: int, notify: int) -> None:
        self._memory = mmap.mmap(memory, 0)
        self._socket = socket.socket(fileno=notify)
        self._free, self._position, self._unreported = len(self._memory), 0, 0

    def write(self, data: memoryview) -> int:
        """Write all of `data`, waiting for free space; return the number of bytes.

        The reader sees the last bytes after `flush` or `close`.

        Raises:
            BrokenPipeError: the reader is closed.
        """
        done = 0
        while done < len(data):
            if not self._free:
                self._wait()
            count = min(len(data) - done, self._free, len(self._memory) - self._position)
            self._memory[self._position : self._position + count] = data[done : done + count]
            done += count
            self._position = (self._position + count) % len(self._memory)
            self._free -= count
            self._unreported += count
            # Report in large steps: each one wakes a thread of the reader, which then waits for its interpreter.
            if self._unreported >= len(self._memory) // 4:
                self.flush()
        return done

    def flush(self) -> None:
        """Send the number of bytes written since the last report."""
        if self._unreported:
            self._socket.sendall(COUNT.pack(self._unreported))
        self._unreported = 0

    def _wait(self) -> None:
        """Wait until the reader has read more."""
        self.flush()
        counts = self._socket.recv(MAX_COUNT_BYTES)
        if not counts:
            raise BrokenPipeError("the reader of the ring is closed")
        self._free += _sum_counts(counts)

    def close(self) -> None:
        """End the bytes."""
        with suppress(ConnectionError):  # the reader is closed
            self.flush()
        self._memory.close()
        self._socket.close()
