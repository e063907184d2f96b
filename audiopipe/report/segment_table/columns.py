"""Describe the columns of segments to the page: what they hold, and how they are shown and filtered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb

from audiopipe.conditions import parse_condition
from audiopipe.dataset.column_meanings import SEGMENT_COLUMNS, SELECTION_COLUMNS
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.sql import quote_name
from audiopipe.errors import ConfigError
from audiopipe.report.metric_labels import digits, metric_title
from audiopipe.report.text import humanize
from audiopipe.scorers.scorer import Column

__all__ = ["TableColumn", "describe_columns", "sql_name"]

Kind = Literal["number", "text", "category", "flag"]
MAX_CATEGORIES = 60  # a text column with more values is searched, not chosen from
INTEGERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG")} | {"INTEGER", "UINTEGER"}
NUMBERS = INTEGERS | {"FLOAT", "DOUBLE"}
# The columns that a table starts with, as far as the dataset has them; the text is put first by the page.
SHOWN = (
    *("text", "duration_s", "language", "video_id", "speaker", "dnsmos_ovrl", "snr_db"),
    *("loudness_lufs", "characters_per_s", "bandwidth_hz"),
)
MAX_SHOWN = 8
MEANINGS = {**SEGMENT_COLUMNS, **SELECTION_COLUMNS}
TITLES = {
    "video_id": "video",
    "duration_s": "duration (s)",
    "start_s": "start (s)",
    "end_s": "end (s)",
    "segment": "number",
    "source_uri": "source",
    "source_etag": "ETag of the source",
    "source_rate_hz": "source rate (Hz)",
    "gain_db": "gain (dB)",
}
SECONDS = ("start_s", "end_s", "duration_s")
# Columns that say where a segment is stored and comes from, which the page shows last.
ORIGIN = (
    *("shard", "tar_offset", "audio_bytes", "source_uri", "source_etag", "config_digest", "version"),
    *("parent_shard", "parent_tar", "parent_offset", "tar_url"),
)


@dataclass(frozen=True)
class TableColumn:
    """One column: its name, its name in SQL, and how it is shown.

    `digits` is the number of decimals. `is_float32` says that a limit must be rounded to float32 before it is compared,
    as DuckDB does. `is_origin` marks a column that says where a segment is stored and comes from.
    """

    name: str
    sql: str
    title: str
    meaning: str
    kind: Kind
    digits: int
    is_float32: bool
    is_shown: bool
    is_origin: bool


def describe_columns(dataset: Dataset, connection: duckdb.DuckDBPyConnection) -> list[TableColumn]:
    """Describe the columns of a dataset that have one value for each segment; lists are left out.

    Args:
        connection: with the table `segments`, in which the different values of texts are counted.
    """
    types = {name: kind for name, kind in dataset.column_types.items() if kind in NUMBERS | {"BOOLEAN", "VARCHAR"}}
    texts = [name for name, kind in types.items() if kind == "VARCHAR"]
    counts = ", ".join(f"approx_count_distinct({quote_name(name)})" for name in texts)
    [row] = connection.execute(f"SELECT count(*), {counts} FROM segments").fetchall()
    different = dict(zip(texts, row[1:], strict=True))
    scores = {column.name: column for column in dataset.score_columns}
    used = [name for name in SHOWN if name in types and different.get(name, 1)][:MAX_SHOWN]
    return [_describe(name, types, different, row[0], scores.get(name), name in used) for name in _in_order(types)]


def _in_order(types: Mapping[str, str]) -> Sequence[str]:
    """Return the columns with those first that the table starts with."""
    first = [name for name in SHOWN if name in types]
    return [*first, *(name for name in types if name not in first)]


def _describe(
    name: str, types: Mapping[str, str], different: Mapping[str, int], rows: int, score: Column | None, is_shown: bool
) -> TableColumn:
    duckdb_type = types[name]
    kind: Kind = "flag" if duckdb_type == "BOOLEAN" else "number" if duckdb_type in NUMBERS else "text"
    # Values that repeat are chosen from; every text of a tiny dataset differs.
    if kind == "text" and name != "text" and different[name] <= min(MAX_CATEGORIES, max(1, rows // 2)):
        kind = "category"
    decimals = 0 if duckdb_type in INTEGERS else 2 if name in SECONDS else digits(score) if score else 3
    return TableColumn(
        name,
        sql_name(name, duckdb_type),
        metric_title(score) if score else TITLES.get(name, humanize(name)),
        score.description if score else MEANINGS.get(name, ""),
        kind,
        decimals,
        duckdb_type == "FLOAT",
        is_shown,
        name in ORIGIN,
    )


def sql_name(column: str, kind: str) -> str:
    """Return the name of a column in SQL, in quotes only where it needs them."""
    try:
        parse_condition(f"{column} IS NULL", {column: kind})
    except ConfigError:
        return quote_name(column)
    return column
