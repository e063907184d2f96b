"""Make raw rows of a table: its columns by their use, and where each row is a segment, one row for each recording."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from audiopipe.catalog.files import UNDETERMINED, language_of_path, strip_suffix
from audiopipe.catalog.kept_columns import ALL, choose_kept, convert_kept, with_extras
from audiopipe.catalog.layout import COLUMNS, LOCATION, OFFSET, Layout, choose_layout, suggest_columns
from audiopipe.catalog.segment_rows import JsonValue, group_recordings, recordings_table, whole_file
from audiopipe.catalog.tables import base_url, read_table, table_format
from audiopipe.catalog.validate import REQUIRED_COLUMNS, RawCatalog, filter_completed, parse_numbers
from audiopipe.config import RunConfig
from audiopipe.config.columns import ROLES, parse_pairs
from audiopipe.errors import CatalogError
from audiopipe.store.objects import open_filesystem

__all__ = [
    "SEARCHED_ROWS",
    "TablePart",
    "find_base",
    "json_schema",
    "json_values",
    "make_rows",
    "read_part",
    "read_rows",
    "set_language",
]

ABSOLUTE = r"^/|^[A-Za-z][A-Za-z0-9+.-]*://"
# Folders that paths are relative to in tables of other tools, next to the one of the table: Common Voice's `clips`.
SUBFOLDERS = ("", "clips/", "audio/", "wavs/", "wav/")
PARENTS = ("../", "../../")
SEARCHED_ROWS = 3
TYPED_FORMATS = ("parquet", "pq", "jsonl", "ndjson", "json")


@dataclass
class _TableReader:
    """Chooses columns while the names of a table become known, and remembers what it chose."""

    source: str
    config: RunConfig
    names: Sequence[str] = ()
    layout: Layout = field(default_factory=lambda: Layout(None))
    kept: Mapping[str, str] = field(default_factory=dict)

    def choose(self, names: Sequence[str]) -> Callable[[str], bool]:
        """Choose from the names of a table."""
        self.names = names
        self.layout = choose_layout(self.source, names, dict(parse_pairs(self.config.columns)))
        pairs = dict(parse_pairs(self.config.keep_columns))
        self.kept = choose_kept(self.source, names, self.layout.used, pairs)
        # A column of JSON may first occur in a later row.
        wanted = self.layout.used | set(self.kept.values()) | (set(COLUMNS) if self.layout.is_native else set())
        return wanted.__contains__

    def is_typed(self, name: str) -> bool:
        """Check whether only the segments get a column, with the type that it has."""
        return name not in self.layout.used and name in self.kept.values()


@dataclass(frozen=True)
class TablePart:
    """A table, or one of several that are one catalog.

    Attributes:
        names: all its columns.
        rows: a column for each use, as text but for numbers.
        kept: the columns to keep by their new names, as the file has them.
        has_types: the format has types; otherwise all kept columns are texts.
    """

    layout: Layout
    names: Sequence[str]
    rows: pa.Table
    kept: Mapping[str, pa.ChunkedArray]
    has_types: bool


def read_rows(url: str, config: RunConfig) -> RawCatalog:
    """Read the raw rows of a table.

    Raises:
        CatalogError: the table cannot be read or lacks a column; the message lists its columns and suggests `columns`.
    """
    return make_rows(url, read_part(url, config), config, *base_url(url))


def read_part(url: str, config: RunConfig) -> TablePart:
    """Read the columns of a table that have a use or are kept.

    Raises:
        CatalogError: the table cannot be read, or lacks a column that the config names.
    """
    reader = _TableReader(url, config)
    table = read_table(url, reader.choose, reader.is_typed)
    layout = reader.layout
    if layout.is_native:
        present = {name: name for name in COLUMNS if name in table.column_names}
        layout = Layout(None, present | dict(layout.roles))
    columns = {role: table[layout.roles[role]] for role in ROLES if role in layout.roles}
    if layout.has_offsets:
        columns["start_s"] = table[OFFSET]
    rows = _as_text(url, pa.table(columns) if columns else table.select([]))
    kept = {name: table[column] for name, column in reader.kept.items() if column in table.column_names}
    return TablePart(layout, reader.names, rows, kept, table_format(url) in TYPED_FORMATS)


def make_rows(source: str, part: TablePart, config: RunConfig, folder: str, is_local: bool) -> RawCatalog:
    """Make raw rows of a table that was read.

    Args:
        folder: that of the table, with a slash at its end.
        is_local: it is on this machine.

    Raises:
        CatalogError: the table lacks a column or a time of a segment, or a column cannot be kept.
    """
    layout, rows = part.layout, part.rows
    is_all = dict(parse_pairs(config.keep_columns)) == ALL
    extras = convert_kept(source, part.kept, part.has_types, is_all)
    if not layout.is_native and LOCATION in rows.column_names:
        folder = find_base(folder, is_local, rows[LOCATION].slice(0, SEARCHED_ROWS).to_pylist())
    rows = set_language(rows, config.language_from, None if layout.name is None else UNDETERMINED, folder)
    missing = [name for name in REQUIRED_COLUMNS if name not in rows.column_names]
    if missing:
        raise _missing_columns(source, part.names, missing, dict(parse_pairs(config.columns)))
    if not layout.is_native and layout.roles["youtube_id"] == layout.roles[LOCATION]:
        ids = [key and _id_of(key, folder) for key in rows["youtube_id"].to_pylist()]
        rows = rows.set_column(rows.column_names.index("youtube_id"), "youtube_id", pa.array(ids, pa.string()))
    raw = RawCatalog(source, rows, folder, is_local)
    if "start_s" in rows.column_names:
        return _group(raw, layout, extras)
    return replace(raw, table=with_extras(_with_whole_files(rows), extras))


def _id_of(key: str, folder: str) -> str:
    """Return the id of a file that has no other: its path without suffix, relative to the folder if it is below it."""
    return strip_suffix(re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*:)?/+", "", key.removeprefix(folder)))


def _as_text(source: str, rows: pa.Table) -> pa.Table:
    """Return rows whose columns are text, but for numbers."""
    for name in (LOCATION, "youtube_id", "language", "status", "text", "speaker"):
        if name in rows.column_names:
            try:
                column = rows[name].cast(pa.string())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                kind = rows[name].type
                raise CatalogError(f"catalog {source}, column {name!r}: {kind} is not UTF-8 text") from None
            rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def _missing_columns(
    source: str, names: Sequence[str], missing: Sequence[str], mapping: Mapping[str, str]
) -> CatalogError:
    """Describe what a table lacks, and how to go on."""
    listed = ", ".join(names) or "none"
    problem = f"catalog {source} lacks the column{'s'[: len(missing) > 1]} {', '.join(missing)}; it has {listed}"
    suggested = suggest_columns(names, mapping)
    if suggested is None or set(missing) == {"language"}:
        advice = "name the columns to use with --columns, as in youtube_id=path,language=locale"
        if set(missing) == {"language"}:
            advice = (
                "name it with --columns language=COLUMN, or give the language of all videos, as in --language-from en"
            )
        return CatalogError(f"{problem}: {advice}")
    quoted = f"'{suggested}'" if set(suggested) & set(' "&;()') else suggested
    advice = f"use --columns {quoted}"
    if "language" in missing and "language=" not in suggested:
        advice += " and --language-from with the language of all, such as en"
    return CatalogError(f"{problem}: {advice} (look at it first with `audiopipe inspect {source}`)")


def set_language(rows: pa.Table, language_from: str | None, default: str | None, folder: str) -> pa.Table:
    """Return rows with the language that the config says, or a default where the catalog has none.

    Args:
        folder: that of the catalog; the first folder of an absolute path below it is the first one below it.
    """
    if language_from is not None and LOCATION in rows.column_names:
        paths = ((key or "").removeprefix(folder).lstrip("/") for key in rows[LOCATION].to_pylist())
        languages = [language_of_path(path, language_from) for path in paths]
    elif default is not None and "language" not in rows.column_names:
        languages = [default] * rows.num_rows
    elif default is not None:
        languages = [text or default for text in rows["language"].to_pylist()]
    else:
        return rows
    values = pa.chunked_array([pa.array(languages, pa.string())])
    if "language" not in rows.column_names:
        return rows.append_column("language", values)
    return rows.set_column(rows.column_names.index("language"), "language", values)


def find_base(folder: str, is_local: bool, keys: Sequence[str | None]) -> str:
    """Return the folder, with a slash at its end, that paths of another tool's table are relative to.

    It is the first of these that holds one of the given files: the table's folder, a usual one below it, the two above
    it, and for local tables the current one. If none does, the table's.
    """
    relative = [key for key in keys if key and not key.startswith("/") and "://" not in key]
    if not relative:
        return folder
    fs, _ = open_filesystem(folder)
    if isinstance(fs, LocalFileSystem):
        places = [os.path.normpath(folder + part) + "/" for part in (*SUBFOLDERS, *PARENTS)] + [f"{os.getcwd()}/"]
        exists: Callable[[str], bool] = os.path.exists
    else:
        places, exists = [folder + part for part in SUBFOLDERS[:2]], fs.exists
    return next((place for place in places if any(exists(place + key) for key in relative)), folder)


def _with_whole_files(rows: pa.Table) -> pa.Table:
    """Return rows whose texts and speakers are those of whole files."""
    names = [name for name in ("text", "speaker") if name in rows.column_names]
    if not names:
        return rows
    texts, speakers = (
        rows[name].to_pylist() if name in names else [None] * rows.num_rows for name in ("text", "speaker")
    )
    segments = pa.array(map(whole_file, texts, speakers), pa.large_string())
    return rows.drop_columns(names).append_column("segments", pa.chunked_array([segments]))


def _group(raw: RawCatalog, layout: Layout, extras: pa.Table) -> RawCatalog:
    """Group rows that are segments, and completed, by their recording."""
    rows = filter_completed(raw, raw.table.append_column("row", pa.array(range(1, raw.table.num_rows + 1))))
    values = json_values(extras.take(pc.subtract(rows["row"], 1))) if extras.num_columns else None
    starts = parse_numbers(raw, rows, "start_s")
    if layout.has_offsets:
        starts = pc.fill_null(starts, 0.0)
        ends = pc.add(starts, parse_numbers(raw, rows, "duration_s"))
    else:
        ends = parse_numbers(raw, rows, "end_s")
    numbers = {"start_s": starts, "end_s": ends, "size_bytes": parse_numbers(raw, rows, "size_bytes").cast(pa.int64())}
    rows = rows.drop_columns([name for name in numbers if name in rows.column_names])
    for name, column in numbers.items():
        rows = rows.append_column(name, column)
    recordings = group_recordings(raw.source, rows, values)
    table = recordings_table(recordings, has_languages=True)
    kept = tuple((field.name, field.type) for field in json_schema(extras))
    return RawCatalog(raw.source, table, raw.base, raw.is_local, segment_columns=kept)


def json_schema(extras: pa.Table) -> pa.Schema:
    """Return the schema of values that are written as JSON: dates are texts there."""
    fields = [
        pa.field(item.name, pa.string() if pa.types.is_temporal(item.type) else item.type) for item in extras.schema
    ]
    return pa.schema(fields)


def json_values(extras: pa.Table) -> list[dict[str, JsonValue]]:
    rows: list[dict[str, JsonValue]] = extras.cast(json_schema(extras)).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]
