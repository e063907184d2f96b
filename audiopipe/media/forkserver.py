"""Decoders as processes, one for each file, forked from one that has FFmpeg's libraries loaded.

Python and the libraries take a tenth of a second of CPU to start, as much as two minutes of AAC take to decode. So a
worker starts them once, as a process that does nothing but fork (`python -m audiopipe.media.forkserver`), and each file
still has a process that nobody else is harmed by.

Worker and forker talk over sockets that keep messages whole. A request carries descriptors: the two of the ring that
the samples come through (`ring.py`), a file for what the decoder complains of, and its *life*, a socket. The forker
tells of the end over the life; a worker that closes its side has the decoder killed. When the worker dies the forker
ends, and its decoders with it.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, NoReturn

import av

# And nothing else of the package: what is loaded here every fork has, the threads of numerical libraries not excepted.
from audiopipe.media import ffmpeg_worker as decoder
from audiopipe.media.ring import Reader, Writer

__all__ = ["Decoder", "ExitStatus", "started"]

JOBS: dict[str, Callable[[Any, Writer], None]] = {"header": decoder.read_header, "decode": decoder.decode}
MEMORY_BYTES = 4 << 30
COMPLAINTS_BYTES = 1 << 20  # a file may be made so that there is no end of them
LONGEST_REQUEST, LONGEST_ANSWER = 1 << 16, 1 << 8
STARTED_WITHIN_S, KILLED_WITHIN_S = 60.0, 10.0
PR_SET_PDEATHSIG = 1


class ExitStatus(NamedTuple):
    """How a decoder ended: its exit status, or minus the signal; the CPU it took; and what it complained of, if at all.

    The code is None where nobody knows, because the forker was killed or did not answer.
    """

    code: int | None
    cpu_s: float
    complaints: str


@dataclass
class Decoder:
    """A decoder at work."""

    samples: Reader
    complaints: IO[bytes]
    life: socket.socket
    how: ExitStatus | None = None

    def end(self, timeout_s: float) -> ExitStatus:
        """Wait for it.

        Raises:
            TimeoutError: it goes on.
        """
        if self.how is None:
            self.life.settimeout(timeout_s)
            try:
                answer = self.life.recv(LONGEST_ANSWER)
            except ConnectionError:
                answer = b""
            code, cpu_s = json.loads(answer) if answer else (None, 0.0)
            self.complaints.seek(0)
            self.how = ExitStatus(code, cpu_s, self.complaints.read().decode(errors="replace"))
        return self.how

    def kill(self) -> ExitStatus:
        """Have it killed if it is there."""
        with suppress(OSError):  # the forker is gone, and with it the decoder
            self.life.shutdown(socket.SHUT_WR)
        try:
            return self.end(KILLED_WITHIN_S)
        except TimeoutError:  # it is the forker that does not answer
            _FORKER.close()
            self.how = ExitStatus(None, 0.0, "")
            return self.how


@contextmanager
def started(job: str, request: decoder.OpenRequest) -> Generator[Decoder, None, None]:
    """A decoder at one of the `JOBS`, with what that is asked; it does not outlive the context.

    Raises:
        ChildProcessError: none can be had.
    """
    life, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(Reader()) as samples, life, theirs, tempfile.TemporaryFile() as complaints:
        _FORKER.ask(json.dumps((job, request)).encode(), [*samples.descriptors, complaints.fileno(), theirs.fileno()])
        samples.close_writer_end()
        theirs.close()
        one = Decoder(samples, complaints, life)
        try:
            yield one
        finally:
            one.kill()


class ForkServer:
    """The process that forks, as this one sees it. Started when it is first needed, and again if it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def ask(self, request: bytes, descriptors: list[int]) -> None:
        with self._lock:
            try:
                socket.send_fds(self._requests or self._start(), [request], descriptors)
            except ConnectionError:
                self._end()
                socket.send_fds(self._start(), [request], descriptors)

    def _start(self) -> socket.socket:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        try:
            self._requests.settimeout(STARTED_WITHIN_S)
            ready = self._requests.recv(LONGEST_ANSWER)
            self._requests.settimeout(None)
        except TimeoutError:
            ready = b""
        if not ready:
            self._end()
            raise ChildProcessError("the process that forks decoders could not be started: see what it said, above")
        return self._requests

    def _end(self) -> None:
        if self._requests is not None and self._process is not None:
            self._requests.close()
            self._process.kill()
            self._process.wait()
        self._requests = self._process = None

    def close(self) -> None:
        with self._lock:
            self._end()


_FORKER = ForkServer()
atexit.register(_FORKER.close)


# -- the forker


def _serve(requests: socket.socket) -> None:
    """Fork a decoder for each request, until whoever asks is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which tells what is to end
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    decoder.get_ready()
    gc.freeze()
    requests.send(b"ready")
    lives: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as ready:
        ready.register(requests, selectors.EVENT_READ)
        ready.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is requests:
                    request, descriptors, *_ = socket.recv_fds(requests, LONGEST_REQUEST, 4)
                    if not request:
                        return
                    if forked := _forked(request, *descriptors):
                        lives.update([forked])
                        ready.register(forked[1], selectors.EVENT_READ, forked[0])
                elif key.fileobj == woken:
                    os.read(woken, 1 << 12)
                    for process, answer in _dead(list(lives)):
                        life = lives.pop(process)
                        with suppress(KeyError):
                            ready.unregister(life)
                        with life, suppress(OSError):  # nobody may wait for it
                            life.send(answer)
                elif key.data in lives:
                    ready.unregister(key.fileobj)
                    os.kill(key.data, signal.SIGKILL)


def _dead(processes: list[int]) -> list[tuple[int, bytes]]:
    """Those that have ended, with what is said of it."""
    ended = []
    for process in processes:
        known, status, usage = os.wait4(process, os.WNOHANG)
        if known:
            told = (os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)
            ended.append((process, json.dumps(told).encode()))
    return ended


def _forked(request: bytes, memory: int, notify: int, stderr: int, control: int) -> tuple[int, socket.socket] | None:
    """The process and its life; None if the machine has no room for another: then the life ends at once."""
    forker = os.getpid()
    try:
        process = os.fork()
    except OSError:
        traceback.print_exc()
        process = -1
    if process == 0:
        job, asked = json.loads(request)
        _work(forker, job, asked, memory, notify, stderr)
    for descriptor in (memory, notify, stderr):
        os.close(descriptor)
    if process < 0:
        os.close(control)
        return None
    return process, socket.socket(fileno=control)


def _work(forker: int, job: str, request: Any, memory: int, notify: int, stderr: int) -> NoReturn:
    """What becomes of a fork."""
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
        if os.getppid() != forker:  # it died before it was said what to do then
            os._exit(code)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (COMPLAINTS_BYTES, COMPLAINTS_BYTES))
        JOBS[job](request, samples)
        code = 0
    except av.FFmpegError as error:
        os.write(2, str(error.strerror).encode())
    except BaseException:  # noqa: BLE001 - whatever it is, the worker is told
        traceback.print_exc()
    finally:
        os._exit(code)


def main(descriptor: int) -> None:
    """Serve the worker at the other end of a socket."""
    with socket.socket(fileno=descriptor) as requests:
        _serve(requests)


if __name__ == "__main__":
    main(int(sys.argv[1]))
