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
    find_decoder,
    list_decoders,
    media_file,
    shard_of,
    synthetic_speech,
    tar_file,
    tones,
    wav_video,
)
from fake_gpu import DEVICE, fake_gpu, with_fake_gpu

from audiopipe import errors
from audiopipe.catalog import read as catalog
from audiopipe.errors import DecoderCrash, StoreError, TransientError
from audiopipe.pipeline import assemble
from audiopipe.pipeline import shard as shard_module
from audiopipe.pipeline import video as video_module
from audiopipe.pipeline.prefetch import Prefetcher
from audiopipe.pipeline.shard import process_shard
from audiopipe.segment import cut as segment
from audiopipe.types import Video

BEFORE_SCORING = (segment.BAD_TIMES, segment.PAST_END, segment.TOO_SHORT, segment.TOO_LONG)
NO_RULES = {"min_loudness_lufs": None, "max_silence_ratio": None, "min_snr_db": None, "max_clipping_ratio": None}


@pytest.fixture(autouse=True)
def no_leaks(tmp_path):
    """Check that threads, decoders and scratch files end with the shard, however it ends."""
    before = set(threading.enumerate())
    (tmp_path / "scratch").mkdir()
    yield
    assert set(threading.enumerate()) <= before
    assert list_decoders() == []
    assert list((tmp_path / "scratch").iterdir()) == []


def run(folder, shard, name="out", **parameters):
    fixed = {"output": str(folder / name), "scratch": str(folder / "scratch"), "decode_timeout_s": 5.0}
    return process_shard(shard, config(**fixed | parameters), "run")


def objects(folder, name="out"):
    """Read the objects whose bytes are the same in every run."""
    root = folder / name
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.relative_to(root).parts[0].startswith("_")
    }


def summary_fields(result):
    """Return the fields of a shard's result that do not depend on timing or attempt."""
    return result.segments, result.kept_s, result.audio_s, result.drops, result.dead_letters


def videos_of(table):
    names = ("video_id", "language", "uri", "size_bytes", "duration_s")
    return [Video(*(row[name] for name in names)) for row in table.to_pylist()]


def mixed(folder):
    """Seven small videos of several rates, lengths and kinds of times, among them two bad ones."""
    spans = [{"start": i * 0.7, "end": i * 0.7 + 0.5 + 0.1 * (i % 3), "text": f"w{i}"} for i in range(12)]
    listed = json.dumps({"segments": spans}).encode()
    opus = media_file(folder / "o.webm", tones(9.0, 48_000, 2), 48_000, "-c:a", "libopus").read_bytes()
    garbage = tar_file(folder / "garbage.tar", {"g.mp3": b"no sound at all" * 99})
    return [
        wav_video(folder, "long", 40.0),
        wav_video(folder, "listed", 9.0, json=listed),
        Video("garbage", "en", str(garbage)),
        Video("opus", "en", str(tar_file(folder / "opus.tar", {"o.webm": opus, "o.json": listed}))),
        wav_video(folder, "short", 1.0),
        Video("missing", "en", str(folder / "missing.tar")),
        wav_video(folder, "stereo", 6.0, rate=44_100, channels=2),
    ]


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
STAGES = {
    "fetch": (video_module, "fetch"),
    "decode": (video_module, "decode"),
    "score": (shard_module, "score"),
    "encode": (assemble, "encode"),
    "upload": (shard_module, "upload"),
}


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


def test_a_bad_video_does_not_affect_its_neighbors(tmp_path):
    videos = mixed(tmp_path)
    good = [v for v in videos if v.video_id not in ("garbage", "missing")]
    run(tmp_path, shard_of(videos), "with", **NO_RULES)
    run(tmp_path, shard_of(good), "without", **NO_RULES)
    with_bad, without = objects(tmp_path, "with"), objects(tmp_path, "without")
    assert with_bad["en/audio_000000.tar"] == without["en/audio_000000.tar"]
    assert with_bad["en/segments_000000.parquet"] == without["en/segments_000000.parquet"]


def test_a_truncated_video_withdraws_its_earlier_segments(tmp_path):
    whole = media_file(tmp_path / "a.webm", tones(20.0, 48_000, 2), 48_000, "-c:a", "libopus").read_bytes()
    (tmp_path / "cut.webm").write_bytes(whole[: len(whole) // 2])
    shard = shard_of([Video("cut", "en", str(tmp_path / "cut.webm")), wav_video(tmp_path, "good", 5.0)])
    refused = run(tmp_path, shard, "reject", **NO_RULES)
    assert [letter.error_type for letter in refused.dead_letters] == ["TruncatedMedia"]
    assert {r["video_id"] for r in pq.read_table(tmp_path / "reject/en/segments_000000.parquet").to_pylist()} == {
        "good"
    }
    kept = run(tmp_path, shard, "keep", truncated="keep", **NO_RULES)
    assert kept.dead_letters == ()
    assert kept.segments_kept == refused.segments_kept + 2


def test_a_shard_of_bad_videos_alone_is_done_and_has_no_tar(tmp_path):
    videos = [v for v in mixed(tmp_path) if v.video_id in ("garbage", "missing")]
    result = run(tmp_path, shard_of(videos))
    assert (result.videos, result.videos_failed, result.segments) == (2, 2, 0)
    assert set(objects(tmp_path)) == {"en/segments_000000.parquet", "en/videos_000000.parquet"}


def test_a_silent_video_is_named_and_a_quiet_one_is_only_dropped(tmp_path):
    for name, level in (("silent", 0.0), ("quiet", 0.002)):
        media_file(tmp_path / f"{name}.wav", tones(3.0, 16_000, 1) * level, 16_000)
    shard = shard_of([Video(n, "en", str(tmp_path / f"{n}.wav")) for n in ("silent", "quiet")])
    result = run(tmp_path, shard)
    assert [(x.video_id, x.error_type) for x in result.dead_letters] == [("silent", "SilentAudio")]
    assert result.drops == {"too_quiet": 1}


def test_samples_that_are_not_numbers_are_named(tmp_path):
    for name, spoiled in (("all", slice(None)), ("one", slice(70_000, 70_001))):
        x = tones(12.0, 16_000, 1)
        x[0, spoiled] = math.nan
        media_file(tmp_path / f"{name}.wav", x, 16_000, "-c:a", "pcm_f32le")
    result = run(tmp_path, shard_of([Video(n, "en", str(tmp_path / f"{n}.wav")) for n in ("all", "one")]), **NO_RULES)
    assert [(x.video_id, x.error_type) for x in result.dead_letters] == [("all", "UndecodableMedia")]
    assert result.drops == {"not_finite": 1}
    rows = pq.read_table(tmp_path / "out/en/segments_000000.parquet").to_pylist()
    assert [row["kept"] for row in rows] == [False, True, True]
    assert rows[0]["loudness_lufs"] == pytest.approx(rows[1]["loudness_lufs"], abs=1)
    assert rows[0]["gain_db"] is None


def test_a_done_shard_is_not_done_again(tmp_path):
    shard = shard_of([wav_video(tmp_path, "a")])
    first = run(tmp_path, shard)
    (tmp_path / "a.tar").unlink()
    assert run(tmp_path, shard) == first


def test_a_killed_decoder_leaves_nothing_and_the_retry_succeeds(tmp_path, monkeypatch):
    videos = [*mixed(tmp_path), Video("x", "en", str(media_file(tmp_path / "x.wav", tones(60, 48_000, 1), 48_000)))]
    shard = shard_of(videos)
    run(tmp_path, shard, "undamaged", **NO_RULES)
    died = threading.Event()
    decode = video_module.decode

    def decode_and_kill(source, *arguments):
        blocks = decode(source, *arguments)
        if source.video.video_id == "x" and not died.is_set():
            yield next(blocks)
            died.set()
            find_decoder(source.path).kill()
        yield from blocks

    monkeypatch.setattr(video_module, "decode", decode_and_kill)
    with pytest.raises(DecoderCrash):
        run(tmp_path, shard, **NO_RULES)
    assert died.is_set()
    assert objects(tmp_path) == {}
    assert not (tmp_path / "out/_commits").exists()
    run(tmp_path, shard, **NO_RULES)
    assert objects(tmp_path) == objects(tmp_path, "undamaged")


@pytest.mark.parametrize(("stop", "error_type"), [("kill", "DecoderCrash"), ("suspend", "DecoderTimeout")])
def test_a_decoder_that_always_stops_is_a_dead_letter_at_last(tmp_path, monkeypatch, stop, error_type):
    long = media_file(tmp_path / "x.wav", tones(30, 48_000, 1), 48_000)
    good = wav_video(tmp_path, "good", 3.0)
    shard = shard_of([Video("x", "en", str(long)), good])
    decode = video_module.decode

    def decode_and_stop(source, *arguments):
        blocks = decode(source, *arguments)
        if source.video.video_id == "x":
            yield next(blocks)
            getattr(find_decoder(source.path), stop)()
        yield from blocks

    monkeypatch.setattr(video_module, "decode", decode_and_stop)
    parameters = {"segments": "fixed", "decode_timeout_s": 1.0, **NO_RULES}
    with pytest.raises(getattr(errors, error_type)):
        run(tmp_path, shard, **parameters)
    assert objects(tmp_path) == {}
    settings = config(output=str(tmp_path / "out"), scratch=str(tmp_path / "scratch"), **parameters)
    (letter,) = process_shard(shard, settings, "run", last_attempt=True).dead_letters
    assert (letter.video_id, letter.stage, letter.error_type, letter.retriable) == ("x", "decode", error_type, True)
    assert str(long) in letter.message
    run(tmp_path, shard_of([good]), "good", **parameters)
    assert objects(tmp_path)["en/audio_000000.tar"] == objects(tmp_path, "good")["en/audio_000000.tar"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_transient_error_at_any_stage_ends_the_shard_cleanly(tmp_path, monkeypatch, stage):
    shard, calls = shard_of(mixed(tmp_path)), []
    module, function = STAGES[stage]
    real = getattr(module, function)

    def fails_at_the_second(*arguments):
        calls.append(stage)
        if len(calls) == 2 or stage == "upload":
            raise StoreError("the store broke off")
        return real(*arguments)

    monkeypatch.setattr(module, function, fails_at_the_second)
    with pytest.raises(TransientError, match="broke off"):
        run(tmp_path, shard, **NO_RULES)
    assert objects(tmp_path) == {}
    monkeypatch.setattr(module, function, real)
    assert run(tmp_path, shard, **NO_RULES).videos == 7


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
