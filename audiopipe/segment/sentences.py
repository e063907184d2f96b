"""Find the ends of sentences, and cut captions there where they have the times of their words.

The rules use the punctuation of many scripts, so that they hold in any language.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from audiopipe.segment.text import parse_markup
from audiopipe.segment.transcript import is_invalid, parse_timestamp
from audiopipe.types import Seconds, Span

__all__ = ["ends_sentence", "split_sentences"]

# Full stops, question and exclamation marks: Latin, Greek, Armenian, Arabic, Urdu, Devanagari, Ethiopic, Khmer, Burmese
# and CJK; then quotes and brackets that close.
STOPS = r".!?…;\u037e\u0589\u061f\u06d4\u0964\u0965\u1362\u1367\u17d4\u104b\u3002\uff01\uff1f\uff61\uff0e"
SENTENCE_END = re.compile(rf"[{STOPS}][\"'”’»›)\]」』\uff09]*$")
# "Dr." and initials end no sentence; decimals cannot, as they are within a word.
ABBREVIATION = re.compile(r"(?:^|\s)(?:[A-Z]|Dr|Mr|Mrs|Ms|St|Prof|vs|Jr|Sr|bzw|Nr|Sra|Mme)\.$")
WORD_TIME = re.compile(r"<(\d[\d:.]{0,20})>")
TAIL = 40  # characters in which a sentence ends


def ends_sentence(text: str) -> bool:
    """Check whether a text ends with the end of a sentence."""
    tail = text[-TAIL:]
    return SENTENCE_END.search(tail) is not None and ABBREVIATION.search(tail) is None


def split_sentences(spans: Iterable[Span], max_s: Seconds) -> Iterator[Span]:
    """Cut captions before each word that follows the end of a sentence, and where they are longer than `max_s`.

    The word times are those of the span or those in its raw text. Captions without such times, or with times outside of
    the caption, stay as they are.
    """
    for span in spans:
        if span.raw_text is None or is_invalid(span) or not (span.word_times or "<" in span.raw_text):
            yield span
        else:
            yield from _split(span, span.raw_text, max_s)


def _split(span: Span, raw: str, max_s: Seconds) -> Iterator[Span]:
    """Yield the parts of a caption."""
    words = span.word_times or [(parse_timestamp(match[1]), match.start()) for match in WORD_TIME.finditer(raw)]
    words = [(time, position) for time, position in words if span.start_s < time < span.end_s]
    part_start, part_position, before = span.start_s, 0, 0
    ends = [*(time for time, _ in words), span.end_s][1:]
    for (time, position), following in zip(words, ends, strict=True):
        text = parse_markup(raw[max(part_position, before - TAIL) : position], not span.word_times).text or ""
        is_full = following - part_start > max_s
        if time > part_start and text and (ends_sentence(text) or is_full):
            yield _part(span, raw[part_position:position], part_start, time)
            part_start, part_position = time, position
        before = position
    if part_position == 0:
        yield span
    else:
        yield _part(span, raw[part_position:], part_start, span.end_s)


def _part(span: Span, raw: str, start_s: Seconds, end_s: Seconds) -> Span:
    text, speaker, sound_event = parse_markup(raw, not span.word_times)
    return replace(
        span,
        word_times=(),
        start_s=start_s,
        end_s=end_s,
        text=text,
        speaker=speaker or span.speaker,
        sound_event=sound_event,
        raw_text=raw.strip(),
    )
