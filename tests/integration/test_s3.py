"""Read, write and run on a real S3 server."""

# ruff: noqa: F811 - fixtures

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from factories import media_file, tones
from output_factory import config, content, corpus, make_output
from s3_server import s3_server  # noqa: F401 - a fixture
from s3_store import environment, s3, upload_corpus  # noqa: F401 - fixtures

from audiopipe.dataset.backup import backup
from audiopipe.dataset.commit import commit_shard, read_commit
from audiopipe.dataset.describe import finalize
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.run_record import open_run
from audiopipe.dataset.verify import verify
from audiopipe.errors import PermanentStoreError
from audiopipe.media.fetch import fetch
from audiopipe.pipeline.shard import process_shard
from audiopipe.plan.plan import create_plan
from audiopipe.store.multipart import list_unfinished
from audiopipe.store.objects import Store
from audiopipe.types import Video


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
    catalog = upload_corpus(corpus(tmp_path / "c"), s3)
    out = make_output(config(catalog, f"{s3.url}/out"))
    assert verify(out.url).findings == ()
    local = content(make_output(config(catalog, tmp_path / "out")).url)
    assert content(out.url) == local
    assert collect_garbage(out.url, min_age_h=0).objects == {}


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
    assert before["de/Title [abc]"][:3] == ("done", "Title [abc].de.vtt", "Titel")
    assert before["de/Other [xyz]"][:3] == ("done", None, None)
    segments = pq.read_table(io.BytesIO(s3.read("first/de/segments_000000.parquet")))
    assert segments.filter(pa.compute.equal(segments["video_id"], "de/Title [abc]"))["text"].to_pylist() == ["eins"]
    s3.write("videos/de/Title [abc].de.vtt", vtt.format("zwei").encode())
    after = rows(Store(f"{s3.url}/second"))
    assert after["de/Title [abc]"][3] != before["de/Title [abc]"][3]
    assert after["de/Other [xyz]"] == before["de/Other [xyz]"]
