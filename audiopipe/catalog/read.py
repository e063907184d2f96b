"""Read the list of videos from a table at any fsspec URL, a folder or glob of tars and audio files, or a database.

A reader only supplies raw rows: `table_rows.py`, `files.py`, those of the formats that `formats.py` recognizes, or a
`Backend` named in `BACKENDS`. Rows may have segments (`segment_rows.py`) and columns to keep
(`kept_columns.py`). `validate.py` decides for all of them which rows are videos.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog.files import list_sizes, read_folder
from audiopipe.catalog.formats import Format, find_format, list_metadata
from audiopipe.catalog.kept_columns import KEPT_FIELD, kept_struct
from audiopipe.catalog.layout import COLUMNS
from audiopipe.catalog.recordings import read_audio_folder, read_recordings
from audiopipe.catalog.table_rows import read_rows
from audiopipe.catalog.tables import table_format
from audiopipe.catalog.validate import (
    REQUIRED_COLUMNS,
    RawCatalog,
    check_ids,
    check_languages,
    parse_numbers,
    prepare_rows,
    resolve_uris,
    select_completed,
)
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError

__all__ = ["CATALOG_SCHEMA", "SEGMENTS_FIELD", "Backend", "Catalog", "is_folder_catalog", "read_catalog"]

SIDECARS = pa.list_(pa.string())  # names of files in the folder of an audio file; null for tars
CATALOG_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("language", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("duration_s", pa.float64()),
        ("sidecars", SIDECARS),
    ]
)
# Next to these, a table has the JSON of `segment_rows.py` and a struct of kept columns, if the catalog has some.
SEGMENTS_FIELD = pa.field("segments", pa.large_string())
# Scheme of a database -> the module whose `read_pages` is its `Backend`; imported only when it is used.
BACKENDS = {"supabase": "audiopipe.catalog.supabase"}


class Backend(Protocol):
    """A database that can be a catalog."""

    def __call__(self, table: str, language: str | None) -> Iterable[pa.Table]:
        """Yield pages of the raw rows of a table, for one language or all; preferably with status 'COMPLETED' only.

        Columns are `files.COLUMNS`, of which status, size_bytes and duration_s may be missing. Order and page sizes are
        free.

        Raises:
            CatalogError: the user has to change something.
            TransientError: another attempt may succeed.
        """


@dataclass(frozen=True)
class Catalog:
    """The validated videos of a catalog that a run may process, in the order of the catalog.

    Attributes:
        columns: those of `COLUMNS` that the catalog has.
        table: columns as `CATALOG_SCHEMA`, and `segments` and `columns` if the catalog has some.
        kept_columns: names and types of the columns that segments get.
    """

    source: str
    columns: tuple[str, ...]
    table: pa.Table
    kept_columns: tuple[tuple[str, pa.DataType], ...] = ()

    def languages(self) -> list[str]:
        """List the languages in alphabetical order."""
        return sorted(pc.unique(self.table["language"]).to_pylist())

    def videos(self, language: str) -> pa.Table:
        """Return the videos of one language; sizes that the catalog lacks come from listings (`files.list_sizes`).

        Raises:
            StoreError: the sizes could not be listed.
        """
        videos = self.table.filter(pc.field("language") == language).combine_chunks()
        sizes = videos["size_bytes"]
        if not sizes.null_count:
            return videos
        is_missing = pc.is_null(sizes)
        listed = pa.array(list_sizes(videos["uri"].filter(is_missing).to_pylist()), pa.int64())
        filled = pc.replace_with_mask(sizes.combine_chunks(), is_missing.combine_chunks(), listed)
        return videos.set_column(CATALOG_SCHEMA.get_field_index("size_bytes"), "size_bytes", filled)


def read_catalog(config: RunConfig) -> Catalog:
    """Read the videos of the config's languages.

    Raises:
        CatalogError: the catalog is invalid; the message names file, column, row and what to do.
        TransientError: the database did not answer.
    """
    raw = _read_raw(config, config.languages)
    rows = select_completed(raw, prepare_rows(raw))
    if config.languages is not None:
        present = _languages(rows)
        if config.languages - present and raw.base is None:  # a database returned the given languages only
            every_row = _read_raw(config, None)
            present = _languages(select_completed(raw, prepare_rows(every_row)))
        check_languages(raw.source, config.languages, present)
        rows = rows.filter(pc.is_in(rows["language"], pa.array(sorted(config.languages))))
    if not rows.num_rows:
        raise CatalogError(f"catalog {raw.source} has no rows of finished videos: there is nothing to do")
    check_ids(raw, rows)
    videos = {
        "video_id": rows["youtube_id"],
        "language": rows["language"],
        "uri": resolve_uris(raw, rows, config.source_prefix),
        "size_bytes": parse_numbers(raw, rows, "size_bytes").cast(pa.int64()),
        "duration_s": parse_numbers(raw, rows, "duration_s"),
        "sidecars": rows["sidecars"] if "sidecars" in rows.column_names else pa.nulls(rows.num_rows, SIDECARS),
    }
    table = pa.table(videos, schema=CATALOG_SCHEMA)
    if "segments" in rows.column_names:
        table = table.append_column(SEGMENTS_FIELD, rows["segments"])
        if config.segments == "file" and pc.any(pc.starts_with(rows["segments"], "[")).as_py():
            raise CatalogError(f"catalog {raw.source} has segments of longer files: leave out --segments file")
    kept = kept_struct(rows)
    if kept is not None:
        table = table.append_column(KEPT_FIELD, kept)
    types = raw.segment_columns if kept is None else tuple((field.name, field.type) for field in kept.type)
    columns = tuple(name for name in raw.table.column_names if name in COLUMNS)
    del raw, rows, videos
    pa.default_memory_pool().release_unused()  # of 500,000 videos 80 MB, which a driver would keep for days
    return Catalog(config.catalog, columns, table, tuple(types))


def is_folder_catalog(url: str) -> bool:
    """Check whether a catalog is a folder or glob, which lists the addresses of its files, and no table."""
    return url.partition("://")[0] not in BACKENDS and table_format(url) is None


def _languages(rows: pa.Table) -> set[str]:
    return set(pc.unique(rows["language"]).to_pylist())


def _read_raw(config: RunConfig, languages: frozenset[str] | None) -> RawCatalog:
    url = config.catalog
    scheme, separator, table_name = url.partition("://")
    if separator and scheme in BACKENDS:
        if config.columns or config.keep_columns:
            raise CatalogError(f"catalog {url}: name its columns in the address, as in supabase://TABLE?youtube_id=id")
        return RawCatalog(url, _read_database(scheme, table_name, languages), base=None, is_local=False)
    catalog_format = find_format(url)
    if catalog_format is Format.TABLE:
        return read_rows(url, config)
    if catalog_format is Format.AUDIO_FOLDER:
        return read_audio_folder(url, list_metadata(url), config)
    if catalog_format in (Format.KALDI, Format.LHOTSE):
        return read_recordings(url, catalog_format is Format.KALDI, config)
    if config.columns or config.keep_columns:
        raise CatalogError(f"catalog {url} is a folder of files and has no columns; give the table that lists them")
    return RawCatalog(url, read_folder(url, config.language_from), base="", is_local=True)


def _read_database(scheme: str, table_name: str, languages: frozenset[str] | None) -> pa.Table:
    read_pages = cast(Backend, importlib.import_module(BACKENDS[scheme]).read_pages)
    selected = [None] if languages is None else sorted(languages)
    pages = [page for language in selected for page in read_pages(table_name, language)]
    if not pages:
        return pa.table({name: [] for name in REQUIRED_COLUMNS})
    return pa.concat_tables(pages, promote_options="permissive")
