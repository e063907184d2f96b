"""What makes a raw row of a catalogue a video: its status, its language, a unique id, and an address:

    uri = source_prefix / r2_tar_key

`source_prefix` is a folder, by default the one that the table lies in; the slash is added where it is missing. A key
that is an absolute path or URL stands for itself, and only where no `source_prefix` is set; an absolute local path only
where the catalogue is local too, so that a row of a remote table cannot name this machine's files.

Every check is one pass over a column; what fails it is a `CatalogError` that names the first such row and its id.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from audiopipe.catalog.files import COLUMNS
from audiopipe.config import CREDENTIALS, LANGUAGE
from audiopipe.errors import CatalogError
from audiopipe.store.objects import open_filesystem

__all__ = [
    "REQUIRED",
    "RawCatalog",
    "add_row_numbers",
    "check_ids",
    "check_languages",
    "number_column",
    "resolve_uris",
    "select_completed",
]

REQUIRED = ("youtube_id", "language", "r2_tar_key")
COMPLETED = "COMPLETED"
RESERVED = ("all", "reports")  # the config's word for every language; a folder of the output


@dataclass(frozen=True)
class RawCatalog:
    """Rows as a backend gives them. `home` is where their keys begin if nobody says otherwise."""

    source: str
    table: pa.Table
    base: str | None
    local: bool

    def refuse_rows(self, rows: pa.Table, mask: pa.ChunkedArray, column: str, what: str) -> None:
        """Raise for the first row that the mask marks, if any."""
        marked = rows.filter(pc.fill_null(mask, True))
        if marked.num_rows:
            row, value = marked["row"][0].as_py(), marked[column][0].as_py()
            named = "" if column == "youtube_id" else f" (id {marked['youtube_id'][0].as_py()!r})"
            more = f"; so are {marked.num_rows - 1} more" if marked.num_rows > 1 else ""
            raise CatalogError(f"catalogue {self.source}, row {row}{named}, column {column!r}: {value!r} {what}{more}")


def add_row_numbers(raw: RawCatalog) -> pa.Table:
    """The rows with their text columns as text and their number, counted from 1, in `row`."""
    missing = [name for name in REQUIRED if name not in raw.table.column_names]
    if missing:
        raise CatalogError(
            f"catalogue {raw.source} lacks the column{'s'[: len(missing) > 1]} {', '.join(missing)}; it has "
            f"{', '.join(raw.table.column_names) or 'none'} of {', '.join(COLUMNS)}: rename or add what is missing"
        )
    rows = raw.table
    for name in (*REQUIRED, "status"):
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, _text(raw, name))
    return rows.append_column("row", pa.array(np.arange(1, rows.num_rows + 1)))


def _text(raw: RawCatalog, name: str) -> pa.ChunkedArray:
    column = raw.table[name]
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CatalogError(f"catalogue {raw.source}, column {name!r}: {column.type} is not UTF-8 text") from error


def select_completed(raw: RawCatalog, rows: pa.Table) -> pa.Table:
    """Rows with status 'COMPLETED' where there is a status, their languages checked."""
    if "status" in rows.column_names:
        kept = rows.filter(pc.fill_null(pc.equal(rows["status"], COMPLETED), False))
        if not kept.num_rows and rows.num_rows:
            seen = [str(status) for status in pc.unique(rows["status"]).to_pylist()][:5]
            raise CatalogError(f"catalogue {raw.source}: no row has status {COMPLETED!r}, but {', '.join(seen)}")
        rows = kept
    if not rows.num_rows and raw.base is not None:
        raise CatalogError(f"catalogue {raw.source} has no rows: nothing to do")
    names = pc.unique(rows["language"]).to_pylist()
    wrong = [name for name in names if name is None or name in RESERVED or not LANGUAGE.fullmatch(name)]
    if wrong:
        mask = pc.is_in(rows["language"], pa.array(wrong, pa.string()))
        rule = "is no name for a language: up to 35 letters, digits, '-' and '_', not 'all' or 'reports'"
        raw.refuse_rows(rows, mask, "language", rule)
    return rows


def check_languages(source: str, languages: frozenset[str], present: set[str]) -> None:
    for language in sorted(languages - present):
        near = difflib.get_close_matches(language.lower(), sorted(present), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        there = ", ".join(sorted(present)) or "none"
        raise CatalogError(f"catalogue {source} has no video in language {language!r}{hint}; there are {there}")


def check_ids(raw: RawCatalog, rows: pa.Table) -> None:
    raw.refuse_rows(rows, pc.equal(rows["youtube_id"], ""), "youtube_id", "is no id; every video needs one")
    counts = rows.group_by("youtube_id").aggregate([("row", "count"), ("row", "min")])
    twice = counts.filter(pc.field("row_count") > 1).sort_by("row_min")
    if twice.num_rows:
        first = ", ".join(repr(name) for name in twice["youtube_id"][:5].to_pylist())
        raise CatalogError(
            f"catalogue {raw.source}, column 'youtube_id': {twice.num_rows} ids are there more than once: {first}"
            f"{', …' if twice.num_rows > 5 else ''} (first in row {twice['row_min'][0].as_py()}); keep one row of each"
        )


def resolve_uris(raw: RawCatalog, rows: pa.Table, prefix: str | None) -> pa.ChunkedArray:
    """The address of each video."""
    keys = rows["r2_tar_key"]
    refused = {
        r"^$|\x00": "is no key; every video needs one",
        r"(^|/)\.\.(/|$)": "leads out of its folder by '..'; write the key without",
        "::": "has '::', which chains file systems; rename the object",
        CREDENTIALS.pattern: "holds a password; take it out and set it in the environment instead",
    }
    for pattern, what in refused.items():
        raw.refuse_rows(rows, pc.match_substring_regex(keys, pattern), "r2_tar_key", what)
    absolute = pc.match_substring_regex(keys, "^/|^[A-Za-z][A-Za-z0-9+.-]*://")
    if prefix is not None and raw.base == "":
        raise CatalogError(f"source_prefix {prefix!r} does nothing for {raw.source}, whose files are where they are")
    if prefix is not None:
        raw.refuse_rows(
            rows, absolute, "r2_tar_key", f"is absolute, which source_prefix {prefix!r} does not go with; drop one"
        )
        return pc.binary_join_element_wise(_folder(prefix), keys, "")
    if not raw.local:
        ours = pc.match_substring_regex(keys, "^/|^(?i:file|local)://")
        raw.refuse_rows(
            rows, ours, "r2_tar_key", "names a local file, which a remote catalogue may not; set source_prefix"
        )
    if raw.base is None:
        raw.refuse_rows(rows, pc.invert(absolute), "r2_tar_key", "is relative to nothing; set source_prefix")
        return keys
    return pc.if_else(absolute, keys, pc.binary_join_element_wise(raw.base, keys, ""))


def _folder(prefix: str) -> str:
    """The prefix with a slash at its end; a local one as an absolute path, for workers elsewhere in the tree."""
    fs, path = open_filesystem(prefix)
    return (path if isinstance(fs, LocalFileSystem) else prefix).rstrip("/") + "/"


def number_column(raw: RawCatalog, rows: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of float64 >= 0, null where there is none; whole numbers for sizes."""
    if name not in rows.column_names:
        return pa.chunked_array([pa.nulls(rows.num_rows, pa.float64())])
    column = rows[name]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
        wrong = pc.invert(pc.match_substring_regex(column, r"^(?i:[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan)$"))
        raw.refuse_rows(rows, pc.fill_null(wrong, False), name, "is no number")
    try:
        values = column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CatalogError(f"catalogue {raw.source}, column {name!r}: {column.type} is no number") from error
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    whole = pc.equal(pc.floor(values), values) if name == "size_bytes" else pa.scalar(True)
    fine = pc.and_(pc.and_(pc.greater_equal(values, 0), pc.less(values, 2.0**53)), whole)
    raw.refuse_rows(
        rows, pc.fill_null(pc.invert(fine), False), name, "is not possible; leave it empty where it is not known"
    )
    return values
