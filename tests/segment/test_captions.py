import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe.errors import BadSegments
from audiopipe.segment.captions import read_captions
from audiopipe.segment.documents import read_json
from audiopipe.segment.text import normalize_text
from audiopipe.segment.transcript import is_invalid, parse_timestamp
from audiopipe.types import CaptionFile, SegmentSource, Span


def read_vtt(data):
    return read_captions(CaptionFile(SegmentSource.VTT, data))


def read_srt(data):
    return read_captions(CaptionFile(SegmentSource.SRT, data))


def make_json(*segments):
    return json.dumps({"segments": list(segments), "title": "t"}).encode()


def test_json_segments_keep_times_text_and_speaker():
    data = make_json({"start": 1, "end": 2.5, "text": " hello\n there ", "speaker": "A", "tokens": [1]})
    assert read_json(data) == [Span(1.0, 2.5, "hello there", "A")]


def test_json_times_may_be_strings_clocks_or_a_duration():
    data = make_json(
        {"start": "1.5", "end": " 2.5 "},
        {"start": "00:01:00.5", "end": "01:02,25"},
        {"start": 3, "duration": 2, "text": 7},
        {"start": 3, "end": 4, "text": None, "speaker": {"id": 1}},
    )
    assert read_json(data) == [Span(1.5, 2.5), Span(60.5, 62.25), Span(3.0, 5.0, "7"), Span(3.0, 4.0)]


def test_a_bare_list_and_a_byte_order_mark_are_read():
    assert read_json(b"\xef\xbb\xbf" + b'[{"start": 0, "end": 1}]') == [Span(0.0, 1.0)]
    assert read_json('[{"start": 0, "end": 1}]'.encode("utf-16")) == [Span(0.0, 1.0)]


@pytest.mark.parametrize("data", [b"{}", b'{"segments": null}', b'{"segments": []}', b'{"title": "x"}', b"[]", b"7"])
def test_json_that_is_only_metadata_has_no_segments(data):
    if data == b"7":
        with pytest.raises(BadSegments, match="list"):
            read_json(data)
    else:
        assert read_json(data) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xff\xff",
        b"[" * 200_000,
        b'{"segments": {"a": 1}}',
        b'{"segments": "0-5"}',
        b'{"segments": [' + b"9" * 5000 + b"]}",
        b'{"segments": [1, null, "x"]}',
        b'{"segments": [{"start": "x", "end": []}, {"start": NaN, "end": 1}]}',
        b'{"segments": [{"start": 0, "end": 1' + b"0" * 400 + b"}]}",
        b'{"segments": [{"start": true, "end": false}]}',
        b'{"segments": [{"start": 5, "end": 4}]}',
    ],
)
def test_json_without_any_valid_times_is_refused(data):
    with pytest.raises(BadSegments):
        read_json(data)


def test_an_invalid_entry_among_good_ones_is_dropped_with_a_reason():
    first, second, third = read_json(make_json({"start": 0, "end": 1}, {"end": 2}, {"start": 1e400, "end": 1e401}))
    assert not is_invalid(first)
    assert math.isnan(second.start_s)
    assert is_invalid(second)
    assert math.isinf(third.start_s)
    assert is_invalid(third)


def test_a_file_of_segment_times_too_large_for_memory_is_refused(monkeypatch):
    monkeypatch.setattr("audiopipe.segment.transcript.MAX_FILE_BYTES", 10)
    with pytest.raises(BadSegments, match="11 bytes"):
        read_json(b" " * 11)
    with pytest.raises(BadSegments, match="11 bytes"):
        read_srt(b" " * 11)


def test_text_that_utf8_cannot_encode_is_cleaned():
    (span,) = read_json(b'[{"start": 0, "end": 1, "text": "a\\ud800b\\u0000c \\ud83d\\ude00"}]')
    assert span.text == "a b c 😀"
    assert normalize_text("\ud800 \x07\n") is None


IRREGULAR_VTT = """\ufeffWEBVTT - a title
Kind: captions

STYLE
::cue { color: --> red }

NOTE a remark
00:00:00.000 --> 00:00:09.000
not a cue

intro
00:01.000 --> 00:02.500 align:start position:0%
<v.loud Mary Ann>Hello <i>there</i>,
it&#39;s <c.colorE5E5E5>R&amp;B</c><00:00:02.000>&nbsp;&lt;3

01:00:03,000 --> 01:00:04,000 line:0
<v A>one</v> <v B>two</v>
01:00:05.000-->01:00:06.000
no blank line before
2
01:00:07.000 --> 01:00:08.000

5 --> 4
backwards

nonsense --> 00:00:03.000
-00:00:01.000 --> 00:00:01.000
2 < 3 --> is not a time, and x > y
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_irregular_vtt_is_read(newline, encoding):
    spans = read_vtt(IRREGULAR_VTT.replace("\n", newline).encode(encoding))
    assert spans[:4] == [
        Span(1.0, 2.5, "Hello there, it's R&B <3", "Mary Ann"),
        Span(3603.0, 3604.0, "one two"),
        Span(3605.0, 3606.0, "no blank line before"),
        Span(3607.0, 3608.0),
    ]
    assert spans[4] == Span(5.0, 4.0, "backwards")
    assert math.isnan(spans[5].start_s)
    assert spans[5].end_s == 3.0
    assert spans[6] == Span(-1.0, 1.0, "2 < 3 --> is not a time, and x > y")
    assert len(spans) == 7


def test_irregular_srt_is_read():
    text = """1
00:00:01,000 --> 00:00:02,000 X1:40 X2:600
{\\an8}<font color="#fff">First</font>

after a blank line

2
00:00:00,5 --> 00:00:01.25
2024
3
00:00:07, 500 --> 00:00:08,000
10

4
00:00:09,000 --> 00:00:10,000"""
    assert read_srt(text.encode()) == [
        Span(1.0, 2.0, "First after a blank line"),
        Span(0.5, 1.25, "2024"),
        Span(7.5, 8.0, "10"),
        Span(9.0, 10.0),
    ]


def test_a_vtt_named_srt_is_read_as_vtt():
    data = b"WEBVTT\n\n00:01.000 --> 00:02.000\nyes\n\nNOTE no\n"
    assert read_srt(data) == [Span(1.0, 2.0, "yes")]


@pytest.mark.parametrize("data", [b"", b"  \n\n", b"WEBVTT\n\n", b"WEBVTT\n\nNOTE nothing was said\n"])
def test_captions_without_a_cue_are_empty_not_invalid(data):
    assert read_vtt(data) == []


@pytest.mark.parametrize(
    "data", [b"\x1aE\xdf\xa3 a webm", b"caf\xe9 in latin-1", b"just prose\nin lines", b"<html></html>", b"a --> b\n\n"]
)
@pytest.mark.parametrize("read", [read_vtt, read_srt])
def test_a_file_without_captions_is_refused(read, data):
    with pytest.raises(BadSegments):
        read(data)


@pytest.mark.parametrize(
    ("token", "seconds"),
    [("12", 12.0), ("1:2", 62.0), ("100:00:00.000", 360_000.0), ("0:0,", 0.0), ("+1.5", 1.5), ("9" * 12, 1e12 - 1)],
)
def test_timestamps_are_parsed(token, seconds):
    assert parse_timestamp(token) == seconds


@pytest.mark.parametrize("token", ["", ":", "1:2:3:4", "1.2.3", "--1", "nan", "inf", "1e3", "9" * 5000, "1:-2"])
def test_an_invalid_timestamp_is_nan(token):
    assert math.isnan(parse_timestamp(token))


@settings(max_examples=150)
@given(st.binary(max_size=300) | st.text('0123456789:.,->\n <v>NaNOTE\r"{}[]', max_size=300).map(str.encode))
def test_no_bytes_raise_anything_but_bad_segments(data):
    for read in (read_json, read_vtt, read_srt):
        try:
            spans = read(data)
        except BadSegments:
            continue
        for span in spans:
            assert span.text is None or span.text.encode().decode().split("\n") == [span.text]


KEYS = st.sampled_from(["start", "end", "text", "speaker", "duration", "segments"])
SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9)
VALUES = st.recursive(SCALARS, lambda value: st.lists(value) | st.dictionaries(KEYS, value), max_leaves=12)


@settings(max_examples=80)
@given(VALUES)
def test_no_json_raises_anything_but_bad_segments(value):
    for body in (value, {"segments": value}, {"segments": [value]}):
        try:
            spans = read_json(json.dumps(body).encode())
        except BadSegments:
            continue
        assert all(isinstance(span.start_s, float) for span in spans)


def test_a_long_hostile_caption_file_takes_linear_time():
    line = b"<v " * 20_000 + b"\n" + b"-" * 50_000 + b">\n" + b"1:" * 30_000 + b" --> " + b"&" * 50_000
    with pytest.raises(BadSegments):
        read_srt(line + b"\r" * 50_000 + b"{\\" * 20_000)
