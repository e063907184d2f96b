import contextlib
import gc
import json
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe.errors import BadSegments
from audiopipe.segment.captions import read_captions
from audiopipe.segment.documents import read_json
from audiopipe.segment.merge import merge_spans
from audiopipe.segment.timestamp_map import MediaClock
from audiopipe.types import CaptionFile, SegmentSource, Span

EVENTS = [
    {"tStartMs": 0, "dDurationMs": 9999, "id": 1},
    {"tStartMs": 1000, "dDurationMs": 4000, "segs": [{"utf8": "the"}, {"utf8": " kettle", "tOffsetMs": 500}]},
    {"tStartMs": 2500, "aAppend": 1, "segs": [{"utf8": "\n"}]},
    {"tStartMs": 3000, "dDurationMs": 4000, "segs": [{"utf8": "is on"}]},
]
SRV3 = """<?xml version="1.0" encoding="utf-8" ?><timedtext format="3"><head><ws id="0"/></head><body>
<w t="0" id="1"/><p t="1000" d="4000" w="1"><s ac="0">the</s><s t="500"> kettle</s></p>
<p t="2500" d="1500" w="1" a="1">\n</p><p t="3000" d="4000" w="1"><s>is on</s></p></body></timedtext>"""
SRV1 = '<transcript><text start="1" dur="4">the kettle</text><text start="3" dur="4">is on</text></transcript>'
TTML = """<tt xmlns="http://www.w3.org/ns/ttml" xmlns:p="http://www.w3.org/ns/ttml#parameter"
 p:frameRate="25"><body><div>
<p begin="00:00:01.000" end="3s">the<br/><span>kettle</span></p><p begin="00:00:03:00" dur="4000ms">is on</p>
</div></body></tt>"""
KETTLE = [Span(1.0, 3.0, "the kettle"), Span(3.0, 7.0, "is on")]


def read(source, text):
    return read_captions(CaptionFile(source, text.encode()))


@pytest.mark.parametrize(("text", "automatic"), [(SRV3, True), (SRV1, False), (TTML, False)])
@pytest.mark.parametrize("source", [SegmentSource.SRV, SegmentSource.TTML, SegmentSource.VTT])
def test_captions_in_xml_are_read_whatever_their_name(source, text, automatic):
    spans = read(source, text)
    assert (spans, spans.automatic) == (KETTLE, automatic)


def test_json3_has_each_word_once():
    data = json.dumps({"wireMagic": "pb3", "events": EVENTS}).encode()
    for spans in (read_json(data), read_captions(CaptionFile(SegmentSource.JSON3, data))):
        assert (spans, spans.automatic) == (KETTLE, True)


def test_a_hint_says_that_captions_are_automatic():
    data = b"1\n0:01 --> 0:02\na\n"
    assert not read_captions(CaptionFile(SegmentSource.SRT, data)).automatic
    assert read_captions(CaptionFile(SegmentSource.SRT, data, automatic=True)).automatic


def test_words_give_a_whisper_segment_what_it_lacks():
    word_entries = [
        {"word": "the", "start": 1.0, "end": 1.2},
        {"word": "kettle"},
        {"word": "boils", "start": 2.0, "end": 3.0},
    ]
    segments = [{"text": " hi", "start": 0, "end": 1, "speaker": "S1", "words": []}, {"words": word_entries}]
    assert read_json(json.dumps({"segments": segments}).encode()) == [
        Span(0, 1, "hi", "S1"),
        Span(1, 3, "the kettle boils"),
    ]
    whisper_cpp = {"transcription": [{"offsets": {"from": 1000, "to": 3000}, "text": " the kettle"}]}
    assert read_json(json.dumps(whisper_cpp).encode()) == [Span(1, 3, "the kettle")]


def test_a_duration_ends_at_the_next_start():
    lines = [("a", 1, 5, None), ("b", 4, 5, None), ("c", 4, 2, None), ("d", 7, 3, "A"), ("e", 8, 4, "B")]
    entries = [{"text": t, "start": s, "duration": d, "speaker": speaker} for t, s, d, speaker in lines]
    ends = [4, 7, 6, 10, 12]  # "c" starts with "b"; the speakers of "d" and "e" talk at the same time
    assert [span.end_s for span in read_json(json.dumps(entries).encode())] == ends


def test_a_timestamp_map_moves_the_cues_after_it():
    text = "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:180000,LOCAL:00:00:00.000\n\n00:01.000 --> 00:02.000\na\n\n"
    text += "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:10.000,MPEGTS:1350000\n\n00:11.000 --> 00:12.000\nb\n\n"
    assert read(SegmentSource.VTT, text) == [Span(3, 4, "a"), Span(16, 17, "b")]
    assert read(SegmentSource.VTT, text.replace("MPEGTS", "X")) == [Span(1, 2, "a"), Span(11, 12, "b")]


def test_a_timestamp_map_refers_to_the_start_of_the_media():
    text = "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000\n\n00:01.000 --> 00:02.000\na\n\n"
    assert read_captions(CaptionFile(SegmentSource.VTT, text.encode()), MediaClock(9.5)) == [Span(1.5, 2.5, "a")]


@pytest.mark.parametrize(
    ("first", "end_s", "expected"),
    [
        ("MPEGTS:180000,LOCAL:00:00:00.000", 70.0, [3.0, 63.0]),  # a stream that starts at 0, as the file does
        ("MPEGTS:900000,LOCAL:00:00:00.000", 60.0, [1.0, 61.0]),  # a usual start of a stream
        ("MPEGTS:126000,LOCAL:00:00:00.000", 60.0, [1.0, 61.0]),
        ("MPEGTS:1080000,LOCAL:00:00:02.000", 60.0, [1.0, 61.0]),  # the same, as 12 s less 2 s
        ("MPEGTS:180000,LOCAL:00:00:00.000", 62.0, [1.0, 61.0]),  # 3 to 64 s is longer than the audio
        ("MPEGTS:8589900000,LOCAL:00:00:00.000", 60.0, [1.0, 61.0]),  # the second map is after the turn of 2 ** 33
        ("MPEGTS:900000,LOCAL:00:00:00.000", None, [1.0, 61.0]),
    ],
)
def test_a_timestamp_map_next_to_remuxed_media(first, end_s, expected):
    ticks, local = (part.split(":", 1)[1] for part in first.split(","))
    second = (int(ticks) + 60 * 90_000) % (1 << 33)
    text = f"WEBVTT\nX-TIMESTAMP-MAP={first}\n\n00:01.000 --> 00:02.000\na\n\n"
    text += f"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:{local},MPEGTS:{second}\n\n00:01.000 --> 00:02.000\nb\n\n"
    spans = read_captions(CaptionFile(SegmentSource.VTT, text.encode()), MediaClock(None, end_s))
    assert [span.start_s for span in spans] == pytest.approx(expected)


TTML_TIMES = {
    '<p begin="1s" end="2s">a <span begin="0.1s" end="0.5s">b</span></p>': [Span(1, 2, "a b")],
    '<p><span begin="1s" end="2s">a <span tts="x">b</span></span><span begin="2s" dur="1s">c</span></p>': [
        Span(1, 2, "a b"),
        Span(2, 3, "c"),
    ],
    '<div begin="0s" timeContainer="par"><p begin="1s" end="2s">a</p></div>': [Span(1, 2, "a")],
    '<div end="9s"><p region="r" agent="#X"><span begin="1s" end="2s">a</span> </p></div>': [Span(1, 2, "a", "X")],
}


@pytest.mark.parametrize("body", TTML_TIMES)
def test_times_of_spans_are_read_where_paragraphs_have_none(body):
    assert read(SegmentSource.TTML, f"<tt><body>{body}</body></tt>") == TTML_TIMES[body]


def test_raw_text_is_kept_as_it_was():
    (span,) = read(SegmentSource.VTT, "WEBVTT\n\n00:01.000 --> 00:02.000\n<v A>it&#39;s\n[Music]\n")
    assert (span.text, span.speaker, span.sound_event) == ("it's", "A", True)
    assert span.raw_text == "<v A>it&#39;s\n[Music]"


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE tt [<!ENTITY a "b">]><tt><body><p begin="0s" end="1s">&a;</p></body></tt>',
        '<tt><body begin="5s"><p begin="0s" end="1s">x</p></body></tt>',
        '<tt><body><div begin="0.5s"><p begin="0s" end="1s">x</p></div></body></tt>',
        '<tt><body><div timeContainer="seq"><p begin="0s" end="1s">x</p></div></body></tt>',
        '<tt><body><p>y<span begin="0s" end="1s">x</span></p></body></tt>',
        '<tt><body><p><span begin="0s" end="9s">x<span begin="1s" end="2s">y</span></span></p></body></tt>',
        '<tt><body><p begin="0s" end="1s">x</body></tt>',
        "WEBVTT\n\n00:01.000 --> 00:02.000\n&#" + "9" * 5000 + ";\n",
    ],
)
def test_damaged_captions_are_bad_segments(text):
    with pytest.raises(BadSegments):
        read(SegmentSource.TTML, text)


@pytest.mark.parametrize("entry", ["[],", "{},", "0,", '{"a":[{}]},'])
def test_json_of_many_values_does_not_take_memory(entry):
    data = ('{"segments":[' + entry * (30_000_000 // len(entry)) + "0]}").encode()
    tracemalloc.start()
    with pytest.raises(BadSegments, match="limit"):
        read_json(data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


TOKENS = ["<", "<v ", "&#", "&amp;", "{\\", "9", "0:", "-->", "0:01 --> 0:02\n", "0:01 --> 0:02\na\n\n", "\n", " "]
TOKENS += [
    "- ",
    "-a\n",
    ">> ",
    "A: ",
    "A:\n",
    "[",
    "[a]",
    "(",
    "*",
    "♪",
    "NOTE\n\n",
    "<00:01.000>a",
    "a ",
    "ab\n",
    "A A ",
]
TOKENS += ['<p t="1" d="2">', '<p t="1"/>', "<!--", '{"a":', "0,", "a\n", "STYLE\n", '{"start":0,"end":1,"text":"a"},']
HEADS = ["WEBVTT\n\n0:01 --> 0:02\n", "WEBVTT\n\n0:01 --> 0:02\n<v ", "1\n0:01 --> 0:02\n", "<tt><body>"]
HEADS += ['<tt><body><p begin="0s" end="1s">', '[{"start":0,"end":1,"text":"', "["]


def parse(data):
    for read in (read_json, lambda data: read_captions(CaptionFile(SegmentSource.VTT, data))):
        with contextlib.suppress(BadSegments):
            merge_spans(read(data), 0.4, 30.0)


@pytest.fixture
def frozen_heap():
    """Keep the objects of earlier tests out of the garbage collections that a test with many objects causes."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.bulk
@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize("token", TOKENS)
def test_a_million_bytes_of_one_token_take_linear_time(token):
    for head in HEADS:
        data = (head + token * (1_000_000 // len(token.encode())) + ("0]" if head == "[" else "")).encode()
        start = time.process_time()
        parse(data)
        assert time.process_time() - start < 4  # under 1 s alone; a quadratic pattern takes minutes


@pytest.mark.usefixtures("frozen_heap")
def test_entries_of_very_many_speakers_take_linear_time():
    entries = [{"start": n, "duration": 1e6, "text": "a", "speaker": f"s{n}"} for n in range(30_000)]
    start = time.process_time()
    spans = read_json(json.dumps(entries).encode())
    assert time.process_time() - start < 3
    assert spans[0].end_s == 1e6  # no entry of the same speaker follows


@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize("lines", [1, 200])
def test_rolling_lines_take_linear_time(lines):
    payload = "a\n" * (lines - 1) + "b<00:00:01.000>\n\n"
    cues = "".join(f"00:00:{n % 60:02}.000 --> 00:01:00.000\n{payload}" for n in range(2000))
    start = time.process_time()
    parse(b"WEBVTT\n\n" + cues.encode())
    assert time.process_time() - start < 3


@pytest.mark.parametrize("text", ["a" * 20_001, "a\n" * 202 + "a"])
def test_more_text_than_a_segment_has_is_refused(text):
    files = {
        SegmentSource.VTT: f"WEBVTT\n\n0:01 --> 0:02\n{text}",
        SegmentSource.SRT: f"1\n0:01 --> 0:02\n{text}",
        SegmentSource.TTML: f'<tt><body><p begin="1s" end="2s">{text}</p></body></tt>',
        SegmentSource.JSON3: json.dumps(
            {"wireMagic": "pb3", "events": [{"tStartMs": 1000, "dDurationMs": 1, "segs": [{"utf8": f"a{text}"}]}]}
        ),
    }
    for source, captions in files.items():
        with pytest.raises(BadSegments, match="the segment at 1 s has"):
            read(source, captions)
    for field, value in (("text", text), ("speaker", "a" * 20_001)):
        with pytest.raises(BadSegments, match="the segment at 1 s has"):
            read_json(json.dumps([{"start": 1, "end": 2, "text": "a"} | {field: value}]).encode())


PIECES = ["<tt>", "<p t='1' d='2'>", "</p>", "<s t='x'>", "<timedtext>", "&#9;", "0:1 --> 0:2\n", "WEBVTT\n", "a b\n"]
PIECES += ["X-TIMESTAMP-MAP=", "MPEGTS:9,LOCAL:", "<0:1>", "a\n", "\n", " \n", '{"start":', "[", "]", "}", "1"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES)).map("".join), st.sampled_from(SegmentSource))
def test_no_captions_raise_anything_but_bad_segments(text, source):
    try:
        spans = read(source, text)
    except BadSegments:
        return
    assert all(isinstance(span, Span) for span in spans)
