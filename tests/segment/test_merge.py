import html
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiopipe.config import RunConfig
from audiopipe.segment.choose import choose_spans
from audiopipe.segment.merge import merge_spans
from audiopipe.segment.sentences import split_sentences
from audiopipe.segment.text import parse_markup
from audiopipe.types import CaptionFile, SegmentSource, Span


def spans_of(*rows):
    return [Span(start, end, text) for start, end, text in rows]


def texts_of(spans):
    return [span.text for span in spans]


def test_segments_end_at_sentence_ends():
    rows = [
        (0, 2, "The kettle is"),
        (2, 4, "on. We wait"),
        (4, 6, "for tea."),
        (6, 8, "People have"),
        (8, 10, "any milk?"),
    ]
    assert merge_spans(spans_of(*rows), 0.4, 30) == spans_of(
        (0, 6, "The kettle is on. We wait for tea."), (6, 10, "People have any milk?")
    )


def test_segments_end_at_pauses_and_other_speakers():
    rows = [Span(0, 2, "the kettle"), Span(2.2, 4, "is on"), Span(5, 6, "we wait"), Span(6, 7, "for tea", "B")]
    assert texts_of(merge_spans(rows, 0.4, 30)) == ["the kettle is on", "we wait", "for tea"]


def test_no_segment_is_longer_than_the_maximum():
    rows = [(n, n + (0.7 if n == 7 else 1), f"w{n}") for n in range(25)]
    merged = merge_spans(spans_of(*rows), 0.4, 10)
    assert max(span.duration_s for span in merged) <= 10
    assert merged[0].end_s == 7.7  # the only pause
    assert " ".join(texts_of(merged)) == " ".join(f"w{n}" for n in range(25))


@pytest.mark.parametrize(("end", "joined"), [("。", "你好。世界"), ("", "你好世界。再见")])
def test_chinese_is_joined_without_blanks(end, joined):
    rows = spans_of((0, 3, "你好" + end), (3, 6, "世界" + ("" if end else "。再见")))
    assert "".join(texts_of(merge_spans(rows, 0.4, 30))) == joined
    assert len(merge_spans(rows, 0.4, 30)) == (2 if end else 1)


def test_spans_without_text_or_with_bad_times_stay():
    rows = [Span(0, 1, "a"), Span(1, 2), Span(2, 3, "b"), Span(9, 4, "bad")]
    assert texts_of(merge_spans(rows, 0.4, 30)) == ["a", None, "b", "bad"]


@pytest.mark.parametrize(
    ("choice", "automatic", "count"), [("off", True, 2), ("auto", True, 1), ("auto", False, 2), ("on", False, 1)]
)
def test_auto_joins_automatic_captions_only(choice, automatic, count):
    data = b"1\n0:01 --> 0:02\nthe kettle\n\n2\n0:02 --> 0:03\nis on\n"
    config = RunConfig.of(catalog="c", output="o", merge_captions=choice)
    assert len(choose_spans(config, None, CaptionFile(SegmentSource.SRT, data, automatic)).spans) == count


WORDS = """WEBVTT

00:00:01.000 --> 00:00:03.000
we<00:00:01.400><c> wait.</c><00:00:02.000><c> then</c><00:00:02.500><c> Dr.</c>

00:00:03.000 --> 00:00:05.000
Who<00:00:03.400><c> comes.</c><00:00:04.000><c> with</c><00:00:04.400><c> no</c><00:00:04.700><c> end</c>
"""


def read_merged(text, **parameters):
    config = RunConfig.of(catalog="c", output="o", **{"merge_captions": "auto", "min_segment_s": 0.1} | parameters)
    spans = choose_spans(config, None, CaptionFile(SegmentSource.VTT, text.encode())).spans
    return [(span.start_s, span.end_s, span.text) for span in spans]


def test_captions_with_word_times_are_cut_within():
    assert read_merged(WORDS) == [(1.0, 4.0, "we wait. then Dr. Who comes."), (4.0, 5.0, "with no end")]
    assert read_merged(WORDS, merge_captions="off") == [
        (1.0, 3.0, "we wait. then Dr."),
        (3.0, 5.0, "Who comes. with no end"),
    ]


def test_a_caption_longer_than_the_maximum_is_cut_at_a_word():
    merged = read_merged(WORDS, max_segment_s=1.5, window_s=1.0)
    assert merged == [
        *((1.0, 2.0, "we wait."), (2.0, 3.0, "then Dr.")),
        *((3.0, 4.0, "Who comes."), (4.0, 5.0, "with no end")),
    ]
    without_stops = WORDS.replace(".</c>", "</c>")
    assert all(end - start <= 1.5 for start, end, _ in read_merged(without_stops, max_segment_s=1.5, window_s=1.0))
    assert " ".join(text for *_, text in read_merged(without_stops, max_segment_s=1.5, window_s=1.0)) == (
        "we wait then Dr Who comes with no end"
    )


def test_word_times_outside_of_their_caption_cut_nothing():
    moved = WORDS.replace("<00:00:0", "<00:10:0")
    assert read_merged(moved) == [(1.0, 5.0, "we wait. then Dr. Who comes. with no end")]


@pytest.mark.timeout(20)
def test_a_caption_of_many_words_is_cut_in_linear_time():
    words = "".join(f"<00:{second // 60:02}:{second % 60:02}.500><c> w{second}</c>" for second in range(700))
    merged = read_merged(f"WEBVTT\n\n00:00:00.000 --> 01:00:00.000\nw{words}\n")
    assert len(" ".join(text for *_, text in merged).split()) == 701


@given(st.lists(st.tuples(st.text("ab .!&", max_size=6), st.floats(0, 9)), max_size=12), st.floats(0.5, 9))
def test_cutting_at_words_loses_no_word(words, max_s):
    raw = "".join(f"<00:00:0{time:.3f}><c>{html.escape(word)}</c>" for word, time in words)
    span = Span(0.0, 9.5, parse_markup(raw).text, None, False, raw)
    parts = list(split_sentences([span], max_s))
    characters = "".join(part.text or "" for part in parts)
    assert characters.replace(" ", "") == (span.text or "").replace(" ", "")
    assert [part.start_s for part in parts] == sorted({part.start_s for part in parts})
    assert [part.end_s for part in parts[:-1]] == [part.start_s for part in parts[1:]]
    assert (parts[0].start_s, parts[-1].end_s) == (span.start_s, span.end_s)


JSON3 = {
    "wireMagic": "pb3",
    "events": [
        {"tStartMs": 0, "dDurationMs": 9000, "id": 1},
        {
            "tStartMs": 1000,
            "dDurationMs": 4000,
            "segs": [
                {"utf8": "\n"},
                {"utf8": "we"},
                {"utf8": " wait.", "tOffsetMs": 400},
                {"utf8": " then", "tOffsetMs": 1000},
            ],
        },
        {"tStartMs": 3000, "dDurationMs": 2000, "segs": [{"utf8": "no"}, {"utf8": " end", "tOffsetMs": 700}]},
    ],
}
WHISPER = [
    {
        "text": " We wait.  Then",
        "start": 1.0,
        "end": 3.0,
        "words": [
            {"word": " We", "start": 1.0},
            {"word": " wait.", "start": 1.4},
            {"word": " Then", "start": 2.0, "end": 3.0},
        ],
    },
    {"text": "no end", "start": 3.0, "end": 5.0},
]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (JSON3, [(1.0, 2.0, "we wait."), (2.0, 5.0, "then no end")]),
        ({"segments": WHISPER}, [(1.0, 2.0, "We wait."), (2.0, 5.0, "Then no end")]),
        ({"segments": [{**WHISPER[0], "text": "quite other words."}]}, [(1.0, 3.0, "quite other words.")]),
    ],
)
def test_json_with_word_times_is_cut_within(document, expected):
    config = RunConfig.of(catalog="c", output="o", merge_captions="on", max_segment_s=3.5, window_s=1.0)
    data = json.dumps(document).encode()
    file = CaptionFile(SegmentSource.JSON3, data)
    is_captions = "events" in document
    spans = choose_spans(config, None if is_captions else data, file if is_captions else None).spans
    assert [(span.start_s, span.end_s, span.text) for span in spans] == expected
