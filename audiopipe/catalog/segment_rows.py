"""Bring the texts, speakers and times of a catalog into one column: JSON text, or null, for each video.

    {"text": …, "speaker": …}                                a row that is a whole file
    [{"start": …, "end": …, "text": …, "speaker": …}, …]      segments of a longer recording; end may be missing

Entries of segments may also have `columns`, the values of `keep_columns`. The plan stores the text as it is, and
`segment/catalog_spans.py` parses it where the video is cut.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from audiopipe.errors import CatalogError

__all__ = ["Entry", "Recording", "group_recordings", "recordings_table", "whole_file"]

JsonValue = str | float | bool | None | list[object]


@dataclass(frozen=True)
class Entry:
    """A segment of a recording; `end_s` is None at the end of the audio."""

    start_s: float
    end_s: float | None
    text: str | None = None
    speaker: str | None = None
    values: Mapping[str, JsonValue] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the JSON object of the segment, without what it lacks."""
        body = {"start": self.start_s, "end": self.end_s, "text": self.text, "speaker": self.speaker}
        return {name: value for name, value in body.items() if value is not None} | (
            {"columns": dict(self.values)} if self.values else {}
        )


@dataclass
class Recording:
    """An audio file with the segments that a catalog has of it, in any order.

    Attributes:
        row: number of the first row that names it, from 1, for messages.
        languages: those of its segments.
        duration_s: of the whole file, if that is known.
        is_whole: its only entry is the whole file.
    """

    recording_id: str
    location: str
    row: int
    entries: list[Entry] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    duration_s: float | None = None
    size_bytes: int | None = None
    is_whole: bool = False


def whole_file(text: str | None, speaker: str | None, values: Mapping[str, JsonValue] | None = None) -> str | None:
    """Return the JSON of a row that is a whole file; None if it has neither text nor speaker."""
    body: dict[str, object] = {
        name: value for name, value in (("text", text), ("speaker", speaker)) if value and value.strip()
    }
    return json.dumps(body | ({"columns": dict(values)} if values else {}), ensure_ascii=False) if body else None


def recordings_table(recordings: Iterable[Recording], has_languages: bool) -> pa.Table:
    """Make raw rows of recordings; the language of one is that of most of its segments."""
    rows = list(recordings)
    columns = {
        "youtube_id": pa.array([row.recording_id for row in rows], pa.string()),
        "r2_tar_key": pa.array([row.location for row in rows], pa.string()),
        "duration_s": pa.array([row.duration_s for row in rows], pa.float64()),
        "size_bytes": pa.array([row.size_bytes for row in rows], pa.int64()),
        "segments": pa.array([_to_json(row) for row in rows], pa.large_string()),
        "row": pa.array([row.row for row in rows], pa.int64()),
    }
    if has_languages:
        languages = [row.languages.most_common(1)[0][0] if row.languages else None for row in rows]
        columns["language"] = pa.array(languages, pa.string())
    return pa.table(columns)


def _to_json(row: Recording) -> str | None:
    if not row.entries:
        return None
    if row.is_whole:
        entry = row.entries[0]
        return whole_file(entry.text, entry.speaker, entry.values)
    entries = sorted(row.entries, key=lambda entry: (entry.start_s, math.inf if entry.end_s is None else entry.end_s))
    return json.dumps([entry.to_json() for entry in entries], ensure_ascii=False)


def group_recordings(source: str, rows: pa.Table, values: Sequence[Mapping[str, JsonValue]] | None) -> list[Recording]:
    """Group rows that are segments by their recording.

    Args:
        rows: text columns youtube_id and r2_tar_key, number columns row, start_s and end_s, and, where the catalog has
            them, language, text, speaker and size_bytes.
        values: those of kept columns for each row.

    Raises:
        CatalogError: a row has no times, or two rows of a recording name different files.
    """
    names = [name for name in rows.column_names if name != "duration_s"]
    recordings: dict[str, Recording] = {}
    for index, row in enumerate(rows.select(names).to_pylist()):
        number, start_s = row["row"], row["start_s"]
        video_id, location = row["youtube_id"] or "", row["r2_tar_key"] or ""
        recording = recordings.setdefault(video_id, Recording(video_id, location, number))
        if recording.location != location:
            raise CatalogError(
                f"catalog {source}, row {number} (id {video_id!r}): its file is {location!r}, and that of row "
                f"{recording.row} is {recording.location!r}; segments of one id are in one file"
            )
        if start_s is None:
            raise CatalogError(f"catalog {source}, row {number} (id {video_id!r}), column 'start_s': it has no start")
        recording.languages.update([row["language"]] if row.get("language") else [])
        recording.size_bytes = recording.size_bytes or row.get("size_bytes")
        kept = values[index] if values else {}
        recording.entries.append(Entry(start_s, row["end_s"], row.get("text"), row.get("speaker"), kept))
    return list(recordings.values())
