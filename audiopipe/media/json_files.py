"""Classify the JSON files next to the audio of a video: segment times, timed text, metadata, or something else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from audiopipe.types import VideoInfo

__all__ = ["JsonFile", "JsonKind", "classify_json", "merge_info"]

MAX_VALUES = 3_000_000  # as in segment times: more are refused there, and are not metadata
MAX_TEXT = 1000  # characters of a title
MAX_CHAPTERS = 1000
TRANSCRIPT_KEYS = ("segments", "transcription")  # Whisper, WhisperX and this project; whisper.cpp
TIMES = frozenset({"start", "end", "duration", "offsets", "words", "timestamps"})


class JsonKind(Enum):
    """The use of a JSON file."""

    TRANSCRIPT = "segment times"
    TIMED_TEXT = "YouTube's json3"
    INFO = "metadata"
    DAMAGED = "cannot be read, and its name does not say that it is something else"
    OTHER = "ignored"


@dataclass(frozen=True)
class JsonFile:
    """A JSON file with its use.

    Attributes:
        fields: the object in it; empty for a list.
        has_times: it has segments, and one of them has times.
        reason: why it is ignored.
    """

    name: str
    kind: JsonKind
    data: bytes = field(repr=False)
    fields: dict[str, object] = field(default_factory=dict, repr=False)
    has_times: bool = False
    reason: str = ""


def classify_json(name: str, data: bytes) -> JsonFile:
    """Parse a JSON file and decide what it is for."""
    try:
        document = _parse(data)
    except ValueError as error:
        is_info, is_lines = name.lower().endswith(".info.json"), _is_json_lines(data)
        kind = JsonKind.OTHER if is_info or is_lines else JsonKind.DAMAGED
        return JsonFile(name, kind, data, reason="JSON lines" if is_lines else str(error))
    if isinstance(document, dict):
        return _classify_object(name, data, document)
    is_transcript = _has_times(document)
    kind = JsonKind.TRANSCRIPT if is_transcript else JsonKind.OTHER
    return JsonFile(name, kind, data, has_times=is_transcript, reason="a list or value without segment times")


def _classify_object(name: str, data: bytes, fields: dict[str, object]) -> JsonFile:
    for key in TRANSCRIPT_KEYS:
        if fields.get(key):
            return JsonFile(name, JsonKind.TRANSCRIPT, data, fields, _has_times(fields[key]))
    if "wireMagic" in fields and fields.get("events"):
        return JsonFile(name, JsonKind.TIMED_TEXT, data)
    return JsonFile(name, JsonKind.INFO, data, fields)


def merge_info(files: Sequence[JsonFile]) -> VideoInfo:
    """Take title, channel, upload date, chapters and language from yt-dlp's `info.json`, then from other objects."""
    ordered = sorted(files, key=lambda file: (not file.name.lower().endswith(".info.json"), file.name))
    objects = [file.fields for file in ordered]
    return VideoInfo(
        title=_first_text(objects, "title", "fulltitle"),
        channel=_first_text(objects, "channel", "uploader"),
        upload_date=_first_text(objects, "upload_date"),
        chapters=next(filter(None, (_chapters(fields.get("chapters")) for fields in objects)), None),
        language=_first_text(objects, "language"),
        manual_captions=_keys(objects, "subtitles"),
        automatic_captions=_keys(objects, "automatic_captions"),
    )


def _parse(data: bytes) -> object:
    """Parse JSON of a bounded number of values and depth.

    Raises:
        ValueError: it is not such JSON.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES} values")
    try:
        document: object = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return document


def _is_json_lines(data: bytes) -> bool:
    """Check whether the first line is a JSON object and others follow."""
    line, separator, rest = data[: 1 << 20].strip().partition(b"\n")
    try:
        return bool(separator and rest.strip()[:1] == b"{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _has_times(entries: object) -> bool:
    if not isinstance(entries, list):
        return False
    return any(isinstance(entry, dict) and "segment" not in entry and _has_time(entry) for entry in entries)


def _has_time(entry: dict[str, object]) -> bool:
    return not TIMES.isdisjoint(entry)


def _first_text(objects: Iterable[dict[str, object]], *names: str) -> str | None:
    values = (fields.get(name) for fields in objects for name in names)
    return next((text for value in values if (text := _to_text(value))), None)


def _to_text(value: object) -> str | None:
    """Return text that UTF-8 can encode, on one line; None for other values."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    clean = value[:MAX_TEXT].encode("utf-8", "replace").decode().replace("\x00", " ")
    return " ".join(clean.split()) or None


def _chapters(chapters: object) -> str | None:
    """Return yt-dlp's chapters as JSON: a list of `start_time`, `end_time` and `title`."""
    if not isinstance(chapters, list):
        return None
    rows = [
        {
            "start_time": _number(row.get("start_time")),
            "end_time": _number(row.get("end_time")),
            "title": _to_text(row.get("title")),
        }
        for row in chapters[:MAX_CHAPTERS]
        if isinstance(row, dict)
    ]
    return json.dumps(rows, ensure_ascii=False) if rows else None


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9  # not NaN
    return float(value) if is_number else None  # type: ignore[arg-type]


def _keys(objects: Iterable[dict[str, object]], name: str) -> frozenset[str]:
    tables = (fields.get(name) for fields in objects)
    return frozenset(next((key for table in tables if isinstance(table, dict) for key in [table.keys()]), ()))
