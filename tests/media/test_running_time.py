import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from clock import Clock
from waiting import wait_until

from audiopipe.media import running_time
from audiopipe.media.running_time import MAX_DELAY_S, SLICE_S, RunningTimeLimit, receive


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, running_time)


def test_a_limit_ends_after_its_time_in_short_slices(clock: Clock) -> None:
    limit = RunningTimeLimit(2.5)
    for expected in (SLICE_S, SLICE_S, 0.5):
        assert limit.next_slice_s() == expected
        clock.now += expected
    with pytest.raises(TimeoutError, match=r"nothing came for 2\.5 s"):
        limit.next_slice_s()


def test_a_pause_of_the_process_starts_the_limit_again(clock: Clock) -> None:
    limit = RunningTimeLimit(30.0)
    for _ in range(3):
        clock.now += 3600.0
        assert limit.next_slice_s() == SLICE_S
    for _ in range(29):
        clock.now += SLICE_S
        assert limit.next_slice_s() == SLICE_S
    clock.now += SLICE_S
    with pytest.raises(TimeoutError):
        limit.next_slice_s()


def test_a_busy_machine_does_not_extend_the_limit(clock: Clock) -> None:
    limit = RunningTimeLimit(20.0)
    for _ in range(4):
        clock.now += SLICE_S + MAX_DELAY_S - 0.1
        limit.next_slice_s()
    clock.now += SLICE_S
    with pytest.raises(TimeoutError):
        limit.next_slice_s()


def test_bytes_and_the_end_of_a_socket_are_received_in_time() -> None:
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(TimeoutError):
            receive(near, 10, RunningTimeLimit(0.05))
        far.send(b"some")
        assert receive(near, 10, RunningTimeLimit(5.0)) == b"some"
        far.close()
        assert receive(near, 10, RunningTimeLimit(5.0)) == b""


# Waits for a byte with a limit of 6 s, and is stopped meanwhile for longer.
WAITER = """
import socket, sys
from audiopipe.media.running_time import RunningTimeLimit, receive
source = socket.socket(fileno=int(sys.argv[1]))
print("waiting", flush=True)
print(receive(source, 1, RunningTimeLimit(6.0)))
"""


@pytest.mark.slow
def test_a_stopped_process_does_not_time_out_when_it_continues() -> None:
    source, sink = socket.socketpair()
    with source, sink:
        command = [sys.executable, "-P", "-c", WAITER, str(source.fileno())]
        with subprocess.Popen(command, pass_fds=[source.fileno()], stdout=subprocess.PIPE, text=True) as waiter:
            assert waiter.stdout is not None
            assert waiter.stdout.readline() == "waiting\n"
            os.kill(waiter.pid, signal.SIGSTOP)
            wait_until(lambda: psutil.Process(waiter.pid).status() == psutil.STATUS_STOPPED)
            stopped = running_time.time.monotonic()
            wait_until(lambda: running_time.time.monotonic() - stopped > 9.0, poll_s=0.5)
            os.kill(waiter.pid, signal.SIGCONT)
            sink.send(b"x")
            assert waiter.stdout.read() == "b'x'\n"
