"""Read segment times from the files next to the audio: JSON, WebVTT and SubRip, including files that break the rules.

Accepted are numbers in strings, byte-order marks, any line ends, missing hours, commas or dots, cue settings, and
missing blank lines and headers. An entry with invalid times keeps them, or has NaN, so that the cutter drops it with a
reason; a file in another format than it claims is an error.
"""

from __future__ import annotations

import html
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from audiopipe.errors import BadSegments
from audiopipe.types import CaptionFile, Seconds, SegmentSource, Span

__all__ = ["is_invalid", "normalize_text", "parse_timestamp", "read_captions", "read_json"]

MAX_FILE_BYTES = 32 << 20  # ten hours of speech, word by word, need half of it; Python objects take ten times as much
MAX_TIME_S = 1e9

# [h:]m:s or plain seconds, with a comma or a dot. Repeats are bounded because int() refuses thousands of digits.
TIMESTAMP = re.compile(r"([-+]?)(?:(\d{1,12}):)?(?:(\d{1,12}):)?(\d{1,12})(?:[.,](\d{0,12}))?")
TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")  # <i>, </c>, <00:01.000> and SubRip's {\an8}
VOICE_TAG = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]+)>")
NON_CUE_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufeff]+")  # and lone surrogates, which UTF-8 cannot encode


class _Timing(NamedTuple):
    """The first line of a cue: its start and end, NaN where unreadable."""

    start_s: Seconds
    end_s: Seconds


def read_json(data: bytes) -> list[Span]:
    """Read the spans of `segments` (or of a bare list), in the order of the file.

    Returns an empty list if there is no `segments` or it is empty: the file is metadata only.

    Raises:
        BadSegments: the file is not JSON, or its segments are not a list or have no valid times at all.
    """
    _check_size("json", data)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadSegments(f"the JSON next to the audio cannot be read: {error}") from error
    entries = document.get("segments") if isinstance(document, dict) else document
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise BadSegments(f"'segments' of the JSON next to the audio must be a list, not {type(entries).__name__}")
    return _require_valid_times("json", [_parse_entry(entry) for entry in entries])


def read_captions(file: CaptionFile) -> list[Span]:
    """Read the cues of a caption file, in the order of the file; an empty list if it is well-formed but has no cues.

    Raises:
        BadSegments: the bytes are not text or not captions, or have no valid times at all.
    """
    _check_size(file.format, file.data)
    text = _decode(file.data)
    has_vtt_header = text.startswith("WEBVTT")  # in a file of any name
    is_vtt = has_vtt_header or file.format is SegmentSource.VTT
    spans = list(_parse_vtt(text) if is_vtt else _parse_cues(text.split("\n")))
    if not spans and text.strip() and not has_vtt_header:
        raise BadSegments(f"captions ({file.format}) have no line 'start --> end'; they begin {text.strip()[:40]!r}")
    return _require_valid_times(file.format, spans)


def parse_timestamp(token: str) -> Seconds:
    """Parse `[hh:]mm:ss[.,]fff` or a plain number to seconds; return NaN for anything else.

    >>> parse_timestamp("1:02:03,5"), parse_timestamp("02:03.250"), parse_timestamp("-1.5")
    (3723.5, 123.25, -1.5)
    """
    match = TIMESTAMP.fullmatch(token)
    if match is None:
        return math.nan
    sign, first, second, whole, fraction = match.groups()
    hours, minutes = (first, second) if second else (None, first)
    seconds = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(whole) + float(f"0.{fraction or 0}")
    return -seconds if sign == "-" else seconds


def normalize_text(text: str) -> str | None:
    """Reduce text to one line that UTF-8 can encode; None if nothing is left."""
    return " ".join(CONTROLS.sub(" ", text).split()) or None


def is_invalid(span: Span) -> bool:
    """Check whether no audio can lie in a span: NaN, more than 30 years away, end before start, or end before 0."""
    is_finite = abs(span.start_s) <= MAX_TIME_S and abs(span.end_s) <= MAX_TIME_S  # false for NaN
    return not is_finite or span.end_s < span.start_s or span.end_s <= 0


def _check_size(kind: str, data: bytes) -> None:
    if len(data) > MAX_FILE_BYTES:
        raise BadSegments(f"the file of segment times ({kind}) has {len(data)} bytes; the limit is {MAX_FILE_BYTES}")


def _require_valid_times(kind: str, spans: list[Span]) -> list[Span]:
    if spans and all(map(is_invalid, spans)):
        raise BadSegments(f"none of the {len(spans)} segments ({kind}) has a valid start and end")
    return spans


def _parse_entry(entry: object) -> Span:
    """Parse an entry of `segments`. `duration` may replace `end`, as in YouTube's transcripts."""
    if not isinstance(entry, dict):
        return Span(math.nan, math.nan)
    start = _parse_number(entry.get("start"))
    end = _parse_number(entry["end"]) if "end" in entry else start + _parse_number(entry.get("duration"))
    return Span(start, end, _parse_text(entry.get("text")), _parse_text(entry.get("speaker")))


def _parse_number(value: object) -> Seconds:
    """Parse a JSON number, a string of a number or a timestamp; return NaN for anything else."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return parse_timestamp(value.strip())
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def _parse_text(value: object) -> str | None:
    return normalize_text(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _decode(data: bytes) -> str:
    is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        # A guessed code page would silently put wrong words into the dataset.
        raise BadSegments(f"captions are neither UTF-8 nor marked UTF-16 ({error}); convert them to UTF-8") from error
    return text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


def _parse_vtt(text: str) -> Iterator[Span]:
    """Parse the cues of WebVTT, where blank lines end a block, and comments and style sheets are separate blocks."""
    for is_blank, lines in itertools.groupby(text.split("\n"), key=lambda line: not line.strip()):
        block = list(lines)
        if not is_blank and not NON_CUE_BLOCK.match(block[0]):
            yield from _parse_cues(block)


def _parse_cues(lines: list[str]) -> Iterator[Span]:
    """Parse consecutive lines; the text of a cue ends at the next timing line, or at the cue number before that."""
    timings = [(i, timing) for i, line in enumerate(lines) if (timing := _parse_timing(line)) is not None]
    for (first, timing), (end, _) in itertools.pairwise([*timings, (len(lines), _Timing(math.nan, math.nan))]):
        has_number = end < len(lines) and end - 1 > first and lines[end - 1].strip().isdigit()
        yield _parse_cue(timing, " ".join(lines[first + 1 : end - has_number]))


def _parse_timing(line: str) -> _Timing | None:
    """Parse the first line of a cue; None for a line of text."""
    left, arrow, right = line.partition("-->")
    if not arrow:
        return None
    start = parse_timestamp("".join(left.split()))
    if math.isnan(start) and len(left.split()) > 1:
        return None  # words before the arrow: text that contains one
    settings = right.split()
    return _Timing(start, parse_timestamp(settings[0]) if settings else math.nan)


def _parse_cue(timing: _Timing, markup: str) -> Span:
    """Strip the markup of a cue's text, and take the speaker from its voice tags if they name only one."""
    voices = {normalize_text(html.unescape(voice)) for voice in VOICE_TAG.findall(markup)}
    speaker = voices.pop() if len(voices) == 1 else None
    return Span(timing.start_s, timing.end_s, normalize_text(html.unescape(TAG.sub("", markup))), speaker)
