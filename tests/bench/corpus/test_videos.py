"""Decode the videos and compare them with the ground truth."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_files import Demo, Sound, decode

from audiopipe.bench.corpus.media import FORMATS, find_ffmpeg
from audiopipe.bench.corpus.mix import AcousticCondition, mix
from audiopipe.bench.corpus.prompts import Samples
from audiopipe.bench.corpus.script import write_scripts
from audiopipe.bench.corpus.sources import load_speech
from audiopipe.bench.corpus.video import make_signal

NOISY_DB, CLEAN_DB = 1.0, 12.0


@pytest.fixture(scope="module")
def sounds(demo: Demo) -> dict[str, Sound]:
    return {truth["id"]: decode(demo.audio(truth)) for truth in demo.good}


def inside(truth: dict[str, Any], sound: Sound) -> np.ndarray:
    """Return a mask of the samples in a span of speech: `[T]`."""
    mask = np.zeros(len(sound.samples), bool)
    for start, end, _ in truth["spans"]:
        mask[int(start * sound.rate_hz) : int(end * sound.rate_hz)] = True
    return mask


def rms_db(samples: Samples) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))


def best_lag(left: Samples, right: Samples) -> int:
    """Return the shift in samples, in either direction, that aligns two signals of equal length."""
    size = 1 << (2 * len(left) - 1).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(left, size) * np.fft.rfft(right, size).conj(), size)
    lag = int(np.argmax(correlation))
    return min(lag, size - lag)


def test_every_format_is_there(demo: Demo) -> None:
    formats = {(truth["container"], truth["codec"], truth["sample_rate_hz"], truth["channels"]) for truth in demo.good}
    assert formats == {(form.container, form.codec, form.sample_rate_hz, form.channels) for form in FORMATS}


def test_streams_are_as_declared(demo: Demo, sounds: dict[str, Sound]) -> None:
    names = {"mp3float": "mp3", "libopus": "opus"}
    for truth in demo.good:
        sound = sounds[truth["id"]]
        stream = (names.get(sound.codec, sound.codec), sound.rate_hz, sound.samples.shape[1])
        assert stream == (truth["codec"], truth["sample_rate_hz"], truth["channels"])
        assert sound.length_s == pytest.approx(truth["duration_s"], abs=0.06), truth["container"]


def test_speech_is_where_the_truth_says(demo: Demo, sounds: dict[str, Sound]) -> None:
    for truth in demo.good:
        sound = sounds[truth["id"]]
        mask = inside(truth, sound)
        louder = rms_db(sound.samples[mask]) - rms_db(sound.samples[~mask])
        assert louder > (NOISY_DB if truth["condition"] == "noisy" else CLEAN_DB), (truth["condition"], louder)


def test_spans_begin_and_end_with_their_prompt(demo_cache: Path) -> None:
    prompts = load_speech(demo_cache, ["it"])["it"][40:60]
    frames, spans = mix(
        prompts, 48_000, 1, AcousticCondition("no noise", snr_db=(200.0, 200.0)), np.random.default_rng(0)
    )
    silent = np.ones(len(frames), bool)
    for prompt, (start, end, text) in zip(prompts, spans, strict=True):
        spoken = slice(round(start * 48_000), round(end * 48_000))
        silent[spoken.start - 48 : spoken.stop + 48] = False
        expected = prompt.pcm(48_000)
        assert text == prompt.text
        assert spoken.stop - spoken.start == pytest.approx(len(expected), abs=48)
        size = min(len(expected), spoken.stop - spoken.start)
        assert best_lag(frames[spoken][:size, 0], expected[:size]) <= 48
    assert rms_db(frames[silent]) < -110
    assert all(0.3 <= after[0] - before[1] <= 1.501 for before, after in itertools.pairwise(spans))


def test_no_container_moves_the_sound(demo: Demo, sounds: dict[str, Sound], demo_cache: Path) -> None:
    """Check that decoders compensate the delay of encoders: the decoded sound is where it was mixed."""
    scripts = write_scripts(load_speech(demo_cache, ["en", "it"]), 12, 0)
    for truth in demo.good:
        mixed, spans = make_signal(next(script for script in scripts if script.id == truth["id"]))
        assert [list(span) for span in spans] == truth["spans"]
        decoded = sounds[truth["id"]].samples
        size = min(len(mixed), len(decoded), 20 * truth["sample_rate_hz"])
        assert best_lag(decoded[:size, 0], mixed[:size, 0].clip(-1, 1)) <= 24, truth["container"]


def test_json_next_to_the_audio_has_the_true_segments(demo: Demo) -> None:
    for truth in (truth for truth in demo.good if truth["segments"] == "json"):
        data = next(data for name, data in demo.members(truth).items() if name.endswith(".json"))
        metadata = json.loads(data)
        assert metadata["id"] == truth["id"]
        assert metadata["duration"] == truth["duration_s"]
        spans = [[segment["start"], segment["end"], segment["text"]] for segment in metadata["segments"]]
        assert spans == truth["spans"]
        assert all(segment["speaker"] for segment in metadata["segments"])


def test_captions_next_to_the_audio_have_the_true_times(demo: Demo) -> None:
    clock = re.compile(r"(\d\d):(\d\d):(\d\d)[.,](\d{3}) --> (\d\d):(\d\d):(\d\d)[.,](\d{3})[^\n]*\n(.*)")
    for truth in (truth for truth in demo.good if truth["segments"] in ("vtt", "srt")):
        data = next(data for name, data in demo.members(truth).items() if name.endswith(truth["segments"])).decode()
        assert data.startswith("WEBVTT\n" if truth["segments"] == "vtt" else "1\r\n")
        spans = []
        for *digits, text in clock.findall(data.replace("\r", "")):
            hours, minutes, seconds, millis = np.reshape([int(digit) for digit in digits], (2, 4)).T
            start, end = hours * 3600 + minutes * 60 + seconds + millis / 1000
            spans.append([pytest.approx(start), pytest.approx(end), text])
        assert spans == truth["spans"]


def test_videos_without_times_carry_none(demo: Demo) -> None:
    without = [truth for truth in demo.good if truth["segments"] is None]
    members = [demo.members(truth) for truth in without]
    assert without
    assert not any(name.endswith((".vtt", ".srt")) for names in members for name in names)
    assert not any(b"segments" in data for names in members for name, data in names.items() if name.endswith("json"))


def test_audio_comes_first_in_some_tars_and_last_in_others(demo: Demo) -> None:
    places = [[name.endswith(t["container"]) for name in demo.members(t)].index(True) for t in demo.good]
    assert {0, 1} <= set(places)


def test_acoustic_conditions_can_be_measured(demo: Demo, sounds: dict[str, Sound]) -> None:
    def samples_of(condition: str) -> Samples:
        return sounds[demo.with_condition(condition)["id"]].samples

    assert np.abs(samples_of("quiet")).max() < 10 ** (-26 / 20)
    assert np.mean(np.abs(samples_of("hot")) > 0.9999) > 1e-3
    assert np.mean(np.abs(samples_of("plain")) > 0.9999) < 1e-4
    left, right = samples_of("dual mono").T
    assert rms_db(left - right) < rms_db(left) - 30
    left, right = samples_of("plain").T
    assert rms_db(left - right) > rms_db(left) - 20


def test_low_passed_speech_has_little_above_its_edge(demo: Demo, sounds: dict[str, Sound]) -> None:
    def high_share(truth: dict[str, Any]) -> float:
        """Return the fraction of the power of speech between 4 and 8 kHz."""
        sound = sounds[truth["id"]]
        power = np.abs(np.fft.rfft(sound.samples[inside(truth, sound), 0])) ** 2
        edges = [int(frequency * 2 * len(power) / sound.rate_hz) for frequency in (4_000, 8_000)]
        return float(power[slice(*edges)].sum() / power.sum())

    assert high_share(demo.with_condition("low-passed")) < 1e-3
    assert high_share(demo.with_condition("plain")) > 5e-3


def test_noisy_ones_are_noisier(demo: Demo, sounds: dict[str, Sound]) -> None:
    def pause_below_speech_db(condition: str) -> float:
        truth = demo.with_condition(condition)
        sound, mask = sounds[truth["id"]], inside(truth, sounds[truth["id"]])
        return rms_db(sound.samples[mask]) - rms_db(sound.samples[~mask])

    assert pause_below_speech_db("noisy") < 8
    assert pause_below_speech_db("plain") > 15


def test_reupload_is_the_same_sound_in_another_file(demo: Demo, sounds: dict[str, Sound]) -> None:
    copy = next(truth for truth in demo.good if truth["duplicate_of"])
    original = next(truth for truth in demo.good if truth["id"] == copy["duplicate_of"])
    assert copy["spans"] == original["spans"]
    assert demo.audio(copy) != demo.audio(original)
    left, right = (sounds[truth["id"]].samples.mean(axis=1) for truth in (original, copy))
    size = min(len(left), len(right))
    assert np.corrcoef(left[:size], right[:size])[0, 1] > 0.98


def test_m4a_has_its_index_first_in_one_and_last_in_another(demo: Demo) -> None:
    places = [data.index(b"moov") < data.index(b"mdat") for data in map(demo.audio, demo.good) if b"moov" in data]
    assert {True, False} == set(places)


def test_script_of_the_whole_corpus_is_spread_evenly(demo_cache: Path) -> None:
    prompts = load_speech(demo_cache)
    good = [script for script in write_scripts(prompts, 30, 0) if script.defect is None]
    lengths = [sum(prompt.length_s for prompt in script.prompts) + len(script.prompts) * 0.9 for script in good]
    assert 18 < min(lengths) < 30
    assert 200 < max(lengths) < 260
    sidecars = [script.sidecar for script in good]
    assert 13 <= sidecars.count("json") <= 17
    assert sidecars.count("vtt") >= 3
    assert sidecars.count("srt") >= 3
    assert [[script.language for script in good].count(name) for name in prompts] == pytest.approx([6] * 5, abs=1)
    paths = [prompt.path for script in good if script.duplicate_of is None for prompt in script.prompts]
    assert len(paths) == len(set(paths))


def test_ffmpeg_makes_the_same_of_a_file_as_our_reader(demo: Demo, sounds: dict[str, Sound]) -> None:
    """Compare with the ffmpeg program, which users have, and not only with the library that the pipeline uses."""
    truth = demo.with_condition("quiet")
    command = [find_ffmpeg(), "-v", "error", "-i", "pipe:0", "-f", "f32le", "pipe:1"]
    out = subprocess.run(command, input=demo.audio(truth), capture_output=True, check=True).stdout
    samples = np.frombuffer(out, "<f4").reshape(-1, truth["channels"])
    assert len(samples) / truth["sample_rate_hz"] == pytest.approx(truth["duration_s"], abs=0.06)
    size = min(len(samples), len(sounds[truth["id"]].samples))
    assert np.corrcoef(samples[:size, 0], sounds[truth["id"]].samples[:size, 0])[0, 1] > 0.99
