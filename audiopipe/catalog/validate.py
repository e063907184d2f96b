"""Decide which raw rows of a catalog are videos: check status, language and id, and resolve the address:

    uri = source_prefix / r2_tar_key

`source_prefix` is a folder, by default the folder of the table; a missing slash is added. A key that is an absolute
path or URL is the address itself, if `source_prefix` is not set; an absolute local path is accepted only if the catalog
is local too, so that a row of a remote table cannot name files of this machine.

Every check is one pass over a column; a failure is a `CatalogError` that names the first invalid row and its id.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from audiopipe.catalog.layout import COLUMNS
from audiopipe.config.checks import LANGUAGE
from audiopipe.errors import CatalogError
from audiopipe.redaction import redact_address
from audiopipe.store.objects import open_filesystem

__all__ = [
    "REQUIRED_COLUMNS",
    "RawCatalog",
    "check_ids",
    "check_languages",
    "filter_completed",
    "folder_url",
    "parse_numbers",
    "prepare_rows",
    "resolve_uris",
    "select_completed",
]

REQUIRED_COLUMNS = ("youtube_id", "language", "r2_tar_key")
COMPLETED = "COMPLETED"
RESERVED_NAMES = ("all", "reports")  # the config's word for every language; a folder of the output
MAX_LISTED = 5  # values in an error message


@dataclass(frozen=True)
class RawCatalog:
    """The rows of a backend.

    Attributes:
        base: the folder that keys are relative to by default; "" if keys are addresses already, None for a database.
        is_local: rows may name local files.
        segment_columns: names and types of the kept columns that each segment has, where rows are segments.
    """

    source: str
    table: pa.Table
    base: str | None
    is_local: bool
    segment_columns: tuple[tuple[str, pa.DataType], ...] = ()

    def refuse_rows(self, rows: pa.Table, mask: pa.ChunkedArray, column: str, problem: str) -> None:
        """Raise `CatalogError` for the first row that the mask marks, if any; null marks a row too."""
        marked = rows.filter(pc.fill_null(mask, True))
        if marked.num_rows:
            row, value = marked["row"][0].as_py(), marked[column][0].as_py()
            value = redact_address(value) if isinstance(value, str) else value
            name = "" if column == "youtube_id" else f" (id {marked['youtube_id'][0].as_py()!r})"
            more = f"; the same is wrong in {marked.num_rows - 1} more rows" if marked.num_rows > 1 else ""
            raise CatalogError(f"catalog {self.source}, row {row}{name}, column {column!r}: {value!r} {problem}{more}")


def prepare_rows(raw: RawCatalog) -> pa.Table:
    """Return the rows with text columns as text, and with the number of each row, from 1, in a column `row`.

    Raises:
        CatalogError: a column is missing, or is not text.
    """
    missing = [name for name in REQUIRED_COLUMNS if name not in raw.table.column_names]
    if missing:
        raise CatalogError(
            f"catalog {raw.source} lacks the column{'s'[: len(missing) > 1]} {', '.join(missing)}; it has "
            f"{', '.join(raw.table.column_names) or 'none'} of {', '.join(COLUMNS)}: rename or add what is missing"
        )
    rows = raw.table
    for name in (*REQUIRED_COLUMNS, "status"):
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, _text_column(raw, name))
    if "row" in rows.column_names:
        return rows
    return rows.append_column("row", pa.array(np.arange(1, rows.num_rows + 1)))


def _text_column(raw: RawCatalog, name: str) -> pa.ChunkedArray:
    column = raw.table[name]
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CatalogError(f"catalog {raw.source}, column {name!r}: {column.type} is not UTF-8 text") from error


def filter_completed(raw: RawCatalog, rows: pa.Table) -> pa.Table:
    """Return the rows with status 'COMPLETED', or all if there is no status.

    Raises:
        CatalogError: there are rows, and none has this status.
    """
    if "status" not in rows.column_names:
        return rows
    selected = rows.filter(pc.fill_null(pc.equal(rows["status"], COMPLETED), False))
    if not selected.num_rows and rows.num_rows:
        statuses = [str(status) for status in pc.unique(rows["status"]).to_pylist()][:MAX_LISTED]
        raise CatalogError(f"catalog {raw.source}: no row has status {COMPLETED!r}, but {', '.join(statuses)}")
    return selected


def select_completed(raw: RawCatalog, rows: pa.Table) -> pa.Table:
    """Select the rows of `filter_completed`, and check their languages.

    Raises:
        CatalogError: no row is left in a file, or a language is not a valid name.
    """
    rows = filter_completed(raw, rows)
    if not rows.num_rows and raw.base is not None:
        raise CatalogError(f"catalog {raw.source} has no rows: there is nothing to do")
    languages = pc.unique(rows["language"]).to_pylist()
    invalid = [name for name in languages if name is None or name in RESERVED_NAMES or not LANGUAGE.fullmatch(name)]
    if invalid:
        is_invalid = pc.is_in(rows["language"], pa.array(invalid, pa.string()))
        rule = "is not a valid language: use up to 35 letters, digits, '-' and '_', not 'all' or 'reports'"
        raw.refuse_rows(rows, is_invalid, "language", rule)
    return rows


def check_languages(source: str, languages: frozenset[str], present: set[str]) -> None:
    """Raise `CatalogError` for a language of the config that the catalog does not contain."""
    for language in sorted(languages - present):
        similar = difflib.get_close_matches(language.lower(), sorted(present), n=1)
        hint = f" (did you mean {similar[0]!r}?)" if similar else ""
        known = ", ".join(sorted(present)) or "none"
        if present == {"und"}:
            known += f" (unknown): if all its videos are in {language!r}, add --language-from {language}"
        raise CatalogError(f"catalog {source} has no video in language {language!r}{hint}; its languages are {known}")


def check_ids(raw: RawCatalog, rows: pa.Table) -> None:
    """Raise `CatalogError` for an empty id, or for one that several rows have."""
    raw.refuse_rows(rows, pc.equal(rows["youtube_id"], ""), "youtube_id", "is empty; every video needs an id")
    counts = rows.group_by("youtube_id").aggregate([("row", "count"), ("row", "min")])
    repeated = counts.filter(pc.field("row_count") > 1).sort_by("row_min")
    if repeated.num_rows:
        names = ", ".join(repr(name) for name in repeated["youtube_id"][:MAX_LISTED].to_pylist())
        raise CatalogError(
            f"catalog {raw.source}, column 'youtube_id': {repeated.num_rows} ids appear more than once: {names}"
            f"{', …' if repeated.num_rows > MAX_LISTED else ''} (first in row {repeated['row_min'][0].as_py()}); "
            "keep one row of each"
        )


def resolve_uris(raw: RawCatalog, rows: pa.Table, prefix: str | None) -> pa.ChunkedArray:
    """Return the address of each video.

    Raises:
        CatalogError: a key is empty, unsafe, or does not fit to `source_prefix`.
    """
    if raw.is_local and raw.base is not None and prefix is None:
        rows = _resolve_parents(rows, raw.base)
    keys = rows["r2_tar_key"]
    _check_keys(raw, rows)
    is_absolute = pc.match_substring_regex(keys, "^/|^[A-Za-z][A-Za-z0-9+.-]*://")
    if prefix is not None and raw.base == "":
        raise CatalogError(f"source_prefix {prefix!r} has no effect on {raw.source}, which lists the files themselves")
    if prefix is not None:
        problem = f"is absolute and cannot be combined with source_prefix {prefix!r}; remove one of them"
        raw.refuse_rows(rows, is_absolute, "r2_tar_key", problem)
        return pc.binary_join_element_wise(folder_url(prefix), keys, "")
    if not raw.is_local:
        names_local_file = pc.match_substring_regex(keys, "^/|^(?i:file|local)://")
        problem = "names a local file, which a remote catalog may not do; set source_prefix"
        raw.refuse_rows(rows, names_local_file, "r2_tar_key", problem)
    if raw.base is None:
        raw.refuse_rows(
            rows, pc.invert(is_absolute), "r2_tar_key", "is relative, but there is no folder; set source_prefix"
        )
        return keys
    return pc.if_else(is_absolute, keys, pc.binary_join_element_wise(raw.base, keys, ""))


def _resolve_parents(rows: pa.Table, base: str) -> pa.Table:
    """Resolve `..` in paths of local files, which could be absolute as well; a path that ends with it names no file."""
    keys = rows["r2_tar_key"].combine_chunks()
    has_parent = pc.match_substring_regex(keys, r"(^|/)\.\./")
    is_other = pc.match_substring_regex(keys, r"::|://|\x00|(^|/)\.\.$")
    goes_up = pc.fill_null(pc.and_not(has_parent, is_other), False)
    if not pc.any(goes_up).as_py():
        return rows
    paths = [os.path.normpath(os.path.join(base, key)) for key in keys.filter(goes_up).to_pylist()]
    keys = pc.replace_with_mask(keys, goes_up, pa.array(paths, keys.type))
    return rows.set_column(rows.column_names.index("r2_tar_key"), "r2_tar_key", keys)


def _check_keys(raw: RawCatalog, rows: pa.Table) -> None:
    problems = {
        r"^$|\x00": "is not a key; every video needs one",
        r"(^|/)\.\.(/|$)": "leaves its folder by '..'; write the key without it",
        "::": "contains '::', which chains file systems; rename the object",
        # Buckets are opened with the keys of the environment only. Other addresses may need what they contain.
        r"^(?i:s3a?|gcs|gs|r2)://[^/]*:.*@|^(?i:s3a?|gcs|gs|r2)://[^/]*@": (
            "contains a key of the bucket; remove it and set it in the environment instead"
        ),
    }
    for pattern, problem in problems.items():
        raw.refuse_rows(rows, pc.match_substring_regex(rows["r2_tar_key"], pattern), "r2_tar_key", problem)


def folder_url(prefix: str) -> str:
    """Return the prefix with a slash at its end; a local one as absolute path, for workers in other folders."""
    fs, path = open_filesystem(prefix)
    return (path if isinstance(fs, LocalFileSystem) else prefix).rstrip("/") + "/"


def parse_numbers(raw: RawCatalog, rows: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column as float64 >= 0, null where it is missing; sizes must be whole numbers.

    Raises:
        CatalogError: a value is not such a number.
    """
    if name not in rows.column_names:
        return pa.chunked_array([pa.nulls(rows.num_rows, pa.float64())])
    column = rows[name]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
        is_number = pc.match_substring_regex(column, r"^(?i:[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan)$")
        raw.refuse_rows(rows, pc.fill_null(pc.invert(is_number), False), name, "is not a number")
    try:
        values = column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CatalogError(f"catalog {raw.source}, column {name!r}: {column.type} is not a number") from error
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    is_whole = pc.equal(pc.floor(values), values) if name == "size_bytes" else pa.scalar(True)
    is_valid = pc.and_(pc.and_(pc.greater_equal(values, 0), pc.less(values, 2.0**53)), is_whole)
    problem = "is impossible; leave the value empty if it is unknown"
    raw.refuse_rows(rows, pc.fill_null(pc.invert(is_valid), False), name, problem)
    return values
