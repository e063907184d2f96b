"""Forward requests to an S3 server through a proxy that fails a random share of them."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedIOBase

from audiopipe.bench.servers.s3 import S3Server

__all__ = ["FaultyProxy", "faulty_proxy"]


class FaultyProxy:
    """Counts and settings of a proxy that fails a random share of the requests; the kinds of fault take turns.

    `share` may be changed while it runs.

    A request whose first line contains `forbidden` gets a 403, as by a store's policy. A fault is one of: 500, 503, a
    reset before the server gets the request or after it has executed it, a slow body, a truncated body.
    """

    FAULTS = ("500", "503", "reset", "lost response", "slow", "truncated")

    def __init__(
        self, port: int, share: float, seed: int, forbidden: bytes | None = None, latency_s: float = 0.0
    ) -> None:
        self.port, self.share, self.rng, self.forbidden = port, share, random.Random(seed), forbidden
        self.latency_s = latency_s
        self.lock = threading.Lock()
        self.requests = 0
        self.faults: dict[str, int] = dict.fromkeys(self.FAULTS, 0)

    def next_fault(self) -> str | None:
        """Count a request and choose its fault, if it has one."""
        with self.lock:
            self.requests += 1
            if self.rng.random() >= self.share:
                return None
            chosen = self.FAULTS[sum(self.faults.values()) % len(self.FAULTS)]
            self.faults[chosen] += 1
            return chosen


def _read_head(stream: BufferedIOBase) -> bytes:
    """Read the head of an HTTP message with its blank line; empty at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return b""
        head += line
    return head


def _read_body(stream: BufferedIOBase, head: bytes) -> bytes:
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while True:
            size = stream.readline()
            chunk = stream.read(int(size.split(b";")[0], 16) + 2)
            body += size + chunk
            if len(chunk) == 2:
                return body
    return stream.read(int(fields.get(b"content-length", b"0")))


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", proxy.port)) as upstream,
            upstream.makefile("rb") as responses,
        ):
            while (head := _read_head(self.rfile)) and self._forward(
                proxy, self._read_request(head), upstream, responses
            ):
                pass

    def _read_request(self, head: bytes) -> tuple[bytes, bytes]:
        if b"100-continue" in head.lower():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return head, _read_body(self.rfile, head)

    def _forward(
        self, proxy: FaultyProxy, request: tuple[bytes, bytes], upstream: socket.socket, responses: BufferedIOBase
    ) -> bool:
        """Forward a request and its response, with a fault or without; return whether the connection stays open."""
        time.sleep(proxy.latency_s)  # the latency of a remote store
        fault = proxy.next_fault()
        if proxy.forbidden is not None and proxy.forbidden in request[0].split(b"\r\n", 1)[0]:
            fault = "403"
        if fault in ("403", "500", "503"):
            reason = {"403": "AccessDenied", "500": "InternalError", "503": "ServiceUnavailable"}[fault]
            body = f"<Error><Code>{reason}</Code><Message>injected</Message></Error>".encode()
            status = (
                f"HTTP/1.1 {fault} Injected\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            self.wfile.write(status.encode() + (b"" if request[0].startswith(b"HEAD") else body))
            return True
        if fault == "reset":
            return False
        upstream.sendall(b"".join(request))
        head, body = self._read_response(responses, request[0].startswith(b"HEAD"))
        if fault == "lost response":
            return False
        if fault == "truncated" and body:
            self.wfile.write(head + body[: len(body) // 2])
            return False
        if fault == "slow":
            self.wfile.write(head)
            for start in range(0, len(body), max(1, len(body) // 4)):
                time.sleep(0.1)  # the fault itself: a body that arrives in four parts
                self.wfile.write(body[start : start + max(1, len(body) // 4)])
            return True
        self.wfile.write(head + body)
        return True

    @staticmethod
    def _read_response(responses: BufferedIOBase, is_head: bool) -> tuple[bytes, bytes]:
        while True:
            head = _read_head(responses)
            if not head:
                raise ConnectionResetError("the server closed the connection")
            code = int(head.split(b" ", 2)[1])
            if code != 100:
                return head, b"" if is_head or code in (204, 304) else _read_body(responses, head)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


@contextmanager
def faulty_proxy(
    server: S3Server, share: float = 0.1, seed: int = 0, forbidden: bytes | None = None, latency_s: float = 0.0
) -> Iterator[tuple[str, FaultyProxy]]:
    """Start a proxy before `server`; yield its endpoint and the proxy with its counts.

    Args:
        latency_s: seconds that each request waits before it is forwarded.
    """
    proxy = FaultyProxy(server.ports["s3"], share, seed, forbidden, latency_s)
    with _Server(("127.0.0.1", 0), _Handler) as listener:
        listener.proxy = proxy  # type: ignore[attr-defined]
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}", proxy
        listener.shutdown()
        thread.join()
