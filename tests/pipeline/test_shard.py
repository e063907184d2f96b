import json
import math
import tarfile
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch
from factories import (
    config,
    media_file,
    shard_of,
    synthetic_speech,
    tones,
    wav_video,
)
from fake_gpu import DEVICE, fake_gpu, with_fake_gpu
from shard_factory import NO_RULES, STAGES, mixed, objects, run, summary_fields

from audiopipe.catalog import read as catalog
from audiopipe.pipeline import shard as shard_module
from audiopipe.pipeline.prefetch import Prefetcher
from audiopipe.segment import cut as segment
from audiopipe.types import Video

BEFORE_SCORING = (segment.BAD_TIMES, segment.PAST_END, segment.TOO_SHORT, segment.TOO_LONG)

pytestmark = pytest.mark.usefixtures("no_leaks")


def videos_of(table):
    names = ("video_id", "language", "uri", "size_bytes", "duration_s")
    return [Video(*(row[name] for name in names)) for row in table.to_pylist()]


def test_every_good_demo_video_is_read_and_every_bad_one_named(tiny_corpus, tmp_path):
    truth = {item["id"]: item for item in json.loads((tiny_corpus / "truth.json").read_text())}
    videos = videos_of(catalog.read_catalog(config(catalog=str(tiny_corpus / "catalog.parquet"))).table)
    result = run(tmp_path, shard_of(videos))
    letters = {letter.video_id: letter.error_type for letter in result.dead_letters}
    assert letters == {v.video_id: truth[v.video_id]["error"] for v in videos if not truth[v.video_id]["good"]}
    rows = pq.read_table(tmp_path / "out/en/segments_000000.parquet").to_pylist()
    for video in (v for v in videos if truth[v.video_id]["good"]):
        segments, expected = [r for r in rows if r["video_id"] == video.video_id], truth[video.video_id]
        assert segments, video
        assert {r["segment_times"] for r in segments} == {expected["segments"] or "voice"}
        if expected["segments"]:
            assert [r["text"] for r in segments] == [text for _, _, text in expected["spans"]]
    assert result.segments == len(rows)
    assert result.segments_kept == sum(r["kept"] for r in rows) > 20
    assert result.drops == {
        reason: sum(r["drop_reason"] == reason for r in rows)
        for reason in sorted({r["drop_reason"] for r in rows} - {None})
    }


def test_tar_table_and_manifest_have_the_same_samples(tmp_path):
    result = run(tmp_path, shard_of(mixed(tmp_path)), **NO_RULES)
    root = tmp_path / "out/en"
    rows = [r for r in pq.read_table(root / "segments_000000.parquet").to_pylist() if r["kept"]]
    manifest = [json.loads(line) for line in (root / "manifest_000000.json").read_text().splitlines()]
    with tarfile.open(root / "audio_000000.tar") as tar:
        sounds = {m.name: tar.extractfile(m).read() for m in tar if m.name.endswith(".flac")}
    assert [r["key"] + ".flac" for r in rows] == list(sounds) == [m["audio_filepath"] for m in manifest]
    assert len(rows) == result.segments_kept
    for row, (name, data) in zip(rows, sounds.items(), strict=True):
        (tmp_path / "one.flac").write_bytes(data)
        assert sf.info(tmp_path / "one.flac").frames == round(row["duration_s"] * 16_000), name
        assert row["audio_bytes"] == len(data)


def test_what_comes_out_is_what_was_there_at_that_time(tmp_path):
    truth = tones(6.0, 16_000, 1, seed=1)
    path = media_file(tmp_path / "a.wav", truth, 16_000)
    run(tmp_path, shard_of([Video("a", "en", str(path))]), window_s=2.0, **NO_RULES)
    with tarfile.open(tmp_path / "out/en/audio_000000.tar") as tar:
        for i in range(3):
            samples, _ = sf.read(tar.extractfile(f"a_{i:05d}.flac"), dtype="float64")
            assert np.abs(samples - truth[0, i * 32_000 : (i + 1) * 32_000]).max() < 2 / 32768


TIMINGS = [
    {"decoders": 1, "encoders": 1, "prefetch_videos": 1},
    {"decoders": 4, "encoders": 5, "prefetch_videos": 7},
    {"decoders": 2, "encoders": 2, "prefetch_videos": 2, "prefetch_mb": 1, "shards_in_flight": 5},
]


def test_the_same_input_gives_the_same_bytes_however_it_is_timed(tmp_path, monkeypatch):
    shard = shard_of(mixed(tmp_path))
    parameters = dict(batch_segments=5, window_s=1.5, **NO_RULES)
    run(tmp_path, shard, "plain", **parameters)
    expected = objects(tmp_path, "plain")
    assert len(expected) == 4
    for number, timing in enumerate(TIMINGS):
        run(tmp_path, shard, f"t{number}", **parameters, **timing)
        assert objects(tmp_path, f"t{number}") == expected, timing
    for number, (module, function) in enumerate(STAGES[stage] for stage in ("fetch", "score", "encode")):
        with monkeypatch.context() as patch:
            patch.setattr(module, function, delayed(getattr(module, function), number))
            run(tmp_path, shard, function, **parameters)
        assert objects(tmp_path, function) == expected, function


# Where `process_shard` looks up the function of a stage.


def delayed(function, seed):
    waits = iter(np.random.default_rng(seed).uniform(0, 0.03, 10_000).tolist())

    def slow(*arguments):
        time.sleep(next(waits))
        return function(*arguments)

    return slow


def test_shards_side_by_side_in_one_process_give_what_they_give_alone(tmp_path):
    videos = mixed(tmp_path)
    shards = [shard_of(videos[:4], index=0), shard_of(videos[3:], index=1)]
    for shard in shards:
        run(tmp_path, shard, "alone", **NO_RULES)
    threads = [threading.Thread(target=run, args=(tmp_path, s, "both"), kwargs=NO_RULES) for s in shards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert objects(tmp_path, "both") == objects(tmp_path, "alone")


@pytest.mark.bulk
@pytest.mark.parametrize("segments", ["auto", "voice"])
def test_with_a_gpu_the_same_comes_out(tmp_path, monkeypatch, segments):
    shard = shard_of(mixed(tmp_path))
    expected = run(tmp_path, shard, segments=segments)
    with fake_gpu(monkeypatch) as counts:
        monkeypatch.setattr(shard_module, "resolve_device", lambda config: DEVICE)
        monkeypatch.setattr(Prefetcher, "_produce", with_fake_gpu(Prefetcher._produce, counts))
        result = run(tmp_path, shard, "gpu", segments=segments)
    assert counts["operations"] > 0
    assert summary_fields(result) == summary_fields(expected)
    assert list(objects(tmp_path, "gpu")) == list(objects(tmp_path))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")
@pytest.mark.parametrize("segments", ["auto", "voice"])
def test_on_a_gpu_the_same_comes_out_with_the_same_bytes_each_time(tmp_path, segments):
    shard = shard_of(mixed(tmp_path))
    expected = run(tmp_path, shard, segments=segments, device="cpu")
    result = run(tmp_path, shard, "gpu", segments=segments, device="cuda")
    assert summary_fields(result) == summary_fields(expected)
    run(tmp_path, shard, "again", segments=segments, device="cuda")
    assert objects(tmp_path, "again") == objects(tmp_path, "gpu")


def test_a_done_shard_is_not_done_again(tmp_path):
    shard = shard_of([wav_video(tmp_path, "a")])
    first = run(tmp_path, shard)
    (tmp_path / "a.tar").unlink()
    assert run(tmp_path, shard) == first


def test_stages_are_timed_and_counted(tmp_path):
    result = run(tmp_path, shard_of(mixed(tmp_path)), **NO_RULES)
    assert {"fetch", "decode", "score", "encode", "write", "upload"} <= set(result.stage_s)
    assert all(seconds >= 0 for seconds in result.stage_s.values())
    assert result.stage_s["decode"] > 0.01
    assert set(result.queue_depths) == {"decoded", "scored"}
    assert result.stage_items["fetch"] == result.stage_items["write"] == result.videos == 7
    assert result.stage_items["score"] == result.segments - sum(result.drops.get(r, 0) for r in BEFORE_SCORING)
    assert result.stage_items["encode"] == result.segments_kept
    assert result.stage_items["upload"] == 1
    # Blocks of three seconds: those of videos without times are decoded twice where there is no voice.
    assert 23 <= result.stage_items["decode"] <= 2 * 23
    assert 0 < result.stage_cpu_s["score"] <= result.stage_s["score"] + 0.1
    assert result.bytes_in > 1_000_000
    assert result.bytes_out == sum(map(len, objects(tmp_path).values()))
    assert math.isclose(result.audio_s, 40 + 9 + 9 + 1 + 6, abs_tol=0.1)


def test_the_gain_of_a_normalized_segment_is_recorded(tmp_path):
    shard = shard_of([wav_video(tmp_path, "a", 10.0)])
    run(tmp_path, shard, normalize_lufs=-23.0, **NO_RULES)
    rows = pq.read_table(tmp_path / "out/en/segments_000000.parquet").to_pylist()
    for row in rows:
        assert row["gain_db"] == pytest.approx(-23.0 - row["loudness_lufs"], abs=0.05)
    with tarfile.open(tmp_path / "out/en/audio_000000.tar") as tar:
        body = json.loads(tar.extractfile("a_00000.json").read())
    assert body["gain_db"] == pytest.approx(rows[0]["gain_db"], abs=1e-4)


@pytest.mark.parametrize("audio_format", ["wav", "opus", "mp3"])
def test_other_formats_keep_keys_lengths_and_bytes(tmp_path, audio_format):
    shard = shard_of([wav_video(tmp_path, "a", 6.0)])
    for name in ("1", "2"):
        run(tmp_path, shard, name, audio_format=audio_format, **NO_RULES)
    assert objects(tmp_path, "1") == objects(tmp_path, "2")
    with tarfile.open(tmp_path / "1/en/audio_000000.tar") as tar:
        assert tar.getnames() == [f"a_{i:05d}.{kind}" for i in range(2) for kind in (audio_format, "json")]


def test_fixed_windows_cover_the_audio_and_the_rest_too(tmp_path):
    run(tmp_path, shard_of([wav_video(tmp_path, "a", 12.3)]), **NO_RULES)
    rows = pq.read_table(tmp_path / "out/en/segments_000000.parquet").to_pylist()
    assert [(r["start_s"], r["end_s"]) for r in rows] == [(0, 5), (5, 10), (10, 12.3)]


@pytest.mark.parametrize("segments", ["fixed", "auto"])
@pytest.mark.parametrize("measure_channels", ["mean", "source"])
def test_channels_of_opposite_phase_do_not_cancel(tmp_path, segments, measure_channels):
    x = synthetic_speech(1, 13.0)
    for name, right in (("opposite", -0.9 * x), ("mono", 0 * x)):
        media_file(tmp_path / f"{name}.wav", np.concatenate([x, right] if right.any() else [x]), 48_000)
    shard = shard_of([Video(n, "en", str(tmp_path / f"{n}.wav")) for n in ("mono", "opposite")])
    run(tmp_path, shard, segments=segments, measure_channels=measure_channels, **NO_RULES)
    rows = pq.read_table(tmp_path / "out/en/segments_000000.parquet").to_pylist()
    of_mono, of_opposite = ([row for row in rows if row["video_id"] == name] for name in ("mono", "opposite"))
    names = ("segment", "start_s", "end_s", "kept", "loudness_lufs")
    assert [[row[name] for name in names] for row in of_opposite] == [[row[name] for name in names] for row in of_mono]
    assert len(of_mono) > 1
    videos = pq.read_table(tmp_path / "out/en/videos_000000.parquet").to_pylist()
    assert [(row["status"], row["audio_channel"]) for row in videos] == [("done", None), ("done", "left")]
    assert "channel 0 is used" in videos[1]["notes"]
