"""Read the raw rows of a catalog from files: a Parquet, CSV or JSONL table, or a folder or glob of media files.

The rules for rows are in `validate.py`. Every error of reading is raised as a `CatalogError` that names the address.
"""

from __future__ import annotations

import glob
import json
import logging
import lzma
import os
import re
import socket
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import IO

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from audiopipe.catalog.local_files import FileInfo, check_regular, list_local_files
from audiopipe.errors import AudiopipeError, CatalogError, StoreError
from audiopipe.redaction import has_secret, redact, without_query
from audiopipe.store.objects import open_filesystem
from audiopipe.store.retry import HTTP_ERRORS, S3_ERRORS, http_cause, s3_error_code, to_store_error
from audiopipe.types import CAPTION_FORMATS

__all__ = ["COLUMNS", "MEDIA_SUFFIXES", "base_url", "list_sizes", "read_folder", "read_table", "table_format"]

COLUMNS = ("youtube_id", "language", "status", "r2_tar_key", "size_bytes", "duration_s")
MEDIA_SUFFIXES = frozenset(("tar", "webm", "opus", "ogg", "m4a", "mp4", "mp3", "flac", "wav", "mkv"))
SIDECAR_SUFFIXES = frozenset({".json", *CAPTION_FORMATS})
TABLE_SUFFIX = re.compile(r"\.(parquet|pq|csv|tsv|jsonl|ndjson)(?:\.(?:gz|bz2|xz|zst))?$", re.IGNORECASE)

# The name of a folder that is a language: two or three letters, optionally a script and a region (zh-Hant-TW).
LANGUAGE_TAG = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z]{4})?(?:[-_](?:[A-Za-z]{2}|\d{3}))?")
NOT_LANGUAGES = MEDIA_SUFFIXES | {"aac", "all", "avi", "mov", "new", "old", "out", "raw", "tmp", "vid", "web"}
UNDETERMINED = "und"  # the code of ISO 639 for a language that is not known

MAX_FOLDER_LISTINGS = 256  # above, one recursive listing of the common parent costs less than one of each folder

NETWORK_ERRORS = (ConnectionError, TimeoutError, socket.gaierror)
# The exceptions of file systems, networks and formats for something that cannot be read.
READ_ERRORS = (
    *(OSError, ValueError, ImportError, EOFError, NotImplementedError, zlib.error, lzma.LZMAError),
    *(pa.ArrowException, *S3_ERRORS, *HTTP_ERRORS),
)

LOG = logging.getLogger(__name__)


def table_format(url: str) -> str | None:
    """Return 'parquet', 'csv', … if the address ends like that of a table."""
    match = TABLE_SUFFIX.search(without_query(url))
    return match and match[1].lower()


def base_url(url: str) -> tuple[str, bool]:
    """Return the folder of a table, with a slash at its end, and whether it is on this machine."""
    fs, path = open_filesystem(url)
    is_local = isinstance(fs, LocalFileSystem)
    return (path if is_local else without_query(url)).rpartition("/")[0] + "/", is_local


def read_table(url: str) -> pa.Table:
    """Read those of `COLUMNS` that a table has, in the order of its rows."""
    table_kind = table_format(url)
    try:
        fs, path = open_filesystem(url)
        if isinstance(fs, LocalFileSystem):
            check_regular(path)
        with fs.open(path, "rb", compression="infer") as file:
            if table_kind in ("parquet", "pq"):
                return _read_parquet(file)
            if table_kind in ("csv", "tsv"):
                return _read_csv(file, "\t" if table_kind == "tsv" else ",")
            return _read_jsonl(file)
    except READ_ERRORS as error:
        remedy = f"check the address, the access to it, and that it is {table_kind}"
        raise _to_catalog_error(url, "read", error, remedy) from error


def read_folder(url: str) -> pa.Table:
    """Make a row for each tar or audio file below a folder, of a glob, or at the address itself.

    The id is the name of the file without its suffix. The language is the name of the folder that the file is in, if
    that folder is below the given one (any folder, for a glob) and looks like a language; else 'und'. The sidecars of
    an audio file are the JSON and captions in its folder whose names begin with its stem and a dot.
    """
    try:
        fs, path = open_filesystem(url)
        base = path.rstrip("/")
        listed = list(_list_files(fs, base))
        files = sorted(file for file in listed if _suffix(file.path) in MEDIA_SUFFIXES)
        sidecars = find_sidecars(files, [file.path for file in listed] if fs.isdir(base) else _list_siblings(fs, files))
    except READ_ERRORS as error:
        raise _to_catalog_error(url, "listed", error, "check the address") from error
    if not files:
        raise CatalogError(
            f"catalog {url}: there is no tar or audio file ({', '.join(sorted(MEDIA_SUFFIXES))}); give a folder or a "
            "glob of such files, or a table that ends in .parquet, .csv or .jsonl"
        )
    paths = [PurePosixPath(file.path) for file in files]
    is_local = isinstance(fs, LocalFileSystem)
    addresses = [file.path if is_local else fs.unstrip_protocol(file.path) for file in files]
    return pa.table(
        {
            "youtube_id": pa.array([path.stem for path in paths], pa.string()),
            "language": pa.array([_language_of(path, base) for path in paths], pa.string()),
            "r2_tar_key": pa.array(addresses, pa.string()),
            "size_bytes": pa.array([file.size for file in files], pa.int64()),
            "sidecars": pa.array([sidecars.get(file.path) for file in files], pa.list_(pa.string())),
        }
    )


def _to_catalog_error(url: str, action: str, error: Exception, remedy: str) -> AudiopipeError:
    """Return `StoreError` or `PermanentStoreError` if the network or the store failed, else `CatalogError`."""
    cause = http_cause(error) or error
    if isinstance(cause, (*NETWORK_ERRORS, *HTTP_ERRORS, *S3_ERRORS)) or s3_error_code(cause):
        converted = to_store_error(f"catalog {url} cannot be {action}", cause)
        if isinstance(converted, AudiopipeError):
            return converted
    return CatalogError(f"catalog {url} cannot be {action} ({_first_line(error)}); {remedy}")


def find_sidecars(files: Iterable[FileInfo], paths: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of the sidecars of each audio file that has some, in order.

    A file belongs to the audio with the longest matching stem: `a.b.vtt` to `a.b.webm`, if that exists, and not to
    `a.webm`.

    Args:
        paths: the files in the folders of `files`.
    """
    audio = {file.path.rpartition(".")[0]: file.path for file in files if _suffix(file.path) != "tar"}
    sidecars: dict[str, list[str]] = {}
    for path in sorted(set(paths)):
        folder, _, name = path.rpartition("/")
        if "." + _suffix(path) not in SIDECAR_SUFFIXES or name.startswith("."):
            continue
        stems = (path[:end] for end in range(len(path) - 1, len(folder), -1) if path[end] == ".")
        owner = next((audio[stem] for stem in stems if stem in audio), None)
        if owner is not None:
            sidecars.setdefault(owner, []).append(name)
    return sidecars


def _list_siblings(fs: fsspec.AbstractFileSystem, files: Iterable[FileInfo]) -> list[str]:
    """List the folders of audio files, once each; many remote ones by one recursive listing of their parent."""
    folders = sorted({file.path.rpartition("/")[0] for file in files if _suffix(file.path) != "tar"})
    if len(folders) > MAX_FOLDER_LISTINGS and not isinstance(fs, LocalFileSystem):
        parent = os.path.commonprefix(folders).rpartition("/")[0]  # noqa: RUF071 - by characters is intended
        return list(fs.find(parent))
    paths = (path for folder in folders for path in fs.ls(folder, detail=False))
    return [path for path in paths if not isinstance(fs, LocalFileSystem) or os.path.isfile(path)]


def list_sizes(uris: list[str]) -> list[int | None]:
    """Return the size of each address in bytes; None if it does not exist or its size is unknown.

    Local files are examined one by one; the folders of remote objects are listed, once each.

    Raises:
        StoreError: the network failed; shards planned without the sizes would be different.
    """
    remote = [uri for uri in uris if "://" in uri]
    folders = sorted({uri.rpartition("/")[0] + "/" for uri in remote})
    is_recursive = len(folders) > MAX_FOLDER_LISTINGS
    if is_recursive:
        folders = [os.path.commonprefix(folders).rpartition("/")[0] + "/"]  # noqa: RUF071 - by characters is intended
    known: dict[str, int | None] = {}
    for folder in folders:
        known.update(_list_folder(folder, is_recursive))
    return [known.get(uri) if "://" in uri else _local_size(uri) for uri in uris]


def _local_size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _list_folder(folder: str, is_recursive: bool) -> Iterator[FileInfo]:
    """Yield the objects of a folder; none for HTTP, which has no listings, or without the permission to list."""
    if folder.startswith(("http://", "https://")) or folder.endswith("://"):
        return
    try:
        fs, path = open_filesystem(folder)
        root = path.rstrip("/") + "/"
        infos = fs.find(root, detail=True).values() if is_recursive else fs.ls(root, detail=True)
        for info in infos:
            yield FileInfo(folder + info["name"].removeprefix(root), info["size"])
    except (FileNotFoundError, PermissionError, NotImplementedError, ImportError, ValueError) as error:
        problem = redact(f"{folder} are unknown, shards are planned without them: {_first_line(error)}")
        LOG.warning("sizes below %s", problem)
    except READ_ERRORS as error:
        message = f"{folder} could not be listed for the sizes of its objects ({_first_line(error)})"
        raise StoreError(message) from (None if has_secret(folder) else error)


def _list_files(fs: fsspec.AbstractFileSystem, base: str) -> Iterator[FileInfo]:
    """Yield every file at, below or matching `base`, except hidden ones."""
    if isinstance(fs, LocalFileSystem):
        yield from list_local_files(base, {*MEDIA_SUFFIXES, *(suffix[1:] for suffix in SIDECAR_SUFFIXES)})
    elif fs.isfile(base):
        yield FileInfo(base, fs.size(base))
    elif fs.isdir(base):
        yield from _visible_files(fs.find(base, detail=True), base)
    elif glob.has_magic(base):
        yield from _visible_files(fs.glob(base, detail=True), "")
    else:
        raise FileNotFoundError("the address does not exist")


def _visible_files(infos: Mapping[str, dict[str, object]], base: str) -> Iterator[FileInfo]:
    for path, info in infos.items():
        if info["type"] == "file" and "/." not in path[len(base) :]:
            size = info["size"]
            yield FileInfo(path, size if isinstance(size, int) else None)


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix[1:].lower()


def _language_of(path: PurePosixPath, base: str) -> str:
    folder = path.parent.name
    is_below = str(path.parent) != base
    return folder if is_below and LANGUAGE_TAG.fullmatch(folder) and folder not in NOT_LANGUAGES else UNDETERMINED


def _read_parquet(file: IO[bytes]) -> pa.Table:
    stored = pq.ParquetFile(file)
    # In this thread only: see `audiopipe.store.parquet`.
    return stored.read([name for name in COLUMNS if name in stored.schema_arrow.names], use_threads=False)


def _read_csv(file: IO[bytes], delimiter: str) -> pa.Table:
    # Every column is read as text: an id may consist of digits, and a bad number is reported later with its row.
    table = pa.csv.read_csv(
        file,
        parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string())),
    )
    return table.select([name for name in COLUMNS if name in table.column_names])


def _read_jsonl(file: Iterable[bytes]) -> pa.Table:
    """Read JSON lines with Python's parser, because Arrow's parses ids that look like dates as dates."""
    columns: dict[str, list[str | None]] = {name: [] for name in COLUMNS}
    present: set[str] = set()
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object")
        present.update(row)
        for name, values in columns.items():
            values.append(_to_text(row.get(name), name, number))
    return pa.table({name: pa.array(columns[name], pa.string()) for name in COLUMNS if name in present})


def _to_text(value: object, column: str, line: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"line {line}, column {column!r}: {value!r} is neither text nor a number")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
