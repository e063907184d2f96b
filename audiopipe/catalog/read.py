"""Where videos come from: a table at any fsspec URL, a folder or glob of tars and audio files, or a database.

A backend only brings raw rows: `catalog_files`, or a `Backend` named in `BACKENDS`. What makes a row a video is decided
in `catalog_rows`, once for all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog.files import base_url, list_sizes, read_folder, read_table, table_format
from audiopipe.catalog.validate import (
    REQUIRED,
    RawCatalog,
    add_row_numbers,
    check_ids,
    check_languages,
    number_column,
    resolve_uris,
    select_completed,
)
from audiopipe.config import RunConfig

__all__ = ["SCHEMA", "Backend", "Catalog", "read_catalog"]

SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("language", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("duration_s", pa.float64()),
    ]
)
# Scheme of a database -> the module whose `rows` is its `Backend`; imported only when asked for.
BACKENDS = {"supabase": "audiopipe.catalog.supabase"}


class Backend(Protocol):
    """What a database has to offer to be a catalogue."""

    def __call__(self, table: str, language: str | None) -> Iterable[pa.Table]:
        """Pages of a table's raw rows, of one language or of all; best with status 'COMPLETED' only.

        Columns are `catalog_files.COLUMNS`, of which status, size_bytes and duration_s may be missing. Order and page
        sizes are free. Raises `CatalogError` for what the user can mend, `TransientError` for what may pass.
        """


@dataclass(frozen=True)
class Catalog:
    """The videos of a catalogue that a run may take: columns as `SCHEMA`, checked, in the catalogue's order."""

    source: str
    columns: tuple[str, ...]
    table: pa.Table

    def languages(self) -> list[str]:
        return sorted(pc.unique(self.table["language"]).to_pylist())

    def videos(self, language: str) -> pa.Table:
        """The videos of one language; sizes that the catalogue lacks are those of a listing (`catalog_files.sizes`)."""
        videos = self.table.filter(pc.field("language") == language).combine_chunks()
        column = videos["size_bytes"]
        if not column.null_count:
            return videos
        missing = pc.is_null(column)
        listed = list_sizes(videos["uri"].filter(missing).to_pylist())
        filled = pc.replace_with_mask(column.combine_chunks(), missing.combine_chunks(), pa.array(listed, pa.int64()))
        return videos.set_column(SCHEMA.get_field_index("size_bytes"), "size_bytes", filled)


def read_catalog(config: RunConfig) -> Catalog:
    """The videos that `config` asks for. Raises `CatalogError` naming file, column, row and what to do."""
    raw = _raw(config.catalog, config.languages)
    rows = select_completed(raw, add_row_numbers(raw))
    present = set(pc.unique(rows["language"]).to_pylist())
    if config.languages is not None:
        if config.languages - present and raw.base is None:  # a database gave what was asked for and no more
            present = set(
                pc.unique(select_completed(raw, add_row_numbers(_raw(config.catalog, None)))["language"]).to_pylist()
            )
        check_languages(raw.source, config.languages, present)
        rows = rows.filter(pc.is_in(rows["language"], pa.array(sorted(config.languages))))
    check_ids(raw, rows)
    videos = {
        "video_id": rows["youtube_id"],
        "language": rows["language"],
        "uri": resolve_uris(raw, rows, config.source_prefix),
        "size_bytes": number_column(raw, rows, "size_bytes").cast(pa.int64()),
        "duration_s": number_column(raw, rows, "duration_s"),
    }
    return Catalog(config.catalog, tuple(raw.table.column_names), pa.table(videos, schema=SCHEMA))


def _raw(url: str, languages: frozenset[str] | None) -> RawCatalog:
    scheme, found, address = url.partition("://")
    if found and scheme in BACKENDS:
        rows = _backend(scheme)
        asked = [None] if languages is None else sorted(languages)
        pages = [page for language in asked for page in rows(address, language)]
        table = pa.concat_tables(pages, promote_options="permissive") if pages else pa.table({c: [] for c in REQUIRED})
        return RawCatalog(url, table, None, False)
    if table_format(url):
        return RawCatalog(url, read_table(url), *base_url(url))
    return RawCatalog(url, read_folder(url), "", True)


def _backend(scheme: str) -> Backend:
    return cast(Backend, importlib.import_module(BACKENDS[scheme]).read_pages)
