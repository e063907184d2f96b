"""Samples that are not numbers, or no audio, are named; they change nothing outside of the segment."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from factories import config, media_file, shard_of, synthetic_speech, tar_file, tones

from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Video

RATE = 48_000
NO_RULES = {"min_loudness_lufs": None, "max_silence_ratio": None, "min_snr_db": None, "max_clipping_ratio": None}
FORMATS = {
    "wav of 32 bits": ("a.wav", "pcm_f32le", ()),
    "wav of 64 bits": ("a.wav", "pcm_f64le", ()),
    "mkv of 32 bits": ("a.mkv", "pcm_f32le", ()),
    "w64 named wav": ("a.wav", "pcm_f32le", ("-f", "w64")),
}
SEGMENTS = {"segments": [{"start": n, "end": n + 1} for n in range(4)]}
DAMAGES = [math.nan, math.inf, -math.inf, 1e30, 1001.0]
METRICS = ("loudness_lufs", "snr_db", "sample_peak_dbfs")


def make_tar(folder, name, signal, audio, codec, options=(), document=None):
    path = media_file(folder / audio, signal, RATE, "-c:a", codec, *options)
    document = SEGMENTS if document is None else document
    return tar_file(folder / f"{name}.tar", {audio: path.read_bytes(), "a.json": json.dumps(document).encode()})


def run(folder, videos, name="out", **parameters):
    shard = shard_of([Video(video_id, "en", str(path)) for video_id, path in videos.items()])
    result = process_shard(
        shard, config(output=str(folder / name), scratch=str(folder / "scratch"), **parameters), "run"
    )
    rows = pq.read_table(folder / name / "en/segments_000000.parquet").to_pylist()
    return result, rows, pq.read_table(folder / name / "en/videos_000000.parquet").to_pylist()


@pytest.mark.parametrize(("kind", "channels"), [*((kind, 1) for kind in FORMATS), ("mkv of 32 bits", 2)])
def test_a_damaged_sample_drops_its_segment_alone(tmp_path, kind, channels):
    clean = synthetic_speech(1, 4.0, RATE).repeat(channels, 0).astype(np.float64)
    videos = {"clean": make_tar(tmp_path, "clean", clean, *FORMATS[kind])}
    for number, value in enumerate(DAMAGES):
        signal = clean.copy()
        signal[:, 2 * RATE] = value  # the first sample of the third segment
        signal[:, 3 * RATE - 1] = value  # and its last
        videos[str(number)] = make_tar(tmp_path, str(number), signal, *FORMATS[kind])
    for normalize_lufs in (None, -23.0):
        result, rows, _ = run(tmp_path, videos, f"{normalize_lufs}", normalize_lufs=normalize_lufs, **NO_RULES)
        assert (result.drops, result.dead_letters) == ({"not_finite": len(DAMAGES)}, ())
        expected = [row for row in rows if row["video_id"] == "clean"]
        for number in range(len(DAMAGES)):
            damaged = [row for row in rows if row["video_id"] == str(number)]
            assert [row["drop_reason"] for row in damaged] == [None, None, "not_finite", None]
            for row, reference in zip(damaged, expected, strict=True):
                is_whole = row["drop_reason"] is None
                for metric in METRICS:
                    assert row[metric] == pytest.approx(reference[metric], abs=1e-5 if is_whole else 1.0), metric
                if is_whole:
                    assert (row["gain_db"], row["audio_bytes"]) == (reference["gain_db"], reference["audio_bytes"])


@pytest.mark.parametrize("segments", ["json", "voice", "fixed"])
@pytest.mark.parametrize("value", [math.nan, 1e30])
def test_a_video_of_damaged_samples_alone_is_named(tmp_path, value, segments):
    path = make_tar(tmp_path, "a", np.full((1, 4 * RATE), value), *FORMATS["mkv of 32 bits"])
    result, _, _ = run(tmp_path, {"a": path}, segments=segments, **NO_RULES)
    ((letter),) = result.dead_letters
    assert letter.error_type in {"json": ("UndecodableMedia",), "fixed": ("UndecodableMedia",)}.get(
        segments, ("UndecodableMedia", "BadSegments")
    )


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (tones(4.0, RATE, 1) * 1e-40, "SilentAudio"),  # denormals
        (np.full((1, 4 * RATE), 1e-310), "SilentAudio"),
        (np.full((1, 4 * RATE), 900.0), "clipped"),
        (tones(4.0, RATE, 1) + 5.0, "clipped"),
    ],
)
def test_absurd_levels_are_named(tmp_path, signal, reason):
    path = make_tar(tmp_path, "a", signal, *FORMATS["wav of 32 bits"])
    result, rows, _ = run(tmp_path, {"a": path})
    reasons = {letter.error_type for letter in result.dead_letters} or {row["drop_reason"] for row in rows}
    assert reasons == {reason}


@pytest.mark.parametrize("value", [math.nan, 1e30])
def test_voice_and_fingerprint_survive_a_damaged_sample(tmp_path, value):
    clean = synthetic_speech(3, 40.0, RATE).astype(np.float64)
    damaged = clean.copy()
    damaged[0, 5 * RATE] = value
    videos = {
        name: make_tar(tmp_path, name, signal, *FORMATS["mkv of 32 bits"], document={})
        for name, signal in (("clean", clean), ("damaged", damaged))
    }
    _, rows, videos_rows = run(tmp_path, videos, segments="auto", **NO_RULES)
    times = {
        name: [(row["start_s"], row["end_s"]) for row in rows if row["video_id"] == name and row["start_s"] > 8]
        for name in videos
    }
    assert len(times["clean"]) > 2
    assert times["damaged"] == times["clean"]
    prints = [set(np.frombuffer(row["fingerprint"], np.uint32).tolist()) for row in videos_rows]
    assert len(prints[0] & prints[1]) > 0.7 * len(prints[0])
