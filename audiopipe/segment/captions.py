"""Read captions: WebVTT, SubRip, YouTube's json3 and srv1 to srv3, TTML; each word once, where it is spoken.

The contents of a file say what it is; its name only separates WebVTT without a header from SubRip. An entry with
invalid times keeps them, or has NaN, so that the cutter drops it with a reason; a file in another format than it claims
is an error.
"""

from __future__ import annotations

import math
from functools import partial

from audiopipe.errors import BadSegments
from audiopipe.segment.cues import Cue, parse_srt, parse_vtt
from audiopipe.segment.documents import read_json
from audiopipe.segment.rolling import Caption, unroll
from audiopipe.segment.text import parse_markup, raw_line
from audiopipe.segment.timed_xml import is_timed_xml, parse_xml
from audiopipe.segment.timestamp_map import FILE_CLOCK, MediaClock, place_on_clock
from audiopipe.segment.transcript import Transcript, decode_text, refuse_damage, require_valid_times
from audiopipe.types import CaptionFile, Seconds, SegmentSource, Span

__all__ = ["read_captions"]


def read_captions(file: CaptionFile, clock: MediaClock = FILE_CLOCK) -> Transcript:
    """Read the captions of a file; an empty list if it is well-formed but has no cues.

    They are in the order of the file, or in order of start where it rolls.

    Args:
        file: the captions.
        clock: that of the media, which `X-TIMESTAMP-MAP` refers to.

    Raises:
        BadSegments: the bytes are not text or not captions, or have no valid times at all.
    """
    with refuse_damage(file.format, file.data):
        transcript = _read(file, clock)
    if file.automatic is not None:
        transcript.automatic = file.automatic
    return require_valid_times(file.format, transcript)


def _read(file: CaptionFile, clock: MediaClock) -> Transcript:
    if file.format is SegmentSource.JSON3:
        return read_json(file.data)
    text = decode_text(file.data)
    if is_timed_xml(text):
        return parse_xml(text)
    has_vtt_header = text.startswith("WEBVTT")  # in a file of any name
    moved_s = 0.0
    if has_vtt_header or file.format is SegmentSource.VTT:
        cues, moved_s = place_on_clock(text, clock, partial(parse_vtt, text), _last_end)
    else:
        cues = parse_srt(text)
    if not cues and text.strip() and not has_vtt_header:
        raise BadSegments(f"captions ({file.format}) have no line 'start --> end'; they begin {text.strip()[:40]!r}")
    transcript = _to_transcript(cues)
    transcript.moved_s = moved_s
    return transcript


def _last_end(cues: list[Cue]) -> Seconds:
    return max((cue.end_s for cue in cues if not math.isnan(cue.end_s)), default=0.0)


def _to_transcript(cues: list[Cue]) -> Transcript:
    captions, automatic = unroll(cues)
    return Transcript(map(_to_span, captions), automatic)


def _to_span(caption: Caption) -> Span:
    """Separate text, speaker and marks of sounds."""
    raw = "\n".join(caption.lines)
    if not raw.strip():
        return Span(caption.start_s, caption.end_s)
    text, speaker, sound_event = parse_markup(raw)
    return Span(caption.start_s, caption.end_s, text, speaker, sound_event, raw_line(raw).strip())
