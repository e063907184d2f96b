"""Choose a free port, and wait until a server that was started there responds."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable

__all__ = ["free_port", "wait_for_server"]

GRPC_OFFSET = 10_000


def free_port(with_grpc: bool = False) -> int:
    """Return a free port of 127.0.0.1.

    Args:
        with_grpc: choose one for which the port 10,000 above, which SeaweedFS uses for gRPC, is free too.
    """
    while True:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = int(low.getsockname()[1])
            if not with_grpc:
                return port
            if port + GRPC_OFFSET > 60_000:
                continue
            try:
                high.bind(("127.0.0.1", port + GRPC_OFFSET))
            except OSError:
                continue
            return port


def wait_for_server(
    ready: Callable[[], bool], name: str, process: subprocess.Popen[bytes], limit_s: float = 120.0
) -> None:
    """Wait until a server responds; fail as soon as its process has ended.

    Raises:
        RuntimeError: it ended, or did not respond in time.
    """
    deadline = time.monotonic() + limit_s
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{name} did not start (exit code {process.poll()})")
        time.sleep(0.05)  # a server reports its readiness only when it is asked
