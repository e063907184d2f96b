"""Draw the segments that a page embeds: random rows, and the audio of some of them up to a number of bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile as sf

from audiopipe.dataset.reader import SAMPLE_ORDER, Dataset
from audiopipe.dataset.records import finite
from audiopipe.errors import AudiopipeError
from audiopipe.media.encode import encode
from audiopipe.report.excerpts import Excerpt
from audiopipe.report.segment_table.columns import TableColumn, describe_columns

__all__ = ["EmbeddedSample", "draw_sample"]

MAX_ROWS = 1000
MAX_AUDIO = 60
AUDIO_BYTES = 2_000_000  # of a page, as Base64
TEXT_LENGTH = 600  # characters of a text in the page


@dataclass(frozen=True)
class EmbeddedSample:
    """Random segments in a random order, those with audio in the page first.

    `rows` has the values of `columns`; `audio` has the first seconds of the first rows as MP3 in Base64.
    """

    columns: Sequence[TableColumn]
    rows: Sequence[Sequence[Any]]
    audio: Sequence[str]


def draw_sample(dataset: Dataset, seed: int = 0) -> EmbeddedSample:
    """Draw segments at random, kept or dropped, and as many of them with their audio as the page has room for."""
    with dataset.connect() as connection:
        columns = describe_columns(dataset, connection)
        order = SAMPLE_ORDER.format(seed=int(seed))
        # The order needs two columns; all others are read for the rows that were drawn alone.
        drawn = connection.sql(f"SELECT language, key FROM segments ORDER BY {order} LIMIT {MAX_ROWS}").fetchall()
        table = connection.sql(
            "SELECT * FROM segments WHERE key IN (SELECT unnest(?))", params=[[key for _, key in drawn]]
        ).to_arrow_table()
    by_key = {(row["language"], row["key"]): row for row in table.to_pylist()}
    rows = [by_key[key] for key in drawn]
    audio = _read_audio(dataset, rows)
    first = [index for index, _ in audio]
    ordered = [*first, *(index for index in range(len(rows)) if index not in set(first))]
    values = [[_shorten(rows[index][column.name], column) for column in columns] for index in ordered]
    return EmbeddedSample(columns, values, [text for _, text in audio])


def _read_audio(dataset: Dataset, rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Return the audio of the first rows that have some, with their numbers; what cannot be read is left out."""
    audio: list[tuple[int, str]] = []
    room = AUDIO_BYTES
    for index, row in enumerate(rows):
        if len(audio) == MAX_AUDIO or room <= 0:
            break
        if row["tar_offset"] is None:
            continue
        try:
            excerpt = Excerpt.decode(dataset.segment_of(dict(row)).read_bytes())
        except (AudiopipeError, OSError, sf.LibsndfileError):
            continue
        samples = np.clip(excerpt.samples * 32767, -32768, 32767).astype(np.int16)
        text = base64.b64encode(encode(samples, excerpt.rate_hz, "mp3")).decode()
        if len(text) <= room:
            audio.append((index, text))
        room -= len(text)
    return audio


def _shorten(value: Any, column: TableColumn) -> Any:
    """Return a value in the fewest characters that give the same float32; a long text is cut."""
    if isinstance(value, float):
        return finite(float(str(np.float32(value))) if column.is_float32 else round(value, 6))
    if isinstance(value, str) and len(value) > TEXT_LENGTH:
        return value[:TEXT_LENGTH] + "…"
    return value
