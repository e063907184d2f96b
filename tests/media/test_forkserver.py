"""Decoders are forked and end when they should; the death of any process costs only its own work."""

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
from waiting import has_ended, wait_until

from audiopipe.errors import DecoderCrash
from audiopipe.media import decode, decoder_process, forkserver
from audiopipe.media.ring import Reader

# A worker that waits while its decoder is in the middle of a file.
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


def start_decoding(source, **parameters):
    """Return the blocks of a file after the first one."""
    blocks = decode.decode(source, decode.probe(source, config()), config(**parameters))
    next(blocks)
    return blocks


def fork_server():
    (decoder,) = list_decoders()
    return decoder.parent()


def count_samples(source):
    return sum(block.shape[-1] for block in decode.decode(source, decode.probe(source, config()), config()))


def test_one_process_forks_all_decoders_and_closes_descriptors(long_source):
    blocks = start_decoding(long_source)
    server = fork_server()
    blocks.close()
    wait_until(lambda: server.children() == [])
    open_before = server.num_fds(), psutil.Process().num_fds()
    for _ in range(10):
        blocks = start_decoding(long_source)
        assert fork_server() == server
        blocks.close()
    assert count_samples(long_source) == 60 * 48_000
    wait_until(lambda: (server.num_fds(), psutil.Process().num_fds()) == open_before)
    assert server.children() == []


def test_the_cpu_time_of_a_stopped_decoder_is_recorded(long_source):
    cpu_s = []
    media = decode.probe(long_source, config())
    list(decode.decode(long_source, media, config(), record_cpu_s=cpu_s.append))
    blocks = decode.decode(long_source, media, config(), record_cpu_s=cpu_s.append)
    next(blocks)
    blocks.close()
    assert len(cpu_s) == 2
    assert 0 < cpu_s[0] < 10
    assert 0 < cpu_s[1] < 10


def test_a_killed_fork_server_is_replaced_for_the_next_file(long_source):
    blocks = start_decoding(long_source)
    server, (decoder,) = fork_server(), list_decoders()
    server.kill()
    with pytest.raises(DecoderCrash, match="lost together with its fork server"):
        list(blocks)
    wait_until(lambda: has_ended(decoder))
    assert count_samples(long_source) == 60 * 48_000
    blocks = start_decoding(long_source)
    assert fork_server() != server
    blocks.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_unresponsive_fork_server_is_replaced_and_blames_no_video(long_source, monkeypatch, when):
    monkeypatch.setattr(decoder_process, "KILL_TIMEOUT_S", 0.5)
    media = decode.probe(long_source, config())
    blocks = start_decoding(long_source)
    server = fork_server()
    if when == "before":
        blocks.close()
        blocks = decode.decode(long_source, media, config(decode_timeout_s=1.0))
    server.suspend()
    started = time.monotonic()
    if when == "before":
        with pytest.raises(DecoderCrash, match="lost together with its fork server"):
            next(blocks)
    blocks.close()
    assert time.monotonic() - started < 30
    wait_until(lambda: has_ended(server) and list_decoders() == [])
    assert count_samples(long_source) == 60 * 48_000


def test_a_fork_server_that_hangs_at_a_header_blames_no_video(long_source, monkeypatch):
    monkeypatch.setattr(decoder_process, "KILL_TIMEOUT_S", 0.5)
    monkeypatch.setattr(decode, "PROBE_TIMEOUT_S", 1.0)
    start_decoding(long_source).close()
    server = decoder_process._FORK_SERVER._process
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(DecoderCrash, match="lost together with its fork server"):
        decode.probe(long_source, config())
    assert count_samples(long_source) == 60 * 48_000


def test_the_stderr_of_a_decoder_is_limited(long_source):
    blocks = start_decoding(long_source)
    (decoder,) = list_decoders()
    assert decoder.rlimit(psutil.RLIMIT_FSIZE) == (1 << 20, 1 << 20)
    blocks.close()


def test_the_death_of_the_worker_ends_server_and_decoder(long_source):
    command = [sys.executable, "-c", WORKER, str(long_source.path), os.path.dirname(os.path.dirname(__file__))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        processes = [psutil.Process(int(pid)) for pid in worker.stdout.readline().split()]
        assert len(processes) == 2
        worker.kill()
    wait_until(lambda: all(map(has_ended, processes)))


def test_decoders_ignore_ctrl_c(long_source):
    blocks = start_decoding(long_source)
    server, (decoder,) = fork_server(), list_decoders()
    for process in (server, decoder):
        process.send_signal(signal.SIGINT)
    assert sum(block.shape[-1] for block in blocks) == 57 * 48_000
    assert server.is_running()


def test_a_decoder_s_memory_is_limited(long_source):
    blocks = start_decoding(long_source)
    (decoder,) = list_decoders()
    assert decoder.rlimit(psutil.RLIMIT_AS) == (4 << 30, 4 << 30)
    blocks.close()


def test_a_fork_server_that_cannot_start_is_an_error(long_source, monkeypatch):
    decoder_process._FORK_SERVER.close()
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(ChildProcessError, match="could not be started"):
        count_samples(long_source)


def test_a_failed_fork_is_an_error_of_the_machine(monkeypatch, capfd):
    def fail():
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fail)
    open_before = psutil.Process().num_fds()
    control, server_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    assert forkserver._fork_decoder(b"{}", os.dup(1), os.dup(1), os.dup(1), server_control.detach()) is None
    with control, closing(Reader()) as samples:
        assert decoder_process.Decoder(samples, io.BytesIO(), control).wait(1.0).code is None
    assert psutil.Process().num_fds() == open_before
    assert "Resource temporarily unavailable" in capfd.readouterr().err
