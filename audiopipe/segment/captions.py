"""Segment times from the files beside the audio: JSON, WebVTT, SubRip, as they are found and not as they should be.

Numbers in strings, byte-order marks, any line ends, missing hours, commas or dots, cue settings, missing blank lines
and headers all pass. An entry whose times make no sense keeps them, or has NaN for them, so that the cutter drops it
by name; a file that is not what it claims is an error.
"""

from __future__ import annotations

import html
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from audiopipe.errors import BadSegments
from audiopipe.types import Seconds, SegmentSource, Span

__all__ = ["is_invalid", "normalize_text", "parse_timestamp", "read_captions", "read_json"]

LARGEST_FILE = 32 << 20  # word by word, ten hours of speech take half of it; as Python objects it grows tenfold
FARTHEST_S = 1e9

# [h:]m:s or plain seconds, with a comma or a dot. Bounded repeats: int() refuses thousands of digits.
CLOCK = re.compile(r"([-+]?)(?:(\d{1,12}):)?(?:(\d{1,12}):)?(\d{1,12})(?:[.,](\d{0,12}))?")
TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")  # <i>, </c>, <00:01.000> and SubRip's {\an8}
VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]+)>")
NOT_CUES = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufeff]+")  # controls; lone surrogates, which UTF-8 cannot hold


def read_json(data: bytes) -> list[Span]:
    """The spans of `segments` (or of a bare list) in the file's order.

    None if there is no such list or it is empty: metadata and nothing else. Raises `BadSegments` if the file is no
    JSON, or its segments are no list or have no usable times at all.
    """
    _check_size("json", data)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadSegments(f"the JSON beside the audio cannot be read: {error}") from error
    listed = document.get("segments") if isinstance(document, dict) else document
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise BadSegments(f"'segments' of the JSON beside the audio must be a list, not {type(listed).__name__}")
    return _usable("json", [_segment(entry) for entry in listed])


def read_captions(kind: SegmentSource, data: bytes) -> list[Span]:
    """The cues of a caption file in its own order; none if it is a well-formed file without cues.

    Raises `BadSegments` if the bytes are no text, no captions, or have no usable times at all.
    """
    _check_size(kind, data)
    text = _decode(data)
    header = text.startswith("WEBVTT")  # whatever the file is named
    found = list(_vtt(text) if header or kind is SegmentSource.VTT else _cues(text.split("\n")))
    if not found and text.strip() and not header:
        raise BadSegments(f"captions ({kind}) hold no line 'start --> end'; they begin {text.strip()[:40]!r}")
    return _usable(kind, found)


def parse_timestamp(token: str) -> Seconds:
    """Seconds of `[hh:]mm:ss[.,]fff` or of a plain number; NaN if it is neither.

    >>> clock("1:02:03,5"), clock("02:03.250"), clock("-1.5")
    (3723.5, 123.25, -1.5)
    """
    match = CLOCK.fullmatch(token)
    if match is None:
        return math.nan
    sign, first, second, whole, fraction = match.groups()
    hours, minutes = (first, second) if second else (None, first)
    seconds = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(whole) + float(f"0.{fraction or 0}")
    return -seconds if sign == "-" else seconds


def normalize_text(text: str) -> str | None:
    """One line of text that any UTF-8 file can hold; None if nothing is left of it."""
    return " ".join(UNSPEAKABLE.sub(" ", text).split()) or None


def is_invalid(span: Span) -> bool:
    """Whether no audio can lie there: not numbers, more than 30 years off, backwards, or over before 0."""
    sane = abs(span.start_s) <= FARTHEST_S and abs(span.end_s) <= FARTHEST_S  # false for NaN
    return not sane or span.end_s < span.start_s or span.end_s <= 0


def _check_size(kind: str, data: bytes) -> None:
    if len(data) > LARGEST_FILE:
        raise BadSegments(f"segment times ({kind}) of {len(data)} bytes; files up to {LARGEST_FILE} are read")


def _usable(kind: str, listed: list[Span]) -> list[Span]:
    if listed and all(map(is_invalid, listed)):
        raise BadSegments(f"none of the {len(listed)} segments ({kind}) has a start and an end that make sense")
    return listed


def _segment(entry: Any) -> Span:
    """One entry of `segments`. `duration` may stand for `end`, as in YouTube's transcripts."""
    if not isinstance(entry, dict):
        return Span(math.nan, math.nan)
    start = _number(entry.get("start"))
    end = _number(entry["end"]) if "end" in entry else start + _number(entry.get("duration"))
    return Span(start, end, _text(entry.get("text")), _text(entry.get("speaker")))


def _number(value: Any) -> Seconds:
    """A JSON number, a string of one, or a string of a clock; else NaN."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return parse_timestamp(value.strip())
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def _text(value: Any) -> str | None:
    return normalize_text(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _decode(data: bytes) -> str:
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        # Guessing a code page would put wrong words into the dataset, silently.
        raise BadSegments(f"captions are neither UTF-8 nor marked UTF-16 ({error}); convert them to UTF-8") from error
    return text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


def _vtt(text: str) -> Iterator[Span]:
    """Cues of WebVTT: blank lines end a block, and comments and style sheets are blocks of their own."""
    for blank, lines in itertools.groupby(text.split("\n"), key=lambda line: not line.strip()):
        block = list(lines)
        if not blank and not NOT_CUES.match(block[0]):
            yield from _cues(block)


def _cues(lines: list[str]) -> Iterator[Span]:
    """Cues of consecutive lines; a cue's text goes on until the next cue's times, less the number before them."""
    timings = [(i, times) for i, line in enumerate(lines) if (times := _timing(line)) is not None]
    for (first, times), (end, _) in itertools.pairwise([*timings, (len(lines), (math.nan, math.nan))]):
        numbered = end < len(lines) and end - 1 > first and lines[end - 1].strip().isdigit()
        yield _cue(times, " ".join(lines[first + 1 : end - numbered]))


def _timing(line: str) -> tuple[Seconds, Seconds] | None:
    """The times of a cue's first line, NaN where unreadable; None for a line of text."""
    left, arrow, right = line.partition("-->")
    if not arrow:
        return None
    start = parse_timestamp("".join(left.split()))
    if math.isnan(start) and len(left.split()) > 1:
        return None  # words before the arrow: text that shows one
    settings = right.split()
    return start, parse_timestamp(settings[0]) if settings else math.nan


def _cue(times: tuple[Seconds, Seconds], marked: str) -> Span:
    voices = {normalize_text(html.unescape(voice)) for voice in VOICE.findall(marked)}
    speaker = voices.pop() if len(voices) == 1 else None  # two voices in one cue: neither is its speaker
    return Span(*times, normalize_text(html.unescape(TAG.sub("", marked))), speaker)
