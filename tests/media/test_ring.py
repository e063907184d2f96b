"""The ring keeps the order of bytes and loses none, and no side waits for one that has ended."""

import os
import random
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import psutil
import pytest

from audiopipe.media.ring import Reader, Writer

SIZE = 1 << 16
WRITER_SCRIPT = """
import sys
from audiopipe.media.ring import Writer
memory, notify, size = map(int, sys.argv[1:])
writer = Writer(memory, notify)
writer.write(memoryview(bytes(range(256)) * (size // 256)))
writer.close()
"""


@contextmanager
def ring(size=SIZE):
    with closing(Reader(size)) as reader:
        memory, notify = reader.descriptors
        writer = Writer(memory, os.dup(notify))
        reader.close_writer_end()
        with closing(writer):
            yield reader, writer


def read(reader, count, timeout_s=10.0):
    target = bytearray(count)
    return bytes(target[: reader.read_into(memoryview(target), timeout_s)])


def write_in_thread(writer, pieces):
    def write_pieces():
        with closing(writer):
            for piece in pieces:
                assert writer.write(memoryview(piece)) == len(piece)

    thread = threading.Thread(target=write_pieces)
    thread.start()
    return thread


@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_any_size_come_out_in_order_in_pieces_of_any_other(seed):
    rng = random.Random(seed)
    pieces = [rng.randbytes(rng.choice([0, 1, 7, 4096, SIZE - 1, SIZE, SIZE + 1, 5 * SIZE])) for _ in range(60)]
    received = []
    with ring() as (reader, writer):
        thread = write_in_thread(writer, pieces)
        while not received or received[-1]:
            received.append(read(reader, rng.choice([1, 100, 8192, SIZE, 3 * SIZE])))
        thread.join()
    assert b"".join(received) == b"".join(pieces)


def test_many_small_pieces_block_neither_side():
    with ring() as (reader, writer):
        thread = write_in_thread(writer, [b"ab"] * 20_000)
        assert b"".join(read(reader, 2) for _ in range(20_000)) == b"ab" * 20_000
        thread.join()


@contextmanager
def writing_process(reader, size):
    """Start a process that writes `size` bytes and ends."""
    command = [sys.executable, "-c", WRITER_SCRIPT, *map(str, reader.descriptors), str(size)]
    with subprocess.Popen(command, pass_fds=reader.descriptors) as process:
        reader.close_writer_end()
        try:
            yield process
        finally:
            process.kill()


def test_a_process_at_the_other_end():
    size = 3 << 20
    with closing(Reader()) as reader, writing_process(reader, size) as process:
        assert read(reader, size + 1) == bytes(range(256)) * (size // 256)
        assert process.wait() == 0


def test_data_of_a_killed_writer_is_read_before_the_end():
    expected = bytes(range(256)) * (4 * SIZE // 256)
    with closing(Reader(SIZE)) as reader, writing_process(reader, len(expected)) as process:
        received = read(reader, SIZE // 2)
        process.kill()
        process.wait()
        received += read(reader, 4 * SIZE)
        assert SIZE <= len(received) < len(expected)
        assert received == expected[: len(received)]
        assert read(reader, 1) == b""


def test_a_writer_waits_while_the_ring_is_full():
    with ring() as (reader, writer):
        thread = write_in_thread(writer, [bytes(SIZE), b"more"])
        thread.join(0.3)
        assert thread.is_alive()
        assert len(read(reader, SIZE)) == SIZE
        assert read(reader, 4) == b"more"
        thread.join(60)


def test_bytes_are_reported_in_large_steps_or_when_asked():
    with ring() as (reader, writer):
        writer.write(memoryview(b"abc"))
        with pytest.raises(TimeoutError):
            read(reader, 3, timeout_s=0.1)
        writer.flush()
        assert read(reader, 3) == b"abc"
        writer.write(memoryview(bytes(SIZE // 4)))
        assert len(read(reader, SIZE // 4)) == SIZE // 4


def test_a_reader_raises_at_its_timeout():
    with ring() as (reader, writer):
        writer.write(memoryview(b"abc"))
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            read(reader, 4, timeout_s=0.2)
        assert 0.1 < time.monotonic() - started < 60


def test_a_writer_notices_a_closed_reader():
    with ring() as (reader, writer):
        writer.write(memoryview(bytes(SIZE)))
        reader._socket.close()
        with pytest.raises(ConnectionError):
            writer.write(memoryview(b"x"))


def test_closing_releases_every_descriptor():
    open_before = psutil.Process().num_fds()
    for _ in range(5):
        with ring():
            pass
    assert psutil.Process().num_fds() == open_before
