"""A video's list of spans, its limits, and the rules that hold for every format of timed text."""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

from audiopipe.errors import BadSegments
from audiopipe.types import Seconds, Span

__all__ = [
    "MAX_TIME_S",
    "Transcript",
    "bound_count",
    "bound_text",
    "decode_text",
    "end_at_next_start",
    "end_on_screen",
    "end_with_audio",
    "is_invalid",
    "parse_timestamp",
    "refuse_damage",
    "require_valid_times",
]

MAX_FILE_BYTES = 32 << 20  # ten hours of speech, word by word, need half of it
MAX_SPANS = 110_000  # twelve hours of speech, word by word
MAX_TIME_S = 1e9
MAX_TEXT_LINES, MAX_TEXT_CHARACTERS = 200, 20_000  # of one entry; two minutes of fast speech have 3,000 characters

# [h:]m:s or plain seconds, with a comma or a dot. Repeats are bounded because int() refuses thousands of digits.
MAX_TIMESTAMP = 64  # characters
TIMESTAMP = re.compile(r"([-+]?)(?:(\d{1,12}):)?(?:(\d{1,12}):)?(\d{1,12})(?:[.,](\d{0,12}))?", re.ASCII)


class Transcript(list[Span]):
    """The spans of a file, in its order.

    Args:
        spans: the spans.
        automatic: whether speech recognition made them, as word times or rolling lines of the file show.

    Attributes:
        moved_s: by how many seconds the file's first map of timestamps moved them.
        ends_on_screen: the ends are those of the display, as YouTube's durations; they say nothing about the speech.
    """

    def __init__(self, spans: Iterable[Span] = (), automatic: bool = False) -> None:
        super().__init__(spans)
        self.automatic = automatic
        self.moved_s: Seconds = 0.0
        self.ends_on_screen = False


@contextmanager
def refuse_damage(kind: str, data: bytes) -> Iterator[None]:
    """Check the size of a file of segment times, and turn whatever its parser raises into `BadSegments`."""
    if len(data) > MAX_FILE_BYTES:
        raise BadSegments(f"the file of segment times ({kind}) has {len(data)} bytes; the limit is {MAX_FILE_BYTES}")
    try:
        yield
    except (BadSegments, MemoryError):  # memory is the worker's
        raise
    except Exception as error:
        reason = str(error)[:200] or type(error).__name__
        raise BadSegments(f"the segment times ({kind}) cannot be read: {reason}") from error


def bound_count(kind: str, count: int, limit: int = MAX_SPANS) -> None:
    """Refuse a file with more entries than any video needs.

    Raises:
        BadSegments: it has more.
    """
    if count > limit:
        raise BadSegments(f"the file of segment times ({kind}) has {count} entries; the limit is {limit}")


def bound_text(lines: int, characters: int, start_s: Seconds) -> None:
    """Refuse an entry with more text than any segment has.

    Raises:
        BadSegments: it has more.
    """
    if lines > MAX_TEXT_LINES or characters > MAX_TEXT_CHARACTERS:
        raise BadSegments(
            f"the segment at {start_s:g} s has {characters} characters of text in {lines} lines; the limits are "
            f"{MAX_TEXT_CHARACTERS} and {MAX_TEXT_LINES}"
        )


def decode_text(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte-order mark, and give every line the same end.

    Raises:
        BadSegments: the bytes are neither; a guessed code page would silently put wrong words into the dataset.
    """
    is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSegments(f"captions are neither UTF-8 nor marked UTF-16 ({error}); convert them to UTF-8") from error
    return text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


def parse_timestamp(token: str) -> Seconds:
    """Parse `[hh:]mm:ss[.,]fff` or a plain number to seconds; return NaN for anything else.

    >>> parse_timestamp("1:02:03,5"), parse_timestamp("02:03.250"), parse_timestamp("-1.5")
    (3723.5, 123.25, -1.5)
    """
    return _parse_token(token) if len(token) <= MAX_TIMESTAMP else math.nan


@lru_cache(maxsize=1024)  # a cue often starts where the one before ends
def _parse_token(token: str) -> Seconds:
    match = TIMESTAMP.fullmatch(token)
    if match is None:
        return math.nan
    sign, first, second, whole, fraction = match.groups()
    hours, minutes = (first, second) if second else (None, first)
    seconds: Seconds = int(whole) + (float("0." + fraction) if fraction else 0.0)
    if minutes:
        seconds = (int(hours) * 3600 if hours else 0) + int(minutes) * 60 + seconds
    return -seconds if sign == "-" else seconds


def is_invalid(span: Span) -> bool:
    """Check whether no audio can lie in a span: NaN, more than 30 years away, end before start, or end before 0."""
    is_finite = abs(span.start_s) <= MAX_TIME_S and abs(span.end_s) <= MAX_TIME_S  # false for NaN
    return not is_finite or span.end_s < span.start_s or span.end_s <= 0


def require_valid_times(kind: str, spans: Transcript) -> Transcript:
    """Return the spans.

    Raises:
        BadSegments: there are spans, and none of them has a valid start and end.
    """
    if spans and all(map(is_invalid, spans)):
        raise BadSegments(f"none of the {len(spans)} segments ({kind}) has a valid start and end")
    return spans


def end_on_screen(spans: Sequence[Span], automatic: bool = False) -> Transcript:
    """Return a transcript of spans that all end when they are taken from the screen."""
    transcript = Transcript(end_at_next_start(spans, [True] * len(spans)), automatic)
    transcript.ends_on_screen = True
    return transcript


def end_with_audio(spans: Transcript, audio_s: Seconds) -> Sequence[Span]:
    """End spans with the audio if they stay on the screen for longer; others may have words that the audio lacks."""
    if not spans.ends_on_screen:
        return spans
    return [replace(span, end_s=audio_s) if span.start_s < audio_s < span.end_s else span for span in spans]


def end_at_next_start(spans: Sequence[Span], stays_on_screen: Sequence[bool]) -> list[Span]:
    """End spans where the next one starts, unless both have speakers and these differ.

    A caption's duration is the time for which it stays on the screen, which goes past the start of the next one.

    Args:
        spans: in any order.
        stays_on_screen: for each span, whether its end is that of its display; other spans keep their ends.
    """
    # From the last start to the first: the next start of each speaker, of entries without one, and of any.
    following: dict[str | None, Seconds] = {}
    following_any = math.inf
    clipped = list(spans)
    valid = [(span.start_s, number) for number, span in enumerate(spans) if not is_invalid(span)]
    for start, group in itertools.groupby(sorted(valid, reverse=True), key=operator.itemgetter(0)):
        numbers = [number for _, number in group]
        for number in numbers:
            span = spans[number]
            limit = following_any
            if span.speaker is not None:
                limit = min(following.get(span.speaker, math.inf), following.get(None, math.inf))
            if stays_on_screen[number] and limit < span.end_s:
                clipped[number] = replace(span, end_s=limit)
        following |= {spans[number].speaker: start for number in numbers}
        following_any = start
    return clipped
