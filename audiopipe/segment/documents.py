"""Read segment times from JSON.

Formats: `segments: [{start, end, text, speaker}]` or a bare list; the same with `duration` (YouTube's transcripts);
Whisper's and WhisperX's segments with `words`; whisper.cpp's `transcription`; YouTube's json3 `events`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from audiopipe.errors import BadSegments
from audiopipe.segment.text import normalize_text, parse_markup, raw_line
from audiopipe.segment.transcript import (
    Transcript,
    bound_count,
    bound_text,
    end_at_next_start,
    end_on_screen,
    parse_timestamp,
    refuse_damage,
    require_valid_times,
)
from audiopipe.store.bounded_json import PARSER_LOCK, load_json
from audiopipe.types import Seconds, Span

__all__ = ["read_json"]

MAX_BETWEEN_WORDS = 10  # characters

Entry = dict[str, object]


def read_json(data: bytes) -> Transcript:
    """Read the spans of a JSON file, in its order.

    Returns an empty list if it has no list of segments, or an empty one: the file is metadata only.

    Raises:
        BadSegments: the file is not JSON, or its segments are not a list or have no valid times at all.
    """
    with PARSER_LOCK, refuse_damage("json", data):
        transcript = _read_document(_load(data))
    return require_valid_times("json", transcript)


def _load(data: bytes) -> object:
    try:
        return load_json(data)
    except ValueError as error:
        raise BadSegments(f"the JSON next to the audio cannot be read: {error}") from error


def _read_document(document: object) -> Transcript:
    entries = document
    if isinstance(document, dict):
        entries = document.get("segments")
        if entries is None and isinstance(document.get("events"), list) and "wireMagic" in document:
            return _read_json3(document["events"])
        if entries is None and isinstance(document.get("transcription"), list):
            entries = [_from_whisper_cpp(entry) for entry in document["transcription"]]
    if entries is None:
        return Transcript()
    if not isinstance(entries, list):
        raise BadSegments(f"'segments' of the JSON next to the audio must be a list, not {type(entries).__name__}")
    bound_count("json", len(entries))
    spans = [_parse_entry(entry) for entry in entries]
    has_duration = [isinstance(entry, dict) and "duration" in entry and "end" not in entry for entry in entries]
    if has_duration and all(has_duration):
        return end_on_screen(spans)
    return Transcript(end_at_next_start(spans, has_duration) if any(has_duration) else spans)


def _parse_entry(entry: object) -> Span:
    """Parse an entry of `segments`. Its words have the times and the text that it lacks."""
    if not isinstance(entry, dict):
        return Span(math.nan, math.nan)
    word_entries = _word_entries(entry)
    start = _parse_number(entry.get("start"))
    end = _parse_number(entry["end"]) if "end" in entry else start + _parse_number(entry.get("duration"))
    if math.isnan(start):
        start = next((time for word in word_entries if not math.isnan(time := _parse_number(word.get("start")))), start)
    if math.isnan(end):
        end = next(
            (time for word in reversed(word_entries) if not math.isnan(time := _parse_number(word.get("end")))), end
        )
    text = _to_text(entry.get("text"))
    if text is None and word_entries:
        text = _join([_to_text(word.get("word", word.get("text"))) or "" for word in word_entries])
    speaker = _to_text(entry.get("speaker")) or ""
    bound_text(1, len(speaker), start)
    return _make_span(start, end, text, normalize_text(speaker), _word_times(word_entries, text or ""))


def _word_times(word_entries: list[Entry], text: str) -> list[tuple[Seconds, int]]:
    """Return the starts of words and their positions in a text; none if it does not consist of these words."""
    times, position = [], 0
    for word in word_entries:
        spoken = (_to_text(word.get("word", word.get("text"))) or "").strip()
        first = text.find(spoken, position, position + len(spoken) + MAX_BETWEEN_WORDS)
        if first < 0:
            return []
        position = first + len(spoken)
        times.append((_parse_number(word.get("start")), first))
    return times


def _word_entries(entry: Entry) -> list[Entry]:
    word_entries = entry.get("words")
    return [word for word in word_entries if isinstance(word, dict)] if isinstance(word_entries, list) else []


def _join(word_entries: list[str]) -> str:
    """Join words: Whisper's begin with a blank where there is one, WhisperX's have none."""
    return "".join(word_entries) if any(word[:1].isspace() for word in word_entries) else " ".join(word_entries)


def _make_span(
    start: Seconds,
    end: Seconds,
    raw: str | None,
    speaker: str | None = None,
    word_times: Iterable[tuple[Seconds, int]] = (),
) -> Span:
    if raw is None:
        return Span(start, end, speaker=speaker)
    bound_text(raw.count("\n"), len(raw), start)
    text, named, sound_event = parse_markup(raw, has_tags=False)
    line = raw_line(raw)
    times = tuple(word_times) if len(line) == len(raw) else ()  # the positions are those in the raw text
    return Span(start, end, text, speaker or named, sound_event, line, times)


def _from_whisper_cpp(entry: object) -> object:
    """Give an entry of whisper.cpp's `transcription` the names of `segments`: its offsets are milliseconds."""
    offsets = entry.get("offsets") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(offsets, dict):
        return None
    start, end = (_parse_number(offsets.get(name)) / 1000 for name in ("from", "to"))
    return {"start": start, "end": end, "text": entry.get("text"), "speaker": entry.get("speaker")}


def _read_json3(events: list[object]) -> Transcript:
    """Read YouTube's json3: events with a start and a duration on the screen, in pieces with offsets, in ms."""
    bound_count("json3", len(events))
    spans, automatic = [], False
    for event in events:
        pieces = event.get("segs") if isinstance(event, dict) else None
        if not isinstance(event, dict) or not isinstance(pieces, list):
            continue
        word_entries = [
            piece for piece in pieces if isinstance(piece, dict) and (_to_text(piece.get("utf8")) or "").strip()
        ]
        raw = "".join(_to_text(piece.get("utf8")) or "" for piece in pieces if isinstance(piece, dict))
        if not word_entries:
            continue  # a line feed that rolls the window
        automatic = automatic or any("tOffsetMs" in word for word in word_entries)
        start = _parse_number(event.get("tStartMs"))
        offset = _parse_number(word_entries[0].get("tOffsetMs", 0))
        end = start + _parse_number(event.get("dDurationMs"))
        times = _piece_times(pieces, start, len(raw) - len(raw.lstrip("\n")))
        spans.append(_make_span((start + offset) / 1000, end / 1000, raw.strip("\n"), word_times=times))
    return end_on_screen(spans, automatic)


def _piece_times(pieces: list[object], start_ms: float, removed: int) -> Iterator[tuple[Seconds, int]]:
    """Yield the start of each piece that has an offset, and its position in the text.

    Args:
        removed: number of characters removed from the start of the text.
    """
    position = -removed
    for piece in pieces:
        if isinstance(piece, dict):
            if "tOffsetMs" in piece:
                yield (start_ms + _parse_number(piece["tOffsetMs"])) / 1000, max(0, position)
            position += len(_to_text(piece.get("utf8")) or "")


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


def _to_text(value: object) -> str | None:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
