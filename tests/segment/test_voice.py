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
from audiopipe.bench.corpus import load_speech
from audiopipe.bench.corpus.mix import PLAIN, mix
from audiopipe.models.silero_vad import FRAME, RATE_HZ, VoiceModel, load_voice_model
from audiopipe.pipeline.shard import process_shard
from audiopipe.segment import voice
from audiopipe.segment.voice_spans import SpeechSegmenter
from audiopipe.types import Clip, Video

CPU = torch.device("cpu")
CACHE = Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", Path(__file__).parents[2] / "demo/corpus/cache"))
# Silero's defaults, without a limit of length.
SILERO_DEFAULTS = {
    "voice_gap_s": 0.1,
    "voice_pad_s": 0.03,
    "voice_min_s": 0.25,
    "max_segment_s": 120.0,
    "min_segment_s": 0.0,
}


@pytest.fixture(scope="module")
def silero():
    """Load Silero's model and its function for a single stream."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import silero_vad

        return silero_vad.load_silero_vad(), silero_vad.get_speech_timestamps


@pytest.fixture(scope="module")
def prompts():
    return next(iter(load_speech(CACHE, log=lambda line: None).values()))


def make_speech(prompts, seed, rate=RATE_HZ, count=15):
    """Mix [T] int16 of real speech with pauses of 0.3 to 1.5 s; return it with the times of each prompt."""
    rng = np.random.default_rng(seed)
    chosen = [prompts[i % len(prompts)] for i in rng.integers(0, len(prompts), count)]
    frames, spans = mix(chosen, rate, 1, PLAIN, rng)
    return (frames[:, 0] * 32767).astype(np.int16), spans


def split_blocks(samples, rate):
    return [samples[None, start : start + rate] for start in range(0, len(samples), rate)]


def test_the_network_is_computed_in_full_float32_on_every_device(monkeypatch):
    precisions, encode = [], VoiceModel._encode

    def record_precision(model, frames):
        precisions.append((torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.rnn.fp32_precision))
        return encode(model, frames)

    monkeypatch.setattr(VoiceModel, "_encode", record_precision)
    model = load_voice_model(CPU)
    model([torch.zeros(FRAME)], [model.start()])
    assert precisions == [("ieee", "ieee")]


def detect_together(signals, settings):
    """Detect speech in streams that take turns of 16 blocks, as in the pipeline: {video_id: [(start_s, end_s)]}."""
    queues = {f"v{i}": split_blocks(samples, rate) for i, (samples, rate) in enumerate(signals)}
    rates = {f"v{i}": rate for i, (_, rate) in enumerate(signals)}
    times = {name: [] for name in queues}

    def events():
        while queues:
            for name in list(queues):
                turn, queues[name] = queues[name][:16], queues[name][16:]
                yield from (voice.AudioBlock(name, rates[name], block) for block in turn)
                if not queues[name]:
                    del queues[name]
                    yield voice.EndOfStream(name, lambda count: iter(()))

    for clip in voice.cut_speech(events(), settings, CPU):
        assert clip.drop_reason is None
        times[clip.video_id].append((clip.span.start_s, clip.span.end_s))
        assert clip.frames == round(clip.span.end_s * clip.sample_rate_hz) - round(
            clip.span.start_s * clip.sample_rate_hz
        )
    return times


def test_batched_streams_have_the_times_of_silero_on_each(prompts, silero):
    model, timestamps = silero
    signals = [(make_speech(prompts, seed, count=count)[0], RATE_HZ) for seed, count in enumerate((15, 9, 1, 12))]
    times = detect_together(signals, config(**SILERO_DEFAULTS))
    for number, (samples, _) in enumerate(signals):
        speech_frames = timestamps(torch.from_numpy(samples / 32768).float(), model)
        expected = [(item["start"] / RATE_HZ, item["end"] / RATE_HZ) for item in speech_frames]
        assert len(expected) >= 1
        np.testing.assert_allclose(times[f"v{number}"], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 15_999])
def test_another_rate_is_resampled_without_seams_between_blocks(prompts, silero, rate):
    model, timestamps = silero
    samples, _ = make_speech(prompts, 7, count=8, rate=rate)
    whole = kernels.resample(torch.from_numpy(samples), rate, RATE_HZ)
    expected = [(item["start"] / RATE_HZ, item["end"] / RATE_HZ) for item in timestamps(whole, model)]
    (times,) = detect_together([(samples, rate)], config(**SILERO_DEFAULTS)).values()
    np.testing.assert_allclose(times, expected, atol=2 / rate + 1e-4, rtol=0)


def test_resampled_blocks_join_to_the_resampled_whole():
    signal = torch.from_numpy(np.random.default_rng(0).standard_normal(44_100 * 5).astype(np.float32))
    resampler = voice._StreamResampler(44_100)
    blocks = signal.split([44_100, 1, 700, 88_200, 40_000, len(signal) - 173_001])
    joined = torch.cat([resampler.convert(block, number == 5) for number, block in enumerate(blocks)])
    torch.testing.assert_close(joined, kernels.resample(signal, 44_100, RATE_HZ), atol=1e-4, rtol=0)


def test_segments_contain_the_prompts_and_not_the_pauses(prompts):
    samples, truth = make_speech(prompts, 3, count=20)
    (times,) = detect_together([(samples, RATE_HZ)], config(voice_gap_s=0.25)).values()
    is_speech = np.zeros(len(samples), bool)
    is_detected = np.zeros(len(samples), bool)
    for mask, spans in ((is_speech, truth), (is_detected, times)):
        for start, end, *_ in spans:
            mask[round(start * RATE_HZ) : round(end * RATE_HZ)] = True
    assert (is_detected & is_speech).sum() / is_speech.sum() > 0.97
    assert (is_detected & ~is_speech).sum() / RATE_HZ < 0.2 * len(truth)  # little more than the padding
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(times))


def test_short_gaps_merge_and_long_speech_is_cut_in_a_pause(prompts):
    prompts = [prompt for prompt in prompts if 0.5 < prompt.length_s < 1.5]
    samples, truth = make_speech(prompts, 5, count=25)
    (merged,) = detect_together([(samples, RATE_HZ)], config(voice_gap_s=3.0, max_segment_s=120.0)).values()
    assert len(merged) == 1
    (cut,) = detect_together([(samples, RATE_HZ)], config(voice_gap_s=3.0, max_segment_s=8.0)).values()
    assert all(end - start <= 8.0 for start, end in cut)
    assert len(cut) > 1
    assert len(cut) >= len(samples) / RATE_HZ / 8.0
    bounds = [bound for start, end in cut for bound in (start + 0.1, end - 0.1)]
    within = [bound for bound in bounds if any(start + 0.15 < bound < end - 0.15 for start, end, _ in truth)]
    assert len(within) <= 1, "cuts lie within words"


PARAMETERS = st.fixed_dictionaries(
    {
        "voice_gap_s": st.sampled_from([0.2, 0.5, 2.0]),
        "voice_min_s": st.sampled_from([0.0, 0.25]),
        "max_segment_s": st.sampled_from([1.0, 5.0, 30.0]),
        "window_s": st.just(1.0),
    }
)


@given(PARAMETERS, st.integers(0, 1 << 30), st.lists(st.integers(1, 90), min_size=1, max_size=8))
def test_times_do_not_depend_on_the_size_of_pushes(parameters, seed, sizes):
    rng, settings = np.random.default_rng(seed), config(**parameters)
    smooth = np.convolve(rng.random(600), np.ones(9) / 9, "same")
    probabilities = np.clip((smooth - 0.5) * 4 + 0.45, 0, 1).astype(np.float32)
    frame_s, end_s = FRAME / RATE_HZ, 600 * FRAME / RATE_HZ
    whole = SpeechSegmenter(settings, frame_s)
    expected = [*whole.push(probabilities), *whole.finish(end_s)]
    segmenter, pushed, start = SpeechSegmenter(settings, frame_s), [], 0
    while start < 600:
        size = sizes[start % len(sizes)]
        horizon_s = segmenter.horizon_s
        ended = list(segmenter.push(probabilities[start : start + size]))
        assert all(span.start_s >= horizon_s - 1e-6 for span in ended)
        pushed, start = pushed + ended, start + size
        assert all(span.end_s <= min(start, 600) * frame_s + 1e-6 for span in ended)
    assert [*pushed, *segmenter.finish(end_s)] == expected
    assert all(span.duration_s <= settings.max_segment_s + 1e-6 for span in expected)
    assert all(a.end_s <= b.start_s + 1e-9 for a, b in itertools.pairwise(expected))


def test_nan_samples_do_not_stop_the_detection(prompts):
    samples, _ = make_speech(prompts, 1, count=8)
    floats = samples.astype(np.float32) / 32768
    (clean,) = detect_together([(floats, RATE_HZ)], config()).values()
    floats[1000:1010] = np.nan
    floats[2000] = np.inf
    (times,) = detect_together([(floats, RATE_HZ)], config()).values()
    assert times[-1] == clean[-1]


def write_video(folder, name, samples, rate=RATE_HZ):
    sf.write(folder / f"{name}.wav", samples, rate, subtype="PCM_16")
    return Video(name, "en", str(folder / f"{name}.wav"))


def process(folder, shard, name, **parameters):
    settings = config(output=str(folder / name), min_snr_db=None, max_silence_ratio=None, **parameters)
    result = process_shard(shard, settings, "run")
    table = pq.read_table(folder / name / "en/segments_000000.parquet").to_pylist()
    paths = [path for path in sorted((folder / name / "en").iterdir()) if path.is_file()]
    return result, table, {path.name: path.read_bytes() for path in paths}


def test_a_shard_uses_given_times_else_voice_else_windows(tmp_path, prompts):
    document = json.dumps({"segments": [{"start": 0.5, "end": 2.0, "text": "w"}]}).encode()
    samples = {name: make_speech(prompts, seed, count=9)[0] for seed, name in enumerate(("a", "b", "c", "d", "e"))}
    videos = [write_video(tmp_path, name, signal) for name, signal in samples.items()]
    videos += [wav_video(tmp_path, "tones", 12.0), wav_video(tmp_path, "listed", 3.0, json=document)]
    result, rows, files = process(tmp_path, shard_of(videos), "out")
    assert result.dead_letters == ()
    assert result.stage_s["voice"] > 0
    times = {name: {row["segment_times"] for row in rows if row["video_id"] == name} for name in (*samples, "tones")}
    assert times == {name: {"voice"} for name in samples} | {"tones": {"fixed"}}
    assert [(r["start_s"], r["end_s"]) for r in rows if r["video_id"] == "tones"] == [(0, 5), (5, 10), (10, 12)]
    for name, signal in samples.items():
        clips = voice.speech_clips(name, split_blocks(signal, RATE_HZ), RATE_HZ, config(), CPU)
        actual = [(r["segment"], r["start_s"], r["end_s"]) for r in rows if r["video_id"] == name]
        expected = [(clip.index, clip.span.start_s, clip.span.end_s) for clip in clips]
        np.testing.assert_allclose(actual, expected, atol=1e-4)
    for number, timing in enumerate(({"decoders": 1}, {"decoders": 3, "encoders": 4, "prefetch_videos": 1})):
        assert process(tmp_path, shard_of(videos), f"t{number}", **timing)[2] == files


def test_required_voice_that_is_missing_is_a_dead_letter(tmp_path, prompts):
    shard = shard_of(
        [wav_video(tmp_path, "tones", 6.0), write_video(tmp_path, "a", make_speech(prompts, 0, count=4)[0])]
    )
    result, rows, _ = process(tmp_path, shard, "out", segments="voice")
    assert [(letter.video_id, letter.error_type) for letter in result.dead_letters] == [("tones", "BadSegments")]
    assert {row["video_id"] for row in rows} == {"a"}


def test_a_video_that_breaks_off_in_voice_detection_is_a_dead_letter(tmp_path, prompts):
    whole = make_speech(prompts, 2, count=12)[0]
    videos = [write_video(tmp_path, "a", whole), write_video(tmp_path, "b", make_speech(prompts, 3, count=6)[0])]
    videos[0] = Video("a", "en", videos[0].uri, duration_s=len(whole) / RATE_HZ + 60)
    result, rows, _ = process(tmp_path, shard_of(videos), "out")
    assert [(letter.video_id, letter.error_type) for letter in result.dead_letters] == [("a", "TruncatedMedia")]
    assert {row["video_id"] for row in rows} == {"b"}


def test_the_speech_of_a_round_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(voice, "ROUND_BYTES", 1_000_000)
    waiting_bytes = []
    run_round = voice._run_round

    def record_size(streams, measure):
        waiting_bytes.append(sum(stream.waiting_bytes for stream in streams.values()))
        return run_round(streams, measure)

    monkeypatch.setattr(voice, "_run_round", record_size)
    noise = np.random.default_rng(0).integers(-9, 9, (6, 96_000), np.int16)
    events = [voice.AudioBlock("a", 96_000, noise) for _ in range(5)]
    assert [event for event in voice.cut_speech(events, config(), CPU) if not isinstance(event, Clip)] == []
    assert waiting_bytes
    assert max(waiting_bytes) <= noise.nbytes
