"""A real S3 server (SeaweedFS) on free ports of this machine, and a proxy before it that misbehaves on purpose.

The server checks signatures, `If-None-Match`, multipart uploads and ranges. Keys are made up for each start.
"""

from __future__ import annotations

import random
import secrets
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

WEED = Path(sys.executable).parent / "weed"
BUCKET = "probe"


def free_port() -> int:
    """A port that nobody listens on, and none 10,000 above it, where the server puts its gRPC."""
    while True:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = int(low.getsockname()[1])
            if port > 50_000:
                continue
            try:
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


class S3Server:
    """`weed mini` in a folder, which survives `kill` and `start`."""

    def __init__(self, folder: Path, ip: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        """`within` is what its command is started by, for an address that only another network namespace has."""
        self.folder, self.ip, self.within = folder, ip, within
        self.key, self.secret = "key" + secrets.token_hex(8), secrets.token_hex(20)
        self.ports = {name: free_port() for name in ("master", "volume", "filer", "s3", "admin")}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self.ip}:{self.ports['s3']}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What a client has to find in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL_S3": endpoint or self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        command = [
            *self.within,
            str(WEED),
            "mini",
            f"-dir={self.folder / 'data'}",
            f"-ip={self.ip}",
            f"-ip.bind={self.ip}",
        ]
        command += [f"-{name}.port={port}" for name, port in self.ports.items()]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"]
        command += ["-master.telemetry=false", f"-bucket={BUCKET}"]
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment(), cwd=self.folder)
        self._wait()

    def _wait(self) -> None:
        for _ in range(300):
            try:
                with urllib.request.urlopen(self.endpoint, timeout=1):
                    return
            except urllib.error.HTTPError as error:
                if error.code == 403:  # it asks for keys: it is up
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise TimeoutError(f"the S3 server did not answer; {self.folder / 'weed.log'} says why")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


class FaultyProxy:
    """Passes HTTP on to a server, and spoils a share of the requests, by a seeded die; the kinds of fault take turns.

    What has `forbidden` in its request line may not be read, as a store's policy would have it.
    A fault is one of: 500, 503, a reset before or after the server has done it, a slow body, a truncated body.
    """

    FAULTS = ("500", "503", "reset", "lost answer", "slow", "truncated")

    def __init__(self, port: int, share: float, seed: int, forbidden: bytes | None = None) -> None:
        self.port, self.share, self.dice, self.forbidden = port, share, random.Random(seed), forbidden
        self.lock = threading.Lock()
        self.requests = 0
        self.faults: dict[str, int] = dict.fromkeys(self.FAULTS, 0)

    def fault(self) -> str | None:
        with self.lock:
            self.requests += 1
            if self.dice.random() >= self.share:
                return None
            chosen = self.FAULTS[sum(self.faults.values()) % len(self.FAULTS)]
            self.faults[chosen] += 1
            return chosen


def _head(stream) -> bytes:
    """The head of an HTTP message with its blank line; nothing at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return b""
        head += line
    return head


def _body(stream, head: bytes) -> bytes:
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
        try:
            with socket.create_connection(("127.0.0.1", proxy.port)) as upstream, upstream.makefile("rb") as answers:
                while (head := _head(self.rfile)) and self._pass_on(proxy, self._request(head), upstream, answers):
                    pass
        except OSError:
            pass

    def _request(self, head: bytes) -> tuple[bytes, bytes]:
        if b"100-continue" in head.lower():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return head, _body(self.rfile, head)

    def _pass_on(self, proxy: FaultyProxy, request: tuple[bytes, bytes], upstream: socket.socket, answers) -> bool:
        fault = proxy.fault()
        if proxy.forbidden is not None and proxy.forbidden in request[0].split(b"\r\n", 1)[0]:
            fault = "403"
        if fault in ("403", "500", "503"):
            reason = {"403": "AccessDenied", "500": "InternalError", "503": "ServiceUnavailable"}[fault]
            body = f"<Error><Code>{reason}</Code><Message>injected</Message></Error>".encode()
            head = f"HTTP/1.1 {fault} Injected\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + (b"" if request[0].startswith(b"HEAD") else body))
            return True
        if fault == "reset":
            return False
        upstream.sendall(b"".join(request))
        head, body = self._answer(answers, request[0].startswith(b"HEAD"))
        if fault == "lost answer":
            return False
        if fault == "truncated" and body:
            self.wfile.write(head + body[: len(body) // 2])
            return False
        if fault == "slow":
            self.wfile.write(head)
            for start in range(0, len(body), max(1, len(body) // 4)):
                time.sleep(0.1)
                self.wfile.write(body[start : start + max(1, len(body) // 4)])
            return True
        self.wfile.write(head + body)
        return True

    @staticmethod
    def _answer(answers, is_head: bool) -> tuple[bytes, bytes]:
        while True:
            head = _head(answers)
            if not head:
                raise ConnectionResetError("the server hung up")
            code = int(head.split(b" ", 2)[1])
            if code != 100:
                return head, b"" if is_head or code in (204, 304) else _body(answers, head)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


@contextmanager
def faulty_proxy(
    server: S3Server, share: float = 0.1, seed: int = 0, forbidden: bytes | None = None
) -> Iterator[tuple[str, FaultyProxy]]:
    """The endpoint of a proxy before `server`, and the proxy, which counts what it did."""
    proxy = FaultyProxy(server.ports["s3"], share, seed, forbidden)
    with _Server(("127.0.0.1", 0), _Handler) as listener:
        listener.proxy = proxy  # type: ignore[attr-defined]
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}", proxy
        listener.shutdown()
        thread.join()
