"""Read manifests of Lhotse: cuts, or recordings with their supervisions, as JSON lines.

Each supervision is a segment; a cut without one is a segment as well. Manifests are parsed here, because Lhotse is an
extra. Columns that can be kept are `utterance_id`, `gender` and the fields of `custom`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from audiopipe.catalog.read_errors import READ_ERRORS, to_catalog_error
from audiopipe.catalog.segment_rows import Entry, JsonValue, Recording
from audiopipe.catalog.tables import iterate_json, open_text
from audiopipe.errors import CatalogError
from audiopipe.store.objects import open_filesystem

__all__ = ["is_lhotse", "list_manifests", "read_lhotse"]

# As Lhotse's recipes name them: PREFIX_recordings_PART.jsonl.gz
LHOTSE_NAME = re.compile(r"(?:.*[-_.])?(recordings|cuts)(?:[-_.].*)?\.jsonl(?:\.gz)?")

Row = Mapping[str, Any]


@dataclass
class _Corpus:
    source: str
    recordings: dict[str, Recording] = field(default_factory=dict)

    def add_recording(self, row: Row, number: int) -> Recording:
        """Add a recording, once."""
        name = str(row.get("id") or "")
        if name not in self.recordings:
            recording = Recording(name, _location(self.source, number, row), number)
            recording.duration_s = float(row["duration"]) if row.get("duration") is not None else None
            self.recordings[name] = recording
        return self.recordings[name]

    def add_supervision(self, recording: Recording, row: Row, offset_s: float) -> None:
        """Add a supervision, whose start is relative to the offset."""
        start_s = offset_s + float(row["start"])
        custom = row.get("custom")
        values: dict[str, JsonValue] = {"utterance_id": row.get("id"), "gender": row.get("gender")}
        values |= {name: _plain(value) for name, value in custom.items()} if isinstance(custom, dict) else {}
        values = {name: value for name, value in values.items() if value is not None}
        if row.get("language"):
            recording.languages[str(row["language"])] += 1
        end_s = round(start_s + float(row["duration"]), 6)
        recording.entries.append(Entry(round(start_s, 6), end_s, row.get("text"), row.get("speaker"), values))


def is_lhotse(row: Row) -> bool:
    """Check whether an object of JSON lines is one of a manifest: a cut, a recording or a supervision."""
    return "sources" in row or "recording_id" in row or row.get("type") in ("MonoCut", "MultiCut", "MixedCut")


def read_lhotse(url: str) -> list[Recording]:
    """Read a manifest, or all those of a folder.

    Raises:
        CatalogError: a manifest cannot be read, or a line has no audio that is in one file.
    """
    corpora: dict[str, Recording] = {}
    for name in list_manifests(url):
        corpus = _Corpus(name)
        try:
            for number, row in _rows(name):
                _add(corpus, row, number)
            supervisions = _supervisions_of(name)
            if supervisions is not None and any("sources" in row for _, row in _rows(name)):
                for number, row in _rows(supervisions):
                    recording = corpus.recordings.get(str(row.get("recording_id")))
                    if recording is None:
                        problem = f"its recording {row.get('recording_id')!r} is not in {name}"
                        raise CatalogError(f"catalog {supervisions}, line {number}: {problem}")
                    corpus.add_supervision(recording, row, 0.0)
        except (KeyError, TypeError, AttributeError) as error:
            raise CatalogError(f"catalog {name}: a line is not one of Lhotse's: {error!r}") from error
        except READ_ERRORS as error:
            remedy = "check the address, the access to it, and that it is a manifest of Lhotse"
            raise to_catalog_error(name, "read", error, remedy) from error
        for key, recording in corpus.recordings.items():
            corpora.setdefault(key, recording)
    return list(corpora.values())


def _rows(url: str) -> Iterator[tuple[int, Row]]:
    with open_text(url) as file:
        yield from iterate_json(file)


def _add(corpus: _Corpus, row: Row, number: int) -> None:
    if "sources" in row:
        corpus.add_recording(row, number)
        return
    if "recording" not in row:
        kind = "a mixed cut has" if "tracks" in row else "supervisions alone have"
        raise CatalogError(f"catalog {corpus.source}, line {number}: {kind} no audio file; give cuts or recordings")
    recording = corpus.add_recording(row["recording"], number)
    start_s = float(row["start"])
    supervisions: Iterable[Row] = row.get("supervisions") or ()
    for supervision in supervisions:
        corpus.add_supervision(recording, supervision, start_s)
    if not supervisions:
        corpus.add_supervision(recording, {"id": row.get("id"), "start": 0.0, "duration": row["duration"]}, start_s)


def _location(source: str, number: int, row: Row) -> str:
    sources = row["sources"]
    where = f"catalog {source}, line {number} ({row.get('id')})"
    if len(sources) != 1 or sources[0].get("type") not in ("file", "url"):
        kinds = ", ".join(str(item.get("type")) for item in sources) or "nothing"
        raise CatalogError(f"{where}: its audio is {kinds}; it must be one file or URL")
    changes = [item.get("name", "a change") for item in row.get("transforms") or () if isinstance(item, dict)]
    if any(name in ("Speed", "Tempo") for name in changes):
        raise CatalogError(f"{where}: its audio is changed ({', '.join(changes)}), and in no file; give other cuts")
    return str(sources[0]["source"])


def _plain(value: object) -> JsonValue:
    """Return a value that segments can have; None for arrays and manifests."""
    return value if isinstance(value, str | int | float | bool) else None


def list_manifests(url: str) -> list[str]:
    """Return the addresses of the manifests of a folder, cuts if there are some; or the address itself."""
    fs, path = open_filesystem(url)
    if not fs.isdir(path):
        return [url]
    names = sorted(str(entry).rpartition("/")[2] for entry in fs.ls(path, detail=False))
    matches = [(name, match[1]) for name in names if (match := LHOTSE_NAME.fullmatch(name))]
    kind = "cuts" if any(kind == "cuts" for _, kind in matches) else "recordings"
    return [f"{url.rstrip('/')}/{name}" for name, other in matches if other == kind]


def _supervisions_of(url: str) -> str | None:
    """Return the address of the supervisions that Lhotse's names put next to recordings; None if there are none."""
    folder, _, name = url.rpartition("/")
    other = f"{folder}/" * bool(folder) + name.replace("recordings", "supervisions")
    fs, path = open_filesystem(other)
    return other if other != url and fs.exists(path) else None
