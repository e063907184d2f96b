"""Read captions: WebVTT, SubRip, YouTube's json3 and srv1 to srv3, TTML; each word once, where it is spoken.

The contents of a file say what it is; its name only separates WebVTT without a header from SubRip. An entry with
invalid times keeps them, or has NaN, so that the cutter drops it with a reason; a file in another format than it claims
is an error.
"""

from __future__ import annotations

from audiopipe.errors import BadSegments
from audiopipe.segment.cues import Cue, parse_srt, parse_vtt
from audiopipe.segment.documents import read_json
from audiopipe.segment.rolling import Caption, unroll
from audiopipe.segment.text import parse_markup, raw_line
from audiopipe.segment.timed_xml import is_timed_xml, parse_xml
from audiopipe.segment.transcript import Transcript, decode_text, refuse_damage, require_valid_times
from audiopipe.types import CaptionFile, Seconds, SegmentSource, Span

__all__ = ["read_captions"]


def read_captions(file: CaptionFile, media_start_s: Seconds = 0.0) -> Transcript:
    """Read the captions of a file; an empty list if it is well-formed but has no cues.

    They are in the order of the file, or in order of start where it rolls.

    Args:
        file: the captions.
        media_start_s: the first timestamp of the media, which `X-TIMESTAMP-MAP` refers to.

    Raises:
        BadSegments: the bytes are not text or not captions, or have no valid times at all.
    """
    with refuse_damage(file.format, file.data):
        transcript = _read(file, media_start_s)
    if file.automatic is not None:
        transcript.automatic = file.automatic
    return require_valid_times(file.format, transcript)


def _read(file: CaptionFile, media_start_s: Seconds) -> Transcript:
    if file.format is SegmentSource.JSON3:
        return read_json(file.data)
    text = decode_text(file.data)
    if is_timed_xml(text):
        return parse_xml(text)
    has_vtt_header = text.startswith("WEBVTT")  # in a file of any name
    cues = parse_vtt(text, media_start_s) if has_vtt_header or file.format is SegmentSource.VTT else parse_srt(text)
    if not cues and text.strip() and not has_vtt_header:
        raise BadSegments(f"captions ({file.format}) have no line 'start --> end'; they begin {text.strip()[:40]!r}")
    return _to_transcript(cues)


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
