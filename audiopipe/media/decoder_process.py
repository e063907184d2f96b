"""Run each decoder in a separate process and collect its exit status.

A worker has one fork server (`forkserver.py`), which forks a process for each file. They communicate through sockets
that preserve message boundaries. A request carries four file descriptors: the two of the ring for the samples
(`ring.py`), a file for the decoder's stderr, and a *control* socket. The server sends the exit status through the
control socket; a worker that closes its side has the decoder killed.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import IO

from audiopipe.media import forkserver
from audiopipe.media.forkserver import READY_WITHOUT_NETWORK, Job
from audiopipe.media.messages import OpenRequest
from audiopipe.media.ring import Reader
from audiopipe.media.running_time import RunningTimeLimit, receive
from audiopipe.media.sandbox import decoder_environment

__all__ = ["Decoder", "ExitStatus", "decoders_have_network", "start_decoder"]

MAX_REPLY_BYTES = 1 << 8
START_TIMEOUT_S, KILL_TIMEOUT_S = 60.0, 10.0


@dataclass(frozen=True)
class ExitStatus:
    """The result of a decoder process: exit code, or minus the signal; CPU time; and its stderr.

    The code is None if it is unknown, because the fork server was killed or did not answer.
    """

    code: int | None
    cpu_s: float
    stderr: str


@dataclass
class Decoder:
    """A running decoder process."""

    samples: Reader
    stderr: IO[bytes]
    control: socket.socket
    status: ExitStatus | None = None

    def wait(self, timeout_s: float) -> ExitStatus:
        """Wait for the end of the process.

        Raises:
            TimeoutError: it is still running, after a time in which this process ran.
        """
        if self.status is None:
            try:
                reply = receive(self.control, MAX_REPLY_BYTES, RunningTimeLimit(timeout_s))
            except ConnectionError:
                reply = b""
            code, cpu_s = json.loads(reply) if reply else (None, 0.0)
            self.stderr.seek(0)
            self.status = ExitStatus(code, cpu_s, self.stderr.read().decode(errors="replace"))
        return self.status

    def kill(self) -> ExitStatus:
        """Have the process killed if it is still running, and return its exit status."""
        with suppress(OSError):  # the fork server has ended, and the decoder with it
            self.control.shutdown(socket.SHUT_WR)
        try:
            return self.wait(KILL_TIMEOUT_S)
        except TimeoutError:  # the fork server itself does not answer
            _FORK_SERVER.close()
            self.status = ExitStatus(None, 0.0, "")
            return self.status


@contextmanager
def start_decoder(job: Job, request: OpenRequest) -> Generator[Decoder, None, None]:
    """Start a decoder process; it is killed at the end of the context at the latest.

    Raises:
        ChildProcessError: the fork server cannot be started.
    """
    control, server_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # The decoder's messages are kept in memory: on a full disk a decoder that cannot report would look like one that
    # failed without a reason.
    messages = os.fdopen(os.memfd_create("audiopipe-stderr"), "r+b")
    with closing(Reader()) as samples, control, server_control, messages as stderr:
        descriptors = [*samples.descriptors, stderr.fileno(), server_control.fileno()]
        _FORK_SERVER.send(json.dumps((job, asdict(request))).encode(), descriptors)
        samples.close_writer_end()
        server_control.close()
        decoder = Decoder(samples, stderr, control)
        try:
            yield decoder
        finally:
            decoder.kill()


class ForkServer:
    """The worker's side of the fork server, which it starts for the first request, and again if it was killed.

    `has_network` is False while it runs with the filter of `sandbox.py`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self.has_network = True

    def send(self, request: bytes, descriptors: list[int]) -> None:
        """Send a request with its file descriptors.

        Raises:
            ChildProcessError: the fork server cannot be started.
        """
        with self._lock:
            try:
                socket.send_fds(self._requests or self._start(), [request], descriptors)
            except ConnectionError:
                self._stop()
                socket.send_fds(self._start(), [request], descriptors)

    def _start(self) -> socket.socket:
        self._requests, server_side = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with server_side:
            command = [sys.executable, "-m", forkserver.__name__, str(server_side.fileno())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[server_side.fileno()],
                env=decoder_environment(os.environ),
            )
        try:
            reply = receive(self._requests, MAX_REPLY_BYTES, RunningTimeLimit(START_TIMEOUT_S))
            is_ready, self.has_network = bool(reply), reply != READY_WITHOUT_NETWORK
            self._requests.settimeout(None)
        except TimeoutError:
            is_ready = False
        if not is_ready:
            self._stop()
            raise ChildProcessError("the fork server of the decoders could not be started: see its messages above")
        return self._requests

    def _stop(self) -> None:
        if self._requests is not None and self._process is not None:
            self._requests.close()
            self._process.kill()
            self._process.wait()
        self._requests = self._process = None

    def close(self) -> None:
        """Stop the fork server and all its decoders."""
        with self._lock:
            self._stop()


def decoders_have_network() -> bool:
    """Return whether the decoder processes of this worker could open a connection; True if none has started yet."""
    return _FORK_SERVER.has_network


_FORK_SERVER = ForkServer()
atexit.register(_FORK_SERVER.close)
