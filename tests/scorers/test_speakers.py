"""The scorer `speakers` on real prompts of several voices; figures on many are in test_speakers_truth.py."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from audiopipe.bench.corpus import load_speech
from audiopipe.models.pyannote_segmentation import WINDOW
from audiopipe.scorers.scorer import ScorerBatch, SegmentInfo
from audiopipe.scorers.speaker_activity import join_windows, window_starts
from audiopipe.scorers.speaker_clusters import label_segments
from audiopipe.scorers.speakers import Speakers

CPU = torch.device("cpu")
RATE = 16_000
CACHE = Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", Path(__file__).parents[2] / "demo/corpus/cache"))


def take(prompts, seconds, skip=0):
    """Join prompts of over a second to `seconds` of speech."""
    parts = [prompt.pcm(RATE) for prompt in prompts[skip : skip + 60] if prompt.length_s > 1.5]
    return np.concatenate(parts)[: round(seconds * RATE)]


def batch_of(signals):
    lengths = [len(signal) for signal in signals]
    samples = torch.zeros(len(signals), 1, max(lengths))
    for row, signal in zip(samples, signals, strict=True):
        row[0, : len(signal)] = torch.from_numpy(signal)
    segments = [SegmentInfo("v", "en", length / RATE, None, None) for length in lengths]
    return ScorerBatch(samples, lengths, segments, RATE)


@pytest.fixture(scope="module")
def scorer():
    scorer = Speakers(speaker_labels=True)
    scorer.load(CPU)
    return scorer


@pytest.fixture(scope="module")
def signals():
    speech = load_speech(CACHE, ["fr", "it"], lambda line: None)
    june, carlo = take(speech["fr"], 6.0), take(speech["it"], 6.0)
    size = 3 * RATE
    return {
        "one": june[: 4 * RATE],
        "two": np.concatenate([june[:size], carlo[:size]]),
        "both": np.concatenate([june[:size], 0.7 * (june[size:] + carlo[size:])]),
        "silence": np.zeros(RATE, np.float32),
        "short": june[:200],
        "same": june[4 * RATE :],
    }


@pytest.fixture(scope="module")
def values(scorer, signals):
    columns = scorer.score(batch_of(list(signals.values())))
    return {
        name: {column: column_values[i] for column, column_values in columns.items()} for i, name in enumerate(signals)
    }


def test_speakers_are_counted(values):
    assert [values[name]["speakers"] for name in ("one", "two", "both")] == [1, 2, 2]
    assert values["one"]["main_speaker_ratio"] == 1
    assert 0.35 < values["two"]["main_speaker_ratio"] < 0.65
    assert values["two"]["overlap_ratio"] < 0.1
    assert 0.3 < values["both"]["overlap_ratio"] < 0.7


def test_without_speech_there_are_no_ratios(values):
    for name in ("silence", "short"):
        assert list(values[name].values()) == [0, None, None, None]


def test_a_segment_alone_has_the_same_values(scorer, signals, values):
    alone = scorer.score(batch_of([signals["two"]]))
    assert alone["speakers"] == [2]
    assert np.allclose(alone["speaker_embedding"][0], values["two"]["speaker_embedding"], atol=1e-4)


def test_labels_follow_the_voices_of_a_video(scorer, values):
    names = ["one", "two", "silence", "same"]
    rows = {column: [values[name][column] for name in names] for column in values["one"]}
    assert scorer.finish_video(rows | {"speaker": [None] * 4}) == {"speaker": ["S1", None, None, "S1"]}
    assert scorer.finish_video(rows | {"speaker": ["June", None, None, None]})["speaker"][3] == "June"
    assert Speakers().finish_video(rows | {"speaker": [None] * 4}) == {}


def test_embeddings_are_stored_only_on_request():
    def stored(**options):
        return [column.name for column in Speakers(**options).columns if column.stored]

    assert stored() == stored(speaker_labels=True) == ["speakers", "overlap_ratio", "main_speaker_ratio"]
    assert stored(speaker_embeddings=True)[3:] == ["speaker_embedding"]


def test_labels_are_numbered_by_appearance():
    voices = np.eye(3, dtype=np.float32)
    embeddings = [voices[2], None, voices[0], voices[2], voices[0], voices[1]]
    assert label_segments(embeddings, [None] * 6) == ["S1", None, "S2", "S1", "S2", "S3"]
    assert label_segments(embeddings, [None, "S1", None, "Ann", None, None]) == ["Ann", "S1", "S2", "Ann", "S2", "S3"]
    assert label_segments([None], [None]) == [None]


def test_windows_cover_a_segment_and_join():
    assert window_starts(WINDOW // 3) == window_starts(WINDOW) == [0]
    starts = window_starts(23 * RATE)
    assert starts[-1] * 270 + WINDOW >= 23 * RATE > starts[-1] * 270 + WINDOW - 270
    truth = np.zeros((starts[-1] + 589, 3), dtype=bool)
    truth[:500, 0] = truth[450:, 1] = True
    orders = [[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1]]
    windows = [truth[start : start + 589][:, order] for start, order in zip(starts, orders, strict=False)]
    assert (join_windows(starts, windows) == truth[:, :2]).all()
