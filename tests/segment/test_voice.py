import itertools
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch
from factories import config, shard_of, wav_video
from hypothesis import given
from hypothesis import strategies as st

from audiopipe import kernels
from audiopipe.bench.corpus import speech
from audiopipe.bench.corpus.mix import PLAIN, mix
from audiopipe.models.silero_vad import FRAME, RATE_HZ, VoiceModel, voice_model
from audiopipe.pipeline.shard import process_shard
from audiopipe.segment import voice
from audiopipe.segment.voice_spans import VoiceTimes
from audiopipe.types import Clip, Video

CPU = torch.device("cpu")
CACHE = Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", Path(__file__).parents[2] / "demo/corpus/cache"))
# Silero's own defaults, and no limit of length.
THEIRS = {"voice_gap_s": 0.1, "voice_pad_s": 0.03, "voice_min_s": 0.25, "max_segment_s": 120.0, "min_segment_s": 0.0}


@pytest.fixture(scope="module")
def silero():
    """The packaged model and its own function over one stream at a time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import silero_vad

        return silero_vad.load_silero_vad(), silero_vad.get_speech_timestamps


@pytest.fixture(scope="module")
def prompts():
    return next(iter(speech(CACHE, log=lambda line: None).values()))


def spoken(prompts, seed, rate=RATE_HZ, count=15):
    """[T] int16 of real speech with pauses of 0.3 to 1.5 s, and the times of each prompt."""
    rng = np.random.default_rng(seed)
    chosen = [prompts[i % len(prompts)] for i in rng.integers(0, len(prompts), count)]
    frames, spans = mix(chosen, rate, 1, PLAIN, rng)
    return (frames[:, 0] * 32767).astype(np.int16), spans


def in_blocks(samples, rate):
    return [samples[None, start : start + rate] for start in range(0, len(samples), rate)]


def test_the_network_is_computed_in_full_float32_on_every_device(monkeypatch):
    found, encode = [], VoiceModel._encode

    def watched(model, frames):
        found.append((torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.rnn.fp32_precision))
        return encode(model, frames)

    monkeypatch.setattr(VoiceModel, "_encode", watched)
    model = voice_model(CPU)
    model([torch.zeros(FRAME)], [model.start()])
    assert found == [("ieee", "ieee")]


def together(signals, asked):
    """Times of streams that take turns of 16 blocks, as in the pipeline: {video_id: [(start_s, end_s)]}."""
    queues = {f"v{i}": in_blocks(samples, rate) for i, (samples, rate) in enumerate(signals)}
    rates = {f"v{i}": rate for i, (_, rate) in enumerate(signals)}
    found = {name: [] for name in queues}

    def events():
        while queues:
            for name in list(queues):
                turn, queues[name] = queues[name][:16], queues[name][16:]
                yield from (voice.AudioBlock(name, rates[name], block) for block in turn)
                if not queues[name]:
                    del queues[name]
                    yield voice.EndOfStream(name, lambda count: iter(()))

    for clip in voice.listen(events(), asked, CPU):
        assert clip.drop_reason is None
        found[clip.video_id].append((clip.span.start_s, clip.span.end_s))
        assert clip.frames == round(clip.span.end_s * clip.sample_rate_hz) - round(
            clip.span.start_s * clip.sample_rate_hz
        )
    return found


def test_batched_streams_have_the_times_of_silero_on_each_alone(prompts, silero):
    model, timestamps = silero
    signals = [(spoken(prompts, seed, count=count)[0], RATE_HZ) for seed, count in enumerate((15, 9, 1, 12))]
    found = together(signals, config(**THEIRS))
    for number, (samples, _) in enumerate(signals):
        listed = timestamps(torch.from_numpy(samples / 32768).float(), model)
        expected = [(one["start"] / RATE_HZ, one["end"] / RATE_HZ) for one in listed]
        assert len(expected) >= 1
        np.testing.assert_allclose(found[f"v{number}"], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 15_999])
def test_another_rate_is_resampled_without_seams_between_blocks(prompts, silero, rate):
    model, timestamps = silero
    samples, _ = spoken(prompts, 7, count=8, rate=rate)
    whole = kernels.resample(torch.from_numpy(samples), rate, RATE_HZ)
    expected = [(one["start"] / RATE_HZ, one["end"] / RATE_HZ) for one in timestamps(whole, model)]
    (found,) = together([(samples, rate)], config(**THEIRS)).values()
    np.testing.assert_allclose(found, expected, atol=2 / rate + 1e-4, rtol=0)


def test_resampled_blocks_join_to_the_resampled_whole():
    signal = torch.from_numpy(np.random.default_rng(0).standard_normal(44_100 * 5).astype(np.float32))
    rate = voice._Rate(44_100)
    blocks = signal.split([44_100, 1, 700, 88_200, 40_000, len(signal) - 173_001])
    joined = torch.cat([rate.convert(block, number == 5) for number, block in enumerate(blocks)])
    torch.testing.assert_close(joined, kernels.resample(signal, 44_100, RATE_HZ), atol=1e-4, rtol=0)


def test_segments_hold_the_prompts_and_not_the_pauses(prompts):
    samples, truth = spoken(prompts, 3, count=20)
    (found,) = together([(samples, RATE_HZ)], config(voice_gap_s=0.25)).values()
    spoken_s = np.zeros(len(samples), bool)
    found_s = np.zeros(len(samples), bool)
    for mask, spans in ((spoken_s, truth), (found_s, found)):
        for start, end, *_ in spans:
            mask[round(start * RATE_HZ) : round(end * RATE_HZ)] = True
    assert (found_s & spoken_s).sum() / spoken_s.sum() > 0.97
    assert (found_s & ~spoken_s).sum() / RATE_HZ < 0.2 * len(truth)  # little more than the padding
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(found))


def test_short_gaps_merge_and_long_speech_is_cut_in_a_pause(prompts):
    words = [prompt for prompt in prompts if 0.5 < prompt.length_s < 1.5]
    samples, truth = spoken(words, 5, count=25)
    (merged,) = together([(samples, RATE_HZ)], config(voice_gap_s=3.0, max_segment_s=120.0)).values()
    assert len(merged) == 1
    (cut,) = together([(samples, RATE_HZ)], config(voice_gap_s=3.0, max_segment_s=8.0)).values()
    assert all(end - start <= 8.0 for start, end in cut)
    assert len(cut) > 1
    assert len(cut) >= len(samples) / RATE_HZ / 8.0
    bounds = [bound for start, end in cut for bound in (start + 0.1, end - 0.1)]
    within = [bound for bound in bounds if any(start + 0.15 < bound < end - 0.15 for start, end, _ in truth)]
    assert len(within) <= 1, "cuts lie within words"


ASKED = st.fixed_dictionaries(
    {
        "voice_gap_s": st.sampled_from([0.2, 0.5, 2.0]),
        "voice_min_s": st.sampled_from([0.0, 0.25]),
        "max_segment_s": st.sampled_from([1.0, 5.0, 30.0]),
        "window_s": st.just(1.0),
    }
)


@given(ASKED, st.integers(0, 1 << 30), st.lists(st.integers(1, 90), min_size=1, max_size=8))
def test_times_do_not_depend_on_how_the_frames_come(asked, seed, sizes):
    rng, asked = np.random.default_rng(seed), config(**asked)
    smooth = np.convolve(rng.random(600), np.ones(9) / 9, "same")
    probabilities = np.clip((smooth - 0.5) * 4 + 0.45, 0, 1).astype(np.float32)
    frame_s, end_s = FRAME / RATE_HZ, 600 * FRAME / RATE_HZ
    whole = VoiceTimes(asked, frame_s)
    expected = [*whole.push(probabilities), *whole.finish(end_s)]
    parts, found, start = VoiceTimes(asked, frame_s), [], 0
    while start < 600:
        size = sizes[start % len(sizes)]
        horizon_s = parts.horizon_s
        came = list(parts.push(probabilities[start : start + size]))
        assert all(span.start_s >= horizon_s - 1e-6 for span in came)
        found, start = found + came, start + size
        assert all(span.end_s <= min(start, 600) * frame_s + 1e-6 for span in came)
    assert [*found, *parts.finish(end_s)] == expected
    assert all(span.duration_s <= asked.max_segment_s + 1e-6 for span in expected)
    assert all(a.end_s <= b.start_s + 1e-9 for a, b in itertools.pairwise(expected))


def test_samples_that_are_no_numbers_do_not_deafen_the_rest(prompts):
    samples, _ = spoken(prompts, 1, count=8)
    floats = samples.astype(np.float32) / 32768
    (clean,) = together([(floats, RATE_HZ)], config()).values()
    floats[1000:1010] = np.nan
    floats[2000] = np.inf
    (found,) = together([(floats, RATE_HZ)], config()).values()
    assert found[-1] == clean[-1]


def video(folder, name, samples, rate=RATE_HZ):
    sf.write(folder / f"{name}.wav", samples, rate, subtype="PCM_16")
    return Video(name, "en", str(folder / f"{name}.wav"))


def rows_of(folder, shard, name, **parameters):
    asked = config(output=str(folder / name), min_snr_db=None, max_silence_ratio=None, **parameters)
    result = process_shard(shard, asked, "run")
    table = pq.read_table(folder / name / "en/segments_000000.parquet").to_pylist()
    paths = [path for path in sorted((folder / name / "en").iterdir()) if path.is_file()]
    return result, table, {path.name: path.read_bytes() for path in paths}


def test_a_shard_uses_given_times_else_voice_else_windows(tmp_path, prompts):
    listed = json.dumps({"segments": [{"start": 0.5, "end": 2.0, "text": "w"}]}).encode()
    samples = {name: spoken(prompts, seed, count=9)[0] for seed, name in enumerate(("a", "b", "c", "d", "e"))}
    videos = [video(tmp_path, name, signal) for name, signal in samples.items()]
    videos += [wav_video(tmp_path, "tones", 12.0), wav_video(tmp_path, "listed", 3.0, json=listed)]
    result, rows, files = rows_of(tmp_path, shard_of(videos), "out")
    assert result.dead_letters == ()
    assert result.stage_s["voice"] > 0
    times = {name: {row["segment_times"] for row in rows if row["video_id"] == name} for name in (*samples, "tones")}
    assert times == {name: {"voice"} for name in samples} | {"tones": {"fixed"}}
    assert [(r["start_s"], r["end_s"]) for r in rows if r["video_id"] == "tones"] == [(0, 5), (5, 10), (10, 12)]
    for name, signal in samples.items():
        alone = voice.clips(name, in_blocks(signal, RATE_HZ), RATE_HZ, config(), CPU)
        found = [(r["segment"], r["start_s"], r["end_s"]) for r in rows if r["video_id"] == name]
        expected = [(clip.index, clip.span.start_s, clip.span.end_s) for clip in alone]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    for number, timing in enumerate(({"decoders": 1}, {"decoders": 3, "encoders": 4, "prefetch_videos": 1})):
        assert rows_of(tmp_path, shard_of(videos), f"t{number}", **timing)[2] == files


def test_voice_that_is_demanded_and_not_there_is_a_dead_letter(tmp_path, prompts):
    shard = shard_of([wav_video(tmp_path, "tones", 6.0), video(tmp_path, "a", spoken(prompts, 0, count=4)[0])])
    result, rows, _ = rows_of(tmp_path, shard, "out", segments="voice")
    assert [(letter.video_id, letter.error_type) for letter in result.dead_letters] == [("tones", "BadSegments")]
    assert {row["video_id"] for row in rows} == {"a"}


def test_a_video_that_breaks_off_in_voice_detection_is_a_dead_letter(tmp_path, prompts):
    whole = spoken(prompts, 2, count=12)[0]
    videos = [video(tmp_path, "a", whole), video(tmp_path, "b", spoken(prompts, 3, count=6)[0])]
    videos[0] = Video("a", "en", videos[0].uri, duration_s=len(whole) / RATE_HZ + 60)
    result, rows, _ = rows_of(tmp_path, shard_of(videos), "out")
    assert [(letter.video_id, letter.error_type) for letter in result.dead_letters] == [("a", "TruncatedMedia")]
    assert {row["video_id"] for row in rows} == {"b"}


def test_the_speech_of_a_round_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(voice, "ROUND_BYTES", 1_000_000)
    waiting = []
    real = voice._round

    def counted(streams, timed):
        waiting.append(sum(stream.waiting_bytes for stream in streams.values()))
        return real(streams, timed)

    monkeypatch.setattr(voice, "_round", counted)
    noise = np.random.default_rng(0).integers(-9, 9, (6, 96_000), np.int16)
    events = [voice.AudioBlock("a", 96_000, noise) for _ in range(5)]
    assert [event for event in voice.listen(events, config(), CPU) if not isinstance(event, Clip)] == []
    assert waiting
    assert max(waiting) <= noise.nbytes
