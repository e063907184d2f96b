"""Join captions into segments that end at the ends of sentences and at pauses.

Captions are cut where a row of the screen is full, in the middle of a sentence and of a breath. The rules use
punctuation of many scripts and times alone, so that they hold in any language; without punctuation a segment ends at a
pause, or at the longest pause before `max_s`. Where captions have word times, a sentence that ends within one is cut
there (`sentences.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from audiopipe.segment.sentences import ends_sentence, split_sentences
from audiopipe.segment.transcript import is_invalid
from audiopipe.types import Seconds, Span

__all__ = ["merge_spans"]

PAUSE_S = 0.5  # a longer pause ends a segment
SHORT_S = 2.0  # a sentence shorter than this is joined with the next one, where no pause parts them
# Scripts that write no blanks between words.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")


def merge_spans(spans: Iterable[Span], min_s: Seconds, max_s: Seconds) -> list[Span]:
    """Join spans, in order of start; those with word times are cut at the ends of sentences first.

    Spans without text, with invalid times or longer than `max_s` stay as they are, and end a segment; so do an overlap
    and another speaker.

    Args:
        spans: captions in any order.
        min_s: a sentence shorter than this is joined with the next one; never across a pause.
        max_s: no joined segment is longer.
    """
    merged: list[Span] = []
    group: list[Span] = []
    spans = list(spans)
    valid = list(split_sentences((span for span in spans if not is_invalid(span)), max_s))
    for span in sorted(valid, key=lambda span: (span.start_s, span.end_s)):
        if group and (span.text is None or _parts(group[-1], span)):
            merged.append(_join(group))
            group = []
        if span.text is None or span.duration_s > max_s:
            merged.append(span)
            continue
        while group and span.end_s - group[0].start_s > max_s:
            count = _longest_pause(group, span)
            merged.append(_join(group[:count]))
            group = group[count:]
        group.append(span)
        if ends_sentence(span.text) and span.end_s - group[0].start_s >= max(min_s, min(SHORT_S, max_s)):
            merged.append(_join(group))
            group = []
    if group:
        merged.append(_join(group))
    return [*merged, *(span for span in spans if is_invalid(span))]


def _parts(before: Span, span: Span) -> bool:
    """Check whether two spans belong to different segments: a pause, an overlap, or another speaker."""
    gap = span.start_s - before.end_s
    return gap > PAUSE_S or gap < -PAUSE_S or span.speaker != before.speaker


def _longest_pause(group: Sequence[Span], following: Span) -> int:
    """Return how many spans come before a sentence's end or else the longest pause in the later half of a group."""
    ends = [*group[1:], following]
    half = group[0].start_s + (group[-1].end_s - group[0].start_s) / 2
    later = [n for n, span in enumerate(group, 1) if span.end_s >= half]
    sentences = [n for n in later if ends_sentence(group[n - 1].text or "")]
    return max(sentences or later, key=lambda n: (ends[n - 1].start_s - group[n - 1].end_s, n))


def _join(group: Sequence[Span]) -> Span:
    first = group[0]
    if len(group) == 1:
        return first
    text = first.text or ""
    for span in group[1:]:
        following = span.text or ""
        is_unspaced = UNSPACED.match(text[-1:]) and UNSPACED.match(following[:1])
        text += following if is_unspaced else f" {following}"
    sounds = [span.sound_event for span in group if span.sound_event is not None]
    raw = [span.raw_text for span in group if span.raw_text is not None]
    return replace(
        first,
        end_s=max(span.end_s for span in group),
        text=text,
        sound_event=any(sounds) if sounds else None,
        raw_text="\n".join(raw) or None,
        values=dict(item for item in first.values.items() if all(item in span.values.items() for span in group)),
    )
