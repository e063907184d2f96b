"""Check what bad videos, stopped decoders and stores that fail leave behind: the neighbors are unharmed."""

import math
import threading

import pyarrow.parquet as pq
import pytest
from factories import (
    config,
    find_decoder,
    media_file,
    shard_of,
    tones,
    wav_video,
)
from shard_factory import NO_RULES, STAGES, mixed, objects, run

from audiopipe import errors
from audiopipe.errors import DecoderCrash, StoreError, TransientError
from audiopipe.pipeline import video as video_module
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Video

pytestmark = pytest.mark.usefixtures("no_leaks")


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
