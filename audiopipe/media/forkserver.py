"""Fork a process for each file to decode, from a server process that has FFmpeg's libraries loaded.

Starting Python and loading the libraries takes a tenth of a second of CPU time, as much as decoding two minutes of AAC.
So a worker (`decoder_process.py`) starts them once, in a server process that does nothing but fork
(`python -m audiopipe.media.forkserver`), and each file still has a separate process whose crash harms no other file.
When the worker dies, the server ends, and its decoders with it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Iterable
from contextlib import closing, suppress
from enum import StrEnum
from typing import NoReturn

import av

# Import nothing else of the package: every fork inherits what is loaded here, including threads of numerical libraries.
from audiopipe.media.ffmpeg_worker import decode, preload_codecs, read_header
from audiopipe.media.messages import DecodeRequest, HeaderRequest
from audiopipe.media.ring import Writer
from audiopipe.media.sandbox import deny_network
from audiopipe.media.timeline import StreamError

__all__ = ["READY_WITHOUT_NETWORK", "Job", "main"]

MAX_MEMORY_BYTES = 4 << 30
MAX_STDERR_BYTES = 1 << 20  # a malicious file can cause endless warnings
MAX_REQUEST_BYTES = 1 << 17
PR_SET_PDEATHSIG = 1
READY, READY_WITHOUT_NETWORK = b"ready", b"ready without network"


class Job(StrEnum):
    """The work of a decoder process: to read a header, or to decode."""

    HEADER = "header"
    DECODE = "decode"


def main(descriptor: int) -> None:
    """Serve the worker at the other end of a socket."""
    with socket.socket(fileno=descriptor) as requests:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which decides which decoders end
        preload_codecs()
        gc.freeze()
        _serve(requests)


def _serve(requests: socket.socket) -> None:
    """Fork a decoder for each request, until the worker closes its end."""
    child_ended = _notify_of_child_exits()
    requests.send(READY_WITHOUT_NETWORK if deny_network() else READY)
    controls: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(child_ended, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is requests:
                    request, descriptors, *_ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 4)
                    if not request:
                        return
                    if forked := _fork_decoder(request, *descriptors):
                        pid, control = forked
                        controls[pid] = control
                        selector.register(control, selectors.EVENT_READ, pid)
                elif key.fileobj == child_ended:
                    os.read(child_ended, 1 << 12)
                    for pid, reply in _reap(list(controls)):
                        control = controls.pop(pid)
                        with suppress(KeyError):
                            selector.unregister(control)
                        with control, suppress(OSError):  # the worker may no longer wait for it
                            control.send(reply)
                elif key.data in controls:  # the worker has closed its side
                    selector.unregister(key.fileobj)
                    os.kill(key.data, signal.SIGKILL)


def _notify_of_child_exits() -> int:
    """Return a file descriptor that becomes readable when a child process ends."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return readable


def _reap(pids: Iterable[int]) -> list[tuple[int, bytes]]:
    """Collect the processes that have ended; return each with the reply for its worker: exit code and CPU time."""
    ended = []
    for pid in pids:
        ended_pid, status, usage = os.wait4(pid, os.WNOHANG)
        if ended_pid:
            reply = (os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)
            ended.append((pid, json.dumps(reply).encode()))
    return ended


def _fork_decoder(
    request: bytes, memory: int, notify: int, stderr: int, control: int
) -> tuple[int, socket.socket] | None:
    """Fork a decoder; return its process id and its control socket.

    Returns None if the machine has no room for another process; the control socket then closes at once.
    """
    server = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        traceback.print_exc()
        pid = -1
    if pid == 0:
        _run_decoder(server, request, memory, notify, stderr)
    for descriptor in (memory, notify, stderr):
        os.close(descriptor)
    if pid < 0:
        os.close(control)
        return None
    return pid, socket.socket(fileno=control)


def _run_decoder(server: int, request: bytes, memory: int, notify: int, stderr: int) -> NoReturn:
    """Do the job of the request within the fork, and exit."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.dup2(notify, 0)
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        samples = Writer(memory, 0)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:  # the server died before the signal was set
            os._exit(code)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_STDERR_BYTES, MAX_STDERR_BYTES))
        with closing(samples):
            _do_job(request, samples)
        code = 0
    except av.FFmpegError as error:
        os.write(2, str(error.strerror).encode())
    except StreamError as error:
        os.write(2, str(error).encode())
    except BaseException:  # noqa: BLE001 - every error is reported to the worker through stderr
        traceback.print_exc()
    finally:
        os._exit(code)


def _do_job(request: bytes, samples: Writer) -> None:
    job, fields = json.loads(request)
    if job == Job.HEADER:
        read_header(HeaderRequest(**fields), samples)
    else:
        report = decode(DecodeRequest(**fields), samples)
        os.write(2, report.to_json().encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
