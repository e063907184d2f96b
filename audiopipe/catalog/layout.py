"""Decide which column of a table is used for what: by `columns` of the config, or by the names that a format has.

The names of this package (`config.columns.ROLES`) stand for themselves. Tables of Common Voice, NeMo and Hugging Face
are recognized by their columns. For any other table, the error lists its columns and suggests `columns`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from audiopipe.config.columns import NO_COLUMN, join_columns
from audiopipe.errors import CatalogError

__all__ = [
    "AUDIO_FOLDER",
    "COLUMNS",
    "LOCATION",
    "OFFSET",
    "Layout",
    "choose_layout",
    "guess_roles",
    "recognize",
    "similar_name",
    "suggest_columns",
]

# The uses of a column that has this name. `text` and the others are used only where `columns` names them, because many
# tables have a column `text` that is not that of the audio.
COLUMNS = ("youtube_id", "language", "status", "r2_tar_key", "size_bytes", "duration_s")
LOCATION, OFFSET = "r2_tar_key", "offset"

# Names that other tables use, in lower case, the most likely first.
SYNONYMS: Mapping[str, Sequence[str]] = {
    "youtube_id": ("youtube_id", "id", "video_id", "utterance_id", "utt_id", "audio_id", "episode_id", "guid", "key"),
    "r2_tar_key": (
        *("r2_tar_key", "audio_filepath", "file_name", "path", "filename", "file", "file_path", "filepath"),
        *("audio_path", "audio_file", "audio", "wav", "wav_path", "wav_filename", "url", "audio_url", "uri", "clip"),
    ),
    "language": ("language", "locale", "lang", "language_code", "lang_id", "language_id", "source_lang"),
    "text": ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_text", "raw_transcription"),
    "speaker": ("speaker", "speaker_id", "client_id", "spk", "spk_id", "speaker_name"),
    "duration_s": ("duration_s", "duration", "duration_seconds", "length_s"),
    "start_s": ("start_s",),
    "end_s": ("end_s",),
}
# By name, the columns that identify a format. Its own rules for paths and language are in `read.py`.
COMMON_VOICE, NEMO, AUDIO_FOLDER = "Common Voice", "NeMo manifest", "Hugging Face audio folder"
FORMATS = {
    COMMON_VOICE: ("client_id", "path", "sentence"),
    NEMO: ("audio_filepath",),
    AUDIO_FOLDER: ("file_name",),
}


@dataclass(frozen=True)
class Layout:
    """The column of a table for each use.

    Attributes:
        name: of the format; None for a table that has this package's names or is mapped by `columns`.
        roles: the column for each use.
        has_offsets: each row is a segment from the column `offset`, for `duration_s` or to the end of the file.
    """

    name: str | None
    roles: Mapping[str, str] = field(default_factory=dict)
    has_offsets: bool = False

    @property
    def used(self) -> frozenset[str]:
        """The columns of the table that have a use."""
        return frozenset(self.roles.values()) | ({OFFSET} if self.has_offsets else frozenset())

    @property
    def is_native(self) -> bool:
        """Check whether the table has the layout of this package, whose paths and languages are taken as they are."""
        return self.name is None and all(role == column for role, column in self.roles.items())


def choose_layout(source: str, names: Sequence[str], mapping: Mapping[str, str]) -> Layout:
    """Choose the columns of a table.

    Args:
        names: the columns of the table.
        mapping: that of the config: the column for each use, `none` for no column.

    Raises:
        CatalogError: the mapping names a column that the table lacks.
    """
    _refuse_unknown(source, names, mapping)
    name = recognize(names)
    roles = {role: role for role in COLUMNS if role in names}
    if name is not None:
        roles.pop("status", None)  # of something else
        roles |= {role: column for role, column in guess_roles(names).items() if role != "youtube_id"}
    roles = {role: column for role, column in roles.items() if role not in mapping and column not in mapping.values()}
    roles |= {role: column for role, column in mapping.items() if column != NO_COLUMN or column in names}
    has_offsets = name == NEMO and OFFSET in names and "start_s" not in roles
    if LOCATION not in roles and "youtube_id" in roles and (mapping or name is not None):
        roles[LOCATION] = roles["youtube_id"]
    if "youtube_id" not in roles and LOCATION in roles:
        roles["youtube_id"] = roles[LOCATION]
    return Layout(name, roles, has_offsets)


def recognize(names: Sequence[str]) -> str | None:
    """Return the name of the format that some columns identify, None if there is none."""
    if "youtube_id" in names:
        return None
    return next((name for name, columns in FORMATS.items() if set(columns) <= set(names)), None)


def _refuse_unknown(source: str, names: Sequence[str], mapping: Mapping[str, str]) -> None:
    for role, column in mapping.items():
        if column in names or column == NO_COLUMN:
            continue
        similar = similar_name(column, names)
        hint = f" (did you mean {similar!r}?)" if similar else ""
        raise CatalogError(
            f"catalog {source} has no column {column!r}{hint}, which --columns names for {role}; it has "
            f"{', '.join(names) or 'none'}"
        )


def similar_name(name: str, names: Sequence[str]) -> str | None:
    """Return the most similar of some names, if one is similar."""
    by_lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return by_lower[close[0]] if close else None


def guess_roles(names: Sequence[str]) -> dict[str, str]:
    """Guess the columns of a table from their names, whatever their case; uses without a likely column are left out."""
    by_lower = {re.sub(r"[ -]+", "_", name.lower()): name for name in reversed(names)}
    guessed: dict[str, str] = {}
    for role, synonyms in SYNONYMS.items():
        column = next((by_lower[name] for name in synonyms if name in by_lower), None)
        if column is not None and column not in guessed.values():
            guessed[role] = column
    return guessed


def suggest_columns(names: Sequence[str], mapping: Mapping[str, str]) -> str | None:
    """Suggest a value of `columns` for a table, on top of the given mapping; None without a likely location."""
    taken = set(mapping.values())
    guessed = {role: column for role, column in guess_roles(names).items() if column not in taken} | dict(mapping)
    if LOCATION not in guessed:
        return None
    guessed.setdefault("youtube_id", guessed[LOCATION])
    if guessed.get(LOCATION) == guessed["youtube_id"]:
        del guessed[LOCATION]
    order = list(SYNONYMS)
    pairs = sorted(guessed.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))
    return join_columns(pair for pair in pairs if pair[0] != pair[1] or pair[0] in ("text", "speaker"))
