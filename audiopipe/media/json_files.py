"""Classify the JSON files next to the audio of a video: segment times, timed text, metadata, or something else.

A parsed document may take ten times its bytes, so only its metadata is kept.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from audiopipe.store.bounded_json import PARSER_LOCK, load_json
from audiopipe.types import VideoInfo

__all__ = ["JsonFile", "JsonKind", "classify_json", "merge_info", "unreadable_json"]

MAX_TEXT = 1000  # characters of a title
MAX_CHAPTERS = 1000
MAX_LANGUAGES = 10_000  # YouTube has a few hundred
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
        data: its bytes, for segment times.
        info: the metadata in it.
        has_times: it has segments, and one of them has times.
        reason: why it is ignored, or cannot be read.
    """

    name: str
    kind: JsonKind
    data: bytes = field(default=b"", repr=False)
    info: VideoInfo = field(default_factory=VideoInfo, repr=False)
    has_times: bool = False
    reason: str = ""


def classify_json(name: str, data: bytes) -> JsonFile:
    """Parse a JSON file and decide what it is for."""
    try:
        with PARSER_LOCK:
            return _classify(name, data, load_json(data))
    except MemoryError:  # the worker's, not the file's
        raise
    except Exception as error:  # noqa: BLE001 - whatever a file makes the parser raise is the file's fault
        is_lines = _is_json_lines(data)
        return unreadable_json(name, "JSON lines" if is_lines else str(error)[:200], data, is_lines)


def unreadable_json(name: str, reason: str, data: bytes = b"", is_other: bool = False) -> JsonFile:
    """Describe a JSON file that cannot be read: yt-dlp's metadata is ignored, any other may have segment times."""
    is_other = is_other or name.lower().endswith(".info.json")
    return JsonFile(name, JsonKind.OTHER if is_other else JsonKind.DAMAGED, data, reason=reason)


def _classify(name: str, data: bytes, document: object) -> JsonFile:
    if not isinstance(document, dict):
        if _has_times(document):
            return JsonFile(name, JsonKind.TRANSCRIPT, data, has_times=True)
        return JsonFile(name, JsonKind.OTHER, reason="a list or value without segment times")
    info = _read_info(document)
    for key in TRANSCRIPT_KEYS:
        if document.get(key):
            return JsonFile(name, JsonKind.TRANSCRIPT, data, info, _has_times(document[key]))
    if "wireMagic" in document and document.get("events"):
        return JsonFile(name, JsonKind.TIMED_TEXT)
    return JsonFile(name, JsonKind.INFO, info=info)


def merge_info(files: Sequence[JsonFile]) -> VideoInfo:
    """Take title, channel, upload date, chapters and language from yt-dlp's `info.json`, then from other objects."""
    ordered = sorted(files, key=lambda file: (not file.name.lower().endswith(".info.json"), file.name))
    infos = [file.info for file in ordered]
    return VideoInfo(
        title=next((info.title for info in infos if info.title), None),
        channel=next((info.channel for info in infos if info.channel), None),
        upload_date=next((info.upload_date for info in infos if info.upload_date), None),
        chapters=next((info.chapters for info in infos if info.chapters), None),
        language=next((info.language for info in infos if info.language), None),
        manual_captions=next((info.manual_captions for info in infos if info.manual_captions), frozenset()),
        automatic_captions=next((info.automatic_captions for info in infos if info.automatic_captions), frozenset()),
    )


def _read_info(document: dict[str, object]) -> VideoInfo:
    return VideoInfo(
        title=_first_text(document, "title", "fulltitle"),
        channel=_first_text(document, "channel", "uploader"),
        upload_date=_first_text(document, "upload_date"),
        chapters=_chapters(document.get("chapters")),
        language=_first_text(document, "language"),
        manual_captions=_keys(document.get("subtitles")),
        automatic_captions=_keys(document.get("automatic_captions")),
    )


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


def _first_text(document: dict[str, object], *names: str) -> str | None:
    return next((text for name in names if (text := _to_text(document.get(name)))), None)


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


def _keys(table: object) -> frozenset[str]:
    """Return the languages that a table of captions has."""
    return frozenset(itertools.islice(table, MAX_LANGUAGES)) if isinstance(table, dict) else frozenset()
