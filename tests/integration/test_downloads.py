"""Sources that stall, drip, break off or lie about their length, over a real socket."""

import http.server
import random
import threading
import time

import pytest

from audiopipe.errors import StoreError
from audiopipe.media import fetch as source
from audiopipe.media.fetch import fetch
from audiopipe.store import retry as store_errors
from audiopipe.types import Video

RANGE = 50_000
SIZE = 6 * RANGE + 123
DATA = random.Random(0).randbytes(SIZE)


class Server(http.server.ThreadingHTTPServer):
    """Serves `DATA` by ranges. `faults` are taken by the next GETs in turn; None is none."""

    daemon_threads = True

    def __init__(self, faults):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.asked, self.sent, self.over = list(faults), [], 0, threading.Event()

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
        server.asked.append((first, fault))
        if fault == "503":
            return self._head(0, 503)
        if fault == "silent":
            server.over.wait(30)
            return None
        self._head(len(body), 206)
        if fault == "drip":
            for byte in body:
                if server.over.wait(0.05):
                    break
                self._send(bytes([byte]))
        elif fault in ("stall", "reset", "truncated"):
            self._send(body[: len(body) // 2])
            if fault == "stall":
                server.over.wait(30)
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
    monkeypatch.setattr(source, "RANGE_BYTES", RANGE)
    monkeypatch.setattr(source, "RANGE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(store_errors, "MAX_WAIT_S", 0.2)
    servers = []

    def start(faults):
        server = Server(faults)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_address[1]}/a.flac"

    yield start
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("fault", ["503", "silent", "stall", "drip", "reset", "truncated"])
def test_a_failed_download_resumes_at_the_range_where_it_broke(serve, tmp_path, fault):
    server, uri = serve([None, None, fault, fault])
    with_it = fetch(Video("v", "en", uri), tmp_path)
    assert with_it.path.read_bytes() == DATA
    firsts = [first for first, _ in server.asked]
    assert [first for first, found in server.asked if found] == [2 * RANGE, 2 * RANGE]
    assert firsts == sorted(firsts), "nothing that had come was asked for again"
    assert server.sent <= SIZE + 2 * RANGE
    with_it.close()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_source_is_given_up_in_time_and_leaves_nothing(serve, tmp_path):
    server, uri = serve([None, *["silent"] * 50])
    started = time.monotonic()
    with pytest.raises(StoreError, match="fetching http"):
        fetch(Video("v", "en", uri), tmp_path)
    assert time.monotonic() - started < 30
    assert len(server.asked) == 1 + store_errors.ATTEMPTS
    assert list(tmp_path.iterdir()) == []


def test_other_downloads_go_on_while_one_stalls(serve, tmp_path):
    slow, slow_uri = serve([None, "stall"])
    _, uri = serve([])
    found = []
    thread = threading.Thread(target=lambda: found.append(fetch(Video("v", "en", slow_uri), tmp_path)))
    thread.start()
    while len(slow.asked) < 2:
        time.sleep(0.01)
    assert fetch(Video("w", "en", uri), tmp_path).path.read_bytes() == DATA
    thread.join(20)
    assert found[0].path.read_bytes() == DATA
