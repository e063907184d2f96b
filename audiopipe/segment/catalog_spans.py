"""Read the texts, speakers and times that a catalog has of a video (`catalog/segment_rows.py` describes the JSON).

Texts are taken as they are, apart from white space: a corpus has them checked, and a name or a mark in them is meant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from audiopipe.segment.text import normalize_text, parse_markup, raw_line
from audiopipe.segment.transcript import Transcript, bound_count, bound_text, refuse_damage, require_valid_times
from audiopipe.types import Seconds, Span

__all__ = ["file_span", "read_catalog_spans", "row_speaker"]

KIND = "catalog"


def read_catalog_spans(segments: str | None, audio_s: Seconds | None) -> Transcript:
    """Read the segments that a catalog has of a video; an empty list if it has none, or only a text of the whole file.

    Args:
        segments: the JSON of the catalog's row.
        audio_s: the end of the audio, where open segments end; without it they are dropped.

    Raises:
        BadSegments: they are too many, have too much text, or no valid times at all.
    """
    if segments is None or not segments.startswith("["):
        return Transcript()
    with refuse_damage(KIND, segments.encode()):
        entries = json.loads(segments)
        bound_count(KIND, len(entries))
        open_end = math.nan if audio_s is None else audio_s
        times = [(float(entry["start"]), float(entry.get("end", open_end))) for entry in entries]
        spans = Transcript(_make_span(entry, *span) for entry, span in zip(entries, times, strict=True))
    return require_valid_times(KIND, spans)


def file_span(segments: str | None) -> Span | None:
    """Return the span of a whole file, which has no end yet, with the catalog's text; None if it has no text."""
    body = _row(segments)
    return _make_span(body, 0.0, math.inf) if body.get("text") else None


def row_speaker(segments: str | None) -> str | None:
    """Return the speaker of a whole file, None if the catalog has none."""
    return normalize_text(str(_row(segments).get("speaker") or ""))


def _row(segments: str | None) -> dict[str, Any]:
    if segments is None or not segments.startswith("{"):
        return {}
    body: dict[str, Any] = json.loads(segments)
    return body


def _make_span(entry: Mapping[str, Any], start_s: Seconds, end_s: Seconds) -> Span:
    text, speaker = entry.get("text"), normalize_text(entry.get("speaker") or "")
    values = entry.get("columns") or {}
    if not text:
        return Span(start_s, end_s, speaker=speaker, values=values)
    bound_text(text.count("\n"), len(text), start_s)
    sound_event = parse_markup(text, has_tags=False).sound_event
    return Span(start_s, end_s, normalize_text(text), speaker, sound_event, raw_line(text), values=values)
