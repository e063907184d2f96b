"""The raw rows of a catalogue in files: a Parquet, CSV or JSONL table, or a folder or glob of the media themselves.

What rows must be like is `catalog_rows`' business. Whatever goes wrong while reading comes out as a `CatalogError` that
names the address.
"""

from __future__ import annotations

import glob
import json
import logging
import lzma
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from audiopipe.errors import CatalogError, StoreError
from audiopipe.store.objects import open_filesystem
from audiopipe.store.retry import HTTP_ERRORS, S3_ERRORS

__all__ = ["COLUMNS", "MEDIA_SUFFIXES", "base_url", "list_sizes", "read_folder", "read_table", "table_format"]

COLUMNS = ("youtube_id", "language", "status", "r2_tar_key", "size_bytes", "duration_s")
MEDIA_SUFFIXES = frozenset(("tar", "webm", "opus", "ogg", "m4a", "mp4", "mp3", "flac", "wav", "mkv"))
TABLE = re.compile(r"\.(parquet|pq|csv|tsv|jsonl|ndjson)(?:\.(?:gz|bz2|xz|zst))?$", re.IGNORECASE)

# A folder's name that is a language: two or three letters, perhaps a script and a region (zh-Hant-TW).
TONGUE = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z]{4})?(?:[-_](?:[A-Za-z]{2}|\d{3}))?")
NO_TONGUE = MEDIA_SUFFIXES | {"aac", "all", "avi", "mov", "new", "old", "out", "raw", "tmp", "vid", "web"}
UNKNOWN = "und"  # ISO 639's own word for it

MOST_FOLDERS = 256  # beyond, one recursive listing of what they share is cheaper than one of each

# What file systems, networks and formats raise when something cannot be read; a mistake of ours is none of these.
BROKEN = (
    *(OSError, ValueError, ImportError, EOFError, NotImplementedError, zlib.error, lzma.LZMAError),
    *(pa.ArrowException, *S3_ERRORS, *HTTP_ERRORS),
)

log = logging.getLogger(__name__)


def table_format(url: str) -> str | None:
    """'parquet', 'csv', … where the address ends like a table's."""
    match = TABLE.search(_address(url))
    return match and match[1].lower()


def base_url(url: str) -> tuple[str, bool]:
    """The folder that a table lies in, with a slash at its end, and whether it is on this machine."""
    fs, path = open_filesystem(url)
    local = isinstance(fs, LocalFileSystem)
    return (path if local else _address(url)).rpartition("/")[0] + "/", local


def read_table(url: str) -> pa.Table:
    """Those of `COLUMNS` that a table has, in the order of its rows."""
    kind = table_format(url)
    try:
        fs, path = open_filesystem(url)
        with fs.open(path, "rb", compression="infer") as file:
            if kind in ("parquet", "pq"):
                return _parquet(file)
            return _csv(file, "\t" if kind == "tsv" else ",") if kind in ("csv", "tsv") else _jsonl(file)
    except BROKEN as error:
        remedy = f"check the address, the access to it, and that it is {kind}"
        raise CatalogError(f"catalogue {url} cannot be read ({_said(error)}); {remedy}") from error


def read_folder(url: str) -> pa.Table:
    """A row for each tar or audio file below a folder, of a glob, or at the address itself.

    The id is the file's name without its suffix. The language is the name of the folder it is in, where that is a
    folder below the one given (any, for a glob) and looks like a language's; else 'und'.
    """
    try:
        fs, path = open_filesystem(url)
        base = path.rstrip("/")
        found = sorted(item for item in _files(fs, base) if _suffix(item[0]) in MEDIA_SUFFIXES)
    except BROKEN as error:
        raise CatalogError(f"catalogue {url} cannot be listed ({_said(error)}); check the address") from error
    if not found:
        raise CatalogError(
            f"catalogue {url}: no tar or audio file there ({', '.join(sorted(MEDIA_SUFFIXES))}); name a folder or a glob of "
            "them, or a table that ends in .parquet, .csv or .jsonl"
        )
    names = [PurePosixPath(name) for name, _ in found]
    local = isinstance(fs, LocalFileSystem)
    return pa.table(
        {
            "youtube_id": pa.array([name.stem for name in names], pa.string()),
            "language": pa.array([_language_of(name, base) for name in names], pa.string()),
            "r2_tar_key": pa.array([n if local else fs.unstrip_protocol(n) for n, _ in found], pa.string()),
            "size_bytes": pa.array([size for _, size in found], pa.int64()),
        }
    )


def list_sizes(uris: list[str]) -> list[int | None]:
    """The size of each address in bytes; None where it is not there or cannot be told.

    On this machine by asking for each, elsewhere by listing the folders they are in, once. Raises `StoreError` if the
    network fails, for shards made without sizes are others.
    """
    remote = [uri for uri in uris if "://" in uri]
    folders = sorted({uri.rpartition("/")[0] + "/" for uri in remote})
    recursive = len(folders) > MOST_FOLDERS
    if recursive:
        folders = [os.path.commonprefix(folders).rpartition("/")[0] + "/"]  # noqa: RUF071 - of characters is right
    known: dict[str, int] = {}
    for folder in folders:
        known.update(_listing(folder, recursive))
    return [known.get(uri) if "://" in uri else _size(uri) for uri in uris]


def _size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _listing(folder: str, recursive: bool) -> Iterator[tuple[str, int]]:
    """Address and size of what is in a folder. Nothing for HTTP, which has no listings, or where we may not list."""
    if folder.startswith(("http://", "https://")) or folder.endswith("://"):
        return
    try:
        fs, path = open_filesystem(folder)
        root = path.rstrip("/") + "/"
        found = fs.find(root, detail=True).values() if recursive else fs.ls(root, detail=True)
        for info in found:
            yield folder + info["name"].removeprefix(root), info["size"]
    except (FileNotFoundError, PermissionError, NotImplementedError, ImportError, ValueError) as error:
        log.warning("sizes below %s are not known, shards are made without: %s", folder, _said(error))
    except BROKEN as error:
        raise StoreError(f"{folder} could not be listed for the sizes of its objects ({_said(error)})") from error


def _files(fs: Any, base: str) -> Iterator[tuple[str, int | None]]:
    """Path and size of every file at, below or matching `base`; hidden ones are left out."""
    if fs.isfile(base):
        yield base, fs.size(base)
    elif fs.isdir(base):
        yield from _walk(base) if isinstance(fs, LocalFileSystem) else _found(fs.find(base, detail=True), base)
    elif glob.has_magic(base) and isinstance(fs, LocalFileSystem):
        yield from ((name, os.path.getsize(name)) for name in glob.iglob(base, recursive=True) if os.path.isfile(name))
    elif glob.has_magic(base):
        yield from _found(fs.glob(base, detail=True), "")
    else:
        raise FileNotFoundError("nothing is there")


def _found(infos: dict[str, Any], base: str) -> Iterator[tuple[str, int | None]]:
    for name, info in infos.items():
        if info["type"] == "file" and "/." not in name[len(base) :]:
            yield name, info["size"]


def _walk(base: str) -> Iterator[tuple[str, int | None]]:
    """Files below a local folder. Links are followed, each folder once."""
    seen = set()
    for folder, below, names in os.walk(base, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real not in seen:
            yield from ((f"{folder}/{n}", os.path.getsize(f"{folder}/{n}")) for n in names if not n.startswith("."))
        seen.add(real)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix[1:].lower()


def _language_of(name: PurePosixPath, base: str) -> str:
    folder = name.parent.name
    named = str(name.parent) != base and TONGUE.fullmatch(folder) and folder not in NO_TONGUE
    return folder if named else UNKNOWN


def _parquet(file: Any) -> pa.Table:
    stored = pq.ParquetFile(file)
    # By this thread alone: see `audiopipe.store.parquet`.
    return stored.read([name for name in COLUMNS if name in stored.schema_arrow.names], use_threads=False)


def _csv(file: Any, delimiter: str) -> pa.Table:
    # Every column as text: an id of digits is no number, and a bad number is found with its row later on.
    table = pa.csv.read_csv(
        file,
        parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string())),
    )
    return table.select([name for name in COLUMNS if name in table.column_names])


def _jsonl(file: Iterable[bytes]) -> pa.Table:
    """JSON lines by Python's own parser: Arrow's takes ids that look like dates for dates."""
    columns: dict[str, list[str | None]] = {name: [] for name in COLUMNS}
    present: set[str] = set()
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object")
        present.update(row)
        for name, values in columns.items():
            values.append(_plain(row.get(name), name, number))
    return pa.table({name: pa.array(columns[name], pa.string()) for name in COLUMNS if name in present})


def _plain(value: Any, name: str, number: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"line {number}, column {name!r}: {value!r} is neither text nor a number")


def _address(url: str) -> str:
    """The URL without the query that a signed one has."""
    return urlsplit(url)._replace(query="", fragment="").geturl() if url.startswith(("http://", "https://")) else url


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
