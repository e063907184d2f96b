import errno
import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from audiopipe.errors import PermanentStoreError, StoreError
from audiopipe.store import retry
from audiopipe.store.objects import Store


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = str(tmp_path / "out") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    yield Store(url)
    if request.param == "memory":
        Store(url).remove("")


def test_only_one_of_many_concurrent_creates_succeeds(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    barrier = threading.Barrier(8)

    def race(number: int) -> bool:
        barrier.wait()
        return store.create("_commits/x.json", b"%d" % number * 1000)

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(race, range(8)))
    assert sum(created) == 1
    assert store.read("_commits/x.json") == b"%d" % created.index(True) * 1000


def test_create_does_not_replace_an_object(store: Store) -> None:
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"other")
    assert store.read("a/b") == b"first"


def test_a_repeated_create_of_the_same_bytes_succeeds(store: Store) -> None:
    assert store.create("a/b", b"data")
    assert store.create("a/b", b"data")


def test_an_object_is_written_uploaded_listed_and_removed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"uploaded")
    store.write("en/b.json", b"written")
    store.write("en/b.json", b"replaced")
    store.upload(tmp_path / "file", "en/a.tar")
    assert store.list("en") == {"en/a.tar": 8, "en/b.json": 8}
    assert store.read_all(["en/a.tar", "en/b.json"]) == {"en/a.tar": b"uploaded", "en/b.json": b"replaced"}
    assert store.size("en/c") is None
    store.remove_all(["en/a.tar"])
    assert store.list() == {"en/b.json": 8}
    store.remove("en")
    assert store.list() == {}
    store.remove("en")


def test_reading_a_missing_object_fails_at_once(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("nothing")
    assert store.list("nothing") == {}


def test_publishing_replaces_an_object_and_may_be_repeated(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    store.write("en/x", b"stale")
    store.upload(tmp_path / "file", "_parts/p/x")
    store.publish("_parts/p/x", "en/x", 5)
    store.remove("_parts/p")
    store.publish("_parts/p/x", "en/x", 5)
    assert store.read("en/x") == b"12345"


def test_publishing_fails_without_part_and_object(store: Store) -> None:
    store.write("en/x", b"123")
    with pytest.raises(FileNotFoundError):
        store.publish("_parts/p/x", "en/x", 5)


def test_many_threads_can_publish_the_same_part(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    (tmp_path / "file").write_bytes(bytes(100_000))
    store.upload(tmp_path / "file", "_parts/p/x")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.publish("_parts/p/x", "en/x", 100_000), range(32)))
    assert store.size("en/x") == 100_000


def test_a_reader_never_sees_half_an_object(tmp_path: Path) -> None:
    store, big, small = Store(str(tmp_path)), b"b" * 5_000_000, b"s" * 5_000_000
    store.write("x", small)
    observed = set()
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(lambda: [store.write("x", data) for data in (big, small) * 10])
        while not writer.done():
            observed.add((len(data := store.read("x")), data[:1], data[-1:]))
        writer.result()
    assert observed <= {(len(big), b"b", b"b"), (len(small), b"s", b"s")}


def test_a_failed_write_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(PermanentStoreError, match="No space left on device; make room"):
        store.write("en/x", b"data")
    assert store.list() == {}


def test_temporary_errors_are_retried_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "WAIT_S", 0.001)
    calls = []

    def fail(error: Exception, times: int) -> str:
        calls.append(error)
        if len(calls) <= times:
            raise error
        return "done"

    assert retry.with_retries("reading x", lambda: fail(ConnectionResetError("reset"), 3)) == "done"
    calls.clear()
    with pytest.raises(StoreError, match="reading x: ConnectionResetError: reset"):
        retry.with_retries("reading x", lambda: fail(ConnectionResetError("reset"), 99))
    assert len(calls) == retry.ATTEMPTS
    for error, raised in [
        (FileNotFoundError("x"), FileNotFoundError),
        (PermissionError(errno.EACCES, "denied"), PermanentStoreError),
        (OSError(errno.EROFS, "Read-only file system"), PermanentStoreError),
    ]:
        calls.clear()
        with pytest.raises(raised):
            retry.with_retries("writing x", lambda error=error: fail(error, 99))  # type: ignore[misc]
        assert len(calls) == 1


@pytest.mark.parametrize(
    ("code", "error", "expected", "message"),
    [
        ("NoSuchBucket", FileNotFoundError("no bucket"), PermanentStoreError, "the bucket does not exist"),
        ("SignatureDoesNotMatch", PermissionError("signature"), PermanentStoreError, "does not know these keys"),
        ("AccessDenied", PermissionError("denied"), PermanentStoreError, "not permitted"),
        ("PreconditionFailed", OSError(errno.EINVAL, "precondition"), FileExistsError, "exists already"),
        ("NoSuchUpload", FileNotFoundError("upload"), StoreError, "upload"),
        ("NoSuchKey", FileNotFoundError("key"), FileNotFoundError, "key"),
        ("InternalError", OSError(errno.EREMOTEIO, "oops"), StoreError, "oops"),
    ],
)
def test_error_codes_of_s3_are_distinguished(
    code: str, error: Exception, expected: type[Exception], message: str
) -> None:
    error.__cause__ = ClientError({"Error": {"Code": code, "Message": "m"}}, "PutObject")
    store_error = retry.to_store_error("writing s3://b/x", error)
    assert type(store_error) is expected
    assert message in str(store_error)


def test_a_store_shows_its_url_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-a-secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-of-a-key")
    store = Store("s3://bucket/prefix/")
    assert repr(store) == "Store('s3://bucket/prefix')"
    assert "canary" not in repr(store.__dict__)


def test_a_store_error_is_raised_once_and_is_not_its_own_cause(tmp_path: Path) -> None:
    (tmp_path / "en").write_text("a file where a folder must be")
    (tmp_path / "part").write_text("x")
    with pytest.raises(FileExistsError) as caught:
        Store(str(tmp_path)).publish("part", "en/audio.tar", 1)
    assert caught.value.__cause__ is None  # Dask follows the chain of causes to its end
