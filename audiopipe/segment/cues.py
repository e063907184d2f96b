"""Read the cues of WebVTT and SubRip, with their lines and word times, including files that break the rules.

Accepted are byte-order marks, any line ends, missing hours, commas or dots, cue settings, missing blank lines and
headers, several files in one with an `X-TIMESTAMP-MAP` each, and a first line of one blank, even where an editor has
removed the blank. A cue with invalid times keeps them, or has NaN.

Why this is not a library's parser (measured with the cases of `tests/segment/`):

- pysubs2 1.8.1 leaves word times and entities in the text, loses the speaker of a voice tag, reads a comment after the
  last cue as its text, and joins a cue with an unreadable time to the one before.
- webvtt-py 0.6.0 loses word times in its text and refuses WebVTT without a header.
- ttconv 1.2.3 loses word times, speakers and the ends of lines, reads nothing of a SubRip file with a blank first line
  or one unreadable time, and none of YouTube's TTML, which has an older namespace.
- All three give rolling captions as they are displayed, and ignore `X-TIMESTAMP-MAP`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from audiopipe.segment.text import normalize_text, strip_tags
from audiopipe.segment.timestamp_map import map_offset
from audiopipe.segment.transcript import bound_count, bound_text, parse_timestamp
from audiopipe.types import Seconds

__all__ = ["Cue", "Line", "parse_srt", "parse_vtt"]

EMPTY_LINES = re.compile(r"\n\n+")
NON_CUE_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
TAG_START = re.compile(r"[<{&]")
WORD_TIME = re.compile(r"<(\d[\d:.]{0,20})>")
TIMESTAMP_MAP = "X-TIMESTAMP-MAP="


class Line(NamedTuple):
    """One line of a cue: as in the file, without markup, and the times at which its words start and end, if given."""

    raw: str
    text: str | None
    start_s: Seconds | None = None
    end_s: Seconds | None = None
    has_word_times: bool = False


class Cue(NamedTuple):
    """A caption as it is displayed. `rows` are the texts of the lines that have any."""

    start_s: Seconds
    end_s: Seconds
    lines: Sequence[Line] = ()
    rows: Sequence[str] = ()


class _Timing(NamedTuple):
    """The first line of a cue: its start and end, NaN where unreadable."""

    start_s: Seconds
    end_s: Seconds


def parse_vtt(text: str, origin_s: Seconds = 0.0) -> list[Cue]:
    """Parse WebVTT: an empty line ends a block, a line of blanks does not; comments and styles are separate blocks.

    `X-TIMESTAMP-MAP` moves the cues after it to the clock of an MPEG transport stream.

    Args:
        origin_s: the timestamp of the stream at which the file's clock is 0.
    """
    bound_count("vtt", text.count("-->"))
    cues: list[Cue] = []
    offset_s = 0.0
    for block in _blocks(text):
        if block[0].startswith("WEBVTT"):
            offset_s = next((map_offset(line, origin_s) for line in block if line.startswith(TIMESTAMP_MAP)), 0.0)
        parsed = _parse_lines(block, offset_s)
        is_text = not parsed and not block[0].startswith("WEBVTT") and not (len(block) == 1 and block[0].isdigit())
        if is_text and cues and not cues[-1].lines:  # an editor has removed the blank of a blank first line
            cues[-1] = _make_cue(cues[-1].start_s, cues[-1].end_s, block, offset_s)
        cues.extend(parsed)
    return cues


def parse_srt(text: str) -> list[Cue]:
    """Parse SubRip: a cue's text ends at the next timing line, or at the cue number before that."""
    bound_count("srt", text.count("-->"))
    return _parse_lines(text.split("\n"), 0.0)


def _blocks(text: str) -> Iterator[list[str]]:
    """Yield the blocks of WebVTT without comments, styles and regions, which a line of blanks ends too."""
    for part in EMPTY_LINES.split(text.strip("\n")):
        block = part.split("\n")
        if NON_CUE_BLOCK.match(part):
            block = list(itertools.dropwhile(lambda line: not line.isspace(), block))
        if block and not "".join(block).isspace():
            yield block


def _parse_lines(lines: list[str], offset_s: Seconds) -> list[Cue]:
    """Parse consecutive lines; the text of a cue ends at the next timing line, or at the cue number before that."""
    timings = [(i, timing) for i, line in enumerate(lines) if "-->" in line and (timing := _parse_timing(line))]
    ends = [*(first for first, _ in timings), len(lines)]
    cues = []
    for (first, (start_s, end_s)), end in zip(timings, ends[1:], strict=True):
        has_number = end < len(lines) and end - 1 > first and lines[end - 1].strip().isdigit()
        payload = lines[first + 1 : end - has_number]
        while payload and not payload[-1].strip():
            payload.pop()
        cues.append(_make_cue(start_s + offset_s, end_s + offset_s, payload, offset_s))
    return cues


def _make_cue(start_s: Seconds, end_s: Seconds, payload: list[str], offset_s: Seconds) -> Cue:
    """Parse the lines of a cue.

    Raises:
        BadSegments: they are more than any screen has, or too long.
    """
    bound_text(len(payload), sum(map(len, payload)), start_s)
    lines = [_parse_line(line, offset_s) for line in payload]
    return Cue(start_s, end_s, lines, [line.text for line in lines if line.text is not None])


def _parse_timing(line: str) -> _Timing | None:
    """Parse the first line of a cue; None for a line of text."""
    left, _, right = line.partition("-->")
    before = left.split()
    start = parse_timestamp("".join(before))
    if len(before) > 1 and math.isnan(start):
        return None  # words before the arrow: text that contains one
    settings = right.split(None, 1)
    return _Timing(start, parse_timestamp(settings[0]) if settings else math.nan)


def _parse_line(raw: str, offset_s: Seconds) -> Line:
    """Parse the markup of a line; its words start at its first time if no word precedes that."""
    if TAG_START.search(raw) is None:
        return Line(raw, normalize_text(raw))
    text = normalize_text(strip_tags(raw))
    times = list(WORD_TIME.finditer(raw)) if "<" in raw else []
    if not times or text is None:
        return Line(raw, text)
    first, last = times[0], times[-1]
    starts = normalize_text(strip_tags(raw[: first.start()])) is None
    ends = normalize_text(strip_tags(raw[last.end() :])) is None
    return Line(
        raw,
        text,
        parse_timestamp(first[1]) + offset_s if starts else None,
        parse_timestamp(last[1]) + offset_s if ends else None,
        has_word_times=True,
    )
