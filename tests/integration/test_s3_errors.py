"""A misbehaving network before a real S3 server; wrong keys, missing and forbidden objects."""

# ruff: noqa: F811 - fixtures

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from output_factory import config, content, corpus, make_output
from s3_server import (
    BUCKET,
    S3Server,
    faulty_proxy,
    s3_server,  # noqa: F401 - a fixture
)
from s3_store import clear_caches, environment, s3, upload_corpus  # noqa: F401 - fixtures

from audiopipe.dataset.backup import backup
from audiopipe.dataset.describe import finalize
from audiopipe.dataset.run_record import open_run
from audiopipe.dataset.verify import verify
from audiopipe.errors import ForbiddenSource, MissingSource, PermanentStoreError, SourceUnavailable, StoreError
from audiopipe.media import fetch as source
from audiopipe.media.fetch import fetch
from audiopipe.media.places import SourcePlaces
from audiopipe.pipeline.shard import process_shard
from audiopipe.plan.plan import create_plan
from audiopipe.store import objects as store
from audiopipe.store import retry as store_errors
from audiopipe.store.objects import Store
from audiopipe.types import Video


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.slow
def test_a_run_through_a_misbehaving_network_gives_the_same_bytes(
    s3: Store,
    s3_server: S3Server,
    environment: Callable[[dict[str, str]], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    catalog = upload_corpus(corpus(tmp_path / "c", videos=8), s3)
    expected = content(make_output(config(catalog, f"{s3.url}/calm")).url)
    monkeypatch.setattr(source, "RANGE_BYTES", 30_000)  # several ranges a video
    with faulty_proxy(s3_server, 0.1, seed) as (endpoint, proxy):
        environment(s3_server.environment(endpoint))
        settings = config(catalog, f"{s3.url}/stormy")
        stormy = Store(settings.output)
        run_id = open_run(stormy, settings)
        for shard in create_plan(settings, stormy).shards():
            process_shard(shard, settings, run_id)
        backup(stormy)
        finalize(stormy)
        clear_caches()
    environment(s3_server.environment())
    assert proxy.requests > 100
    assert min(proxy.faults.values()) >= 1, proxy.faults
    assert content(f"{s3.url}/stormy") == expected
    assert verify(f"{s3.url}/stormy").findings == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "canary-secret"}, "does not know these keys|not permitted"),
        ({"AWS_ACCESS_KEY_ID": "canary-key"}, "does not know these keys|not permitted"),
    ],
)
def test_wrong_keys_are_a_clear_refusal_that_shows_none(
    s3: Store,
    s3_server: S3Server,
    environment: Callable[[dict[str, str]], None],
    tmp_path: Path,
    change: dict[str, str],
    message: str,
) -> None:
    s3.write("x.flac", b"123")
    environment(s3_server.environment() | change)
    other = Store(s3.url)
    for call in (
        lambda: other.create("a", b"1"),
        lambda: other.read("x.flac"),
        other.list,
        lambda: fetch(Video("v", "en", f"{s3.url}/x.flac"), tmp_path),
    ):
        with pytest.raises(PermanentStoreError, match=message) as caught:
            call()
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__cause__)
        assert "canary-secret" not in shown
        assert s3_server.secret not in shown


def test_a_missing_bucket_is_refused_a_missing_object_is_skipped(s3: Store, tmp_path: Path) -> None:
    s3.write("there", b"1")
    with pytest.raises(MissingSource, match="does not exist"):
        fetch(Video("v", "en", f"{s3.url}/nowhere.tar"), tmp_path)
    with pytest.raises(PermanentStoreError, match="the bucket does not exist"):
        fetch(Video("v", "en", "s3://no-such-bucket-here/x.tar"), tmp_path)
    with pytest.raises(MissingSource, match="folder"):
        fetch(Video("v", "en", s3.url), tmp_path)


def test_a_forbidden_bucket_is_refused_a_forbidden_object_skipped(
    s3: Store,
    s3_server: S3Server,
    environment: Callable[[dict[str, str]], None],
    tmp_path: Path,
) -> None:
    for name in ("private.flac", "public.flac"):
        s3.write(name, b"123")
    private, public = (Video("v", "en", f"{s3.url}/{name}.flac") for name in ("private", "public"))
    with faulty_proxy(s3_server, 0.0, forbidden=b"/private.flac") as (endpoint, _):
        environment(s3_server.environment(endpoint))
        with pytest.raises(ForbiddenSource, match=r"private\.flac, although its neighbors can be read"):
            fetch(private, tmp_path)
        fetch(public, tmp_path).close()
    with faulty_proxy(s3_server, 0.0, forbidden=b"list-type=2") as (endpoint, _):  # keys that may not list
        environment(s3_server.environment(endpoint))
        fetch(public, tmp_path).close()
        with pytest.raises(PermanentStoreError, match="not permitted"):
            Store(s3.url).list()
    for forbidden in (b".flac", f"/{BUCKET}".encode()):
        with faulty_proxy(s3_server, 0.0, forbidden=forbidden) as (endpoint, _):
            environment(s3_server.environment(endpoint))
            with pytest.raises(PermanentStoreError, match="not permitted"):
                fetch(private, tmp_path)


def test_a_missing_object_is_distinct_from_a_wrong_prefix(
    s3: Store,
    s3_server: S3Server,
    environment: Callable[[dict[str, str]], None],
) -> None:
    for name in ("en/a.tar", "en/b.tar", "b/b.tar", "deep/c/c.tar"):
        s3.write(name, b"123")
    reasons = []
    shards = (("en/a", "en/x"), ("en/x",), ("deep/x/x",), ("wrong/x",), ("y",), ("wrong/a", "wrong/b"))
    for *names, missing in shards:
        videos = [Video(name.rpartition("/")[2], "en", f"{s3.url}/{name}.tar") for name in (*names, missing)]
        places = SourcePlaces(videos, config("c", "o"))
        reasons.append(type(places.explain(videos[-1], MissingSource("missing"))).__name__)
    assert reasons == ["MissingSource"] * 3 + ["SourceUnavailable"] * 3
    video = Video("x", "en", f"{s3.url}/en/x.tar")
    with faulty_proxy(s3_server, 0.0, forbidden=b"list-type=2") as (endpoint, _):  # keys that may not list
        environment(s3_server.environment(endpoint))
        neighbor = Video("a", "en", f"{s3.url}/en/a.tar")
        kind = type(SourcePlaces([video, neighbor], config("c", "o")).explain(video, MissingSource("missing")))
        assert kind is MissingSource
        assert type(SourcePlaces([video], config("c", "o")).explain(video, MissingSource(""))) is SourceUnavailable


def test_an_endpoint_that_does_not_answer_is_transient(
    s3: Store,
    s3_server: S3Server,
    environment: Callable[[dict[str, str]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_errors, "ATTEMPTS", 2)
    monkeypatch.setattr(store, "REQUEST_ATTEMPTS", 1)
    environment(s3_server.environment("http://127.0.0.1:9"))
    with pytest.raises(StoreError, match="reading s3://"):
        Store(s3.url).read("x")
