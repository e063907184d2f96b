"""Measure the scorer `speakers` on segments made of single-speaker prompts, where it is known who speaks when.

The voices are Debian's prompts in five languages: three women and a man, since the prompts in English and Spanish are
by the same person. The test prints the figures.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from audiopipe.bench.corpus import load_speech
from audiopipe.scorers.scorer import ScorerBatch, SegmentInfo
from audiopipe.scorers.speakers import Speakers

RATE = 16_000
CACHE = Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", Path(__file__).parents[2] / "demo/corpus/cache"))
PEOPLE = {"en": "Allison", "es": "Allison", "fr": "June", "it": "Carlo", "ru": "Ivrvoice"}
LENGTHS = (3, 5, 10, 20, 30)
SNRS = (None, 20, 10)
HOP = 320  # samples of a frame of the truth


def find_speech(signal):
    """Return in which frames there is speech, with gaps of up to 0.2 s filled: [frames]"""
    frames = signal[: len(signal) // HOP * HOP].reshape(-1, HOP)
    level = np.sqrt((frames**2).mean(axis=1) + 1e-12)
    active = level > max(1e-4, np.percentile(level, 95) * 10 ** (-32 / 20))
    places = np.flatnonzero(active)
    for first, second in pairwise(places):
        if second - first <= 10:
            active[first:second] = True
    return active


def make_track(prompts, samples, rng):
    """Join prompts with pauses of 0.08 to 0.5 s: [samples]"""
    parts, length = [], 0
    while length < samples:
        prompt = prompts[rng.integers(len(prompts))].pcm(RATE)
        prompt = prompt / np.sqrt((prompt**2).mean() + 1e-9) * 0.06 * 10 ** (rng.uniform(-3, 3) / 20)
        pause = np.zeros(int(rng.uniform(0.08, 0.5) * RATE), np.float32)
        parts += [pause, prompt.astype(np.float32)] if parts else [prompt.astype(np.float32)]
        length = sum(map(len, parts))
    return np.concatenate(parts)[:samples]


def add_noise(signal, snr_db, rng):
    """Add pink noise at a ratio to the level of the speech."""
    spectrum = np.fft.rfft(rng.standard_normal(len(signal)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), len(signal))
    speech = np.repeat(find_speech(signal), HOP)
    level = np.sqrt((signal[: len(speech)][speech] ** 2).mean())
    gain = 10 ** (-60 / 20) if snr_db is None else 10 ** (-snr_db / 20)
    mixed = signal + noise / noise.std() * level * gain
    return (mixed * min(1, 0.9 / np.abs(mixed).max())).astype(np.float32)


def make_segment(kind, tracks, seconds, rng):
    """Return a signal without noise and the share of its speech in which both speak."""
    size = seconds * RATE
    first, second = np.zeros(size, np.float32), np.zeros(size, np.float32)
    if kind == "one":
        return make_track(tracks[0], size, rng), 0.0
    share = 0.0 if kind == "two" else rng.uniform(0.1, 0.9)
    middle = 0.5 * size + (rng.uniform(-0.15, 0.15) * size if kind == "two" else 0)
    start, end = int(middle - share * size / 2), int(middle + share * size / 2)
    first[:end] = make_track(tracks[0], end, rng)
    second[start:] = make_track(tracks[1], size - start, rng)
    both, either = find_speech(first) & find_speech(second), find_speech(first) | find_speech(second)
    return first + second, both.sum() / either.sum()


@pytest.fixture(scope="module")
def results():
    """Score segments of one person, of two in sequence and of two at once."""
    speech = {
        language: [prompt for prompt in prompts if prompt.length_s > 0.4]
        for language, prompts in load_speech(CACHE, tuple(PEOPLE), lambda line: None).items()
    }
    pairs = cycle((a, b) for a in PEOPLE for b in PEOPLE if PEOPLE[a] != PEOPLE[b])
    scorer, rng, rows = Speakers(), np.random.default_rng(7), []
    scorer.load(torch.device("cpu"))
    for repetition, snr in enumerate(SNRS * 2):
        for kind in ("one", "two", "both"):
            for seconds in LENGTHS if repetition < len(SNRS) else LENGTHS[:3]:
                languages = next(pairs)
                signal, overlap = make_segment(kind, [speech[language] for language in languages], seconds, rng)
                samples = torch.from_numpy(add_noise(signal, snr, rng))[None, None]
                info = SegmentInfo("v", languages[0], float(seconds), None, None)
                values = scorer.score(ScorerBatch(samples, [samples.shape[-1]], [info], RATE))
                error = abs((values["overlap_ratio"][0] or 0) - overlap)
                rows.append((kind, languages, seconds, snr, values["speakers"][0], error))
    return rows


@pytest.mark.slow
def test_speakers_of_known_segments(results, capsys):
    shares = defaultdict(list)
    for kind, languages, seconds, snr, speakers, error in results:
        right = speakers == (1 if kind == "one" else 2)
        for group in ("all", f"{seconds} s", f"SNR {snr or 60} dB", languages[0]):
            shares[kind, group].append(right)
        shares[f"overlap error, {kind}", "all"].append(error)
    means = {group: float(np.mean(values)) for group, values in shares.items()}
    with capsys.disabled():
        for (kind, group), mean in means.items():
            sys.stdout.write(f"\n{kind:20} {group:10} {mean:.3f} of {len(shares[kind, group])}")
    assert means["one", "all"] >= 0.9
    assert means["two", "all"] >= 0.75
    assert means["overlap error, both", "all"] <= 0.15
    assert means["overlap error, two", "all"] <= 0.03
