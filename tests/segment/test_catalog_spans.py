"""Check that texts, speakers and times of the catalog become segments, and that a whole file is one segment."""

import json
import math

import numpy as np
import pytest

from audiopipe.config import RunConfig
from audiopipe.errors import BadSegments
from audiopipe.segment.catalog_spans import read_catalog_spans, row_speaker
from audiopipe.segment.choose import choose_spans
from audiopipe.segment.cut import cut_file
from audiopipe.segment.drop_reasons import TOO_LONG, TOO_SHORT
from audiopipe.segment.merge import merge_spans
from audiopipe.segment.timestamp_map import MediaClock
from audiopipe.types import SegmentSource, Span

RATE = 100
JSON = b'{"segments": [{"start": 0, "end": 1}]}'
SEGMENTS = json.dumps(
    [
        {"start": 1, "end": 2.5, "text": "NASA: we  [music]", "speaker": " A ", "columns": {"id": 7}},
        {"start": 3, "text": "to the end"},
    ]
)
WHOLE = json.dumps({"text": "hello", "speaker": "A"})
SPEAKER = json.dumps({"speaker": "A"})


def config(**parameters):
    return RunConfig.of(catalog="c", output="o", **parameters)


def test_texts_of_the_catalog_are_taken_as_they_are():
    first, second = read_catalog_spans(SEGMENTS, 9.0)
    assert first == Span(1.0, 2.5, "NASA: we [music]", "A")
    assert (first.raw_text, first.sound_event, first.values) == ("NASA: we  [music]", True, {"id": 7})
    assert (second.start_s, second.end_s) == (3.0, 9.0)
    assert math.isnan(read_catalog_spans(SEGMENTS, None)[1].end_s)


@pytest.mark.parametrize(
    ("segments", "rows", "source"),
    [
        ("auto", SEGMENTS, SegmentSource.CATALOG),
        ("auto", WHOLE, SegmentSource.FILE),
        ("auto", SPEAKER, SegmentSource.JSON),
        ("auto", None, SegmentSource.JSON),
        ("json", SEGMENTS, SegmentSource.JSON),
        ("fixed", WHOLE, SegmentSource.FIXED),
        ("file", None, SegmentSource.FILE),
        ("catalog", WHOLE, SegmentSource.FILE),
    ],
)
def test_the_catalog_comes_before_files_next_to_the_audio(segments, rows, source):
    chosen = choose_spans(config(segments=segments), JSON, None, MediaClock(None, 9.0), rows)
    assert chosen.source is source


def test_a_forced_catalog_without_times_is_refused():
    with pytest.raises(BadSegments, match="no segment times in catalog"):
        choose_spans(config(segments="catalog"), JSON, None, rows=SPEAKER)


def test_the_speaker_of_a_file_is_known_without_its_text():
    assert (row_speaker(SPEAKER), row_speaker(WHOLE), row_speaker(SEGMENTS), row_speaker(None)) == (
        "A",
        "A",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(0.2, TOO_SHORT), (0.4, None), (30.0, None), (30.5, TOO_LONG), (95.0, TOO_LONG)],
)
def test_a_whole_file_is_one_segment_or_dropped_with_its_length(seconds, reason):
    audio = np.arange(round(seconds * RATE), dtype=np.int16)[None]
    blocks = [audio[:, start : start + 70] for start in range(0, audio.shape[1], 70)]
    clip = cut_file("v", blocks, Span(0.0, math.inf, "hello", "A"), RATE, config())
    assert (clip.index, clip.drop_reason, clip.span) == (0, reason, Span(0.0, seconds, "hello", "A"))
    np.testing.assert_array_equal(clip.pcm, audio if reason is None else audio[:1, :0])


def test_joined_segments_keep_the_columns_that_they_share():
    spans = [Span(0, 1, "a", values={"id": 1, "show": "x"}), Span(1, 2, "b", values={"id": 2, "show": "x"})]
    (joined,) = merge_spans(spans, 2, 30)
    assert joined.values == {"show": "x"}
