"""Check that a store that cannot hold an output is found out before any work."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from s3fs import S3FileSystem

from audiopipe.errors import BrokenWorker, ConfigError, PermanentStoreError, StoreError
from audiopipe.store import objects, retry
from audiopipe.store.objects import Store
from audiopipe.store.output import check_output


class S3(ThreadingHTTPServer):
    """A store that speaks S3 without checking keys. A PUT with a condition is answered by `condition`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.condition = "kept"


class Handler(BaseHTTPRequestHandler):
    server: S3
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"x"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_conditional = self.headers.get("If-None-Match") == "*"
        if is_conditional and self.server.condition == "unknown":
            return self.answer(501, b"<Error><Code>NotImplemented</Code></Error>")
        if is_conditional and self.server.condition == "kept" and self.path in self.server.objects:
            return self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        if self.server.condition == "wrong time":
            return self.answer(403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>")
        self.server.objects[self.path] = body
        return self.answer(200)

    def do_GET(self) -> None:
        if "?" in self.path:  # a listing, or a deletion of several objects
            return self.answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        if self.path not in self.server.objects:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        return self.answer(200, self.server.objects[self.path])

    def do_HEAD(self) -> None:
        if self.server.condition in ("wrong time", "forbidden"):
            return self.answer(403)  # without a body, and so without a code
        return self.do_GET()

    def date_time_string(self, timestamp: float | None = None) -> str:
        ahead_s = 86_400 if self.server.condition == "wrong time" else 0
        return super().date_time_string(time.time() + ahead_s)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.objects.clear()
        self.answer(200, b"<DeleteResult></DeleteResult>")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    server = S3()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "canary-secret",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_address[1]}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, value in {"ATTEMPTS": 2, "WAIT_S": 0.01}.items():
        monkeypatch.setattr(retry, name, value)
    monkeypatch.setattr(objects, "REQUEST_ATTEMPTS", 1)
    S3FileSystem.clear_instance_cache()
    yield server
    S3FileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()


def test_a_store_with_conditional_writes_is_accepted_and_left_clean(s3: S3) -> None:
    check_output(Store("s3://bucket/out"))
    assert s3.objects == {}


@pytest.mark.parametrize(
    ("condition", "error", "message"),
    [
        ("ignored", PermanentStoreError, "ignores If-None-Match"),
        ("unknown", PermanentStoreError, "needs conditional writes .If-None-Match"),
        ("wrong time", BrokenWorker, "set its clock"),
    ],
)
def test_a_store_that_cannot_hold_commits_is_named(
    s3: S3, condition: str, error: type[Exception], message: str
) -> None:
    s3.condition = condition
    with pytest.raises(error, match=message) as caught:
        check_output(Store("s3://bucket/out"))
    assert "s3://bucket/out" in str(caught.value)
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]


def test_a_refusal_without_a_code_is_explained_by_the_clock(s3: S3) -> None:
    s3.condition = "wrong time"
    with pytest.raises(BrokenWorker, match="refuses the time of this machine"):
        Store("s3://bucket/out").size("name")
    s3.condition = "forbidden"
    with pytest.raises(PermanentStoreError, match="not permitted"):
        Store("s3://bucket/out").size("name")


def test_a_store_that_does_not_answer_may_be_tried_again(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9") as caught:
        check_output(Store("s3://bucket/out"))
    assert caught.value.exit_code == 4
    assert "canary-secret" not in str(caught.value)


def test_missing_keys_name_the_variables(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(PermanentStoreError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        check_output(Store("s3://bucket/out"))


@pytest.mark.parametrize("url", ["/proc/nope", "/dev/null/out", "http://127.0.0.1:9/out", "nope://bucket/out"])
def test_an_address_that_cannot_be_an_output_is_a_message(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "ATTEMPTS", 1)
    with pytest.raises((PermanentStoreError, StoreError, ConfigError), match=url):
        check_output(Store(url))
