"""Decoders are forked, live as long as they are wanted, and nobody's death costs more than what it was at."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing

import psutil
import pytest
from factories import config, list_decoders, media_file, source_of, tones

from audiopipe.errors import DecoderCrash
from audiopipe.media import decode as media
from audiopipe.media import forkserver as decoder_forks
from audiopipe.media.ring import Reader

# A worker that stops with the decoder in the middle of a file.
WORKER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from factories import config, list_decoders, source_of
from audiopipe.media.decode import decode, probe
source = source_of(Path(sys.argv[1]))
blocks = decode(source, probe(source, config()), config())
next(blocks)
print(*[pid for decoder in list_decoders() for pid in (decoder.pid, decoder.ppid())], flush=True)
time.sleep(60)
"""


@pytest.fixture
def long_source(tmp_path):
    return source_of(media_file(tmp_path / "long.wav", tones(60.0, 48_000, 1), 48_000))


def begun(source, **parameters):
    """Blocks of a file, the first of which has come."""
    blocks = media.decode(source, media.probe(source, config()), config(**parameters))
    next(blocks)
    return blocks


def the_forker():
    (one,) = list_decoders()
    return one.parent()


def samples(source):
    return sum(block.shape[-1] for block in media.decode(source, media.probe(source, config()), config()))


def gone(process):
    """Nobody may be there to collect an orphan that has ended."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def until(happens, within_s=10.0):
    deadline = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_process_forks_all_decoders_and_closes_descriptors(long_source):
    with_one = begun(long_source)
    forker = the_forker()
    with_one.close()
    until(lambda: forker.children() == [])
    held = forker.num_fds(), psutil.Process().num_fds()
    for _ in range(10):
        blocks = begun(long_source)
        assert the_forker() == forker
        blocks.close()
    assert samples(long_source) == 60 * 48_000
    until(lambda: (forker.num_fds(), psutil.Process().num_fds()) == held)
    assert forker.children() == []


def test_the_cpu_time_of_a_stopped_decoder_is_recorded(long_source):
    told = []
    said = media.probe(long_source, config())
    list(media.decode(long_source, said, config(), used=told.append))
    whole = media.decode(long_source, said, config(), used=told.append)
    next(whole)
    whole.close()
    assert len(told) == 2
    assert 0 < told[0] < 10
    assert 0 < told[1] < 10


def test_a_killed_fork_server_is_replaced_for_the_next_file(long_source):
    blocks = begun(long_source)
    forker, (decoder,) = the_forker(), list_decoders()
    forker.kill()
    with pytest.raises(DecoderCrash, match="is lost with"):
        list(blocks)
    until(lambda: gone(decoder))
    assert samples(long_source) == 60 * 48_000
    again = begun(long_source)
    assert the_forker() != forker
    again.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_unresponsive_fork_server_is_replaced_and_blames_no_video(long_source, monkeypatch, when):
    monkeypatch.setattr(decoder_forks, "KILLED_WITHIN_S", 0.5)
    said = media.probe(long_source, config())
    blocks = begun(long_source)
    forker = the_forker()
    if when == "before":
        blocks.close()
        blocks = media.decode(long_source, said, config(decode_timeout_s=1.0))
    forker.suspend()
    started = time.monotonic()
    if when == "before":
        with pytest.raises(DecoderCrash, match="is lost with the process that forks them"):
            next(blocks)
    blocks.close()
    assert time.monotonic() - started < 5
    until(lambda: gone(forker) and list_decoders() == [])
    assert samples(long_source) == 60 * 48_000


def test_a_fork_server_that_hangs_at_a_header_blames_no_video(long_source, monkeypatch):
    monkeypatch.setattr(decoder_forks, "KILLED_WITHIN_S", 0.5)
    monkeypatch.setattr(media, "PROBE_TIMEOUT_S", 1.0)
    begun(long_source).close()
    forker = decoder_forks._FORKER._process
    os.kill(forker.pid, signal.SIGSTOP)
    with pytest.raises(DecoderCrash, match="is lost with the process that forks them"):
        media.probe(long_source, config())
    assert samples(long_source) == 60 * 48_000


def test_the_stderr_of_a_decoder_is_limited(long_source):
    blocks = begun(long_source)
    (decoder,) = list_decoders()
    assert decoder.rlimit(psutil.RLIMIT_FSIZE) == (1 << 20, 1 << 20)
    blocks.close()


def test_the_worker_s_death_ends_forker_and_decoder(long_source):
    command = [sys.executable, "-c", WORKER, str(long_source.path), os.path.dirname(os.path.dirname(__file__))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        both = [psutil.Process(int(pid)) for pid in worker.stdout.readline().split()]
        assert len(both) == 2
        worker.kill()
    until(lambda: all(map(gone, both)))


def test_ctrl_c_is_not_for_decoders(long_source):
    blocks = begun(long_source)
    forker, (decoder,) = the_forker(), list_decoders()
    for process in (forker, decoder):
        process.send_signal(signal.SIGINT)
    assert sum(block.shape[-1] for block in blocks) == 57 * 48_000
    assert forker.is_running()


def test_a_decoder_s_memory_is_limited(long_source):
    blocks = begun(long_source)
    (decoder,) = list_decoders()
    assert decoder.rlimit(psutil.RLIMIT_AS) == (4 << 30, 4 << 30)
    blocks.close()


def test_a_fork_server_that_cannot_start_is_an_error(long_source, monkeypatch):
    decoder_forks._FORKER.close()
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(ChildProcessError, match="could not be started"):
        samples(long_source)


def test_a_failed_fork_is_an_error_of_the_machine(monkeypatch, capfd):
    def full():
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", full)
    held = psutil.Process().num_fds()
    life, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    assert decoder_forks._forked(b"{}", os.dup(1), os.dup(1), os.dup(1), theirs.detach()) is None
    with life, closing(Reader()) as samples:
        assert decoder_forks.Decoder(samples, io.BytesIO(), life).end(1.0).code is None
    assert psutil.Process().num_fds() == held
    assert "Resource temporarily unavailable" in capfd.readouterr().err
