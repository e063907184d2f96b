import json
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe.config import RunConfig
from audiopipe.errors import BadSegments
from audiopipe.segment.choose import ChosenSpans, choose_spans
from audiopipe.segment.cut import (
    BAD_TIMES,
    PAST_END,
    TOO_LONG,
    TOO_SHORT,
    _BlockBuffer,
    cut,
    fixed_windows,
    refuse_excess,
)
from audiopipe.segment.timestamp_map import MediaClock
from audiopipe.types import CaptionFile, SegmentSource, Span

RATE = 100
NAN, INF = math.nan, math.inf
JSON = b'{"segments": [{"start": 0, "end": 1}]}'
SUBRIP = CaptionFile(SegmentSource.SRT, b"1\n00:00:00,000 --> 00:00:02,000\nhi\n")
EMPTY_WEBVTT = CaptionFile(SegmentSource.VTT, b"WEBVTT\n")


def config(**parameters):
    return RunConfig.of(catalog="c", output="o", **parameters)


def stream(seconds, block_s=1.0, channels=2, rate=RATE):
    """Make blocks [C, T] in which each sample is the number of its frame."""
    total, step = round(seconds * rate), max(1, round(block_s * rate))
    ramp = np.tile(np.arange(total, dtype=np.float32), (channels, 1))
    return [ramp[:, i : i + step] for i in range(0, total, step)]


def cut_clips(times, seconds, block_s=1.0, **parameters):
    return list(cut("v", stream(seconds, block_s), times, RATE, config(**parameters)))


def times_of(clips):
    return [(clip.index, clip.span.start_s, clip.span.end_s, clip.drop_reason) for clip in clips]


def test_auto_prefers_json_then_captions_then_voice():
    assert choose_spans(config(), JSON, SUBRIP) == ChosenSpans(SegmentSource.JSON, [Span(0, 1)])
    no_segments = "JSON: it has no segments"
    assert choose_spans(config(), b"{}", SUBRIP) == ChosenSpans(SegmentSource.SRT, [Span(0, 2, "hi")], no_segments)
    assert choose_spans(config(), b"{}", None) == ChosenSpans(SegmentSource.VOICE, None, no_segments)
    assert choose_spans(config(), None, None) == ChosenSpans(SegmentSource.VOICE, None)
    no_text = f"captions: {EMPTY_WEBVTT.name} has no text"
    assert choose_spans(config(), None, EMPTY_WEBVTT) == ChosenSpans(SegmentSource.VOICE, None, no_text)


def test_fixed_windows_are_adjacent_and_endless():
    chosen = choose_spans(config(segments="fixed"), None, None)
    assert chosen.source is SegmentSource.FIXED
    assert [next(iter(chosen.spans)) for _ in range(2)] == [Span(0, 5), Span(5, 10)]


def test_a_forced_source_is_used_although_others_exist():
    assert choose_spans(config(segments="captions"), JSON, SUBRIP).source is SegmentSource.SRT
    assert choose_spans(config(segments="json"), JSON, SUBRIP).source is SegmentSource.JSON
    assert choose_spans(config(segments="fixed"), b"not even JSON", SUBRIP).source is SegmentSource.FIXED


@pytest.mark.parametrize(
    ("choice", "document", "captions"),
    [("json", None, SUBRIP), ("json", b"{}", SUBRIP), ("captions", JSON, None), ("captions", JSON, EMPTY_WEBVTT)],
)
def test_a_missing_forced_source_is_an_error(choice, document, captions):
    with pytest.raises(BadSegments, match=f"segments='{choice}'"):
        choose_spans(config(segments=choice), document, captions)


def test_auto_does_not_skip_a_broken_file():
    with pytest.raises(BadSegments):
        choose_spans(config(), b"{", SUBRIP)
    with pytest.raises(BadSegments):
        choose_spans(config(), None, CaptionFile(SegmentSource.VTT, b"\xff\xff"))


@pytest.mark.parametrize("block_s", [0.01, 0.33, 1.0, 7.0, 100.0])
def test_a_clip_has_exactly_its_frames_for_any_block_size(block_s):
    times = [Span(0.5, 2.25), Span(1.0, 4.0), Span(9.0, 10.0)]
    for clip, (start, stop) in zip(cut_clips(times, 10, block_s), [(50, 225), (100, 400), (900, 1000)], strict=True):
        np.testing.assert_array_equal(clip.pcm, np.tile(np.arange(start, stop), (2, 1)))
        assert clip.pcm.dtype == np.float32
        assert (clip.video_id, clip.sample_rate_hz, clip.drop_reason) == ("v", RATE, None)


def test_windows_tile_the_audio_and_the_last_one_is_the_rest():
    clips = cut_clips(fixed_windows(3.0), 10)
    assert times_of(clips) == [(0, 0, 3, None), (1, 3, 6, None), (2, 6, 9, None), (3, 9, 10, None)]
    np.testing.assert_array_equal(np.concatenate([clip.pcm[0] for clip in clips]), np.arange(1000))


def test_a_last_window_below_the_minimum_has_a_drop_reason():
    assert times_of(cut_clips(fixed_windows(3.0), 9.3))[-1] == (3, 9.0, 9.3, TOO_SHORT)
    assert len(cut_clips(fixed_windows(3.0), 9.0)) == 3


@pytest.mark.parametrize("window_s", [0.7, 1 / 3 + 0.4, 2.345])
def test_windows_of_the_maximum_length_are_not_too_long(window_s):
    clips = cut_clips(fixed_windows(window_s), 60, window_s=window_s, max_segment_s=window_s, min_segment_s=0.0)
    assert {clip.drop_reason for clip in clips} == {None}
    assert sum(clip.frames for clip in clips) == 6000


def test_clips_of_unordered_spans_are_sorted_and_numbered():
    clips = cut_clips([Span(4, 5, "c"), Span(0, 3, "b"), Span(0, 1, "a"), Span(4, 5, "d")], 10)
    assert [(clip.index, clip.span.text) for clip in clips] == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


def test_every_drop_has_its_reason_and_no_samples():
    times = {
        Span(NAN, 1.0): BAD_TIMES,
        Span(1.0, NAN): BAD_TIMES,
        Span(-INF, INF): BAD_TIMES,
        Span(1e300, 2e300): BAD_TIMES,
        Span(3.0, 2.0): BAD_TIMES,
        Span(-3.0, -1.0): BAD_TIMES,
        Span(1.0, 1.0): TOO_SHORT,
        Span(1.0, 1.2): TOO_SHORT,
        Span(1.0, 40.0): TOO_LONG,
        Span(11.0, 12.0): PAST_END,
        Span(10.0, 12.0): PAST_END,
        Span(50.0, 90.0): PAST_END,
        Span(9.9, 13.0): TOO_SHORT,
        Span(8.0, 13.0, "cut in the middle"): PAST_END,
    }
    clips = cut_clips(list(times), 10)
    assert len(clips) == len(times)
    spans = [Span(9.9, 10.0) if span == Span(9.9, 13.0) else span for span in times]
    assert [(str(clip.span), clip.drop_reason) for clip in sorted(clips, key=lambda clip: str(clip.span))] == sorted(
        zip(map(str, spans), times.values(), strict=True)
    )
    assert all(clip.pcm.shape == (2, 0) for clip in clips)
    assert [clip.index for clip in clips] == list(range(len(times)))


def test_a_span_beyond_an_edge_is_clipped_to_the_audio():
    clips = cut_clips([Span(-1, 2, "a"), Span(8, 10.3, "b"), Span(8, 13)], 10)
    assert times_of(clips) == [(0, 0.0, 2, None), (1, 8, 10.0, None), (2, 8, 10.0, None)]
    assert [clip.frames for clip in clips] == [200, 200, 200]


def test_no_audio_drops_every_listed_span_and_ends_windows():
    assert [clip.drop_reason for clip in cut_clips([Span(0, 1), Span(2, 3)], 0)] == [PAST_END, PAST_END]
    assert cut_clips(fixed_windows(5.0), 0) == []


def test_windows_that_are_all_too_short_end_with_the_audio():
    clips = cut_clips(fixed_windows(1.0), 10, min_segment_s=5.0)
    assert [clip.drop_reason for clip in clips] == [TOO_SHORT] * 10


def test_a_clip_is_yielded_as_soon_as_its_end_is_decoded():
    consumed = []

    def blocks():
        for block in stream(10):
            consumed.append(block)
            yield block

    arrivals = {
        clip.index: len(consumed)
        for clip in cut("v", blocks(), [Span(0, 2), Span(1, 1.5), Span(3.5, 4.5)], RATE, config())
    }
    assert arrivals == {0: 2, 1: 2, 2: 5}
    assert len(consumed) == 10, "the decoder must be read to its end"


def test_a_small_clip_does_not_keep_its_block_in_memory():
    small, large = cut("v", [np.zeros((1, 1000), np.int16)], [Span(0, 1), Span(0, 6)], RATE, config())
    assert small.pcm.base is None
    assert large.pcm.base is not None


@settings(max_examples=60)
@given(
    times=st.lists(st.tuples(st.integers(-300, 1500), st.integers(-20, 400)), max_size=12),
    sizes=st.lists(st.integers(0, 300), max_size=8),
    text=st.sampled_from([None, "words"]),
)
def test_streaming_equals_slicing_the_whole_audio(times, sizes, text):
    total = sum(sizes)
    audio = np.arange(total, dtype=np.int16)[None]
    blocks = np.split(audio, np.cumsum(sizes)[:-1], axis=1) if sizes else []
    spans = [Span(start / RATE, (start + length) / RATE, text) for start, length in times]
    limits = config(window_s=1.0, min_segment_s=0.1, max_segment_s=3.0)
    clips = list(cut("v", blocks, spans, RATE, limits))
    assert len(clips) == len(spans)
    for clip in clips:
        if clip.drop_reason is None:
            start, stop = round(clip.span.start_s * RATE), round(clip.span.end_s * RATE)
            np.testing.assert_array_equal(clip.pcm, audio[:, start:stop])
            assert 9 <= clip.frames <= 301
    for span, clip in zip(sorted(spans, key=lambda s: (s.start_s, s.end_s)), clips, strict=True):
        is_valid = span.start_s >= 0 and span.end_s * RATE <= total and 0.1 <= span.duration_s <= 3.0
        assert clip.drop_reason is None or not is_valid


@pytest.mark.bulk
def test_a_ten_hour_video_is_cut_in_constant_memory():
    rate, block = 16_000, np.zeros((1, 16_000), np.int16)
    overlapping = [Span(i, i + 30.0, "t") for i in range(0, 36_000, 5)] + [Span(0, 36_000.0)]
    tracemalloc.start()
    start = time.process_time()
    blocks = (block.copy() for _ in range(36_000))
    frames = sum(clip.frames for clip in cut("v", blocks, overlapping, rate, config()))
    cpu_s, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frames == (7200 - 5) * 30 * rate
    assert peak < 12 * 2**20, "30 s of samples and a copy are 2 MB, the 7,200 spans another 2"
    assert cpu_s < 60


def test_a_span_that_is_too_long_is_never_buffered(monkeypatch):
    max_blocks = 0
    append = _BlockBuffer.append

    def append_and_count(buffer, block):
        nonlocal max_blocks
        append(buffer, block)
        max_blocks = max(max_blocks, len(buffer.blocks))

    monkeypatch.setattr(_BlockBuffer, "append", append_and_count)
    times = [Span(0, 500), Span(1, 400), Span(100, 129), Span(600, 610)]
    assert [clip.drop_reason for clip in cut_clips(times, 700)] == [TOO_LONG, TOO_LONG, None, None]
    assert max_blocks == 29


def test_spans_that_cover_the_audio_too_often_are_refused():
    spans = [Span(0.01 * number, 30 + 0.01 * number) for number in range(200)]
    with pytest.raises(BadSegments, match=r"200 segments have 59\d\d\.\d s in total, and its audio 31\.0 s"):
        refuse_excess(spans, 31.0, config())
    refuse_excess(spans[:1], 31.0, config())
    refuse_excess([*spans[:1], Span(NAN, 1), Span(-900, -800), Span(0, 500), Span(40, 60)], 31.0, config())
    refuse_excess(fixed_windows(5.0), 31.0, config())
    refuse_excess(spans, 31.0, config(max_segment_time_ratio=200))


@pytest.mark.parametrize(("name", "ends"), [("duration", [2.0, 6.0]), ("end", [4.0, 9.0])])
def test_a_display_that_outlasts_the_audio_ends_with_it(name, ends):
    entries = [{"text": "a", "start": 1.0, name: 4.0}, {"text": "b", "start": 2.0, name: 9.0}]
    chosen = choose_spans(config(), json.dumps({"segments": entries}).encode(), None, MediaClock(None, 6.0))
    assert [span.end_s for span in chosen.spans] == ends


def test_more_segments_than_the_limit_are_refused():
    document = json.dumps([{"start": n, "end": n + 1} for n in range(11)]).encode()
    assert len(choose_spans(config(max_segments=11), document, None).spans) == 11
    with pytest.raises(BadSegments, match=r"it has 11 segments, more than max_segments \(10\)"):
        choose_spans(config(max_segments=10), document, None)


def test_joined_captions_have_no_more_text_than_a_segment():
    cues = "".join(f"0:0{n}.000 --> 0:0{n + 1}.000\n{'a' * 9_000}\n\n" for n in range(1, 4))
    captions = CaptionFile(SegmentSource.VTT, ("WEBVTT\n\n" + cues).encode())
    assert len(choose_spans(config(), None, captions).spans) == 3
    with pytest.raises(BadSegments, match="27002 characters of text"):
        choose_spans(config(merge_captions="on"), None, captions)
