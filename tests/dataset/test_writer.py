import io
import json
import math
import re
import tarfile
from contextlib import closing

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from factories import config, shard_of
from hypothesis import given
from hypothesis import strategies as st

from audiopipe.dataset.schema import METRIC_NAMES, VIDEOS_SCHEMA, sample_key, segments_schema
from audiopipe.dataset.writer import SegmentRecord, ShardFiles, VideoRecord
from audiopipe.errors import ConfigError
from audiopipe.scorers.registry import create_scorers, stored_columns
from audiopipe.scorers.scorer import Column
from audiopipe.types import DeadLetter, Media, Span, Video

COLUMNS = stored_columns(create_scorers("signal"))
MEDIA = Media("matroska", "opus", 48_000, 2, "fltp", 20.0)


def record_of(files, video, kept=3, dropped=1, failure=None):
    record = VideoRecord(video, "etag", 1000, MEDIA, 20.0, kept + dropped, "json", failure=failure)
    for i in range(kept + dropped):
        metrics = np.linspace(-20, 20, len(METRIC_NAMES))
        metrics[3], metrics[4] = math.nan, -math.inf
        data = files.spool.append(b"sound %d" % i) if i < kept else None
        reason = None if i < kept else "noisy"
        record.segments.append(SegmentRecord(i, Span(i, i + 1.5, "zażółć 🎧", None), 1.5, reason, metrics, data))
    return record


TWO = (Video("a", "en", "a.tar"), Video("b", "en", "b.tar"))


def write_shard(folder, videos=TWO, **kinds):
    folder.mkdir()
    with closing(ShardFiles(shard_of(videos, index=7), config(), folder, COLUMNS)) as files:
        for video in videos:
            files.add(record_of(files, video, **kinds))
        return files, files.finish()


def test_the_same_records_give_the_same_bytes(tmp_path):
    _, first = write_shard(tmp_path / "1")
    _, second = write_shard(tmp_path / "2")
    assert {role: path.read_bytes() for role, path in first.items()} == {
        role: path.read_bytes() for role, path in second.items()
    }
    assert set(first) == {"audio", "segments", "videos", "manifest"}


def test_the_tar_has_sound_and_json_side_by_side_and_no_clock(tmp_path):
    _, paths = write_shard(tmp_path / "x")
    with tarfile.open(paths["audio"]) as tar:
        members = tar.getmembers()
        names = [member.name for member in members]
        assert names[:4] == ["a_00000.flac", "a_00000.json", "a_00001.flac", "a_00001.json"]
        assert len(names) == 12
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
        assert tar.extractfile("a_00001.flac").read() == b"sound 1"


def test_tar_offset_and_size_locate_the_audio_in_the_tar(tmp_path):
    _, paths = write_shard(tmp_path / "x")
    tar = paths["audio"].read_bytes()
    rows = pq.read_table(paths["segments"]).to_pylist()
    ranges = [(row["tar_offset"], row["audio_bytes"]) for row in rows if row["kept"]]
    with tarfile.open(paths["audio"]) as archive:
        members = [member for member in archive if member.name.endswith(".flac")]
        assert ranges == [(member.offset_data, member.size) for member in members]
        assert [tar[start : start + size] for start, size in ranges] == [
            archive.extractfile(member).read() for member in members
        ]
    assert {(row["tar_offset"], row["audio_bytes"]) for row in rows if not row["kept"]} == {(None, None)}


def test_the_sidecar_does_not_hold_its_position_in_the_tar(tmp_path):
    _, paths = write_shard(tmp_path / "x")
    with tarfile.open(paths["audio"]) as tar:
        body = json.loads(tar.extractfile("a_00000.json").read())
    assert not body.keys() & {"tar_offset", "audio_bytes", "kept", "drop_reason"}
    assert "tar_offset" not in paths["manifest"].read_text()


def test_the_tar_is_read_by_the_standard_library_to_its_end(tmp_path):
    _, paths = write_shard(tmp_path / "x")
    data = paths["audio"].read_bytes()
    assert len(data) % 10240 == 0
    assert data[-1024:] == bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert len(tar.getnames()) == 12


def test_an_undefined_metric_is_null_in_json_and_parquet(tmp_path):
    _, paths = write_shard(tmp_path / "x")
    with tarfile.open(paths["audio"]) as tar:
        body = json.loads(
            tar.extractfile("a_00000.json").read(),
            parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"),
        )
    assert body[METRIC_NAMES[3]] is None
    assert body[METRIC_NAMES[4]] is None
    assert body[METRIC_NAMES[0]] == -20.0
    assert body["text"] == "zażółć 🎧"
    assert body["sample_rate_hz"] == 16_000
    table = pq.read_table(paths["segments"])
    assert table[METRIC_NAMES[3]].null_count == table[METRIC_NAMES[4]].null_count == len(table)
    average = duckdb.sql(
        f"SELECT avg({METRIC_NAMES[0]}), avg({METRIC_NAMES[3]}) FROM read_parquet('{paths['segments']}')"
    )
    assert average.fetchall() == [(-20.0, None)]


def test_times_that_are_not_numbers_are_null(tmp_path):
    with closing(ShardFiles(shard_of(TWO), config(), tmp_path, COLUMNS)) as files:
        record = record_of(files, TWO[0], kept=0, dropped=1)
        record.segments[0].span = Span(math.nan, math.inf)
        record.segments[0].duration_s = math.nan
        files.add(record)
        (row,) = pq.read_table(files.finish()["segments"]).to_pylist()
    assert (row["start_s"], row["end_s"], row["duration_s"], row["gain_db"]) == (None, None, None, None)


def test_missing_texts_are_strings_in_the_sidecar(tmp_path):
    _, paths = write_shard(tmp_path / "x")
    with tarfile.open(paths["audio"]) as tar:
        body = json.loads(tar.extractfile("a_00000.json").read())
    assert body["speaker"] == ""
    texts = [column.name for column in segments_schema(COLUMNS) if str(column.type) == "string"]
    assert all(isinstance(body[name], str) for name in {*texts, "raw_text"} - {"drop_reason"})
    assert body["sound_event"] is False
    assert pq.read_table(paths["segments"])["speaker"].to_pylist() == [None] * 8


def test_tables_hold_every_segment_and_every_video(tmp_path):
    files, paths = write_shard(tmp_path / "x")
    segments, videos = pq.read_table(paths["segments"]), pq.read_table(paths["videos"])
    assert segments.schema.equals(segments_schema(COLUMNS))
    assert videos.schema.equals(VIDEOS_SCHEMA)
    assert segments["kept"].to_pylist() == [True, True, True, False] * 2
    assert segments["drop_reason"].to_pylist() == [None, None, None, "noisy"] * 2
    assert set(segments["shard"].to_pylist()) == {7}
    assert videos["segments_kept"].to_pylist() == [3, 3]
    assert (files.segments, files.kept, dict(files.drops)) == (8, 6, {"noisy": 2})


def test_the_manifest_has_one_row_for_each_sample(tmp_path):
    _, paths = write_shard(tmp_path / "x")
    rows = [json.loads(line) for line in paths["manifest"].read_text().splitlines()]
    assert [row["audio_filepath"] for row in rows] == [f"{v}_{i:05d}.flac" for v in "ab" for i in range(3)]
    assert rows[0] == {
        "audio_filepath": "a_00000.flac",
        "duration": 1.5,
        "text": "zażółć 🎧",
        "lang": "en",
        "shard_id": 7,
    }


def test_a_shard_with_nothing_kept_has_tables_and_no_tar(tmp_path):
    _, paths = write_shard(tmp_path / "x", kept=0)
    assert set(paths) == {"segments", "videos"}
    assert pq.read_table(paths["segments"]).num_rows == 2


def test_a_shard_without_any_segment_still_has_its_columns(tmp_path):
    _, paths = write_shard(tmp_path / "x", kept=0, dropped=0)
    assert pq.read_table(paths["segments"]).schema.equals(segments_schema(COLUMNS))
    assert pq.read_table(paths["videos"])["segments"].to_pylist() == [0, 0]


def test_a_failed_video_leaves_its_row_and_its_letter_and_no_segment(tmp_path):
    video = Video("a", "en", "a.tar")
    letter = DeadLetter("a", "en", "decode", "TruncatedMedia", "ends after 3 s")
    files, paths = write_shard(tmp_path / "x", [video], failure=letter)
    assert files.dead_letters == [letter]
    assert set(paths) == {"segments", "videos"}
    (row,) = pq.read_table(paths["videos"]).to_pylist()
    assert (row["status"], row["error_type"], row["segments"]) == ("failed", "TruncatedMedia", 0)


IDS = st.text(max_size=120).filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text))


@given(st.sets(IDS, min_size=2, max_size=2), st.integers(0, 99_999))
def test_keys_of_any_ids_are_safe_and_different(ids, index):
    keys = {sample_key(video_id, index) for video_id in ids}
    assert len(keys) == 2
    for key in keys:
        assert re.fullmatch(r"[A-Za-z0-9_=-]+", key)
        assert len(key + ".flac") <= 100  # a tar's plain name field


@pytest.mark.parametrize(
    ("video_id", "key"),
    [
        ("-4_jTzO95DE", "-4_jTzO95DE_00003"),
        ("../../etc/passwd", "=2e=2e=2f=2e=2e=2fetc=2fpasswd_00003"),
        ("a.b", "a=2eb_00003"),
        ("=2e", "=3d2e_00003"),
        ("", "_00003"),
        ("ł", "=c5=82_00003"),
    ],
)
def test_hostile_ids_become_harmless_keys(video_id, key):
    assert sample_key(video_id, 3) == key


def test_columns_of_all_types_reach_table_and_sidecar(tmp_path):
    columns = (*COLUMNS, *(Column(kind, kind, "1", kind) for kind in ("float", "int", "bool", "string", "floats")))
    scores = {"float": 0.123456789, "int": 3, "bool": True, "string": "x", "floats": [0.5, 1.5]}
    with closing(ShardFiles(shard_of(TWO), config(), tmp_path, columns)) as files:
        record = record_of(files, TWO[0], kept=2, dropped=1)
        record.segments[1].scores = scores
        files.add(record)
        paths = files.finish()
    table = pq.read_table(paths["segments"])
    assert table.schema.equals(segments_schema(columns))
    assert [table[name].to_pylist()[1] for name in scores] == [
        pytest.approx(0.123456789, rel=1e-7),
        *list(scores.values())[1:],
    ]
    assert {tuple(table[name].to_pylist()[::2]) for name in scores} == {(None, None)}
    with tarfile.open(paths["audio"]) as tar:
        names = tar.getnames()
        bodies = [json.loads(tar.extractfile(name).read()) for name in names if name.endswith(".json")]
    assert names[0] == "a_00001.flac"  # the sample that has a number for each column is first
    assert [bodies[0][name] for name in scores] == [0.123457, 3, True, "x", [0.5, 1.5]]
    assert [bodies[1][name] for name in scores] == [None, None, False, "", None]


def test_a_scorer_cannot_replace_a_column_of_every_dataset():
    with pytest.raises(ConfigError, match="column 'text'"):
        segments_schema([*COLUMNS, Column("text", "string", "", "x")])
