import io
import os
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from factories import media_file, tones
from output_factory import config, content, corpus, make_output
from s3_server import BUCKET, S3Server, faulty_proxy, s3_server  # noqa: F401 - the fixture

from audiopipe.dataset.backup import backup
from audiopipe.dataset.commit import commit_shard, read_commit
from audiopipe.dataset.describe import finalize
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.run_record import open_run
from audiopipe.dataset.verify import verify
from audiopipe.errors import ForbiddenSource, MissingSource, PermanentStoreError, SourceUnavailable, StoreError
from audiopipe.media import access as source_access
from audiopipe.media import fetch as source
from audiopipe.media.fetch import fetch
from audiopipe.media.places import SourcePlaces
from audiopipe.pipeline.shard import process_shard
from audiopipe.plan.plan import create_plan
from audiopipe.store import objects as store
from audiopipe.store import retry as store_errors
from audiopipe.store.multipart import list_unfinished
from audiopipe.store.objects import Store
from audiopipe.types import Video


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """Yield a function that sets the AWS variables for the next store."""

    def set_to(variables: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        _forget()

    monkeypatch.setattr(store_errors, "WAIT_S", 0.01)
    yield set_to
    _forget()


def _forget() -> None:
    """Clear the cache of fsspec, which does not know the environment that a file system was made in."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    source_access.clear_cache()


@pytest.fixture
def s3(s3_server: S3Server, environment: Callable[[dict[str, str]], None]) -> Store:  # noqa: F811
    environment(s3_server.environment())
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}")


def test_objects_are_written_uploaded_published_listed_and_removed(s3: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    s3.upload(tmp_path / "file", "_parts/p/x")
    s3.publish("_parts/p/x", "en/x", 5)
    s3.publish("_parts/p/x", "en/x", 5)
    s3.write("en/y", b"123")
    s3.write("en/y", b"456")
    assert s3.list() == {"_parts/p/x": 5, "en/x": 5, "en/y": 3}
    assert s3.read_all(["en/x", "en/y"]) == {"en/x": b"12345", "en/y": b"456"}
    s3.remove("_parts")
    s3.publish("_parts/p/x", "en/x", 5)
    with pytest.raises(FileNotFoundError):
        s3.publish("_parts/p/z", "en/z", 5)
    with pytest.raises(FileNotFoundError):
        s3.read("en/z")
    s3.remove_all(["en/x", "en/never"])
    assert s3.list() == {"en/y": 3}


@pytest.mark.slow
def test_a_race_of_eight_creators_has_one_winner(s3: Store) -> None:
    barrier = threading.Barrier(8)

    def race(number: int) -> bool:
        barrier.wait()
        return s3.create("_commits/x.json", b"%d" % number * 500)

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(race, range(8)))
        assert sum(won) == 1
        assert s3.read("_commits/x.json") == b"%d" % won.index(True) * 500
        assert s3.create("_commits/x.json", b"%d" % won.index(True) * 500)
        s3.remove("_commits")


def test_a_large_tar_goes_up_in_parts_and_comes_down_in_ranges(s3: Store, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 110
    (tmp_path / "big.flac").write_bytes(data)
    s3.upload(tmp_path / "big.flac", "big.flac")
    assert s3.fs.info(s3.path("big.flac"))["ETag"].strip('"').endswith(("-2", "-3")), "one request, not several"
    source_file = fetch(Video("big", "en", f"{s3.url}/big.flac"), tmp_path)
    assert source_file.path.read_bytes() == data
    source_file.close()
    assert not source_file.path.exists()


def test_an_upload_that_raises_publishes_nothing(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "big").write_bytes(bytes(110 << 20))
    calls = []
    real = type(s3.fs)._call_s3

    async def breaking(self: object, method: str, *rest: object, **more: object) -> object:
        calls.append(method)
        if method == "upload_part" and calls.count("upload_part") > 1:
            raise PermissionError("the keys were withdrawn")
        return await real(self, method, *rest, **more)

    monkeypatch.setattr(type(s3.fs), "_call_s3", breaking)
    with pytest.raises(PermanentStoreError, match="not permitted"):
        s3.upload(tmp_path / "big", "en/audio_000000.tar")
    assert "abort_multipart_upload" in calls
    assert s3.list() == {}


def test_source_and_sink_on_s3_give_the_bytes_of_a_folder(s3: Store, tmp_path: Path) -> None:
    catalog = _upload_corpus(corpus(tmp_path / "c"), s3)
    out = make_output(config(catalog, f"{s3.url}/out"))
    assert verify(out.url).findings == ()
    local = content(make_output(config(catalog, tmp_path / "out")).url)
    assert content(out.url) == local
    assert collect_garbage(out.url, min_age_h=0).objects == {}


def _upload_corpus(catalog: Path, s3: Store) -> str:
    """Upload the corpus to the store; return the address of its catalog there."""
    for path in catalog.parent.rglob("*"):
        if path.is_file():
            s3.upload(path, f"corpus/{path.relative_to(catalog.parent)}")
    return f"{s3.url}/corpus/catalog.parquet"


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.slow
def test_a_run_through_a_misbehaving_network_gives_the_same_bytes(
    s3: Store,
    s3_server: S3Server,  # noqa: F811
    environment: Callable[[dict[str, str]], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    catalog = _upload_corpus(corpus(tmp_path / "c", videos=8), s3)
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
        _forget()
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
    s3_server: S3Server,  # noqa: F811
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
    with pytest.raises(PermanentStoreError, match="there is no such bucket"):
        fetch(Video("v", "en", "s3://no-such-bucket-here/x.tar"), tmp_path)
    with pytest.raises(MissingSource, match="folder"):
        fetch(Video("v", "en", s3.url), tmp_path)


def test_a_forbidden_bucket_is_refused_a_forbidden_object_skipped(
    s3: Store,
    s3_server: S3Server,  # noqa: F811
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
    s3_server: S3Server,  # noqa: F811
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


def test_unfinished_multipart_uploads_are_listed_and_aborted_by_gc(s3: Store, tmp_path: Path) -> None:
    out = make_output(config(corpus(tmp_path / "c", videos=1, missing=False), f"{s3.url}/out"))
    bucket, _, key = out.path("_parts/en-000000/lost/en/audio_000000.tar").partition("/")
    begun = s3.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    s3.fs.call_s3("upload_part", Bucket=bucket, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=bytes(5 << 20))
    elsewhere = s3.path("elsewhere").removeprefix(f"{bucket}/")
    other = s3.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=f"{elsewhere}/_parts/x")
    assert collect_garbage(out.url).uploads == {}  # young ones may be under way
    assert list(collect_garbage(out.url, min_age_h=0).uploads) == ["_parts/en-000000/lost/en/audio_000000.tar"]
    assert len(list_unfinished(out, "_parts")) == 1
    collect_garbage(out.url, remove=True, min_age_h=0)
    assert list_unfinished(out, "_parts") == []
    assert [upload.upload_id for upload in list_unfinished(Store(f"{s3.url}/elsewhere"), "_parts")] == [
        other["UploadId"]
    ]
    assert verify(out.url).findings == ()


def test_an_endpoint_that_does_not_answer_is_transient(
    s3: Store,
    s3_server: S3Server,  # noqa: F811
    environment: Callable[[dict[str, str]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_errors, "ATTEMPTS", 2)
    monkeypatch.setattr(store, "REQUEST_ATTEMPTS", 1)
    environment(s3_server.environment("http://127.0.0.1:9"))
    with pytest.raises(StoreError, match="reading s3://"):
        Store(s3.url).read("x")


def test_attempts_from_two_nodes_make_one_shard(s3: Store, tmp_path: Path) -> None:
    catalog = corpus(tmp_path / "c", videos=1, missing=False)
    settings = config(catalog, s3.url)
    run_id = open_run(s3, settings)
    (shard,) = create_plan(settings, s3).shards()
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda node: process_shard(shard, settings, run_id, f"node{node}"), range(3)))
    assert len({result.attempt for result in results}) == 1
    committed = read_commit(s3, shard.name)
    assert committed is not None
    assert commit_shard(s3, committed) == results[0]
    assert s3.list("_parts") == {}
    backup(s3)
    finalize(s3)
    assert verify(s3.url).findings == ()


def test_an_s3_filesystem_gets_no_keys(s3: Store) -> None:
    assert not (s3.fs.key)
    assert not (s3.fs.secret)
    assert not (s3.fs.token)
    assert isinstance(s3.fs, fsspec.AbstractFileSystem)


def test_captions_next_to_bare_audio_are_read_from_a_bucket(s3: Store, tmp_path: Path) -> None:
    """List, plan and read a folder of yt-dlp's files in a bucket."""
    audio = media_file(tmp_path / "a.wav", tones(3.0, 16_000, 1), 16_000).read_bytes()
    vtt = "WEBVTT\n\n00:00.500 --> 00:01.500\n{}\n"
    files = {
        "de/Title [abc].wav": audio,
        "de/Title [abc].de.vtt": vtt.format("eins").encode(),
        "de/Title [abc].en.vtt": vtt.format("one").encode(),
        "de/Title [abc].info.json": b'{"title": "Titel", "language": "de"}',
        "de/._Title [abc].de.vtt": b"\0\5\x16\7",
        "de/Other [xyz].wav": audio,
    }

    def rows(output: Store) -> dict[str, tuple[object, ...]]:
        make_output(config(f"{s3.url}/videos", output.url, language="all"))
        names = ("status", "captions", "title", "source_etag")
        table = pq.read_table(io.BytesIO(output.read("de/videos_000000.parquet"))).to_pylist()
        return {row["video_id"]: tuple(row[name] for name in names) for row in table}

    for name, data in files.items():
        s3.write(f"videos/{name}", data)
    before = rows(Store(f"{s3.url}/first"))
    assert before["Title [abc]"][:3] == ("done", "Title [abc].de.vtt", "Titel")
    assert before["Other [xyz]"][:3] == ("done", None, None)
    segments = pq.read_table(io.BytesIO(s3.read("first/de/segments_000000.parquet")))
    assert segments.filter(pa.compute.equal(segments["video_id"], "Title [abc]"))["text"].to_pylist() == ["eins"]
    s3.write("videos/de/Title [abc].de.vtt", vtt.format("zwei").encode())
    after = rows(Store(f"{s3.url}/second"))
    assert after["Title [abc]"][3] != before["Title [abc]"][3]
    assert after["Other [xyz]"] == before["Other [xyz]"]
