"""Download from sources that stall, trickle, break off or send a wrong length, over a real socket."""

import http.server
import random
import threading
import time

import pytest
from waiting import wait_until

from audiopipe.errors import StoreError
from audiopipe.media import fetch as fetch_module
from audiopipe.media.fetch import fetch
from audiopipe.store import retry
from audiopipe.types import Video

RANGE = 50_000
SIZE = 6 * RANGE + 123
DATA = random.Random(0).randbytes(SIZE)


class Server(http.server.ThreadingHTTPServer):
    """Serves `DATA` by ranges. Each GET takes the next of `faults`, where None means no fault."""

    daemon_threads = True

    def __init__(self, faults):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.requests, self.sent, self.stopped = list(faults), [], 0, threading.Event()

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _head(self, length, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"tag"')
        self.end_headers()

    def do_HEAD(self):
        self._head(SIZE)

    def do_GET(self):
        server = self.server
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        body = DATA[first : last + 1]
        fault = server.faults.pop(0) if server.faults else None
        server.requests.append((first, fault))
        if fault == "503":
            return self._head(0, 503)
        if fault == "silent":
            server.stopped.wait(30)
            return None
        self._head(len(body), 206)
        if fault == "trickle":
            for byte in body:
                if server.stopped.wait(0.05):
                    break
                self._send(bytes([byte]))
        elif fault in ("stall", "reset", "truncated"):
            self._send(body[: len(body) // 2])
            if fault == "stall":
                server.stopped.wait(30)
        else:
            self._send(body)
        self.close_connection = fault is not None
        return None

    def _send(self, data):
        self.wfile.write(data)
        self.wfile.flush()
        self.server.sent += len(data)


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(fetch_module, "RANGE_BYTES", RANGE)
    monkeypatch.setattr(fetch_module, "RANGE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(retry, "MAX_WAIT_S", 0.2)
    servers = []

    def start(faults):
        server = Server(faults)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_address[1]}/a.flac"

    yield start
    for server in servers:
        server.stopped.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("fault", ["503", "silent", "stall", "trickle", "reset", "truncated"])
def test_a_failed_download_resumes_at_the_range_where_it_broke(serve, tmp_path, fault):
    server, uri = serve([None, None, fault, fault])
    source = fetch(Video("v", "en", uri), tmp_path)
    assert source.path.read_bytes() == DATA
    firsts = [first for first, _ in server.requests]
    assert [first for first, fault in server.requests if fault] == [2 * RANGE, 2 * RANGE]
    assert firsts == sorted(firsts), "no range that had arrived was requested again"
    assert server.sent <= SIZE + 2 * RANGE
    source.close()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_source_is_an_error_in_time_and_leaves_no_file(serve, tmp_path):
    server, uri = serve([None, *["silent"] * 50])
    started = time.monotonic()
    with pytest.raises(StoreError, match="fetching http"):
        fetch(Video("v", "en", uri), tmp_path)
    assert time.monotonic() - started < 30
    assert len(server.requests) == 1 + retry.ATTEMPTS
    assert list(tmp_path.iterdir()) == []


def test_other_downloads_continue_while_one_stalls(serve, tmp_path):
    slow, slow_uri = serve([None, "stall"])
    _, uri = serve([])
    sources = []
    thread = threading.Thread(target=lambda: sources.append(fetch(Video("v", "en", slow_uri), tmp_path)))
    thread.start()
    wait_until(lambda: len(slow.requests) >= 2, "the second range is requested")
    assert fetch(Video("w", "en", uri), tmp_path).path.read_bytes() == DATA
    thread.join(60)
    assert sources[0].path.read_bytes() == DATA
