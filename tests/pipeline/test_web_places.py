"""Check who is blamed for a source that cannot be read over HTTP: the video, or its host."""

import http.server
import threading

import pytest
from place_factory import refuses, run, videos_in

from audiopipe.errors import SourceUnavailable, UnreadableSource
from audiopipe.types import Video

pytestmark = pytest.mark.usefixtures("short_waits")


class Server(http.server.ThreadingHTTPServer):
    """Serves one body at every path, except where `faults` has a status or 'hang' for the path."""

    daemon_threads = True

    def __init__(self, body):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.faults, self.default, self.stopped = body, {}, None, threading.Event()

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        fault = self.server.faults.get(self.path, self.server.default)
        if fault == "hang":
            self.server.stopped.wait(30)
        body = b"" if fault else self.server.body
        if "Range" in self.headers and body:
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            body = body[first : last + 1]
        self.send_response(fault if isinstance(fault, int) else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8" if fault == "page" else "application/x-tar")
        if fault == "endless":
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()


@pytest.fixture
def server(tar):
    server = Server(tar)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.stopped.set()
    server.shutdown()
    server.server_close()


def urls(server, names):
    return [Video(name, "en", f"http://127.0.0.1:{server.server_address[1]}/v/{name}.tar") for name in names]


@pytest.mark.parametrize("status", [404, 410])
def test_only_404_and_410_mean_that_a_url_is_missing(server, tmp_path, status):
    server.faults["/v/b.tar"] = status
    assert run(tmp_path, urls(server, "abc")) == {"b": "MissingSource"}
    assert run(tmp_path, urls(server, "b"), index=1) == {"b": "MissingSource"}
    server.default = status
    with pytest.raises(SourceUnavailable, match=r"[23] of 3 videos of a shard are missing"):
        run(tmp_path, urls(server, "xyz"), index=2)


@pytest.mark.parametrize("fault", [500, 503, 429, 403, "hang", "page"])
def test_one_url_that_always_fails_is_isolated_at_last(server, tmp_path, fault):
    server.faults["/v/b.tar"] = fault
    videos = urls(server, "abc")
    if fault == 403:
        assert run(tmp_path, videos) == {"b": "ForbiddenSource"}
        return
    with pytest.raises(UnreadableSource, match=r"b\.tar cannot be read, although its neighbors can"):
        run(tmp_path, videos)
    assert run(tmp_path, videos, last_attempt=True) == {"b": "UnreadableSource"}


HOST_FAULTS = [(500, 3), (503, 1), (429, 3), ("hang", 1), ("refused", 1), ("refused", 3), ("page", 3)]


@pytest.mark.parametrize(("fault", "count"), HOST_FAULTS)
def test_a_host_that_fails_condemns_no_video(server, tmp_path, fault, count):
    server.default = fault
    if fault == "refused":
        server.shutdown()
        server.server_close()
    refuses(tmp_path, urls(server, "abc"[:count]), "no other object below http://127.0.0.1")


def test_a_server_that_gives_no_size_is_named(server, tmp_path):
    server.faults["/v/b.tar"] = "endless"
    assert run(tmp_path, urls(server, "abc")) == {"b": "InvalidSource"}


def test_an_unknown_host_condemns_no_video(tmp_path, tar):
    unknown = [Video(name, "en", f"http://host.invalid/{name}.tar") for name in "ab"]
    refuses(tmp_path, unknown, "http://host.invalid")
    mixed = [*videos_in(tmp_path / "videos", "cd", tar), *unknown]
    refuses(tmp_path, mixed, "http://host.invalid")
