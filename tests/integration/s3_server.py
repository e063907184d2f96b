"""Start a real S3 server (SeaweedFS) on free ports of this machine, and a proxy before it that injects faults.

The server checks signatures, `If-None-Match`, multipart uploads and ranges. Each start has random keys.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import botocore.config
import botocore.exceptions
import botocore.session
import pytest
from waiting import wait_until

from audiopipe.media.access import clear_cache

WEED = Path(sys.executable).parent / "weed"
BUCKET = "probe"


def free_port() -> int:
    """Return a free port for which the port 10,000 above it, which the server uses for gRPC, is free too."""
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
    """`weed mini` on a folder whose objects survive `kill` and `start`."""

    def __init__(self, folder: Path, ip: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        """Prepare a server.

        Args:
            prefix: the command that starts the server's command, such as `ip netns exec …`.
        """
        self.folder, self.ip, self.prefix = folder, ip, prefix
        self.key, self.secret = "key" + secrets.token_hex(8), secrets.token_hex(20)
        self.ports = {name: free_port() for name in ("master", "volume", "filer", "s3", "admin")}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self.ip}:{self.ports['s3']}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Return the environment variables of a client."""
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
            *self.prefix,
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
        wait_until(self._has_bucket, f"the S3 server has its bucket; see {self.folder / 'weed.log'}")

    def _has_bucket(self) -> bool:
        """Check whether the server answers and has made the bucket, which it does a little later."""
        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=10),
        )
        try:
            client.head_bucket(Bucket=BUCKET)
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
            return False
        return True

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


@pytest.fixture
def new_s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Start a server for one test, with its keys in the environment."""
    from s3fs import S3FileSystem

    server = S3Server(tmp_path)
    server.start()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    clear_cache()
    yield server
    S3FileSystem.clear_instance_cache()
    clear_cache()
    server.kill()


class FaultyProxy:
    """Counts and settings of a proxy that fails a random share of the requests; the kinds of fault take turns.

    A request whose first line contains `forbidden` gets a 403, as by a store's policy. A fault is one of: 500, 503, a
    reset before the server gets the request or after it has executed it, a slow body, a truncated body.
    """

    FAULTS = ("500", "503", "reset", "lost response", "slow", "truncated")

    def __init__(self, port: int, share: float, seed: int, forbidden: bytes | None = None) -> None:
        self.port, self.share, self.rng, self.forbidden = port, share, random.Random(seed), forbidden
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


def _read_head(stream) -> bytes:
    """Read the head of an HTTP message with its blank line; empty at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return b""
        head += line
    return head


def _read_body(stream, head: bytes) -> bytes:
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
            with socket.create_connection(("127.0.0.1", proxy.port)) as upstream, upstream.makefile("rb") as responses:
                while (head := _read_head(self.rfile)) and self._forward(
                    proxy, self._read_request(head), upstream, responses
                ):
                    pass
        except OSError:
            pass

    def _read_request(self, head: bytes) -> tuple[bytes, bytes]:
        if b"100-continue" in head.lower():
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return head, _read_body(self.rfile, head)

    def _forward(self, proxy: FaultyProxy, request: tuple[bytes, bytes], upstream: socket.socket, responses) -> bool:
        """Forward a request and its response, with a fault or without; return whether the connection stays open."""
        fault = proxy.next_fault()
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
        head, body = self._read_response(responses, request[0].startswith(b"HEAD"))
        if fault == "lost response":
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
    def _read_response(responses, is_head: bool) -> tuple[bytes, bytes]:
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
    server: S3Server, share: float = 0.1, seed: int = 0, forbidden: bytes | None = None
) -> Iterator[tuple[str, FaultyProxy]]:
    """Start a proxy before `server`; yield its endpoint and the proxy with its counts."""
    proxy = FaultyProxy(server.ports["s3"], share, seed, forbidden)
    with _Server(("127.0.0.1", 0), _Handler) as listener:
        listener.proxy = proxy  # type: ignore[attr-defined]
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}", proxy
        listener.shutdown()
        thread.join()
