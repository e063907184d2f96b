"""An HTTP server whose objects need a password or a signature, and a catalog with addresses that have these."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from factories import wav_video
from output_factory import SEGMENTS

# As plain and as percent-encoded text.
CANARY = "canary7f3a9c51/+secret"
FORMS = (CANARY.encode(), quote(CANARY, safe="").encode(), base64.b64encode(b"key:" + CANARY.encode()))


@contextmanager
def private_server(folder: Path) -> Iterator[str]:
    """Serve the files of a folder by ranges to requests with the canary; yield host and port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.respond(with_body=False)

        def do_GET(self) -> None:
            self.respond(with_body=True)

        def respond(self, with_body: bool) -> None:
            url = urlsplit(self.path)
            authorization = self.headers.get("Authorization", "").removeprefix("Basic ")
            password = base64.b64decode(authorization).decode().partition(":")[2]
            path = folder / unquote(url.path).lstrip("/")
            status, body = 200, b""
            given = (password, *parse_qs(url.query).get("X-Amz-Signature", []))
            if not any(value.startswith(CANARY) for value in given):
                status = 403
            elif "broken" in path.name:
                status = 500
            elif not path.is_file():
                status = 404
            else:
                body = path.read_bytes()
            size = len(body)
            if status == 200 and (value := self.headers.get("Range")):
                first, last = value.removeprefix("bytes=").split("-")
                status, body = 206, body[int(first) : int(last or size) + 1]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def private_catalog(folder: Path, host: str, secret: str = CANARY) -> Path:
    """Make videos for `private_server`, and a catalog: two that work, one missing, one that is not audio."""
    videos = folder / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    for name in ("password", "signed"):
        wav_video(videos, name, 2.0, json=b'{"segments": %s}' % str(SEGMENTS).replace("'", '"').encode())
    (videos / "noise.tar").write_bytes(b"this is not a tar" * 100)
    quoted = quote(secret, safe="")
    signature = f"?X-Amz-Algorithm=AWS4&X-Amz-Signature={quoted}&X-Amz-Expires=60"
    addresses = {
        "password": f"http://key:{quoted}@{host}/videos/password.tar",
        "signed": f"http://{host}/videos/signed.tar{signature}",
        "missing": f"http://{host}/videos/missing.tar{signature}",
        "noise": f"http://key:{quoted}@{host}/videos/noise.tar",
    }
    rows = {"youtube_id": list(addresses), "language": ["en"] * len(addresses), "r2_tar_key": list(addresses.values())}
    pq.write_table(pa.table(rows), folder / "catalog.parquet")
    return folder / "catalog.parquet"


def files_with_canary(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder that contain the canary in any form."""
    bodies = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert bodies, folder
    return {name: body for name, body in bodies.items() if any(form in body for form in FORMS)}
